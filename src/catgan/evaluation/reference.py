"""What samples are compared with: a dataset's moments and features, computed once, or statistics from an .npz."""

from __future__ import annotations

import zipfile
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from catgan.errors import UserError
from catgan.evaluation.collect import Collected, Keep, Work, check_count, collect, read, write
from catgan.evaluation.features import FeatureSpace, cache_folder, one_maker
from catgan.evaluation.frechet import Statistics
from catgan.evaluation.sources import ImageSource
from catgan.system.files import digest, write_atomically
from catgan.system.pieces import work_folder


@dataclass(frozen=True)
class Reference:
    """Mean and covariance, and what else is known of the real images in a feature space."""

    name: str
    identity: str
    statistics: Statistics
    features: Tensor | None = None  # (n, dim) of evenly spread images
    by_class: tuple[Statistics, ...] = ()
    broken: tuple[str, ...] = ()  # files that could not be read
    class_names: tuple[str, ...] = ()  # empty where images have no classes, or are not known


def of_source(
    source: ImageSource, space: FeatureSpace, keep: Keep, work: Work, meeting: Path | None = None
) -> Reference:
    """The reference that all images of a source make: from the cache, or computed and put there.

    meeting: a folder that all processes see, for the parts that they share; default: the cache, which is enough for
    processes of one machine. What one process computes another, of whatever run, waits for.
    """
    identity = digest("reference", space.identity(), source.identity())
    key = digest(identity, str(keep))
    path = cache_folder() / "references" / f"{key}.safetensors"
    processes = work.processes

    def known() -> Collected | None:
        return processes.from_first(lambda: cached(path))  # another machine's cache may hold other things

    found = known()
    if found is None:
        with one_maker(path) if processes.first else nullcontext():
            found = known()
            if found is None:
                with work_folder((meeting or path.parent) / f".reference-{key}.work", processes) as folder:
                    found = collect(source, space, keep, work, folder)
                    if processes.first:
                        write(path, found)
    check_count(found, source, work.max_broken)  # the cached one may have been made with more patience
    by_class = tuple(m.statistics for m in found.by_class)
    return Reference(
        source.name, identity, found.moments.statistics, found.features, by_class, tuple(found.broken),
        source.class_names,
    )  # fmt: skip


def cached(path: Path) -> Collected | None:
    """What a file of the cache holds; None if it is not there or damaged (it will be written anew)."""
    if not path.exists():
        return None
    try:
        return read(path)
    except (SafetensorError, KeyError, ValueError, TypeError):
        return None


def statistics_names(features: str) -> tuple[str, str]:
    """Under which names an .npz holds mean and covariance in a feature space, as ADM's reference files do."""
    return ("mu_s", "sigma_s") if features == "inception-spatial" else ("mu", "sigma")


def has_statistics(path: Path) -> bool:
    """Whether an .npz has mean and covariance in some feature space."""
    names = map(statistics_names, ("inception", "inception-spatial"))
    return any({f"{mu}.npy", f"{sigma}.npy"} <= members(path) for mu, sigma in names)


def has_images(path: Path) -> bool:
    """Whether an .npz has images, as some of ADM's reference files do beside their statistics."""
    return "arr_0.npy" in members(path)


def members(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return set()


def read_npz(path: Path, features: str = "inception") -> Reference:
    """mu (d,) and sigma (d, d) of an ADM-style .npz; in Inception's spatial features mu_s and sigma_s. Raises UserError
    for anything else."""
    names = statistics_names(features)
    try:
        with np.load(path, allow_pickle=False) as file:
            mu, sigma = (torch.from_numpy(np.asarray(file[n], dtype=np.float64)) for n in names)
            count = int(file["count"]) if "count" in file.files else 0
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} holds no statistics: must have {names[0]} (d,) and {names[1]} (d, d) ({error})"
        ) from None
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise UserError(
            f"{path}: {names[0]} is {tuple(mu.shape)} and {names[1]} {tuple(sigma.shape)}: must be (d,) and (d, d)"
        )
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise UserError(
            f"{path}: {names[0]} or {names[1]} has numbers that are not finite: compute the statistics again"
        )
    return Reference(path.name, digest(mu.numpy().tobytes(), sigma.numpy().tobytes()), Statistics(mu, sigma, count))


def write_npz(path: Path, statistics: Statistics, features: str = "inception") -> None:
    """mu, sigma (float64) and the number of images as an .npz that ADM's evaluator reads too; see `read_npz`."""
    mu, sigma = statistics_names(features)

    def fill(aside: Path) -> None:
        with open(aside, "wb") as file:
            found: dict[str, Any] = {
                mu: statistics.mu.numpy(),
                sigma: statistics.sigma.numpy(),
                "count": np.int64(statistics.count),
            }
            np.savez(file, **found)

    write_atomically(path, fill)
