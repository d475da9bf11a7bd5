"""Files of styles: w of samples or projected pictures, with the generator that they belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from catgan.errors import UserError
from catgan.sampling.pipeline import CATPipeline
from catgan.system.files import parsed_json, save_tensors, write_atomically


def write_styles(path: Path, pipe: CATPipeline, w: Tensor, names: Sequence[str]) -> None:
    """Write styles (n, d) and a name for each, as a whole or not at all."""
    about = {"generator": pipe.fingerprint(), "names": list(names)}
    write_atomically(path, lambda aside: save_tensors(aside, {"w": w.float().cpu()}, {"catgan": json.dumps(about)}))


def read_styles(path: str | Path, pipe: CATPipeline) -> tuple[Tensor, list[str]]:
    """Styles (n, d) and their names. Raises UserError for a file that is none, or of another generator."""
    try:
        with safe_open(path, framework="pt") as file:
            about = parsed_json((file.metadata() or {})["catgan"])
            w, names, generator = file.get_tensor("w"), [str(n) for n in about["names"]], about["generator"]
    except FileNotFoundError:
        raise UserError(f"there is no {path}: must be a file of styles, as catgan invert writes it") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise UserError(f"{path} is no file of styles: must be one that catgan invert wrote") from None
    if generator != pipe.fingerprint() or w.ndim != 2 or len(w) != len(names) or w.shape[1] != pipe.generator.width:
        raise UserError(f"{path} has styles of another generator: project the pictures with this one (catgan invert)")
    return w.to(pipe.device), names
