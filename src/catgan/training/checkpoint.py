"""Checkpoints: one safetensors file each, written aside and renamed, so that a file under its name is complete.

A file holds the tensors of both networks, the average and both optimisers, and in its header a JSON text with the
format version, the step, the whole configuration and the class names. No pickle is written or read.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from catgan.config import FORMAT_VERSION, Config, from_dict, to_dict
from catgan.errors import UserError
from catgan.files import discard, write_atomically

KIND = "catgan-checkpoint"


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself."""

    step: int
    samples: int  # of the data that it has seen
    config: Config
    class_names: tuple[str, ...]
    objective: tuple[str, ...]  # its terms, as text


class DamagedError(UserError):
    """A file that is not a complete checkpoint of this format."""


def name(step: int) -> str:
    return f"step-{step:08d}.safetensors"


def write(path: Path, tensors: dict[str, Tensor], header: Header) -> None:
    """Write a checkpoint so that a crash at any moment leaves either no file of this name or a complete one."""
    meta = {
        "kind": KIND,
        "format": FORMAT_VERSION,
        "step": header.step,
        "samples": header.samples,
        "config": to_dict(header.config),
        "class_names": header.class_names,
        "objective": header.objective,
    }

    def fill(aside: Path) -> None:
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, aside, {"catgan": json.dumps(meta)})

    write_atomically(path, fill)


def read_header(path: Path) -> Header:
    """The header alone, in milliseconds. Raises DamagedError for a truncated or foreign file."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("catgan")
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path} is truncated or no checkpoint: {error}") from None
    if text is None:
        raise DamagedError(f"{path} is a safetensors file, but not a checkpoint of catgan")
    try:
        meta: dict[str, Any] = json.loads(text)
        version = meta["format"]
        if meta["kind"] != KIND:
            raise DamagedError(f"{path} is no checkpoint of a run, but {meta['kind']}")
        if version == FORMAT_VERSION:
            config = from_dict(meta["config"], where=str(path)).validate()
            return Header(meta["step"], meta["samples"], config, tuple(meta["class_names"]), tuple(meta["objective"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} has a damaged header: {error!r}") from None
    except UserError as error:
        raise DamagedError(f"{path} does not fit this catgan: {error}") from None
    raise DamagedError(
        f"{path} has checkpoint format {version}, this catgan reads {FORMAT_VERSION}: use the version that wrote it"
    )


def read(path: Path, prefixes: Iterable[str] = ("",), device: str = "cpu") -> tuple[Header, dict[str, Tensor]]:
    """Header and those tensors whose names start with one of the prefixes."""
    header = read_header(path)
    wanted = tuple(prefixes)
    with safe_open(path, "pt", device=device) as file:
        return header, {key: file.get_tensor(key) for key in file.keys() if key.startswith(wanted)}  # noqa: SIM118


def listed(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def latest(
    folder: Path, warn: Callable[[str], None], check: Callable[[Header, Path], None] | None = None
) -> Path | None:
    """The newest checkpoint that is whole; `warn` hears of each damaged one that is passed over.

    check: raises DamagedError for a header that is not wanted either.
    """
    for path in reversed(listed(folder)):
        try:
            header = read_header(path)
            if check is not None:
                check(header, path)
            return path
        except DamagedError as error:
            warn(f"{error}; falling back to the checkpoint before it")
    return None


def prune(folder: Path, keep: int, keep_steps: Iterable[int]) -> None:
    """Delete all but the last `keep` checkpoints and those of the named steps."""
    named = {name(step) for step in keep_steps}
    for path in listed(folder)[:-keep]:
        if path.name not in named:
            path.unlink()


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
    tensors: dict[str, Tensor], networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Put the tensors of `state_tensors` back where they came from."""
    for n, network in networks.items():
        load_network(network, tensors, n)
    for n, optimizer in optimizers.items():
        prefix = f"optimizer.{n}."
        slots: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(prefix):
                parameter, slot = key.removeprefix(prefix).rsplit(".", 1)
                slots.setdefault(parameter, {})[slot] = value
        names = [key for key, _ in networks[n].named_parameters()]
        state = {i: slots[key] for i, key in enumerate(names) if key in slots}
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_network(network: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """Load one network's tensors; raises DamagedError if names or shapes do not fit."""
    mine = {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
    try:
        network.load_state_dict(mine)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise DamagedError(f"the checkpoint's {prefix} does not fit its configuration: {first[0].strip()}") from None


def forecast(networks: Mapping[str, nn.Module]) -> int:
    """Bytes of one checkpoint: generator, average and discriminator, and two Adam moments of the two trained ones."""

    def size(network: nn.Module) -> int:
        return sum(t.numel() * t.element_size() for t in network.state_dict().values())

    return sum(size(network) * (1 if n == "average" else 3) for n, network in networks.items())


def set_aside(folder: Path, after: int) -> None:
    """Rename checkpoints past a step (damaged, or not this run's), so that they count no more; drop unfinished ones."""
    for path in listed(folder):
        if path.name > name(after):
            path.replace(path.with_name(f"unusable-{path.name}"))
    for path in folder.glob(".step-*.part"):
        discard(path)


def check_space(folder: Path, needed: int) -> None:
    """Raise UserError when the disk cannot hold what the run will keep, beside what it holds already."""
    free = shutil.disk_usage(folder).free + sum(p.stat().st_size for p in listed(folder / "checkpoints"))
    if needed > free:
        raise UserError(
            f"checkpoints will need {needed / 1e6:,.1f} MB and {folder} has {free / 1e6:,.1f} MB free: "
            "lower checkpoint.keep or choose another --out"
        )


# What --init-from leaves at its start when the number of classes differs.
CLASS_TENSORS = (
    "discriminator.class_embedding.weight",
    *(f"{n}.{k}" for n in ("generator", "average") for k in ("class_embedding.weight", "style_sum", "style_updates")),
)


def resolve(path: Path) -> Path:
    """A checkpoint file, or the latest whole one of a run directory. Raises UserError if there is none."""
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"{path} does not exist: must be a run directory or a checkpoint file")
    found = latest(path / "checkpoints", lambda message: print(f"warning: {message}", file=sys.stderr))
    if found is None:
        raise UserError(f"{path} has no usable checkpoint in {path / 'checkpoints'}")
    return found
