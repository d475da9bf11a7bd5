"""Relativistic pairing."""

from __future__ import annotations

import math

import torch

from catgan.objective import relativistic


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
