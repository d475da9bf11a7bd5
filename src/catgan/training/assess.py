"""Evaluation during training: the averaged generator against the training data, and the best checkpoint so far."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from catgan.checkpoint.manifest import MANIFEST
from catgan.config import Config
from catgan.errors import UserError
from catgan.evaluation.protocol import HIGHER_IS_BETTER
from catgan.system.files import delete_folder, discard, write_text
from catgan.system.processes import Processes
from catgan.system.progress import Progress

if TYPE_CHECKING:
    from catgan.data import Dataset
    from catgan.evaluation.features import FeatureSpace
    from catgan.evaluation.protocol import Protocol, Result
    from catgan.evaluation.reference import Reference
    from catgan.generator import Generator


class Assessor:
    """Evaluates generators of one run by `config.eval`, after `open`."""

    def __init__(
        self,
        config: Config,
        out: Path,
        dataset: Dataset,
        device: torch.device,
        processes: Processes = Processes(),  # noqa: B008  (frozen)
        quiet: bool = False,
    ) -> None:
        """processes: who share the work."""
        self.config, self.out, self.dataset, self.device, self.quiet = config, out, dataset, device, quiet
        self.processes = processes
        self.space: FeatureSpace | None = None
        self.reference: Reference | None = None

    @property
    def protocol(self) -> Protocol:
        from catgan.evaluation.protocol import Protocol

        e, t = self.config.eval, self.config.training
        return Protocol(
            e.features, e.metrics, e.samples, "balanced", precision=t.precision, reference_features=e.samples
        )

    def open(self) -> None:
        """Feature space and reference: minutes, where they are not cached.

        Raises UserError for what this run cannot be evaluated by: before the first step, not after the first thousand.
        """
        from catgan.evaluation import opening
        from catgan.evaluation.collect import Work
        from catgan.evaluation.metrics import check_possible

        e, sample = self.config.eval, self.config.sample
        if sample.channels not in (1, 3) and sample.vae is None:
            raise UserError(
                f"eval.every needs pixels, and this run makes latents of {sample.channels} channels: "
                "set sample.vae to what decodes them, or eval.every to 0"
            )
        if e.reference is not None:
            statistics, real = opening.real_images(e.reference, sample.size)
        else:
            statistics, real = None, opening.source_of_dataset(self.dataset, self.config.data.source)
        space = opening.in_turn(
            self.processes, lambda: opening.open_features(e.features, self.device, e.weights, real, self.quiet)
        )
        work = Work(e.batch, self.processes, quiet=self.quiet)
        reference = opening.open_reference(statistics, real, space, self.protocol, work)
        check_possible(self.protocol, space, reference, sample.classes > 1)
        self.space, self.reference = space, reference

    def measure(self, generator: Generator, class_names: tuple[str, ...], step: int) -> Result:
        """The result for this generator, which is also written to RUN/evaluations."""
        from catgan.evaluation.collect import Work
        from catgan.evaluation.evaluate import evaluate
        from catgan.evaluation.sources import Generated
        from catgan.sampling.pipeline import CATPipeline

        if self.space is None:
            self.open()
        assert self.space is not None
        assert self.reference is not None
        protocol = self.protocol
        pipe = CATPipeline(generator, self.config, class_names, step).to(str(self.device), protocol.precision)
        source = Generated(pipe, protocol.samples, protocol.class_sampling, protocol.first_seed)
        out = self.out / "evaluations" / f"training-{step:08d}.json"
        folder = out.with_name(f".{out.stem}.work") if self.processes.several else None
        work = Work(self.config.eval.batch, self.processes)
        if folder is not None:
            if self.processes.first:
                discard(folder)  # of a run that ended here and went on from an earlier checkpoint
            self.processes.wait()
        result = evaluate(source, self.reference, self.space, protocol, work, folder)
        if self.processes.first:
            write_text(out, json.dumps(result.to_dict(), indent=2) + "\n")
        if folder is not None:
            self.processes.wait()
            discard(folder)
        return result

    def keep_best(self, result: Result, save: Callable[[Path, Callable[[], None]], None]) -> bool:
        """Save the checkpoint as the best one if `eval.best` is better than ever before in this run.

        save: writes a checkpoint, and calls what it is given when that is complete.
        """
        metric = self.config.eval.best
        if metric not in result.metrics:
            if self.processes.first:
                Progress.print(f"warning: no {metric} at step {result.step}: {'; '.join(result.warnings)}")
            return False
        value = result.metrics[metric]
        folder = self.out / "checkpoints"
        known = self.processes.from_first(lambda: best_so_far(folder))
        sign = -1 if metric in HIGHER_IS_BETTER else 1
        measured_by = how_measured(result)
        if (
            known is not None
            and (known["metric"], known["measured_by"]) == (metric, measured_by)
            and sign * known["value"] <= sign * value
        ):
            return False
        path = folder / best_name(result.step)
        note = {"step": result.step, "metric": metric, "value": value, "name": result.names[metric]}

        def done() -> None:
            if not self.processes.first:
                return
            write_text(folder / "best.json", json.dumps(note | {"measured_by": measured_by}) + "\n")
            for other in folder.glob("best-*"):
                if other != path:
                    delete_folder(other)
            if not self.quiet:
                Progress.print(f"best so far: {note['name']} {value:.5g} at step {result.step}, kept as {path}")

        save(path, done)
        return True


def best_name(step: int) -> str:
    return f"best-{step:08d}"


def how_measured(result: Result) -> str:
    """A digest of all that makes two numbers of one name comparable: they are not, where a resumed run changed it."""
    from catgan.evaluation.sources import digest

    protocol = replace(result.protocol, metrics=())
    return digest(str(protocol), result.about["reference"]["identity"], result.about["feature_space"]["identity"])


def best_so_far(folder: Path) -> dict[str, Any] | None:
    """What is written beside the best checkpoint, if there is one."""
    try:
        note: dict[str, Any] = json.loads((folder / "best.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    complete = {"step", "metric", "value", "measured_by"} <= note.keys()
    return note if complete and (folder / best_name(note["step"]) / MANIFEST).is_file() else None
