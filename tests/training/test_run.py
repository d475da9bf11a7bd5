"""Runs: resuming is invisible, bad endings leave good checkpoints, and mistakes are named."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from catgan.accounting.compute import compute
from catgan.checkpoint import reading as checkpoint
from catgan.checkpoint import saving
from catgan.config import Config
from catgan.data.datasets import Images
from catgan.data.order import rows
from catgan.errors import UserError
from catgan.objective import StepState, Term, default_objective
from catgan.system.lock import RunLock
from catgan.training import run as run_module
from catgan.training import train
from catgan.training.microbatches import MicroBatch
from catgan.training.parallel import Parallel
from catgan.training.previews import Previews
from catgan.training.run import DivergedError, Run
from catgan.training.step import Metrics, Step
from catgan.training.timing import Pace

Changed = Callable[..., Config]


@pytest.fixture
def changed(tiny_config: Config) -> Changed:
    """The tiny configuration with other values, by group: changed(training={"steps": 3})."""

    def change(**groups: dict[str, object]) -> Config:
        config = dataclasses.replace(tiny_config, checkpoint=dataclasses.replace(tiny_config.checkpoint, every=2))
        for group, values in groups.items():
            config = dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **values)})
        return config

    return change


def final(run: Path) -> dict[str, Tensor]:
    return checkpoint.read(checkpoint.listed(run / "checkpoints")[-1])[1]


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Every tensor equal to the last bit."""
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def entries(run: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what depends on the clock."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if not k.startswith(("images_per_second", "cpu_seconds", "time/", "memory/"))}
        for row in rows
    ]


def test_extending_a_finished_run_equals_a_longer_run(changed: Changed, data: Images, tmp_path: Path) -> None:
    train(changed(training={"steps": 7}), tmp_path / "long", dataset=data, quiet=True)
    train(changed(training={"steps": 4}), tmp_path / "short", dataset=data, quiet=True)
    train(changed(training={"steps": 7}), tmp_path / "short", dataset=data, quiet=True, resume=True)
    assert_same(final(tmp_path / "long"), final(tmp_path / "short"))
    diagnosed_early = [r for r in entries(tmp_path / "short") if r not in entries(tmp_path / "long")]
    assert all(r["step"] == 4 for r in diagnosed_early), "only the end of the short run may add entries"


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    changed: Changed, data: Images, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(changed(training={"steps": 2, "seed": seed}), tmp_path / name, dataset=data, quiet=True)
    assert_same(final(tmp_path / "a"), final(tmp_path / "b"))
    assert not torch.equal(
        final(tmp_path / "a")["generator.outputs.0.pixels.weight"],
        final(tmp_path / "c")["generator.outputs.0.pixels.weight"],
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_reading_ahead_changes_no_number(workers: int, changed: Changed, data: Images, tmp_path: Path) -> None:
    for name, number in (("plain", 0), ("prefetch", workers)):
        train(changed(training={"steps": 5}, data={"workers": number}), tmp_path / name, dataset=data, quiet=True)
    assert_same(final(tmp_path / "plain"), final(tmp_path / "prefetch"))
    train(
        changed(training={"steps": 6}, data={"workers": 2}),
        tmp_path / "prefetch",
        dataset=data,
        quiet=True,
        resume=True,
    )


@pytest.mark.parametrize(("compiler", "compiled", "said"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_long_runs_are_told_of_compiling_where_that_is_possible(
    compiler: bool, compiled: bool, said: int, changed: Changed, data: Images, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(run_module, "LONG", 0)
    monkeypatch.setattr(run_module, "can_compile", lambda device: compiler)
    run = Run(changed(), tmp_path, data, default_objective(changed()), quiet=True)
    run.config = changed(training={"compile": compiled})
    assert run.forecast(1.0).count("; less with --training.compile, also with --resume") == said


def test_a_forecast_comes_after_a_few_steps_and_changes_no_number(
    changed: Changed, data: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = changed(training={"steps": 14}, log={"preview_every": 1, "diagnose_every": 99})
    train(config, tmp_path / "with", dataset=data)
    said = r"\nabout \d+ s for 16 more images on this core; previews every 1 s; Ctrl-C saves\n"
    assert len(re.findall(said, capsys.readouterr().err)) == 1
    monkeypatch.setattr(Pace, "of_step", lambda self: contextlib.nullcontext())
    train(config, tmp_path / "without", dataset=data)
    assert "about" not in capsys.readouterr().err
    assert_same(final(tmp_path / "with"), final(tmp_path / "without"))


def test_an_error_of_the_data_ends_the_run_with_its_own_words(changed: Changed, data: Images, tmp_path: Path) -> None:
    class Torn(Images):
        def batch(self, rows: np.ndarray, seed: int, step: int, first: int = 0) -> tuple[Tensor, Tensor]:
            if step == 2:
                raise UserError("the disk is gone")
            return super().batch(rows, seed, step, first)

    before = threading.active_count()
    torn = Torn(data.pixels.numpy(), data.labels.numpy(), data.class_names)
    with pytest.raises(UserError, match="the disk is gone"):
        train(changed(training={"steps": 9}), tmp_path / "run", dataset=torn, quiet=True)
    assert len(checkpoint.listed(tmp_path / "run" / "checkpoints")) == 1, "steps before it were made"
    assert threading.active_count() <= before + 1, "no reader is left (TensorBoard may keep its thread)"


def test_the_share_of_time_spent_waiting_for_data_is_logged(changed: Changed, data: Images, tmp_path: Path) -> None:
    class Slow(Images):
        def batch(self, rows: np.ndarray, seed: int, step: int, first: int = 0) -> tuple[Tensor, Tensor]:
            time.sleep(1.0)
            return super().batch(rows, seed, step, first)

    slow = Slow(data.pixels.numpy(), data.labels.numpy(), data.class_names)
    for name, dataset in (("quick", data), ("slow", slow)):
        config = changed(training={"steps": 2}, data={"workers": 0}, log={"diagnose_every": 9})
        train(config, tmp_path / name, dataset=dataset, quiet=True)
    shares = {
        name: [
            row["time/data"]
            for row in map(json.loads, (tmp_path / name / "metrics.jsonl").open())
            if "time/data" in row
        ]
        for name in ("quick", "slow")
    }
    assert all(0 <= share < 0.2 for share in shares["quick"])
    assert all(0.4 < share <= 1 for share in shares["slow"])


def test_log_entries_past_the_checkpoint_are_dropped(changed: Changed, data: Images, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(changed(training={"steps": 4}), run, dataset=data, quiet=True)
    before = entries(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "generator/loss": 0.0}) + "\n" + '{"step": 6, "gener')
    train(changed(training={"steps": 4}), run, dataset=data, quiet=True, resume=True)
    assert entries(run) == before


def test_every_scalar_of_the_specification_is_logged(changed: Changed, data: Images, tmp_path: Path) -> None:
    train(changed(training={"steps": 2}), tmp_path / "run", dataset=data, quiet=True)
    names = {name for row in entries(tmp_path / "run") for name in row}
    for network, per_scale in (("discriminator", ("adversarial", "r1", "r2")), ("generator", ("adversarial",))):
        assert {f"{network}/{term}/{k}" for term in per_scale for k in range(3)} <= names
    assert {"generator/consistency/0", "generator/consistency/1", "generator/loss", "discriminator/loss"} <= names
    assert {"generator/gradient_norm", "discriminator/gradient_norm", "logits/real/2", "logits/fake/0"} <= names
    assert {
        f"{where}/{m}/{k}" for where in ("alignment", "diagnose") for m in ("delta", "floor", "R", "A") for k in (0, 1)
    } <= names
    assert {"diagnose/A_without_last/mean", "epoch"} <= names
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_previews_are_drawn_on_schedule(changed: Changed, data: Images, tmp_path: Path) -> None:
    train(changed(training={"steps": 3}), tmp_path / "run", dataset=data, quiet=True)
    names = sorted(p.name for p in (tmp_path / "run" / "previews").iterdir())
    assert names == ["real.png", *(f"{kind}-{step:08d}.png" for kind in ("samples", "stages") for step in (0, 2, 3))]


def test_the_last_checkpoints_and_the_named_ones_stay(changed: Changed, data: Images, tmp_path: Path) -> None:
    config = changed(training={"steps": 8}, checkpoint={"every": 1, "keep": 2, "keep_steps": (3,)})
    train(config, tmp_path / "run", dataset=data, quiet=True)
    assert [p.name for p in checkpoint.listed(tmp_path / "run" / "checkpoints")] == [
        checkpoint.name(n) for n in (3, 7, 8)
    ]


@pytest.mark.parametrize(
    ("group", "values", "named"),
    [
        ("training", {"precision": "bfloat16"}, "training.precision"),
        ("training", {"seed": 1}, "training.seed"),
        ("optimizer", {"lr_generator": 0.5}, "optimizer.lr_generator"),
        ("objective", {"consistency": 0.0}, "objective.consistency"),
        ("sample", {"down": "bilinear"}, "sample.down"),
    ],
)
def test_resuming_with_another_field_is_an_error_that_names_it(
    changed: Changed, data: Images, tmp_path: Path, group: str, values: dict[str, object], named: str
) -> None:
    train(changed(training={"steps": 2}), tmp_path / "run", dataset=data, quiet=True)
    before = (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(UserError, match=named):
        train(
            changed(**{group: {**values, **({"steps": 2} if group == "training" else {})}}),
            tmp_path / "run",
            dataset=data,
            quiet=True,
            resume=True,
        )
    assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_resuming_with_another_objective_is_an_error(changed: Changed, data: Images, tmp_path: Path) -> None:
    config = changed(training={"steps": 2})
    train(config, tmp_path / "run", dataset=data, quiet=True)
    other = default_objective(config).with_term("generator", Term("extra", 0.1, lambda s: s.h[-1].flatten(1).mean(1)))
    with pytest.raises(UserError, match="another objective"):
        train(config, tmp_path / "run", dataset=data, quiet=True, resume=True, objective=other)


def test_logging_and_checkpoint_settings_may_change_on_resume(changed: Changed, data: Images, tmp_path: Path) -> None:
    train(changed(training={"steps": 5}), tmp_path / "plain", dataset=data, quiet=True)
    train(changed(training={"steps": 2}), tmp_path / "run", dataset=data, quiet=True)
    other = changed(training={"steps": 5}, log={"every": 3, "preview_every": 5}, checkpoint={"every": 1})
    train(other, tmp_path / "run", dataset=data, quiet=True, resume=True)
    assert_same(final(tmp_path / "plain"), final(tmp_path / "run"))


def test_a_directory_with_another_recipe_is_refused_and_left_alone(
    changed: Changed, data: Images, tmp_path: Path
) -> None:
    config = changed(training={"steps": 2})
    train(config, tmp_path / "run", dataset=data, quiet=True)
    files = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    for resume in (False, True):
        with pytest.raises(UserError, match="recipe digits, not other"):
            train(
                dataclasses.replace(config, recipe="other"), tmp_path / "run", dataset=data, quiet=True, resume=resume
            )
    with pytest.raises(UserError, match="--resume"):
        train(config, tmp_path / "run", dataset=data, quiet=True)
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == files


def test_a_folder_in_use_is_refused_and_let_go_afterwards(changed: Changed, data: Images, tmp_path: Path) -> None:
    other = RunLock(tmp_path / "run")
    other.take()
    for resume in (False, True):
        with pytest.raises(UserError, match="nothing to resume" if resume else "in use by another run"):
            train(changed(training={"steps": 1}), tmp_path / "run", dataset=data, quiet=True, resume=resume)
    assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]
    other.release()
    train(changed(training={"steps": 1}), tmp_path / "run", dataset=data, quiet=True)
    other.take()
    with pytest.raises(UserError, match="in use by another run"):
        train(changed(training={"steps": 2}), tmp_path / "run", dataset=data, quiet=True, resume=True)
    other.release()


def test_the_last_good_checkpoint_is_a_complete_one(
    changed: Changed, data: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the background ends the run in its own words, and what was there stays."""
    config, real = changed(training={"steps": 6}), saving.save_tensors

    def fills_up(path: Path, tensors: dict[str, Tensor]) -> None:
        if "step-00000004" in str(path):
            raise OSError(28, "No space left on device")
        real(path, tensors)

    monkeypatch.setattr(saving, "save_tensors", fills_up)
    run = Run(config, tmp_path / "run", data, default_objective(config), quiet=True)
    run.prepare(resume=False)
    with pytest.raises(UserError, match=r"the disk is full: could not write .*step-00000004"):
        run.loop()
    run.close()
    assert run.last_good == tmp_path / "run" / "checkpoints" / checkpoint.name(2)
    assert list(run.directory.checkpoints.iterdir()) == [run.last_good]
    checkpoint.verify(run.last_good)


def test_a_foreign_directory_is_refused(changed: Changed, data: Images, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="no run of catgan"):
        train(changed(), tmp_path, dataset=data, quiet=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    changed: Changed, data: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(changed(training={"steps": 6}), tmp_path / "plain", dataset=data, quiet=True)
    train(changed(training={"steps": 4}), tmp_path / "run", dataset=data, quiet=True)
    newest = checkpoint.listed(tmp_path / "run" / "checkpoints")[-1]
    cut = newest / "ema-00000.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])
    train(changed(training={"steps": 6}), tmp_path / "run", dataset=data, resume=True)
    said = capsys.readouterr().err
    assert f"{newest} is damaged: ema-00000.safetensors has" in said
    assert "using step-00000002 instead" in said
    assert "at step 2" in said
    assert_same(final(tmp_path / "plain"), final(tmp_path / "run"))


def not_finite_after(steps: int) -> Term:
    """A term that becomes NaN."""
    calls = iter(range(10**6))

    def broken(state: StepState) -> Tensor:
        value = state.h[-1].flatten(1).mean(1)
        return value * (float("nan") if next(calls) >= steps else 1.0)

    return Term("broken", 1.0, broken)


@pytest.mark.parametrize("every", [1, 4])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_good_checkpoints(
    changed: Changed, data: Images, tmp_path: Path, every: int
) -> None:
    config = changed(training={"steps": 8}, log={"every": every})
    objective = default_objective(config).with_term("generator", not_finite_after(2))
    with pytest.raises(DivergedError, match=r"step 3: generator/broken/0 is nan.*step-00000002") as caught:
        train(config, tmp_path / "run", dataset=data, quiet=True, objective=objective)
    assert caught.value.exit_code == 1
    kept = checkpoint.listed(tmp_path / "run" / "checkpoints")
    assert [p.name for p in kept] == [checkpoint.name(2)]
    assert all(t.isfinite().all() for t in checkpoint.read(kept[0])[1].values())


def test_a_gradient_that_is_not_finite_stops_the_run(changed: Changed, data: Images, tmp_path: Path) -> None:
    """A term whose value is finite and whose derivative is not."""
    config = changed(training={"steps": 3})
    root = Term("root", 1.0, lambda s: (s.h[-1] - s.h[-1].detach()).abs().sqrt().flatten(1).mean(1))
    with pytest.raises(DivergedError, match="step 1: generator/gradient_norm is nan"):
        train(
            config,
            tmp_path / "run",
            dataset=data,
            quiet=True,
            objective=default_objective(config).with_term("generator", root),
        )
    assert not checkpoint.listed(tmp_path / "run" / "checkpoints")


def test_fine_tuning_starts_from_the_weights_also_with_more_classes(
    changed: Changed, data: Images, tmp_path: Path
) -> None:
    source = train(changed(training={"steps": 3}), tmp_path / "source", dataset=data, quiet=True)
    for classes in (3, 5):
        config = changed(training={"init_from": str(source)}, sample={"classes": classes})
        run = Run(config, tmp_path / f"tuned-{classes}", data, default_objective(config), quiet=True)
        run.prepare(resume=False)
        weights, old = checkpoint.state_tensors(run.networks, {}), final(source)
        assert torch.equal(weights["generator.blocks.0.mlp.down.weight"], old["generator.blocks.0.mlp.down.weight"])
        embedding = weights["generator.class_embedding.weight"]
        assert len(embedding) == classes
        assert torch.equal(embedding, old["generator.class_embedding.weight"]) == (classes == 3)
        run.loop()


def test_fine_tuning_from_another_architecture_names_the_misfit(changed: Changed, data: Images, tmp_path: Path) -> None:
    source = train(changed(training={"steps": 2}), tmp_path / "source", dataset=data, quiet=True)
    config = changed(training={"init_from": str(source)}, generator={"width": 32})
    with pytest.raises(UserError, match=r"its generator\.width is 16, this run's is 32"):
        train(config, tmp_path / "tuned", dataset=data, quiet=True)


def test_fine_tuning_from_another_supervision_names_it(changed: Changed, data: Images, tmp_path: Path) -> None:
    noise = {"supervision": "noise_levels"}
    source = train(changed(training={"steps": 1}, objective=noise), tmp_path / "source", dataset=data, quiet=True)
    with pytest.raises(UserError, match=r"its objective\.supervision is noise_levels, this run's is pyramid"):
        train(changed(training={"init_from": str(source)}), tmp_path / "tuned", dataset=data, quiet=True)


def test_fine_tuning_survives_a_kill_before_its_first_checkpoint(
    changed: Changed, data: Images, tmp_path: Path
) -> None:
    source = train(changed(training={"steps": 2}), tmp_path / "source", dataset=data, quiet=True)
    config = changed(training={"init_from": str(source), "steps": 3})
    train(config, tmp_path / "plain", dataset=data, quiet=True)
    killed = Run(config, tmp_path / "killed", data, default_objective(config), quiet=True)
    killed.prepare(resume=False)
    killed.directory.lock.release()  # as the system does
    leftover = tmp_path / "killed" / "checkpoints" / ".step-00000001.part"
    leftover.mkdir(parents=True)
    train(config, tmp_path / "killed", dataset=data, quiet=True, resume=True)
    assert_same(final(tmp_path / "plain"), final(tmp_path / "killed"))
    assert not leftover.exists()


def test_a_single_scale_has_no_stages_to_compare(changed: Changed, data: Images, tmp_path: Path) -> None:
    config = changed(training={"steps": 2}, sample={"scales": (8,)}, discriminator={"patches": (2,)})
    train(config, tmp_path / "run", dataset=data, quiet=True)
    assert not [
        name for row in entries(tmp_path / "run") for name in row if "diagnose" in name or "consistency" in name
    ]


def test_out_of_memory_names_the_micro_batch_that_fits(
    changed: Changed, data: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short_of_memory(self: Step, step: int, x: Tensor, y: Tensor, images: Tensor | None) -> Metrics:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    real = Step.generate_with_gradient

    def fits_two(self: Step, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if len(y) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(self, z, y)

    monkeypatch.setattr(Step, "run", short_of_memory)
    monkeypatch.setattr(Step, "generate_with_gradient", fits_two)
    with pytest.raises(UserError, match=r"out of memory on cpu with 8 samples per pass: --micro-batch 2 fits"):
        train(changed(log={"preview_classes": 1, "preview_rows": 1}), tmp_path / "run", dataset=data, quiet=True)


def test_out_of_memory_in_the_generator_step_is_named_too(
    changed: Changed, data: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It strikes while the discriminator is frozen, which must not spoil the search for what fits."""
    real = Step.generator_state

    def fits_four(self: Step, part: MicroBatch, h: Tensor) -> StepState:
        if len(part.y) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, part, h)

    monkeypatch.setattr(Step, "generator_state", fits_four)
    with pytest.raises(UserError, match=r"--micro-batch 4 fits"):
        train(changed(), tmp_path / "run", dataset=data, quiet=True)


def test_checkpoints_past_the_one_resumed_from_are_set_aside(changed: Changed, data: Images, tmp_path: Path) -> None:
    """Else pruning, which keeps the highest steps, would keep the damaged one and drop the good ones."""
    run = tmp_path / "run"
    train(changed(training={"steps": 4}), run, dataset=data, quiet=True)
    newest = checkpoint.listed(run / "checkpoints")[-1]
    (newest / "manifest.json").write_bytes(b"damaged")
    (run / "checkpoints" / ".step-00000009.part").mkdir()
    (run / "checkpoints" / ".best-00000009.part").mkdir()
    train(changed(training={"steps": 3}, checkpoint={"keep": 1}), run, dataset=data, quiet=True, resume=True)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [
        checkpoint.name(3),
        f"unusable-{checkpoint.name(4)}",
    ]


def test_resuming_without_a_usable_checkpoint_touches_nothing(changed: Changed, data: Images, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(changed(training={"steps": 2}), run, dataset=data, quiet=True)
    (checkpoint.listed(run / "checkpoints")[-1] / "manifest.json").write_bytes(b"damaged")
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="none of the checkpoints"):
        train(changed(training={"steps": 4}), run, dataset=data, quiet=True, resume=True)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_of_another_run_is_passed_over(
    changed: Changed, data: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(changed(training={"steps": 4, "seed": 5}), tmp_path / "other", dataset=data, quiet=True)
    train(changed(training={"steps": 2}), tmp_path / "run", dataset=data, quiet=True)
    foreign = tmp_path / "run" / "checkpoints" / checkpoint.name(4)
    shutil.copytree(tmp_path / "other" / "checkpoints" / checkpoint.name(4), foreign)
    train(changed(training={"steps": 3}), tmp_path / "run", dataset=data, resume=True)
    said = capsys.readouterr().err
    assert "is of another run: its training.seed differs" in said
    assert "at step 2" in said


def test_an_empty_dataset_is_refused(changed: Changed, tmp_path: Path) -> None:
    empty = Images(np.zeros((0, 1, 8, 8), np.float32), np.zeros(0), ("a", "b", "c"))
    with pytest.raises(UserError, match="no samples"):
        train(changed(), tmp_path / "run", dataset=empty, quiet=True)


def test_one_class_is_unconditional_whatever_the_labels(changed: Changed, data: Images, tmp_path: Path) -> None:
    run = train(changed(training={"steps": 2}, sample={"classes": 1}), tmp_path / "run", dataset=data, quiet=True)
    assert final(run)["generator.class_embedding.weight"].shape[0] == 1
    assert final(run)["generator.style_updates"].tolist() == [2]
    assert checkpoint.read_header(checkpoint.listed(run / "checkpoints")[-1]).class_names == ("all",)


# -- real processes --------------------------------------------------------------------------------------------------

TINY = [
    *"--generator.depth 3 --generator.width 16 --discriminator.depth 2 --discriminator.width 16".split(),  # noqa: SIM905
    *"--discriminator.head-dim 16 --batch 8 --training.threads 1 --device cpu --log.every 1".split(),  # noqa: SIM905
    *"--log.preview-every 1000 --log.diagnose-every 1000 --log.diagnose-samples 10".split(),  # noqa: SIM905
    *"--checkpoint.every 7 --eval.every 0 --training.no-compile".split(),  # noqa: SIM905
]


def start(run: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "catgan", "train", "digits", "--out", str(run), *TINY, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Until the log has an entry of that step."""
    log = run / "metrics.jsonl"
    for _ in range(2400):
        if log.exists() and len(log.read_text().splitlines()) >= step:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError(f"no step {step} in {log}")


def test_a_signal_that_comes_while_the_processes_agree_is_not_lost(
    changed: Changed, data: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, agreements = Parallel.max, []

    def interrupted(self: Parallel, value: float) -> float:
        if value < signal.NSIG:  # not the memory in use
            agreements.append(value)
            if len(agreements) == 2:
                handler = signal.getsignal(signal.SIGTERM)
                assert callable(handler)
                handler(signal.SIGTERM, None)
        return real(self, value)

    monkeypatch.setattr(Parallel, "max", interrupted)
    with pytest.raises(SystemExit, match="143"):
        train(changed(training={"steps": 8}), tmp_path / "run", dataset=data, quiet=True)
    assert [p.name for p in checkpoint.listed(tmp_path / "run" / "checkpoints")][-1] == checkpoint.name(3)


@pytest.mark.slow
def test_stopping_by_signals_and_resuming_is_bit_identical(tmp_path: Path) -> None:
    """SIGTERM and SIGKILL at random steps of one run: its end equals that of a run that nobody touched."""
    total, chance = "60", random.Random(3)
    plain = start(tmp_path / "plain", "--steps", total)
    assert plain.wait(300) == 0, plain.communicate()[1]

    run = tmp_path / "run"
    for number, after in ((signal.SIGTERM, chance.randint(3, 15)), (signal.SIGKILL, chance.randint(25, 40))):
        process = start(run, "--steps", "100000", *(["--resume"] if run.exists() else []))
        wait_for_step(process, run, after)
        process.send_signal(number)
        code = process.wait(60)
        said = process.communicate()[1]
        assert code == (143 if number == signal.SIGTERM else -9), said
        if number == signal.SIGTERM:
            assert "go on with --resume" in said
    reached = checkpoint.read_header(checkpoint.listed(run / "checkpoints")[-1]).step
    assert 7 <= reached < 60, "the machine outran the test"
    last = start(run, "--steps", total, "--resume")
    assert last.wait(300) == 0, last.communicate()[1]
    assert_same(final(tmp_path / "plain"), final(run))
    assert [r for r in entries(run) if r["step"] < 60] == [r for r in entries(tmp_path / "plain") if r["step"] < 60]


@pytest.mark.slow
def test_ctrl_c_saves_and_exits_with_130(tmp_path: Path) -> None:
    process = start(tmp_path / "run", "--steps", "100000")
    wait_for_step(process, tmp_path / "run", 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "saved" in process.communicate()[1]
    assert checkpoint.listed(tmp_path / "run" / "checkpoints")


def test_a_run_tells_where_its_time_went(changed: Changed, data: Images, tmp_path: Path) -> None:
    run = tmp_path / "run"
    log = {"every": 2, "diagnose_every": 2, "peak": 0.001}
    train(changed(training={"steps": 4}, log=log), run, dataset=data, quiet=True)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    shares = [value for name, value in last.items() if name.startswith("time/")]
    assert len(shares) == 5
    assert sum(shares) == pytest.approx(1)
    assert last["time/evaluation"] > 0, "the diagnosis after step 2"
    assert last["memory/peak_gb"] > 0
    assert last["cpu_seconds"] > 0
    flops = 2e9 * compute(changed(training={"steps": 4}, log=log))["training"]["gmacs_per_sample"]
    assert last["mfu"] == pytest.approx(flops * last["images_per_second"] / 0.001e12)
    lines = (run / "logs" / "rank-00000.log").read_text().splitlines()
    assert any("step 4: data " in line for line in lines)


@pytest.mark.parametrize(("batch", "micro"), [(4, 0), (16, 4), (8, 2)])
def test_a_resumed_run_reads_on_where_it_was_with_any_batch(
    changed: Changed, data: Images, tmp_path: Path, batch: int, micro: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Previews, "draw_real", lambda _: None)  # which reads, too
    read: list[int] = []

    class Watched(Images):
        def batch(self, rows: np.ndarray, seed: int, step: int, first: int = 0) -> tuple[Tensor, Tensor]:
            read.extend(rows.tolist())
            return super().batch(rows, seed, step, first)

    watched = Watched(data.pixels.numpy(), data.labels.numpy(), data.class_names)
    base = {"data": {"workers": 0}, "log": {"every": 100}}
    train(changed(training={"steps": 3, "batch": 8}, **base), tmp_path / "run", dataset=watched, quiet=True)
    more = {"steps": 5, "batch": batch, "micro_batch": micro}
    train(changed(training=more, **base), tmp_path / "run", dataset=watched, quiet=True, resume=True)
    train(changed(training={**more, "steps": 6}, **base), tmp_path / "run", dataset=watched, quiet=True, resume=True)
    seen = 3 * 8 + 3 * batch
    assert read == rows(0, 0, seen, len(data)).tolist()
    header = checkpoint.read_header(checkpoint.listed(tmp_path / "run" / "checkpoints")[-1])
    assert (header.step, header.samples) == (6, seen)
