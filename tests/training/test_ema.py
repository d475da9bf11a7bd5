"""The running average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from catgan.training import ema


def test_a_half_life_of_692_8_steps_is_a_decay_of_0_999() -> None:
    assert ema.decay(10**9, 692.8, 0.05) == pytest.approx(0.999, abs=1e-5)
    assert ema.decay(1, 692.8, 0.0) == pytest.approx(0.999, abs=1e-5)


def test_a_young_average_is_shorter() -> None:
    decays = [ema.decay(step, 692.8, 0.05) for step in (1, 10, 100, 1000, 13_000, 14_000, 100_000)]
    assert decays == sorted(decays)
    assert decays[0] < 1e-5  # the first update forgets the untrained start
    assert ema.decay(1000, 692.8, 0.05) == pytest.approx(0.5 ** (1 / 50))
    assert decays[-1] == decays[-2] == ema.decay(1, 692.8, 0.0)


def test_a_half_life_halves() -> None:
    network, average = nn.Linear(2, 2), ema.frozen_copy(nn.Linear(2, 2))
    nn.init.zeros_(network.weight)
    nn.init.ones_(average.weight)
    for _ in range(20):
        ema.update(average, network, ema.decay(1, 20.0, 0.0))
    assert torch.allclose(average.weight, torch.full((2, 2), 0.5), rtol=1e-4)


def test_update_interpolates_parameters_and_copies_buffers() -> None:
    network, average = nn.BatchNorm1d(3), ema.frozen_copy(nn.BatchNorm1d(3))
    nn.init.constant_(network.weight, 5.0)
    network(torch.randn(8, 3))
    ema.update(average, network, 0.75)
    assert torch.allclose(average.weight, torch.full((3,), 0.75 * 1 + 0.25 * 5))
    assert torch.equal(average.running_mean, network.running_mean)
    assert average.num_batches_tracked == network.num_batches_tracked == 1


def test_the_average_is_a_frozen_copy_of_its_own() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    average = ema.frozen_copy(network)
    assert not average.training
    assert network.training
    assert not any(p.requires_grad for p in average.parameters())
    assert all(p.requires_grad for p in network.parameters())
    before = average[0].weight.clone()
    nn.init.zeros_(network[0].weight)
    assert torch.equal(average[0].weight, before)
    ema.update(average, network, 0.0)
    assert torch.equal(average[0].weight, network[0].weight)
    assert not network[0].weight.any()
