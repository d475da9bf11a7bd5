"""The model card of an exported generator: the template with what the run and its data say of themselves filled in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from catgan.checkpoint import metadata
from catgan.checkpoint.manifest import Header
from catgan.config import Config
from catgan.config_io import attribute, differences
from catgan.networks import build_discriminator, build_generator
from catgan.recipes import RECIPES
from catgan.system.files import read_if_there, read_rows
from catgan.system.progress import clock
from catgan.version import __version__

UNTOLD = ("data", "log", "eval", "checkpoint", "training")  # told in lines of their own, or of no effect on the model
HERE = "<this folder, or its name on the Hugging Face Hub>"
LICENCE, ORIGIN = "licence of the weights | <...>", "<Version, source, licence, how they were selected and labelled.>"
FID_ROW = "| <FID> | | <samples, reference statistics, implementation, psi, weights, command> |\n"
ALIGNMENT_ROW = (
    "| delta, floor, excess, R, A per stage | | `catgan diagnose`, 1,000 samples, psi = 1, averaged weights |\n"
)


def model_card(header: Header, run: Path | None, name: str = "") -> str:
    """Markdown. run: the directory of the run that it is from, if it is there; what is not known stays to be filled in.
    name: of the model, by default that of the run's directory."""
    text, name = template(), name or (run.resolve().name if run else "CAT")
    for placeholder, found in known(header, run, name).items():
        text = text.replace(placeholder, found or placeholder)
    title = re.sub(r"^# ", "", text.splitlines()[0])
    return metadata.joined(metadata.front_matter(header.config, title, evaluations(run, header.step)), text)


def template() -> str:
    """The card with all that is to be filled in."""
    text = Path(__file__).with_name("model-card-template.md").read_text("utf-8")
    return re.split(r"^---$\n+", text, maxsplit=1, flags=re.MULTILINE)[1]


def known(header: Header, run: Path | None, name: str) -> dict[str, str]:
    """What placeholders of the template become; empty where that is not known."""
    c, s = header.config, header.config.sample
    about = read_if_there(run / "run.json") if run else {}
    logged = read_rows(run / "metrics.jsonl") if run else []
    rows = [r for r in logged if isinstance(r.get("step"), int) and r["step"] <= header.step]
    with torch.device("meta"):
        networks = {"generator": build_generator(c), "discriminator": build_discriminator(c)}
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    space = f"latents of VAE {s.vae}" if s.vae else {1: "grey pixels", 3: "RGB pixels"}.get(s.channels, "latents")
    return {
        "<name of the model>": f"{name}, step {header.step}",
        "catgan <version>": f"catgan {__version__}",
        'recipe <recipe>, changes: <options or "none">': f"recipe {c.recipe}, changes: {changes(c)}",
        "<size> x <size>, <pixels / latents of VAE ...>": f"{s.size} x {s.size}, {space}",
        "<number> classes": classes(header),
        "| class-conditional image": "| class-conditional image" if s.classes > 1 else "| image",
        "generator <...>, discriminator <...>": ", ".join(f"{name} {n / 1e6:.2f} M" for name, n in sizes.items()),
        "<averaged (EMA) / raw>, step <...>": f"averaged (EMA), step {header.step}",
        "<checkpoint>": HERE,
        "<Steps, batch, seed, hardware, time; with or without DINOv2 alignment.>": training(header, about, rows),
        "<Name and number of images, preprocessing.>": training_data(header, about),
        FID_ROW: measured(run, header.step) if run else "",
        ALIGNMENT_ROW: alignment(run, header.step, rows) if run else "",
    }


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


def training(header: Header, about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Steps, batch, seed, hardware and time, as far as they are recorded."""
    t, aligned = header.config.training, header.config.objective.representation
    parts = [f"{header.step:,} steps of batch {t.batch}, seed {t.seed}, {t.precision}"]
    parts += [str(about["machine"])] if "machine" in about else []
    seconds = training_seconds(rows, t.batch)
    parts += [] if math.isnan(seconds) else [f"{clock(seconds)} of training (h:mm:ss or m:ss)"]
    return "; ".join([*parts, f"with{'' if aligned else 'out'} DINOv2 alignment"]) + "."


def training_seconds(rows: Sequence[Mapping[str, float]], batch: int) -> float:
    """Training time from the throughput that metrics.jsonl has; nan if it has none."""
    logged = [{"step": 0.0}, *(row for row in rows if "images_per_second" in row)]
    seconds = [(b["step"] - a["step"]) * batch / b["images_per_second"] for a, b in pairwise(logged)]
    return sum(seconds) if seconds else math.nan


def training_data(header: Header, about: dict[str, Any]) -> str:
    """Name, number and preprocessing of the images; empty where they are not known for sure."""
    data = header.config.data
    meta = read_if_there(Path(data.path) / "catgan.json") if data.source == "prepared" and data.path else {}
    if meta and tuple(meta["classes"]) == header.class_names:
        crop = {"center": "the centre square", "resize": "the whole picture"}[meta["crop"]]
        size = f"{meta['size']} x {meta['size']}"
        return f"{Path(meta['source']).name}: {meta['samples']:,} images; {crop} of each, resized to {size}."
    return f"{about['samples']:,} samples." if "samples" in about else ""


def evaluations(run: Path | None, step: int) -> list[dict[str, Any]]:
    """The evaluations of this step that a run has."""
    results = map(read_if_there, sorted((run / "evaluations").glob("*.json")) if run else ())
    return [result for result in results if result.get("step") == step]


def measured(run: Path, step: int) -> str:
    """A row per number of the evaluations of this step."""
    rows = []
    for result in evaluations(run, step):
        protocol, names = result.get("protocol", {}), result.get("names", {})
        keys = ("samples", "psi", "weights", "class_sampling")
        how = [f"{k} {protocol[k]}" for k in keys if k in protocol]
        how += [f"reference {Path(protocol['reference']['name']).name}"] if "reference" in protocol else []
        how += result.get("warnings", [])
        for name, value in result.get("metrics", {}).items():
            rows.append(f"| {names.get(name, name)} | {value:.4g} | {', '.join(how)} |\n")
    return "".join(rows)


def alignment(run: Path, step: int, rows: list[dict[str, Any]]) -> str:
    """A row per measure of the diagnosis of this step, by `catgan diagnose` or during training."""
    measures = ("delta", "floor", "excess", "R", "A")
    values, how = read_if_there(run / "diagnosis" / "diagnosis.json"), "psi = 1, averaged weights"
    if values.get("protocol", {}).get("step") == step:
        how = f"`catgan diagnose`, {values['protocol']['samples']:,} samples, {how}"
    else:
        last = {name: v for row in rows for name, v in row.items() if row["step"] == step}
        values = {m: [v for name, v in last.items() if re.fullmatch(rf"diagnose/{m}/\d+", name)] for m in measures}
        how = f"during training, {how}"
    shown = ((m, ", ".join(f"{v:.3f}" for v in values[m])) for m in measures if values.get(m))
    return "".join(f"| {m} per stage | {numbers} | {how} |\n" for m, numbers in shown)
