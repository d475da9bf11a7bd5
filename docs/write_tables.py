"""The tables of the documentation that say what the code says: `python docs/write_tables.py` writes them into their pages.

A table stands between `<!-- NAME: python docs/write_tables.py -->` and `<!-- end -->`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Callable
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import tyro

from catgan import config, metrics
from catgan.accounting.compute import compute
from catgan.bounds import Allowed
from catgan.cli.compute import number
from catgan.cli.configuration import ConfigurationOptions
from catgan.cli.main import COMMANDS
from catgan.config_io import to_dict
from catgan.recipes import RECIPES

DOCS = Path(__file__).parent
SEE = {  # pages with more about a group
    "data": "[Data](data.md)",
    "sample": "[Method](method.md)",
    "augment": "[Method](method.md#what-the-paper-leaves-open)",
    "encoder": "[Pretrained encoders](encoders.md)",
    "vision": "[Pixels and vision-aided heads](pixels.md)",
    "training": "[Several processes](distributed.md)",
    "log": "[Diagnostics](method.md#diagnostics), [GPUs](plan.md#gpus)",
    "eval": "[Evaluation](evaluation.md#during-training)",
    "checkpoint": "[Training](training.md#checkpoints)",
}

DATA = {
    "latents": "ImageNet-256",
    "digits": "scikit-learn's digits",
    "fashion-mnist": "Fashion-MNIST",
    "prepared": "your own",
}

FURTHER = "Further options are the fields of the [configuration](configuration.md)."

# -- fields ------------------------------------------------------------------------------------------------------------


def fields() -> str:
    """A section for each group: its fields with types, defaults and meanings."""
    comments = field_comments(config.__file__)
    sections = []
    for group, defaults in groups(config.Config()).items():
        kind = type(getattr(config.Config(), group))
        hints = typing.get_type_hints(kind, include_extras=True)
        about = kind.__doc__ or ""
        head = [f"### {group}", " ".join([*([about] if not about.startswith(kind.__name__) else []), *see(group)])]
        rows = [
            (f"`{name}`", type_words(hints[name]), value(default), plain(comments[kind.__name__, name]))
            for name, default in defaults.items()
        ]
        sections += [*(part for part in head if part), table(("field", "type", "default", "meaning"), rows)]
    return "\n\n".join(sections)


def see(group: str) -> list[str]:
    return [f"See {SEE[group]}."] if group in SEE else []


def field_comments(file: str) -> dict[tuple[str, str], str]:
    """The text under each field of the dataclasses of a module, by class and field."""
    found = {}
    for node in ast.parse(Path(file).read_text()).body:
        if isinstance(node, ast.ClassDef):
            for line, below in zip(node.body, node.body[1:], strict=False):
                if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
                    found[node.name, line.target.id] = " ".join(ast.literal_eval(below.value).split())
    return found


def plain(text: str) -> str:
    """A comment for people who write YAML."""
    return re.sub(r"\bNone\b", "null", text)


def type_words(hint: Any) -> str:
    """A type hint in words: `int, at least 1`."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        words = [rule.words for rule in hint.__metadata__ if isinstance(rule, Allowed)]
        return ", ".join([type_words(inside[0]), *words])
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in inside)
    if origin is tuple:
        return f"list of {type_words(inside[0])}"
    if origin in (types.UnionType, typing.Union):
        words = ["null" if part is type(None) else type_words(part) for part in inside]
        return (", or " if "," in words[0] else " or ").join(words)
    return {str: "text", bool: "true or false", Path: "path"}.get(hint, hint.__name__)


# -- commands ----------------------------------------------------------------------------------------------------------


def commands() -> str:
    """A section for each command: what it does, its examples and its options."""
    return "\n\n".join(f"## catgan {name}\n\n{command(import_module(f'catgan.cli.{name}'))}" for name in COMMANDS)


def command(module: types.ModuleType) -> str:
    """What the help of a command says, as Markdown."""
    if usage := getattr(module, "USAGE", None):
        return f"```text\n{usage.strip()}\n```\n\n{FURTHER}"
    options = next(
        found
        for found in vars(module).values()
        if dataclasses.is_dataclass(found) and (found.__module__ == module.__name__ or found is ConfigurationOptions)
    )
    return f"{description(module.DESCRIPTION)}\n\n{option_table(options)}"


def description(text: str) -> str:
    """A description with its indented lines, which are examples, as blocks for a shell."""
    blocks = []
    for indented, lines in groupby(text.strip("\n").splitlines(), lambda line: line.startswith("  ")):
        block = textwrap.dedent("\n".join(lines)).strip("\n")
        blocks += [f"```sh\n{block}\n```" if indented else block]
    return "\n\n".join(block for block in blocks if block)


def option_table(options: type) -> str:
    """The arguments and options of a command, from the dataclass that they are parsed into."""
    comments = {
        name: text
        for kind in reversed(options.__mro__[:-1])
        for (owner, name), text in field_comments(inspect.getfile(kind)).items()
        if owner == kind.__name__
    }
    hints, rows = typing.get_type_hints(options, include_extras=True), []
    for field in dataclasses.fields(options):
        hint = hints[field.name]
        marks = getattr(hint, "__metadata__", ())
        if tyro.conf.Suppress in marks or (marks and typing.get_args(hint)[0] is config.Config):
            continue  # no option, or said once, on the page about it
        words = {name: text for mark in marks for name in ("metavar", "help") if (text := getattr(mark, name, None))}
        name = words["metavar"] if tyro.conf.Positional in marks else f"--{field.name.replace('_', '-')}"
        meaning = (comments.get(field.name) or words["help"]).replace("|", "\\|")
        values = "flag" if hint is bool else re.sub(",? or null$", "", type_words(hint))
        rows.append((f"`{name}`", values, default(field), meaning))
    rows.sort(key=lambda row: row[0].startswith("`-"))  # arguments first
    more = f"\n\n{FURTHER}" if issubclass(options, ConfigurationOptions) else ""
    return table(("", "values", "default", "meaning"), rows) + more


def default(field: dataclasses.Field[Any]) -> str:
    """The default of an option as it is typed; nothing for one that stands for absence."""
    found = field.default
    if found is dataclasses.MISSING:
        return "required"
    if found in (None, (), False):
        return ""
    if found is True:
        return "on"
    if isinstance(found, Path) and found.is_absolute():
        found = found.relative_to(DOCS.parent)
    return f"`{' '.join(map(str, found)) if isinstance(found, tuple) else found}`"


# -- recipes, metrics --------------------------------------------------------------------------------------------------


def recipes() -> str:
    """The fields in which recipes differ."""
    flat = {
        name: {f"{g}.{f}": v for g, fields in groups(c).items() for f, v in fields.items()}
        for name, c in RECIPES.items()
    }
    names = [f for f in flat["cat-b2"] if len({json.dumps(values[f]) for values in flat.values()}) > 1]
    rows = [(f"`{f}`", *(value(values[f]) for values in flat.values())) for f in names]
    return table(("field", *(f"`{name}`" for name in flat)), rows)


def sizes() -> str:
    """What each recipe trains on, and how large its networks are."""
    rows = []
    for name, c in RECIPES.items():
        found, s = compute(c), c.sample
        networks = [found[network] for network in ("generator", "discriminator")]
        kind = {1: "grey", 3: "RGB"}.get(s.channels, "latents")
        data = DATA[c.data.source]
        rows.append(
            (
                f"`{name}`",
                f"{data}, {s.size}x{s.size} {kind}",
                *(f"{n['parameters'] / 1e6:.1f} M" for n in networks),
                ", ".join(number(n["gmacs"]) for n in networks),
            )
        )
    return table(("recipe", "data", "generator", "discriminator", "forward GMACs (G, D)"), rows)


def measures() -> str:
    """What each metric measures, by which numbers, and what it needs."""
    needs = {"rows": "images as reference", "logits": "features with classes", "by_class": "classes on both sides"}
    needs["names_classes"] = "classes, `--features classifier`"
    rows = []
    for name, metric in metrics.METRICS.items():
        numbers = ", ".join(
            f"`{n}`" + (f" ({m.better} is better)" if m.better else "") for n, m in metric.numbers.items()
        )
        needed = [words for attribute, words in needs.items() if getattr(metric, attribute)]
        needed += [f"`--features {metric.features}`"] if metric.features else []
        package = [(metric.package or "").replace("_", "-")] if metric.package else []
        rows.append((f"`{name}`", metric.about, numbers, ", ".join(needed + package)))
    return table(("`--metrics`", "what", "numbers", "needs"), rows)


def parity() -> str:
    """What `benchmarks/parity.py` found."""
    return (DOCS.parent / "records" / "parity" / "fashion-mnist.md").read_text().strip()


# -- pages -------------------------------------------------------------------------------------------------------------


def groups(c: config.Config) -> dict[str, dict[str, Any]]:
    return {group: found for group, found in to_dict(c).items() if isinstance(found, dict)}


def value(found: object) -> str:
    return f"`{found if isinstance(found, str) else json.dumps(found)}`"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in [head, *rows]]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def campaign(name: str) -> Callable[[], str]:
    """The table of a campaign's record."""
    return lambda: (DOCS.parent / "records" / "reliability" / f"{name}.md").read_text().rstrip()


TABLES = {
    "commands.md": {"commands": commands},
    "configuration.md": {"fields": fields, "sizes": sizes, "recipes": recipes},
    "evaluation.md": {"metrics": measures, "parity": parity},
    "reliability.md": {
        name: campaign(name)
        for name in ("kills", "tools", "fuzz", "studio-input", "atheris", "hosts", "long", "studio")
    },
}


def filled(page: str) -> str:
    """The text of a page with its tables as they should be. Raises ValueError for one that has no place for them."""
    text = (DOCS / page).read_text()
    for name, make in TABLES[page].items():
        begin, end = f"<!-- {name}: python docs/write_tables.py -->", "<!-- end -->"
        between = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if not between.search(text):
            raise ValueError(f"{page} has no {begin} ... {end}")
        written = f"{begin}\n\n{make()}\n\n{end}"
        text = between.sub(lambda _, written=written: written, text)
    return text


def main() -> None:
    for page in TABLES:
        (DOCS / page).write_text(filled(page))


if __name__ == "__main__":
    main()
