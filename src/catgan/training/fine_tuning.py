"""Starting a new run from the weights of another (`training.init_from`)."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from catgan.config import Config, attribute, differences
from catgan.errors import UserError
from catgan.training import checkpoint

# What a run may change of the networks whose weights it starts from.
FREE = (
    "sample.classes", "sample.down", "sample.up", "sample.vae", "sample.vae_identity", "sample.latent_scale",
    "discriminator.aggregated", "discriminator.representation_dim",
)  # fmt: skip


def start_from(source: Path, networks: dict[str, nn.Module], config: Config) -> tuple[Path, int]:
    """Load the weights of another run, and return the checkpoint they are from and its step.

    Class embeddings keep their new weights where the number of classes differs, and so does a representation head of
    another size. Raises UserError for networks of another shape, naming the field.
    """
    path = checkpoint.resolve(source)
    header, tensors = checkpoint.read(path, [f"{n}." for n in networks])
    for name in differences(header.config, config):
        if name.split(".")[0] in ("sample", "generator", "discriminator") and name not in FREE:
            there, here = (attribute(c, name) for c in (header.config, config))
            raise UserError(
                f"cannot start from {source}: its {name} is {there}, this run's is {here}; set it to {there}"
            )
    if header.config.sample.classes != config.sample.classes:
        for key in checkpoint.CLASS_TENSORS:
            if key in tensors:
                network, _, own = key.partition(".")
                tensors[key] = networks[network].state_dict()[own]
    if header.config.discriminator.representation_dim != config.discriminator.representation_dim:
        head = "discriminator.representation."
        tensors = {k: t for k, t in tensors.items() if not k.startswith(head)} | {
            k: t for k, t in checkpoint.state_tensors(networks, {}).items() if k.startswith(head)
        }
    for name, module in networks.items():
        checkpoint.load_network(module, tensors, name)
    return path, header.step
