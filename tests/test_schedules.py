"""Schedules are functions of the step alone."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from catgan.config import Config
from catgan.objective import Term, default_objective
from catgan.schedules import geometric, rate
from catgan.training.step import Step

CPU = torch.device("cpu")


def test_geometric_goes_by_equal_factors_and_stays() -> None:
    values = [geometric(1.0, 0.01, 4, step) for step in range(7)]
    assert values[0] == 1.0
    assert values[4:] == pytest.approx([0.01] * 3)
    assert [b / a for a, b in itertools.pairwise(values[:5])] == pytest.approx([0.01**0.25] * 4)
    assert geometric(0.3, 0.01, 0, 10**6) == 0.3


def test_learning_rates_rise_evenly_and_fall_with_the_root_of_the_step() -> None:
    assert [rate(0, 0, step) for step in (0, 7, 10**6)] == [1.0, 1.0, 1.0]
    assert [rate(4, 0, step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [rate(0, 100, step) for step in (0, 100, 400, 10_000)] == pytest.approx([1.0, 1.0, 0.5, 0.1])


def test_networks_are_updated_by_the_rate_of_the_step(tiny_config: Config) -> None:
    """Of one gradient half the learning rate makes half the step. The generator's is that of another discriminator."""
    moved = []
    x = torch.rand(4, 1, 8, 8) * 2 - 1
    for warmup in (0, 2):
        optimizer = dataclasses.replace(tiny_config.optimizer, lr_warmup=warmup, weight_decay=0.0)
        engine = Step(dataclasses.replace(tiny_config, optimizer=optimizer), default_objective(tiny_config), CPU)
        networks = (engine.discriminator, engine.generator)
        before = [[p.detach().clone() for p in n.parameters()] for n in networks]
        engine.run(0, x, torch.arange(4) % 3)
        changes = [
            torch.cat([(new - old).flatten() for new, old in zip(n.parameters(), olds, strict=True)])
            for n, olds in zip(networks, before, strict=True)
        ]
        moved.append(changes)
    (whole, other), (half, generator) = moved
    assert whole.abs().max() > 0
    assert torch.allclose(half, whole / 2, atol=1e-7)
    assert generator.abs().max().item() == pytest.approx(other.abs().max().item() / 2, rel=1e-3)


def test_the_penalty_weight_follows_its_anneal(tiny_config: Config) -> None:
    objective = dataclasses.replace(tiny_config.objective, penalty=0.4, penalty_end=0.1, penalty_anneal=10)
    terms = {t.name: t for t in default_objective(dataclasses.replace(tiny_config, objective=objective)).discriminator}
    assert [terms["r1"].weight_at(step) for step in (0, 5, 10, 99)] == pytest.approx([0.2, 0.1, 0.05, 0.05])
    assert terms["r2"].weight_at(5) == terms["r1"].weight_at(5)
    assert terms["adversarial"].weight_at(5) == 1.0


def test_a_term_may_be_switched_on_late(tiny_config: Config) -> None:
    """A weight that is a function of the step changes the gradients from that step on, and only then."""
    late = Term("late", lambda step: float(step >= 1), lambda s: s.h[-1].square().flatten(1).mean(1))
    outcomes = []
    for objective in (default_objective(tiny_config), default_objective(tiny_config).with_term("generator", late)):
        engine = Step(tiny_config, objective, torch.device("cpu"))
        history = []
        for step in (0, 1):
            engine.run(step, torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64))
            history.append(engine.generator.outputs[2].pixels.weight.detach().clone())
        outcomes.append(history)
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    assert not torch.equal(outcomes[0][1], outcomes[1][1])
