"""Evaluation during training: it is recorded, keeps the best checkpoint, and changes no weight."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import catgan
from catgan.checkpoint import reading as checkpoint
from catgan.checkpoint.manifest import MANIFEST
from catgan.config import Config
from catgan.data.datasets import Images
from catgan.data.latents import Latents
from catgan.errors import UserError
from catgan.evaluation import classifier
from catgan.evaluation.protocol import Protocol, Result
from catgan.recipes import gat
from catgan.system.processes import Processes
from catgan.training import train
from catgan.training.best import best_name, best_so_far, keep_best

Changed = Callable[..., Config]
FEW = {"every": 2, "samples": 20, "features": "classifier", "metrics": ("distance", "class_accuracy"), "batch": 8}


@pytest.fixture(autouse=True)
def short_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "FEWEST", 1)


@pytest.fixture
def changed(tiny_config: Config) -> Changed:
    """The tiny configuration with a few things changed: changed(steps=5, every=1)."""

    def change(steps: int = 4, **evaluation: object) -> Config:
        return dataclasses.replace(
            tiny_config,
            training=dataclasses.replace(tiny_config.training, steps=steps),
            checkpoint=dataclasses.replace(tiny_config.checkpoint, every=2),
            log=dataclasses.replace(tiny_config.log, preview_every=100, diagnose_every=100),
            eval=dataclasses.replace(tiny_config.eval, **evaluation),
        )

    return change


def final(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(checkpoint.listed(run / "checkpoints")[-1])[1]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def result(metric: str, value: float, step: int, reference: str = "r") -> Result:
    about = {"reference": {"identity": reference}, "feature_space": {"identity": "s"}}
    return Result({metric: value}, Protocol("classifier", ("distance",)), about, 0.0, step=step)


def saved(path: Path, done: Callable[[], None]) -> None:
    """In place of a checkpoint, complete at once."""
    path.mkdir(parents=True)
    (path / MANIFEST).touch()
    done()


def test_evaluation_is_recorded_everywhere_and_changes_no_weight(
    changed: Changed, data: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = train(changed(5), tmp_path / "plain", dataset=data, quiet=True)
    run = train(changed(5, **FEW), tmp_path / "run", dataset=data, quiet=True)
    assert_same(final(plain), final(run))
    assert capsys.readouterr().err == "", "quiet runs are quiet"

    files = sorted((run / "evaluations").iterdir())
    assert [p.name for p in files] == [f"training-{step:08d}.json" for step in (2, 4, 5)]
    stored = [json.loads(p.read_text()) for p in files]
    assert [s["step"] for s in stored] == [2, 4, 5]
    assert (stored[0]["protocol"]["samples"], stored[0]["protocol"]["class_sampling"]) == (20, "balanced")
    assert stored[0]["protocol"]["weights"] == "ema"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = {row["step"]: row["eval/frechet_distance"] for row in rows if "eval/frechet_distance" in row}
    assert logged == {s["step"]: s["metrics"]["frechet_distance"] for s in stored}
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("eval/class_accuracy")] == [2, 4, 5]

    best = min(stored, key=lambda s: s["metrics"]["frechet_distance"])
    kept = run / "checkpoints" / best_name(best["step"])
    assert list(kept.parent.glob("best-*")) == [kept]
    note = json.loads((run / "checkpoints" / "best.json").read_text())
    assert (note["step"], note["value"]) == (best["step"], best["metrics"]["frechet_distance"])
    assert note["name"] == "classifier Frechet distance"
    assert catgan.load(kept).step == best["step"]
    assert catgan.load(run).step == 5, "a run directory is its latest checkpoint"


def test_a_run_under_gat_resumes_is_evaluated_and_loads(changed: Changed, data: Images, tmp_path: Path) -> None:
    """Its numbers are one per term, and with consistency, a term of its own, one per earlier stage."""
    for steps, resume in ((2, False), (4, True)):
        train(gat(changed(steps, **FEW)), tmp_path / "run", dataset=data, quiet=True, resume=resume)
    whole = train(gat(changed(4, **FEW)), tmp_path / "whole", dataset=data, quiet=True)
    assert_same(final(whole), final(tmp_path / "run"))
    assert len(list((tmp_path / "run" / "evaluations").iterdir())) == 2
    row = json.loads((whole / "metrics.jsonl").read_text().splitlines()[0])
    numbered = {name for name in row if name[-1].isdigit() and not name.startswith("alignment")}
    assert numbered == {
        *(f"discriminator/{term}/0" for term in ("adversarial", "r1", "r2")),
        *("generator/adversarial/0", "logits/real/0", "logits/fake/0"),
    }
    assert len(catgan.load(whole)([0, 1]).images) == 2
    config = gat(changed(1))
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, consistency=0.1))
    run = train(config, tmp_path / "consistent", dataset=data, quiet=True)
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert {"generator/consistency/0", "generator/consistency/1", "generator/consistency_share/1"} < set(row)


def test_resuming_with_other_evaluation_is_allowed_and_changes_no_weight(
    changed: Changed, data: Images, tmp_path: Path
) -> None:
    plain = train(changed(5), tmp_path / "plain", dataset=data, quiet=True)
    run = train(changed(2, **FEW), tmp_path / "run", dataset=data, quiet=True)
    more = {"every": 1, "samples": 30, "metrics": ("class_accuracy",), "best": "class_accuracy"}
    train(changed(5, **FEW | more), run, dataset=data, quiet=True, resume=True)
    assert_same(final(plain), final(run))
    note = best_so_far(run / "checkpoints")
    assert note is not None
    assert (note["metric"], note["step"] > 2) == ("class_accuracy", True), "other protocols do not compare"


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("frechet_distance", [9.0, 5.0, 7.0, 5.0, 4.0], 5),
        ("frechet_distance", [3.0, 5.0, 7.0, 5.0, 4.0], 1),
        ("kid", [0.2, -0.1, 0.0], 2),
        ("class_distance", [2.0, 1.0], 2),
        ("inception_score", [2.0, 4.0, 3.0], 2),
        ("precision", [0.2, 0.1, 0.2], 1),
        ("recall", [0.2, 0.3], 2),
        ("class_accuracy", [0.0, 1.0, 0.9], 2),
    ],
)
def test_the_best_is_the_smallest_or_the_largest_as_the_metric_wants(
    tmp_path: Path, metric: str, values: list[float], best: int
) -> None:
    for step, value in enumerate(values, 1):
        keep_best(tmp_path, metric, result(metric, value, step), saved, Processes(), quiet=True)
    assert [p.name for p in tmp_path.glob("best-*")] == [best_name(best)]
    note = best_so_far(tmp_path)
    assert note is not None
    assert (note["step"], note["value"]) == (best, values[best - 1])


def test_numbers_of_another_protocol_or_reference_are_not_compared(tmp_path: Path) -> None:
    def better(r: Result) -> bool:
        return keep_best(tmp_path, "frechet_distance", r, saved, Processes(), quiet=True)

    assert better(result("frechet_distance", 1.0, 1))
    assert not better(result("frechet_distance", 2.0, 2))
    assert better(result("frechet_distance", 2.0, 3, reference="other"))
    more = result("frechet_distance", 3.0, 4, reference="other")
    assert better(dataclasses.replace(more, protocol=dataclasses.replace(more.protocol, samples=20)))


def test_a_best_checkpoint_that_is_gone_or_unexplained_does_not_count(tmp_path: Path) -> None:
    assert best_so_far(tmp_path) is None
    (tmp_path / "best.json").write_text('{"step": 1, "metric": "kid", "value": 1, "measured_by": ""}')
    assert best_so_far(tmp_path) is None
    (tmp_path / best_name(1)).mkdir()
    assert best_so_far(tmp_path) is None
    (tmp_path / best_name(1) / MANIFEST).touch()
    assert best_so_far(tmp_path) is not None
    (tmp_path / "best.json").write_text('{"step": 1, "met')
    assert best_so_far(tmp_path) is None


def test_what_fails_is_said_recorded_and_not_kept_as_best(
    changed: Changed, data: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An untrained generator covers nothing of the data: past half of the run, that is a collapse."""
    values = FEW | {"metrics": ("distance", "authenticity", "precision_recall"), "features": "pixels"}
    run = train(changed(4, **values), tmp_path / "run", dataset=data, quiet=True)
    assert "warning: step 4: collapse: samples cover 0.0% of the pictures" in capsys.readouterr().err
    stored = [json.loads(p.read_text()) for p in sorted((run / "evaluations").iterdir())]
    assert [bool(s["failures"]) for s in stored] == [True, True]
    assert not list((run / "checkpoints").glob("best*"))
    for step, measured_by in ((1, stored[0]["measured_by"]), (3, "other features")):
        before = {"metrics": {"recall": 0.3 * step}, "measured_by": measured_by}
        (run / "evaluations" / f"training-{step:08d}.json").write_text(json.dumps(before))
    train(changed(5, **values), run, dataset=data, quiet=True, resume=True)
    assert "step 5: collapse: samples cover 0% of the pictures (recall), 30% before" in capsys.readouterr().err


def test_a_classifier_that_knows_little_is_said_before_the_first_step(
    changed: Changed, data: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "DOUBTFUL", 1.1)
    run = train(changed(2, **FEW), tmp_path / "run", dataset=data)
    said = "held-out real images, so its numbers say little"
    assert capsys.readouterr().err.count(said) == 1
    stored = json.loads((run / "evaluations" / "training-00000002.json").read_text())
    assert any(said in warning for warning in stored["warnings"])


def test_a_number_that_could_not_be_had_keeps_nothing_and_ends_nothing(
    changed: Changed, data: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With four samples, class 1 and 2 have one each."""
    values = FEW | {"samples": 4, "metrics": ("class_distance",), "best": "class_distance"}
    run = train(changed(2, **values), tmp_path / "run", dataset=data, quiet=True)
    assert "no class_distance at step 2: no per-class distance: class 1 has fewer" in capsys.readouterr().err
    assert not list((run / "checkpoints").glob("best*"))
    assert catgan.load(run).step == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"features": "inception", "weights": "none.pth"}, "cannot read none.pth"),
        ({"reference": "nowhere"}, "nowhere does not exist"),
        ({"reference": "{tmp}/stats.npz", "metrics": ("kid",), "best": "kid"}, "trained on the reference's images"),
        ({"metrics": ("class_accuracy",)}, "eval.best is frechet_distance.*add distance to eval.metrics"),
        ({"samples": 9, "metrics": ("distance", "inception_score")}, "inception_score needs at least 10 images"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_the_first_step(
    changed: Changed, data: Images, tmp_path: Path, values: dict[str, object], said: str
) -> None:
    np.savez(tmp_path / "stats.npz", mu=np.zeros(128), sigma=np.eye(128))
    named = {k: v.format(tmp=tmp_path) if isinstance(v, str) else v for k, v in values.items()}
    with pytest.raises(UserError, match=said):
        train(changed(4, **FEW | named), tmp_path / "run", dataset=data, quiet=True)
    assert not list((tmp_path / "run").rglob("*"))


def test_latents_cannot_be_evaluated_without_a_decoder(changed: Changed, tmp_path: Path) -> None:
    config = changed(4, **FEW)
    config = dataclasses.replace(config, sample=dataclasses.replace(config.sample, channels=4))
    moments = np.zeros((9, 8, 8, 8), np.float32)
    data = Latents(moments, np.arange(9) % 3, ("a", "b", "c"))
    with pytest.raises(UserError, match=r"eval.every needs pixels, and this run makes latents of 4 channels"):
        train(config, tmp_path / "run", dataset=data, quiet=True)


def test_a_dataset_of_ones_own_is_not_called_what_the_configuration_names(
    changed: Changed, data: Images, tmp_path: Path
) -> None:
    class Animals(Images):
        identity = None  # type: ignore[assignment]

    own = Animals(data.pixels.numpy(), data.labels.numpy(), data.class_names)
    run = train(changed(2, **FEW), tmp_path / "run", dataset=own, quiet=True)
    stored = json.loads((run / "evaluations" / "training-00000002.json").read_text())
    assert stored["protocol"]["reference"]["name"] == "Animals"
