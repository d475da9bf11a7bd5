"""Packages that come with catgan's extras."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Any

from catgan.errors import UserError

# What keeps packages from reporting their use, or errors of theirs, to those who make them.
NO_REPORTS = {"HF_HUB_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1", "WANDB_ERROR_REPORTING": "false"}


def installed(module: str) -> bool:
    """Whether a module of an extra could be imported."""
    return importlib.util.find_spec(module) is not None


def need(module: str, what: str, extra: str) -> Any:
    """The module, imported without its reports. Raises UserError where it is missing: what needs it, the extra that brings it."""
    without_reports()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{what} needs {(error.name or module).partition('.')[0]}, which is not installed: pip install 'catgan[{extra}]'"
        ) from None


def without_reports() -> None:
    """Packages that are imported from now on report nothing, except where the user has set their variable otherwise.

    OpenVINO has no variable: it goes on without a package for reports that cannot be imported.
    """
    for name, value in NO_REPORTS.items():
        os.environ.setdefault(name, value)
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
