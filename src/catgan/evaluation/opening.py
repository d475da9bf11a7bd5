"""From what a user names to what an evaluation works with: samples, real images, feature space, reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from catgan.checkpoint.export import is_export
from catgan.checkpoint.reading import is_checkpoint
from catgan.data import Dataset
from catgan.data.datasets import digits, fashion_folder, fashion_mnist
from catgan.data.prepared import Prepared
from catgan.errors import UserError
from catgan.evaluation.classifier import classifier
from catgan.evaluation.collect import Keep, Work
from catgan.evaluation.evaluator import Evaluator, Facts, applicable, check_possible, too_few
from catgan.evaluation.features import DINOV2, Clip, DINOv2ClassToken, FeatureSpace, Inception, InceptionSpatial, Pixels
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.reference import Reference, has_images, has_statistics, of_source, read_npz
from catgan.evaluation.sources import DatasetImages, Folder, Generated, ImageSource, Npz
from catgan.metrics import Features
from catgan.sampling.pipeline import CATPipeline, load
from catgan.shipped import choices, located
from catgan.system.processes import Processes

T = TypeVar("T")
SMALL = 64  # images below this size say little to Inception
Images = str | Path | Dataset | ImageSource  # what users may name or give
Real = tuple[Path | None, ImageSource | None]  # a reference's statistics and its images, as far as it has them


def open_samples(
    where: Images | CATPipeline, protocol: Protocol, device: str, data_path: str | None = None, vae: str | None = None
) -> ImageSource:
    """A generator's samples where a run, a checkpoint, an exported model or a pipeline is given, else given images.

    vae: decodes its latents, in place of the one that its configuration names.
    """
    if isinstance(where, CATPipeline):
        pipe = where
    elif isinstance(where, (str, Path)) and is_generator(Path(where)):
        protocol.check()
        pipe = load(Path(where), protocol.weights, vae).to(device, protocol.precision)
    else:
        return open_images(where, data_path=data_path)
    p = protocol
    return Generated(pipe, p.samples, p.class_sampling, p.first_seed, p.psi, p.rounding)


def is_generator(path: Path) -> bool:
    """Whether a path names a run, a checkpoint, an exported model or a shipped one."""
    path = located(path)
    run = (path / "config.yaml").exists() or (path / "checkpoints").is_dir()
    return path.suffix == ".safetensors" or run or is_checkpoint(path) or is_export(path)


def open_images(given: Images, size: int = 32, data_path: str | None = None) -> ImageSource:
    """Images by name (digits, fashion-mnist, fashion-mnist:test, an .npz, a folder), or a dataset or source of one's own.

    digits:train and fashion-mnist:train are the same as without, where that is a shipped model's name.

    size: pixels that fashion-mnist's are padded to. data_path: the folder of its files.
    Raises UserError naming what was found instead.
    """
    if not isinstance(given, (str, Path)):
        own = callable(getattr(given, "read", None))
        return given if own else DatasetImages(given, type(given).__name__)  # type: ignore[return-value, arg-type]
    where = str(given)
    name, _, part = where.partition(":")
    if name == "digits" and part in ("", "train"):
        return DatasetImages(digits(), where)
    if name == "fashion-mnist" and part in ("", "train", "test"):
        return DatasetImages(
            fashion_mnist(fashion_folder(data_path), size, "t10k" if part == "test" else "train"), where
        )
    path = Path(where)
    if path.is_file() and path.suffix == ".npz":
        return Npz(path)
    if (path / "catgan.json").is_file():
        return DatasetImages(Prepared(path), where)
    if path.is_dir():
        return Folder(path)
    raise UserError(
        f"{where} does not exist or is no image source: must be a folder of images or of prepared data, an .npz with arr_0, digits, "
        f"fashion-mnist or fashion-mnist:test; what is measured may also be a run directory, a checkpoint or {choices(path)}"
    )


def open_features(
    name: Features,
    device: torch.device,
    weights: str | None,
    real: ImageSource | None,
    work: Work,
    statistics: Path | None = None,
) -> FeatureSpace:
    """The feature space of a name; the classifier is trained on the reference's images if it is not cached."""
    if name in ("inception", "inception-spatial"):
        kind = Inception if name == "inception" else InceptionSpatial
        return in_turn(work.processes, lambda: kind(device, Path(weights) if weights else None))
    if name in DINOV2:
        return in_turn(work.processes, lambda: DINOv2ClassToken(device, weights, name))
    if name == "clip":
        return in_turn(work.processes, lambda: Clip(device, weights))
    if name == "pixels":
        if real is not None:
            return Pixels(real.channels)
        grey = statistics is not None and read_npz(statistics).statistics.dim == Pixels(1).dim
        return Pixels(1 if grey else 3)
    if real is None:
        raise UserError(
            "the classifier is trained on the reference's images: give images as --reference, not statistics"
        )
    # One process's for all: another machine's cache, or its arithmetic, would give another one.
    made = work.processes.from_first(lambda: classifier(real, device, work.quiet).to(torch.device("cpu")))
    return made.to(device)


def fitting_features(source: ImageSource, real: Real) -> Features:
    """Inception for what it knows, colour images of some size; else a classifier, where the real images have classes."""
    if source.channels == 3 and source.read(0, 1)[0].shape[-1] >= SMALL:
        return "inception"
    images = real[1]
    return "pixels" if images is not None and len(images.class_names) < 2 else "classifier"


def open_reference(
    real: Real, space: FeatureSpace, protocol: Protocol, work: Work, meeting: Path | None = None
) -> Reference:
    """What a protocol needs to know of the real images.

    An .npz's statistics count where it has them; its images give single features, where metrics need them.
    meeting: see `of_source`.
    """
    statistics, images = real
    by_class = any(metric.by_class for metric in protocol.wanted.values())
    keep = Keep(
        features=protocol.reference_features if protocol.rows_kept else 0,
        classes=len(images.class_names) if images is not None and by_class else 0,
    )
    known = None if statistics is None else read_npz(statistics, space.name)
    if images is None:
        assert known is not None
        return known
    if known is not None and keep == Keep():
        return replace(known, class_names=images.class_names)
    found = of_source(images, space, keep, work, meeting)
    if known is None:
        return found
    return replace(found, name=known.name, identity=known.identity, statistics=known.statistics)


def open_real(given: Images | None, samples: ImageSource, data_path: str | None = None) -> Real:
    """The real images that samples are compared with; None stands for those that their generator was trained on."""
    pipe = samples.pipe if isinstance(samples, Generated) else None
    size = pipe.config.sample.size if pipe else 32
    if given is not None:
        return real_images(given, size, data_path)
    if pipe is None:
        raise UserError("--reference is not set: given images need something to be compared with")
    return None, DatasetImages(pipe.open_data(), pipe.config.data.path or pipe.config.data.source)


def real_images(given: Images, size: int, data_path: str | None = None) -> Real:
    """A reference's statistics and its images, as far as it has them."""
    path = Path(given) if isinstance(given, (str, Path)) else None
    if path is None or not has_statistics(path):
        return None, open_images(given, size, data_path)
    return path, Npz(path) if has_images(path) else None


def open_evaluator(
    real: Real,
    samples: Facts,
    protocol: Protocol,
    work: Work,
    device: torch.device,
    weights: str | None = None,
    meeting: Path | None = None,
) -> Evaluator:
    """What measures such samples: feature space and reference are fetched, trained or computed if they are not cached.

    No metrics in the protocol are all that are possible. weights: of the feature space. meeting: see `of_source`.
    Raises UserError for metrics that cannot be had.
    """
    statistics, images = real
    plain = Facts(statistics.name if statistics else "the reference", 0, ())
    known = Facts(images.name, min(len(images), protocol.reference_features), images.class_names) if images else plain
    for name in protocol.wanted:
        if reason := too_few(name, protocol, samples, known):  # before a classifier is trained
            raise UserError(reason)
    space = open_features(protocol.features, device, weights, images, work, statistics)
    if not protocol.metrics:
        protocol = replace(protocol, metrics=applicable(protocol, space, samples, plain if statistics else known))
    check_possible(protocol, space, samples, known)
    evaluator = Evaluator(open_reference(real, space, protocol, work, meeting), space, protocol, work)
    evaluator.check(samples)
    return evaluator


def in_turn(processes: Processes, work: Callable[[], T]) -> T:
    """What `work` returns, done by the first process before the others: it fetches or trains what the cache lacks."""
    if not processes.first:
        processes.wait()
    result = work()
    if processes.first:
        processes.wait()
    return result
