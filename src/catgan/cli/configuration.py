"""Configurations on the command line: what they start from, the options over that, and the options that say the same."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from catgan.cli.parse import parse
from catgan.config import Config
from catgan.config_io import attribute, differences, load_yaml
from catgan.errors import UserError
from catgan.recipes import RECIPES, recipe
from catgan.shipped import choices, located

# Short names of the options that are used most.
SHORT = {
    "--steps": "--training.steps",
    "--batch": "--training.batch",
    "--micro-batch": "--training.micro-batch",
    "--seed": "--training.seed",
    "--device": "--training.device",
    "--precision": "--training.precision",
    "--init-from": "--training.init-from",
}
LONG = {long: short for short, long in SHORT.items()}


@dataclass(frozen=True)
class ConfigurationOptions:
    """Options of commands about a configuration."""

    start: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
    """Recipe, run directory, checkpoint, exported folder, or full name of a model of `catgan models`."""
    settings: Annotated[Config, tyro.conf.arg(name="")]
    config: str | None = None
    """YAML file with some or all fields, over those of the recipe or run."""
    json: bool = False
    """Print JSON."""


T = TypeVar("T", bound=ConfigurationOptions)


def recipe_first(argv: Sequence[str], command: str, usage: str) -> tuple[str, list[str]]:
    """The recipe, and the arguments after it. Prints the usage and exits where there is none."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{usage}\nAll options with the values of a recipe: catgan {command} RECIPE --help")
        raise SystemExit(0)
    name, *rest = argv
    if name.startswith("-"):
        raise UserError(f"the recipe comes first: catgan {command} RECIPE {name} ...")
    return name, rest


def split_own(
    argv: Sequence[str], command: str, own: Mapping[str, str | bool | None]
) -> tuple[argparse.Namespace, list[str]]:
    """The options that are the command's own, given with their defaults (False: a flag), and the rest."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option, default in own.items():
        parser.add_argument(option, default=default, action="store_true" if default is False else "store")
    try:
        return parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(f"{error}; see catgan {command} --help") from None


def parse_configuration(options: type[T], argv: Sequence[str], command: str, description: str) -> T:
    """The command's options, and in `settings` the configuration: options over --config over the first argument.

    Raises UserError for mistakes; prints help and exits for --help.
    """
    positional = bool(argv) and not argv[0].startswith("-")
    if not positional and not {"-h", "--help"} & set(argv):
        raise UserError(f"the recipe or run comes first: catgan {command} " + " ".join(["RECIPE", *argv]))
    start = argv[0] if positional else next(iter(RECIPES))
    file = split_own(argv, command, {"--config": None})[0].config
    base = starting_point(start)
    default = options(start, over(base, file) if file else base)
    result = parse(options, expanded(argv), command, default, description)
    result.settings.validate()
    return result


def starting_point(name: str) -> Config:
    """The configuration of a recipe, run directory, checkpoint, exported folder or, by its full name, shipped model.

    Raises UserError for anything else.
    """
    if name in RECIPES:
        return recipe(name)
    path = located(Path(name))
    if not path.exists():
        raise UserError(
            f"{name} does not exist: must be a recipe ({', '.join(RECIPES)}), a run directory, a checkpoint, an exported "
            f"folder or {choices(path, RECIPES)}"
        )
    if (path / "config.yaml").is_file():
        return load_yaml(path / "config.yaml")

    from catgan.checkpoint.export import opened

    return opened(path)[1].config


def over(base: Config, file: str) -> Config:
    """A configuration with the fields of a YAML file. Raises UserError for a file of another recipe."""
    config = load_yaml(Path(file), base)
    if config.recipe != base.recipe:
        raise UserError(f"{file} is for recipe {config.recipe}, not {base.recipe}: name {config.recipe} instead")
    return config


def expand(option: str) -> str:
    """A short option to its full name, with or without `=value`."""
    name, equals, value = option.partition("=")
    return SHORT.get(name, name) + equals + value


FLAGS = (
    "--training.compile",
    "--training.cuda-graph",
)  # true or false, or what the device has: flags with --no- that may have a value too
CHOICES = {"true": "True", "false": "False", "none": "None", "null": "None"}


def expanded(options: Sequence[str]) -> list[str]:
    """Options by their full names, and the value of `FLAGS` that are given without one."""
    found, rest = list[str](), list(options)
    while rest:
        option = rest.pop(0)
        name, equals, value = option.partition("=")
        section, _, field = name.replace("_", "-").rpartition(".")
        flag = f"{section}.{field.removeprefix('no-')}"
        if flag not in FLAGS:
            found.append(expand(option))
        elif field.startswith("no-"):
            found += [flag, "False"]
        elif equals:
            found += [flag, CHOICES.get(value.lower(), value)]
        else:
            given = rest and rest[0].lower() in CHOICES
            found += [flag, CHOICES[rest.pop(0).lower()] if given else "True"]
    return found


def as_options(config: Config) -> list[str]:
    """The options of `catgan train` with which its recipe becomes this configuration."""
    found = []
    for name in differences(recipe(config.recipe), config):
        value = attribute(config, name)
        if value is False:
            section, _, field = name.rpartition(".")
            name, values = f"{section}.no_{field}", []
        else:
            values = [] if value is True else list(value) if isinstance(value, tuple) else [value]
        option = "--" + name.replace("_", "-")
        found += [LONG.get(option, option), *map(str, values)]
    return found
