"""From what a user names to what an evaluation works with: samples, real images, feature space, reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from catgan.checkpoint.export import is_export
from catgan.checkpoint.reading import is_checkpoint
from catgan.config import DataConfig
from catgan.data import Dataset
from catgan.data.datasets import Images, digits, fashion_folder, fashion_mnist, open_dataset
from catgan.data.prepared import Prepared
from catgan.errors import UserError
from catgan.evaluation.classifier import classifier
from catgan.evaluation.collect import Keep, Work
from catgan.evaluation.features import Dinov2, FeatureSpace, Inception
from catgan.evaluation.protocol import Features, Metric, Protocol
from catgan.evaluation.reference import Reference, has_images, has_statistics, of_source, read_npz
from catgan.evaluation.sources import Folder, Generated, Memory, Npz, Source, Stored
from catgan.sampling.pipeline import load
from catgan.system.processes import Processes

T = TypeVar("T")
SMALL = 64  # images below this size say little to Inception


def open_samples(
    where: str, protocol: Protocol, device: str, data_path: str | None = None, vae: str | None = None
) -> Source:
    """A generator where a run, a checkpoint or an exported model is named, else given images.

    vae: decodes its latents, in place of the one that its configuration names.
    """
    path = Path(where)
    run = (path / "config.yaml").exists() or (path / "checkpoints").is_dir()
    if path.suffix == ".safetensors" or run or is_checkpoint(path) or is_export(path):
        protocol.check()
        pipe = load(path, protocol.weights, vae).to(device, protocol.precision)
        return Generated(pipe, protocol.samples, protocol.class_sampling, protocol.first_seed, protocol.psi)
    return open_source(where, data_path=data_path)


def open_source(where: str, size: int = 32, data_path: str | None = None) -> Source:
    """Images by name: digits, fashion-mnist, fashion-mnist:test, an .npz, or a folder of images.

    size: pixels that fashion-mnist's are padded to. data_path: the folder of its files.
    Raises UserError naming what was found instead.
    """
    name, _, part = where.partition(":")
    if where == "digits":
        return Memory(digits(), where)
    if name == "fashion-mnist" and part in ("", "test"):
        return Memory(fashion_mnist(fashion_folder(data_path), size, "t10k" if part else "train"), where)
    path = Path(where)
    if path.is_file() and path.suffix == ".npz":
        return Npz(path)
    if (path / "catgan.json").is_file():
        return Stored(Prepared(path), where)
    if path.is_dir():
        return Folder(path)
    raise UserError(
        f"{where} does not exist or is no image source: must be a folder of images or of prepared data, an .npz with arr_0, digits, "
        "fashion-mnist or fashion-mnist:test; what is measured may also be a run directory or a checkpoint"
    )


def source_of_config(data: DataConfig, size: int) -> Source:
    """The real images that a run is trained on."""
    return source_of_dataset(open_dataset(data, size), data.source)


def source_of_dataset(dataset: Dataset, name: str) -> Source:
    """The images of a dataset. Raises UserError where it has none."""
    if isinstance(dataset, Images):
        return Memory(dataset, name)
    if isinstance(dataset, Prepared):
        return Stored(dataset, str(dataset.folder))
    raise UserError(f"the data ({name}) are no images: give images or statistics as the reference")


def open_features(
    name: str, device: torch.device, weights: str | None, reference: Source | None, quiet: bool = False
) -> FeatureSpace:
    """The feature space of a name; the classifier is trained on the reference's images if it is not cached."""
    if name == "inception":
        return Inception(device, Path(weights) if weights else None)
    if name == "dinov2":
        return Dinov2(device, weights) if weights else Dinov2(device)
    if reference is None:
        raise UserError(
            "the classifier is trained on the reference's images: give images as --reference, not statistics"
        )
    return classifier(reference, device, quiet)


def applicable(source: Source, space: FeatureSpace, real: Source | None) -> tuple[Metric, ...]:
    """All metrics that these samples, features and real images (None: statistics only) can give."""
    made: list[Metric] = ["distance"]
    made += ["kid", "precision_recall"] if real is not None else []
    made += ["score"] if space.classes else []
    labelled = real is not None and source.class_names and real.class_names
    made += ["class_distance", "recognised"] if labelled and space.names_classes else []
    return tuple(made)


def fitting_features(source: Source) -> Features:
    """Inception for what it knows: colour images of some size."""
    return "classifier" if source.channels == 1 or source.read(0, 1)[0].shape[-1] < SMALL else "inception"


def open_reference(
    statistics: Path | None,
    real: Source | None,
    space: FeatureSpace,
    protocol: Protocol,
    work: Work,
) -> Reference:
    """What a protocol needs to know of the real images.

    statistics: an .npz with mu and sigma, which then count; `real` gives single features, where metrics need them.
    """
    keep = Keep(
        features=protocol.reference_features if protocol.rows_kept else 0,
        classes=len(real.class_names) if real is not None and "class_distance" in protocol.metrics else 0,
    )
    known = None if statistics is None else read_npz(statistics)
    if known is not None and (real is None or keep == Keep()):
        return known
    assert real is not None
    found = of_source(real, space, keep, work)
    return (
        found
        if known is None
        else replace(found, name=known.name, identity=known.identity, statistics=known.statistics)
    )


def real_images(where: str, size: int, data_path: str | None = None) -> tuple[Path | None, Source | None]:
    """A reference's statistics and its images, as far as it has them."""
    path = Path(where)
    if not has_statistics(path):
        return None, open_source(where, size, data_path)
    return path, Npz(path) if has_images(path) else None


def in_turn(processes: Processes, work: Callable[[], T]) -> T:
    """What `work` returns, done by the first process before the others: it fetches or trains what the cache lacks."""
    if not processes.first:
        processes.wait()
    result = work()
    if processes.first:
        processes.wait()
    return result
