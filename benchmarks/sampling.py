"""Sampling on a CPU: seconds by who computes the generator, in turns, and how far its pictures are from PyTorch's.

    pip install 'catgan[onnx,openvino]' nncf
    python benchmarks/sampling.py digits --batch 1 64 --out backends
    python benchmarks/sampling.py runs/first --only eager openvino --count 1000 --out backends

A recipe stands for its generator in its first state. Of a run, --out gets a grid of pictures and --count samples for
`catgan evaluate` from each. Candidates that are not installed are left out, and said to be.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import catgan
from catgan.images import grid, save_png, tile_zoom, to_bytes
from catgan.networks import build_generator
from catgan.recipes import RECIPES
from catgan.sampling.backends import Synthesize, compiled_by_openvino, openvino_model, synthesizer
from catgan.sampling.npz import sample_npz
from catgan.sampling.onnx import write_onnx
from catgan.sampling.pipeline import CATPipeline
from catgan.system.devices import keep_freed_memory

ROUND = 0.2  # seconds that a candidate is repeated for in each round


def onnx_file(pipe: CATPipeline) -> str:
    """The generator as an ONNX file, in a folder that stays until the process ends."""
    return str(write_onnx(pipe, Path(tempfile.mkdtemp()) / "generator.onnx", "w").path)


def onnxruntime(pipe: CATPipeline, quantised: bool) -> Synthesize:
    """ONNX Runtime, in float32 or with weights and activations in int8, these by their range in each batch."""
    import onnx
    import onnxruntime as ort

    path = onnx_file(pipe)
    if quantised:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        model = onnx.load(path)
        del model.graph.value_info[:]  # sizes of the exporter that the quantiser disputes
        path += ".int8"
        quantize_dynamic(model, path, per_channel=True, weight_type=QuantType.QInt8, use_external_data_format=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda w, _: torch.from_numpy(session.run(None, {"w": w.numpy()})[0])


def openvino_int8(pipe: CATPipeline) -> Synthesize:
    """OpenVINO with weights in int8, and activations by their range in runs of 64."""
    import nncf

    model = nncf.compress_weights(openvino_model(pipe.generator, False), mode=nncf.CompressWeightsMode.INT8_SYM)
    compiled = compiled_by_openvino(model, "float32", DYNAMIC_QUANTIZATION_GROUP_SIZE=64)
    return lambda w, _: torch.from_numpy(compiled(w.numpy())[0].copy())


CANDIDATES: dict[str, Callable[[CATPipeline], Synthesize]] = {
    "eager": lambda p: synthesizer(p.generator, "eager", "float32"),
    "compile": lambda p: synthesizer(p.generator, "compile", "float32"),
    "openvino": lambda p: synthesizer(p.generator, "openvino", "float32"),
    "openvino int8": openvino_int8,
    "onnxruntime": lambda p: onnxruntime(p, False),
    "onnxruntime int8": lambda p: onnxruntime(p, True),
}


def opened(name: str) -> CATPipeline:
    if name not in RECIPES:
        return catgan.load(name)
    torch.manual_seed(0)
    config = RECIPES[name]
    return CATPipeline(build_generator(config), config, [str(k) for k in range(config.sample.classes)])


def styles(pipe: CATPipeline, count: int) -> Tensor:
    return pipe.style([k % pipe.config.sample.classes for k in range(count)], range(count))


def seconds(synthesize: Synthesize, w: Tensor) -> float:
    """Of one call, repeated for long enough to be measured."""
    began, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - began < ROUND:
        synthesize(w, False)
        calls += 1
    return (time.perf_counter() - began) / calls


@torch.no_grad()
def measure(pipe: CATPipeline, ready: dict[str, Synthesize], batch: int, rounds: int) -> dict[str, Any]:
    """Medians of seconds a batch, of the ratio to eager in the same round, and the worst difference of an output."""
    w = styles(pipe, batch)
    exact, times = ready["eager"](w, False), {name: [] for name in ready}
    for synthesize in ready.values():
        synthesize(w, False)
    for _ in range(rounds):
        for name, synthesize in ready.items():
            times[name].append(seconds(synthesize, w))
    return {
        name: {
            "seconds": statistics.median(times[name]),
            "times": statistics.median(e / t for e, t in zip(times["eager"], times[name], strict=True)),
            "difference": float((synthesize(w, False) - exact).abs().max() / exact.abs().max()),
        }
        for name, synthesize in ready.items()
    }


@torch.no_grad()
def pictures(pipe: CATPipeline, ready: dict[str, Synthesize], count: int, out: Path) -> None:
    """A grid and a file of samples of each candidate; the differences of 8-bit pixels are printed."""
    w = styles(pipe, 64)
    exact = to_bytes(pipe.decode(ready["eager"](w, False))).astype(int)
    classes = list(range(pipe.config.sample.classes))
    for name, synthesize in ready.items():
        tiles = to_bytes(pipe.decode(synthesize(w, False)))
        rows = [list(tiles[i : i + 8]) for i in range(0, len(tiles), 8)]
        file = name.replace(" ", "-")
        save_png(grid(rows, tile_zoom(tiles.shape[1])), out / f"{file}.png")
        away = np.abs(tiles.astype(int) - exact)
        print(f"{name:17} 8-bit levels from eager: {away.mean():.3f} on average, at most {away.max()}")
        if count:
            pipe.synthesize = synthesize
            sample_npz(pipe, out / f"{file}.npz", classes, 0, count, 1.0, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="recipe, run, checkpoint or exported folder")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="samples per forward pass")
    parser.add_argument("--only", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--count", type=int, default=0, help="samples for evaluation; 0: none")
    parser.add_argument("--out", type=Path, help="folder for pictures and samples")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    keep_freed_memory()
    pipe, ready = opened(o.model), {}
    for name in dict.fromkeys(["eager", *o.only]):
        began = time.perf_counter()
        try:
            ready[name] = CANDIDATES[name](pipe)
            with torch.no_grad():
                ready[name](styles(pipe, o.batch[0]), False)
        except (ImportError, catgan.UserError) as error:
            print(f"{name}: left out, {error}")
            ready.pop(name, None)
            continue
        print(f"{name}: ready after {time.perf_counter() - began:.1f} s", flush=True)
    for batch in o.batch:
        print(f"\n{o.model}, batch {batch}, float32, {o.threads} threads, medians of {o.rounds}")
        for name, row in measure(pipe, ready, batch, o.rounds).items():
            print(
                f"{name:17} {1e3 * row['seconds']:9.2f} ms {row['times']:6.2f} x eager"
                f"   largest difference {row['difference']:.1e} of the largest output"
            )
    if o.out is not None:
        print()
        pictures(pipe, ready, o.count, o.out)


if __name__ == "__main__":
    main()
