"""`catgan ship RUN NAME`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from catgan.cli.configuration import as_options
from catgan.cli.parse import parse
from catgan.errors import UserError
from catgan.recipes import RECIPES
from catgan.shipped import ABOUT, DEFAULT_TAGS, FOLDER

if TYPE_CHECKING:
    from catgan.checkpoint.manifest import Header

DESCRIPTION = """Put a run's weights into the package, for those who release it: RECIPE.TAG becomes a name that commands take.

Averaged generator and discriminator, the evaluations of this step in the run, how it came about, and golden samples. What
is there under the name is replaced, but only if the stored weights give the run's golden samples.

  catgan evaluate runs/digits --features classifier
  catgan ship runs/digits digits.sklearn
"""


@dataclass(frozen=True)
class ShipOptions:
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory (its latest checkpoint) or checkpoint."""
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """RECIPE.TAG, the tag for what it was trained on."""
    licence: str | None = None
    """Licence of the weights; default: that of the weights that are replaced."""
    trained_on: str | None = None
    """Name, origin and licence of the data; default: as of the weights that are replaced."""
    commit: str | None = None
    """Commit that trained it; default: that of this checkout."""
    precision: Literal["float16", "float32"] = "float16"
    """Number format of the stored weights."""
    out: Path = FOLDER
    """Folder that the model's folder goes to; default: the package's."""


def main(argv: Sequence[str]) -> None:
    o = parse(ShipOptions, argv, "ship", description=DESCRIPTION)

    from catgan.checkpoint.export import opened
    from catgan.sampling.shipping import ship
    from catgan.studies.perform import checkout
    from catgan.system.files import read_if_there

    source, header, _ = opened(o.run)
    recipe, _, tag = o.name.partition(".")
    if recipe != header.config.recipe or recipe not in RECIPES or not tag.isidentifier():
        raise UserError(f"name is {o.name}: must be {header.config.recipe}.TAG, the recipe of the run and a word")
    before = read_if_there(o.out / o.name / ABOUT)
    licence, trained_on = o.licence or before.get("licence"), o.trained_on or before.get("trained_on")
    for option, value in (("--licence", licence), ("--trained-on", trained_on)):
        if not value:
            raise UserError(f"{option} is not set: there is no {o.name} yet that it could be taken from")
    run = source.parent.parent
    about, (commit, changed) = read_if_there(run / "run.json"), checkout()
    results = map(read_if_there, sorted((run / "evaluations").glob("*.json")))
    evaluations = [
        {key: r[key] for key in ("metrics", "names", "protocol")} for r in results if r.get("step") == header.step
    ]
    if not evaluations:
        raise UserError(f"{run} has no evaluation of step {header.step}: catgan evaluate {run} makes one")
    record = {
        "command": "; then ".join(commands(header)),
        "commit": o.commit or f"{commit}{' with changes' if changed else ''}",
        "seed": header.config.training.seed,
        "step": header.step,
        **{name: about.get(name, "unknown") for name in ("machine", "catgan", "torch", "python")},
    }
    assert licence is not None
    assert trained_on is not None
    made = ship(source, o.out / o.name, licence, trained_on, evaluations, record, o.precision == "float16")
    size = sum(file.stat().st_size for file in made.iterdir()) / 1e6
    print(f"{made}  {size:.2f} MB")
    if recipe not in DEFAULT_TAGS:
        print(f"next: say in catgan.shipped.DEFAULT_TAGS that {recipe} alone means {o.name}")


def commands(header: Header) -> list[str]:
    """What was called, first to last: the run up to this step, after the runs whose weights it started from, as far as they
    are there."""
    from catgan.checkpoint.export import opened

    config, before = header.config, list[str]()
    if start := config.training.init_from:
        try:
            before = commands(opened(Path(start))[1])
        except UserError:
            before = [f"(what made {start})"]
    config = replace(config, training=replace(config.training, steps=header.step))
    return [*before, shlex.join(["catgan", "train", config.recipe, *as_options(config)])]
