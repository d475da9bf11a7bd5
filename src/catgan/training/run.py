"""The training loop and the run directory.

RUN/config.yaml        the resolved configuration
RUN/run.json           class names, versions, machine
RUN/metrics.jsonl      every scalar, by step
RUN/tensorboard/       the same for TensorBoard
RUN/logs/              what each process did, rank-00000.log and so on
RUN/previews/          sample grids and stage grids
RUN/evaluations/       results of evaluations, with their protocols
RUN/checkpoints/       folders step-XXXXXXXX, and best-XXXXXXXX where eval.every asks for it
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from catgan.accounting.compute import compute
from catgan.accounting.gpus import datasheet_peak
from catgan.checkpoint import reading as checkpoint
from catgan.checkpoint.manifest import Header
from catgan.checkpoint.saving import Saver
from catgan.config import Config
from catgan.config_io import dump_yaml
from catgan.data import Dataset, check_fits, data_identity, known_classes, open_dataset, prefetch
from catgan.encoders import Encoder
from catgan.errors import require, said_once
from catgan.objective.identity import recorded
from catgan.objective.supervision import Supervision
from catgan.objective.terms import Objective, default_objective
from catgan.system.devices import can_compile, keep_freed_memory, memory_error, pick_device
from catgan.system.files import write_text
from catgan.system.packages import installed, need
from catgan.system.processes import Processes
from catgan.system.progress import Progress, about
from catgan.training.batches import Batch, Batches
from catgan.training.best import keep_best
from catgan.training.directory import Directory
from catgan.training.fine_tuning import start_from
from catgan.training.graph import Metrics
from catgan.training.logs import MetricsLog, RankLog
from catgan.training.observer import Observer
from catgan.training.out_of_memory import advice
from catgan.training.parallel import Parallel, StalledError
from catgan.training.previews import Previews
from catgan.training.scalars import DivergedError, Scalars
from catgan.training.signals import StopSignal
from catgan.training.step import Step
from catgan.training.target import RepresentationTarget, representation_target
from catgan.training.timing import Pace, peak_memory
from catgan.training.vision import check_vision, keep_own_copy, vision_heads
from catgan.version import __version__

LONG = 1800  # seconds of a run on CPUs from which on compiling the block is worth its minute


def train(
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    objective: Objective | None = None,
    supervision: Supervision | None = None,
    heads: Mapping[str, nn.Module] | None = None,
    dataset: Dataset | None = None,
    encoder: Encoder | None = None,
    quiet: bool = False,
) -> Path:
    """Train, and return the run directory.

    resume: go on from the latest whole checkpoint in `out`; the configuration may differ from the stored one in
    what `RESUMABLE` names only. objective: in place of `default_objective(config)`. supervision: in place of
    `default_supervision(config)`. heads: trained with the discriminator, see `Discriminator.add_heads`. dataset: in
    place of the one that config.data names. encoder: on the training device, in place of the DINOv2 that
    config.encoder names.
    Raises UserError for bad input, DivergedError for losses that are not finite, and KeyboardInterrupt or
    SystemExit after Ctrl-C or SIGTERM, with a checkpoint saved. Under torchrun all processes train this one run; each
    calls this with the same arguments.
    """
    out, processes = Path(out), Processes.from_environment()
    with said_once():
        config.validate()
        check_shares(config, processes.world)
    device = pick_device(processes.device(config.training.device))
    if dataset is None:
        dataset = open_dataset(config.data, config.sample.size)
    check_fits(dataset, config)
    target = representation_target(config, dataset, device, encoder, resume)
    parallel = Parallel(processes, device, config.training.parallel == "fsdp2", config.training.timeout)
    with parallel.watched(lambda: "start"):
        objective = objective or default_objective(config)
        heads = vision_heads(config, dataset, out, device, processes, quiet) | dict(heads or {})
        check_vision(objective, heads)
        run = Run(config, out, dataset, objective, quiet, target, parallel, supervision, heads)
    with run.log:
        try:
            with parallel.watched(lambda: "start"):
                run.prepare(resume)
            run.loop()
        except (KeyboardInterrupt, SystemExit):  # all processes have stopped, in good order
            processes.leave()
            raise
        finally:
            run.close()
    processes.leave()
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
        target: RepresentationTarget | None = None,
        parallel: Parallel | None = None,
        supervision: Supervision | None = None,
        heads: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.parallel = parallel or Parallel(Processes(), pick_device(config.training.device))
        self.processes, self.device = self.parallel.processes, self.parallel.device
        self.stopwatch = self.parallel.stopwatch
        self.config, self.out, self.dataset = config, out, dataset
        self.quiet = quiet or not self.processes.first
        self.log = RankLog(out, self.processes)
        if config.training.threads:
            torch.set_num_threads(config.training.threads)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.engine = Step(config, objective, self.device, target, self.parallel, supervision, heads)
        e = self.engine
        self.networks: dict[str, nn.Module] = {"generator": e.generator, "discriminator": e.discriminator, "ema": e.ema}
        self.terms = recorded(objective, supervision, heads or {}, None if target is None else target.identity)
        self.class_names = known_classes(dataset, config)
        share = self.parallel.share(config.training.batch)
        self.batches = Batches(config, dataset, target, self.device.type == "cuda", share)
        previews = Previews(config, out / "previews", self.device, self.say, dataset)
        self.observer = Observer(config, out, self.engine, previews, self.class_names, self.quiet)
        self.step = 0
        self.scalars = Scalars()
        self.saver = Saver(self.processes)
        self.directory = Directory(out, config, self.terms, self.say, dataset)
        self.saved: Path | None = None  # the newest checkpoint, which may still be being written
        self.last_good: Path | None = None
        self.logged = 0  # the step of the last log entry
        self.flops = 0.0  # of a sample and step, for the achieved share of the device's peak

    # -- before the first step -------------------------------------------------------------------------------------

    def say(self, message: str) -> None:
        self.log.write(message)
        if not self.quiet:
            Progress.print(message)

    def prepare(self, resume: bool) -> None:
        """Check the directory, restore what is to be restored, and write what says what the run is."""
        if self.config.log.wandb:
            need("wandb", "log.wandb", "wandb")
        if not installed("tensorboard"):
            self.say("no log for TensorBoard, which is not installed: pip install 'catgan[tensorboard]'")
        needed = self.kept * checkpoint.forecast(self.networks, self.config)
        path = self.processes.from_first(lambda: self.directory.open(resume, needed))
        if path is not None:
            self.restore(path)
        elif self.config.training.init_from:
            source, step = start_from(Path(self.config.training.init_from), self.networks, self.config)
            self.say(f"starting from the weights of {source} (step {step})")
        self.observer.open(self.dataset)
        self.log.open()
        if self.processes.first:
            write_text(self.out / "config.yaml", dump_yaml(self.config))
            write_text(self.out / "run.json", json.dumps(self.description(), indent=2))
            keep_own_copy(self.config, self.dataset, self.out)
        if self.peak:
            self.flops = 2e9 * compute(self.config, self.processes.world)["training"]["gmacs_per_sample"]
        count = {n: quantity(sum(p.numel() for p in network.parameters())) for n, network in self.networks.items()}
        self.say(
            f"{self.config.recipe} on {self.where}: generator {count['generator']}, discriminator {count['discriminator']} "
            f"parameters, {len(self.dataset)} samples; checkpoints of {checkpoint.forecast(self.networks, self.config) / 1e6:.1f} MB, "
            f"up to {self.kept} of them"
        )

    @property
    def where(self) -> str:
        """The device, or how many processes on what."""
        world = self.processes.world
        return f"{world} x {self.device.type} ({self.config.training.parallel})" if world > 1 else str(self.device)

    @property
    def kept(self) -> int:
        """How many checkpoints there may be at a time."""
        c = self.config
        return c.checkpoint.keep + len(c.checkpoint.keep_steps) + 1 + bool(c.eval.every)

    @property
    def peak(self) -> float:
        """FLOP/s that the device can do at the most, as far as known; else 0."""
        if self.config.log.peak is not None:
            return self.config.log.peak * 1e12
        if self.device.type != "cuda":
            return 0.0
        return datasheet_peak(torch.cuda.get_device_name(self.device), self.config.training.precision) * 1e12

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""
        reader = checkpoint.Reader(path, verified=True)
        checkpoint.restore(reader, self.networks, self.engine.optimizers)
        header = reader.header
        self.step, self.saved, self.last_good = header.step, path, path
        self.batches.origin = (header.step, header.samples)
        self.say(f"resuming from {path} at step {self.step}")

    def description(self) -> dict[str, Any]:
        return {
            "id": self.directory.run_id,
            "class_names": self.class_names,
            "samples": len(self.dataset),
            "data": data_identity(self.dataset),
            "objective": self.terms,
            "catgan": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {self.where}",
        }

    # -- the loop --------------------------------------------------------------------------------------------------

    def loop(self) -> None:
        """Read, step, look and save, until the last step or a signal. Raises what `train` raises."""
        total, workers = self.config.training.steps, self.config.data.workers
        log = MetricsLog(self.out, self.config, self.step, self.directory.run_id) if self.processes.first else None
        progress = Progress(self.step, total, self.config.training.batch, quiet=self.quiet)
        stop = StopSignal(noted=self.parallel.hurry)
        pace, said = Pace(self.device), False
        try:
            with (
                log or nullcontext(),
                stop,
                closing(prefetch(self.batches.read, range(self.step, total), workers, workers)) as coming,
                self.parallel.watched(lambda: f"step {self.step}"),
            ):
                if self.step == 0:
                    self.observer.preview(self.step)
                self.stopwatch.read()
                self.stopwatch.cpu()
                self.logged = self.step
                while self.step < total and not stop.agreed:
                    with pace.of_step():
                        with self.stopwatch.of("data"):
                            batch = next(coming)
                        self.scalars.add(self.step + 1, self.iterate(batch))
                    self.step += 1
                    stop.agreed = int(self.parallel.max(stop.number))
                    self.look(log)
                    self.save_if_due()
                    progress.update(self.step, log.losses if log else "")
                    if pace.known and not said and self.step < total:
                        said = True
                        progress.note(self.forecast(pace.known))
                if stop.agreed:
                    self.save()
                self.saver.wait()
            if stop.agreed:
                self.log.write(f"stopped by signal {stop.agreed} at step {self.step}")
                progress.note(f"stopped at step {self.step}, saved {self.last_good}; go on with --resume")
        except StalledError:
            self.saver.settle(self.parallel.patience)  # who is missing may be missing there too
            raise
        finally:
            progress.close()
        stop.end()

    def forecast(self, seconds: float) -> str:
        """How long the rest will take at so many seconds a step, without evaluations, and what to expect meanwhile."""
        c, left = self.config, self.config.training.steps - self.step
        cores = torch.get_num_threads()
        here = {"cuda": "this GPU", "cpu": f"these {cores} cores" if cores > 1 else "this core"}
        place = self.where if self.processes.several else here.get(self.device.type, self.where)
        every = about(seconds * c.log.preview_every)
        previews = f"every {every}" if c.log.preview_every < left else "at the end"
        return (
            f"about {about(seconds * left)} for {left * c.training.batch:,} more images on {place}; previews {previews}; "
            f"Ctrl-C saves{self.shorter(seconds * left)}"
        )

    def shorter(self, seconds: float) -> str:
        """How a long run on CPUs becomes shorter, if it can."""
        compiled, on_cpu = self.config.compiles(self.device.type), self.device.type == "cpu"
        if compiled or not on_cpu or seconds < LONG or not can_compile(self.device):
            return ""
        return "; less with --training.compile, also with --resume"

    def iterate(self, batch: Batch) -> Metrics:
        try:
            return self.engine.run(self.step, *batch.to(self.device))
        except (RuntimeError, MemoryError) as error:
            if not memory_error(error):
                raise
        raise advice(self.engine, batch)

    def look(self, log: MetricsLog | None) -> None:
        """What is due after this step: log entries, diagnosis, evaluation, previews."""
        c, step, last = self.config, self.step, self.step == self.config.training.steps
        scalars: dict[str, float] = {}
        if step % c.log.every == 0 or last:
            scalars = self.flush() | self.observer.alignment() | self.speed()
            scalars["epoch"] = self.batches.position(step) / len(self.dataset)
        with self.stopwatch.of("evaluation"):
            if (step % c.log.diagnose_every == 0 or last) and len(c.sample.scales) > 1:
                self.flush()
                scalars |= self.observer.diagnosis()
            if c.eval.every and (step % c.eval.every == 0 or last):
                scalars |= self.evaluate()
            if step % c.log.preview_every == 0 or last:
                self.observer.preview(self.step)
        if scalars and log is not None:
            log.write(step, scalars)

    def flush(self) -> dict[str, float]:
        """Check all steps since the last flush; the scalars of the newest one. Raises DivergedError."""
        try:
            return self.scalars.read()
        except DivergedError as error:
            self.saver.settle()
            raise DivergedError(
                f"{error}; last good checkpoint: {self.last_good or 'none yet'}; "
                "lower the learning rates or raise objective.penalty, in a new --out"
                + (", with --init-from for its weights" if self.last_good else "")
            ) from None

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def save_if_due(self) -> None:
        c, step = self.config, self.step
        if step % c.checkpoint.every == 0 or step == c.training.steps or step in c.checkpoint.keep_steps:
            with self.stopwatch.of("checkpoint"):
                self.save()

    def write_checkpoint(self, path: Path, done: Callable[[], None]) -> None:
        """In the background. done: what to do when it is complete."""
        tensors = checkpoint.state_tensors(self.networks, self.engine.optimizers)
        samples = self.batches.position(self.step)
        header = Header(self.step, self.config, self.class_names, self.terms, samples)
        self.saver.save(path, tensors, header, done)

    def save(self) -> None:
        self.flush()
        path = self.directory.checkpoints / checkpoint.name(self.step)
        if path == self.saved:
            return

        def done() -> None:
            self.last_good = path
            if self.processes.first:
                checkpoint.prune(path.parent, self.config.checkpoint.keep, self.config.checkpoint.keep_steps)

        self.write_checkpoint(path, done)
        self.saved = path

    def close(self) -> None:
        """Let a checkpoint that is being written be completed, and let others have the folder."""
        self.saver.settle()
        self.directory.lock.release()

    # -- what it looks at ------------------------------------------------------------------------------------------

    def speed(self) -> dict[str, float]:
        """Where the time since the last entry went, on average over the processes, and what was done in it."""
        elapsed, seconds = self.stopwatch.read()
        shares = {f"time/{part}": spent / elapsed for part, spent in seconds.items()}
        shares["time/forward_backward"] = 1 - sum(shares.values())
        self.log.write(
            f"step {self.step}: " + ", ".join(f"{n.removeprefix('time/')} {v:.1%}" for n, v in shares.items())
        )
        images = (self.step - self.logged) * self.config.training.batch
        rate = images / (elapsed - seconds["evaluation"] - seconds["checkpoint"])
        self.logged = self.step
        scalars = self.parallel.mean(shares | {"cpu_seconds": self.stopwatch.cpu()}) | {"images_per_second": rate}
        scalars["cpu_seconds"] *= self.processes.world
        scalars["memory/peak_gb"] = self.parallel.max(peak_memory(self.device)) / 1e9
        if self.flops:
            scalars["mfu"] = self.flops * rate / (self.peak * self.processes.world)
        return scalars

    def evaluate(self) -> dict[str, float]:
        """Evaluate the averaged generator; keep this checkpoint if it is the best so far."""
        self.flush()
        result = self.observer.evaluate(self.step)
        self.saver.wait()  # it may be the best before, which is now compared with
        folder, metric = self.directory.checkpoints, self.config.eval.best
        keep_best(folder, metric, result, self.write_checkpoint, self.processes, self.quiet)
        return {f"eval/{name}": value for name, value in result.metrics.items()}


def check_shares(config: Config, processes: int) -> None:
    """Raise UserError unless the batch can be divided among so many processes."""
    batch = config.training.batch
    require(batch % processes == 0, "training.batch", batch, f"a multiple of the number of processes, {processes}")


def quantity(count: int) -> str:
    """A count with a unit: 133.1 M, 305 K."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} K"
