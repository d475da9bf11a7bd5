"""A generator as one ONNX file, which is compared with PyTorch before it is written.

Three forms of it, by what it takes:

z         z (n, z_dim), class numbers y (n,) int64, psi (), to images (n, C, S, S)
w         styles (n, d) to images: `synthesize` alone
fidelity  z (n, z_dim + 1) to uint8 (n, 3, S, S), as the command line of torch-fidelity has it; the last number chooses
          the class, all classes alike often; one class needs no such number

In operators of ONNX's own, float32, and integers that fit into 32 bits.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from catgan.bounds import check_psi
from catgan.checkpoint.export import preprocessing
from catgan.draws import sample_z
from catgan.errors import UserError, require
from catgan.generator import Generator
from catgan.images import quantized
from catgan.sampling.pipeline import CATPipeline
from catgan.shipped import FOLDER, about
from catgan.system.files import write_bytes
from catgan.system.packages import need
from catgan.version import __version__

Form = Literal["z", "w", "fidelity"]
FORMS: tuple[str, ...] = get_args(Form)
OPSET = 18
SUFFIX = ".onnx"
LARGEST = 2**31 - 2**24  # bytes of weights: a file holds 2 GiB, with the graph
BATCHES, PSIS = (1, 3), (1.0, 0.7, 0.0)  # that are compared
TOLERANCE = 1e-3  # the largest difference that is allowed, for values up to 1, in proportion for larger ones
LEVELS = 1  # the same for bytes


class Written(NamedTuple):
    """A file, and how far it was from PyTorch."""

    path: Path
    bytes: int
    difference: float  # the largest; of bytes for torch-fidelity's
    samples: int  # that were compared


def write_onnx(
    pipe: CATPipeline, out: str | Path, form: Form = "z", stages: bool = False, psi: float | None = None
) -> Written:
    """Write the pipeline's averaged generator as a new file NAME.onnx, if ONNX Runtime then computes what PyTorch does.

    stages: a second output `stages` (K + 1, n, C, S, S), not for torch-fidelity. psi: what the file for torch-fidelity
    truncates by, 1 if not given; for the other forms it is an input, or in w. Metadata (`metadata`) say what it is.
    Raises UserError, and writes nothing, for raw weights, another suffix, what is there already, missing packages, or a
    difference beyond TOLERANCE.
    """
    out = Path(out)
    check_request(pipe, out, form, stages, psi)
    network = build(on_cpu(pipe.generator), form, stages, 1.0 if psi is None else psi)
    data, difference, samples = onnx_bytes(pipe, network)
    check_absent(out)  # anew: it took a while
    write_bytes(out, data)
    return Written(out, len(data), difference, samples)


def on_cpu(generator: Generator) -> Generator:
    """A copy on the CPU in float32."""
    return copy.deepcopy(generator).to("cpu", torch.float32)


def onnx_bytes(pipe: CATPipeline, network: Exportable) -> tuple[bytes, float, int]:
    """What `network` computes as a file, with metadata; the largest difference from PyTorch, and of how many samples.

    network: made of `on_cpu(pipe.generator)`. Raises UserError for missing packages, or a difference beyond TOLERANCE.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        need(package, "ONNX export", "onnx")
    model = exported(network)
    difference, samples = compared(network, model.SerializeToString())
    describe(model, metadata(pipe, network) | comparison(difference, samples))
    return model.SerializeToString(deterministic=True), difference, samples


def check_request(pipe: CATPipeline, out: Path, form: str, stages: bool, psi: float | None) -> None:
    """Raise UserError for what cannot be exported, or not to this place."""
    require(form in FORMS, "form", form, f"one of {', '.join(FORMS)}")
    require(out.suffix == SUFFIX, "the ONNX file", out, f"named NAME{SUFFIX}")
    check_absent(out)
    if pipe.weights != "ema":
        raise UserError(f"weights is {pipe.weights}: only averaged weights are exported")
    if form == "fidelity":
        s = pipe.published_config.sample
        if s.vae is not None or s.channels not in (1, 3):
            raise UserError(
                "this generator makes latents, torch-fidelity takes pixels: sample with --format npz instead"
            )
        if stages:
            raise UserError("a file for torch-fidelity has one output: leave out stages")
        check_psi(1.0 if psi is None else psi)
    elif psi is not None:
        raise UserError(
            f"psi is {psi:g}: only a file for torch-fidelity has it fixed, it is an input or in w: leave it out"
        )
    size = sum(t.numel() * 4 for t in pipe.generator.state_dict().values())
    if size > LARGEST:
        raise UserError(
            f"the weights are {size / 2**30:.1f} GiB: an ONNX file holds at most 2; export a folder instead"
        )


def check_absent(out: Path) -> None:
    """Raise UserError if anything is at `out`."""
    if out.exists():
        raise UserError(f"{out} exists: choose another name")


# -- the networks ----------------------------------------------------------------------------------------------------


class Exportable(nn.Module):
    """What a file computes. `inputs` and `outputs` tell what each of them is; `given` makes the inputs of samples."""

    dynamic: tuple[str, ...]  # inputs whose first dimension is the batch
    inputs: dict[str, str]

    def __init__(self, generator: Generator, stages: bool) -> None:
        super().__init__()
        self.generator, self.stages = generator, stages

    @property
    def outputs(self) -> dict[str, str]:
        """The meaning of each output by its name."""
        images = {"images": "(n, C, S, S) float32, h_K, not clamped"}
        return images | ({"stages": "(K + 1, n, C, S, S) float32, h_0..h_K, not clamped"} if self.stages else {})

    def results(self, h: Tensor) -> tuple[Tensor, ...]:
        """Outputs of what `synthesize` gave."""
        return (h[-1], h) if self.stages else (h,)

    def given(self, z: Tensor, y: Tensor, psi: float) -> tuple[Tensor, ...]:
        """Inputs that stand for these samples."""
        raise NotImplementedError

    def expected(self, z: Tensor, y: Tensor, psi: float) -> tuple[Tensor, ...]:
        """Outputs for these samples, by the generator itself."""
        h = self.generator(z, y, psi, self.stages)
        return self.results(h)

    @property
    def psis(self) -> tuple[float, ...]:
        """Truncations to compare."""
        return PSIS


class FromNoise(Exportable):
    """z, class and psi to images."""

    dynamic = ("z", "y")

    def __init__(self, generator: Generator, stages: bool) -> None:
        super().__init__(generator, stages)
        self.inputs = {
            "z": f"(n, {generator.z_dim}) float32, standard normal",
            "y": f"(n,) int64, class numbers from 0 to {generator.classes - 1}",
            "psi": "() float32 in [0, 1], truncation of w towards its class mean, 1 is none",
        }

    def forward(self, z: Tensor, y: Tensor, psi: Tensor) -> tuple[Tensor, ...]:
        return self.results(self.generator(z, y, psi, self.stages))

    def given(self, z: Tensor, y: Tensor, psi: float) -> tuple[Tensor, ...]:
        return z, y, torch.tensor(psi)


class FromStyle(Exportable):
    """w to images."""

    dynamic = ("w",)

    def __init__(self, generator: Generator, stages: bool) -> None:
        super().__init__(generator, stages)
        self.inputs = {"w": f"(n, {generator.width}) float32, styles as CATPipeline.style gives them"}

    def forward(self, w: Tensor) -> tuple[Tensor, ...]:
        return self.results(self.generator.synthesize(w, self.stages))

    def given(self, z: Tensor, y: Tensor, psi: float) -> tuple[Tensor, ...]:
        return (self.generator.truncate(self.generator.style(z, y), y, psi),)


class ForFidelity(Exportable):
    """z, with a number that chooses the class, to bytes in three channels."""

    dynamic = ("z",)

    def __init__(self, generator: Generator, psi: float) -> None:
        super().__init__(generator, stages=False)
        self.psi, self.conditional = psi, generator.classes > 1
        choice = f"; the last, t, chooses class floor({generator.classes} Phi(t))" if self.conditional else ""
        self.inputs = {"z": f"(n, {generator.z_dim + self.conditional}) float32, standard normal{choice}"}

    @property
    def outputs(self) -> dict[str, str]:
        return {"images": f"(n, 3, S, S) uint8, psi {self.psi:g}"}

    @property
    def psis(self) -> tuple[float, ...]:
        return (self.psi,)

    def results(self, h: Tensor) -> tuple[Tensor, ...]:
        return (quantized(h).expand(-1, 3, -1, -1),)

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        classes, z_dim = self.generator.classes, self.generator.z_dim
        if self.conditional:
            uniform = (1 + torch.erf(z[:, z_dim] / math.sqrt(2))) / 2
            y = (uniform * classes).long().clamp(0, classes - 1)
        else:
            y = torch.zeros_like(z[:, 0]).long()
        return self.results(self.generator(z[:, :z_dim], y, self.psi))

    def given(self, z: Tensor, y: Tensor, psi: float) -> tuple[Tensor, ...]:
        middle = torch.special.ndtri((y.double() + 0.5) / self.generator.classes).float()
        return (torch.cat([z, middle[:, None]], dim=1) if self.conditional else z,)


def build(generator: Generator, form: Form, stages: bool, psi: float) -> Exportable:
    """The network of a form."""
    if form == "fidelity":
        return ForFidelity(generator, psi)
    return (FromNoise if form == "z" else FromStyle)(generator, stages)


# -- export and comparison -------------------------------------------------------------------------------------------


def exported(network: Exportable) -> Any:
    """The network as an ONNX model of any batch size, without the exporter's notes on where each operator came from."""
    import onnx

    batch = torch.export.Dim("batch", min=1)
    example = network.given(*samples(network.generator, 2), 1.0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            dynamic_shapes={name: {0: batch} if name in network.dynamic else None for name in network.inputs},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
    shorten(graph)
    onnx.checker.check_model(model)
    return model


def shorten(graph: Any) -> None:
    """Write 2^31 - 1 for "to the end" in slices, not 2^63 - 1: some runtimes have integers of 32 bits."""
    from onnx import numpy_helper

    bounds = {name for node in graph.node if node.op_type == "Slice" for name in node.input[1:3]}  # starts and ends
    for tensor in graph.initializer:
        if tensor.name in bounds:
            within = numpy_helper.to_array(tensor).clip(1 - 2**31, 2**31 - 1)
            tensor.CopyFrom(numpy_helper.from_array(within, tensor.name))


def samples(generator: Generator, count: int) -> tuple[Tensor, Tensor]:
    """z and classes of that many samples: seeds of their own, classes from the first to the last."""
    y = torch.linspace(0, generator.classes - 1, count).round().long() if count > 1 else torch.zeros(1).long()
    return sample_z(range(count, 2 * count), generator.z_dim), y


def compared(network: Exportable, data: bytes) -> tuple[float, int]:
    """The largest difference between ONNX Runtime and PyTorch, and of how many samples.

    Raises UserError if it is beyond TOLERANCE, or LEVELS for bytes.
    """
    worst, count = 0.0, 0
    for made, expected in runs(network, data):
        count += expected[0].shape[0]
        for a, b in zip(made, expected, strict=True):
            difference = float(np.abs(a.astype(np.float64) - b.numpy()).max())
            allowed = LEVELS if b.dtype == torch.uint8 else TOLERANCE * max(1.0, float(b.abs().max()))
            if not difference <= allowed:
                raise UserError(
                    f"ONNX Runtime's samples differ from PyTorch's by {difference:.2g}: must be at most {allowed:.2g}; nothing "
                    "was written"
                )
            worst = max(worst, difference)
    return worst, count


def runs(network: Exportable, data: bytes) -> Iterator[tuple[list[np.ndarray], tuple[Tensor, ...]]]:
    """Outputs of ONNX Runtime and of PyTorch, for each size of batch and psi."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    for size in BATCHES:
        z, y = samples(network.generator, size)
        for psi in network.psis:
            with torch.no_grad():
                given, expected = network.given(z, y, psi), network.expected(z, y, psi)
            inputs = dict(zip(network.inputs, (t.numpy() for t in given), strict=True))
            yield session.run(list(network.outputs), inputs), expected


# -- what a file says of itself --------------------------------------------------------------------------------------


def metadata(pipe: CATPipeline, network: Exportable) -> dict[str, str]:
    """Entries of the file's metadata. What is no text or number is JSON."""
    config, source = pipe.published_config, pipe.source
    space = preprocessing(config)
    bytes_, pixels = isinstance(network, ForFidelity), space["space"] == "pixels"
    entries: dict[str, Any] = {
        "catgan": __version__,
        "recipe": config.recipe,
        "step": pipe.step,
        "weights": pipe.weights,
        "inputs": network.inputs,
        "outputs": network.outputs,
        **space,
        "range": [0, 255] if bytes_ else [-1, 1] if pixels else "latents times scale, which vae decodes",
        "z_dim": network.generator.z_dim,
        "classes": config.sample.classes,
        "class_names": list(pipe.class_names),
        "stages": network.generator.stages,
        "scales": list(config.sample.scales),
    }
    if source is not None and source.parent == FOLDER.absolute():
        entries["licence"] = about(source.name).licence
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in entries.items()}


def comparison(difference: float, count: int) -> dict[str, str]:
    """Entries about the comparison with PyTorch."""
    batches = " and ".join(map(str, BATCHES))
    return {
        "largest_difference": f"{difference:.3g}",
        "compared": f"{count} samples in batches of {batches}: ONNX Runtime {version('onnxruntime')}, "
        f"PyTorch {version('torch')}, on the CPU",
    }


def describe(model: Any, entries: dict[str, str]) -> None:
    """Put metadata into a model."""
    model.producer_name, model.producer_version = "catgan", __version__
    model.graph.name = "generator"
    for key, value in entries.items():
        model.metadata_props.add(key=key, value=value)
