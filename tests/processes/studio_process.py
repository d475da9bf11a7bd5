"""`catgan studio` in a process of its own, at a port that it keeps when it is started again; and plain requests to one."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import IO


def asked(
    port: int,
    method: str,
    path: str,
    body: bytes | str | None,
    headers: Mapping[str, str],
    part: int | None = None,
    timeout: float = 60,
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by lower-case name and body of a request; with `part` so many bytes of it, then nobody listens."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read(part)


class StudioProcess:
    """A studio of models, with further options."""

    def __init__(
        self, *models_and_options: object, environment: Mapping[str, str] = {}, errors: IO[str] | None = None
    ) -> None:
        """errors: where its stderr goes; None: where that of this process goes."""
        self.given, self.environment, self.errors = [str(g) for g in models_and_options], environment, errors
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]

    def start(self) -> str:
        """Start it; returns the address that it prints. Raises RuntimeError if it prints none."""
        command = [sys.executable, "-m", "catgan", "studio", *self.given, "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=os.environ | self.environment
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not (found := re.match(r"(http://127\.0\.0\.1:\d+/)  \(Ctrl-C ends\)", said)):
            raise RuntimeError(f"catgan studio {' '.join(self.given)} printed no address but {said!r}")
        return found[1]

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Send a signal; returns the exit code."""
        self.process.send_signal(how)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code
