"""Options that the commands about a trained run share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from catgan.sampling.pipeline import CATPipeline


@dataclass(frozen=True)
class RunOptions:
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory (its latest checkpoint), checkpoint, exported folder, or a model of `catgan models`."""
    weights: Literal["ema", "generator"] = "ema"
    """ema: the moving average (EMA); generator: the raw weights."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the network's arithmetic."""

    def load(self) -> CATPipeline:
        from catgan.sampling.pipeline import load
        from catgan.system.devices import keep_freed_memory

        pipe = load(self.run, self.weights).to(self.device, self.precision)
        if pipe.device.type == "cpu":
            keep_freed_memory()
        return pipe


@dataclass(frozen=True)
class PictureOptions(RunOptions):
    vae: str | None = None
    """VAE of a latent model: folder or Hugging Face name; default: the one its configuration names."""
    backend: Literal["eager", "compile", "openvino"] = "eager"
    """What computes the generator: PyTorch, PyTorch compiled, or OpenVINO, the fastest on CPUs."""

    def load(self) -> CATPipeline:
        """The pipeline with its VAE, so that a missing one is found before anything is made."""
        pipe = super().load().to(backend=self.backend)
        if self.vae is not None:
            pipe.with_vae(self.vae)
        pipe.vae  # noqa: B018
        return pipe
