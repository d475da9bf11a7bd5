"""Approximated gradient penalties against the exact ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from catgan.discriminator import Discriminator
from catgan.objective import approximate_penalty, exact_penalty
from catgan.pyramid import Pyramid


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
