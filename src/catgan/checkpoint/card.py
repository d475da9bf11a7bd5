"""The model card of an exported generator: the template with what the run and its data say of themselves filled in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from catgan.checkpoint.manifest import Header
from catgan.config import Config
from catgan.config_io import attribute, differences
from catgan.networks import build_discriminator, build_generator
from catgan.recipes import RECIPES
from catgan.system.progress import clock
from catgan.version import __version__

UNTOLD = (
    "data",
    "log",
    "eval",
    "checkpoint",
    "training",
)  # fields that lines of their own tell, or that make no other model
FID_ROW = "| <FID> | | <samples, reference statistics, implementation, psi, weights, command> |\n"
ALIGNMENT_ROW = (
    "| delta, floor, excess, R, A per stage | | `catgan diagnose`, 1,000 samples, psi = 1, averaged weights |\n"
)


def model_card(header: Header, run: Path | None) -> str:
    """Markdown. run: the directory of the run that it is from, if it is there; what is not known stays to be filled in."""
    text = Path(__file__).with_name("model-card-template.md").read_text("utf-8")
    text = re.split(r"^---$\n+", text, maxsplit=1, flags=re.MULTILINE)[1]
    for placeholder, found in known(header, run).items():
        text = text.replace(placeholder, found)
    return f"---\nlibrary_name: catgan\ntags: [gan, image-generation]\n---\n\n{text}"


def known(header: Header, run: Path | None) -> dict[str, str]:
    """What placeholders of the template become."""
    c, s, about = header.config, header.config.sample, read(run, "run.json")
    with torch.device("meta"):
        sizes = {
            name: sum(p.numel() for p in build(c).parameters()) / 1e6
            for name, build in (("generator", build_generator), ("discriminator", build_discriminator))
        }
    space = f"latents of VAE {s.vae}" if s.vae else {1: "grey pixels", 3: "RGB pixels"}.get(s.channels, "latents")
    found = {
        "<name of the model>": f"{run.resolve().name if run else 'CAT'}, step {header.step}",
        "catgan <version>": f"catgan {__version__}",
        'recipe <recipe>, changes: <options or "none">': f"recipe {c.recipe}, changes: {changes(c)}",
        "<size> x <size>, <pixels / latents of VAE ...>": f"{s.size} x {s.size}, {space}",
        "<number> classes": classes(header),
        "| class-conditional image": "| class-conditional image" if s.classes > 1 else "| image",
        "generator <...>, discriminator <...>": ", ".join(f"{name} {size:.2f} M" for name, size in sizes.items()),
        "<averaged (EMA) / raw>, step <...>": f"averaged (EMA), step {header.step}",
        "<checkpoint>": "<this folder, or its name on the Hugging Face Hub>",
        "<Steps, batch, seed, hardware, time; with or without DINOv2 alignment.>": training(header, run, about),
    }
    if data := training_data(header, about):
        found["<Name and number of images, preprocessing.>"] = data
    if rows := measured(run, header.step):
        found[FID_ROW] = rows
    if rows := alignment(run, header.step):
        found[ALIGNMENT_ROW] = rows
    return found


def read(folder: Path | None, name: str) -> dict[str, Any]:
    """A JSON object of a folder; empty if it is missing or damaged."""
    try:
        content = {} if folder is None else json.loads((folder / name).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def changes(config: Config) -> str:
    """The options that make it another model than its recipe's."""
    base = RECIPES.get(config.recipe)
    if base is None:
        return "the recipe is not one of catgan"
    names = [n for n in differences(base, config) if n.partition(".")[0] not in UNTOLD]
    values = {n: attribute(config, n) for n in names}
    shown = (f"`{n} {' '.join(map(str, v)) if isinstance(v, tuple) else v}`" for n, v in values.items())
    return ", ".join(shown) or "none"


def classes(header: Header) -> str:
    """How many, and which if they are few."""
    if header.config.sample.classes == 1:
        return "unconditional"
    names = f": {', '.join(header.class_names)}" if len(header.class_names) <= 20 else ""
    return f"{header.config.sample.classes} classes{names}"


def training(header: Header, run: Path | None, about: dict[str, Any]) -> str:
    """Steps, batch, seed, hardware and time, as far as they are recorded."""
    t, aligned = header.config.training, header.config.objective.representation
    parts = [f"{header.step:,} steps of batch {t.batch}, seed {t.seed}, {t.precision}"]
    parts += [str(about["machine"])] if "machine" in about else []
    seconds, before = 0.0, 0
    for row in metrics(run):
        if "images_per_second" in row and row["step"] <= header.step:
            seconds += (row["step"] - before) * t.batch / row["images_per_second"]
            before = row["step"]
    parts += [f"{clock(seconds)} of training (h:mm:ss or m:ss)"] if seconds else []
    return "; ".join([*parts, f"with{'' if aligned else 'out'} DINOv2 alignment"]) + "."


def metrics(run: Path | None) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    try:
        lines = [] if run is None else (run / "metrics.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]
    except (OSError, ValueError):
        return []


def training_data(header: Header, about: dict[str, Any]) -> str:
    """Name, number and preprocessing of the images; empty where they are not known for sure."""
    data = header.config.data
    meta = read(Path(data.path), "catgan.json") if data.source == "prepared" and data.path else {}
    if meta and tuple(meta["classes"]) == header.class_names:
        crop = {"center": "the centre square", "resize": "the whole picture"}.get(meta["crop"], meta["crop"])
        size = f"{meta['size']} x {meta['size']}"
        return f"{Path(meta['source']).name}: {meta['samples']:,} images; {crop} of each, resized to {size}."
    return f"{about['samples']:,} samples." if "samples" in about else ""


def measured(run: Path | None, step: int) -> str:
    """A row per number of the evaluations of this step."""
    rows = []
    for path in sorted((run / "evaluations").glob("*.json")) if run else ():
        content = read(run, f"evaluations/{path.name}")
        if content.get("step") != step:
            continue
        protocol = content.get("protocol", {})
        keys = ("samples", "psi", "weights", "class_sampling")
        how = [f"{k} {protocol[k]}" for k in keys if k in protocol]
        how += (
            [f"reference {Path(str(protocol['reference'].get('name'))).name}"]
            if isinstance(protocol.get("reference"), dict)
            else []
        )
        for name, value in content.get("metrics", {}).items():
            rows.append(f"| {content.get('names', {}).get(name, name)} | {value:.4g} | {', '.join(how)} |\n")
    return "".join(rows)


def alignment(run: Path | None, step: int) -> str:
    """A row per measure of the diagnosis of this step, by `catgan diagnose` or during training."""
    diagnosis = read(run, "diagnosis/diagnosis.json")
    if diagnosis.get("protocol", {}).get("step") == step:
        values, how = (
            diagnosis,
            f"`catgan diagnose`, {diagnosis['protocol']['samples']:,} samples, psi = 1, averaged weights",
        )
    else:
        rows = [r for r in metrics(run) if r.get("step") == step and "diagnose/delta/0" in r]
        names = [n.split("/") for r in rows for n in r if n.startswith("diagnose/") and n.split("/")[2].isdecimal()]
        values = {m: [rows[-1][f"diagnose/{m}/{k}"] for _, n, k in names if n == m] for _, m, _ in names}
        how = "during training, psi = 1, averaged weights"
    measures = [m for m in ("delta", "floor", "excess", "R", "A") if m in values]
    return "".join(f"| {m} per stage | {', '.join(f'{v:.3f}' for v in values[m])} | {how} |\n" for m in measures)
