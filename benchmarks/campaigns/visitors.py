"""The studio under many pages at once, for an hour: does everyone get the right pictures, and does it stay as it was?

Each page does as a person with it would: drags sliders, looks at seeds and walks, waits, projects a picture, saves a film,
sends nonsense, closes properly or not, and comes back.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import http.client
import io
import json
import random
import shutil
import time
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image
from studio_process import StudioProcess, asked
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

import catgan
from campaigns.journal import Journal, Row
from campaigns.watching import held, look, of_longest
from catgan.sampling.pipeline import CATPipeline
from catgan.studio.protocol import unpacked

MODELS = ("digits", "fashion-mnist")
EVERY = 5.0  # seconds between two looks
WARM = 300.0  # seconds after which memory counts
PATIENCE = 60.0  # seconds that an answer may take
CHECKED = 0.05  # share of answers that are compared with the pipeline's
NONSENSE = (b"", b"[]", b"{", b"\xff\xfe", b'{"id": -1}', b'{"id": 1, "panel": "sample", "points": [{"seed": 1e99}]}')
GONE = (ConnectionClosed, ConnectionError, TimeoutError, http.client.HTTPException, OSError)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=60.0, help="how long")
    parser.add_argument("--clients", type=int, default=20, help="pages at once")


def campaign(o: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    """Serve, visit, look."""
    folder = o.runs / "studio"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "temporary").mkdir(parents=True)
    # PyTorch's compiler makes a folder for what serves later programs too.
    environment = {"TMPDIR": str(folder / "temporary"), "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
    with (folder / "said.txt").open("w") as errors:
        studio = StudioProcess(*MODELS, environment=environment, errors=errors)
        studio.start()
        try:
            asyncio.run(visited(o, journal, studio))
            code = studio.process.poll()
        finally:
            ended = studio.stop()
    left = sorted(str(p.relative_to(folder / "temporary")) for p in (folder / "temporary").rglob("*"))
    said = (folder / "said.txt").read_text()
    faults = [f"the studio ended with {code}"] if code is not None else []
    faults += [f"SIGTERM ended it with {ended}"] if ended not in (0, -15, 143) else []
    faults += [f"it left {left[:3]}"] if left else []
    faults += [f"it said {said[-300:]!r}"] if said else []
    return found(list(journal.rows.values()), o.clients, faults)


async def visited(o: argparse.Namespace, journal: Journal, studio: StudioProcess) -> None:
    """Send the visitors, and note every few seconds what they saw and what the studio holds."""
    began, noted = time.monotonic(), Noted()
    end = began + 60 * o.minutes
    pipes = [catgan.load(name) for name in MODELS]
    guests = [
        Visitor(studio.port, pipes, noted, random.Random(f"{journal.seed} {number}")).come_and_go(end)
        for number in range(o.clients)
    ]
    coming = asyncio.gather(*guests)
    pid = studio.process.pid
    while studio.process.poll() is None and not coming.done():
        since = time.monotonic()
        await asyncio.sleep(min(EVERY, max(0.1, end - since)))
        if studio.process.poll() is None:
            now = time.monotonic()
            seen = look(pid) | {"at": round(now - began, 1), "seconds": round(now - since, 2)}
            journal.note(f"{pid}-{len(journal.rows)}", **seen, **noted.taken())
    if studio.process.poll() is not None:
        coming.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await coming


class Noted:
    """What visitors saw since somebody asked."""

    def __init__(self) -> None:
        self.taken()

    def taken(self) -> Row:
        """All of it, which is then forgotten."""
        row = dict(vars(self))
        self.counts, self.milliseconds, self.wrong = Counter[str](), list[int](), list[str]()
        return row


class Visitor:
    """A page, and who sits before it."""

    def __init__(self, port: int, pipes: list[CATPipeline], noted: Noted, chance: random.Random) -> None:
        self.port, self.pipes, self.noted, self.chance = port, pipes, noted, chance
        self.number = 0

    async def come_and_go(self, end: float) -> None:
        """Visits until the end, each with a page of its own."""
        origin = f"http://127.0.0.1:{self.port}"
        acts = (self.drag, self.seeds, self.walk, self.truncation, self.nonsense, self.film, self.project)
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self.chance.uniform(0, 5)))
            closing = min(end, time.monotonic() + self.chance.uniform(10, 120))
            try:
                status, _ = await self.http("GET", "/models.json")
                self.expect(status == 200, f"models.json: {status}")
                async with connect(
                    f"ws://127.0.0.1:{self.port}/pictures", origin=origin, max_size=None, compression=None  # type: ignore[arg-type]
                ) as socket:  # fmt: skip
                    self.noted.counts["pages"] += 1
                    while time.monotonic() < closing:
                        (act,) = self.chance.choices(acts, (8, 3, 3, 2, 1, 0.4, 0.4))
                        await act(socket)
                        await asyncio.sleep(self.chance.uniform(0.5, 6))
                    if self.chance.random() < 0.3:
                        socket.transport.abort()
                        self.noted.counts["left without goodbye"] += 1
            except GONE as error:
                self.expect(False, f"{type(error).__name__}: {error}")

    def expect(self, true: bool, what: str) -> None:
        if not true:
            self.noted.wrong.append(what[:300])

    def point(self, model: int) -> dict[str, Any]:
        label = self.chance.randrange(self.pipes[model].config.sample.classes)
        return {"label": label, "seed": self.chance.randrange(10**9), "psi": round(self.chance.random(), 3)}

    # -- what is done ------------------------------------------------------------------------------------------------

    async def drag(self, socket: ClientConnection) -> None:
        """A slider that moves for some seconds: the next picture is asked for when one has come, 30 in a second at most."""
        model, until = self.model(), time.monotonic() + self.chance.uniform(0.5, 4)
        point, stages = self.point(model), self.chance.random() < 0.7
        while time.monotonic() < until:
            since = time.monotonic()
            point["psi"] = round(self.chance.random(), 3)
            await self.pictures(socket, "sample", model, [point], stages=stages)
            await asyncio.sleep(max(0.0, 1 / 30 - (time.monotonic() - since)))

    async def seeds(self, socket: ClientConnection) -> None:
        model = self.model()
        await self.pictures(socket, "seeds", model, [self.point(model) for _ in range(20)])

    async def truncation(self, socket: ClientConnection) -> None:
        model = self.model()
        point = self.point(model)
        await self.pictures(socket, "truncation", model, [point | {"psi": k / 8} for k in range(9)])

    async def walk(self, socket: ClientConnection) -> None:
        model = self.model()
        point, to = self.point(model), self.point(model)
        for k in range(self.chance.randint(5, 40)):
            await self.pictures(socket, "walk", model, [point], to=to, at=k / 40)

    async def nonsense(self, socket: ClientConnection) -> None:
        message = self.chance.choice(NONSENSE)
        await socket.send(message.decode() if message.isascii() else message)
        answer = await asyncio.wait_for(socket.recv(), PATIENCE)
        refused = isinstance(answer, str) and set(json.loads(answer)) >= {"error"}
        self.expect(refused, f"{message!r} was answered by {answer[:100]!r}")
        self.noted.counts["nonsense, refused"] += 1

    async def film(self, socket: ClientConnection) -> None:
        model, kind = self.model(), self.chance.choice(("gif", "webp"))
        points = [self.point(model) for _ in range(self.chance.randint(2, 4))]
        wanted = {"points": points, "model": model, "format": kind, "seconds": 0.5, "rate": 20}
        status, body = await self.http("POST", "/film", json.dumps(wanted).encode())
        if busy(status, body):
            self.noted.counts["asked to come later"] += 1
            return
        self.expect(status == 200, f"a film: {status} {body[:100]!r}")
        if status == 200:
            frames = getattr(Image.open(io.BytesIO(body)), "n_frames", 1)
            self.expect(1 < frames <= 10 * len(points), f"a film has {frames} frames")
        self.noted.counts["films"] += 1

    async def project(self, socket: ClientConnection) -> None:
        """Project a picture, or close it on the way."""
        model = self.model()
        buffer = io.BytesIO()
        noise = np.random.default_rng(self.chance.randrange(2**32)).integers(0, 255, (28, 28), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, self.chance.choice(("PNG", "JPEG", "BMP")))
        leaves = self.chance.random() < 0.3
        path = f"/project?model={model}&steps={self.chance.randint(10, 40)}"
        status, body = await self.http("POST", path, buffer.getvalue(), part=200 if leaves else None)
        if leaves:
            self.noted.counts["projections that were left"] += 1
            return
        last = json.loads(body.splitlines()[-1]) if body else {}
        if busy(status, body) or busy(400, json.dumps(last).encode()):
            self.noted.counts["asked to come later"] += 1
            return
        self.expect(status == 200 and "result" in last, f"a projection: {status} {str(last)[:100]}")
        if "result" in last:
            w = np.frombuffer(base64.b64decode(last["result"]["w"]), "<f4")
            self.expect(w.shape == (self.pipes[model].generator.width,) and bool(np.isfinite(w).all()), "a bad style")
        self.noted.counts["projections"] += 1

    # -- how it is asked ---------------------------------------------------------------------------------------------

    def model(self) -> int:
        return self.chance.randrange(len(self.pipes))

    async def pictures(
        self, socket: ClientConnection, panel: str, model: int, points: list[dict[str, Any]], **more: Any
    ) -> None:
        """Ask for pictures, wait for them, and look at them."""
        self.number += 1
        wanted = {"id": self.number, "panel": panel, "model": model, "points": points, **more}
        since = time.monotonic()
        await socket.send(json.dumps(wanted))
        answer = await asyncio.wait_for(socket.recv(), PATIENCE)
        self.noted.milliseconds.append(round(1000 * (time.monotonic() - since)))
        self.noted.counts["answers"] += 1
        if isinstance(answer, str):
            self.expect(False, f"{panel} was answered by {answer[:200]}")
            return
        header, parts = unpacked(answer)
        images = parts["images"]
        s = self.pipes[model].config.sample
        self.expect((header["id"], header["model"]) == (self.number, model), f"not the answer: {header['id']}")
        self.expect(images.shape == (len(points), s.size, s.size, s.channels), f"{panel} has shape {images.shape}")
        self.noted.counts["pictures"] += len(images)
        if "to" not in more and self.chance.random() < CHECKED:
            expected = np.concatenate(
                [self.pipes[model]([p["label"]], [p["seed"]], psi=p["psi"]).array for p in points]
            )
            off = int(np.abs(expected.astype(int) - images).max())
            self.expect(off <= 1, f"{panel}: {off} grey levels from the pipeline's")
            self.noted.counts["compared"] += len(points)

    async def http(
        self, method: str, path: str, body: bytes | None = None, part: int | None = None
    ) -> tuple[int, bytes]:
        """Status and body; with `part` only so many bytes of it are read, and the connection is closed."""

        headers = {"Origin": f"http://127.0.0.1:{self.port}"}
        status, _, answer = await asyncio.to_thread(asked, self.port, method, path, body, headers, part, PATIENCE * 5)
        return status, answer


def busy(status: int, body: bytes) -> bool:
    """Whether the studio has too much to do already, and says so."""
    return status == 400 and b"try again later" in body


def found(rows: list[Row], clients: int, faults: list[str]) -> dict[str, Any]:
    """What visitors saw, and how the studio's memory went, in the process that was looked at longest."""
    longest = of_longest(rows)
    warm = [row for row in longest if row["at"] >= WARM] or longest
    at = np.array([row["at"] for row in warm]) / 600
    slope, memory = held(warm, at, f"{10 * (at[-1] - at[0]):.0f} minutes", "in ten minutes", 2)
    counts = sum((Counter(row["counts"]) for row in rows), Counter[str]())
    waited = np.array([m for row in rows for m in row["milliseconds"]] or [0])
    wrong = [w for row in rows for w in row["wrong"]]
    middle, most = np.percentile(waited, [50, 99])
    table = [
        ["", ""],
        ["minutes, pages at once", f"{sum(row['seconds'] for row in rows) / 60:.0f}, {clients}"],
        ["pages opened, left without goodbye", f"{counts['pages']:,}, {counts['left without goodbye']:,}"],
        ["answers, pictures in them", f"{counts['answers']:,}, {counts['pictures']:,}"],
        ["an answer took (median, 99th percentile)", f"{middle:.0f} ms, {most:.0f} ms"],
        ["pictures compared with the pipeline's", f"{counts['compared']:,}"],
        ["films, projections", f"{counts['films']:,}, {counts['projections']:,}"],
        ["projections that were left on the way", f"{counts['projections that were left']:,}"],
        ["nonsense, refused in a line", f"{counts['nonsense, refused']:,}"],
        ["asked to come later", f"{counts['asked to come later']:,}"],
        *memory,
        ["answers that were wrong, or did not come", f"{len(wrong):,}"],
        ["what the studio left or said", "; ".join(faults) or "nothing"],
    ]  # fmt: skip
    return {
        "table": table,
        "failed": len(wrong) + len(faults),
        "failures": wrong[:20],
        "slope": slope,
        "looks": len(rows),
    }
