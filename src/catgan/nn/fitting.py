"""Training of small networks that only look: classifiers of a data set, and the like."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from catgan.system.progress import Progress


def fit(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[int], Tensor],
    steps: int,
    learning_rate: float,
    weight_decay: float,
    progress: Progress,
) -> None:
    """Minimise loss(0), loss(1), ... of so many steps by AdamW, learning rates in one cycle up to `learning_rate`."""
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    for step in range(steps):
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        progress.update(step + 1)
    progress.close()
