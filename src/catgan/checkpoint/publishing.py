"""An exported folder made ready for others: its model card completed, with pictures and the hashes of its files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catgan.checkpoint import metadata
from catgan.checkpoint.card import HERE, LICENCE, ORIGIN, template
from catgan.config import Config
from catgan.system.files import sha256

CARD = "README.md"


@dataclass(frozen=True)
class Publication:
    """What is said of a model beyond its configuration. Empty: not said, or as its card has it already."""

    name: str  # OWNER/NAME on the Hub
    address: str  # where the Hub has its files
    loaded_as: str  # OWNER/NAME[@REVISION]
    licence: str = ""
    datasets: tuple[str, ...] = ()
    trained_on: str = ""
    evaluations: Sequence[Mapping[str, Any]] = ()


def write_publication(folder: Path, config: Config, about: Publication, pictures: Mapping[str, str]) -> None:
    """Complete the card of an exported folder, in place. pictures: captions by file, the first is the thumbnail."""
    fields, text = metadata.split((folder / CARD).read_text("utf-8"))
    origin = about.trained_on or ", ".join(f"data set `{name}`" for name in about.datasets)
    text = completed(
        text, about.name, about.licence, f"{origin[:1].upper()}{origin[1:].rstrip('.')}." if origin else ""
    )
    text = re.sub(r"^## (?:Samples|Files)\n.*?(?=^## |\Z)", "", text, flags=re.DOTALL | re.MULTILINE).rstrip()
    text = re.sub(r'from_pretrained\("[^"]*"', f'from_pretrained("{about.loaded_as}"', text)
    if about.licence:
        row = f"| licence of the weights | {about.licence} |"
        text = re.sub(r"^\| licence of the weights \|.*", lambda _: row, text, flags=re.MULTILINE)
    shown = "\n\n".join(f"![{caption}]({name})\n\n{caption}." for name, caption in pictures.items())
    text = f"{text}\n\n## Samples\n\n{shown}\n\n## Files\n\n{hashes(folder)}"
    (folder / CARD).write_text(metadata.joined(completed_fields(fields, config, about, pictures), text), "utf-8")


def completed_fields(
    fields: Mapping[str, Any], config: Config, about: Publication, pictures: Mapping[str, str]
) -> dict[str, Any]:
    """Front matter: what is there stays, unless it is said anew; tags are joined."""
    made = metadata.front_matter(config, about.name.rpartition("/")[2], about.evaluations)
    own = {key: value for key, value in fields.items() if key != "model-index" or key not in made}
    tags = fields.get("tags")
    own["tags"] = list(dict.fromkeys([*made["tags"], *(map(str, tags) if isinstance(tags, list) else ())]))
    said: dict[str, Any] = {**metadata.licence_fields(about.licence)} if about.licence else {}
    if said:
        own = {key: value for key, value in own.items() if not key.startswith("license")}
    said |= {"datasets": list(about.datasets)} if about.datasets else {}
    first, caption = next(iter(pictures.items()))
    return made | own | said | metadata.picture_fields(about.address, first, caption)


def hashes(folder: Path) -> str:
    """A table of the files beside the card, with their sizes and SHA-256."""
    files = [path for path in sorted(folder.iterdir()) if path.name != CARD]
    rows = (f"| `{path.name}` | {path.stat().st_size:,} | `{sha256(path)}` |\n" for path in files)
    return "| file | bytes | SHA-256 |\n|---|---|---|\n" + "".join(rows)


def completed(card: str, name: str, licence: str, trained_on: str) -> str:
    """The text of a card with what is told of the model, and without what is still to be filled in. Empty: not told."""
    told = {
        HERE: name,
        LICENCE: f"licence of the weights | {licence}" if licence else "",
        ORIGIN: trained_on,
        "Recommended psi: <...>. Lower values": "Lower values of psi",
    }
    for placeholder, text in told.items():
        card = card.replace(placeholder, text or placeholder)
    left = "|".join(map(re.escape, sorted(re.findall(r"<[^>]*>", template()), key=len, reverse=True)))
    card = re.sub(rf"^\|.*(?:{left}).*\n", "", card, flags=re.MULTILINE)  # rows
    card = re.sub(rf"[A-Z][\w ]*: <\.\.\.>\. |,? ?(?:{left})", "", card)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"^-? *\n", "\n", card, flags=re.MULTILINE))
