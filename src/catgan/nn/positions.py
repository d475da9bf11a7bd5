"""Where a token stands: fixed sin-cos position tokens and axial rotary embedding on a square grid."""

from __future__ import annotations

import torch
from torch import Tensor

THETA = 10_000.0


def sincos_positions(grid: int, width: int) -> Tensor:
    """Fixed 2-D sin-cos position tokens, shape (grid * grid, width), values in [-1, 1], row-major.

    Half of the width encodes the row, half the column; `width` must be divisible by 4.
    """
    frequencies = THETA ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = axis[:, None].expand(grid, grid, -1)
    columns = axis[None, :].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=2).reshape(grid * grid, width).float()


def rotary_table(grid: int, head_size: int, unrotated: int = 0) -> Tensor:
    """Cosines and sines of the axial rotary embedding, shape (2, unrotated + grid * grid, head_size / 2).

    The first quarter of a head's channel pairs turns with the row, the other with the column. The first
    `unrotated` rows (class tokens) are the identity. `head_size` must be divisible by 4.
    """
    frequencies = THETA ** -(torch.arange(head_size // 4, dtype=torch.float64) / (head_size // 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    rows = angles[:, None].expand(grid, grid, -1)
    columns = angles[None, :].expand(grid, grid, -1)
    turns = torch.cat([rows, columns], dim=2).reshape(grid * grid, head_size // 2)
    turns = torch.cat([turns.new_zeros(unrotated, head_size // 2), turns])
    return torch.stack([turns.cos(), turns.sin()]).float()


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn queries or keys by their position. x: (B, T, heads, head_size); table: (2, T, head_size / 2).

    Half-split layout: channel i is paired with channel i + head_size / 2.
    """
    cos, sin = table[:, :, None]
    first, second = x.chunk(2, dim=-1)
    turned = torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)
    return torch.cat(turned, dim=-1)
