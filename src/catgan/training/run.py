"""The training loop and the run directory.

RUN/config.yaml        the resolved configuration
RUN/run.json           class names, versions, machine
RUN/metrics.jsonl      every scalar, by step
RUN/tensorboard/       the same for TensorBoard
RUN/previews/          sample grids and stage grids
RUN/evaluations/       results of evaluations, with their protocols
RUN/checkpoints/       step-XXXXXXXX.safetensors, and best.safetensors where eval.every asks for it
"""

from __future__ import annotations

import json
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import catgan
from catgan.config import RESUMABLE, Config, differences, dump_yaml, load_yaml
from catgan.data import Dataset, ahead, check_fits, open_dataset
from catgan.devices import memory_error, pick_device
from catgan.encoders import Encoder, encoder_for
from catgan.errors import UserError
from catgan.evaluation.alignment import MEASURES, alignment, diagnose
from catgan.files import write_text
from catgan.objective.terms import Objective, default_objective
from catgan.progress import Progress
from catgan.training import checkpoint
from catgan.training.assess import Assessor
from catgan.training.batches import Batch, Batches
from catgan.training.fine_tuning import start_from
from catgan.training.logs import MetricsLog, check_wandb
from catgan.training.previews import Previews
from catgan.training.step import Metrics, Step


class DivergedError(UserError):
    """A loss or a gradient is not finite."""

    exit_code = 1


def train(
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    objective: Objective | None = None,
    dataset: Dataset | None = None,
    encoder: Encoder | None = None,
    quiet: bool = False,
) -> Path:
    """Train, and return the run directory.

    resume: go on from the latest whole checkpoint in `out`; the configuration may differ from the stored one in
    what `RESUMABLE` names only. objective: in place of `default_objective(config)`. dataset: in place of the one that
    config.data names. encoder: on the training device, in place of the DINOv2 that config.encoder names.
    Raises UserError for bad input, DivergedError for losses that are not finite, and KeyboardInterrupt or
    SystemExit after Ctrl-C or SIGTERM, with a checkpoint saved.
    """
    config.validate()
    out = Path(out)
    if dataset is None:
        dataset = open_dataset(config.data, config.sample.size)
    check_fits(dataset, config)
    encoder = encoder_for(config, dataset, pick_device(config.training.device), encoder, resume)
    run = Run(config, out, dataset, objective or default_objective(config), quiet, encoder)
    run.prepare(resume)
    run.loop()
    return out


class Run:
    """One run directory and all that is in memory of it."""

    def __init__(
        self,
        config: Config,
        out: Path,
        dataset: Dataset,
        objective: Objective,
        quiet: bool,
        encoder: Encoder | None = None,
    ) -> None:
        self.config, self.out, self.dataset, self.quiet = config, out, dataset, quiet
        self.device = pick_device(config.training.device)
        if config.training.threads:
            torch.set_num_threads(config.training.threads)
        self.engine = Step(config, objective, self.device, encoder)
        self.networks: dict[str, torch.nn.Module] = {
            "generator": self.engine.generator,
            "discriminator": self.engine.discriminator,
            "average": self.engine.average,
        }
        self.terms = tuple(
            f"{network}: {', '.join(f'{t.weight_at(step):g}' for step in (0, 100, 10_000))} * {t.name}"
            for network in ("discriminator", "generator")
            for t in getattr(objective, network)
        ) + (() if encoder is None else (f"encoder: {encoder.identity}",))
        self.class_names = dataset.class_names if config.sample.classes > 1 else ("all",)
        self.batches = Batches(config, dataset, encoder, pinned=self.device.type == "cuda")
        self.previews = Previews(config, out / "previews", self.device, self.say)
        self.assessor = Assessor(config, out, dataset, self.device, quiet)
        self.step = 0
        self.last_good: Path | None = None
        self.pending: list[tuple[int, Metrics]] = []
        self.stop_signal: int | None = None
        self.waited = 0.0  # seconds for data, since the last log entry

    # -- before the first step -------------------------------------------------------------------------------------

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    def say(self, message: str) -> None:
        if not self.quiet:
            Progress.print(message)

    def prepare(self, resume: bool) -> None:
        """Check the directory, restore what is to be restored, and write what says what the run is."""
        stored = self.out / "config.yaml"
        if stored.exists():
            self.check_same(load_yaml(stored), resume)
        elif resume:
            raise UserError(
                f"nothing to resume: {self.out} has no config.yaml; leave --resume out to start a run there"
            )
        elif self.out.exists() and (not self.out.is_dir() or any(p for p in self.out.iterdir() if p.name[0] != ".")):
            raise UserError(f"{self.out} exists and is no run of catgan: choose another --out or an empty folder")
        size = checkpoint.forecast(self.networks)
        kept = self.config.checkpoint.keep + len(self.config.checkpoint.keep_steps) + 1 + bool(self.config.eval.every)
        check_writable(self.out)
        check_wandb(self.config)
        checkpoint.check_space(self.out, kept * size)
        resumed = resume and self.restore()
        if not resumed and self.config.training.init_from:
            source, step = start_from(Path(self.config.training.init_from), self.networks, self.config)
            self.say(f"starting from the weights of {source} (step {step})")
        if self.config.eval.every:
            self.assessor.open()
        write_text(stored, dump_yaml(self.config))
        write_text(self.out / "run.json", json.dumps(self.description(), indent=2))
        count = {n: quantity(sum(p.numel() for p in network.parameters())) for n, network in self.networks.items()}
        self.say(
            f"{self.config.recipe} on {self.device}: generator {count['generator']}, discriminator {count['discriminator']} parameters, "
            f"{len(self.dataset)} samples; checkpoints of {size / 1e6:.1f} MB, up to {kept} of them"
        )

    def check_same(self, stored: Config, resume: bool) -> None:
        if stored.recipe != self.config.recipe:
            raise UserError(
                f"{self.out} is a run of recipe {stored.recipe}, not {self.config.recipe}: choose another --out"
            )
        if not resume:
            raise UserError(f"{self.out} has a run already: add --resume to go on with it, or choose another --out")
        for name in fixed_differences(stored, self.config):
            raise UserError(
                f"cannot resume {self.out} with another {name}: a resumed run may change only {', '.join(RESUMABLE)}"
            )

    def restore(self) -> bool:
        """Go on from the latest whole checkpoint; False if there is none."""
        path = checkpoint.latest(self.checkpoints, lambda message: self.say(f"warning: {message}"), self.check_own)
        if path is None:
            if checkpoint.listed(self.checkpoints):
                raise UserError(
                    f"none of the checkpoints in {self.checkpoints} can be used: delete them to start from step 0, or choose another --out"
                )
            self.say(f"{self.out} has no checkpoint yet: starting from step 0")
            return False
        header, tensors = checkpoint.read(path)
        if header.objective != self.terms:
            raise UserError(
                f"cannot resume {self.out} with another objective: it was {'; '.join(header.objective)}, now {'; '.join(self.terms)}"
            )
        if header.step > self.config.training.steps:
            raise UserError(
                f"training.steps is {self.config.training.steps}, but {self.out} is at step {header.step} already: must be at least that"
            )
        checkpoint.restore(tensors, self.networks, self.engine.optimizers)
        checkpoint.set_aside(self.checkpoints, header.step)
        self.step, self.last_good = header.step, path
        self.say(f"resuming from {path} at step {self.step}")
        return True

    def check_own(self, header: checkpoint.Header, path: Path) -> None:
        """Raise DamagedError for a checkpoint of another run that lies among this one's."""
        for name in fixed_differences(header.config, self.config):
            raise checkpoint.DamagedError(f"{path} is of another run: its {name} differs")

    def description(self) -> dict[str, Any]:
        return {
            "class_names": self.class_names,
            "samples": len(self.dataset),
            "objective": self.terms,
            "catgan": catgan.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {self.device}",
        }

    # -- the loop --------------------------------------------------------------------------------------------------

    def loop(self) -> None:
        c, total = self.config, self.config.training.steps
        log = MetricsLog(self.out, c, self.step)
        progress = Progress(self.step, total, c.training.batch)
        handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)} if in_main_thread() else {}
        for s in handlers:
            signal.signal(s, self.on_signal)
        coming = ahead(self.batches.read, range(self.step, total), c.data.workers, c.data.workers)
        began, began_step = time.perf_counter(), self.step
        try:
            if self.step == 0:
                self.previews.draw(self.synthesize, self.step)
            while self.step < total and self.stop_signal is None:
                metrics = self.iterate(coming)
                self.step += 1
                self.pending.append((self.step, metrics))
                last = self.step == total
                if self.step % c.log.every == 0 or last:
                    scalars = self.flush() | self.alignment_now()
                    elapsed = time.perf_counter() - began
                    scalars["epoch"] = self.step * c.training.batch / len(self.dataset)
                    scalars["images_per_second"] = (self.step - began_step) * c.training.batch / elapsed
                    scalars["data_share"] = self.waited / elapsed
                    log.write(self.step, scalars)
                    began, began_step, self.waited = time.perf_counter(), self.step, 0.0
                if (self.step % c.log.diagnose_every == 0 or last) and len(c.sample.scales) > 1:
                    self.flush()
                    log.write(self.step, self.diagnosis())
                if c.eval.every and (self.step % c.eval.every == 0 or last):
                    log.write(self.step, self.evaluate())
                if self.step % c.log.preview_every == 0 or last:
                    self.previews.draw(self.synthesize, self.step)
                if self.step % c.checkpoint.every == 0 or last or self.step in c.checkpoint.keep_steps:
                    self.save()
                if not self.quiet:
                    progress.update(self.step)
            if self.stop_signal is not None:
                self.save()
                progress.note(f"stopped at step {self.step}, saved {self.last_good}; go on with --resume")
        finally:
            coming.close()
            progress.close()
            log.close()
            for s, handler in handlers.items():
                signal.signal(s, handler)
        if self.stop_signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.stop_signal is not None:
            raise SystemExit(128 + self.stop_signal)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Finish the step and save; a second signal ends the process at once."""
        self.stop_signal = number
        signal.signal(number, signal.SIG_DFL)

    def iterate(self, coming: Iterator[Batch]) -> Metrics:
        try:
            began = time.perf_counter()
            batch = next(coming)
            self.waited += time.perf_counter() - began
            return self.engine.run(self.step, *batch.to(self.device))
        except (RuntimeError, MemoryError) as error:
            if not memory_error(error):
                raise
        fits = self.largest_fitting()
        raise UserError(
            f"out of memory on {self.device} with {self.config.training.micro_batch or self.config.training.batch} samples per pass: "
            + (
                f"--micro-batch {fits} fits; start again with it in a new --out"
                if fits
                else "not even 1 sample fits; use a smaller network"
            )
        )

    def largest_fitting(self) -> int:
        """Try smaller micro-batches, without changing any weight, until one fits; 0 if none does."""
        size = self.config.training.micro_batch or self.config.training.batch
        batch = self.batches.read(self.step)
        while size > 1:
            size //= 2
            try:
                if self.engine.fits(*batch.to(self.device, size)):
                    return size
            except (RuntimeError, MemoryError) as error:
                if not memory_error(error):
                    raise
        return 0

    def flush(self) -> dict[str, float]:
        """Check all steps since the last flush; the scalars of the newest one. Raises DivergedError."""
        scalars: dict[str, float] = {}
        for step, metrics in self.pending:
            numbers = torch.cat([m.detach().double().reshape(-1) for m in metrics.values()]).tolist()
            names = [n if m.ndim == 0 else f"{n}/{k}" for n, m in metrics.items() for k in range(max(1, m.numel()))]
            scalars = dict(zip(names, numbers, strict=True))
            for name, number in scalars.items():
                if not np.isfinite(number):
                    raise DivergedError(
                        f"step {step}: {name} is {number}; last good checkpoint: {self.last_good or 'none yet'}; "
                        "lower the learning rates or raise objective.penalty, in a new --out"
                        + (", with --init-from for its weights" if self.last_good else "")
                    )
        self.pending = self.pending[-1:]
        return scalars

    def write_checkpoint(self, path: Path) -> None:
        tensors = checkpoint.state_tensors(self.networks, self.engine.optimizers)
        checkpoint.write(path, tensors, checkpoint.Header(self.step, self.config, self.class_names, self.terms))

    def save(self) -> None:
        self.flush()
        path = self.checkpoints / checkpoint.name(self.step)
        self.write_checkpoint(path)
        self.last_good = path
        checkpoint.prune(self.checkpoints, self.config.checkpoint.keep, self.config.checkpoint.keep_steps)

    # -- looking at it ---------------------------------------------------------------------------------------------

    def alignment_now(self) -> dict[str, float]:
        """Alignment of the training fakes of this very step: free, but of raw weights and random samples."""
        assert self.engine.fakes is not None
        measured = alignment(self.engine.fakes.float(), self.engine.pyramid)
        return {f"alignment/{m}/{k}": v for m in MEASURES for k, v in enumerate(measured[m].mean(0).tolist())}

    def synthesize(self, z: Tensor, y: Tensor) -> Tensor:
        average = self.engine.average
        with torch.no_grad():
            w = average.style(z, y)
            with self.engine.autocast():
                return average.synthesize(w, all_stages=True).float()

    def diagnosis(self) -> dict[str, float]:
        """The fixed protocol on the averaged generator."""
        c = self.config
        result = diagnose(
            self.synthesize,
            self.engine.pyramid,
            classes=c.sample.classes,
            z_dim=c.generator.z_dim,
            device=self.device,
            samples=c.log.diagnose_samples,
        )
        stages = {f"diagnose/{m}/{k}": v for m in MEASURES for k, v in enumerate(getattr(result, m))}
        return stages | {f"diagnose/{m}/mean": v for m, v in result.averages().items()}

    def evaluate(self) -> dict[str, float]:
        """Evaluate the averaged generator; keep this checkpoint if it is the best so far."""
        self.flush()
        result = self.assessor.measure(self.engine.average, self.class_names, self.step)
        self.assessor.keep_best(result, self.write_checkpoint)
        return {f"eval/{name}": value for name, value in result.metrics.items()}


def fixed_differences(stored: Config, config: Config) -> list[str]:
    """Dotted names of the fields that differ though a resumed run may not change them."""
    return [n for n in differences(stored, config) if not any(f"{n}.".startswith(f"{free}.") for free in RESUMABLE)]


def quantity(count: int) -> str:
    """A count with a unit: 133.1 M, 305 K."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} K"


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def check_writable(folder: Path) -> None:
    """Raise UserError unless files can be made in the folder, which is created."""
    probe = folder / ".probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
