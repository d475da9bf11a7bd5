"""Where pretrained weights come from: a folder, or the Hugging Face Hub and its cache. Safetensors only, never a pickle."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from catgan.errors import UserError

Names = Sequence[str]


def need(package: str, what: str, extra: str = "encoders") -> None:
    """Raise UserError unless the package, which comes with one of catgan's extras, is installed."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{what} needs {package}, which is not installed: pip install 'catgan[{extra}]'")


def find_folder(name: str, files: Names, what: str, option: str) -> Path:
    """The local folder with the named files of a pretrained network.

    name: a folder, or OWNER/NAME on the Hugging Face Hub, from whose cache the files are taken, or downloaded into it.
    what, option: what it is and where it was asked for, for the message. Raises UserError saying which files are
    missing, where they are to be had and where to put them.
    """
    folder = Path(name)
    if folder.exists():
        missing = [f for f in files if not (folder / f).is_file()]
        if missing:
            raise UserError(f"{what}: {folder} has no {' and no '.join(missing)}; pickled weights are not read")
        return folder
    hub = bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name))
    if not hub:
        raise UserError(f"{what}: {folder} does not exist; give a folder with {' and '.join(files)} as {option}")
    reason = "huggingface_hub is not installed"
    if importlib.util.find_spec("huggingface_hub") is not None:
        try:
            return download(name, files)
        except Exception as error:  # of the network, the Hub or the disk, by many names: the files are not here
            reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".:")
    raise UserError(
        f"{what}: there is no folder {name}, and the Hugging Face Hub gave none ({reason}); get {' and '.join(files)} "
        f"from https://huggingface.co/{name}/tree/main, put them into a folder and give it as {option}"
    )


def download(name: str, files: Names) -> Path:
    """The files of a repository on the Hub, from its cache if they are there. Raises what the Hub's client raises."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(files), local_files_only=True))
        if all((folder / f).is_file() for f in files):
            return folder
    except OSError:
        pass  # not in the cache
    folder = Path(snapshot_download(name, allow_patterns=list(files)))
    missing = [f for f in files if not (folder / f).is_file()]
    if missing:
        raise OSError(f"it has no {' and no '.join(missing)}")
    return folder


def read_config(folder: Path, what: str) -> dict[str, Any]:
    """The config.json of a folder. Raises UserError if it is damaged."""
    try:
        values: dict[str, Any] = dict(json.loads((folder / "config.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{what}: {folder / 'config.json'} cannot be read: {error}") from None
    return values


def from_pretrained(network: Any, folder: Path, what: str, **options: Any) -> nn.Module:
    """`network.from_pretrained` of diffusers or transformers, from a local folder, frozen.

    Raises UserError if weights are damaged, missing or of another shape: those libraries would draw some at random.
    """
    try:
        model, report = network.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        )
    except Exception as error:  # whatever the library, or safetensors under it, makes of a damaged file
        raise UserError(f"{what}: {folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    if report["missing_keys"]:
        raise UserError(f"{what}: {folder} lacks weights, such as {min(report['missing_keys'])}")
    module: nn.Module = model.eval().requires_grad_(False)
    return module


def fingerprint(network: nn.Module) -> str:
    """A digest of the weights and buffers: equal for equal networks."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
