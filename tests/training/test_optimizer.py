"""AdamW without the first moment that beta1 = 0 makes useless."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.training.optimizer import MomentlessAdamW, build_optimizer


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(37, 19), nn.SiLU(), nn.Linear(19, 5))


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[Tensor]:
    """Some updates by gradients of very different sizes, of which the first layer misses every third."""
    for step in steps:
        x = torch.randn(8, 37, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad(set_to_none=True)
        (model(x).square().mean() * 10.0 ** (step % 5 - 2)).backward()
        if step % 3 == 2:
            model[0].weight.grad = None  # type: ignore[index]
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_updates_are_those_of_pytorchs_adamw_to_the_bit(tiny_config: Config, decay: float) -> None:
    config = from_dict({"optimizer": {"weight_decay": decay}}, tiny_config)
    ours, theirs = network(), network()
    mine = build_optimizer(config, ours, 3e-3)
    usual = torch.optim.AdamW(theirs.parameters(), lr=3e-3, betas=(0.0, 0.99), weight_decay=decay, fused=True)
    for a, b in zip(learn(ours, mine, range(20)), learn(theirs, usual, range(20)), strict=True):
        assert torch.equal(a, b)
    assert all(state.keys() == {"step", "exp_avg_sq"} for state in mine.state.values())


def test_it_goes_on_from_the_state_of_an_earlier_version(tiny_config: Config) -> None:
    theirs = network()
    usual = torch.optim.AdamW(theirs.parameters(), lr=3e-3, betas=(0.0, 0.99), weight_decay=0.0, fused=True)
    learn(theirs, usual, range(4))
    ours = copy.deepcopy(theirs)
    mine = build_optimizer(tiny_config, ours, 3e-3)
    mine.load_state_dict(copy.deepcopy(usual.state_dict()))
    for a, b in zip(learn(ours, mine, range(4, 12)), learn(theirs, usual, range(4, 12)), strict=True):
        assert torch.equal(a, b)
    assert all(state.keys() == {"step", "exp_avg_sq"} for state in mine.state.values())


def test_other_betas_keep_it(tiny_config: Config) -> None:
    optimizer = build_optimizer(from_dict({"optimizer": {"beta1": 0.5}}, tiny_config), network(), 1e-3)
    assert not isinstance(optimizer, MomentlessAdamW)
