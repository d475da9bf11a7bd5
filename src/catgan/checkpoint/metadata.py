"""What the Hugging Face Hub reads of a model card: YAML between two lines of dashes at its top."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from catgan.config import Config
from catgan.system.files import read_if_there

TASK = "unconditional-image-generation"  # the Hub's name of what takes no text: classes are numbers
# Data of recipes that the Hub has too.
DATASETS = {"fashion-mnist": "zalando-datasets/fashion_mnist"}
METRIC_TYPES = {"FID": "fid", "KID": "kid"}  # by the name that a measure has; others have their own
PROTOCOL = ("features", "samples", "psi", "weights", "class_sampling", "first_seed", "precision")


def front_matter(config: Config, title: str, evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is known of any export: library, task, tags, data sets that the Hub has, and the evaluations."""
    found = {
        "library_name": "catgan",
        "pipeline_tag": TASK,
        "tags": ["gan", "one-step", "cat", "image-generation", config.recipe],
    }
    results = [result(evaluation) for evaluation in evaluations if evaluation.get("metrics")]
    known = datasets(config)
    return (
        found
        | ({"datasets": known} if known else {})
        | ({"model-index": [{"name": title, "results": results}]} if results else {})
    )


def datasets(config: Config) -> list[str]:
    """The Hub's names of what it was trained on: of a recipe's data, or of what was prepared from there."""
    data = config.data
    if data.source in DATASETS:
        return [DATASETS[data.source]]
    prepared = read_if_there(Path(data.path) / "catgan.json") if data.source == "prepared" and data.path else {}
    source = str(prepared.get("source", ""))
    return [source.removeprefix("hf:")] if source.startswith("hf:") else []


def result(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """One evaluation as an entry of `model-index`, each metric with the protocol it was measured by."""
    protocol, names = evaluation.get("protocol", {}), evaluation.get("names", {})
    reference = Path(protocol.get("reference", {}).get("name", "unknown")).name
    how = {key: protocol[key] for key in PROTOCOL if key in protocol}
    metrics = [
        {
            "type": METRIC_TYPES.get(names.get(key, key), key),
            "name": names.get(key, key),
            "value": float(f"{value:.6g}"),
            "args": how,
        }
        for key, value in evaluation["metrics"].items()
        if math.isfinite(value)
    ]
    return {
        "task": {"type": TASK, "name": "Image generation"},
        "dataset": {"type": reference, "name": reference},
        "metrics": metrics,
    }


def licence_fields(licence: str) -> dict[str, str]:
    """A licence as the Hub has it: its identifier, which may stand before a comma, or `other` with a name."""
    if re.fullmatch(r"[A-Za-z0-9.-]+", identifier := licence.partition(",")[0].strip()):
        return {"license": identifier.lower()}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.-]+", "-", licence.lower()).strip("-")}


def picture_fields(address: str, picture: str, caption: str) -> dict[str, Any]:
    """The thumbnail of links to the model, and the example that its page shows. address: where its files are to be had."""
    return {"thumbnail": f"{address}/{picture}", "widget": [{"text": caption, "output": {"url": picture}}]}


def split(card: str) -> tuple[dict[str, Any], str]:
    """Front matter and text of a card; no front matter if it has none that can be read."""
    parts = re.match(r"---\n(.*?)^---\n+", card, re.DOTALL | re.MULTILINE)
    if not parts:
        return {}, card
    try:
        fields = yaml.safe_load(parts[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        fields = None
    return fields if isinstance(fields, dict) else {}, card[parts.end() :]


def joined(fields: Mapping[str, Any], text: str) -> str:
    """A card of front matter and text."""
    return f"---\n{yaml.dump(dict(fields), Dumper=Plain, sort_keys=False, allow_unicode=True, width=120)}---\n\n{text}"


class Plain(yaml.SafeDumper):
    """YAML without references to what was said before, which not every reader of front matter follows."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
