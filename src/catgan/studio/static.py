"""The studio's page as a folder that needs no server: the models in ONNX, and ONNX Runtime Web, which computes in the browser.

index.html, *.js, *.css   the page
models.json               what the server would tell
0/, 1/, ...               of each model: style.onnx, explore.onnx, and z.bin, the z of the first seeds
runtime/                  ONNX Runtime Web with its licence
README.md                 how to serve it, and the head that a static Space of the Hugging Face Hub wants
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from catgan.draws import sample_z
from catgan.errors import UserError
from catgan.evaluation.alignment import MEASURES, alignment
from catgan.evaluation.features import cache_folder
from catgan.generator import Generator
from catgan.images import quantized
from catgan.pyramid import Pyramid
from catgan.sampling.onnx import Exportable, on_cpu, onnx_bytes
from catgan.studio import PAGE
from catgan.studio.model import Model
from catgan.system.files import write_bytes, write_folder
from catgan.version import __version__

SEEDS = 1024  # whose z a folder has: NumPy's normal numbers are not JavaScript's
RUNTIME = "onnxruntime-web"
RUNTIME_VERSION = "1.30.0"
RUNTIME_SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
NAMES = {  # of the runtime, by whether it may use WebGPU
    False: ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    True: ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
LICENCE = """ONNX Runtime Web

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software
is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES
OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE
LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; style-src 'self'; img-src 'self' "
    "blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)


class ToStyle(Exportable):
    """z and class to the style before truncation, and the mean style of the class."""

    dynamic = ("z", "y")

    def __init__(self, generator: Generator) -> None:
        super().__init__(generator, stages=False)
        self.inputs = {
            "z": f"(n, {generator.z_dim}) float32, standard normal",
            "y": f"(n,) int64, class numbers from 0 to {generator.classes - 1}",
        }

    @property
    def outputs(self) -> dict[str, str]:
        d = self.generator.width
        return {"full": f"(n, {d}) float32, w at psi 1", "class_mean": f"(n, {d}) float32, w at psi 0"}

    @property
    def psis(self) -> tuple[float, ...]:
        return (1.0,)

    def forward(self, z: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        w = self.generator.style(z, y)
        return w, self.generator.truncate(w, y, 0.0)

    def given(self, z: Tensor, y: Tensor, psi: float) -> tuple[Tensor, ...]:
        return z, y

    def expected(self, z: Tensor, y: Tensor, psi: float) -> tuple[Tensor, ...]:
        return self(z, y)


class Explore(Exportable):
    """Styles to what the page shows of a sample: bytes of h_0..h_K and x_0..x_K, channels last, and its alignment."""

    dynamic = ("w",)

    def __init__(self, generator: Generator, pyramid: Pyramid) -> None:
        super().__init__(generator, stages=True)
        self.pyramid = pyramid
        self.inputs = {"w": f"(n, {generator.width}) float32, styles"}

    @property
    def outputs(self) -> dict[str, str]:
        found = {"h": "(K + 1, n, S, S, C) uint8, h_0..h_K"}
        found |= {f"x{k}": f"(n, {s}, {s}, C) uint8, x_{k}" for k, s in enumerate(self.pyramid.scales)}
        if self.generator.stages > 1:
            found["alignment"] = f"(5, n, K) float32: {', '.join(MEASURES)}"
        return found

    def results(self, h: Tensor) -> tuple[Tensor, ...]:
        found = [quantized(x).movedim(-3, -1) for x in (h, *self.pyramid(h))]
        if self.generator.stages > 1:
            measures = alignment(h, self.pyramid)
            found.append(torch.stack([measures[name] for name in MEASURES]))
        return tuple(found)

    def forward(self, w: Tensor) -> tuple[Tensor, ...]:
        return self.results(self.generator.synthesize(w, True))

    def given(self, z: Tensor, y: Tensor, psi: float) -> tuple[Tensor, ...]:
        return (self.generator.truncate(self.generator.style(z, y), y, psi),)


def write_static(models: Sequence[Model], out: Path, runtime: Path | None = None, webgpu: bool = False) -> Path:
    """Write the page with these models as a new folder, whole or not at all, and return its path.

    runtime: a folder with the files of ONNX Runtime Web; without, they come from its package in npm's registry, once, and
    stay in catgan's cache. webgpu: with the runtime of twice the size that uses the GPU where the browser has one. Raises
    UserError for latents, raw weights, if something is at `out`, or if the runtime cannot be had.
    """
    for model in models:
        if model.pipe.weights != "ema":
            raise UserError(f"weights is {model.pipe.weights}: only averaged weights are published")
        if model.pipe.vae is not None or model.pipe.config.sample.channels not in (1, 3):
            raise UserError(
                f"{model.label} makes latents: a page has no VAE to decode them, only models of pixels work"
            )
    source = runtime_files(webgpu) if runtime is None else runtime
    for name in NAMES[webgpu]:
        if not (source / name).is_file():
            raise UserError(f"--runtime is {source}: has no {name}; it must hold the files of dist/ of {RUNTIME}")

    def fill(folder: Path) -> None:
        for file in PAGE.iterdir():
            if file.name != "server.js":
                shutil.copyfile(file, folder / file.name)
        page = (PAGE / "index.html").read_text("utf-8")
        policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        (folder / "index.html").write_text(
            page.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{policy}'), "utf-8"
        )
        (folder / "runtime").mkdir()
        for name in NAMES[webgpu]:
            shutil.copyfile(source / name, folder / "runtime" / name)
        (folder / "runtime" / "LICENSE").write_text(LICENCE, "utf-8")
        about = [write_model(model, folder / str(i)) for i, model in enumerate(models)]
        told = {"engine": "local", "catgan": __version__, "models": about, "formats": [], "following": False}
        told |= {"seeds": SEEDS, "runtime": NAMES[webgpu][0], "webgpu": webgpu}
        (folder / "models.json").write_text(json.dumps(told) + "\n", "utf-8")
        (folder / "README.md").write_text(readme(models), "utf-8")

    write_folder(out, fill)
    return out


def write_model(model: Model, folder: Path) -> dict[str, Any]:
    """Write a model's files into a new folder, and return what the page needs to know of it."""
    folder.mkdir()
    generator = on_cpu(model.generator)
    networks = {"style.onnx": ToStyle(generator), "explore.onnx": Explore(generator, model.pipe.pyramid)}
    for name, network in networks.items():
        data, _, _ = onnx_bytes(model.pipe, network)
        (folder / name).write_bytes(data)
    z = sample_z(range(SEEDS), generator.z_dim)
    (folder / "z.bin").write_bytes(z.numpy().astype("<f4").tobytes())
    vectors = base64.b64encode(model.directions.cpu().numpy().astype("<f4").tobytes()).decode()
    return model.about | {
        "backend": "ONNX Runtime Web",
        "device": "browser",
        "z_dim": generator.z_dim,
        "vectors": vectors,
    }


def readme(models: Sequence[Model]) -> str:
    """The page of the folder: a head for a static Space, and how to serve it elsewhere."""
    names = ", ".join(model.label for model in models)
    return f"""---
title: {names}
sdk: static
app_file: index.html
custom_headers:
  cross-origin-opener-policy: same-origin
  cross-origin-embedder-policy: require-corp
---

# {names} in the browser

A page of [catgan](https://arxiv.org/abs/2605.26449) that needs no server: ONNX Runtime Web computes every picture in the browser. Nothing is
sent anywhere, and nothing is loaded from elsewhere. With the two headers above it may use several threads.

Elsewhere, any server of files will do: `python -m http.server --directory .`, then open the address that it prints.

`runtime/` is ONNX Runtime Web (MIT licence); its licence is beside it. Seeds go from 0 to {SEEDS - 1}.
"""


def runtime_files(webgpu: bool) -> Path:
    """The folder of ONNX Runtime Web in catgan's cache, filled from npm's registry if it is not there yet.

    Raises UserError if it cannot be reached, or gives another package.
    """
    folder = cache_folder() / f"{RUNTIME}-{RUNTIME_VERSION}"
    if all((folder / name).is_file() for name in NAMES[webgpu]):
        return folder
    address = f"https://registry.npmjs.org/{RUNTIME}/-/{RUNTIME}-{RUNTIME_VERSION}.tgz"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            data = answer.read(1 << 27)
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"ONNX Runtime Web cannot be had from {address} ({reason}): give its files with --runtime DIR"
        ) from None
    if hashlib.sha512(data).hexdigest() != RUNTIME_SHA512:
        raise UserError(f"{address} is not the package that was tested: give its files with --runtime DIR")
    wanted = {f"package/dist/{name}": name for names in NAMES.values() for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            if member.name in wanted and (file := archive.extractfile(member)):
                write_bytes(folder / wanted[member.name], file.read())
    return folder
