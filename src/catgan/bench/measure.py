"""One benchmark: everything that is asked for, in turns, on networks in their first state."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import catgan
from catgan.bench.ceiling import Ceiling
from catgan.bench.cold import cold_start
from catgan.bench.memory import check_memory, peak_bytes, python_share, state_bytes
from catgan.bench.meters import Clock, Part, Timing
from catgan.bench.parts import (
    FORWARD,
    LOADER,
    SAMPLING,
    STEP,
    MeasuredStep,
    forward_part,
    inputs,
    loader_part,
    measured,
    sampling_part,
    training_part,
)
from catgan.bench.plain import check_same, full_penalties, load_plain
from catgan.bench.rounds import Request, rounds
from catgan.bench.scaling import scaling
from catgan.bench.targets import EQUAL, SHIPPED, described, targets
from catgan.config import Config, to_dict
from catgan.data import check_fits, open_dataset
from catgan.devices import pick_device
from catgan.errors import UserError


BUSY = 0.5  # load per core above which others disturb


def bench(config: Config, request: Request) -> dict[str, Any]:
    """Measure a recipe; everything in the result can be written as JSON."""
    return Bench(config, request).run()


class Bench:
    """The networks that are measured, and what is known of them."""

    def __init__(self, config: Config, request: Request) -> None:
        self.notes = []
        if config.discriminator.representation_dim or config.encoder.path:
            self.notes.append("without the encoder, the representation head and their loss; real samples are made up")
        self.config, self.request = measured(config).validate(), request
        t = self.config.training
        if request.against_plain and 0 < t.micro_batch < t.batch:
            raise UserError(f"training.micro_batch is {t.micro_batch}: must be 0 with --against plain, which has none")
        self.plain: Any = load_plain() if request.against_plain else None
        self.device = pick_device(t.device)
        if t.threads:
            torch.set_num_threads(t.threads)
        if {"step", "memory"} & set(request.only):
            check_memory(self.config, self.device)
        self.clock = Clock(self.device)
        self.step = MeasuredStep(self.config, self.device)
        self.x, self.y = inputs(self.config, self.device)
        self.targets = targets(self.config, self.device.type)
        self.ceiling = Ceiling(self.config, self.step, self.clock)
        self.skipped: dict[str, str] = {}
        if self.device.type == "cpu" and os.getloadavg()[0] > BUSY * (os.cpu_count() or 1):
            self.notes.append("others were busy on this machine before: times of several threads mean little then")

    def run(self) -> dict[str, Any]:
        request = self.request
        result: dict[str, Any] = {"recipe": self.config.recipe, "machine": machine(self.device)}
        against = self.plain_steps() if self.plain else {}
        parts = self.parts() | {name: step.part(self.x, self.y) for name, step in against.items()}
        if "step" not in request.only:
            parts = {name: part for name, part in parts.items() if name not in against}
        times, work = rounds(parts, self.ceiling, self.clock, request, self.config.training.compile)
        result["parts"] = [self.row(n, times[n], work[n]) for n in times if n not in (*against, LOADER)]
        if LOADER in times:
            result["loader"] = self.loader(times)
        elif LOADER in self.skipped:
            result["loader"] = {"skipped": self.skipped[LOADER]}
        if "sampling" in request.only and self.device.type == "cpu":
            result["python"] = self.python()
        if "step" in request.only and against:
            result["against"] = [self.compared(n, s, times, work[n]) for n, s in against.items()]
        if "memory" in request.only:
            request.say("memory")
            result["memory"] = self.memory(against)
        if request.scaling:
            result["scaling"] = scaling(self.config, request, self.ceiling, self.clock, self.targets.get("linear"))
        if request.cold_start:
            request.say("cold start, twice")
            result["cold_start"] = {
                name: {"seconds": seconds, "target": described(self.targets.get(name), seconds)}
                for name, seconds in cold_start(self.config).items()
            }
        result["ceiling"] = self.ceiling.description()
        self.add_shares(result["parts"])
        t = self.config.training
        result["settings"] = {
            "batch": t.batch, "precision": t.precision, "compile": t.compile, "reuse_fakes": t.reuse_fakes,
            "repeats": request.repeats, "sizes": list(request.sizes), "only": list(request.only),
            "config": to_dict(self.config),
        }  # fmt: skip
        return result | {"notes": self.notes}

    def parts(self) -> dict[str, Part]:
        """What is measured of catgan itself."""
        found: dict[str, Part] = {}
        if "step" in self.request.only:
            found[STEP] = training_part(self.step, self.x, self.y)
        if "generator" in self.request.only:
            found[FORWARD] = forward_part(self.step, self.y)
        if "sampling" in self.request.only:
            found |= {f"{SAMPLING}, batch {n}": sampling_part(self.step, n) for n in self.request.sizes}
        if "loader" in self.request.only:
            try:
                dataset = open_dataset(self.config.data, self.config.sample.size)
                check_fits(dataset, self.config)
                found[LOADER] = loader_part(self.config, dataset, self.device.type == "cuda")
            except UserError as error:
                self.skipped[LOADER] = str(error)
        return found

    def plain_steps(self) -> dict[str, PlainRun]:
        """The straightforward version twice, on the weights of the measured step, after losses were compared."""
        full, found = full_penalties(self.config), {}
        for name, config, recompute in ((EQUAL, self.config, False), (SHIPPED, full, True)):
            self.request.say(f"comparing losses: {name}")
            difference = check_same(self.plain, config, self.x, self.y, recompute)
            networks = self.step.generator, self.step.discriminator, self.step.average
            found[name] = PlainRun(name, self.plain(config, *networks, recompute), difference)
        return found

    # -- results ---------------------------------------------------------------------------------------------------

    def row(self, name: str, timing: Timing, flop: float) -> dict[str, Any]:
        """One thing that was measured; `add_shares` completes it."""
        batch = int(name.rpartition(" ")[2]) if name.startswith(SAMPLING) else self.config.training.batch
        return {
            "name": name, "batch": batch, "gflop": flop / 1e9, "seconds": timing.description(),
            "images_per_second": batch / timing.median, "gflops": flop / 1e9 / timing.median,
        }  # fmt: skip

    def add_shares(self, rows: list[dict[str, Any]]) -> None:
        """The share of the ceiling, which is known when everything has run."""
        top = max(self.ceiling.rates().values()) / 1e9 if rows else 1.0
        for row in rows:
            row["share"] = row["gflops"] / top
            row["target"] = described(self.targets.get(row["name"]), row["share"])

    def loader(self, times: dict[str, Timing]) -> dict[str, Any]:
        batch, timing = self.config.training.batch, times[LOADER]
        result = {"seconds": timing.description(), "images_per_second": batch / timing.median}
        if STEP in times:
            result["times_training"] = times[STEP].median / timing.median
        return result | {"workers": self.config.data.workers}

    def python(self) -> list[dict[str, Any]]:
        rows = []
        for n in self.request.sizes:
            part = sampling_part(self.step, n)
            part.run(self.clock)
            share = python_share(lambda part=part: part.run(self.clock))  # type: ignore[misc]
            rows.append(
                {"batch": n, "share": share, "target": described(self.targets.get(f"python, batch {n}"), share)}
            )
        return rows

    def compared(self, name: str, plain: PlainRun, times: dict[str, Timing], flop: float) -> dict[str, Any]:
        ours, theirs = times[STEP].median, times[name]
        ratio = theirs.median / ours
        return {
            "settings": name, "seconds": theirs.description(), "gflop": flop / 1e9, "ratio": ratio,
            "loss_difference": plain.difference, "target": described(self.targets.get(name), ratio),
        }  # fmt: skip

    def memory(self, against: dict[str, PlainRun]) -> dict[str, Any]:
        """Peaks of one training step, above weights and moments: as configured, without reuse, and plain."""

        def peak(step: Any) -> int:
            step.run(0, self.x, self.y)  # moments are there
            return peak_bytes(lambda: step.run(1, self.x, self.y), self.device)

        t, peaks = self.config.training, {}
        if self.config.reuses_fakes:
            peaks["fakes reused"] = peak(self.step)
            self.step.config = replace(self.config, training=replace(t, reuse_fakes=False))
        peaks["fakes made twice"] = peak(self.step)
        self.step.config = self.config
        networks = [self.step.generator, self.step.discriminator, self.step.average]
        state = state_bytes(networks, list(self.step.optimizers.values()))
        for name, plain in against.items():
            peaks[f"plain, {name}"] = peak(plain.step)
        result = {"state_bytes": state, "peak_bytes": peaks}
        if against:
            ratio = peaks["fakes made twice"] / peaks[f"plain, {EQUAL}"]
            result |= {"to_plain": ratio, "target": described(self.targets.get("memory"), ratio)}
        return result


@dataclass(frozen=True)
class PlainRun:
    """A straightforward step, and how far its losses are from catgan's, relatively."""

    name: str
    step: Any
    difference: float

    def part(self, x: Tensor, y: Tensor) -> Part:
        return Part.of(self.name, lambda: self.step.run(0, x, y))


def machine(device: torch.device) -> dict[str, Any]:
    """What it was measured on, and how busy that was."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
        "torch": torch.__version__, "python": platform.python_version(), "catgan": catgan.__version__,
        "system": platform.platform(),
    }  # fmt: skip


def processor() -> str:
    """The CPU's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
