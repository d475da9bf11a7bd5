"""What trains on the data that `catgan prepare` made: a recipe at their size, and what to know of them before."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from catgan.config import Config, EvalConfig
from catgan.errors import UserError
from catgan.metrics import METRICS
from catgan.recipes import augmentation, nearest_size, recipe, with_size
from catgan.system.packages import installed
from catgan.system.progress import counted

SIZE_64, SIZE_128 = 48, 96  # from which on the recipes of these sizes are taken
FEWEST = 10  # pictures that a run is evaluated by
SAMPLES = 5000  # that evaluations of a run look at, and as many pictures, or all if there are fewer


def fitted(folder: Path, gpu: bool) -> Config:
    """The recipe for prepared data, at their size; for pixels with augmentation by the number of pictures.

    gpu: whether there is one; without, the networks of the smallest recipe. Raises UserError for data that none fits.
    """
    from catgan.data.prepared import read_meta, sample_shape

    meta = read_meta(folder)
    problem = unfit(folder, meta)
    if problem:
        raise UserError(problem)
    size = sample_shape(meta)[1]
    if meta["vae"]:
        return with_alignment(with_size(recipe("cat-b2"), size), folder, meta)
    name = "pictures-32" if size < SIZE_64 or not gpu else "pictures-64" if size < SIZE_128 else "pictures-128"
    config = with_size(recipe(name), size)
    return replace(
        config, augment=augmentation(meta["samples"], meta["channels"]), eval=watched(config, meta["samples"])
    )


def watched(config: Config, pictures: int) -> EvalConfig:
    """Evaluations that see a generator collapse or copy, without weights and for few seconds; none of so few pictures
    that these cannot be told."""
    if pictures < FEWEST:
        return EvalConfig()
    metrics = ("distance", "authenticity") + ("precision_recall",) * sees_collapse()
    return EvalConfig(every=tenth(config), samples=min(pictures, SAMPLES), features="pixels", metrics=metrics)


def sees_collapse() -> bool:
    """Whether recall can be measured."""
    return installed(METRICS["precision_recall"].package or "")


def tenth(config: Config) -> int:
    """Steps between evaluations."""
    return max(1, config.training.steps // 10)


def of_another_length(config: Config, chosen: Config) -> Config:
    """What was chosen for data, with other steps asked for: evaluations still come ten times, if they were not set."""
    if (
        config.training.steps == chosen.training.steps
        or config.eval.every != chosen.eval.every
        or not config.eval.every
    ):
        return config
    return replace(config, eval=replace(config.eval, every=tenth(config)))


def with_alignment(config: Config, folder: Path, meta: dict[str, Any]) -> Config:
    """A recipe of the paper that aligns its representation with what the data have to align it with, if anything."""
    from catgan.data.features import FILE
    from catgan.system.files import read_json

    if (folder / FILE).exists() and not meta["vae"]["flip"]:
        about = read_json(folder / FILE)
        return replace(
            config,
            encoder=replace(config.encoder, size=about["size"], cached=True),
            discriminator=replace(config.discriminator, representation_dim=about["dim"]),
            augment=replace(config.augment, translation=0.0, flip=0.0),
        )
    if meta["images"]:
        return config
    return replace(
        config,
        discriminator=replace(config.discriminator, representation_dim=0),
        objective=replace(config.objective, representation=0.0),
    )


def unfit(folder: Path, meta: dict[str, Any]) -> str | None:
    """Why no recipe fits prepared data, and what to do about it; None if one does."""
    from catgan.data.prepared import sample_shape

    if meta["samples"] == 1:
        return f"{folder} holds one picture: a generator learns from many, hundreds at least; prepare more of them"
    size = sample_shape(meta)[1]
    near = nearest_size(size)
    if near == size:
        return None
    pixels = str(near * meta["size"] // size)
    vae = ["--vae", meta["vae_path"]] if meta["vae"] else []
    again = shlex.join(["catgan", "prepare", meta["source"], f"{folder}-{pixels}", "--size", pixels, *vae])
    return f"{folder} has samples of {size}x{size}, which no patches divide evenly: {again}"


def training_command(folder: Path) -> str:
    """The `catgan train` command for prepared data."""
    return shlex.join(["catgan", "train", "--data", str(folder)])


def described(config: Config, folder: Path) -> str:
    """What was chosen for prepared data, in one line."""
    from catgan.data.prepared import read_meta

    meta, s, a = read_meta(folder), config.sample, config.augment
    kind = "latents" if meta["vae"] else "grey" if meta["channels"] == 1 else "RGB"
    classes = len(meta["classes"])
    of = f" of {classes:,} classes" if classes > 1 else ""
    changes = {"colour": a.color, "translation": a.translation, "cutout": a.cutout, "flip": a.flip}
    augmented = ", ".join(f"{name} {value:g}" for name, value in changes.items() if value)
    small = " (without a GPU)" if config.recipe == "pictures-32" and s.size >= SIZE_64 else ""
    return (
        f"recipe {config.recipe}{small} for {counted(meta['samples'], 'picture')}{of}, {s.size}x{s.size} {kind}: "
        f"scales {' '.join(map(str, s.scales))}, patches {' '.join(map(str, config.discriminator.patches))} and "
        f"{config.generator.patch}, augmentation {augmented or 'none'}"
        + ("" if a.flip or meta["vae"] else " (--augment.flip 0.5 if mirror images are as good)")
        + ("" if not config.eval.every or sees_collapse() else "; to notice collapse: pip install 'catgan[eval]'")
    )


def concerns(folder: Path, batch: int | None = None) -> list[str]:
    """What prepared data lack, a line each: pictures for a class, or for batches of that size."""
    from catgan.data.prepared import Prepared

    data = Prepared(folder)
    found = []
    if batch is not None and len(data) < batch:
        found.append(
            f"{counted(len(data), 'picture')} for batches of {batch}: each is in every batch, and the generator will copy "
            f"them; add pictures, hundreds at least, or use --batch {max(2, len(data) // 2)}"
        )
    alone = [name for name, n in zip(data.class_names, np.bincount(data.labels).tolist(), strict=True) if n < 2]
    if alone and len(data) > 1:
        one = len(alone) == 1
        named = ", ".join(alone[:3]) + (f" and {len(alone) - 3:,} more" if len(alone) > 3 else "")
        found.append(
            f"{'class' if one else 'classes'} {named} {'has' if one else 'have'} one picture{'' if one else ' each'}, "
            f"which the generator can only copy; add pictures, or leave {'it' if one else 'them'} out"
        )
    return found


def cut(folder: Path) -> str | None:
    """How many pictures lost more than half of themselves to the centre crop; None if none did."""
    from catgan.data.prepared import Prepared

    data = Prepared(folder)
    if data.meta["crop"] != "center":
        return None
    count = int((data.originals.max(1) > 2 * data.originals.min(1)).sum())
    long = counted(count, "picture is", "pictures are")
    said = f"{long} more than twice as long as wide: only the middle square was kept; --crop resize keeps all, squeezed"
    return said if count else None
