"""Fixed sin-cos position tokens and the axial rotary embedding."""

from __future__ import annotations

import itertools

import pytest
import torch

from catgan.nn.positions import rotary_table, rotate, sincos_positions


@pytest.mark.parametrize(("grid", "width"), [(1, 4), (4, 8), (16, 64), (32, 16)])
def test_sincos_positions_are_distinct_float32_and_bounded(grid: int, width: int) -> None:
    positions = sincos_positions(grid, width)
    assert positions.shape == (grid * grid, width)
    assert positions.dtype == torch.float32
    assert positions.abs().max() <= 1
    distances = torch.cdist(positions, positions) + 9 * torch.eye(grid * grid)
    assert distances.min() > 1e-2


def test_half_of_a_position_encodes_the_row_and_half_the_column() -> None:
    positions = sincos_positions(5, 16).view(5, 5, 16)
    assert torch.equal(positions[:, :, :8], positions[:, :1, :8].expand(5, 5, 8))
    assert torch.equal(positions[:, :, 8:], positions[:1, :, 8:].expand(5, 5, 8))
    assert torch.equal(positions[..., :8], positions[..., 8:].transpose(0, 1))


def test_rotary_scores_depend_on_relative_row_and_column_only() -> None:
    grid = 5
    q, k = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    table = rotary_table(grid, 8).double()
    turned_q, turned_k = (rotate(x.expand(1, grid * grid, 1, 8), table)[0, :, 0] for x in (q, k))
    scores = turned_q @ turned_k.T
    by_offset: dict[tuple[int, int], list[torch.Tensor]] = {}
    for (i, a), (j, b) in itertools.product(enumerate(itertools.product(range(grid), repeat=2)), repeat=2):
        by_offset.setdefault((a[0] - b[0], a[1] - b[1]), []).append(scores[i, j])
    groups = [torch.stack(group) for group in by_offset.values()]
    assert len(groups) == (2 * grid - 1) ** 2
    assert all(group.max() - group.min() < 1e-5 for group in groups)
    means = torch.stack([group.mean() for group in groups]).sort().values
    assert means.diff().min() > 1e-7  # and the offset does matter


def test_rows_turn_the_first_half_of_the_pairs_and_columns_the_other() -> None:
    table = rotary_table(4, 16).view(2, 4, 4, 8)
    assert torch.equal(table[:, :, :, :4], table[:, :, :1, :4].expand(2, 4, 4, 4))
    assert torch.equal(table[:, :, :, 4:], table[:, :1, :, 4:].expand(2, 4, 4, 4))
    assert not torch.equal(table[:, 1, 0], table[:, 0, 1])


def test_class_tokens_are_not_rotated_and_patches_are() -> None:
    table = rotary_table(3, 8, unrotated=1)
    x = torch.randn(2, 10, 2, 8)
    turned = rotate(x, table)
    assert table.shape == (2, 10, 4)
    assert torch.equal(turned[:, 0], x[:, 0])
    assert torch.equal(turned[:, 1], x[:, 1])  # the patch at row 0, column 0
    assert (turned[:, 2:] - x[:, 2:]).abs().amax((0, 2, 3)).min() > 1e-2
    assert torch.equal(table[:, 1:], rotary_table(3, 8))


def test_rotation_keeps_lengths() -> None:
    x = torch.randn(2, 16, 3, 8)
    assert torch.allclose(rotate(x, rotary_table(4, 8)).norm(dim=-1), x.norm(dim=-1), rtol=1e-5)
