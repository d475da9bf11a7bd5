"""From a source of pictures to DEST: shards of equal squares, their classes, and optionally a VAE's moments.

Shard k holds the pictures k * R .. (k + 1) * R - 1 of the source, whoever writes it, less those that are broken: so
the rows of DEST do not depend on the number of processes. A shard is written aside and renamed, and then its record
in DEST/work; what has a record is never written again. Whoever finds that no shard is missing writes what DEST says
of itself, catgan.json last. Processes meet in files alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from catgan.data.crop import Crop
from catgan.data.decode import BrokenError, Picture, is_grey, to_picture
from catgan.data.encode import LatentEncoder
from catgan.data.listing import PictureSource
from catgan.data.prefetch import prefetch
from catgan.data.prepared import FORMAT, arrow, widths
from catgan.data.shards import Shard, dataset_files, shard_name
from catgan.errors import UserError
from catgan.system.files import read_json, sha256, write_text
from catgan.system.pieces import unfinished
from catgan.system.processes import Processes
from catgan.system.progress import Progress

SHARD_BYTES = 2**29
PEEKED = 64  # pictures that decide between grey and RGB


@dataclass(frozen=True)
class Plan:
    """What DEST will hold: equal for all processes, and for all attempts at it."""

    format: int
    pictures: int  # of the source, broken ones included
    listing: str  # digest of their names and classes
    classes: tuple[str, ...]
    size: int
    channels: int
    crop: Crop
    images: bool  # whether pixels are kept
    vae: dict[str, Any] | None  # identity, scale, channels and size of its latents, flip
    shard_rows: int

    @property
    def columns(self) -> dict[str, int]:
        """`widths` of what is kept."""
        return widths(self.size, self.channels, self.images, self.vae)

    @property
    def shards(self) -> int:
        return math.ceil(self.pictures / self.shard_rows)

    def span(self, shard: int) -> range:
        """Numbers of the pictures in a shard."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.pictures))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"classes": list(self.classes)}


def make_plan(
    source: PictureSource,
    size: int,
    crop: Crop = "center",
    channels: int | None = None,
    encoder: LatentEncoder | None = None,
    images: bool = True,
    shard_rows: int | None = None,
) -> Plan:
    """The plan for a source. channels: 1 or 3; None is 1 if pictures of the source are grey, and 3 with a VAE.

    shard_rows: None makes at least 64 shards of what has 16,384 pictures or more, and none above 512 MB.
    """
    if channels is None:
        channels = 1 if encoder is None and all_grey(source) else 3
    if encoder is not None:
        encoder.check(size, channels)
    if encoder is None and not images:
        raise UserError("--no-images without --vae would keep nothing: leave one of them out")
    vae = encoder.describe(size) if encoder else None
    if shard_rows is None:
        row = sum(width * (1 if name == "image" else 2) for name, width in widths(size, channels, images, vae).items())
        shard_rows = max(1, min(SHARD_BYTES // row, max(256, math.ceil(len(source) / 64))))
    listing = hashlib.sha256()
    for name, label in zip(source.names, source.labels.tolist(), strict=True):
        listing.update(f"{label} {name}\0".encode())
    return Plan(
        FORMAT, len(source), listing.hexdigest()[:16], source.class_names, size, channels, crop, images,
        vae, shard_rows,
    )  # fmt: skip


def all_grey(source: PictureSource) -> bool:
    """Whether the pictures are grey, by the headers of up to 64 of them, evenly spread."""
    count = min(PEEKED, len(source))
    seen = []
    for k in range(count):
        with contextlib.suppress(Exception):  # broken ones are found and named when they are decoded
            seen.append(is_grey(source.read(k * len(source) // count)))
    return bool(seen) and all(seen)


def prepare(
    source: PictureSource,
    dest: Path,
    plan: Plan,
    encoder: LatentEncoder | None = None,
    *,
    max_broken: float = 0.01,
    threads: int = 4,
    processes: Processes | None = None,
    quiet: bool = False,
) -> bool:
    """Write this process's shards of the plan that are not there yet; True if DEST is then complete.

    max_broken: the share of pictures that may be left out. Raises UserError if more are broken (DEST/report.json
    names them), if a class is left without a picture, or if DEST holds something else.
    """
    arrow()  # or its absence would be noticed after much work
    if begun(dest, plan):
        return True
    processes = processes or Processes()
    rank = processes.rank
    with locked(dest, rank):
        publish(dest, "work/plan.json", json.dumps(plan.to_dict()), rank)
        mine = missing(dest, plan, processes)
        progress = None if quiet or not mine else Progress(0, sum(len(plan.span(k)) for k in mine), 1, "picture")
        with contextlib.closing(read_all(source, plan, mine, threads)) as pictures:
            coming = shown(pictures, progress)
            for k in mine:
                skipped = write_shard(source, dest, plan, k, coming, encoder)
                if skipped:
                    so_far = [read_json(r) for n in range(plan.shards) if (r := record(dest, n)).exists()]
                    stop_if_broken(dest, report(source, plan, so_far), max_broken, rank)
        if progress:
            progress.close()
        return finish(source, dest, plan, encoder, max_broken, rank)


def missing(dest: Path, plan: Plan, processes: Processes) -> list[int]:
    """The shards that this process is to write. After an attempt that found too much broken, which left a report, also
    those with broken pictures: by now they may have been mended."""
    again = (dest / "report.json").exists()

    def finished(k: int) -> bool:
        if again and record(dest, k).exists() and read_json(record(dest, k))["skipped"]:
            record(dest, k).unlink()
        return record(dest, k).exists()

    return unfinished(plan.shards, processes, finished)


def shown(pictures: Iterator[Picture | BrokenError], progress: Progress | None) -> Iterator[Picture | BrokenError]:
    """The same pictures, with a line about how far they are."""
    for done, picture in enumerate(pictures, 1):
        if progress:
            progress.update(done)
        yield picture


def write_shard(
    source: PictureSource,
    dest: Path,
    plan: Plan,
    k: int,
    pictures: Iterator[Picture | BrokenError],
    encoder: LatentEncoder | None,
) -> int:
    """Write shard k from the pictures that come next, and its record; returns how many of them are broken."""
    shard = Shard(plan.columns, len(plan.span(k)), encoder)
    skipped = []
    for i in plan.span(k):
        made = next(pictures)
        if isinstance(made, Picture):
            shard.add(source.names[i], int(source.labels[i]), made)
        else:
            skipped.append({"name": source.names[i], "reason": str(made)})
    path = dest / shard_name(k, plan.shards)
    shard.write(path, plan.classes)
    said = {
        "file": path.name,
        "rows": len(shard),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "skipped": skipped,
    }
    write_text(record(dest, k), json.dumps(said | shard.counts()))
    return len(skipped)


def read_all(
    source: PictureSource, plan: Plan, shards: list[int], threads: int
) -> Generator[Picture | BrokenError, None, None]:
    """The pictures of these shards, decoded in threads ahead of their use: each one, or why it is none."""

    def load(i: int) -> Picture | BrokenError:
        try:
            return to_picture(source.read(i), plan.size, plan.channels, plan.crop)
        except BrokenError as error:
            return error
        except MemoryError:
            raise
        except Exception as error:  # one file that cannot be read, whatever the reason, is one broken picture
            return BrokenError(f"cannot be read: {getattr(error, 'strerror', None) or error}"[:120])

    return prefetch(load, (i for k in shards for i in plan.span(k)), threads, 4 * threads)


def begun(dest: Path, plan: Plan) -> bool:
    """Whether DEST is complete; False if it is to be begun or gone on with. Raises UserError if it is something else."""
    if (dest / "catgan.json").exists():
        check_same(dest, read_json(dest / "catgan.json"), plan, "has been prepared")
        return True
    if (dest / "work" / "plan.json").exists():
        check_same(dest, read_json(dest / "work" / "plan.json"), plan, "was begun")
    elif dest.exists() and (not dest.is_dir() or any(p.name != "work" and p.name[0] != "." for p in dest.iterdir())):
        raise UserError(f"{dest} exists and is no preparation of catgan: choose another DEST or an empty folder")
    return False


def check_same(dest: Path, stored: dict[str, Any], plan: Plan, how: str) -> None:
    for name, value in plan.to_dict().items():
        if stored.get(name) != value:
            raise UserError(
                f"{dest} {how} with another {name} ({str(stored.get(name))[:60]}, not {str(value)[:60]}): "
                "use the same source and options, delete it, or choose another DEST"
            )


@contextlib.contextmanager
def locked(dest: Path, rank: int) -> Iterator[None]:
    """Keep a second process of this rank out of DEST. The lock goes with the process, however that ends."""
    import fcntl

    try:
        (dest / "work").mkdir(parents=True, exist_ok=True)
        file = (dest / "work" / f"lock-{rank}").open("w")
    except OSError as error:
        raise UserError(f"cannot write to {dest}: {error.strerror}; choose another DEST") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{dest} is being prepared by another process: wait for it, or stop it") from None
        except OSError:
            pass  # a file system without locks
        yield


def record(dest: Path, shard: int) -> Path:
    return dest / "work" / f"shard-{shard:05d}.json"


def publish(dest: Path, name: str, text: str, rank: int) -> None:
    """Write a file that several processes may write at once, with the same text."""
    own = dest / f".rank-{rank}.json"
    write_text(own, text)
    os.replace(own, dest / name)


def report(source: PictureSource, plan: Plan, records: list[dict[str, Any]]) -> dict[str, Any]:
    """What became of every file, as far as the records go."""
    skipped = [entry for r in records for entry in r["skipped"]]
    rows: Counter[int] = Counter()
    changes: Counter[str] = Counter()
    for r in records:
        rows.update({int(label): count for label, count in r["labels"].items()})
        changes.update(r["changes"])
    return {
        "source": source.where,
        "complete": len(records) == plan.shards,
        "pictures": plan.pictures,
        "rows": sum(r["rows"] for r in records),
        "rows_per_class": {f"{k} {name}": rows[k] for k, name in enumerate(plan.classes)},
        "changes": dict(sorted(changes.items())),
        "skipped": len(skipped),
        "skipped_by_reason": dict(sorted(Counter(entry["reason"] for entry in skipped).items())),
        "skipped_files": skipped,
        "ignored": source.ignored,
        "empty_folders": list(source.empty),
    }


def stop_if_broken(dest: Path, said: dict[str, Any], max_broken: float, rank: int) -> None:
    """Raise UserError, with the report written, if too many pictures are broken."""
    if said["skipped"] > max_broken * said["pictures"]:
        publish(dest, "report.json", json.dumps(said, indent=2) + "\n", rank)
        first = said["skipped_files"][0]
        raise UserError(
            f"{said['skipped']} of {said['pictures']} pictures cannot be used, the first {first['name']} ({first['reason']}): "
            f"all are in {dest / 'report.json'}; mend them and call it again, or allow more with --max-broken"
        )


def finish(
    source: PictureSource, dest: Path, plan: Plan, encoder: LatentEncoder | None, max_broken: float, rank: int
) -> bool:
    """Write what DEST says of itself if no shard is missing; True if it is complete."""
    try:
        records = [json.loads(record(dest, k).read_text("utf-8")) for k in range(plan.shards)]
    except FileNotFoundError:  # others are still at work, or one of them was the last, and has tidied up
        complete = (dest / "catgan.json").exists()
        if complete:
            shutil.rmtree(dest / "work", ignore_errors=True)
        return complete
    said = report(source, plan, records)
    stop_if_broken(dest, said, max_broken, rank)
    publish(dest, "report.json", json.dumps(said, indent=2) + "\n", rank)
    rows = Counter(label for r in records for label in map(int, r["labels"]))
    for k, name in enumerate(plan.classes):
        if not rows[k]:
            raise UserError(
                f"no picture of class {name} can be used ({dest / 'report.json'} says why): mend them and call it again, or remove them and choose another DEST"
            )
    shards = [{name: r[name] for name in ("file", "rows", "bytes")} for r in records]
    files = dataset_files(plan.columns, plan.classes, [r["file"] for r in records])
    # The last of them is what says that all is there.
    where = {"source": source.where, "vae_path": encoder.path if encoder else None}
    digests = {r["file"]: r.get("sha256") or sha256(dest / r["file"]) for r in records}
    files["catgan.json"] = plan.to_dict() | where | {"samples": said["rows"], "shards": shards, "digests": digests}
    for name, content in files.items():
        publish(dest, name, json.dumps(content, indent=2) + "\n", rank)
    shutil.rmtree(dest / "work", ignore_errors=True)
    return True
