"""Sources that are tables: Hugging Face datasets, and IDX files as MNIST has them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from catgan.data.decode import MAX_BYTES, BrokenError
from catgan.data.idx import read_pair
from catgan.data.listing import ONE_CLASS, PictureSource, too_large
from catgan.errors import UserError
from catgan.system.packages import need

IDX_SPLITS = {"train": ("train",), "test": ("t10k", "test")}


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of the library datasets."""
    whole = (path / "state.json").exists() and (path / "dataset_info.json").exists()
    return (whole and not (path / "catgan.json").exists()) or (path / "dataset_dict.json").exists()


def hugging_face(where: str, split: str | None, image_column: str | None, label_column: str | None) -> PictureSource:
    """A dataset of the hub or of a local folder. Raises UserError if it cannot be had or has no pictures."""
    table = load_table(where, split)
    import datasets

    pictures = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in table.features.items() if isinstance(feature, datasets.ClassLabel)]
    labels = labels or [name for name in ("label", "labels") if name in table.column_names]
    image = pick(where, "--image-column", image_column, pictures, table.column_names)
    if image is None:
        raise UserError(
            f"{where} does not say which column has pictures: name it with --image-column, of {', '.join(table.column_names)}"
        )
    label = pick(where, "--label-column", label_column, labels, table.column_names)
    encoded = table.select_columns([image])
    if image in pictures:
        encoded = encoded.cast_column(image, datasets.Image(decode=False))

    places = folders_of(where)

    def read(i: int) -> bytes:
        value = encoded[i][image]
        if isinstance(value, dict):
            value = value["bytes"] if value["bytes"] is not None else file_of(value["path"], places)
        return value if len(value) <= MAX_BYTES else too_large()

    numbers, class_names = classes(where, label, table)
    return PictureSource(where, RowNames(len(table)), numbers, class_names, read)


def folders_of(where: str) -> list[Path]:
    """Where the pictures that a dataset only names may lie: in its own folder, or where the library keeps what it fetched."""
    import datasets
    import huggingface_hub

    if not where.startswith("hf:"):
        return [absolute(where)]
    name = where.removeprefix("hf:").partition(":")[0]
    kept = (
        datasets.config.HF_DATASETS_CACHE,
        datasets.config.DOWNLOADED_DATASETS_PATH,
        huggingface_hub.constants.HF_HUB_CACHE,
    )
    return [absolute(folder) for folder in ([name] if Path(name).is_dir() else kept)]


def absolute(path: str | Path) -> Path:
    """A path from the root on, without `..`; links are left as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (`resolve` follows links)


def file_of(path: str, folders: Sequence[Path]) -> bytes:
    """The picture file that a row names. Raises BrokenError if it is not in these folders, too large, or no plain file."""
    file = absolute(path)
    if not any(file.is_relative_to(folder) for folder in folders):
        raise BrokenError(f"names a file outside of the data: {path[:60]}")
    if not file.is_file():
        raise BrokenError(f"names no file: {path[:60]}")
    return file.read_bytes() if file.stat().st_size <= MAX_BYTES else too_large()


def load_table(where: str, split: str | None) -> Any:
    """The rows of one split. Raises UserError with the library's reason if it cannot load them."""
    datasets = need("datasets", where, "hub")
    loud = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it logs of a failure is in its exception
    try:
        if where.startswith("hf:"):
            name, _, part = where.removeprefix("hf:").partition(":")
            check_card(Path(name))
            loaded = datasets.load_dataset(name, part or None, split=split)
        else:
            loaded = datasets.load_from_disk(where)
    except UserError:
        raise
    except Exception as error:  # the network, the hub's rules and damaged files all speak in exceptions of their own
        generating = isinstance(error, datasets.exceptions.DatasetGenerationError)  # says no more than its name does
        said = str(error.__cause__ if generating else error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"cannot load {where}: {said[0]}") from None
    finally:
        datasets.logging.set_verbosity(loud)
    if not isinstance(loaded, dict):
        if split is not None and not where.startswith("hf:"):
            raise UserError(f"--split is {split}: {where} is not divided; leave it out")
        return loaded
    chosen = split or ("train" if "train" in loaded else next(iter(loaded)) if len(loaded) == 1 else None)
    if chosen not in loaded:
        raise UserError(f"--split is {chosen or 'not set'}: {where} has {', '.join(map(str, loaded))}")
    return loaded[chosen]


def check_card(folder: Path) -> None:
    """Raise UserError if the description of a local dataset names data elsewhere, which the library would list and read."""
    import datasets
    import huggingface_hub

    described: list[Any] = []
    if (card := folder / "README.md").is_file():
        described.append(huggingface_hub.DatasetCard.load(card).data.to_dict().get("configs"))
    if (plain := folder / datasets.config.REPOYAML_FILENAME).is_file():
        described.append(yaml.safe_load(plain.read_text("utf-8")))
    seen = set()  # YAML can hold one list in many places
    while described:
        part = described.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        match part:
            case dict() as found:
                described += found.values()
            case list() as found:
                described += found
            case str() as name if "://" in name or ".." in re.split(r"[/\\]", name) or Path(name).is_absolute():
                raise UserError(
                    f"hf:{folder} describes itself with data elsewhere, {name[:100]}: use a folder that has all of its data"
                )


def pick(where: str, option: str, chosen: str | None, fitting: Sequence[str], known: Sequence[str]) -> str | None:
    """The chosen column, or the only fitting one; None if none fits. Raises UserError if it is not clear which."""
    if chosen is not None and chosen not in known:
        raise UserError(f"{option} is {chosen}: {where} has {', '.join(known)}")
    if chosen is None and len(fitting) > 1:
        raise UserError(f"{where} has several such columns: choose with {option} {' or '.join(fitting)}")
    return chosen or (fitting[0] if fitting else None)


def classes(where: str, label: str | None, table: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers and names: of a ClassLabel column as they are, of numbers or texts those that occur, sorted."""
    import datasets

    if label is None:
        return np.zeros(len(table), np.int64), (ONE_CLASS,)
    values = table.select_columns([label]).with_format(None)[:][label]
    feature = table.features[label]
    odd = next((value for value in values if not isinstance(value, int | float | str | None)), None)
    if odd is not None:
        raise UserError(f"{where}: column {label} holds {type(odd).__name__}: classes must be numbers or texts")
    if any(value is None or value != value for value in values) or (  # NaN
        isinstance(feature, datasets.ClassLabel) and values and min(values) < 0
    ):
        raise UserError(f"{where}: rows of column {label} have no class: choose another --split or --label-column")
    used = sorted(set(values))
    named = isinstance(feature, datasets.ClassLabel)
    if named and used and used[-1] >= len(feature.names):
        raise UserError(f"{where} is damaged: column {label} has class {used[-1]}, and names of {len(feature.names)}")
    names = tuple(str(feature.names[value] if named else value) for value in used)
    number = {value: k for k, value in enumerate(used)}
    return np.array([number[value] for value in values], dtype=np.int64), names


class RowNames(Sequence[str]):
    """Row numbers as names, without a list of them."""

    def __init__(self, count: int) -> None:
        self.rows = count

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, i: Any) -> Any:
        return f"row {range(self.rows)[i]}"


def has_idx(path: Path) -> bool:
    return bool(idx_prefixes(path))


def idx_prefixes(path: Path) -> dict[str, str]:
    """Where there are images in IDX files: what stands before `-images`, and the separator (- or .) after it."""
    found = (re.fullmatch(r"(.+)-images([-.])idx3-ubyte(\.gz)?", p.name) for p in sorted(path.iterdir()))
    return {m[1]: m[2] for m in found if m}


def idx_files(path: Path, split: str | None) -> PictureSource:
    """Images (N, H, W) and labels (N,) of one split in IDX format. Classes are the labels that occur."""
    prefixes = idx_prefixes(path)
    wanted = IDX_SPLITS.get(split or "train", ())
    fitting = [p for p in prefixes if p == split or p.rpartition("-")[2] in wanted]
    if len(fitting) != 1:
        raise UserError(f"--split is {split or 'not set'}: {path} has {', '.join(prefixes)}; choose one of them")
    prefix, mark = fitting[0], prefixes[fitting[0]]
    images, labels = read_pair(path, f"{prefix}-images{mark}idx3-ubyte", f"{prefix}-labels{mark}idx1-ubyte")
    used, numbers = np.unique(labels, return_inverse=True)
    names = tuple(str(n) for n in used)
    return PictureSource(str(path), RowNames(len(images)), numbers.astype(np.int64), names, lambda i: images[i])
