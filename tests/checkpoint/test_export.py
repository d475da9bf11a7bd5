"""Exported models: the same samples, whole or not at all, and honest about damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch

import catgan
from catgan.checkpoint import reading as checkpoint
from catgan.cli import main
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images
from catgan.encoders import load_vae
from catgan.errors import UserError
from catgan.networks import build_discriminator, build_generator
from catgan.sampling.pipeline import CATPipeline, load_discriminator
from catgan.training.fine_tuning import start_from


@pytest.fixture(scope="module")
def run(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps on noise in three classes."""
    noise = np.random.default_rng(0).uniform(-1, 1, (9, 1, 8, 8)).astype(np.float32)
    data = Images(noise, np.arange(9) % 3, ("ant", "bee", "cat"))
    config = from_dict({"training": {"steps": 2}}, tiny_config)
    return catgan.train(config, tmp_path_factory.mktemp("export") / "run", dataset=data, quiet=True)


@pytest.fixture
def exported(run: Path, tmp_path: Path) -> Path:
    return catgan.load(run).save_pretrained(tmp_path / "model")


def latent_pipe(tiny_config: Config) -> CATPipeline:
    """An untrained generator of latents, whose configuration names no VAE."""
    config = from_dict({"sample": {"channels": 4}}, tiny_config)
    return CATPipeline(build_generator(config), config, ("a", "b", "c"))


def test_an_exported_model_makes_the_same_samples_to_the_bit(run: Path, exported: Path) -> None:
    expected = catgan.load(run)([0, 1, 2], [5, 6, 7], psi=0.7, stages=True)
    for pipe in (
        catgan.load(exported),
        CATPipeline.from_pretrained(exported),
        CATPipeline.from_pretrained(str(exported)),
    ):
        made = pipe(["ant", "bee", "cat"], [5, 6, 7], psi=0.7, stages=True)
        assert made.stages is not None
        assert torch.equal(made.stages, expected.stages)
        assert (pipe.step, pipe.config, pipe.class_names) == (2, catgan.load(run).config, ("ant", "bee", "cat"))


def test_a_run_is_read_by_from_pretrained_too(run: Path) -> None:
    assert torch.equal(CATPipeline.from_pretrained(run)([0], [0]).latents, catgan.load(run)([0], [0]).latents)


def test_it_holds_nothing_but_weights_configuration_and_card(exported: Path) -> None:
    assert sorted(p.name for p in exported.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert [p.name for p in exported.parent.iterdir()] == ["model"]
    about = json.loads((exported / "config.json").read_text())
    assert (about["kind"], about["step"], about["class_names"]) == ("catgan-generator", 2, ["ant", "bee", "cat"])
    assert about["preprocessing"] == {"space": "pixels", "size": 8, "channels": 1, "range": [-1, 1]}


def test_the_card_says_what_is_known_and_leaves_the_rest_to_fill_in(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: catgan\n")
    for known in (
        "# run, step 2\n",
        f"catgan {catgan.__version__}, recipe digits, changes: `sample.classes 3`, `generator.width 16`",
        "8 x 8, grey pixels, 3 classes: ant, bee, cat |",
        "| generator 0.02 M, discriminator 0.01 M |",
        "averaged (EMA), step 2",
        "\n9 samples. <Version, source, licence",
        "2 steps of batch 8, seed 0, float32; ",
        "; without DINOv2 alignment. <The run's",
    ):
        assert known in card
    for placeholder in (
        "<name of the model>",
        "<version>",
        "<size>",
        "<number>",
        "<averaged",
        "<checkpoint>",
        "<Steps",
    ):
        assert placeholder not in card
    assert "licence of the weights | <...>" in card
    assert "| A per stage | " in card, "of the diagnosis at the end of training"


def test_the_card_tells_of_evaluation_diagnosis_and_prepared_data(run: Path, tmp_path: Path) -> None:
    """And names data by their source, not by a recipe."""
    told = shutil.copytree(run, tmp_path / "told")
    meta = {
        "classes": ["ant", "bee", "cat"],
        "crop": "center",
        "size": 8,
        "samples": 9,
        "source": "/some/where/insects",
    }
    (tmp_path / "catgan.json").write_text(json.dumps(meta))
    evaluation = {"step": 2, "metrics": {"frechet_distance": 3.25}, "names": {"frechet_distance": "FID"}}
    evaluation |= {"protocol": {"samples": 500, "psi": 1.0, "reference": {"name": "/some/where/prepared"}}}
    for name, step in (("now", 2), ("before", 1)):
        (told / "evaluations" / f"{name}.json").parent.mkdir(exist_ok=True)
        (told / "evaluations" / f"{name}.json").write_text(json.dumps(evaluation | {"step": step}))
    assert main(["diagnose", str(told), "--samples", "12"]) == 0
    pipe = catgan.load(told)
    pipe.config = from_dict({"data": {"source": "prepared", "path": str(tmp_path)}}, pipe.config)
    card = (pipe.save_pretrained(tmp_path / "model") / "README.md").read_text()
    assert "insects: 9 images; the centre square of each, resized to 8 x 8." in card
    assert card.count("| FID | 3.25 | samples 500, psi 1.0, reference prepared |") == 1
    assert "`catgan diagnose`, 12 samples" in card
    assert "/some/where" not in card


def test_files_are_as_readable_as_the_users_other_files(exported: Path) -> None:
    (exported / "mine").touch()
    assert {p.stat().st_mode for p in exported.iterdir()} == {(exported / "mine").stat().st_mode}


def test_with_its_discriminator_it_can_be_fine_tuned(run: Path, tiny_config: Config, tmp_path: Path) -> None:
    assert main(["export", str(run), str(tmp_path / "both"), "--discriminator"]) == 0
    networks = {"generator": build_generator(tiny_config), "ema": build_generator(tiny_config)}
    networks["discriminator"] = build_discriminator(tiny_config)
    assert start_from(tmp_path / "both", networks, tiny_config) == (tmp_path / "both", 2)
    _, stored = checkpoint.read(checkpoint.resolve(run))
    for name, network in networks.items():
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, stored[f"{'ema' if name == 'generator' else name}.{key}"])
    assert main(["diagnose", str(tmp_path / "both"), "--samples", "6", "--attention"]) == 0
    assert (tmp_path / "both" / "diagnosis" / "attention.json").is_file()


def test_without_its_discriminator_that_is_said_where_it_is_missed(
    exported: Path, tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"without its discriminator .* export it again with --discriminator"):
        start_from(exported, {}, tiny_config)
    assert main(["diagnose", str(exported), "--samples", "6"]) == 0
    assert (exported / "diagnosis" / "diagnosis.json").is_file()
    assert main(["diagnose", str(exported), "--samples", "6", "--attention"]) == 2
    assert "without its discriminator" in capsys.readouterr().err


def test_raw_weights_are_not_exported(run: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="weights is generator: only averaged weights are exported"):
        catgan.load(run, weights="generator").save_pretrained(tmp_path / "raw")
    with pytest.raises(UserError, match=r"weights is generator: .* averaged weights only"):
        catgan.load(exported, weights="generator")


def test_a_folder_with_something_in_it_is_never_touched(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(UserError, match="exists and is not empty"):
            catgan.load(run).save_pretrained(out)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("thesis.txt", "mine")]


def test_an_empty_folder_will_do(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    catgan.load(catgan.load(run).save_pretrained(tmp_path / "empty"))


def test_a_failure_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("catgan.checkpoint.export.model_card", fail)
    with pytest.raises(RuntimeError):
        catgan.load(run).save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", "{", "config.json is damaged: Expecting property name"),
        ("config.json", '{"kind": "other"}', "kind 'other'"),
        ("config.json", '{"kind": "catgan-generator", "config": "' + "x" * 9999 + '"}', "must be a mapping"),
        ("config.json", '{"kind": "' + "x" * 9999 + '"}', "has kind 'xxx"),
        ("config.json", '{"kind": "catgan-generator"}', "is damaged"),
        ("model.safetensors", "short", "is damaged"),
    ],
)
def test_damage_is_named(exported: Path, name: str, text: str, said: str) -> None:
    (exported / name).write_text(text)
    with pytest.raises(UserError, match=said) as raised:
        catgan.load(exported)
    assert len(str(raised.value)) < 400 + len(str(exported)), "a file is not quoted at length"


def test_weights_that_are_not_those_of_the_export_are_refused(run: Path, tmp_path: Path) -> None:
    model = catgan.load(run).save_pretrained(tmp_path / "model", discriminator=True)
    for name, load in (("model", catgan.load), ("discriminator", load_discriminator)):
        path = model / f"{name}.safetensors"
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(UserError, match=f"the SHA-256 of {name}.safetensors is .*: copy or export it again"):
            load(model)
        path.write_bytes(data)
        load(model)


def test_an_export_without_checksums_is_read(exported: Path) -> None:
    about = json.loads((exported / "config.json").read_text())
    del about["sha256"]
    (exported / "config.json").write_text(json.dumps(about))
    assert catgan.load(exported).step == 2


def test_a_name_on_the_hub_is_downloaded(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(name: str, revision: str, allow_patterns: list[str], local_files_only: bool) -> str:
        assert (name, revision, allow_patterns) == ("someone/digits", "v1", ["config.json", "model.safetensors"])
        return str(exported)

    monkeypatch.setattr(huggingface_hub, "model_info", lambda name, revision, timeout: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert torch.equal(
        CATPipeline.from_pretrained("someone/digits@v1")([0], [0]).latents, catgan.load(exported)([0], [0]).latents
    )
    with pytest.raises(UserError, match="does not exist"):
        CATPipeline.from_pretrained("no-such-folder")


def test_the_command_exports_and_other_commands_read_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert main(["export", str(run), str(out)]) == 0
    assert str(out / "README.md") in capsys.readouterr().out
    assert main(["sample", str(out), "--classes", "bee", "--seeds", "0", "--out", str(tmp_path / "samples")]) == 0
    assert main(["export", str(run), str(out)]) == 2
    assert main(["export", str(run / "none"), str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


# -- latents -----------------------------------------------------------------------------------------------------------


def test_latents_become_pictures_by_the_vae_that_is_given(tiny_config: Config, tiny_vae: Path) -> None:
    pipe = latent_pipe(tiny_config)
    with pytest.raises(UserError, match="latents of 4 channels, not pixels: give their VAE"):
        _ = pipe([0], [0]).images
    made = pipe.with_vae(tiny_vae)([0, 1], [0, 1], stages=True)
    assert made.latents.shape == (2, 4, 8, 8)
    assert made.array.shape == (2, 64, 64, 3)
    assert made.stage_array.shape == (3, 2, 64, 64, 3)
    assert np.array_equal(made.stage_array[-1], made.array)
    assert [image.size for image in made.images] == [(64, 64)] * 2
    expected = load_vae(str(tiny_vae)).decode(made.latents)
    assert np.array_equal(made.array, ((expected + 1) * 127.5).round().byte().movedim(1, -1).numpy())


def test_the_vae_of_the_configuration_is_loaded_when_it_is_needed(
    tiny_config: Config, tiny_vae: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(tiny_vae, tmp_path / "vae")
    pipe = latent_pipe(from_dict({"sample": {"vae": str(path)}}, tiny_config))
    samples = pipe([0], [0])
    assert pipe.loaded_vae is None
    assert samples.array.shape == (1, 64, 64, 3)
    assert pipe.loaded_vae is not None
    assert pipe.to(precision="bfloat16").loaded_vae.precision == "bfloat16"


def test_an_export_names_its_vae(tiny_config: Config, tiny_vae: Path, tmp_path: Path) -> None:
    pipe = latent_pipe(tiny_config).with_vae(load_vae(str(tiny_vae)))
    out = pipe.save_pretrained(tmp_path / "model")
    about = json.loads((out / "config.json").read_text())
    assert about["preprocessing"] == {
        "space": "latents", "size": 8, "channels": 4, "scale": 0.18215, "vae": str(tiny_vae),
    }  # fmt: skip
    assert f"latents of VAE {tiny_vae}" in (out / "README.md").read_text()
    assert np.array_equal(catgan.load(out)([0], [0]).array, pipe([0], [0]).array)


def test_commands_decode_by_the_vae_and_miss_it_before_they_sample(
    tiny_config: Config, tiny_vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(latent_pipe(tiny_config).save_pretrained(tmp_path / "model"))
    out = str(tmp_path / "out")
    few = ["--classes", "a", "--seeds", "0", "--out", out]
    assert main(["sample", model, *few]) == 2
    assert "--vae" in capsys.readouterr().err
    assert main(["sample", model, *few, "--vae", "/nowhere"]) == 2
    assert "/nowhere does not exist" in capsys.readouterr().err
    assert main(["sample", model, *few, "--stages", "--vae", str(tiny_vae)]) == 0
    assert main(["sample", model, *few, "--format", "npz", "--count", "3", "--vae", str(tiny_vae)]) == 0
    assert np.load(tmp_path / "out" / "samples.npz")["arr_0"].shape == (3, 64, 64, 3)


def test_previews_decode_if_there_is_a_vae_and_else_say_so_once(
    tiny_config: Config, tiny_vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    latents = np.random.default_rng(0).normal(size=(9, 4, 8, 8)).astype(np.float32)
    data = Images(latents, np.arange(9) % 3, ("a", "b", "c"))
    for vae, side in ((str(tiny_vae), 64), (str(tmp_path / "none"), 8 * 8)):
        config = from_dict({"sample": {"channels": 4, "vae": vae}, "training": {"steps": 2}}, tiny_config)
        run = catgan.train(config, tmp_path / f"run-{Path(vae).name}", dataset=data)
        with Image.open(run / "previews" / "samples-00000002.png") as picture:
            assert picture.size == (3 * side + 2 * 2, 2 * side + 2)
            assert picture.mode == "RGB"
    said = capsys.readouterr().err
    assert said.count("previews show channels of the latents, not pictures") == 1
