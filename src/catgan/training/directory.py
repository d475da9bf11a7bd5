"""The run directory: whose it is, whether a run may start or go on in it, and from which checkpoint."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from catgan.checkpoint import reading as checkpoint
from catgan.checkpoint.manifest import DamagedError, Header
from catgan.config import Config
from catgan.config_io import RESUMABLE, differences, load_yaml
from catgan.data import Dataset, is_data_of
from catgan.errors import UserError
from catgan.objective.identity import changes
from catgan.system.files import read_if_there
from catgan.system.lock import RunLock


class Directory:
    """The directory of one run, as its first process deals with it."""

    def __init__(
        self, out: Path, config: Config, terms: tuple[str, ...], say: Callable[[str], None], dataset: Dataset
    ) -> None:
        """terms: the objective's, as text. say: for what people should hear of."""
        self.out, self.config, self.terms, self.say, self.dataset = out, config, terms, say, dataset
        self.lock = RunLock(out)

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    @cached_property
    def run_id(self) -> str:
        """What sets this run apart from others of its name: drawn at random for a new one, then that of its run.json."""
        return str(read_if_there(self.out / "run.json").get("id") or secrets.token_hex(4))

    def open(self, resume: bool, needed: int) -> Path | None:
        """Lock the directory, for this process's life, and check it. The checkpoint to go on from, if there is any.

        needed: bytes that the run will write. Raises UserError where a run must not start or cannot go on.
        """
        stored = self.out / "config.yaml"
        if not stored.exists():
            self.check_new(resume)
        self.lock.take()
        if stored.exists():
            self.check_same(load_yaml(stored), resume)
        checkpoint.check_space(self.out, needed)
        return self.usable_checkpoint() if resume else None

    def check_new(self, resume: bool) -> None:
        """Before the folder is locked, which makes it."""
        if resume:
            raise UserError(
                f"nothing to resume: {self.out} has no config.yaml; leave --resume out to start a run there"
            )
        if self.out.exists() and (not self.out.is_dir() or any(p for p in self.out.iterdir() if p.name[0] != ".")):
            raise UserError(f"{self.out} exists and is no run of catgan: choose another --out or an empty folder")

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
        self.check_data()

    def check_data(self) -> None:
        """Raise UserError for other data than the run's. They may have moved."""
        if not is_data_of(self.dataset, self.config, read_if_there(self.out / "run.json")):
            raise UserError(
                f"cannot resume {self.out} with other data: {self.config.data.path or self.config.data.source} is not what "
                "it was trained on; give that (--data, or dataset= in Python), or start a new run with --init-from"
            )

    def usable_checkpoint(self) -> Path | None:
        """The latest whole checkpoint, which is verified; None if there is none yet."""
        path = checkpoint.latest(self.checkpoints, lambda message: self.say(f"warning: {message}"), self.check_own)
        if path is None:
            if checkpoint.listed(self.checkpoints):
                raise UserError(
                    f"none of the checkpoints in {self.checkpoints} can be used: delete them to start from step 0, or choose another --out"
                )
            checkpoint.set_aside(self.checkpoints, 0)
            self.say(f"{self.out} has no checkpoint yet: starting from step 0")
            return None
        header = checkpoint.read_header(path)
        if found := changes(header.objective, self.terms):
            raise UserError(
                f"cannot resume {self.out} with another objective: {'; '.join(found)}; resume it with the losses it was "
                "trained with (from Python: catgan.train(..., resume=True, objective=...)), or choose another --out"
            )
        if header.step > self.config.training.steps:
            raise UserError(
                f"training.steps is {self.config.training.steps}, but {self.out} is at step {header.step} already: must be at least that"
            )
        checkpoint.set_aside(self.checkpoints, header.step)
        return path

    def check_own(self, header: Header, path: Path) -> None:
        """Raise DamagedError for a checkpoint of another run that lies among this one's, and for a damaged one."""
        for name in fixed_differences(header.config, self.config):
            raise DamagedError(f"{path} is of another run: its {name} differs")
        checkpoint.verify(path)


def fixed_differences(stored: Config, config: Config) -> list[str]:
    """Dotted names of the fields that differ though a resumed run may not change them."""
    return [n for n in differences(stored, config) if not any(f"{n}.".startswith(f"{free}.") for free in RESUMABLE)]
