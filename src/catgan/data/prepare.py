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
import shutil
from collections import Counter
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from catgan.data.crop import Crop
from catgan.data.decode import BrokenError, Picture, is_grey, to_picture, with_jpeg
from catgan.data.encode import LatentEncoder
from catgan.data.listing import PictureSource
from catgan.data.prefetch import prefetch
from catgan.data.prepared import FORMAT, FORMAT_JPEG, arrow, widths
from catgan.data.shards import Shard, dataset_files, shard_name
from catgan.errors import UserError
from catgan.system.files import read_json, sha256, write_shared, write_text
from catgan.system.lock import exclusive
from catgan.system.pieces import check_same, unfinished
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
    jpeg: int | None = None  # quality of the JPEG files that are kept in place of pixels

    @property
    def columns(self) -> dict[str, int]:
        """`widths` of what is kept."""
        return widths(self.size, self.channels, self.images and self.jpeg is None, self.vae)

    @property
    def shards(self) -> int:
        return math.ceil(self.pictures / self.shard_rows)

    def span(self, shard: int) -> range:
        """Numbers of the pictures in a shard."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.pictures))

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self) | {"classes": list(self.classes)}
        return values | {"format": values.pop("format")}  # the last to be compared, as it follows from the others


def make_plan(
    source: PictureSource,
    size: int,
    crop: Crop = "center",
    channels: int | None = None,
    encoder: LatentEncoder | None = None,
    images: bool = True,
    shard_rows: int | None = None,
    jpeg: int | None = None,
) -> Plan:
    """The plan for a source. channels: 1 or 3; None is 1 if pictures of the source are grey, and 3 with a VAE.

    jpeg: quality of JPEG files to keep in place of pixels. shard_rows: None makes at least 64 shards of what has 16,384
    pictures or more, and none above 512 MB.
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
        FORMAT if jpeg is None else FORMAT_JPEG, len(source), listing.hexdigest()[:16], source.class_names, size, channels, crop, images,
        vae, shard_rows, jpeg,
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
        shutil.rmtree(dest / "work", ignore_errors=True)  # a kill in the end may have left some of it
        return True
    processes = processes or Processes()
    taken = f"{dest} is being prepared by another process: wait for it, or stop it"
    with exclusive(dest / "work" / f"lock-{processes.rank}", taken=taken):
        return Preparation(source, dest, plan, encoder, max_broken, processes).run(threads, quiet)


class Preparation:
    """One process at work on DEST."""

    def __init__(
        self,
        source: PictureSource,
        dest: Path,
        plan: Plan,
        encoder: LatentEncoder | None,
        max_broken: float,
        processes: Processes,
    ) -> None:
        self.source, self.dest, self.plan, self.encoder = source, dest, plan, encoder
        self.max_broken, self.processes = max_broken, processes

    def run(self, threads: int, quiet: bool) -> bool:
        """Write the shards that this process is to write; True if DEST is then complete."""
        self.publish("work/plan.json", self.plan.to_dict())
        mine = self.missing()
        progress = Progress(0, sum(len(self.plan.span(k)) for k in mine), 1, "picture", quiet or not mine)
        with contextlib.closing(self.read(mine, threads)) as pictures:
            for k in mine:
                rows = len(self.plan.span(k))
                shard, skipped = Shard(self.plan.columns, rows, self.encoder, self.plan.jpeg is not None), []
                for i in self.plan.span(k):
                    made, name = next(pictures), self.source.names[i]
                    if isinstance(made, Picture):
                        shard.add(name, int(self.source.labels[i]), made)
                    else:
                        skipped.append({"name": name, "reason": str(made)})
                    progress.advance(1)
                self.write(k, shard, skipped)
        progress.close()
        return self.finish()

    def missing(self) -> list[int]:
        """The shards that this process is to write. After an attempt that found too much broken, which left a report,
        also those with broken pictures: by now they may have been mended."""
        again = (self.dest / "report.json").exists()

        def finished(k: int) -> bool:
            if again and self.record(k).exists() and read_json(self.record(k))["skipped"]:
                self.record(k).unlink()
            return self.record(k).exists()

        return unfinished(self.plan.shards, self.processes, finished)

    def read(self, shards: list[int], threads: int) -> Generator[Picture | BrokenError, None, None]:
        """The pictures of these shards, decoded in threads ahead of their use: each one, or why it is none."""

        def load(i: int) -> Picture | BrokenError:
            try:
                picture = to_picture(self.source.read(i), self.plan.size, self.plan.channels, self.plan.crop)
                return picture if self.plan.jpeg is None else with_jpeg(picture, self.plan.jpeg)
            except BrokenError as error:
                return error
            except MemoryError:
                raise
            except Exception as error:  # one file that cannot be read, whatever the reason, is one broken picture
                return BrokenError(f"cannot be read: {getattr(error, 'strerror', None) or error}"[:120])

        return prefetch(load, (i for k in shards for i in self.plan.span(k)), threads, 4 * threads)

    def write(self, k: int, shard: Shard, skipped: list[dict[str, str]]) -> None:
        """Write shard k and its record. Raises UserError if too many pictures are broken by now."""
        path = self.dest / shard_name(k, self.plan.shards)
        shard.write(path, self.plan.classes)
        size = {"file": path.name, "rows": len(shard), "bytes": path.stat().st_size, "sha256": sha256(path)}
        write_text(self.record(k), json.dumps(size | {"skipped": skipped} | shard.counts()))
        if skipped:
            so_far = (self.record(n) for n in range(self.plan.shards))
            self.stop_if_broken(self.report([read_json(r) for r in so_far if r.exists()]))

    def record(self, shard: int) -> Path:
        return self.dest / "work" / f"shard-{shard:05d}.json"

    def publish(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file that several processes may write at once, with the same content."""
        write_shared(self.dest / name, json.dumps(content, indent=2) + "\n", self.processes.rank)

    def report(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """What became of every file, as far as the records go."""
        skipped = [entry for r in records for entry in r["skipped"]]
        rows: Counter[int] = Counter()
        changes: Counter[str] = Counter()
        for r in records:
            rows.update({int(label): count for label, count in r["labels"].items()})
            changes.update(r["changes"])
        return {
            "source": self.source.where,
            "complete": len(records) == self.plan.shards,
            "pictures": self.plan.pictures,
            "rows": sum(r["rows"] for r in records),
            "rows_per_class": {f"{k} {name}": rows[k] for k, name in enumerate(self.plan.classes)},
            "changes": dict(sorted(changes.items())),
            "skipped": len(skipped),
            "skipped_by_reason": dict(sorted(Counter(entry["reason"] for entry in skipped).items())),
            "skipped_files": skipped,
            "ignored": self.source.ignored,
            "empty_folders": list(self.source.empty),
        }

    def stop_if_broken(self, report: dict[str, Any]) -> None:
        """Raise UserError, with the report written, if too many pictures are broken."""
        if report["skipped"] > self.max_broken * report["pictures"]:
            self.publish("report.json", report)
            first = report["skipped_files"][0]
            raise UserError(
                f"{report['skipped']} of {report['pictures']} pictures cannot be used, the first {first['name']} ({first['reason']}): "
                f"all are in {self.dest / 'report.json'}; mend them and call it again, or allow more with --max-broken"
            )

    def finish(self) -> bool:
        """Write what DEST says of itself if no shard is missing; True if it is complete."""
        try:
            records = [json.loads(self.record(k).read_text("utf-8")) for k in range(self.plan.shards)]
        except FileNotFoundError:  # others are still at work, or one of them was the last, and has tidied up
            complete = (self.dest / "catgan.json").exists()
        else:
            complete = True
            self.describe(records)
        if complete:
            shutil.rmtree(self.dest / "work", ignore_errors=True)
        return complete

    def describe(self, records: list[dict[str, Any]]) -> None:
        """Write the report and all that stands beside the shards, catgan.json last."""
        report = self.report(records)
        self.stop_if_broken(report)
        self.publish("report.json", report)
        for name, rows in zip(self.plan.classes, report["rows_per_class"].values(), strict=True):
            if not rows:
                raise UserError(
                    f"no picture of class {name} can be used ({self.dest / 'report.json'} says why): mend them and call "
                    "it again, or remove them and choose another DEST"
                )
        shards = [{name: r[name] for name in ("file", "rows", "bytes")} for r in records]
        where = {"source": self.source.where, "vae_path": self.encoder.path if self.encoder else None}
        digests = {r["file"]: r.get("sha256") or sha256(self.dest / r["file"]) for r in records}
        for name, content in dataset_files(
            self.plan.columns, self.plan.classes, list(digests), self.plan.jpeg is not None
        ).items():
            self.publish(name, content)
        made = {"samples": report["rows"], "shards": shards, "digests": digests}
        self.publish("catgan.json", self.plan.to_dict() | where | made)


def begun(dest: Path, plan: Plan) -> bool:
    """Whether DEST is complete; False if it is to be begun or gone on with. Raises UserError if it is something else."""
    for name, how in (("catgan.json", "has been prepared"), ("work/plan.json", "was begun")):
        if (dest / name).exists():
            todo = "use the same source and options, delete it, or choose another DEST"
            check_same(read_json(dest / name), plan.to_dict(), f"{dest} {how}", todo)
            return name == "catgan.json"
    if dest.exists() and (not dest.is_dir() or any(p.name != "work" and p.name[0] != "." for p in dest.iterdir())):
        raise UserError(f"{dest} exists and is no preparation of catgan: choose another DEST or an empty folder")
    return False
