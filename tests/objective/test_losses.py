"""The losses of the paper: relativistic pairing, penalties, consistency, representation alignment."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from catgan.discriminator import Discriminator
from catgan.objective import approximate_penalty, consistency, exact_penalty, relativistic, representation
from catgan.objective.losses import stage_weights
from catgan.pyramid import Pyramid

# -- relativistic pairing ----------------------------------------------------------------------------------------------


def test_loss_is_softplus_of_the_negated_difference_per_sample_and_scale() -> None:
    real, fake = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    assert torch.allclose(relativistic(real, fake), (1 + (-(real - fake)).exp()).log())


def test_equal_logits_cost_log_two() -> None:
    logits = torch.randn(4, 3)
    assert torch.allclose(relativistic(logits, logits), torch.full((4, 3), math.log(2)))


def test_a_common_shift_changes_nothing() -> None:
    real, fake = torch.randn(4, 3), torch.randn(4, 3)
    assert torch.allclose(relativistic(real + 10, fake + 10), relativistic(real, fake), atol=1e-5)


def test_discriminator_and_generator_pull_in_opposite_directions() -> None:
    real, fake = (torch.randn(4, 3).requires_grad_() for _ in range(2))
    up_real, down_fake = torch.autograd.grad(relativistic(real, fake).sum(), (real, fake))
    assert (up_real < 0).all()  # descending raises the logits of real samples
    assert (down_fake > 0).all()  # and lowers those of fakes
    (up_fake,) = torch.autograd.grad(relativistic(fake, real.detach()).sum(), fake)
    assert (up_fake < 0).all()


def test_large_differences_stay_finite() -> None:
    real, fake = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])
    assert torch.equal(relativistic(real, fake), torch.tensor([[0.0, 2e4]]))


# -- gradient penalties, approximated and exact ------------------------------------------------------------------------


@pytest.fixture
def discriminate() -> Callable[[Tensor], Tensor]:
    """Full-size samples of class 0 to logits, float64, with logits of order one."""
    network = Discriminator(
        channels=1, classes=1, scales=(2, 4), patches=(1, 2), depth=1, width=8, heads=1, head_dim=8
    ).double()
    torch.nn.init.normal_(network.class_embedding.weight)
    pyramid = Pyramid((2, 4))
    return lambda x: network(pyramid(x), torch.zeros(len(x), dtype=torch.int64))


def averaged_penalty(discriminate: Callable[[Tensor], Tensor], x: Tensor, noise: Tensor, eps: float) -> Tensor:
    """The approximated penalty of x (B, C, S, S), mean over noise (N, 1, C, S, S)."""
    perturbed = discriminate((x + eps * noise).flatten(0, 1)).unflatten(0, (len(noise), len(x)))
    return approximate_penalty(discriminate(x), perturbed, eps).mean(0)


def test_approximation_is_the_squared_difference_quotient() -> None:
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    assert torch.allclose(approximate_penalty(a, b, 0.01), 1e4 * (a - b) ** 2, rtol=1e-4)


def test_exact_penalty_of_a_linear_function_is_its_squared_weights() -> None:
    weight = torch.randn(3, 16)
    penalty = exact_penalty(lambda x: x.flatten(1) @ weight.T, torch.randn(5, 1, 4, 4))
    assert torch.allclose(penalty, weight.square().sum(1).expand(5, 3), atol=1e-5)


def test_mean_over_noise_tends_to_the_exact_penalty(discriminate: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    noise = torch.randn(20_000, 1, 1, 4, 4, dtype=torch.float64)
    exact = exact_penalty(discriminate, x).detach()
    assert exact.min() > 1e-3
    with torch.no_grad():
        assert torch.allclose(averaged_penalty(discriminate, x, noise, 1e-4), exact, rtol=0.05)


def test_error_shrinks_with_eps(discriminate: Callable[[Tensor], Tensor]) -> None:
    """Against the limit for the same noise, (grad . n)^2, the error of the difference quotient is of order eps."""
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    noise = torch.randn(200, 1, 1, 4, 4, dtype=torch.float64)
    inputs = x.clone().requires_grad_()
    logits = discriminate(inputs)
    slopes = [torch.autograd.grad(logits[:, k].sum(), inputs, retain_graph=True)[0] for k in range(2)]
    limit = torch.stack([(g * noise).flatten(2).sum(2).square().mean(0) for g in slopes], dim=1)
    with torch.no_grad():
        errors = [
            (averaged_penalty(discriminate, x, noise, eps) - limit).abs().max().item() for eps in (1e-1, 1e-2, 1e-3)
        ]
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 0.2 * errors[1]


def test_exact_penalty_can_be_trained_with() -> None:
    weight = torch.randn(1, 16, requires_grad=True)
    exact_penalty(lambda x: (x.flatten(1) @ weight.T).tanh(), torch.randn(2, 1, 4, 4)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.any()


def test_area_pooling_regularises_coarse_scales_less() -> None:
    """For the same slope at its own resolution, a scale's penalty shrinks by the number of pixels it averages."""
    pyramid = Pyramid((1, 2, 4))
    penalty = exact_penalty(lambda x: torch.stack([v[:, 0, 0, 0] for v in pyramid(x)], dim=1), torch.randn(1, 1, 4, 4))
    assert torch.allclose(penalty, torch.tensor([[1 / 16, 1 / 4, 1.0]]))


# -- consistency, equation 2 -------------------------------------------------------------------------------------------


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


# -- representation alignment ------------------------------------------------------------------------------------------


def features(count: int = 3, tokens: int = 5, dim: int = 8) -> Tensor:
    return torch.randn(count, tokens, dim)


def test_equal_directions_cost_nothing_and_opposite_ones_the_most() -> None:
    x = features()
    assert representation(x, 3 * x) == pytest.approx([0.0] * 3, abs=1e-6)
    assert representation(x, -0.1 * x) == pytest.approx([4.0] * 3, abs=1e-5)


def test_cls_counts_as_much_as_all_patches_together() -> None:
    x = features(2, 5)
    other = x.clone()
    other[0, 0] *= -1
    other[1, 1:] *= -1
    assert representation(x, other) == pytest.approx([2.0, 2.0], abs=1e-5)
    other = x.clone()
    other[:, 2] *= -1
    assert representation(x, other) == pytest.approx([0.5, 0.5], abs=1e-5)


def test_it_is_computed_in_float32() -> None:
    x = features()
    assert representation(x.bfloat16(), x).dtype == torch.float32


def test_the_target_gets_no_gradient_it_does_not_ask_for() -> None:
    predicted = features().requires_grad_()
    representation(predicted, features()).sum().backward()
    assert predicted.grad is not None
    assert predicted.grad.flatten(1).any(1).all()


def test_at_its_own_resolution_a_stage_is_bound_only_where_its_discriminator_sees() -> None:
    pyramid, h = Pyramid((2, 4, 8)), torch.randn(3, 5, 2, 8, 8, dtype=torch.float64).requires_grad_()
    losses = consistency(h, (0.5, 1.0), pyramid=pyramid)
    for k, weight in enumerate((0.5, 1.0)):
        seen, final = (pyramid(h)[k], pyramid(h[-1])[k])
        assert torch.allclose(losses[:, k], weight * (seen - final).square().flatten(1).mean(1))
    board = torch.ones(8, 8, dtype=torch.float64)
    board[::2, 1::2] = board[1::2, ::2] = -1  # which no coarser scale sees
    unseen = torch.cat([h[:-1] + board, h[-1:]])
    assert torch.allclose(consistency(unseen, (0.5, 1.0), pyramid=pyramid), losses)
    assert not torch.allclose(consistency(unseen, (0.5, 1.0)), consistency(h, (0.5, 1.0)))
