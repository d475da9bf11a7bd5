"""One benchmark: everything that is asked for, in turns, on networks in their first state."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

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
from catgan.bench.rounds import Request, rounds
from catgan.bench.scaling import scaling
from catgan.config import Config
from catgan.config_io import to_dict
from catgan.data import check_fits, open_dataset
from catgan.errors import UserError
from catgan.system.devices import keep_freed_memory, pick_device, processor
from catgan.version import __version__

BUSY = 0.5  # load per core above which others disturb


class Bench:
    """The networks of a recipe that are measured, and where."""

    def __init__(self, config: Config, request: Request) -> None:
        self.config, self.request = measured(config).validate(), request
        t = self.config.training
        self.device = pick_device(t.device)
        if t.threads:
            torch.set_num_threads(t.threads)
        if self.device.type == "cpu":
            keep_freed_memory()  # as training does
        if request.cpu_time:
            check_single_thread(self.device)
        if {"step", "memory"} & set(request.only):
            check_memory(self.config, self.device)
        self.notes = notes(config, self.device)
        self.clock = Clock(self.device, request.cpu_time)
        self.step = MeasuredStep(self.config, self.device)
        self.x, self.y = inputs(self.config, self.device)
        self.ceiling = Ceiling(self.config, self.step, self.clock)
        self.no_loader = ""

    def run(self) -> dict[str, Any]:
        """All measurements that were asked for, ready for JSON."""
        request, found = self.request, self.measurements()
        if "memory" in request.only:
            request.say("memory")
            found["memory"] = self.memory()
        if request.scaling:
            found["scaling"] = scaling(self.config, request, self.ceiling, self.clock)
        if request.cold_start:
            request.say("cold start, twice")
            found["cold_start"] = cold_start(self.config)
        return self.description() | found

    def description(self) -> dict[str, Any]:
        """What was measured, on what, and the ceiling."""
        return {
            "recipe": self.config.recipe,
            "machine": machine(self.device),
            "settings": self.settings(),
            "notes": self.notes,
            "ceiling": self.ceiling.description(),
        }

    def settings(self) -> dict[str, Any]:
        request = self.request
        return {
            "device": self.device.type, "clock": "cpu" if request.cpu_time else "wall", "repeats": request.repeats,
            "sizes": list(request.sizes), "only": list(request.only), "config": to_dict(self.config),
            "compiled": self.config.compiles(self.device.type),
        }  # fmt: skip

    def measurements(self) -> dict[str, Any]:
        """Everything that is measured in turns with the ceiling."""
        only = self.request.only
        times, work = rounds(
            self.parts(), self.ceiling, self.clock, self.request, self.config.compiles(self.device.type)
        )
        top = max(self.ceiling.rates().values(), default=0.0)
        names = [n for n in times if n != LOADER]
        found: dict[str, Any] = {"parts": [self.row(n, times[n], work[n], top) for n in names]}
        if "loader" in only:
            found["loader"] = self.loader(times) if LOADER in times else {"skipped": self.no_loader}
        if "sampling" in only and self.device.type == "cpu":
            found["python"] = self.python()
        return found

    def parts(self) -> dict[str, Part]:
        """What is measured in turns, by name."""
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
                self.no_loader = str(error)
        return found

    # -- results ---------------------------------------------------------------------------------------------------

    def row(self, name: str, timing: Timing, flop: float, ceiling: float) -> dict[str, Any]:
        """One thing that was measured, as a share of the ceiling (FLOP/s)."""
        batch = int(name.rpartition(" ")[2]) if name.startswith(SAMPLING) else self.config.training.batch
        return {
            "name": name, "batch": batch, "gflop": flop / 1e9, "seconds": timing.description(),
            "images_per_second": batch / timing.median, "gflops": flop / 1e9 / timing.median,
            "share": flop / timing.median / ceiling,
        }  # fmt: skip

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
            rows.append({"batch": n, "share": share})
        return rows

    def memory(self) -> dict[str, Any]:
        """Peaks of one training step above weights and moments: as configured, and with fakes made twice."""
        peaks, reuses = {}, self.step.reuses_fakes
        if reuses:
            peaks["fakes reused"] = self.peak(self.step)
            self.step.reuses_fakes = False
        peaks["fakes made twice"] = self.peak(self.step)
        self.step.reuses_fakes = reuses
        networks = [self.step.generator, self.step.discriminator, self.step.ema]
        return {"state_bytes": state_bytes(networks, list(self.step.optimizers.values())), "peak_bytes": peaks}

    def peak(self, step: Any) -> int:
        """The most bytes allocated at once in an iteration of a step, above what stays."""
        if step.graph is not None:  # a replay allocates nothing; what it has is given back
            step.graph.release()
            step.fakes = None
        step.run(0, self.x, self.y)  # moments are there
        return peak_bytes(lambda: step.run(1, self.x, self.y), self.device)


def check_single_thread(device: torch.device) -> None:
    """Raise UserError unless one thread of a CPU computes."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads > 1:
        raise UserError(
            f"--cpu-time measures one thread of a CPU, this would be {threads} on {device}: "
            "add --training.threads 1 and --device cpu"
        )


def notes(config: Config, device: torch.device) -> list[str]:
    """What to know about the measurements of this recipe, now, on this device."""
    found = []
    if config.discriminator.representation_dim or config.encoder.path:
        found.append("without the encoder, the representation head and their loss; real samples are made up")
    busy = os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)
    if busy and device.type == "cpu" and torch.get_num_threads() > 1:
        found.append("others were busy on this machine before: times of several threads mean little then")
    if config.captures(device.type):
        found.append("steps are replayed, and only measured as a whole: --training.cuda-graph false for their halves")
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """What it was measured on, and how busy that was."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
        "torch": torch.__version__, "python": platform.python_version(), "catgan": __version__,
        "system": platform.platform(),
    }  # fmt: skip
