"""Starting a new run from the weights of another (`training.init_from`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from catgan.checkpoint import reading as checkpoint
from catgan.checkpoint.export import is_export, read_export
from catgan.checkpoint.manifest import Header
from catgan.config import Config
from catgan.config_io import attribute, differences
from catgan.errors import UserError

# What a run may change of the networks whose weights it starts from.
FREE = (
    "sample.classes", "sample.down", "sample.up", "sample.vae", "sample.vae_identity", "sample.latent_scale",
    "discriminator.aggregated", "discriminator.representation_dim",
)  # fmt: skip


def start_from(source: Path, networks: dict[str, nn.Module], config: Config) -> tuple[Path, int]:
    """Load the weights of another run or exported folder, and return the checkpoint they are from and its step.

    Class embeddings keep their new weights where the number of classes differs, and so does a representation head of
    another size, and heads that only one of the runs has. Of an exported folder the averaged weights are taken for the
    generator's raw ones too. Raises UserError for networks of another shape, naming the field, and for an exported folder
    without its discriminator.
    """
    path, stored, header = opened(source)
    theirs = header.config
    for name in differences(theirs, config):
        if name.split(".")[0] in ("sample", "generator", "discriminator") and name not in FREE:
            it_has, we_have = (attribute(c, name) for c in (theirs, config))
            raise UserError(
                f"cannot start from {source}: its {name} is {it_has}, this run's is {we_have}; set it to {it_has}"
            )
    here, there = {*checkpoint.state_tensors(networks, {})}, {*stored}
    kept = {name for name in here ^ there if name.startswith(checkpoint.HEADS)}
    if theirs.sample.classes != config.sample.classes:
        kept |= set(checkpoint.CLASS_TENSORS)
    if theirs.discriminator.representation_dim != config.discriminator.representation_dim:
        kept |= {name for name in here | there if name.startswith("discriminator.representation.")}
    for name, module in networks.items():
        checkpoint.load_network(module, stored, name, kept)
    return path, header.step


def opened(source: Path) -> tuple[Path, Mapping[str, checkpoint.Rows], Header]:
    """A checkpoint or an exported folder, its tensors by name, and its header."""
    if not is_export(source):
        path = checkpoint.resolve(source)
        reader = checkpoint.Reader(path)
        return path, reader, reader.header
    header, tensors = read_export(source, ("ema", "discriminator"))
    raw = {f"generator.{n.removeprefix('ema.')}": t for n, t in tensors.items() if n.startswith("ema.")}
    return source, raw | tensors, header
