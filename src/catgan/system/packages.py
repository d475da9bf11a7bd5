"""Packages that come with catgan's extras."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from catgan.errors import UserError


def installed(module: str) -> bool:
    """Whether a module of an extra could be imported."""
    return importlib.util.find_spec(module) is not None


def need(module: str, what: str, extra: str) -> Any:
    """The module, imported. Raises UserError where it is missing: what needs it, and the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{what} needs {error.name or module}, which is not installed: pip install 'catgan[{extra}]'"
        ) from None
