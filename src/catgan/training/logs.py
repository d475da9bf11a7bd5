"""What a run tells: metrics.jsonl, TensorBoard, Weights & Biases, and one progress line."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catgan.config import Config
from catgan.config_io import to_dict
from catgan.system.files import read_rows, unwritable, write_text
from catgan.system.packages import installed
from catgan.system.processes import Processes


class MetricsLog:
    """Scalars by step, to every place the configuration asks for."""

    losses = ""  # of both networks in the newest entry, as text

    def __init__(self, folder: Path, config: Config, resumed_at: int, run_id: str) -> None:
        """Entries past step `resumed_at` (of a run that went on after its checkpoint) are dropped."""
        self.path = folder / "metrics.jsonl"
        keep = [json.dumps(row) for row in read_metrics(folder) if row["step"] <= resumed_at]
        write_text(self.path, "".join(line + "\n" for line in keep))
        self.tensorboard: Any = None
        self.excepthook = threading.excepthook
        with self.explained():
            self.file = self.path.open("a", buffering=1)
            if installed("tensorboard"):
                from torch.utils.tensorboard import SummaryWriter

                threading.excepthook = self.end_of_thread
                self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_at + 1)
        self.wandb: Any = None
        if config.log.wandb:
            import wandb

            self.wandb = wandb.init(
                project="catgan",
                dir=folder,
                name=folder.resolve().name,
                id=run_id,
                resume="allow",
                config=to_dict(config),
            )

    def end_of_thread(self, end: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread, when it cannot write, ends here; it says so once more to who writes next, who tells people."""
        if not (isinstance(end.exc_value, OSError) and type(end.thread).__module__.startswith("tensorboard.")):
            self.excepthook(end)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Say in one line what keeps a log from being written."""
        try:
            yield
        except OSError as error:
            raise unwritable(self.path.parent, error) from None

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Raises UserError if the disk is full or the folder cannot be written."""
        with self.explained():
            self.file.write(json.dumps({"step": step, **scalars}) + "\n")
            if self.tensorboard is not None:
                for name, value in scalars.items():
                    self.tensorboard.add_scalar(name, value, step)
        if "generator/loss" in scalars:
            self.losses = f"loss D {scalars['discriminator/loss']:.3f} G {scalars['generator/loss']:.3f}"
        if self.wandb is not None:
            self.wandb.log(scalars, step=step)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Close. Raises UserError for what could not be written, unless something else has gone wrong before."""
        with contextlib.ExitStack() as closing:
            closing.enter_context(contextlib.suppress(OSError) if error else self.explained())
            if self.wandb is not None:
                closing.callback(self.wandb.finish)
            closing.callback(setattr, threading, "excepthook", self.excepthook)
            if self.tensorboard is not None:
                closing.callback(self.tensorboard.close)
            self.file.close()


class RankLog:
    """What one process did and when, in RUN/logs/rank-XXXXX.log, so that a run of many can be understood afterwards.

    Before `open`, which comes when the run directory is accepted, lines wait.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.path = folder / "logs" / f"rank-{processes.rank:05}.log"
        self.waiting: list[str] | None = []

    def open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines, self.waiting = self.waiting or [], None
        for line in (f"process {os.getpid()} on {platform.node()}", *lines):
            self.write(line)

    def write(self, message: str) -> None:
        if self.waiting is not None:
            self.waiting.append(message)
            return
        with contextlib.suppress(OSError), self.path.open("a") as file:  # a full disk must not end a run by its log
            file.write(f"{datetime.now(UTC).isoformat(' ', 'milliseconds')} {message}\n")

    def __enter__(self) -> RankLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.write("ended by " + "".join(traceback.format_exception(error)).rstrip())


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The entries of a run's metrics.jsonl, in the order of their steps, without damaged ones."""
    rows = read_rows(folder / "metrics.jsonl")
    return [row for row in rows if "step" in row and all(isinstance(v, (int, float)) for v in row.values())]
