"""`catgan export RUN DIR`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from catgan.cli.parse import parse

DESCRIPTION = """Write the averaged generator of a run as a folder to publish: model.safetensors, config.json, README.md.

config.json holds the configuration, the class names and how outputs become pictures; a VAE is named, not copied. The
README is a model card with what is known filled in: complete it. The folder must be new or empty. Load it with
catgan.load(DIR), CATPipeline.from_pretrained(DIR) or any command that takes a run.
"""


@dataclass(frozen=True)
class ExportOptions:
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory (its latest checkpoint), checkpoint, or a model of `catgan models`."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder to make."""
    discriminator: bool = False
    """Also write the discriminator: with it the folder can be fine-tuned (catgan train --init-from)."""
    vae: str | None = None
    """Name another VAE than the run's configuration: folder or Hugging Face name. Loaded once, to check it."""


def main(argv: Sequence[str]) -> None:
    o = parse(ExportOptions, argv, "export", description=DESCRIPTION)

    from catgan.sampling.pipeline import load
    from catgan.system.files import check_vacant

    check_vacant(o.out)
    made = load(o.run, vae=o.vae).save_pretrained(o.out, o.discriminator)
    print(f"{made}\nnext: complete the model card {made / 'README.md'}")
