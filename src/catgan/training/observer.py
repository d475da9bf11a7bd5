"""What a run sees of itself while it trains: alignment, previews, diagnoses, evaluations.

The averaged generator is looked at. All processes call each of these at the same steps: under FSDP2 its weights are
gathered from all of them, and an evaluation is shared.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from catgan.config import Config
from catgan.data import Dataset, data_identity
from catgan.errors import UserError
from catgan.evaluation.alignment import MEASURES, alignment, diagnose
from catgan.evaluation.classifier import Classifier
from catgan.evaluation.collect import Work
from catgan.evaluation.evaluator import Evaluator, Facts
from catgan.evaluation.failures import failures
from catgan.evaluation.opening import open_evaluator, real_images
from catgan.evaluation.protocol import Protocol, Result
from catgan.evaluation.sources import DatasetImages, Generated
from catgan.sampling.pipeline import CATPipeline
from catgan.system.files import discard, read_if_there, write_text
from catgan.system.processes import Processes
from catgan.system.progress import Progress
from catgan.training.previews import Previews
from catgan.training.step import Step


class Observer:
    """Looks at the networks of one run, after `open`."""

    def __init__(
        self,
        config: Config,
        out: Path,
        engine: Step,
        previews: Previews,
        class_names: tuple[str, ...],
        quiet: bool = False,
    ) -> None:
        self.config, self.out, self.engine, self.previews, self.quiet = config, out, engine, previews, quiet
        self.class_names, self.processes = class_names, engine.parallel.processes
        self.evaluator: Evaluator | None = None

    def open(self, dataset: Dataset) -> None:
        """Get ready for evaluations, if there are to be any: minutes, where feature space and reference are not cached.

        dataset: what the run is trained on. Raises UserError for what the run cannot be evaluated by: before the first
        step, not after the first thousand.
        """
        if self.config.eval.every:
            self.evaluator = evaluator_of_run(
                self.config, self.out, dataset, self.class_names, self.engine.device, self.processes, self.quiet
            )
            space = self.evaluator.features
            if isinstance(space, Classifier) and space.doubt and not self.quiet:
                Progress.print(f"warning: {space.doubt}")

    def alignment(self) -> dict[str, float]:
        """Alignment of the training fakes of the last step: free, but of raw weights and random samples."""
        assert self.engine.fakes is not None
        measured = alignment(self.engine.fakes.float(), self.engine.pyramid)
        return self.engine.parallel.mean(
            {f"alignment/{m}/{k}": v for m in MEASURES for k, v in enumerate(measured[m].mean(0).tolist())}
        )

    def synthesis(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The averaged generator as a function of z and y to all stages."""
        average = self.engine.whole_ema()

        def synthesize(z: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad(), self.engine.autocast():
                h: Tensor = average(z, y, all_stages=True)
            return h.float()

        return synthesize

    def preview(self, step: int) -> None:
        synthesize = self.synthesis()
        if self.processes.first:
            self.previews.draw(synthesize, step)
        self.processes.wait()

    def diagnosis(self) -> dict[str, float]:
        """The fixed protocol, by the first process."""
        c, synthesize = self.config, self.synthesis()
        scalars: dict[str, float] = {}
        if self.processes.first:
            result = diagnose(
                synthesize,
                self.engine.pyramid,
                classes=c.sample.classes,
                z_dim=c.generator.z_dim,
                device=self.engine.device,
                samples=c.log.diagnose_samples,
            )
            scalars = {f"diagnose/{m}/{k}": v for m in MEASURES for k, v in enumerate(getattr(result, m))}
            scalars |= {f"diagnose/{m}/mean": v for m, v in result.averages().items()}
        self.processes.wait()
        return scalars

    def evaluate(self, step: int) -> Result:
        """The result for the averaged generator, which is also written to RUN/evaluations."""
        assert self.evaluator is not None
        p = self.evaluator.protocol
        pipe = CATPipeline(self.engine.whole_ema(), self.config, self.class_names, step)
        source = Generated(pipe.to(str(self.engine.device), p.precision), p.samples, p.class_sampling, p.first_seed)
        out = self.out / "evaluations" / f"training-{step:08d}.json"
        folder = out.with_name(f".{out.stem}.work") if self.processes.several else None
        if folder is not None:
            if self.processes.first:
                discard(folder)  # of a run that ended here and went on from an earlier checkpoint
            self.processes.wait()
        result = self.evaluator.measure(source, folder)
        result.failures.extend(self.processes.from_first(lambda: self.failures(result)))
        if self.processes.first:
            content = result.to_dict() | {"measured_by": result.measured_by}
            write_text(out, json.dumps(content, indent=2) + "\n")
        return result

    def failures(self, result: Result) -> list[str]:
        """What this evaluation says has gone wrong, by those of the run before."""
        before = [
            read_if_there(path)
            for path in (self.out / "evaluations").glob("training-*.json")
            if path.stem < f"training-{result.step:08d}"
        ]
        same = [e.get("metrics", {}) for e in before if e.get("measured_by") == result.measured_by]
        return failures(result.metrics, same, result.step / self.config.training.steps)


def evaluator_of_run(
    config: Config,
    out: Path,
    dataset: Dataset,
    class_names: tuple[str, ...],
    device: torch.device,
    processes: Processes,
    quiet: bool,
) -> Evaluator:
    """What measures the generator of a run by `config.eval`. Raises UserError for what cannot be measured."""
    e, sample = config.eval, config.sample
    if sample.channels not in (1, 3) and sample.vae is None:
        raise UserError(
            f"eval.every needs pixels, and this run makes latents of {sample.channels} channels: "
            "set sample.vae to what decodes them, or eval.every to 0"
        )
    protocol = Protocol(
        e.features, e.metrics, e.samples, "balanced", precision=config.training.precision, reference_features=e.samples
    )
    if e.reference is not None:
        real = real_images(e.reference, sample.size)
    else:
        own = data_identity(dataset) is None  # given in Python: not what config.data names
        name = type(dataset).__name__ if own else config.data.path or config.data.source
        real = None, DatasetImages(dataset, name)
    samples = Facts("the generator", e.samples, class_names if sample.classes > 1 else ())
    work = Work(e.batch, processes, quiet=quiet)
    return open_evaluator(real, samples, protocol, work, device, e.weights, out / "evaluations")
