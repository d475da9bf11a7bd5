"""`catgan studio [MODEL ...]`."""

from __future__ import annotations

import secrets
import shlex
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from catgan.bounds import Count
from catgan.cli.options import PictureOptions
from catgan.cli.parse import parse
from catgan.errors import UserError, require
from catgan.system.packages import need

if TYPE_CHECKING:
    from catgan.sampling.pipeline import CATPipeline
    from catgan.studio.model import Model

DESCRIPTION = """Play with generators in the browser: classes, seeds, truncation, stages, walks, directions, projected pictures.

Opens the shipped Fashion-MNIST if no model is named; several are shown side by side. Only this machine can reach the page,
unless --host names an address: then those who come need the token that is printed.

  catgan studio
  catgan studio runs/a runs/b
  catgan studio runs/a --follow
  catgan studio digits --static page
"""
PORT, TRIED = 7860, 20
SMALL = 20_000_000  # parameters


@dataclass(frozen=True)
class StudioOptions(PictureOptions):
    run: tyro.conf.Suppress[Path] = Path()
    models: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="MODEL")] = (Path("fashion-mnist"),)
    """Run directories, checkpoints, exported folders, or models of `catgan models`."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 is every one of this machine. Others than this machine's own need a token."""
    port: int | None = None
    """Port to listen at; default: 7860, or the next that is free."""
    token: str | None = None
    """What visitors must know; default: none for this machine alone, else one that is made up and printed."""
    threads: Count | None = None
    """Threads of the CPU; default: one for a small generator, which waits for the others longer than it gains, else all."""
    static: Path | None = None
    """Write the page with the models as a new folder that needs no server, and end: pip install 'catgan[onnx]'."""
    runtime: Path | None = None
    """--static: folder with the files of ONNX Runtime Web; default: its npm package, fetched once."""
    webgpu: bool = False
    """--static: with the larger runtime that uses the GPU of browsers that have WebGPU."""
    follow: bool = False
    """Load new checkpoints of runs as they are written."""


def main(argv: Sequence[str]) -> None:
    o = parse(StudioOptions, argv, "studio", description=DESCRIPTION)
    require(o.port is None or 0 <= o.port < 65536, "--port", o.port, "0 to 65535")
    require(o.token is None or len(o.token) >= 8, "length of --token", len(o.token or ""), "at least 8")
    if o.static is None and (o.runtime or o.webgpu):
        raise UserError(f"{'--runtime' if o.runtime else '--webgpu'} is for --static DIR")
    for package in ("msgspec",) if o.static else ("starlette", "uvicorn", "websockets", "msgspec"):
        need(package, "catgan studio", "studio")

    import torch

    from catgan.studio.model import Model
    from catgan.system.files import check_vacant

    if o.static is not None:
        check_vacant(o.static)
    paths = o.models or StudioOptions.models

    def loaded(number: int) -> CATPipeline:
        return replace(o, run=paths[number]).load()

    pipes = [loaded(number) for number in range(len(paths))]
    for path, pipe in zip(paths, pipes, strict=True):
        if o.follow and (pipe.run is None or pipe.run != path.absolute()):
            raise UserError(f"--follow is for run directories, which {path} is not")
    small = all(sum(p.numel() for p in pipe.generator.parameters()) < SMALL for pipe in pipes)
    if o.threads or small:
        torch.set_num_threads(o.threads or 1)
    models = [Model(pipe, label) for pipe, label in zip(pipes, labels(paths), strict=True)]
    if o.static is None:
        serve(o, models, loaded)
    else:
        write(o, o.static, models)


def write(o: StudioOptions, folder: Path, models: Sequence[Model]) -> None:
    """The page without a server."""
    from catgan.studio.static import write_static

    made = write_static(models, folder, o.runtime, o.webgpu)
    size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
    print(f"{made}  ({size / 1e6:.1f} MB)\nnext: python -m http.server --directory {shlex.quote(str(made))} 8000")


def serve(o: StudioOptions, models: Sequence[Model], loaded: Callable[[int], CATPipeline]) -> None:
    """Serve until it is interrupted. loaded: loads the newest checkpoint of a model by its number."""
    import uvicorn

    from catgan.studio.guard import is_loopback
    from catgan.studio.protocol import MAX_MESSAGE
    from catgan.studio.server import Studio, application

    for model in models:
        model.warm()
    listening = bound(o.host, o.port)
    token = o.token or (None if is_loopback(o.host) else secrets.token_urlsafe(16))
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else {"0.0.0.0": socket.gethostname()}.get(host, host)
    print(f"http://{shown}:{port}/{f'?token={token}' if token else ''}  (Ctrl-C ends)", flush=True)
    app = application(Studio(models, loaded if o.follow else None), o.host, token)
    settings = uvicorn.Config(
        app, log_level="warning", ws_max_size=MAX_MESSAGE, ws_per_message_deflate=False, timeout_graceful_shutdown=1
    )
    uvicorn.Server(settings).run([listening])


def labels(paths: Sequence[Path]) -> list[str]:
    """What the page calls each model: the end of its path, and a number where two are called alike."""
    names = [p.resolve().name if p.exists() else str(p) for p in paths]
    return [n if names.count(n) == 1 else f"{n} ({names[: i + 1].count(n)})" for i, n in enumerate(names)]


def bound(host: str, port: int | None) -> socket.socket:
    """A socket that listens at the port, or at the first free one from 7860 on. Raises UserError if there is none."""
    try:
        family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise UserError(f"--host is {host}: must be an address of this machine") from None
    for number in range(PORT, PORT + TRIED) if port is None else (port,):
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((address[0], number))
            made.listen(128)
        except OSError as error:
            made.close()
            reason = error.strerror
        else:
            return made
    taken = f"port {port}" if port is not None else f"each port from {PORT} to {PORT + TRIED - 1}"
    raise UserError(f"cannot listen at {taken} of {host} ({reason}): choose another with --port")
