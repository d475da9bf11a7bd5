"""`catgan export RUN OUT`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from catgan.bounds import Psi
from catgan.cli.parse import parse
from catgan.errors import UserError

DESCRIPTION = """Write the averaged generator of a run as a folder to publish: model.safetensors, config.json, README.md.

config.json holds the configuration, the class names and how outputs become pictures; a VAE is named, not copied. The
README is a model card with what is known filled in: complete it. The folder must be new or empty. Load it with
catgan.load(DIR), CATPipeline.from_pretrained(DIR) or any command that takes a run.

With --onnx, as one new file for ONNX Runtime, OpenVINO and others instead: z, class numbers y and psi to images, in batches
of any size. It is compared with PyTorch before it is written; the largest difference is printed, and stored with recipe,
classes and range in the file's metadata.

  catgan export digits digits.onnx --onnx
  catgan export digits fidelity.onnx --onnx --fidelity --psi 0.85
"""


@dataclass(frozen=True)
class ExportOptions:
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory (its latest checkpoint), checkpoint, or a model of `catgan models`."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder to make; with --onnx the file, NAME.onnx."""
    discriminator: bool = False
    """Also write the discriminator: with it the folder can be fine-tuned (catgan train --init-from)."""
    vae: str | None = None
    """Name another VAE than the run's configuration: folder or Hugging Face name. Loaded once, to check it."""
    onnx: bool = False
    """Write one ONNX file: pip install 'catgan[onnx]'."""
    stages: bool = False
    """ONNX: also h_0..h_K, as a second output."""
    from_style: bool = False
    """ONNX: takes w in place of z, y and psi."""
    fidelity: bool = False
    """ONNX: takes z alone and gives bytes, for torch-fidelity's command line; classes are drawn alike often."""
    psi: Psi | None = None
    """ONNX with --fidelity: truncation, 1 if not given. Elsewhere it is an input."""


def main(argv: Sequence[str]) -> None:
    o = parse(ExportOptions, argv, "export", description=DESCRIPTION)
    check_together(o)
    if o.onnx:
        write_file(o)
        return

    from catgan.sampling.pipeline import load
    from catgan.system.files import check_vacant

    check_vacant(o.out)
    made = load(o.run, vae=o.vae).save_pretrained(o.out, o.discriminator)
    print(f"{made}\nnext: complete the model card {made / 'README.md'}")


def check_together(o: ExportOptions) -> None:
    """Raise UserError for options that do not go together."""
    if o.onnx and o.discriminator:
        raise UserError("--onnx is the generator alone: leave out --discriminator")
    for name in ("stages", "from_style", "fidelity", "psi"):
        if not o.onnx and getattr(o, name) not in (False, None):
            raise UserError(f"--{name.replace('_', '-')} is for ONNX files: add --onnx")
    if o.fidelity and o.from_style:
        raise UserError("--fidelity takes z: leave out --from-style")


def write_file(o: ExportOptions) -> None:
    """Write the ONNX file, and print its path, its size and its distance from PyTorch."""
    from catgan.sampling.onnx import OPSET, write_onnx
    from catgan.sampling.pipeline import load

    pipe = load(o.run, vae=o.vae)
    written = write_onnx(pipe, o.out, "fidelity" if o.fidelity else "w" if o.from_style else "z", o.stages, o.psi)
    unit = " of 255 levels" if o.fidelity else ""
    print(
        f"{written.path}\n{written.bytes / 1e6:.2f} MB, opset {OPSET}; largest difference from PyTorch {written.difference:.2g}"
        f"{unit}, in {written.samples} samples"
    )
    if o.fidelity:
        size = pipe.generator.z_dim + (pipe.generator.classes > 1)
        print(
            f"next: fidelity --fid --input1 {shlex.quote(str(written.path))} --input1-model-z-type normal "
            f"--input1-model-z-size {size} --input1-model-num-classes 0 --input1-model-num-samples 10000 --input2 FOLDER"
        )
