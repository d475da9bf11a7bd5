"""The heads of the vision-aided loss for a run: its frozen network, loaded or trained once, and what looks through it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from catgan.config import Config
from catgan.data import Dataset, data_identity, raw_images
from catgan.encoders.rotations import VERSION, fitting_size, save_rotations, train_rotations
from catgan.encoders.vision import load_vision
from catgan.errors import UserError, require
from catgan.evaluation.features import cache_folder, one_maker
from catgan.objective import VISION, VisionHeads
from catgan.system.files import digest, write_folder
from catgan.system.processes import Processes
from catgan.system.progress import Progress

ROTATIONS = "rotations"  # the value of vision.path that asks for a network trained on the data
PRETRAINED_SIZE = 224  # pixels


def vision_heads(
    config: Config, dataset: Dataset, device: torch.device, processes: Processes, quiet: bool = False
) -> dict[str, nn.Module]:
    """The heads that config.vision asks for, by name, with weights that depend on the seed alone; none without a path.

    All processes call this together. Raises UserError for a network that cannot be had or does not fit, or is not the
    same one for all of them.
    """
    v, s = config.vision, config.sample
    if v.path is None:
        return {}
    path, size = v.path, v.size or PRETRAINED_SIZE
    if path == ROTATIONS:
        size = fitting_size(v.size or s.size)
        path = processes.from_first(lambda: str(rotations(dataset, size, device, quiet)))
    encoder = load_vision(path, size, v.stages, device, v.normalisation)
    first = processes.from_first(lambda: encoder.identity)
    require(
        encoder.identity == first, f"vision encoder {path}: the digest of its weights", encoder.identity,
        f"{first}, as in the first process", "let all machines read one folder (CATGAN_CACHE for rotations)",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        return {VISION: VisionHeads(encoder, s.classes, v.width)}


def rotations(dataset: Dataset, size: int, device: torch.device, quiet: bool = False) -> Path:
    """The folder of a network trained to tell how the pictures of a dataset are turned: from the cache, or made now.

    Raises UserError for data that cannot be told from other data, whose network could be another's.
    """
    identity = data_identity(dataset)
    if not identity:
        raise UserError("vision.path is rotations, but the data has no identity by which its network could be kept")
    key = digest("rotations", str(VERSION), str(size), identity)
    folder = cache_folder() / "encoders" / f"rotations-{key}"
    if folder.exists():
        return folder
    with one_maker(folder):
        if folder.exists():
            return folder
        if not quiet:
            Progress.print(f"training a network to tell how pictures are turned, once (kept in {folder})")
        network, accuracy = train_rotations(
            lambda rows: raw_images(dataset, rows, 0, 0), len(dataset), size, device, quiet
        )
        write_folder(folder, lambda aside: save_rotations(network, accuracy, aside))
    if not quiet:
        Progress.print(f"it knows {accuracy:.1%} of the turns of held-out pictures")
    return folder
