"""Checkpoints of a run: finding them, reading them, and putting their tensors back into networks and optimisers.

Tensors are read from whichever files hold them, and only the rows that are asked for. So a checkpoint of any number of
processes, with whole (DDP) or sharded (FSDP2) networks, goes into any other number, of either kind. The layout is told
in `manifest.py`; `saving.py` writes it. No pickle is written or read.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from catgan.checkpoint.manifest import MANIFEST, DamagedError, Header, Place, read_manifest
from catgan.config import Config
from catgan.errors import UserError
from catgan.shipped import choices
from catgan.system.files import aside_of, delete_folder, discard, sha256

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

NAMED = re.compile(r"(step|best)-\d{8,}")
HEADS = "discriminator.heads."  # tensors of modules that a run trained with its discriminator


def name(step: int) -> str:
    return f"step-{step:08d}"


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is a checkpoint, be it a damaged one."""
    return path.is_dir() and ((path / MANIFEST).is_file() or NAMED.fullmatch(path.name) is not None)


# -- reading ---------------------------------------------------------------------------------------------------------


def read_header(path: Path) -> Header:
    """What a checkpoint says of itself, in milliseconds: its files are there, but their content is not read.

    Raises DamagedError for what is no complete checkpoint.
    """
    return read_manifest(path).header


def verify(path: Path) -> None:
    """Read every byte of a checkpoint. Raises DamagedError if one is not as it was written."""
    files = read_manifest(path).files
    with ThreadPoolExecutor(8) as pool:  # hashing does not hold the interpreter
        for _ in pool.map(lambda name: check_file(path, name, files[name].sha256), files):
            pass


def check_file(path: Path, name: str, expected: str) -> None:
    try:
        found = sha256(path / name)
    except OSError as error:
        raise DamagedError(f"cannot read {path / name}: {error.strerror}") from None
    if found != expected:
        raise DamagedError(f"{path} is damaged: the checksum of {name} is wrong")


class Rows(Protocol):
    """What a tensor and a stored tensor have in common."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice | EllipsisType, /) -> Tensor: ...


class Stored:
    """A tensor of a checkpoint: `stored[...]` reads all of it, `stored[2:5]` some of its rows."""

    def __init__(self, reader: Reader, name: str, place: Place) -> None:
        self.reader, self.name, self.shape, self.parts = reader, name, place.shape, place.parts

    def __getitem__(self, rows: slice | EllipsisType) -> Tensor:
        """Raises DamagedError for a file that does not hold what the manifest says."""
        try:
            found = self.read(rows)
        except SafetensorError as error:
            raise DamagedError(f"{self.reader.path} is damaged: {error}") from None
        wanted = self.shape
        if isinstance(rows, slice) and self.shape:
            wanted = len(range(*rows.indices(self.shape[0]))), *self.shape[1:]
        if tuple(found.shape) != wanted:
            raise DamagedError(f"{self.reader.path} is damaged: {self.name} has another shape than its manifest says")
        return found

    def read(self, rows: slice | EllipsisType) -> Tensor:
        if not self.shape or (rows is ... and len(self.parts) == 1):
            return self.reader.file(self.parts[0][0]).get_tensor(self.name)
        start, stop, _ = (slice(None) if rows is ... else rows).indices(self.shape[0])
        ends = [*(row for _, row in self.parts[1:]), self.shape[0]]
        found: list[Tensor] = []
        for (file, row), end in zip(self.parts, ends, strict=True):
            if max(start, row) < min(stop, end):
                part = self.reader.file(file).get_slice(self.name)
                found.append(part[max(start - row, 0) : min(stop, end) - row])
        if not found:
            return self.reader.file(self.parts[0][0]).get_slice(self.name)[0:0]
        return found[0] if len(found) == 1 else torch.cat(found)


class Reader(Mapping[str, Stored]):
    """The tensors of a checkpoint by name. The files that hold what is asked for are opened, and no others.

    verified: the checksums are known to be right; else those of each opened file are checked.
    Raises DamagedError, also later, for a file that is not as it was written.
    """

    def __init__(self, path: Path, verified: bool = False) -> None:
        self.path, self.verified = path, verified
        self.manifest = read_manifest(path)
        self.header = self.manifest.header
        self.opened: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Stored:
        return Stored(self, name, self.manifest.tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifest.tensors)

    def __len__(self) -> int:
        return len(self.manifest.tensors)

    def file(self, name: str) -> Any:
        if name not in self.opened:
            if not self.verified:
                check_file(self.path, name, self.manifest.files[name].sha256)
            try:
                self.opened[name] = safe_open(self.path / name, "pt")
            except (SafetensorError, OSError) as error:
                raise DamagedError(f"{self.path / name} cannot be read: {error}") from None
        return self.opened[name]


def read(path: Path, prefixes: Iterable[str] = ("",)) -> tuple[Header, dict[str, Tensor]]:
    """Header and those tensors whose names start with one of the prefixes, checked against their checksums."""
    reader, wanted = Reader(path), tuple(prefixes)
    return reader.header, {key: stored[...] for key, stored in reader.items() if key.startswith(wanted)}


# -- a folder of checkpoints -----------------------------------------------------------------------------------------


def listed(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted(p for p in folder.glob("step-*") if NAMED.fullmatch(p.name) and p.is_dir())


def latest(
    folder: Path, warn: Callable[[str], None], check: Callable[[Header, Path], None] = lambda header, path: None
) -> Path | None:
    """The newest checkpoint that is complete; `warn` hears of each damaged one that is passed over.

    check: raises DamagedError for one that is not wanted either. Raises UserError if there are but files of an older
    catgan.
    """
    faults: list[DamagedError] = []
    for path in reversed(listed(folder)):
        try:
            check(read_header(path), path)
        except DamagedError as error:
            faults.append(error)
        else:
            for fault in faults:
                warn(f"{fault}; using {path.name} instead")
            return path
    for fault in faults:
        warn(str(fault))
    if not faults and (old := sorted(folder.glob("step-*.safetensors"))):
        read_manifest(old[-1])
    return None


def prune(folder: Path, keep: int, keep_steps: Iterable[int]) -> None:
    """Delete all but the last `keep` checkpoints and those of the named steps."""
    named = {name(step) for step in keep_steps}
    for path in listed(folder)[:-keep]:
        if path.name not in named:
            delete_folder(path)


# -- tensors of a run ------------------------------------------------------------------------------------------------


def state_tensors(
    networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """All tensors of a run under dotted names: `generator.blocks.0...`, `optimizer.generator.blocks.0....exp_avg`."""
    tensors = {f"{n}.{key}": t for n, network in networks.items() for key, t in network.state_dict().items()}
    for n, optimizer in optimizers.items():
        for key, parameter in networks[n].named_parameters():
            for slot, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{n}.{key}.{slot}"] = value
    return tensors


def restore(
    stored: Mapping[str, Rows], networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Put the tensors of `state_tensors` back where they came from, whole or sharded as the parameters are now."""
    for n, network in networks.items():
        load_network(network, stored, n)
    for n, optimizer in optimizers.items():
        prefix = f"optimizer.{n}."
        slots: dict[str, dict[str, Rows]] = {}
        for key in stored:
            if key.startswith(prefix):
                parameter, slot = key.removeprefix(prefix).rsplit(".", 1)
                slots.setdefault(parameter, {})[slot] = stored[key]
        state = {
            i: {slot: like(parameter, rows) for slot, rows in slots[key].items()}
            for i, (key, parameter) in enumerate(networks[n].named_parameters())
            if key in slots
        }
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_network(
    network: nn.Module, stored: Mapping[str, Rows], prefix: str, keep: Collection[str] = frozenset()
) -> None:
    """Load one network's tensors. keep: names, with the prefix, of those that stay as they are.

    Raises DamagedError, before anything is changed, if names or shapes do not fit.
    """
    own = {f"{prefix}.{key}": t for key, t in network.state_dict().items()}
    there = {key for key in stored if key.startswith(f"{prefix}.")}
    faults = [f"{key} is missing" for key in own if key not in there | set(keep)]
    faults += [f"{key} is unknown" for key in sorted(there - own.keys() - set(keep))]
    loaded = [key for key in own if key in there and key not in keep]
    for key in loaded:
        here, of_file = tuple(own[key].shape), tuple(stored[key].shape)
        if here != of_file:
            faults.append(f"{key} has shape {of_file}, not {here}")
    if faults:
        raise DamagedError(f"the checkpoint's {prefix} does not fit its configuration: {faults[0]}")
    with torch.no_grad():
        for key in loaded:
            rows, first = local_rows(own[key])
            rows.copy_(stored[key][first : first + len(rows)] if rows.ndim else stored[key][...])


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether FSDP2 has spread it over processes. Known without the import of DTensor, which takes a second."""
    return hasattr(tensor, "placements")


def local_rows(tensor: Tensor) -> tuple[Tensor, int]:
    """This process's rows of a tensor, and the number of the first: all, unless it is sharded by FSDP2."""
    if not is_sharded(tensor):
        return tensor, 0
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    assert tensor.placements == (Shard(0),), f"only tensors sharded by rows are known, not {tensor.placements}"
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tensor.to_local(), offset[0]


def like(parameter: Tensor, stored: Rows) -> Tensor:
    """A slot of an optimiser's state, sharded like its parameter if it has a number for each of its."""
    if not is_sharded(parameter) or tuple(stored.shape) != tuple(parameter.shape):
        return stored[...].clone()  # what is read is a view of the file, which may be deleted
    from torch.distributed.tensor import DTensor

    local, first = local_rows(parameter.detach())
    rows = stored[first : first + len(local)].to(local.device, copy=True)
    return DTensor.from_local(
        rows,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


# -- room on the disk, and what a crash left there -------------------------------------------------------------------


def forecast(networks: Mapping[str, nn.Module], config: Config) -> int:
    """Bytes of one checkpoint: generator, average and discriminator, and of the two trained ones AdamW's moments, which
    are one with beta1 = 0."""
    copies = 1 + config.kept_moments

    def size(network: nn.Module) -> int:
        return sum(t.numel() * t.element_size() for t in network.state_dict().values())

    return sum(size(network) * (1 if n == "ema" else copies) for n, network in networks.items())


def set_aside(folder: Path, after: int) -> None:
    """Rename checkpoints past a step (damaged, or not this run's), so that they count no more; drop unfinished ones."""
    for path in listed(folder):
        if path.name > name(after):
            unusable = path.with_name(f"unusable-{path.name}")
            discard(unusable)
            path.replace(unusable)
    for pattern in ("step-*", "best-*"):
        for path in folder.glob(aside_of(Path(pattern)).name):
            discard(path)


def check_space(folder: Path, needed: int) -> None:
    """Raise UserError when the disk cannot hold what the run will keep, beside what it holds already."""
    held = [f for p in (folder / "checkpoints").glob("*") if NAMED.fullmatch(p.name) for f in p.glob("*")]
    free = shutil.disk_usage(folder).free + sum(f.stat().st_size for f in held)
    if needed > free:
        raise UserError(
            f"checkpoints will need {needed / 1e6:,.1f} MB and {folder} has {free / 1e6:,.1f} MB free: "
            "lower checkpoint.keep or choose another --out"
        )


def resolve(path: Path) -> Path:
    """A checkpoint, or the latest complete one of a run directory. Raises UserError if there is none."""
    if not path.exists():
        raise UserError(
            f"{path} does not exist: must be a run directory, a checkpoint in it, an exported folder or {choices(path)}"
        )
    if path.is_file() or is_checkpoint(path):
        read_manifest(path)
        return path
    if not (path / "checkpoints").is_dir() and not (path / "config.yaml").is_file():
        raise UserError(f"{path} is no run directory (it has no checkpoints) and no checkpoint (it has no {MANIFEST})")
    said: list[str] = []
    found = latest(path / "checkpoints", said.append)
    if found is None:
        raise UserError(f"{path} has no usable checkpoint: {'; '.join(said) or 'it has none yet'}")
    for message in said:
        print(f"warning: {message}", file=sys.stderr)
    return found
