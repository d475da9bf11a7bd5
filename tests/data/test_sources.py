"""Layouts of folders and archives, and what each means."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from catgan.data import archives
from catgan.data.listing import PictureSource
from catgan.data.sources import distinct, open_source
from catgan.errors import UserError


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), value).save(buffer, "PNG")
    return buffer.getvalue()


def fill(root: Path, *names: str) -> Path:
    """A file per name; the k-th holds a picture of grey k. A name that ends in / is a folder."""
    for k, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (root / name).mkdir(exist_ok=True)
        else:
            (root / name).write_bytes(png(k))
    return root


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for k, name in enumerate(names):
            archive.writestr(name, b"" if name.endswith("/") else png(k))
    return path


def tarred(path: Path, *names: str, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for k, name in enumerate(names):
            info = tarfile.TarInfo(name)
            data = png(k)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def listed(source: PictureSource) -> list[tuple[str, str]]:
    return [(source.class_names[y], name) for name, y in zip(source.names, source.labels, strict=True)]


LAYOUT = ("dog/2.png", "cat/9.jpg", "cat/10.PNG", "dog/more/1.webp", "notes.txt", "cat/README", ".hidden/x.png")


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_folders_are_classes_in_order_of_their_names_and_all_below_belongs_to_them(kind: str, tmp_path: Path) -> None:
    if kind == "folder":
        source = open_source(str(fill(tmp_path / "pictures", *LAYOUT)))
    elif kind == "zip":
        source = open_source(str(zipped(tmp_path / "a.zip", *LAYOUT)))
    else:
        mode = "w:" + kind.partition(".")[2]
        source = open_source(str(tarred(tmp_path / f"a.{kind}", *LAYOUT, mode=mode)))
    assert listed(source) == [
        ("cat", "cat/10.PNG"), ("cat", "cat/9.jpg"), ("dog", "dog/2.png"), ("dog", "dog/more/1.webp"),
    ]  # fmt: skip
    assert [source.read(i) for i in range(4)] == [png(2), png(1), png(0), png(3)]
    assert source.ignored == {".txt file": 1, "file without ending": 1, "hidden file": 1}


def test_pictures_without_folders_are_one_class(tmp_path: Path) -> None:
    source = open_source(str(fill(tmp_path / "flat", "b.png", "a.png")))
    assert listed(source) == [("all", "a.png"), ("all", "b.png")]


def test_folders_wrapped_around_the_classes_do_not_count(tmp_path: Path) -> None:
    wrapped = zipped(tmp_path / "a.zip", "data/set/cat/1.png", "data/set/dog/1.png", "__MACOSX/data/x.png")
    assert open_source(str(wrapped)).class_names == ("cat", "dog")
    flat = zipped(tmp_path / "b.zip", "./holiday/1.png", "./holiday/2.png")
    assert open_source(str(flat)).class_names == ("holiday",)


def test_pictures_beside_folders_of_pictures_are_refused(tmp_path: Path) -> None:
    for k, names in enumerate((("cat/1.png", "2.png"), ("all/cat/1.png", "all/dog/1.png", "all/2.png"))):
        with pytest.raises(UserError, match=r"pictures beside folders of pictures \((all/)?2.png, (all/)?cat/1.png\)"):
            open_source(str(fill(tmp_path / str(k), *names)))


def test_splits_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"divided into train and val, .* prepare .*/train alone"):
        open_source(str(fill(tmp_path / "a", "train/cat/1.png", "val/cat/1.png")))


def test_folders_without_pictures_are_no_classes_and_are_named(tmp_path: Path) -> None:
    source = open_source(str(fill(tmp_path / "a", "cat/1.png", "empty/", "dog/1.png", "texts/a.txt", ".git/")))
    assert source.class_names == ("cat", "dog")
    assert source.empty == ("empty", "texts")


def test_names_that_differ_in_case_are_two_classes(tmp_path: Path) -> None:
    source = open_source(str(zipped(tmp_path / "a.zip", "a/1.png", "A/1.png")))
    assert listed(source) == [("A", "A/1.png"), ("a", "a/1.png")]


def test_equal_names_get_numbers() -> None:
    assert distinct(["crane", "tench", "crane"]) == ("crane", "tench", "crane (2)")


def test_of_two_members_with_one_name_the_later_counts(tmp_path: Path) -> None:
    source = open_source(str(tarred(tmp_path / "a.tar", "cat/1.png", "dog/1.png", "cat/1.png")))
    assert listed(source) == [("cat", "cat/1.png"), ("dog", "dog/1.png")]
    assert source.read(0) == png(2)
    assert source.ignored == {"replaced by a later member of its name": 1}


EVIL = ("/etc/x.png", "../../x.png", "cat/../../x.png", "C:\\x.png", "\\\\host\\x.png", "cat\\..\\..\\x.png")


@pytest.mark.parametrize("make", [zipped, tarred])
def test_names_that_lead_out_of_an_archive_are_left_out(make: object, tmp_path: Path) -> None:
    path = make(tmp_path / "evil", *EVIL, "cat/1.png", "dog\\2.png")  # type: ignore[operator]
    before = sorted(tmp_path.parent.rglob("*.png"))
    source = open_source(str(path))
    assert listed(source) == [("cat", "cat/1.png"), ("dog", "dog/2.png")]
    assert source.ignored == {"name that leads out of the archive": len(EVIL)}
    assert [len(source.read(i)) > 0 for i in range(2)] == [True, True]
    assert sorted(tmp_path.parent.rglob("*.png")) == before


def test_links_and_devices_in_archives_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("cat/link.png", tarfile.SYMTYPE),
            ("cat/hard.png", tarfile.LNKTYPE),
            ("cat/pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("cat/1.png")
        info.size = len(png())
        archive.addfile(info, io.BytesIO(png()))
    assert open_source(str(tmp_path / "a.tar")).ignored == {"no plain file": 3}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zip_archive:
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        zip_archive.writestr(link, "/etc/passwd")
        zip_archive.writestr("cat/1.png", png())
    assert open_source(str(tmp_path / "a.zip")).ignored == {"no plain file": 1}


def test_links_in_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    fill(tmp_path / "real", "1.png")
    fill(tmp_path / "set", "dog/2.png")
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "real")
    (tmp_path / "set" / "dog" / "again").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "dog" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "set" / "dog" / "pipe.png")
    source = open_source(str(tmp_path / "set"))
    assert listed(source) == [("cat", "cat/1.png"), ("dog", "dog/2.png")]
    assert source.ignored == {"no plain file": 3}


def test_names_that_are_no_text_are_shown_with_their_bytes(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102 (a name of bytes)
    Path(os.fsdecode(folder + b"/1.png")).write_bytes(png())
    source = open_source(str(tmp_path))
    assert source.class_names == ("caf\\xe9",)
    assert source.read(0) == png()


@pytest.mark.parametrize("damage", ["cut", "header", "packed", "packed cut", "bz2", "zip", "text"])
def test_a_damaged_archive_is_named(damage: str, tmp_path: Path) -> None:
    path = tarred(tmp_path / "a", *(f"cat/{k}.png" for k in range(9)))
    data = path.read_bytes()
    if damage == "cut":
        data = data[:2000]
    elif damage == "header":  # of the second member: what follows it would be lost in silence
        data = data[:1024] + bytes(b ^ 0x55 for b in data[1024:1100]) + data[1100:]
    elif damage == "packed":
        data = gzip.compress(data)
        data = data[:60] + bytes(b ^ 0xFF for b in data[60:90]) + data[90:]
    elif damage == "packed cut":
        data = lzma.compress(data)[:-20]
    elif damage == "bz2":
        data = bz2.compress(data)
        data = data[:-4] + bytes(b ^ 0xFF for b in data[-4:])  # the checksum at its end
    elif damage == "zip":
        data = zipped(tmp_path / "b", "cat/1.png").read_bytes()[:-30]
    else:
        data = b"no archive at all"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"/a is (damaged|neither)") as caught:
        open_source(str(path))
    assert "\n" not in str(caught.value)


def test_a_member_without_a_name_is_no_picture(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "x", "cat/1.png")
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")  # the first entry of the list at the end: its name becomes something extra
    data[at + 28 : at + 32] = bytes([0, 0, 1, 0])
    path.write_bytes(data)
    source = open_source(str(path))
    assert listed(source) == [("cat", "cat/1.png")]
    assert source.ignored == {"file without ending": 1}


def test_a_zip_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "cat/1.png")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 255
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"is damaged: zip file version 25\.5"):
        open_source(str(path))


def test_nothing_to_prepare_says_what_was_seen(tmp_path: Path) -> None:
    fill(tmp_path, ".x.png", "n01440764.tar")
    with pytest.raises(UserError, match=r"holds no pictures \(1 .tar file, 1 hidden file\)"):
        open_source(str(tmp_path))
    with pytest.raises(UserError, match="does not exist"):
        open_source(str(tmp_path / "none"))
    with pytest.raises(UserError, match="--split is train: only"):
        open_source(str(fill(tmp_path, "1.png")), split="train")


def test_bz2_and_gz_are_told_apart_by_content_not_by_name(tmp_path: Path) -> None:
    plain = tarred(tmp_path / "a.tar", "cat/1.png").read_bytes()
    (tmp_path / "b.tar.gz").write_bytes(bz2.compress(plain))
    assert len(open_source(str(tmp_path / "b.tar.gz"))) == 1


def test_a_tar_that_grows_without_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "UNPACKED", 2**20)
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(bytes(2**22))
    with pytest.raises(UserError, match="becomes more than 1 MB when it is unpacked"):
        open_source(str(path))


@pytest.mark.parametrize(("name", "hint"), [("a.bin", "an archive or a folder"), ("a.parquet", "or hf:{} for tables")])
def test_a_file_that_is_no_archive_is_refused_with_what_to_pass(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1")
    with pytest.raises(UserError, match=f"neither a zip nor a tar: .*{re.escape(hint.format(tmp_path))}$"):
        list(archives.members(tmp_path / name))
