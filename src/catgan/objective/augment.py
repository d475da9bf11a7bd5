"""Differentiable augmentation of what the discriminator sees, as in GAT: colour, translation, cutout, flip.

One row of nine uniform numbers per sample holds all its parameters, so the same row gives the same augmentation
to every stage of a fake, and to a sample and its perturbed twin.
"""

from __future__ import annotations

import torch
from torch import Tensor

from catgan.config import AugmentConfig

PARAMETERS = 9  # uniform numbers that one sample's augmentation consumes


def augment(x: Tensor, u: Tensor, policy: AugmentConfig, anchor: Tensor | None = None) -> Tensor:
    """Augment samples; differentiable in x.

    x: samples (B, C, S, S) or stages (K + 1, B, C, S, S) that share their parameters.
    u: (B, 9), uniform in [0, 1).
    anchor: (B, C, S, S), the sample whose colour means are used: by default x itself, or its last stage.
    Returns the shape of x.
    """
    stages = x.unsqueeze(0) if x.ndim == 4 else x
    if policy.color:
        stages = color(stages, u[:, :4], policy.color, stages[-1] if anchor is None else anchor)
    if policy.flip:
        stages = flip(stages, u[:, 8], policy.flip)
    if policy.translation:
        stages = translate(stages, u[:, 4:6], policy.translation)
    if policy.cutout:
        stages = cutout(stages, u[:, 6:8], policy.cutout)
    return stages.view(x.shape)


def register(images: Tensor, u: Tensor, policy: AugmentConfig, size: int) -> Tensor:
    """Move and mirror raw images (B, 3, P, P) as `augment` does samples of the given size with the same u (B, 9).

    A shift by one pixel of the sample is one by P / size pixels of the image, rounded: 7 for 224 and 32; or with
    policy.register "gat" by size / P, so that the image hardly moves. Grey (zero) moves in. Colour and cutout are left
    out: the encoder sees the whole image.
    """
    x = images.unsqueeze(0)
    if policy.flip:
        x = flip(x, u[:, 8], policy.flip)
    if policy.translation:
        shift, pixels = shifts(u[:, 4:6], size, policy.translation), images.shape[-1]
        moved = shift * pixels / size if policy.register == "proportional" else shift * size / pixels
        x = move(x, moved.round().long())
    return x[0]


def color(x: Tensor, u: Tensor, probability: float, anchor: Tensor) -> Tensor:
    """With the given probability: brightness +-0.5, saturation factor 0 to 2, contrast factor 0.5 to 1.5.

    x: (stages, B, C, S, S); u: (B, 4); anchor: (B, C, S, S). Saturation moves pixels about the anchor's mean over
    channels, contrast about its mean over the sample.
    """
    chosen, brightness, saturation, contrast = (c.view(-1, 1, 1, 1) for c in u.unbind(1))
    grey, mean = anchor.mean(1, keepdim=True), anchor.mean((1, 2, 3), keepdim=True)
    changed = (x + brightness - 0.5 - grey) * (saturation * 2) + grey
    changed = (changed - mean) * (contrast + 0.5) + mean
    return torch.where(chosen < probability, changed, x)


def flip(x: Tensor, u: Tensor, probability: float) -> Tensor:
    """Mirror left and right with the given probability. x: (stages, B, C, S, S); u: (B,)."""
    return torch.where((u < probability).view(-1, 1, 1, 1), x.flip(-1), x)


def shifts(u: Tensor, size: int, ratio: float) -> Tensor:
    """Uniform numbers to whole-pixel shifts in [-m, m], m = ratio * size rounded to the nearest pixel."""
    reach = int(size * ratio + 0.5)
    return (u * (2 * reach + 1)).floor().long() - reach


def translate(x: Tensor, u: Tensor, ratio: float) -> Tensor:
    """Shift by up to ratio * S pixels in each direction, zeros moving in. x: (stages, B, C, S, S); u: (B, 2)."""
    return move(x, shifts(u, x.shape[-1], ratio))


def move(x: Tensor, shift: Tensor) -> Tensor:
    """Shift by whole pixels, zeros moving in. x: (stages, B, C, S, S); shift: (B, 2), rows and columns."""
    stages, batch, channels, size, _ = x.shape
    here = torch.arange(size, device=x.device)
    rows, columns = (here + s for s in shift.T.unsqueeze(-1))  # (B, S): where each pixel comes from
    valid = ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None, :]
    index = rows.clamp(0, size - 1)[:, :, None] * size + columns.clamp(0, size - 1)[:, None, :]
    index = index.view(1, batch, 1, size * size).expand(stages, batch, channels, -1)
    return x.flatten(-2).gather(-1, index).view(x.shape) * valid.view(batch, 1, size, size)


def cutout(x: Tensor, u: Tensor, ratio: float) -> Tensor:
    """Erase a square of side ratio * S whose centre is uniform over the sample. x: (stages, B, C, S, S); u: (B, 2)."""
    size = x.shape[-1]
    side = int(size * ratio + 0.5)
    start = (u * (size + 1 - side % 2)).floor().long() - side // 2
    here = torch.arange(size, device=x.device)
    rows, columns = ((here >= s) & (here < s + side) for s in start.T.unsqueeze(-1))
    return x * ~(rows[:, None, :, None] & columns[:, None, None, :])
