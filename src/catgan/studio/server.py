"""The studio's server: a page, a WebSocket that pictures come through, projections and films.

One thread computes pictures, another what takes long. A client has one request at most in the first one's queue, so all get
answers in turn; of those that wait, the latest of its kind replaces the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from catgan.checkpoint.export import found
from catgan.errors import UserError, require
from catgan.sampling.pipeline import CATPipeline
from catgan.studio import PAGE
from catgan.studio.guard import Guard
from catgan.studio.model import Model, joined
from catgan.studio.movies import MEDIA, formats, movie
from catgan.studio.projection import StoppedError, project
from catgan.studio.protocol import MAX_FRAMES, MAX_UPLOAD, Film, Request, packed, read, sender
from catgan.version import __version__

MAX_CLIENTS = 64
MAX_WAITING = 8  # projections and films
STEPS = (10, 1000)  # of a projection
LOOK = 2.0  # seconds between two looks for a new checkpoint

T = TypeVar("T")
log = logging.getLogger("catgan.studio")


class Studio:
    """Models, and the threads that compute with them."""

    def __init__(self, models: Sequence[Model], follow: Callable[[int], CATPipeline] | None = None) -> None:
        """follow: loads the newest checkpoint of a model by its number; None follows nothing."""
        self.models, self.follow = list(models), follow
        self.clients: set[Client] = set()
        self.pictures = ThreadPoolExecutor(1, "pictures")
        self.long = ThreadPoolExecutor(1, "long")
        self.waiting = 0
        self.filming = asyncio.Lock()  # the frames of one film are in memory
        self.looked_at: dict[int, Path] = {}  # the newest checkpoint of a followed model that was loaded

    def about(self) -> dict[str, Any]:
        """What the page is told first."""
        return {
            "engine": "server",
            "catgan": __version__,
            "models": [model.about for model in self.models],
            "formats": formats(),
            "following": self.follow is not None,
        }

    async def run(self, thread: ThreadPoolExecutor, function: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, functools.partial(function, *given))

    def model(self, number: int) -> Model:
        require(number < len(self.models), "model", number, f"0 to {len(self.models) - 1}")
        return self.models[number]

    @contextlib.contextmanager
    def in_line(self) -> Any:
        """A place among those that wait for the long thread. Raises UserError if too many do."""
        if self.waiting >= MAX_WAITING:
            raise UserError(f"{self.waiting} projections and films are waiting already: try again later")
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def watch(self) -> None:
        """Load new checkpoints, and tell all clients."""
        while self.follow is not None:
            await asyncio.sleep(LOOK)
            try:
                renewed = [number for number in range(len(self.models)) if await self.renewed(number)]
            except (UserError, OSError):  # in the middle of being written or deleted
                continue
            except Exception:
                log.exception("a new checkpoint could not be loaded")
                continue
            if renewed:
                await self.tell_all()

    async def renewed(self, number: int) -> bool:
        """Load a model's newest checkpoint, if it has another one by now. One named by its checkpoint stays at it."""
        model = self.models[number]
        run, source = model.pipe.run, model.pipe.source
        newest = None if run is None else await self.run(self.long, found, run)
        if self.follow is None or newest is None or newest in (source, self.looked_at.get(number)):
            return False
        newer = Model(await self.run(self.long, self.follow, number), model.label)
        await self.run(self.long, lambda: newer.about)
        self.models[number], self.looked_at[number] = newer, newest
        return newer.pipe.source != source

    async def tell_all(self) -> None:
        """Tell every client what the models are, and wait a while for those that are slow to hear."""
        telling = [asyncio.create_task(client.tell(self.about())) for client in self.clients]
        if telling:
            await asyncio.wait(telling, timeout=LOOK)

    def close(self) -> None:
        for thread in (self.pictures, self.long):
            thread.shutdown(wait=False, cancel_futures=True)


class Client:
    """One open page."""

    def __init__(self, studio: Studio, socket: WebSocket) -> None:
        self.studio, self.socket = studio, socket
        self.wanted: dict[tuple[str, int], Request] = {}  # by panel and model, in the order that they are answered
        self.some = asyncio.Event()
        self.sending = asyncio.Lock()

    async def listen(self) -> None:
        """Take requests until the page is closed. What is malformed is answered by what is wrong with it."""
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("text") or message.get("bytes") or b""
            try:
                request = read(data, Request)
                self.studio.model(request.model)
            except UserError as error:
                await self.tell({"error": str(error), **sender(data)})
                continue
            self.wanted[request.panel, request.model] = request
            self.some.set()

    async def answer(self) -> None:
        """Answer the latest request of each panel, one after the other."""
        while True:
            await self.some.wait()
            key = next(iter(self.wanted))
            request = self.wanted.pop(key)
            if not self.wanted:
                self.some.clear()
            try:
                data = await self.made(request)
            except UserError as error:
                await self.tell({"error": str(error), "id": request.id, "model": request.model, "panel": request.panel})
                continue
            except Exception:
                log.exception("a picture could not be made")
                await self.tell({"error": INTERNAL, "id": request.id, "model": request.model, "panel": request.panel})
                continue
            async with self.sending:
                await self.socket.send_bytes(data)

    async def made(self, request: Request) -> bytes:
        model = self.studio.model(request.model)
        run, thread = self.studio.run, self.studio.pictures
        return packed(*joined([await run(thread, model.answer, piece) for piece in model.pieces(request)]))

    async def tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # gone
            async with self.sending:
                await self.socket.send_text(json.dumps(message))


INTERNAL = "something went wrong in the studio; its terminal says what"


def application(studio: Studio, host: str = "127.0.0.1", token: str | None = None) -> Starlette:
    """The studio as an ASGI application; host and token as `Guard` takes them."""

    async def about(request: HTTPRequest) -> Response:
        return JSONResponse(await studio.run(studio.pictures, studio.about))

    async def socket(websocket: WebSocket) -> None:
        if len(studio.clients) >= MAX_CLIENTS:
            await websocket.close(1013, "too many pages are open")
            return
        await websocket.accept()
        client = Client(studio, websocket)
        studio.clients.add(client)
        answering = asyncio.create_task(client.answer())
        try:
            await client.listen()
        except WebSocketDisconnect:
            pass
        finally:
            studio.clients.discard(client)
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError, OSError):
                await answering

    async def projection(request: HTTPRequest) -> Response:
        with one_line() as failed:
            model = studio.model(whole(request.query_params.get("model", "0"), "model"))
            steps = whole(request.query_params.get("steps", "300"), "steps")
            require(STEPS[0] <= steps <= STEPS[1], "steps", steps, f"{STEPS[0]} to {STEPS[1]}")
            with studio.in_line():  # so that few are in memory
                data = await body(request, MAX_UPLOAD)
            return StreamingResponse(told(studio, model, data, steps), media_type="application/x-ndjson")
        return failed[0]

    async def film(request: HTTPRequest) -> Response:
        with one_line() as failed, studio.in_line():
            wanted = read(await body(request, MAX_UPLOAD), Film)
            count = round(wanted.seconds * wanted.rate) * (len(wanted.points) - (not wanted.loop)) + (not wanted.loop)
            require(count <= MAX_FRAMES, "number of frames", count, f"at most {MAX_FRAMES}", "fewer points or seconds")
            model = studio.model(wanted.model)
            async with studio.filming:
                frames, way = [], model.film(wanted)
                while (frame := await studio.run(studio.pictures, next, way, None)) is not None:
                    frames.append(frame)
                    if await request.is_disconnected():
                        return Response(status_code=499)  # nobody is there to read it
                data = await studio.run(studio.long, movie, frames, wanted.format, wanted.rate)
            name = f'attachment; filename="walk.{wanted.format}"'
            return Response(data, media_type=MEDIA[wanted.format], headers={"Content-Disposition": name})
        return failed[0]

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(studio.watch())
        yield
        watching.cancel()
        studio.close()

    return Starlette(
        routes=[
            Route("/models.json", about),
            Route("/project", projection, methods=["POST"]),
            Route("/film", film, methods=["POST"]),
            WebSocketRoute("/pictures", socket),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(Guard, host=host, token=token)],
        lifespan=lifespan,
    )


async def told(studio: Studio, model: Model, data: bytes, steps: int) -> AsyncIterator[str]:
    """Lines of JSON about a projection, the last with its result or an `error`. Closed early, it stops."""
    loop, stop = asyncio.get_running_loop(), threading.Event()
    lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def tell(line: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, line)

    def work() -> None:
        try:
            tell({"result": project(model.pipe, data, steps, tell, stop)})
        except UserError as error:
            tell({"error": str(error)})
        except StoppedError:
            pass
        except Exception:
            log.exception("a projection failed")
            tell({"error": INTERNAL})

    try:
        with studio.in_line():
            if studio.waiting > 1:
                yield json.dumps({"waiting": studio.waiting - 1}) + "\n"
            studio.long.submit(work)
            while True:
                line = await lines.get()
                yield json.dumps(line) + "\n"
                if "result" in line or "error" in line:
                    return
    except UserError as error:
        yield json.dumps({"error": str(error)}) + "\n"
    finally:
        stop.set()


@contextlib.contextmanager
def one_line() -> Any:
    """What a user did wrong becomes an answer with status 400, in the list that is given."""
    failed: list[Response] = []
    try:
        yield failed
    except UserError as error:
        failed.append(JSONResponse({"error": str(error)}, 400))


async def body(request: HTTPRequest, most: int) -> bytes:
    """What came with a request. Raises UserError beyond so many bytes, which are not read."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        require(size <= most, "size of the file", f"more than {most >> 20} MiB", f"at most {most >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


def whole(text: str, name: str) -> int:
    require(text.isascii() and text.isdecimal() and len(text) < 10, name, text[:20], "a whole number")
    return int(text)
