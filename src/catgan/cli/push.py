"""`catgan push RUN OWNER/NAME`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from catgan.cli.parse import parse

DESCRIPTION = """Publish the averaged generator of a run on the Hugging Face Hub. Without --yes it lists the files, and sends nothing.

The files are those of catgan export, with sheet.png (first seeds, not selected), stages.png, and a model card that has
pictures, evaluations and hashes. What is not known is left out of the card; to write it yourself, export, complete
README.md and push the folder. A repository that is there gets one more commit: nothing is deleted.

  catgan push runs/digits me/digits --licence mit
  catgan push runs/digits me/digits --licence mit --private --yes
"""


@dataclass(frozen=True)
class PushOptions:
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory (its latest checkpoint), checkpoint, exported folder, or a model of `catgan models`."""
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OWNER/NAME")]
    """Repository; it is made if it is not there."""
    yes: bool = False
    """Upload."""
    private: bool = False
    """Make a new repository that only its owner sees."""
    licence: str = ""
    """Licence of the weights, for the card: an identifier of the Hub, as mit, or a name."""
    dataset: tuple[str, ...] = ()
    """Data sets that it was trained on, for the card, by their names on the Hub."""
    discriminator: bool = False
    """Also the discriminator: with it the model can be fine-tuned."""
    vae: str | None = None
    """Name another VAE than the run's configuration: folder or Hugging Face name."""
    message: str = ""
    """Message of the commit; default: recipe and step."""
    revision: str | None = None
    """Branch; default: main. It is made if it is not there."""


def main(argv: Sequence[str]) -> None:
    o = parse(PushOptions, argv, "push", description=DESCRIPTION)

    from catgan.sampling import hub
    from catgan.sampling.pipeline import load

    hub.check_name(o.name)
    pipe = load(o.run, vae=o.vae)
    with pipe.prepared_push(o.name, o.licence, o.dataset, o.discriminator, o.revision) as folder:
        print(listing(folder, hub.address(o.name, o.revision, "blob")))
        for line in [*missing(folder), *local_names(folder)]:
            print(line)
        if not o.yes:
            print(f"nothing was sent\nnext: add --yes to upload: {shlex.join(['catgan', 'push', *argv, '--yes'])}")
            return
        done = hub.upload(folder, o.name, o.private, o.message or pipe.push_message, o.revision)
    print(f"{done.url}  commit {done.commit}" + ("" if done.new else ", added to what was there; nothing was deleted"))
    print(usage(o.name, o.revision))


def listing(folder: Path, address: str) -> str:
    """Every file with its size and where it goes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    width = max(len(f"{path.stat().st_size:,}") for path in files)
    return "\n".join(f"{path.stat().st_size:{width},} bytes  {address}/{path.relative_to(folder)}" for path in files)


def missing(folder: Path) -> list[str]:
    """What the card does not say, and how to say it."""
    from catgan.checkpoint.metadata import split
    from catgan.checkpoint.publishing import CARD

    fields, _ = split((folder / CARD).read_text("utf-8"))
    wanted = {
        "license": "licence: --licence",
        "datasets": "data sets: --dataset",
        "model-index": "evaluation: catgan evaluate RUN",
    }
    return [f"the card has no {told}" for field, told in wanted.items() if field not in fields]


def local_names(folder: Path) -> list[str]:
    """What config.json tells of this machine's folders; others can read it, but load nothing from there."""
    config = json.loads((folder / "config.json").read_text("utf-8"))["config"]
    return [
        f"config.json names a folder of this machine: {group}.{field} {value}"
        for group, fields in config.items()
        if isinstance(fields, dict)
        for field, value in fields.items()
        if isinstance(value, str) and Path(value).is_absolute()
    ]


def usage(name: str, revision: str | None) -> str:
    """The three lines that load it."""
    more = f', revision="{revision}"' if revision else ""
    return (
        f'import catgan\npipe = catgan.CATPipeline.from_pretrained("{name}"{more})\n'
        'pipe(classes=[0], seeds=[0]).images[0].save("sample.png")'
    )
