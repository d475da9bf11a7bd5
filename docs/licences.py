"""The licences of what catgan needs: `python docs/licences.py` lists them, as the installed packages state them.

It ends with 1 if a package of the core, or one that the core needs in turn, has no licence that is known to be permissive.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
PERMISSIVE = re.compile(
    r"(the )?(mit|mit-cmu|.*\bbsd\b.*|0bsd|apache.*|isc\b.*|psf-2.0|python software foundation.*|zlib|cc0-1.0|bsl-1.0|unlicense|hpnd"
    r"|llvm-exception|historical permission.*|ncsa)( license)?",
    re.IGNORECASE,
)
NVIDIA = ("nvidia-", "cuda-")  # what PyTorch's CUDA builds need: proprietary, free to use and not part of other builds


def needed(requirements: Iterable[str], found: dict[str, str] | None = None) -> dict[str, str]:
    """Name to licence of each installed package that the requirements name, and of all that those need in turn."""
    found = {} if found is None else found
    for one in map(Requirement, requirements):
        name = canonicalize_name(one.name)
        if name == PROJECT["name"]:
            needed([r for extra in one.extras for r in PROJECT["optional-dependencies"][extra]], found)
        elif name not in found and installed(name):
            found[name] = licence(metadata.metadata(name))
            needed([r for r in metadata.requires(name) or [] if applies(Requirement(r), one.extras)], found)
    return found


def installed(name: str) -> bool:
    return any(True for _ in metadata.distributions(name=name))


def applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    """Whether a package with these extras has this requirement here."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def licence(about: metadata.PackageMetadata) -> str:
    """What a package states: an SPDX expression, else its classifiers, else the first line of its text."""
    classifiers = [c.split(" :: ")[-1] for c in about.get_all("Classifier", []) if c.startswith("License :: ")]
    text = about.get("License-Expression") or " AND ".join(classifiers) or about.get("License") or "unknown"
    return str(text).strip().splitlines()[0]


def permissive(stated: str) -> bool:
    """Whether every part of a statement is a licence that asks for little more than to be named."""
    parts = re.split(r"\s+(?:AND|OR|WITH)\s+|[();]", re.sub(r"\s*\([^()]*\)$", "", stated))
    named = [part.strip() for part in parts if part.strip()]
    return bool(named) and all(map(PERMISSIVE.fullmatch, named))


def unfit(packages: dict[str, str]) -> list[str]:
    """Packages whose licence is unknown or asks for more."""
    return [name for name, stated in packages.items() if not name.startswith(NVIDIA) and not permissive(stated)]


def main() -> int:
    core = needed(PROJECT["dependencies"])
    every = needed(r for extra in PROJECT["optional-dependencies"].values() for r in extra) | core
    for name, stated in sorted(every.items()):
        print(f"{name:<28} {'core ' if name in core else 'extra'}  {stated}")
    for name in unfit(core):
        print(f"licence of {name} is {core[name]}: must be a permissive one, since the core needs it", file=sys.stderr)
    return bool(unfit(core))


if __name__ == "__main__":
    sys.exit(main())
