"""A generator as a folder to publish: model.safetensors, config.json and a model card. No pickle is written or read.

With discriminator.safetensors, if asked for: then the folder can be fine-tuned (`training.init_from`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from catgan.checkpoint.card import model_card
from catgan.checkpoint.manifest import Header
from catgan.checkpoint.reading import Reader, Rows, resolve
from catgan.config import Config
from catgan.config_io import FORMAT_VERSION, from_dict, to_dict
from catgan.errors import UserError, brief
from catgan.shipped import located
from catgan.system.files import count, read_json, save_tensors, sha256, texts, write_folder
from catgan.version import __version__

KIND = "catgan-generator"
FILES = ("config.json", "model.safetensors")
DISCRIMINATOR = "discriminator.safetensors"
FILE_OF = {"ema": FILES[1], "discriminator": DISCRIMINATOR}


def write_export(
    out: Path,
    header: Header,
    generator: nn.Module,
    discriminator: nn.Module | None = None,
    run: Path | None = None,
    half: bool = False,
    name: str = "",
) -> Path:
    """Write an averaged generator as a new folder, whole or not at all, and return its path.

    A VAE is named (by header.config), not copied. discriminator: to be fine-tuned with. run: the directory of its run,
    from which the model card is filled in. half: round parameters to float16, for half the size; buffers stay as they are.
    name: of the model, for its card; by default that of the run's directory. config.json has the SHA-256 of the weights.
    Raises UserError if something is at `out` already, or if it cannot be written.
    """
    about = {
        "kind": KIND,
        "format": FORMAT_VERSION,
        "catgan": __version__,
        "weights": "ema",
        "step": header.step,
        "class_names": header.class_names,
        "preprocessing": preprocessing(header.config),
        "config": to_dict(header.config),
    }
    networks = {FILES[1]: generator} | ({} if discriminator is None else {DISCRIMINATOR: discriminator})

    def fill(folder: Path) -> None:
        for file, network in networks.items():
            tensors = {k: v.detach().cpu() for k, v in network.state_dict().items()}
            learned = [k for k, _ in network.named_parameters()] if half else []
            save_tensors(folder / file, tensors | {k: tensors[k].half() for k in learned})
        sums = {"sha256": {file: sha256(folder / file) for file in networks}}
        (folder / "config.json").write_text(json.dumps(about | sums, indent=2) + "\n", "utf-8")
        (folder / "README.md").write_text(model_card(header, run, name), "utf-8")

    write_folder(out, fill)
    return out


def preprocessing(config: Config) -> dict[str, Any]:
    """What training did to pictures, and so how outputs become pictures again."""
    s = config.sample
    if s.vae is None:
        return {"space": "pixels", "size": s.size, "channels": s.channels, "range": [-1, 1]}
    return {"space": "latents", "size": s.size, "channels": s.channels, "scale": s.latent_scale, "vae": s.vae}


def is_export(path: Path) -> bool:
    """Whether a folder looks like one that `write_export` made."""
    return all((path / name).is_file() for name in FILES)


def read_export(path: Path, networks: tuple[str, ...] = ("ema",)) -> tuple[Header, dict[str, Tensor]]:
    """Header and tensors (`ema.*`, `discriminator.*`) of an exported folder.

    Raises UserError if it is damaged, of another kind, or has no discriminator where one is wanted.
    """
    if "discriminator" in networks and not (path / DISCRIMINATOR).is_file():
        raise UserError(
            f"{path} is an exported generator without its discriminator (it has no {DISCRIMINATOR}): name the run, or "
            "export it again with --discriminator"
        )
    try:
        about = read_json(path / "config.json")
        if about.get("kind") != KIND:
            raise UserError(
                f"{path} is no exported generator of catgan: config.json has kind {brief(about.get('kind'))}"
            )
        if (version := about.get("format", FORMAT_VERSION)) != FORMAT_VERSION:
            raise UserError(
                f"{path} has export format {brief(version)}, this catgan reads {FORMAT_VERSION}: use the version that wrote it"
            )
        config = from_dict(about["config"], where=str(path / "config.json")).validate()
        step = count(about["step"])
        header = Header(step, config, texts(about["class_names"]), (), step * config.training.batch)
        files = {name: verified(path, FILE_OF[name], about.get("sha256", {})) for name in networks}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(f"{path} is damaged: {error!r:.200}") from None
    return header, {f"{name}.{key}": tensor for name, tensors in files.items() for key, tensor in tensors.items()}


def verified(path: Path, name: str, sums: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of a file of weights. Raises UserError where its SHA-256 is known, as older exports' is not, and another."""
    if sums.get(name, (found := sha256(path / name))) != found:
        raise UserError(
            f"{path} is damaged: the SHA-256 of {name} is {found}, not {sums[name]!s:.64}: copy or export it again"
        )
    return load_file(path / name)


def opened(path: Path, networks: tuple[str, ...] = ("ema",)) -> tuple[Path, Header, Mapping[str, Rows]]:
    """What a run directory (its latest checkpoint), a checkpoint, an exported folder or a shipped model holds.

    Returns which of them it is, its header, and its tensors by name (of an exported folder, those of these networks).
    Raises UserError if there is nothing to read.
    """
    path = found(path)
    if is_export(path):
        return path, *read_export(path, networks)
    reader = Reader(path)
    return path, reader.header, reader


def found(path: Path) -> Path:
    """The checkpoint or exported folder that a run directory, either of them or a shipped model's name stands for.

    Raises UserError if there is none.
    """
    path = located(path)
    return path if is_export(path) else resolve(path)
