"""Configurations as nested dictionaries and as YAML, and what two of them differ in."""

from __future__ import annotations

import dataclasses
import operator
import types
import typing
from pathlib import Path
from typing import Any, Literal

import yaml

from catgan.config import Config
from catgan.errors import UserError, brief
from catgan.metrics import RENAMED

FORMAT_VERSION = 2  # of config.yaml and of exported models

# Fields that `--resume` may change: but for the batch they do not touch the numbers that training computes, up to
# rounding. The data goes on at the same sample. Of the encoder a checkpoint remembers the weights, whatever their path.
RESUMABLE = (
    "training.steps", "training.batch", "training.micro_batch", "training.parallel", "training.recompute",
    "training.compile", "training.cuda_graph", "training.device", "training.threads", "training.timeout", "training.reuse_fakes",
    "data.path", "data.workers", "log", "eval", "checkpoint", "sample.vae", "encoder.path",
    "vision.path",
)  # fmt: skip


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested plain dictionaries (tuples become lists), ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return list(value) if isinstance(value, tuple) else value

    return {"format": FORMAT_VERSION, **plain(config)}


def from_dict(values: dict[str, Any], base: Config | None = None, where: str = "configuration") -> Config:
    """Build a Config from nested dictionaries; fields not named keep the values of `base`.

    Raises UserError for an unknown field, a value of the wrong type or a newer format.
    """
    if isinstance(values, dict):
        values = dict(values)
        version = values.pop("format", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise UserError(
                f"{where}: format is {brief(version)}: this catgan reads {FORMAT_VERSION}; install the version that wrote it"
            )
    config: Config = _merge(base or Config(), values, "", where)
    return config


def _merge(base: Any, values: Any, prefix: str, where: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(
            f"{where}: {prefix.rstrip('.') or 'the file'} is {brief(values)}: must be a mapping of field: value"
        )
    hints = typing.get_type_hints(type(base))
    changes = {}
    for name, value in values.items():
        if name not in hints:
            known = ", ".join(f.name for f in dataclasses.fields(base))
            raise UserError(f"{where}: unknown field {prefix}{name}; known here: {known}")
        current = getattr(base, name)
        if dataclasses.is_dataclass(current):
            changes[name] = _merge(current, value, f"{prefix}{name}.", where)
        else:
            changes[name] = _coerce(value, hints[name], f"{prefix}{name}", where)
    return dataclasses.replace(base, **changes)


def _coerce(value: Any, hint: Any, name: str, where: str) -> Any:
    """The value as the type of its field; lenient where YAML is (1e-3 is a string there, 1 may stand for 1.0)."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    error = UserError(f"{where}: {name} is {brief(value)}: must be {_describe(hint)}")
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _coerce(value, next(a for a in args if a is not type(None)), name, where)
    if origin is Literal:
        if value not in args:
            now = RENAMED.get(str(value))
            raise UserError(f"{error}; {value} is now {now}") if now in args else error
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise error
        return tuple(_coerce(v, args[0], name, where) for v in value)
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            raise error from None
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise error
    return value


def _describe(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple:
        return f"a list of {_describe(args[0])}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if a is type(None) else _describe(a) for a in args)
    return {int: "an integer", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))


def with_values(config: Config, values: dict[str, Any]) -> Config:
    """The configuration with other values of the fields of these dotted names. Raises UserError for what does not fit."""
    for name, value in values.items():
        nested: Any = value
        for part in reversed(name.split(".")):
            nested = {part: nested}
        config = from_dict(nested, config)
    return config


def load_yaml(path: Path, base: Config | None = None) -> Config:
    """Read a YAML file of (some) fields over `base`. Raises UserError for anything that does not fit."""
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, and dates that there are not
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    return from_dict(values or {}, base, str(path))


def dump_yaml(config: Config) -> str:
    """The whole configuration as YAML text."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def differences(old: Config, new: Config) -> list[str]:
    """Dotted names of the fields in which two configurations differ."""

    def walk(a: Any, b: Any, prefix: str) -> list[str]:
        names: list[str] = []
        for f in dataclasses.fields(a):
            x, y = getattr(a, f.name), getattr(b, f.name)
            if dataclasses.is_dataclass(x):
                names += walk(x, y, f"{prefix}{f.name}.")
            elif x != y:
                names.append(prefix + f.name)
        return names

    return walk(old, new, "")


def attribute(config: Config, name: str) -> Any:
    """The value of a dotted field name."""
    return operator.attrgetter(name)(config)
