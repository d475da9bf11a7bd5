"""`catgan prepare SOURCE DEST`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from catgan.bounds import Allowed, Count, CountOrZero, Share
from catgan.cli.fitting import concerns, cut, training_command, unfit
from catgan.cli.parse import parse
from catgan.errors import UserError
from catgan.system.progress import counted

if TYPE_CHECKING:
    from catgan.data.encode import LatentEncoder
    from catgan.system.processes import Processes

Quality = Annotated[int, Allowed("in 1 to 100", lambda q: 1 <= q <= 100)]

DESCRIPTION = """Make a folder of pictures into data to train on: catgan train --data DEST.

SOURCE: a folder with one folder per class, or pictures without classes; a zip or tar of either; a folder with IDX
files as MNIST has them; a Hugging Face dataset, saved in a folder or hf:NAME. Called again after an interruption, it
goes on. Under torchrun, every process does its share.
"""


@dataclass(frozen=True)
class PrepareOptions:
    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """Folder, archive or dataset."""
    dest: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DEST")]
    """Folder to write to."""
    size: Count
    """Height and width of the prepared pictures, in pixels."""
    crop: Literal["center", "resize"] = "center"
    """center: the centre square, as ADM prepares ImageNet; resize: the whole picture, whatever its proportions."""
    channels: Literal[1, 3] | None = None
    """1: grey, 3: RGB; by default what the source has."""
    split: str | None = None
    """Part of a Hugging Face dataset or of IDX files: train (the default), test, ..."""
    image_column: str | None = None
    """Column of pictures of a Hugging Face dataset; by default the only one."""
    label_column: str | None = None
    """Column of classes of a Hugging Face dataset; by default the only one."""
    vae: str | None = None
    """Also store latents: folder or name of the VAE whose posterior's moments to keep."""
    encoder: str | None = None
    """Also store a DINOv2's features of the pictures: its folder or name. Large: 395 KB a picture for DINOv2-B."""
    encoder_size: int = 224
    """Pixels at which it sees them."""
    flip: bool = False
    """With --vae: also store the moments of mirrored pictures."""
    images: bool = True
    """Store the pixels; --no-images keeps only the latents."""
    jpeg: Quality | None = None
    """Store pictures as JPEG files of this quality, 1 to 100, in place of their pixels: at 95 about a quarter of the space."""
    device: str = "auto"
    """Where the VAE runs: auto, cpu, cuda or cuda:N. Under torchrun, auto and cuda are a GPU for each process."""
    batch: Count = 32
    """Pictures per pass of the VAE."""
    max_broken: Share = 0.01
    """Share of the pictures that may be unusable and are left out; more than that is an error."""
    workers: CountOrZero = 0
    """Threads that decode; 0 is one per CPU core, divided among the processes of this machine."""
    shard_rows: Count | None = None
    """Pictures per file; by default such that there are 64 files or more, of at most 512 MB."""


def main(argv: Sequence[str]) -> None:
    o = parse(PrepareOptions, argv, "prepare", description=DESCRIPTION)
    check(o)
    # What Pillow finds odd but can read; what it cannot is reported file by file.
    warnings.filterwarnings("ignore", module=r"PIL\.")

    from catgan.data.prepare import make_plan, prepare
    from catgan.data.sources import open_source
    from catgan.system.processes import Processes, whole_number

    processes, local = Processes.from_environment(), whole_number("LOCAL_WORLD_SIZE", 1)
    source = open_source(o.source, o.split, o.image_column, o.label_column)
    encoder = open_encoder(o, processes) if o.vae else None
    plan = make_plan(source, o.size, o.crop, o.channels, encoder, o.images, o.shard_rows, o.jpeg)
    complete = prepare(
        source, o.dest, plan, encoder,
        max_broken=o.max_broken,
        threads=o.workers or max(1, len(os.sched_getaffinity(0)) // local),
        processes=processes,
        quiet=not processes.first,
    )  # fmt: skip
    if o.encoder:
        complete = add_features(o, processes)
    waiting = f"process {processes.rank} of {processes.world} is done; the last one completes {o.dest}"
    print(summary(o.dest) if complete else waiting)


def check(o: PrepareOptions) -> None:
    if o.encoder and o.flip:
        raise UserError("--encoder with --flip: there are no features of mirrored pictures; leave one of them out")
    if o.encoder and not o.images:
        raise UserError("--encoder without pictures: it looks at the stored ones; leave --no-images out")
    if o.jpeg is not None and not o.images:
        raise UserError("--jpeg with --no-images: there are no pictures to store; leave one of them out")
    if o.flip and not o.vae:
        raise UserError("--flip without --vae: mirrored pictures need not be stored; leave it out")
    source, dest = Path(o.source).resolve(), o.dest.resolve()
    if not o.source.startswith("hf:") and (source == dest or source in dest.parents):
        raise UserError(f"{o.dest} lies in {o.source}: choose a DEST outside of SOURCE")


def open_encoder(o: PrepareOptions, processes: Processes) -> LatentEncoder:
    """The VAE on this process's device."""
    from catgan.data.encode import LatentEncoder
    from catgan.encoders.vae import load_vae
    from catgan.system.devices import pick_device

    assert o.vae is not None
    device = pick_device(processes.device(o.device))
    return LatentEncoder(load_vae(o.vae, device, option="--vae"), device, o.flip, o.batch)


def add_features(o: PrepareOptions, processes: Processes) -> bool:
    """Whether the features of all pictures are there, after this process has done its share."""
    from catgan.data.features import store_features
    from catgan.encoders.dino import load_dino
    from catgan.system.devices import pick_device

    processes.wait()  # for the pictures
    device = pick_device(processes.device(o.device))
    encoder = load_dino(str(o.encoder), o.encoder_size, device, option="--encoder")
    return store_features(o.dest, encoder, batch=o.batch, processes=processes, quiet=not processes.first)


def summary(dest: Path) -> str:
    """What was made of what, and where to go from here."""
    from catgan.data.prepared import read_meta, sample_shape
    from catgan.system.files import read_json

    meta, said = read_meta(dest), read_json(dest / "report.json")
    lines = [
        f"{counted(meta['samples'], 'picture')} of {counted(len(meta['classes']), 'class', 'classes')}, {meta['size']}x{meta['size']}, "
        f"{'grey' if meta['channels'] == 1 else 'RGB'}: {dest}"
    ]
    if meta["vae"]:
        lines.append(f"latents of {'x'.join(map(str, sample_shape(meta)))}")
    if (dest / "features.json").exists():
        about = read_json(dest / "features.json")
        lines.append(f"features: {about['grid']}x{about['grid']} patches and a class token of {about['dim']} numbers")
    others, empty = sum(said["ignored"].values()), len(said["empty_folders"])
    left_out = [
        *([f"{said['skipped']:,} broken"] if said["skipped"] else []),
        *([f"{counted(others, 'file')} of other kinds"] if others else []),
        *([f"{counted(empty, 'folder')} without pictures"] if empty else []),
    ]
    if left_out:
        lines.append(f"left out: {', '.join(left_out)}; see {dest / 'report.json'}")
    lines += [f"warning: {line}" for line in (cut(dest), *concerns(dest)) if line]
    lines.append(f"next: {unfit(dest, meta) or training_command(dest)}")
    return "\n".join(lines)
