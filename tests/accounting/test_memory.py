"""The memory of a step against what PyTorch really allocates in one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from catgan.accounting.graphs import Allocated, Graph, discriminator_graph, generator_graph
from catgan.accounting.memory import (
    Layout,
    Networks,
    Share,
    copies,
    gathered,
    moment_bytes,
    parameter_bytes,
    peak,
    state,
)
from catgan.checkpoint import reading as checkpoint
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.objective import default_objective
from catgan.recipes import recipe
from catgan.training.step import Step

DDP = Layout(sharded=False, checkpointing=False)


def held(tensors: list[Tensor]) -> int:
    """Bytes of the storages of these tensors, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def slots(step: Step) -> list[Tensor]:
    return [t for o in step.optimizers.values() for s in o.state.values() for t in s.values()]


def share(config: Config) -> Share:
    return Share(1, config.training.batch, config.training.batch)


# -- state -------------------------------------------------------------------------------------------------------------


def test_state_is_what_one_training_step_allocates(tiny_config: Config) -> None:
    step, found = Step(tiny_config, default_objective(tiny_config), torch.device("cpu")), {}

    def watch(name: str) -> Any:
        def before_update(*_: Any) -> None:
            every = [*step.generator.parameters(), *step.discriminator.parameters()]
            found[name] = held([p.grad for p in every if p.grad is not None])

        return before_update

    for name, optimizer in step.optimizers.items():
        optimizer.register_step_pre_hook(watch(name))
    step.run(0, torch.rand(8, 1, 8, 8), torch.arange(8) % 3)
    n = Networks(tiny_config)
    for name in ("generator", "discriminator"):
        expected = state(n, share(tiny_config), DDP, name)
        assert expected["weights"] == held(tensors(step.generator) + tensors(step.discriminator))
        assert expected["gradients"] == found[name]
        assert expected["moments"] == held(slots(step))
        assert expected["ema"] == held(tensors(step.ema))
    networks = {"generator": step.generator, "discriminator": step.discriminator, "ema": step.ema}
    assert n.checkpoint == checkpoint.forecast(networks, tiny_config)


def test_fsdp_divides_the_state_and_keeps_buffers_whole(tiny_config: Config) -> None:
    n = Networks(tiny_config)
    alone, spread = (
        state(n, Share(gpus, 8, 8), Layout(sharded, False), "generator") for gpus, sharded in ((1, False), (4, True))
    )
    assert alone["moments"] / spread["moments"] == 4
    assert alone["gradients"] / spread["gradients"] == 4
    assert 1 < alone["weights"] / spread["weights"] < 4


def test_ddp_keeps_buckets_of_both_networks(tiny_config: Config) -> None:
    n = Networks(tiny_config)
    found = state(n, Share(2, 8, 8), DDP, "generator")["gradients"]
    assert found == parameter_bytes(n.generator) + parameter_bytes(n.discriminator)


def test_moments_are_as_large_as_the_weights_or_twice_and_a_counter_each(tiny_config: Config) -> None:
    g = Networks(tiny_config).generator
    for beta1, kept in ((0.0, 1), (0.5, 2)):
        config = from_dict({"optimizer": {"beta1": beta1}}, tiny_config)
        assert moment_bytes(g, config) == kept * parameter_bytes(g) + 4 * len(list(g.parameters()))


def test_fsdp_needs_no_copies_of_blocks_that_it_gathers_in_bfloat16(tiny_config: Config) -> None:
    """Of those in float32, as the discriminator's are for penalties in it, autocast makes copies."""
    graphs, sharded = {n: Graph(0, 0, 100) for n in ("generator", "discriminator")}, Layout(True, False)
    for penalties, expected in (("float32", 100), ("same", 0)):
        changes = {"training": {"precision": "bfloat16"}, "objective": {"penalty_precision": penalties}}
        n = Networks(from_dict(changes, tiny_config))
        assert copies(n, sharded, graphs) == gathered(n) + expected
        assert copies(n, DDP, graphs) == 200


# -- the two steps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "checkpointing"), [("float32", False), ("bfloat16", False), ("bfloat16", True)])
def test_a_step_needs_what_the_plan_says(precision: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a whole step allocates on a CPU, at the worst moment. A CPU has no fused RMSNorm, and other rules of
    autocast."""
    t = {"batch": 16, "precision": precision, "device": "cpu", "recompute": checkpointing}
    config = from_dict({"training": t}, recipe("digits"))
    monkeypatch.setattr("catgan.nn.layers.SHORT", 0)  # fused attention, as on a GPU
    step = Step(config, default_objective(config), torch.device("cpu"))
    x, y = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
    step.run(0, x, y)
    there = [x, y, *tensors(step.generator), *tensors(step.discriminator), *tensors(step.ema), *slots(step)]
    with Allocated(there) as allocated:
        step.run(1, x, y)
    used = peak(Networks(config), share(config), Layout(False, checkpointing))
    expected = sum(used["bytes"][part] for part in ("activations", "backward", "gathered", "gradients"))
    assert expected == pytest.approx(sum(allocated.most.values()), rel=0.2)


def test_the_discriminator_step_holds_the_generators_graph_only_if_fakes_are_reused(tiny_config: Config) -> None:
    config = from_dict({"training": {"batch": 16}}, tiny_config)
    n = Networks(config)
    reusing = peak(n, Share(1, 8, 8), DDP)["bytes"]["activations"]
    passes = peak(n, Share(1, 16, 8), DDP)["bytes"]["activations"]
    assert reusing - passes == pytest.approx(generator_graph(config).kept * 8)


def test_penalties_add_their_share_of_samples(tiny_config: Config) -> None:
    with_penalty = peak(Networks(tiny_config), share(tiny_config), DDP)["bytes"]["activations"]
    config = from_dict({"objective": {"penalty": 0}}, tiny_config)
    without = peak(Networks(config), share(config), DDP)["bytes"]["activations"]
    assert with_penalty - without == pytest.approx(discriminator_graph(tiny_config).kept * (20 - 16), rel=0.01)


def test_micro_batches_divide_activations(tiny_config: Config) -> None:
    config = replace(tiny_config, training=replace(tiny_config.training, batch=64))
    n = Networks(config)
    halves, quarters = (peak(n, Share(1, 64, micro), DDP)["bytes"]["activations"] for micro in (32, 16))
    assert halves == 2 * quarters
