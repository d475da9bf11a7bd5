"""Pretrained files: found, or said what is missing and where it is to be had. Pickles are never read."""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from catgan.encoders import load_dino, load_vae
from catgan.encoders.files import find_folder
from catgan.errors import UserError

FILES = ("config.json", "weights.safetensors")


def find(name: str) -> Path:
    return find_folder(name, FILES, "network", "--option FOLDER")


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., str]], None]:
    """Replace the Hub by a function with the arguments of snapshot_download."""
    return lambda function: monkeypatch.setattr(huggingface_hub, "snapshot_download", function)


def unreachable(*_: Any, **__: Any) -> str:
    raise OSError("[Errno -2] Name or service not known\nand more")


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert find(str(put(tmp_path / "a", *FILES))) == tmp_path / "a"


def test_missing_files_of_a_folder_are_named(tmp_path: Path) -> None:
    folder = put(tmp_path / "a", "config.json", "weights.bin")
    with pytest.raises(UserError, match=r"a has no weights\.safetensors; pickled weights are not read"):
        find(str(folder))


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./none", "vae", "../a/b"])
def test_a_path_that_is_not_there_is_not_sought_on_the_hub(name: str, hub: Callable[..., None]) -> None:
    hub(lambda *_, **__: pytest.fail("asked the Hub"))
    with pytest.raises(UserError, match=r"does not exist; give a folder with config\.json and weights\.safetensors"):
        find(name)


def test_without_a_network_the_message_says_what_to_fetch_and_where_to_put_it(hub: Callable[..., None]) -> None:
    hub(unreachable)
    with pytest.raises(UserError) as caught:
        find("owner/name")
    said = str(caught.value)
    assert "\n" not in said
    assert "Name or service not known" in said
    assert "get config.json and weights.safetensors from https://huggingface.co/owner/name/tree/main" in said
    assert "give it as --option FOLDER" in said


def test_the_cache_of_the_hub_comes_before_the_network(tmp_path: Path, hub: Callable[..., None]) -> None:
    asked: list[bool] = []

    def snapshot(name: str, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert (name, allow_patterns) == ("owner/name", list(FILES))
        asked.append(local_files_only)
        if not local_files_only:
            put(tmp_path, *FILES)
        return str(tmp_path)

    hub(snapshot)
    assert find("owner/name") == tmp_path
    assert asked == [True, False]  # the first time, the cache has nothing
    assert find("owner/name") == tmp_path
    assert asked == [True, False, True]


def test_a_repository_without_safetensors_is_refused(tmp_path: Path, hub: Callable[..., None]) -> None:
    put(tmp_path, "config.json")
    hub(lambda *_, **__: str(tmp_path))
    with pytest.raises(UserError, match=r"gave none \(it has no weights\.safetensors\)"):
        find("owner/name")


@pytest.mark.parametrize(("load", "package"), [(load_vae, "diffusers"), (load_dino, "transformers")])
def test_a_missing_package_says_how_to_install_it(
    load: Callable[[str], object], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"needs {package}, which is not installed: pip install 'catgan\[encoders\]'"):
        load("owner/name")


@pytest.mark.parametrize(
    ("load", "weights", "kind"),
    [(load_vae, "diffusion_pytorch_model", "tiny_vae"), (load_dino, "model", "tiny_dino")],
)
def test_pickles_are_not_opened_and_damage_is_named(
    load: Callable[[str], object], weights: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/exploded",)

    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "config.json").write_bytes((request.getfixturevalue(kind) / "config.json").read_bytes())
    for name in (f"{weights}.bin", "pytorch_model.bin"):
        torch.save(Bomb(), folder / name)
    with pytest.raises(UserError, match=rf"no {weights}\.safetensors; pickled weights are not read"):
        load(str(folder))
    (folder / f"{weights}.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="cannot be loaded"):
        load(str(folder))
    assert not (tmp_path / "exploded").exists()
