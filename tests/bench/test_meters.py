"""What is counted is arithmetic that the result needs, whichever kernel does it; what is timed is repeated."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catgan.accounting.compute import compute, training_passes
from catgan.bench.meters import Clock, Part, Timing, counting
from catgan.bench.parts import FORWARD, HALVES, STEP, MeasuredStep, forward_part, inputs, measured, training_part
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.recipes import recipe

CPU = torch.device("cpu")


def counted(run: Callable[[], Any]) -> float:
    with counting() as operations:
        return Part.of("it", run).run(operations)["it"]


def spelled_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


def test_a_matrix_product_counts_two_operations_for_each_multiplication() -> None:
    assert counted(lambda: torch.ones(3, 5) @ torch.ones(5, 7)) == 2 * 3 * 5 * 7


@pytest.mark.parametrize("mask", [None, torch.ones(40, 40, dtype=torch.bool)])
def test_fused_attention_counts_what_its_matrix_products_do(mask: Tensor | None) -> None:
    q, k, v = (torch.randn(2, 3, 40, 8, requires_grad=True) for _ in range(3))
    forward = counted(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
    both = counted(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask).sum().backward())
    assert forward == counted(lambda: spelled_out(q, k, v)) == 2 * 2 * 2 * 3 * 40 * 40 * 8
    assert both == counted(lambda: spelled_out(q, k, v).sum().backward()) == 3 * forward


def test_compiled_modules_are_counted_too() -> None:
    layer = nn.Linear(5, 7)
    layer.compile(backend="inductor")  # would need a compiler, were it not run eagerly
    assert counted(lambda: layer(torch.ones(3, 5))) == 2 * 3 * 5 * 7


@pytest.mark.parametrize("name", ["digits", "fashion-mnist"])
def test_a_forward_pass_counts_what_the_accounting_says(name: str) -> None:
    config = recipe(name)
    step = MeasuredStep(config, CPU)
    _, y = inputs(config, CPU)
    with counting() as operations:
        flop = forward_part(step, y).run(operations)[FORWARD]
    assert flop == pytest.approx(2e9 * compute(config)["generator"]["gmacs"] * len(y), rel=1e-9)


@pytest.mark.parametrize("reuse", [True, False])
def test_a_step_counts_nearly_the_passes_of_the_accounting(reuse: bool) -> None:
    """Nobody asks for the gradients of real samples, z and classes; attention in the frozen discriminator costs twice
    its forward pass backward, where the accounting has one for everything."""
    config = from_dict({"training": {"batch": 8, "reuse_fakes": reuse}}, recipe("digits"))
    step, (costs, passes) = MeasuredStep(config, CPU), (compute(config), training_passes(config))
    with counting() as operations:
        work = training_part(step, *inputs(config, CPU)).run(operations)
    expected = sum(passes[n] * costs[n]["gmacs"] for n in ("generator", "discriminator")) * 2e9 * 8
    assert work[STEP] == pytest.approx(expected, rel=0.02)
    halves = sum(work[name] for name in HALVES.values())
    fakes = 0 if reuse else 2e9 * 8 * costs["generator"]["gmacs"]  # in neither half
    assert halves + fakes == pytest.approx(work[STEP], rel=1e-9)


def test_without_the_encoder_a_recipe_is_valid_and_otherwise_the_same() -> None:
    config = measured(recipe("cat-b2")).validate()
    assert (config.objective.representation, config.discriminator.representation_dim, config.encoder.path) == (
        0,
        0,
        None,
    )
    assert config.generator == recipe("cat-b2").generator
    assert measured(config) == config


def test_the_halves_of_a_step_take_no_longer_than_the_whole(tiny_config: Config) -> None:
    step = MeasuredStep(tiny_config, CPU)
    part = training_part(step, *inputs(tiny_config, CPU))
    part.run(Clock(CPU))
    took = part.run(Clock(CPU))
    halves = [took[name] for name in HALVES.values()]
    assert all(seconds > 0 for seconds in halves)
    assert sum(halves) <= took[STEP]


def test_processor_time_leaves_out_what_others_take() -> None:
    part = Part.of("it", lambda: time.sleep(0.1))
    assert part.run(Clock(CPU))["it"] >= 0.1
    assert part.run(Clock(CPU, cpu_time=True))["it"] < 0.05


def test_repeated_runs_are_averaged_by_name() -> None:
    values = iter([1.0, 2.0, 6.0])
    part = Part(lambda meter: {"it": next(values)})
    assert part.repeated(Clock(CPU), 3) == {"it": 3.0}


def test_a_timing_is_its_median_and_quartiles() -> None:
    timing = Timing((5.0, 1.0, 2.0, 4.0, 3.0))
    assert (timing.median, timing.quartiles) == (3.0, (2.0, 4.0))
    assert Timing((7.0,)).description() == {"median": 7.0, "low": 7.0, "high": 7.0, "runs": [7.0]}
