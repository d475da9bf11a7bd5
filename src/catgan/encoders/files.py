"""Where pretrained weights come from: a folder, or the Hugging Face Hub and its cache. Safetensors only, never a pickle."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from catgan.errors import UserError, first_line
from catgan.system.files import parsed_json
from catgan.system.packages import without_reports
from catgan.system.processes import Processes
from catgan.system.progress import Progress

Names = Sequence[str]


def find_folder(name: str, files: Names, what: str, option: str, wanted: Names = ()) -> Path:
    """The local folder with the files of a pretrained network.

    name: a folder, or OWNER/NAME or OWNER/NAME@REVISION (a branch, tag or commit) on the Hugging Face Hub, from which the
    files are downloaded into its cache. files: which it must have. what, option: what it is and where it was asked for,
    for the message. wanted: further files, which it may do without. Raises UserError saying which files are missing, where
    they are to be had and where to put them.
    """
    folder = Path(name)
    if folder.exists():
        missing = [f for f in files if not (folder / f).is_file()]
        if missing:
            raise UserError(f"{what}: {folder} has no {' and no '.join(missing)}; pickled weights are not read")
        return folder
    hub = re.fullmatch(r"([\w-][\w.-]*/[\w.-]+)(?:@([\w./-]+))?", name)
    if not hub:
        raise UserError(f"{what}: {folder} does not exist; give a folder with {' and '.join(files)} as {option}")
    try:
        return download(hub[1], hub[2], files, what, wanted)
    except ModuleNotFoundError:
        reason = "huggingface_hub is not installed: pip install 'catgan[hub]'"
    except Exception as error:  # of the network, the Hub or the disk, by many names: the files are not here
        reason = first_line(error)[:100]  # what to do comes after it
    raise UserError(
        f"{what}: there is no folder {name}, and the Hugging Face Hub gave none ({reason}); get {' and '.join(files)} "
        f"from https://huggingface.co/{hub[1]}/tree/{hub[2] or 'main'}, put them into a folder and give it as {option}"
    )


def download(name: str, revision: str | None, files: Names, what: str, wanted: Names = ()) -> Path:
    """The files of a repository on the Hub as it is now; where it does not answer, those in its cache, with a line that
    says so. revision: a branch, tag or commit; None is the default branch. Raises what the Hub's client raises."""
    without_reports()
    from huggingface_hub import model_info, snapshot_download

    def snapshot(cached: bool) -> Path:
        folder = snapshot_download(name, revision=revision, allow_patterns=[*files, *wanted], local_files_only=cached)
        missing = [f for f in files if not (Path(folder) / f).is_file()]
        if missing:
            raise OSError(f"it has no {' and no '.join(missing)}")
        return Path(folder)

    try:
        model_info(name, revision=revision, timeout=10)  # else snapshot_download turns to the cache without a word
        return snapshot(cached=False)
    except Exception as error:
        try:
            folder = snapshot(cached=True)
        except Exception:
            raise error from None
        if Processes.from_environment().first:
            Progress.print(f"{what}: the Hugging Face Hub gave none ({first_line(error)}); using the cache, {folder}")
        return folder


def read_config(folder: Path, what: str, name: str = "config.json") -> dict[str, Any]:
    """The config.json of a folder, or another JSON file. Raises UserError if it is damaged."""
    try:
        values: dict[str, Any] = dict(parsed_json((folder / name).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{what}: {folder / name} cannot be read: {error}") from None
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
