"""Pretrained files: found, or said what is missing and where it is to be had. Pickles are never read."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

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


class Hub:
    """A stand-in for the Hub's client: repositories of files, by commit, and a cache in a folder."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.reachable = cache, True
        self.commits: dict[str | None, str] = {}  # by revision; None is the default branch
        self.files = FILES
        self.cached: dict[str | None, Path] = {}
        self.asked: list[str | None] = []

    def model_info(self, name: str, revision: str | None, timeout: float) -> SimpleNamespace:
        self.asked.append(revision)
        if not self.reachable:
            raise OSError("[Errno -2] Name or service not known\nand more")
        if revision not in self.commits:
            raise huggingface_hub.errors.RevisionNotFoundError("no such revision", response=MagicMock())
        return SimpleNamespace(sha=self.commits[revision])

    def snapshot_download(
        self, name: str, revision: str | None, allow_patterns: list[str], local_files_only: bool
    ) -> str:
        assert (name, allow_patterns) == ("owner/name", list(FILES))
        if not local_files_only:
            self.cached[revision] = put(self.cache / self.commits[revision], *self.files)
        if revision not in self.cached:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        return str(self.cached[revision])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "cache")
    for name in ("model_info", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(made, name))
    return made


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert find(str(put(tmp_path / "a", *FILES))) == tmp_path / "a"


def test_missing_files_of_a_folder_are_named(tmp_path: Path) -> None:
    folder = put(tmp_path / "a", "config.json", "weights.bin")
    with pytest.raises(UserError, match=r"a has no weights\.safetensors; pickled weights are not read"):
        find(str(folder))


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./none", "vae", "../a/b", "vae@main"])
def test_a_path_that_is_not_there_is_not_sought_on_the_hub(name: str, hub: Hub) -> None:
    with pytest.raises(UserError, match=r"does not exist; give a folder with config\.json and weights\.safetensors"):
        find(name)
    assert not hub.asked


def test_without_a_network_the_message_says_what_to_fetch_and_where_to_put_it(hub: Hub) -> None:
    hub.reachable = False
    with pytest.raises(UserError) as caught:
        find("owner/name@v2")
    said = str(caught.value)
    assert "\n" not in said
    assert "Name or service not known" in said
    assert "get config.json and weights.safetensors from https://huggingface.co/owner/name/tree/v2" in said
    assert "give it as --option FOLDER" in said


def test_the_hub_is_asked_first_so_that_a_new_commit_is_seen(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.commits = {None: "one"}
    assert find("owner/name").name == "one"
    hub.commits = {None: "two"}
    assert find("owner/name").name == "two"
    assert capsys.readouterr().err == ""


def test_a_revision_can_be_named(hub: Hub) -> None:
    hub.commits = {None: "one", "v1": "zero", "refs/pr/3": "proposed"}
    assert [find(f"owner/name{rev}").name for rev in ("", "@v1", "@refs/pr/3")] == ["one", "zero", "proposed"]
    with pytest.raises(UserError, match=r"gave none \(no such revision\)"):
        find("owner/name@v9")


def test_without_an_answer_the_cache_will_do_and_a_line_says_so(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.commits = {None: "one"}
    find("owner/name")
    hub.reachable = False
    assert find("owner/name").name == "one"
    said = capsys.readouterr().err
    assert said.startswith(
        "network: the Hugging Face Hub gave none ([Errno -2] Name or service not known); using the cache"
    )
    assert said.count("\n") == 1
    (hub.cache / "one" / FILES[1]).unlink()
    with pytest.raises(UserError, match="Name or service not known"):
        find("owner/name")


def test_a_repository_without_safetensors_is_refused(hub: Hub) -> None:
    hub.commits, hub.files = {None: "one"}, FILES[:1]
    with pytest.raises(UserError, match=r"gave none \(it has no weights\.safetensors\)"):
        find("owner/name")


def test_without_the_client_of_the_hub_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="huggingface_hub is not installed"):
        find("owner/name")


@pytest.mark.parametrize(("load", "package"), [(load_vae, "diffusers"), (load_dino, "transformers")])
def test_a_missing_package_says_how_to_install_it(
    load: Callable[[str], object], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
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
