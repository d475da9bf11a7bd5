"""Cross-scale consistency, equation 2."""

from __future__ import annotations

import pytest
import torch

from catgan.objective import consistency
from catgan.objective.consistency import stage_weights


@pytest.mark.parametrize(
    ("stages", "weights"), [(1, ()), (2, (1,)), (4, (1 / 3, 1 / 2, 1)), (6, (1 / 5, 1 / 4, 1 / 3, 1 / 2, 1))]
)
def test_weights_are_one_over_the_distance_to_the_last_stage(stages: int, weights: tuple[float, ...]) -> None:
    assert stage_weights(stages) == pytest.approx(weights)


def test_the_mean_is_equation_two_for_four_stages() -> None:
    h = torch.randn(4, 5, 2, 8, 8, dtype=torch.float64)
    expected = sum(w * (h[k] - h[3]).pow(2).mean() for k, w in enumerate((1 / 3, 1 / 2, 1))) / 3
    losses = consistency(h, stage_weights(4))
    assert losses.shape == (5, 3)
    assert torch.allclose(losses.mean(), expected)


def test_losses_are_per_sample_and_stage() -> None:
    h = torch.zeros(3, 2, 1, 4, 4)
    h[1, 0] = 2.0
    assert torch.equal(consistency(h, (1.0, 0.5)), torch.tensor([[0.0, 2.0], [0.0, 0.0]]))


def test_stages_that_agree_cost_nothing() -> None:
    h = torch.randn(5, 2, 8, 8).expand(4, -1, -1, -1, -1)
    assert not consistency(h, stage_weights(4)).any()


def test_gradient_flows_into_every_stage() -> None:
    h = torch.randn(4, 2, 1, 4, 4).requires_grad_()
    (grad,) = torch.autograd.grad(consistency(h, stage_weights(4)).mean(), h)
    assert all(g.any() for g in grad)
    assert torch.allclose(grad.sum(0), torch.zeros_like(grad[0]), atol=1e-6)  # h_K is pulled as much as it pulls


def test_a_detached_anchor_gets_no_gradient() -> None:
    h = torch.randn(4, 2, 1, 4, 4).requires_grad_()
    detached = consistency(h, stage_weights(4), detach_anchor=True)
    assert torch.equal(detached, consistency(h, stage_weights(4)))
    (grad,) = torch.autograd.grad(detached.mean(), h)
    assert not grad[-1].any()
    assert all(g.any() for g in grad[:-1])
