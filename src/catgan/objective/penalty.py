"""Gradient penalties R1 (on real samples) and R2 (on fakes)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def approximate_penalty(logits: Tensor, perturbed: Tensor, eps: float) -> Tensor:
    """Finite-difference penalty of Seaweed-APT: ((d_k(x) - d_k(x + eps * n)) / eps)^2, per sample and scale.

    logits, perturbed: (b, K + 1), for the same samples without and with noise n ~ N(0, I). Its mean over n tends
    to |grad d_k|^2 as eps tends to 0.
    """
    return ((logits - perturbed) / eps).square()


def exact_penalty(discriminate: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """|grad_x d_k(x)|^2 by autograd, per sample and scale: the reference for `approximate_penalty`.

    discriminate: full-size samples (B, C, S, S) to logits (B, K + 1), augmentation and resizing included.
    Differentiable once more, so that it can be trained with; costs one backward pass per scale.
    """
    x = x.detach().requires_grad_()
    logits = discriminate(x)
    gradients = [torch.autograd.grad(logits[:, k].sum(), x, create_graph=True)[0] for k in range(logits.shape[1])]
    return torch.stack([g.square().flatten(1).sum(1) for g in gradients], dim=1)
