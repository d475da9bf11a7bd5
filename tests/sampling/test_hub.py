"""Publishing on the Hub: the real client against a server of our own, which keeps what is committed and gives it back."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.file_download
import huggingface_hub.hf_api
import pytest
import torch
from hub import TOKEN, Hub, serving
from PIL import Image

import catgan
from catgan.cli import main
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.errors import UserError
from catgan.networks import build_generator
from catgan.sampling.pipeline import CATPipeline
from catgan.system.files import sha256

FILES = ["README.md", "config.json", "model.safetensors", "sheet.png", "stages.png"]
RESULT = {
    "step": 2,
    "metrics": {"frechet_distance": 3.25},
    "names": {"frechet_distance": "FID"},
    "protocol": {"samples": 500, "psi": 1.0, "reference": {"name": "/some/where/insects"}},
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as made:
        yield from pretended(made, tmp_path, monkeypatch)


def pretended(made: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The client finds this Hub in place of the real one."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", made.url)
    for module in (constants, huggingface_hub.file_download):  # the latter until 0.36
        template = made.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", made.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield made


@pytest.fixture(scope="module")
def run(evaluated_run: Callable[..., Path]) -> Path:
    return evaluated_run({"fid": RESULT})


def push(run: Path, *more: str, name: str = "me/insects") -> int:
    return main(["push", str(run), name, *more])


def test_without_yes_files_are_listed_and_nothing_is_sent(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(run) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^ *[\d,]+ bytes  (.*)$", said, re.MULTILINE) == [
        f"{hub.url}/me/insects/blob/main/{name}" for name in FILES
    ]
    assert "the card has no licence: --licence\nthe card has no data sets: --dataset\nnothing was sent\n" in said
    assert "next: add --yes to upload" in said
    assert not hub.asked


def test_what_is_pushed_is_loaded_again_with_the_same_weights(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(run, "--licence", "cc-by-4.0", "--dataset", "me/insects-9", "--private", "--yes") == 0
    said = capsys.readouterr().out
    assert f"{hub.url}/me/insects  commit " in said
    assert said.endswith(
        'import catgan\npipe = catgan.CATPipeline.from_pretrained("me/insects")\n'
        'pipe(classes=[0], seeds=[0]).images[0].save("sample.png")\n'
    )
    assert (hub.private, hub.messages) == ({"me/insects": True}, ["catgan: digits, step 2"])
    assert sorted(hub.branches["me/insects"]["main"]) == [".gitattributes", *FILES]
    pipe = CATPipeline.from_pretrained("me/insects")
    assert pipe.fingerprint() == catgan.load(run).fingerprint()
    assert torch.equal(pipe([0, 1], [5]).latents, catgan.load(run)([0, 1], [5]).latents)


def test_the_card_is_complete_and_the_hubs_client_reads_it(run: Path, hub: Hub, tmp_path: Path) -> None:
    with catgan.load(run).prepared_push("me/insects", "cc-by-4.0", ["me/insects-9"]) as folder:
        card = huggingface_hub.ModelCard.load(folder / "README.md")
        sums = {p.name: sha256(p) for p in folder.iterdir() if p.name != "README.md"}
    data, text = card.data, card.text
    assert (data.library_name, data.pipeline_tag) == ("catgan", "unconditional-image-generation")
    assert (data.license, data.datasets) == ("cc-by-4.0", ["me/insects-9"])
    assert {"gan", "one-step", "cat", "digits"} <= set(data.tags)
    assert data.thumbnail == f"{hub.url}/me/insects/resolve/main/sheet.png"
    assert data.widget == [{"text": "Samples of seeds 0-9, psi 1, not selected", "output": {"url": "sheet.png"}}]
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_name, result.metric_value) == ("fid", "FID", 3.25)
    assert (result.dataset_name, result.metric_args) == ("insects", {"samples": 500, "psi": 1.0})
    assert not re.search(r"<[^>\n]+>", text), "nothing is left to be filled in"
    assert "/some/where" not in text
    for told in (
        'from_pretrained("me/insects")',
        "| licence of the weights | cc-by-4.0 |",
        "Data set `me/insects-9`.",
        "| FID | 3.25 | samples 500, psi 1.0, reference insects |",
        "of training (h:mm:ss or m:ss)",
        "## Limitations",
        "## Misuse",
        "(sheet.png)",
        "(stages.png)",
        *(f"| `{name}` | " for name in sums),
        *sums.values(),
    ):
        assert told in text


def test_a_card_of_ones_own_is_kept_and_its_hashes_are_made_anew(run: Path, hub: Hub, tmp_path: Path) -> None:
    exported = catgan.load(run).save_pretrained(tmp_path / "model")
    card = (exported / "README.md").read_text()
    card = card.replace("library_name: catgan", "library_name: catgan\nlanguage: en").replace(
        "Recommended psi: <...>", "Recommended psi: 0.8"
    )
    (exported / "README.md").write_text(card)
    for revision in ("", "two"):
        with catgan.load(exported).prepared_push("me/insects", "mit", revision=revision) as folder:
            loaded = huggingface_hub.ModelCard.load(folder / "README.md")
        (exported / "README.md").write_text(loaded.content)
    assert (loaded.data.language, loaded.data.license, len(loaded.data.eval_results)) == ("en", "mit", 1)
    assert "Recommended psi: 0.8" in loaded.text
    assert 'from_pretrained("me/insects@two")' in loaded.text
    assert (loaded.text.count("## Files"), loaded.text.count("## Samples")) == (1, 1)


def test_data_that_came_from_the_hub_are_named(run: Path, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "catgan.json").write_text('{"source": "hf:me/insects-9", "classes": []}')
    pipe = catgan.load(run)
    pipe.config = from_dict({"data": {"source": "prepared", "path": str(tmp_path)}}, pipe.config)
    with pipe.prepared_push("me/insects") as folder:
        assert huggingface_hub.ModelCard.load(folder / "README.md").data.datasets == ["me/insects-9"]


def test_a_shipped_model_tells_its_evaluations_and_licence(hub: Hub) -> None:
    with catgan.load("digits").prepared_push("me/digits") as folder:
        card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.model_name) == ("mit", "digits")
    assert "class_accuracy" in {result.metric_type for result in card.data.eval_results}
    assert 'from_pretrained("me/digits")' in card.text


def test_a_repository_that_is_there_gets_a_commit_on_a_branch_and_keeps_its_files(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.make("me/insects", False, notes=b"mine")
    assert push(run, "--revision", "v2", "--message", "Two steps", "--yes") == 0
    assert "added to what was there; nothing was deleted" in capsys.readouterr().out
    assert hub.messages == ["Two steps"]
    assert (list(hub.branches["me/insects"]["main"]), hub.branches["me/insects"]["v2"]["notes"]) == (["notes"], b"mine")
    assert CATPipeline.from_pretrained("me/insects", revision="v2").fingerprint() == catgan.load(run).fingerprint()
    with pytest.raises(UserError, match=r"the Hugging Face Hub gave none"):
        CATPipeline.from_pretrained("me/insects")


def test_from_python_it_is_uploaded_at_once(run: Path, hub: Hub) -> None:
    assert catgan.load(run).push_to_hub("me/insects", discriminator=True) == f"{hub.url}/me/insects"
    assert "discriminator.safetensors" in hub.branches["me/insects"]["main"]
    assert hub.private == {"me/insects": False}


def test_what_is_public_is_not_taken_for_private(run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.make("me/insects", False)
    assert push(run, "--private", "--yes") == 2
    assert "me/insects is on the Hub already, and public" in capsys.readouterr().err
    assert not hub.messages


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_refusal_is_one_line_without_the_token(
    status: int, run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuses = status
    assert push(run, "--yes") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert TOKEN not in said
    assert (f"refused me/insects ({status}): call hf auth login" if status != 500 else "could not push") in said


def test_a_licence_that_the_hub_does_not_know_is_named(run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(run, "--licence", "unheard", "--yes") == 2
    said = capsys.readouterr().err
    assert '"license" must be one of' in said
    assert said.count("\n") == 1
    assert not hub.messages


def test_folders_of_this_machine_are_told_and_a_vae_among_them_is_refused(
    run: Path, hub: Hub, tiny_vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = catgan.load(run)
    pipe.config = from_dict({"data": {"source": "prepared", "path": "/some/where"}}, pipe.config)
    assert push(pipe.save_pretrained(tmp_path / "model")) == 0
    assert "config.json names a folder of this machine: data.path /some/where" in capsys.readouterr().out
    pipe.config = from_dict({"sample": {"channels": 4, "vae": str(tiny_vae)}}, pipe.config)
    with pytest.raises(UserError, match="a folder that others do not have: name one on the Hub"):
        pipe.push_to_hub("me/insects")


def test_without_the_client_of_the_hub_the_line_says_how_to_install_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert push(run) == 2
    assert "needs huggingface_hub, which is not installed: pip install 'catgan[hub]'" in capsys.readouterr().err


def test_without_token_or_network_the_line_says_so(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert push(run, "--yes") == 2
    assert "could not push to me/insects: " in capsys.readouterr().err
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert push(run, "--yes") == 2
    assert "no token for the Hugging Face Hub: call hf auth login, or set HF_TOKEN" in capsys.readouterr().err
    assert not hub.asked


@pytest.mark.parametrize("name", ["insects", "me/", "a/b/c", "me/in sects", "me/in--sects", "me/x.git", "https://a/b"])
def test_names_must_be_whole(name: str, run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(run, "--yes", name=name) == 2
    said = capsys.readouterr().err
    assert f"name is {name}: must be OWNER/NAME" in said
    assert said.count("\n") == 1
    assert not hub.asked


def test_raw_weights_are_not_pushed(run: Path, hub: Hub) -> None:
    with pytest.raises(UserError, match="only averaged weights are exported"):
        catgan.load(run, weights="generator").push_to_hub("me/insects")
    assert not hub.asked


def test_a_revision_is_for_names_on_the_hub(run: Path) -> None:
    with pytest.raises(UserError, match="is no name on the Hub"):
        CATPipeline.from_pretrained(run, revision="main")
    with pytest.raises(UserError, match="has one already"):
        CATPipeline.from_pretrained("me/insects@v1", revision="main")


def test_without_classes_the_sheet_is_a_square(tiny_config: Config, hub: Hub) -> None:
    config = from_dict({"sample": {"classes": 1}}, tiny_config)
    with CATPipeline(build_generator(config), config, ("all",)).prepared_push("me/all") as folder:
        with Image.open(folder / "sheet.png") as picture:
            assert picture.width == 4 * 64 + 3 * 2
        assert "seeds 0-15" in (folder / "README.md").read_text()
    assert not folder.exists()
