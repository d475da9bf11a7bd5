"""A generator as a folder to publish: model.safetensors, config.json and a model card. No pickle is written or read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from catgan.checkpoint.manifest import Header
from catgan.config import Config
from catgan.config_io import FORMAT_VERSION, from_dict, to_dict
from catgan.errors import UserError
from catgan.system.files import write_folder
from catgan.version import __version__

if TYPE_CHECKING:
    from catgan.sampling.pipeline import CATPipeline

KIND = "catgan-generator"
FILES = ("config.json", "model.safetensors")


def write_export(pipe: CATPipeline, out: Path) -> Path:
    """Write a pipeline as a new folder, whole or not at all, and return its path.

    Its VAE is named, not copied. Raises UserError for raw weights, if something is at `out` already, or if it cannot be
    written.
    """
    if pipe.weights != "ema":
        raise UserError(f"weights is {pipe.weights}: only averaged weights are exported")
    config = pipe.config
    if pipe.loaded_vae is not None:
        config = replace(config, sample=replace(config.sample, vae=pipe.loaded_vae.path))
    about = {
        "kind": KIND,
        "format": FORMAT_VERSION,
        "catgan": __version__,
        "weights": pipe.weights,
        "step": pipe.step,
        "class_names": pipe.class_names,
        "preprocessing": preprocessing(config),
        "config": to_dict(config),
    }

    def fill(folder: Path) -> None:
        tensors = {k: v.detach().cpu().contiguous() for k, v in pipe.generator.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
        (folder / "README.md").write_text(model_card(pipe, config), "utf-8")

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


def read_export(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """Header and tensors (`ema.*`) of an exported folder. Raises UserError if it is damaged or of another kind."""
    try:
        about = json.loads((path / "config.json").read_text("utf-8"))
        if about.get("kind") != KIND:
            raise UserError(f"{path} is no exported generator of catgan: config.json has kind {about.get('kind')}")
        config = from_dict(about["config"], where=str(path / "config.json")).validate()
        samples = about["step"] * config.training.batch
        header = Header(about["step"], config, tuple(about["class_names"]), (), samples)
        tensors = load_file(path / "model.safetensors")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(f"{path} is damaged: {error!r}") from None
    return header, {f"ema.{name}": tensor for name, tensor in tensors.items()}


def model_card(pipe: CATPipeline, config: Config) -> str:
    """The template of docs/model-card-template.md with what is known filled in."""
    s, count = config.sample, sum(p.numel() for p in pipe.generator.parameters())
    size = f"{s.size} x {s.size}, "
    known = {
        "<name of the model>": f"{config.recipe}, step {pipe.step}",
        "catgan <version>": f"catgan {__version__}",
        "recipe <recipe>": f"recipe {config.recipe}",
        "<size> x <size>, <pixels / latents of VAE ...>": size + (f"latents of VAE {s.vae}" if s.vae else "pixels"),
        "<number> classes": f"{s.classes} classes",
        "generator <...>": f"generator {count / 1e6:.1f} M",
        "<averaged (EMA) / raw>, step <...>": f"averaged (EMA), step {pipe.step}",
        "<checkpoint>": "<this folder, or its name on the Hugging Face Hub>",
    }
    text = Path(__file__).with_name("model-card-template.md").read_text("utf-8")
    text = re.split(r"^---$\n+", text, maxsplit=1, flags=re.MULTILINE)[1]
    for placeholder, value in known.items():
        text = text.replace(placeholder, value)
    return f"---\nlibrary_name: catgan\ntags: [gan, image-generation]\n---\n\n{text}"
