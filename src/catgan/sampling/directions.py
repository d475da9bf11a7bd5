"""Principal directions of style space: what moves samples the most (GANSpace: Härkönen et al., arXiv:2004.02546)."""

from __future__ import annotations

import torch
from torch import Tensor

from catgan.errors import require
from catgan.sampling.pipeline import CATPipeline

STYLES = 4096  # that they are found from, or two of each class


def principal_directions(pipe: CATPipeline, count: int = 10) -> Tensor:
    """Directions (m, d) of w around the means of the classes, each one standard deviation long, the longest first.

    m is `count`, or d if that is less. `pipe(w=w + 2 * directions[0])` moves samples of any class by two deviations.
    The same for the same weights: seeds from 0 on, classes in turn; the largest element of each is positive.
    """
    require(count >= 1, "count", count, "at least 1")
    classes = pipe.config.sample.classes
    each = max(2, STYLES // classes)
    labels = [k for k in range(classes) for _ in range(each)]
    w = pipe.style(labels, range(len(labels))).double().cpu().unflatten(0, (classes, each))
    around = (w - w.mean(1, keepdim=True)).flatten(0, 1)
    variances, vectors = torch.linalg.eigh(around.T @ around / (len(around) - classes))
    found = (vectors * variances.clamp_min(0).sqrt()).T.flip(0)[:count]
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -found, found).float().to(pipe.device)
