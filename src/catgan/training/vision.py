"""The heads of the vision-aided loss for a run: its frozen network, loaded or trained once, and what looks through it."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from catgan.config import Config
from catgan.data import Dataset, data_identity, raw_images
from catgan.encoders.rotations import ACCURACY, ROTATIONS, VERSION, save_rotations, seen_size, train_rotations
from catgan.encoders.vision import load_vision
from catgan.errors import UserError, require
from catgan.evaluation.features import cache_folder, one_maker
from catgan.objective import VISION, Objective, VisionHeads
from catgan.system.files import digest, read_json, write_folder
from catgan.system.processes import Processes
from catgan.system.progress import Progress

OWN_COPY = "encoders/vision"  # in a run directory


def vision_heads(
    config: Config, dataset: Dataset, out: Path, device: torch.device, processes: Processes, quiet: bool = False
) -> dict[str, nn.Module]:
    """The heads that config.vision asks for, by name, with weights that depend on the seed alone; none without a path.

    out: the run directory, which has its own copy of a network that was trained on the data. All processes call this
    together. Raises UserError for a network that cannot be had or does not fit, or is not the same one for all of them.
    """
    v, s = config.vision, config.sample
    if v.path is None:
        return {}
    path, size = v.path, seen_size(config)
    if path == ROTATIONS:
        path = processes.from_first(lambda: str(rotations(dataset, out, size, device, quiet)))
        require(
            Path(path).is_dir(), f"the network that tells turns, {path},", "not to be seen from this machine",
            "in a folder that all machines share", "set CATGAN_CACHE to one",
        )  # fmt: skip
    elif not Path(path).exists() and difflib.get_close_matches(path, [ROTATIONS], 1, 0.75):
        raise UserError(f"vision.path is {path}: no such folder; did you mean {ROTATIONS}?")
    encoder = load_vision(path, size, v.stages, device, v.normalisation)
    first = processes.from_first(lambda: encoder.identity)
    require(
        encoder.identity == first, f"vision encoder {path}: the digest of its weights", encoder.identity,
        f"{first}, as in the first process", "let all machines read one folder (CATGAN_CACHE for rotations)",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        return {VISION: VisionHeads(encoder, s.classes, v.width)}


def check_vision(objective: Objective, heads: Mapping[str, nn.Module]) -> None:
    """Raise UserError for vision-aided heads that no term trains, and for terms without heads."""
    terms = {t.name for t in (*objective.discriminator, *objective.generator)}
    if (VISION in heads) != (VISION in terms):
        found, missing = ("heads", "term") if VISION in heads else ("terms", "head")
        raise UserError(
            f"there are vision-aided {found} but no {missing} of that name: set vision.path, or give both "
            "objective=vision_aided(...) and heads={VISION: VisionHeads(...)} (docs/pixels.md)"
        )


def rotations(dataset: Dataset, out: Path, size: int, device: torch.device, quiet: bool = False) -> Path:
    """The folder of a network trained to tell how the pictures of a dataset are turned: the run's own copy, or from the
    cache, or made now.

    Raises UserError for data that cannot be told from other data, or have too few pictures or none.
    """
    if (own := out / OWN_COPY).is_dir():
        return own
    folder = cached_network(dataset, size)
    if not callable(getattr(dataset, "images", None)):
        raise UserError(
            "vision.path is rotations, but the data has no pictures: prepare it with them, or train without"
        )
    require(len(dataset) > 1, "the number of pictures", len(dataset), "at least 2 for vision.path rotations")
    if not folder.exists():
        with one_maker(folder):
            if not folder.exists():
                make_rotations(dataset, folder, size, device, quiet)
    accuracy = read_json(folder / ACCURACY)["held_out_turns"]
    if not quiet:
        doubt = "; that is little more than guessing, a quarter: its heads may help nothing" if accuracy < 0.4 else ""
        Progress.print(f"the network that tells turns knows {accuracy:.1%} of those of held-out pictures{doubt}")
    return folder


def cached_network(dataset: Dataset, size: int) -> Path:
    """Where the cache has, or will have, the network of a dataset. Raises UserError for data without an identity."""
    identity = data_identity(dataset)
    if not identity:
        raise UserError("vision.path is rotations, but the data has no identity by which its network could be kept")
    key = digest(ROTATIONS, str(VERSION), str(size), identity)
    return cache_folder() / "encoders" / f"{ROTATIONS}-{key}"


def make_rotations(dataset: Dataset, folder: Path, size: int, device: torch.device, quiet: bool) -> None:
    if not quiet:
        Progress.print(f"training a network to tell how pictures are turned, once (kept in {folder})")
    network, accuracy = train_rotations(lambda rows: raw_images(dataset, rows, 0, 0), len(dataset), size, device, quiet)
    write_folder(folder, lambda aside: save_rotations(network, accuracy, aside))


def keep_own_copy(config: Config, dataset: Dataset, out: Path) -> None:
    """Put the network that was trained on the data into the run directory: a resumed run needs the very same one,
    whatever has become of the cache."""
    if config.vision.path == ROTATIONS and not (out / OWN_COPY).exists():
        made = cached_network(dataset, seen_size(config))
        write_folder(out / OWN_COPY, lambda aside: shutil.copytree(made, aside, dirs_exist_ok=True))
