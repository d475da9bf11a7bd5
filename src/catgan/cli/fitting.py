"""What trains on the data that `catgan prepare` made: a recipe, and the options by which it takes them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from catgan.config import WITHOUT_REPRESENTATION, Config
from catgan.recipes import RECIPES


def training_command(folder: Path) -> str | None:
    """A `catgan train` command that takes these data as they are; None where no recipe can be made to by its sizes."""
    from catgan.data.prepared import read_meta, sample_shape

    meta = read_meta(folder)
    size = sample_shape(meta)[1]
    names = ("cat-b2",) if meta["vae"] else ("fashion-mnist", "digits")
    # Rather the size itself, then a recipe made larger, the one that has to change least.
    by_change = sorted(names, key=lambda name: (size != RECIPES[name].sample.size, size < RECIPES[name].sample.size))
    for name in by_change:
        sizes = resized(RECIPES[name], size)
        if sizes is not None:
            options = [*sizes, *(latent_options(folder, meta) if meta["vae"] else [])]
            return shlex.join(["catgan", "train", name, "--data", str(folder), *options])
    return None


def resized(config: Config, size: int) -> list[str] | None:
    """Options by which a recipe takes samples of another size, with as many tokens; None where that leaves fractions."""
    s, d, g = config.sample, config.discriminator, config.generator
    sizes = {"sample.scales": s.scales, "discriminator.patches": d.patches, "generator.patch": (g.patch,)}
    if size == s.size:
        return []
    if any(n * size % s.size for values in sizes.values() for n in values):
        return None
    return [
        text for name, values in sizes.items() for text in (f"--{name}", *(str(n * size // s.size) for n in values))
    ]


def latent_options(folder: Path, meta: dict[str, Any]) -> list[str]:
    """Options by which a recipe of the paper aligns its representation with what there is to align it with."""
    from catgan.data.features import FILE
    from catgan.system.files import read_json

    if (folder / FILE).exists() and not meta["vae"]["flip"]:
        about = read_json(folder / FILE)
        given = {"encoder.size": about["size"], "discriminator.representation-dim": about["dim"]}
        options = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        return ["--encoder.cached", *options, "--augment.translation", "0", "--augment.flip", "0"]
    return [] if meta["images"] else WITHOUT_REPRESENTATION.split()
