"""What a GPU must do as the CPU does, each path once: `make gpu`. CATGAN_GPU=cpu runs the same code without one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from catgan.accounting.memory import Layout, Networks, Share, peak
from catgan.bench.memory import peak_bytes
from catgan.checkpoint import reading as checkpoint
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images
from catgan.draws import normal, uniform
from catgan.encoders import load_dino, load_vae
from catgan.encoders.vision import load_vision
from catgan.evaluation.evaluate import evaluate
from catgan.objective import default_objective
from catgan.recipes import recipe
from catgan.sampling.pipeline import load
from catgan.system.files import read_rows
from catgan.system.processes import Processes
from catgan.training import train
from catgan.training.batches import Batch
from catgan.training.parallel import Parallel
from catgan.training.step import Metrics, Step

ON_CPU = os.environ.get("CATGAN_GPU") == "cpu"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (ON_CPU or torch.cuda.is_available()), reason="needs a CUDA GPU: make gpu"),
]
DEVICE = torch.device("cpu" if ON_CPU else "cuda")
CPU = torch.device("cpu")
BFLOAT16 = {"training": {"precision": "bfloat16"}}


@pytest.fixture(autouse=True)
def no_graphs() -> None:
    """Of the tests before."""
    torch._dynamo.reset()


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return from_dict({"training": {"device": DEVICE.type, "compile": False}}, tiny_config)


@pytest.fixture
def wide(config: Config) -> Config:
    """Sizes at which the kernels of large networks run: heads of 64 channels, four scales."""
    return from_dict(
        {
            "sample": {"size": 32, "channels": 4, "scales": [4, 8, 16, 32]},
            "generator": {"depth": 4, "width": 128, "heads": 2, "patch": 2},
            "discriminator": {"depth": 4, "width": 128, "heads": 2, "patches": [2, 2, 2, 2], "head_dim": 64},
        },
        config,
    )


def batch(config: Config, device: torch.device = DEVICE) -> Batch:
    s, n = config.sample, config.training.batch
    x = torch.rand(n, s.channels, s.size, s.size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch(x, torch.arange(n) % s.classes, None).to(device)


def steps(
    config: Config, count: int = 2, device: torch.device = DEVICE, parallel: Parallel | None = None
) -> tuple[Step, list[Metrics]]:
    step = Step(config.validate(), default_objective(config), device, parallel=parallel)
    x, y, _ = batch(config, device)
    return step, [{n: v.cpu() for n, v in step.run(k, x, y).items()} for k in range(count)]


def check_close(found: Metrics, expected: Metrics, tolerance: float) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@contextmanager
def without_waiting() -> Iterator[None]:
    """An error where the CPU waits for the GPU."""
    if DEVICE.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if DEVICE.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 70_000], ids=["few", "many"])
def test_draws_have_the_bits_of_the_cpu(count: int) -> None:
    """Drawn in NumPy and moved if they are few, drawn on the device if they are many."""
    for draw in (normal, uniform):
        here, there = (draw(7, 1, 5, range(2), (count,), device) for device in (CPU, DEVICE))
        assert torch.equal(here, there.cpu())


def test_recorded_draws_have_the_bits_of_the_cpu_at_the_step_of_each_replay() -> None:
    keys = [(draw, samples) for draw in (normal, uniform) for samples in (range(3), [1, 4])]

    def drawn(step: int | Tensor, device: torch.device) -> list[Tensor]:
        return [draw(7, 1, step, samples, (2, 20), device) for draw, samples in keys]

    step = torch.tensor(0, device=DEVICE)
    found = drawn(step, DEVICE)
    if not ON_CPU:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = drawn(step, DEVICE)
    for number in (1, 5, 2**35 + 1):
        step.fill_(number)
        if ON_CPU:
            found = drawn(step, DEVICE)
        else:
            graph.replay()
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, drawn(number, CPU), strict=True))


def test_a_step_in_float32_is_that_of_the_cpu(config: Config, wide: Config) -> None:
    for c in (config, wide):
        (_, there), (_, here) = steps(c, 1), steps(c, 1, CPU)
        check_close(there[0], here[0], 2e-3)


def test_under_bfloat16_penalties_are_those_of_float32_and_losses_near(wide: Config) -> None:
    changes = {"objective": {"penalty_precision": "float32"}}
    (_, exact), (_, found) = steps(wide, 1), steps(from_dict(BFLOAT16 | changes, wide), 1)
    for name in ("discriminator/r1", "discriminator/r2"):
        torch.testing.assert_close(found[0][name], exact[0][name], rtol=0.1, atol=1e-4)
    for name in ("discriminator/adversarial", "generator/adversarial", "generator/consistency"):
        torch.testing.assert_close(found[0][name], exact[0][name], rtol=0.05, atol=5e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_blocks_give_the_losses_of_eager_ones(wide: Config, precision: str) -> None:
    if ON_CPU:
        pytest.skip("takes minutes on a CPU, where other tests do it")
    c = from_dict({"training": {"precision": precision}}, wide)
    (_, eager), (_, compiled) = steps(c, 1), steps(from_dict({"training": {"compile": True}}, c), 1)
    check_close(compiled[0], eager[0], 1e-3 if precision == "float32" else 0.1)


def test_micro_batches_and_recomputed_activations_change_nothing(config: Config) -> None:
    (_, whole), (_, parts) = steps(config, 1), steps(
        from_dict({"training": {"micro_batch": 4, "recompute": True}}, config), 1
    )  # fmt: skip
    check_close(parts[0], whole[0], 2e-3)


# -- speed and memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "replayed"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_step_waits_for_the_gpu(config: Config, precision: str, graph: bool) -> None:
    """But for an eager one's consistency loss, which brings its few weights along in each step."""
    changes = {
        "training": {"precision": precision, "cuda_graph": graph and not ON_CPU},
        "objective": {"consistency": 0.1 if graph else 0.0},
    }
    step, _ = steps(from_dict(changes, config), 4)
    x, y, _ = batch(config)
    with without_waiting():
        for k in (4, 5):
            step.run(k, x, y)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_replayed_steps_are_those_that_are_not(wide: Config, compiled: bool) -> None:
    """With schedules that change from step to step."""
    if ON_CPU and compiled:
        pytest.skip("takes minutes on a CPU")
    changes = {
        "objective": {"penalty_end": 0.1, "penalty_anneal": 5},
        "optimizer": {"lr_warmup": 4, "lr_decay": 3},
    }
    found = {}
    for graph in (False, True):
        c = from_dict(changes | {"training": {"compile": compiled, "cuda_graph": graph and not ON_CPU}}, wide)
        step, metrics = steps(c, 8)
        found[graph] = [*metrics, {n: p.detach().cpu().clone() for n, p in step.generator.named_parameters()}]
        assert ON_CPU or (step.graph is not None and step.graph.graph is not None) == graph
    for a, b in zip(found[False], found[True], strict=True):
        check_close(b, a, 2e-2)


@pytest.mark.parametrize("name", ["digits", "fashion-mnist"])
def test_a_step_allocates_what_the_plan_says(name: str) -> None:
    c = recipe(name)
    c = replace(c, training=replace(c.training, batch=16, device=DEVICE.type, compile=False))
    step, _ = steps(c, 2)
    x, y, _ = batch(c)
    measured = peak_bytes(lambda: step.run(2, x, y), DEVICE)
    share = Share(1, 16, 16)
    parts = peak(Networks(c), share, Layout(sharded=False, checkpointing=False))["bytes"]
    planned = sum(parts[n] for n in ("gradients", "gathered", "activations", "backward"))
    print(f"{name}: {measured / 2**20:.1f} MiB measured, {planned / 2**20:.1f} MiB planned")
    assert 0.6 < planned / measured < 1.6


@pytest.fixture
def one_sharded() -> Iterator[Parallel]:
    """FSDP2 in a process group of one: shards are whole, all else is as with several."""
    torch.distributed.init_process_group(
        "gloo" if ON_CPU else "nccl", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    parallel = Parallel(Processes(), DEVICE)
    parallel.sharded = True
    yield parallel
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sharded_steps_are_those_of_whole_networks(
    wide: Config, one_sharded: Parallel, precision: str, compiled: bool
) -> None:
    """Generators gathered in bfloat16 there, discriminators in float32 for their penalties."""
    if ON_CPU and compiled:
        pytest.skip("takes minutes on a CPU, where other tests do it")
    t = {"precision": precision, "compile": compiled, "cuda_graph": False}
    c = from_dict({"training": t, "optimizer": {"lr_generator": 1e-5, "lr_discriminator": 1e-5}}, wide)
    (whole, expected), (sharded, found) = steps(c, 3), steps(c, 3, parallel=one_sharded)
    for a, b in zip(found, expected, strict=True):
        check_close(a, b, 5e-3 if precision == "float32" else 0.1)
    weights = zip(sharded.whole_ema().parameters(), whole.ema.parameters(), strict=True)
    assert all((a - b).abs().max() <= 1e-4 for a, b in weights)


# -- whole paths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_resumed_is_one_that_never_stopped(
    config: Config, some_digits: Callable[[int], Images], tmp_path: Path, precision: str
) -> None:
    def go(out: str, count: int, resume: bool = False) -> dict[str, Any]:
        c = from_dict({"training": {"steps": count, "precision": precision}}, config)
        train(c, tmp_path / out, resume=resume, dataset=some_digits(24), quiet=True)
        return checkpoint.read(checkpoint.listed(tmp_path / out / "checkpoints")[-1])[1]

    whole = go("whole", 10)
    go("parts", 5)
    parts = go("parts", 10, resume=True)
    assert all(torch.equal(parts[name], t) for name, t in whole.items())


def test_a_run_with_all_encoders_trains_samples_and_is_measured(
    config: Config, some_digits: Callable[[int], Images], tmp_path: Path, tiny_dino: Path, tiny_convnext: Path
) -> None:
    c = from_dict(
        {
            "discriminator": {"representation_dim": 32},
            "encoder": {"path": str(tiny_dino), "size": 28},
            "objective": {"representation": 1.0},
            "vision": {"path": str(tiny_convnext), "size": 32, "width": 8},
            "training": {"precision": "bfloat16", "steps": 3},
        },
        config,
    )
    out = train(c, tmp_path / "run", dataset=some_digits(24), quiet=True)
    row = read_rows(out / "metrics.jsonl")[-1]
    assert all(torch.isfinite(torch.tensor(v)) for v in row.values())
    pipe = load(out).to(DEVICE.type, "bfloat16")
    a, b = pipe([0, 1], [0, 1]).latents, load(out)([0, 1], [0, 1]).latents
    assert (a - b).abs().mean() < 0.05
    result = evaluate(pipe, some_digits(24), features="pixels", samples=24, metrics=("distance",), device=DEVICE.type)
    assert result.metrics["frechet_distance"] > 0


@pytest.mark.parametrize("backend", ["eager", "compile"])
def test_backends_sample_what_the_cpu_does(backend: Any) -> None:
    if backend == "compile" and ON_CPU:
        pytest.skip("takes minutes on a CPU, where other tests do it")
    here, there = load("digits"), load("digits").to(DEVICE.type, backend=backend)
    for seeds in ([0, 1, 2], [3, 4, 5], [0, 1, 2], [6, 7, 8], [9, 0], [1, 2]):  # replayed from the third on
        expected, found = (pipe(range(len(seeds)), seeds).array.astype(int) for pipe in (here, there))
        assert abs(expected - found).max() <= 1


def test_encoders_give_what_they_give_on_the_cpu(tiny_vae: Path, tiny_dino: Path, tiny_convnext: Path) -> None:
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    a, b = (load_vae(str(tiny_vae), device).moments(x.to(device)).cpu() for device in (CPU, DEVICE))
    torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)
    here, there = (load_dino(str(tiny_dino), 56, device) for device in (CPU, DEVICE))
    a = here.encode(x)[1]
    torch.testing.assert_close(there.encode(x.to(DEVICE))[1].cpu(), a, rtol=1e-2, atol=1e-2)
    if not ON_CPU:
        there.compile()
        torch.testing.assert_close(there.encode(x.to(DEVICE))[1].cpu(), a, rtol=1e-2, atol=1e-2)
    a, b = (load_vision(str(tiny_convnext), 64, device=device).maps(x.to(device))[1].cpu() for device in (CPU, DEVICE))
    torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-2)
