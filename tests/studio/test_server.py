"""A studio at work behind a real server: who gets which answer when, and what nobody can break."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import random
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import websockets
from PIL import Image
from studio_served import Served, ask, received, serving, until

import catgan
from campaigns.mutation import odd_message, odd_upload
from catgan.cli import main
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images
from catgan.sampling.pipeline import CATPipeline, load
from catgan.studio import server as module
from catgan.studio.model import Model
from catgan.studio.protocol import MAX_MESSAGE, MAX_UPLOAD, unpacked
from catgan.studio.server import MAX_WAITING, Studio

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def picture(size: int = 12, kind: str = "PNG", mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def lines(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_pictures_are_those_of_the_pipeline(served: Served, pipe: CATPipeline) -> None:
    with served.socket() as socket:
        header, parts = ask(socket, points=[{"label": 1, "seed": 4, "psi": 0.5}], panel="seeds", id=9)
    assert (header["id"], header["panel"], header["model"], header["step"]) == (9, "seeds", 0, 7)
    np.testing.assert_array_equal(parts["images"], pipe([1], [4], psi=0.5).array)


class Slow(Model):
    """A model that takes its time."""

    seconds = 0.02

    def answer(self, request: Any) -> Any:
        time.sleep(self.seconds)
        return super().answer(request)


def test_of_many_requests_the_latest_is_answered_last_and_most_are_dropped(pipe: CATPipeline) -> None:
    with serving(Studio([Slow(pipe, "slow")])) as served, served.socket() as socket:
        for k in range(200):
            socket.send(json.dumps({"id": k, "panel": "sample", "points": [{"seed": k}]}))
        answers = []
        while not answers or answers[-1][0]["id"] != 199:
            answers.append(received(socket))
        ids = [header["id"] for header, _ in answers]
        assert ids == sorted(ids)
        assert len(ids) < 60
        np.testing.assert_array_equal(answers[-1][1]["images"], pipe([0], [199]).array)
        with pytest.raises(TimeoutError):
            socket.recv(0.3)  # nothing comes afterwards


def test_a_request_replaces_none_of_another_panel(pipe: CATPipeline) -> None:
    panels = ["sample", "seeds", "truncation", "sheet", "walk"]
    with serving(Studio([Slow(pipe, "slow")])) as served, served.socket() as socket:
        for k in range(40):
            socket.send(json.dumps({"id": k, "panel": panels[k % 5], "points": [{}]}))
        last: dict[str, int] = {}
        while sorted(last.values()) != [35, 36, 37, 38, 39]:
            header, _ = received(socket)
            last[header["panel"]] = header["id"]


def test_ten_pages_get_answers_in_turn(pipe: CATPipeline) -> None:
    """One asks for a hundred pictures at a time, one floods; the others get as many answers as those."""

    async def drags(address: str, origin: str, number: int, end: float) -> int:
        answers = 0
        async with websockets.connect(address, origin=origin, max_size=None, compression=None) as socket:  # type: ignore[arg-type]
            points = [{}] * (100 if number == 0 else 1)
            request = json.dumps({"id": number, "panel": "sample", "points": points})
            await socket.send(request)
            while time.monotonic() < end:
                for _ in range(50 if number == 1 else 1):
                    await socket.send(request)
                assert isinstance(await socket.recv(), bytes)
                answers += 1
        return answers

    async def all_at_once(served: Served) -> list[int]:
        end = time.monotonic() + 2.5
        address = f"ws://127.0.0.1:{served.port}/pictures"
        return await asyncio.gather(*(drags(address, served.origin, k, end) for k in range(10)))

    with serving(Studio([Slow(pipe, "slow")])) as served:
        counts = asyncio.run(all_at_once(served))
    assert min(counts) > 0
    assert max(counts) <= 2 * statistics.median(counts)


def test_a_sheet_of_decoded_pictures_makes_nobody_wait(latent_model: Path) -> None:
    """Between its pieces another page gets its picture; in the end the sheet is one of the same pictures."""
    pipe = load(latent_model)
    points = [{"label": k % 3, "seed": k} for k in range(30)]
    with serving(Studio([Slow(pipe, "latent")])) as served, served.socket() as large, served.socket() as small:
        large.send(json.dumps({"id": 1, "panel": "sheet", "points": points}))
        time.sleep(0.05)
        assert ask(small)[0]["id"] == 1
        with pytest.raises(TimeoutError):
            large.recv(0)
        header, parts = received(large)
    assert set(header["ms"]) == {"style", "generator", "decoder"}
    assert set(parts) == {"images"}
    alone = [pipe([p["label"]], [p["seed"]]).array[0] for p in points]
    assert np.abs(parts["images"].astype(int) - np.stack(alone)).max() <= 1


def test_plain_requests_are_answered_while_a_picture_is_made(pipe: CATPipeline) -> None:
    model = Slow(pipe, "slow")
    model.seconds = 1.0
    with serving(Studio([model])) as served, served.socket() as socket:
        socket.send(json.dumps({"id": 1, "panel": "sample", "points": [{}]}))
        time.sleep(0.1)
        began = time.monotonic()
        assert served.http("GET", "/main.js")[0] == 200
        assert time.monotonic() - began < 0.7
        assert received(socket)[0]["id"] == 1


def test_no_more_pages_than_there_is_room_for(pipe: CATPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CLIENTS", 2)
    with serving(Studio([Model(pipe, "m")])) as served:
        with served.socket() as first, served.socket() as second:
            with pytest.raises(websockets.exceptions.InvalidStatus):
                served.socket().close()
            assert ask(first)[1]
            assert ask(second)[1]
        until(lambda: not served.studio.clients)
        with served.socket() as later:
            assert ask(later)[1]


# -- what is malformed -------------------------------------------------------------------------------------------------


def test_a_malformed_message_gets_an_error_and_nobody_is_thrown_out(served: Served) -> None:
    known = json.dumps({"id": 0, "panel": "sample", "points": [{}], "model": 5})
    with served.socket() as socket, served.socket() as other:
        for bad in (
            "{",
            "[]",
            '{"id": 1}',
            b"\xff\x00",
            "[" * 100_000,
            known,
        ):
            socket.send(bad)
            said, _ = received(socket)
            assert list(said) == (["error", "id", "panel", "model"] if bad is known else ["error"])
            assert "\n" not in said["error"]
        assert ask(socket, points=[{"label": 77}]) == (
            {"error": "class is 77: must be a number from 0 to 2 or one of ant, bee, cat", "id": 1, "model": 0, "panel": "sample"}, {},
        )  # fmt: skip
        assert ask(socket)[1]
        assert ask(other)[1]
        with pytest.raises(websockets.exceptions.ConnectionClosed):  # too large to be read at all
            ask(socket, points=[{"w": "A" * MAX_MESSAGE}])
        assert ask(other)[1]


def tells_of_no_path(data: bytes) -> bool:
    places = (Path(__file__).parents[2], Path(sys.prefix), Path.home(), Path.cwd(), Path("/tmp"))
    return not any(f"{place}/".encode() in data for place in places)


def test_a_thousand_odd_messages_break_nothing(served: Served, pipe: CATPipeline) -> None:
    draws = random.Random("messages")
    with served.socket() as bystander, served.socket() as socket:
        for k in range(1000):
            socket.send(odd_message(draws))
            if k % 100 == 99:
                assert ask(bystander)[1]
        socket.send(json.dumps({"id": 12345, "panel": "walk", "points": [{"seed": 5}]}))
        while True:
            data = socket.recv(60)
            if isinstance(data, str):
                said = json.loads(data)
                assert said["error"]
                assert said["error"] != module.INTERNAL, said
                assert tells_of_no_path(data.encode())
            else:
                header, parts = unpacked(data)
                if header["id"] == 12345:
                    break
        np.testing.assert_array_equal(parts["images"], pipe([0], [5]).array)
        assert ask(bystander)[1]


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it finds
def test_hundreds_of_odd_uploads_break_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most are refused in one line; the few that are still pictures are projected."""
    monkeypatch.setattr("catgan.studio.projection.STARTS", 8)
    draws = random.Random("uploads")
    statuses = []
    with served.socket() as bystander:
        for k in range(300):
            good = picture(draws.choice([1, 9, 40]), draws.choice(FORMATS))
            status, _, body = served.http("POST", "/project?steps=10", odd_upload(draws, good))
            assert tells_of_no_path(body)
            last = lines(body)[-1]
            statuses.append("result" in last)
            assert status == 200
            if "error" in last:
                assert last["error"].startswith("picture cannot be read: "), last
            if k == 50:
                before = resident()
            if k % 50 == 0:
                assert ask(bystander)[1]
    assert resident() - before < 300 << 20
    assert 0 < sum(statuses) < 300
    assert "result" in lines(served.http("POST", "/project?steps=10", picture())[2])[-1]
    assert served.studio.waiting == 0


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/project?steps=9", b"x", "steps is 9: must be 10 to 1000"),
        ("/project?steps=1001", b"x", "steps is 1001"),
        ("/project?steps=-1", b"x", "steps is -1: must be a whole number"),
        ("/project?steps=1e3", b"x", "steps is 1e3"),
        ("/project?steps=%D9%A1%D9%A2", b"x", "must be a whole number"),
        ("/project?model=1", b"x", "model is 1: must be 0 to 0"),
        ("/project", b"0" * (MAX_UPLOAD + 1), "size of the file is more than 16 MiB"),
        ("/film", b"{}", "message is no film"),
        ("/film", json.dumps({"points": [{}] * 30, "seconds": 1, "rate": 30}).encode(), "number of frames is 900: must be at most 600"),
        ("/film", json.dumps({"points": [{}, {"label": 3}]}).encode(), "class is 3"),
        ("/film", json.dumps({"points": [{}, {}], "model": 1}).encode(), "model is 1"),
    ],
)  # fmt: skip
def test_plain_requests_that_do_not_fit_get_one_line(served: Served, path: str, body: bytes, said: str) -> None:
    status, _, data = served.http("POST", path, body)
    assert status == 400
    assert said in json.loads(data)["error"]
    assert "\n" not in json.loads(data)["error"]
    assert tells_of_no_path(data)


def test_only_the_page_and_its_parts_are_to_be_had(served: Served) -> None:
    status, headers, body = served.http("GET", "/")
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/html")
    assert b"catgan studio" in body
    for path in (
        "/../server.py",
        "/%2e%2e/server.py",
        "/..%2fserver.py",
        "//etc/passwd",
        "/page/../../guard.py",
        "/%00",
    ):
        assert served.http("GET", path)[0] in (400, 404, 405)
    about = served.http("GET", "/models.json")[2]
    assert json.loads(about)["models"][0]["label"] == "tiny"
    assert tells_of_no_path(about)


def test_strangers_are_refused_by_the_server_itself(pipe: CATPipeline) -> None:
    with serving(Studio([Model(pipe, "m")]), token="correct-horse") as served:
        for options in (
            {},
            {"origin": "http://evil.example"},
            {"additional_headers": {"Cookie": "catgan-studio=wrong"}},
        ):
            with pytest.raises(websockets.exceptions.InvalidStatus):
                served.socket(**options).close()
        status, headers, _ = served.http("GET", "/?token=correct-horse")
        assert status == 303
        cookie = headers["set-cookie"].split(";")[0]
        with served.socket(additional_headers={"Cookie": cookie}) as socket:
            assert ask(socket)[1]


# -- what takes long ---------------------------------------------------------------------------------------------------


def test_a_projection_is_told_step_by_step_and_ends_with_a_style_that_the_studio_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("catgan.studio.projection.PAUSE", 0.0)
    pipe = load("digits")
    made = Image.fromarray(pipe([3], [1000]).array[0, ..., 0])
    buffer = io.BytesIO()
    made.save(buffer, "PNG")
    with serving(Studio([Model(pipe, "digits")])) as served, served.socket() as socket:
        status, headers, body = served.http("POST", "/project?steps=150", buffer.getvalue())
        said = lines(body)
        assert (status, headers["content-type"]) == (200, "application/x-ndjson")
        assert list(said[0]) == ["target"]
        assert said[0]["target"]["shape"] == [8, 8, 1]
        done = [line["done"] for line in said[1:-1]]
        assert done == list(range(1, 181))
        assert {line["total"] for line in said[1:-1]} == {180}
        result = said[-1]["result"]
        assert result["psnr"] > 28 > result["start_psnr"]
        _, parts = ask(socket, points=[{"label": result["label"], "w": result["w"]}])
        error = np.square(parts["images"][0, ..., 0].astype(float) - np.asarray(made)).mean()
        assert 10 * np.log10(255**2 / error) == pytest.approx(result["psnr"], abs=0.5)


@pytest.fixture
def projecting(pipe: CATPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A studio whose projections take a minute, and say what they do at once."""
    monkeypatch.setattr("catgan.studio.projection.PAUSE", 0.0)
    real = module.project

    def slow(*given: Any) -> Any:
        *most, tell, stop = given

        def told(line: dict[str, Any]) -> None:
            time.sleep(0.05)
            tell(line)

        return real(*most, told, stop)

    monkeypatch.setattr(module, "project", slow)
    with serving(Studio([Model(pipe, "m")])) as made:
        yield made


def begun(served: Served) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A projection that has begun or waits: its open connection."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("POST", "/project?steps=1000", picture(), {"Origin": served.origin})
    return connection, connection.getresponse()


def test_who_leaves_ends_his_projection_within_a_second(projecting: Served) -> None:
    connection, answer = begun(projecting)
    while b"done" not in answer.readline():
        pass
    assert projecting.studio.waiting == 1
    answer.close()
    connection.close()
    left = time.monotonic()
    until(lambda: projecting.studio.waiting == 0)
    free = projecting.studio.long.submit(time.monotonic)  # the thread comes to it
    assert free.result(5) - left < 1


def test_who_waits_is_told_so_and_too_many_are_sent_away(projecting: Served) -> None:
    open_ones = [begun(projecting) for _ in range(MAX_WAITING)]
    until(lambda: projecting.studio.waiting == MAX_WAITING)
    assert json.loads(open_ones[-1][1].readline()) == {"waiting": MAX_WAITING - 1}
    for path, body in (("/project?steps=10", picture()), ("/film", json.dumps({"points": [{}, {}]}).encode())):
        status, _, data = projecting.http("POST", path, body)
        assert (status, json.loads(data)["error"]) == (
            400,
            "8 projections and films are waiting already: try again later",
        )
    with projecting.socket() as socket:  # pictures do not wait for them
        assert ask(socket, 5)[1]
    for connection, answer in open_ones:
        answer.close()
        connection.close()
    until(lambda: projecting.studio.waiting == 0)
    assert "result" in lines(projecting.http("POST", "/project?steps=10", picture())[2])[-1]


def test_pictures_come_while_others_are_projected(projecting: Served, pipe: CATPipeline) -> None:
    expected = pipe([0, 1], [3, 4]).array
    connection, answer = begun(projecting)
    with projecting.socket() as socket:
        for _ in range(30):
            _, parts = ask(socket, points=[{"seed": 3}, {"label": 1, "seed": 4}])
            np.testing.assert_array_equal(parts["images"], expected)
    assert projecting.studio.waiting == 1
    answer.close()
    connection.close()


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_walk_is_saved_as_a_file(served: Served, pipe: CATPipeline, kind: str) -> None:
    film = {"points": [{"seed": 1}, {"label": 2, "seed": 2}], "format": kind, "seconds": 0.5, "rate": 10}
    status, headers, data = served.http("POST", "/film", json.dumps(film))
    assert (status, headers["content-type"]) == (200, f"image/{kind}")
    assert headers["content-disposition"] == f'attachment; filename="walk.{kind}"'
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.n_frames == 10
        first = np.asarray(opened.convert("L"))[::32, ::32]
    np.testing.assert_array_equal(first, pipe([0], [1]).array[0, ..., 0])


# -- following a run ---------------------------------------------------------------------------------------------------


@pytest.fixture
def train(tiny_config: Config, tmp_path: Path) -> Callable[[int], Path]:
    """Trains a run, at first or further, to so many steps."""
    data = Images(
        np.random.default_rng(0).uniform(-1, 1, (9, 1, 8, 8)).astype(np.float32), np.arange(9) % 3, ("a", "b", "c")
    )

    def to(steps: int) -> Path:
        config = from_dict({"training": {"steps": steps}}, tiny_config)
        return catgan.train(config, tmp_path / "run", dataset=data, quiet=True, resume=steps > 2)

    return to


def test_a_new_checkpoint_is_loaded_and_every_page_is_told(
    train: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.05)
    run = train(2)
    (first,) = (run / "checkpoints").iterdir()
    loads: list[int] = []

    def newest(number: int) -> CATPipeline:
        loads.append(number)
        return load((run, first)[number])

    studio = Studio([Model(load(run), "run"), Model(load(first), "its first checkpoint")], newest)
    with serving(studio) as served, served.socket() as one, served.socket() as other:
        assert ask(one)[0]["step"] == 2
        time.sleep(0.3)
        assert not loads
        train(4)
        for socket in (one, other):
            told, _ = received(socket)
            assert [m["step"] for m in told["models"]] == [4, 2]
            assert told["following"] is True
        header, parts = ask(one, points=[{"seed": 6}])
        assert header["step"] == 4
        np.testing.assert_array_equal(parts["images"], load(run)([0], [6]).array)
        assert ask(other, model=1)[0]["step"] == 2
        time.sleep(0.3)
        assert sorted(loads) == [0, 1]  # each looked at once


def test_a_checkpoint_that_cannot_be_loaded_ends_nothing(
    train: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.05)
    run = train(2)
    broken = threading.Event()

    def newest(number: int) -> CATPipeline:
        if not broken.is_set():
            broken.set()
            raise RuntimeError("damaged")
        return load(run)

    with serving(Studio([Model(load(run), "run")], newest)) as served, served.socket() as socket:
        train(4)
        assert received(socket)[0]["models"][0]["step"] == 4
    assert broken.is_set()
    assert "a new checkpoint could not be loaded" in caplog.text


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_one_line(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studio", "digits", "--port", str(served.port)]) == 2
    said = capsys.readouterr().err
    assert f"cannot listen at port {served.port} of 127.0.0.1" in said
    assert "choose another with --port" in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--host", "no.such.host.invalid"), "--host is no.such.host.invalid: must be an address of this machine"),
        (("--port", "65536"), "--port is 65536: must be 0 to 65535"),
        (("--token", "short"), "length of --token is 5: must be at least 8"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    argv: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["studio", "digits", *argv]) == 2
    assert said in capsys.readouterr().err


class Missing(MetaPathFinder):
    """As if a package were not installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, *_: object) -> None:
        if name == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "websockets", "msgspec"])
def test_a_missing_extra_is_one_line(
    package: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, package)
    monkeypatch.setattr(sys, "meta_path", [Missing(package), *sys.meta_path])
    assert main(["studio", "digits"]) == 2
    said = capsys.readouterr().err
    assert f"catgan studio needs {package}, which is not installed: pip install 'catgan[studio]'" in said
    assert len(said.strip().splitlines()) == 1
    assert torch.get_num_threads() == 1
