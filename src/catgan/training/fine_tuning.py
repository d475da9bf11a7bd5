"""Starting a new run from the weights of another (`training.init_from`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from catgan.checkpoint import reading as checkpoint
from catgan.checkpoint.export import is_export, opened
from catgan.config import Config
from catgan.config_io import attribute, differences
from catgan.errors import UserError

# What stays as it is at the start when the number of classes differs.
CLASS_TENSORS = (
    "discriminator.class_embedding.weight",
    *(f"{n}.{k}" for n in ("generator", "ema") for k in ("class_embedding.weight", "style_sum", "style_updates")),
)
# What a run may change of the networks whose weights it starts from.
FREE = (
    "sample.classes", "sample.down", "sample.up", "sample.vae", "sample.vae_identity", "sample.latent_scale",
    "discriminator.aggregated", "discriminator.representation_dim",
)  # fmt: skip


def start_from(source: Path, networks: dict[str, nn.Module], config: Config) -> tuple[Path, int]:
    """Load the weights of another run or exported folder, and return the checkpoint they are from and its step.

    Class embeddings keep their new weights where the number of classes differs, and so does a representation head of
    another size, and heads that only one of the runs has or that have other shapes there. Of an exported folder the averaged weights are taken for the
    generator's raw ones too. Raises UserError for networks of another shape, naming the field, and for an exported folder
    without its discriminator.
    """
    path, header, stored = opened(source, ("ema", "discriminator"))
    if is_export(path):
        raw = {name.replace("ema.", "generator.", 1): t for name, t in stored.items() if name.startswith("ema.")}
        stored = {**raw, **stored}
    theirs = header.config
    for name in differences(theirs, config):
        shapes = name.split(".")[0] in ("sample", "generator", "discriminator") and name not in FREE
        if shapes or name == "objective.supervision":
            it_has, we_have = (attribute(c, name) for c in (theirs, config))
            raise UserError(
                f"cannot start from {source}: its {name} is {it_has}, this run's is {we_have}; set it to {it_has}"
            )
    ours = checkpoint.state_tensors(networks, {})
    here, there = {*ours}, {*stored}
    kept = {name for head in unlike_heads(ours, stored) for name in here | there if name.startswith(head)}
    if theirs.sample.classes != config.sample.classes:
        kept |= set(CLASS_TENSORS)
    if theirs.discriminator.representation_dim != config.discriminator.representation_dim:
        kept |= {name for name in here | there if name.startswith("discriminator.representation.")}
    for name, module in networks.items():
        checkpoint.load_network(module, stored, name, kept)
    return path, header.step


def unlike_heads(ours: Mapping[str, Tensor], stored: Mapping[str, Any]) -> set[str]:
    """Prefixes of those of the discriminator's heads whose tensors are not the same, or not of the same shapes, in both."""

    def head(name: str) -> str:
        return checkpoint.HEADS + name.removeprefix(checkpoint.HEADS).partition(".")[0] + "."

    def shape(tensors: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
        return tuple(tensors[name].shape) if name in tensors else None

    names = [name for name in {*ours, *stored} if name.startswith(checkpoint.HEADS)]
    return {head(name) for name in names if shape(ours, name) != shape(stored, name)}
