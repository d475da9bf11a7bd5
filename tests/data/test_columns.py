"""Hugging Face datasets (saved by the test; hubs are never asked) and IDX files."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catgan.data.decode import BrokenError, to_picture
from catgan.data.idx import read_idx
from catgan.data.sources import open_source
from catgan.errors import UserError


def picture(value: int) -> Image.Image:
    return Image.new("L", (4, 4), value)


def table(classes: list[int], **more: Any) -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "crane", "dog", "bee"])}
        | {name: datasets.ClassLabel(names=["x", "y"]) for name in more}
    )
    rows = {"img": [picture(k) for k in range(len(classes))], "label": classes} | more
    return datasets.Dataset.from_dict(rows, features=features)


def values(source: Any) -> list[int]:
    return [int(to_picture(source.read(i), 4, 1, "center").pixels[0, 0, 0]) for i in range(len(source))]


def test_a_saved_dataset_gives_its_pictures_and_the_classes_that_occur(tmp_path: Path) -> None:
    table([3, 1, 2, 1]).save_to_disk(tmp_path / "set")
    source = open_source(str(tmp_path / "set"))
    assert source.class_names == ("crane", "dog", "bee")
    assert source.labels.tolist() == [2, 0, 1, 0]
    assert values(source) == [0, 1, 2, 3]
    assert source.names[2] == "row 2"


def test_one_split_is_taken_and_train_if_none_is_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = datasets.DatasetDict({"train": table([0, 1]), "test": table([3])})
    parts.save_to_disk(tmp_path / "set")
    assert len(open_source(str(tmp_path / "set"))) == 2
    assert len(open_source(str(tmp_path / "set"), split="test")) == 1
    with pytest.raises(UserError, match=r"--split is night: .* has train, test"):
        open_source(str(tmp_path / "set"), split="night")


def test_a_folder_of_parquet_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    table([0, 1]).to_parquet(tmp_path / "set" / "train.parquet")
    assert values(open_source(f"hf:{tmp_path / 'set'}")) == [0, 1]


def test_pictures_that_rows_only_name_must_lie_in_the_folder_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets, parquet = pytest.importorskip("datasets"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    for name in ("set/in.png", "out.png"):
        picture(5).save(tmp_path / name)
    (tmp_path / "set" / "pipe").symlink_to("/dev/zero")
    names = [str(tmp_path / name) for name in ("set/in.png", "out.png", "set/../out.png", "set/pipe")] + ["/dev/zero"]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    made = datasets.Dataset.from_dict({"image": [{"bytes": None, "path": name} for name in names]}, features=features)
    parquet.write_table(made.data.table, tmp_path / "set" / "train.parquet")  # `to_parquet` would put the files into it
    source = open_source(f"hf:{tmp_path / 'set'}", image_column="image")
    assert source.read(0) == (tmp_path / "set" / "in.png").read_bytes()
    for i, said in enumerate(("outside of the data", "outside of the data", "names no file", "outside of the data"), 1):
        with pytest.raises(BrokenError, match=said):
            source.read(i)


@pytest.mark.parametrize("elsewhere", ["../out.parquet", "/etc/*", "https://example.org/x.parquet", "a/../../*"])
@pytest.mark.parametrize("file", ["README.md", ".huggingface.yaml"])
def test_a_dataset_that_names_data_elsewhere_is_refused(elsewhere: str, file: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    table([0]).to_parquet(tmp_path / "set" / "train.parquet")
    card = f"configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: ['train.parquet', '{elsewhere}']\n"
    (tmp_path / "set" / file).write_text(card if file.endswith("yaml") else f"---\n{card}---\n")
    with pytest.raises(UserError, match="describes itself with data elsewhere"):
        open_source(f"hf:{tmp_path / 'set'}")


def test_where_several_columns_fit_one_must_be_chosen(tmp_path: Path) -> None:
    table([0, 1], coarse=[1, 0]).save_to_disk(tmp_path / "set")
    with pytest.raises(UserError, match="choose with --label-column label or coarse"):
        open_source(str(tmp_path / "set"))
    assert open_source(str(tmp_path / "set"), label_column="coarse").class_names == ("x", "y")
    with pytest.raises(UserError, match=r"--label-column is fine: .* has img, label, coarse"):
        open_source(str(tmp_path / "set"), label_column="fine")


def test_a_column_of_numbers_or_texts_can_be_the_classes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    buffers = [io.BytesIO() for _ in range(3)]
    for k, buffer in enumerate(buffers):
        picture(k).save(buffer, "PNG")
    rows = {"png": [b.getvalue() for b in buffers], "label": [7, 3, 7], "kind": ["b", "a", "b"]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    source = open_source(str(tmp_path / "set"), image_column="png")
    assert (source.class_names, source.labels.tolist()) == (("3", "7"), [1, 0, 1])
    assert values(source) == [0, 1, 2]
    assert open_source(str(tmp_path / "set"), image_column="png", label_column="kind").class_names == ("a", "b")
    with pytest.raises(
        UserError, match="does not say which column has pictures: name it with --image-column, of png, label, kind"
    ):
        open_source(str(tmp_path / "set"))
    with pytest.raises(UserError, match="column png holds bytes: classes must be numbers or texts"):
        open_source(str(tmp_path / "set"), image_column="png", label_column="png")


def test_rows_without_a_class_are_refused(tmp_path: Path) -> None:
    table([0, -1]).save_to_disk(tmp_path / "set")
    with pytest.raises(UserError, match="no class"):
        open_source(str(tmp_path / "set"))


def test_what_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table([0, 1]).save_to_disk(tmp_path / "set")
    (tmp_path / "set" / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot load .*/set: "):
        open_source(str(tmp_path / "set"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'catgan\[hub\]'"):
        open_source("hf:somebody/something")


# -- IDX ---------------------------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, prefix: str, labels: list[int], mark: str = "-") -> np.ndarray:
    images = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 6, 6), np.uint8)
    (folder / f"{prefix}-images{mark}idx3-ubyte").write_bytes(idx(images))
    (folder / f"{prefix}-labels{mark}idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.array(labels))))
    return images


def test_idx_files_are_grey_pictures_with_the_labels_that_occur(tmp_path: Path) -> None:
    images = write_idx(tmp_path, "train", [9, 1, 9])
    test = write_idx(tmp_path, "t10k", [4], mark=".")
    source = open_source(str(tmp_path))
    assert (source.class_names, source.labels.tolist()) == (("1", "9"), [1, 0, 1])
    assert np.array_equal(to_picture(source.read(1), 6, 1, "center").pixels[..., 0], images[1])
    assert np.array_equal(open_source(str(tmp_path), split="test").read(0), test[0])


def test_an_unclear_or_missing_idx_split_is_named(tmp_path: Path) -> None:
    for prefix in ("emnist-letters-train", "emnist-digits-train"):
        write_idx(tmp_path, prefix, [0, 1])
    with pytest.raises(UserError, match="has emnist-digits-train, emnist-letters-train"):
        open_source(str(tmp_path))
    assert len(open_source(str(tmp_path), split="emnist-letters-train")) == 2
    (tmp_path / "emnist-digits-train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="no emnist-digits-train-labels-idx1-ubyte"):
        open_source(str(tmp_path), split="emnist-digits-train")


def test_numbers_whose_product_overflows_are_damage(tmp_path: Path) -> None:
    """2^32 - 2^31 and so on: their product is a multiple of 2^64, which is 0 in the machine's numbers, as is the content."""
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (2**31, 2**31, 4))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header)
    with pytest.raises(UserError, match="it promises 2147483648x2147483648x4 bytes and holds 0"):
        read_idx(tmp_path, "train-images-idx3-ubyte", 3)


def test_a_class_without_a_name_is_damage(tmp_path: Path) -> None:
    saved = table([0, 3, 1])
    saved.save_to_disk(tmp_path / "saved")
    path = tmp_path / "saved" / "dataset_info.json"
    about = json.loads(path.read_text())
    about["features"]["label"]["names"].pop()
    path.write_text(json.dumps(about))
    with pytest.raises(UserError, match="is damaged: column label has class 3, and names of 3"):
        open_source(str(tmp_path / "saved"))
