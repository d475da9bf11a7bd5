"""A studio behind a real server at a port of its own, in a thread, and what its tests say to it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from studio_process import asked
from websockets.sync.client import ClientConnection, connect

from catgan.cli.studio import bound
from catgan.studio.protocol import MAX_MESSAGE, unpacked
from catgan.studio.server import Studio, application


@dataclass
class Served:
    """A studio at work."""

    studio: Studio
    port: int

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def socket(self, **options: Any) -> ClientConnection:
        options = {"origin": self.origin, "max_size": None, "compression": None, **options}
        return connect(f"ws://127.0.0.1:{self.port}/pictures", **options)

    def http(
        self, method: str, path: str, body: bytes | str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by lower-case name and body of a request, which by default comes from the studio's own page."""
        given = {"Origin": self.origin, **headers} if method == "POST" else headers
        return asked(self.port, method, path, body, {k: v for k, v in given.items() if v})


def ask(socket: ClientConnection, timeout: float = 60, **request: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer to a request with an id of its own: header and arrays, or an error and nothing."""
    socket.send(json.dumps({"panel": "sample", "points": [{}], "id": 1, **request}))
    return received(socket, timeout)


def received(socket: ClientConnection, timeout: float = 60) -> tuple[dict[str, Any], dict[str, Any]]:
    data = socket.recv(timeout)
    return unpacked(data) if isinstance(data, bytes) else (json.loads(data), {})


@contextlib.contextmanager
def serving(studio: Studio, token: str | None = None, port: int = 0) -> Iterator[Served]:
    """The studio's application behind a real uvicorn in a thread, until the block ends."""
    listening = bound("127.0.0.1", port)
    settings = uvicorn.Config(
        application(studio, "127.0.0.1", token),
        log_level="warning", ws_max_size=MAX_MESSAGE, ws_per_message_deflate=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield Served(studio, listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for something to be true; fail if it does not become so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
