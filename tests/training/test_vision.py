"""The vision-aided loss in a run, by its settings alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from catgan.checkpoint import reading as checkpoint
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images
from catgan.errors import UserError
from catgan.objective import default_objective
from catgan.sampling.pipeline import load_discriminator
from catgan.system.files import read_json, read_rows
from catgan.system.processes import Processes
from catgan.training import train
from catgan.training.vision import vision_heads

MakeDigits = Callable[[int], Images]


@pytest.fixture
def config(tiny_config: Config, tiny_convnext: Path) -> Config:
    vision = {"path": str(tiny_convnext), "size": 32, "width": 8, "warmup": 2}
    return from_dict({"vision": vision, "training": {"steps": 3}}, tiny_config)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(checkpoint.listed(run / "checkpoints")[-1])[1]


def test_a_run_with_it_is_recorded_exact_when_resumed_and_exported_without_its_heads(
    config: Config, some_digits: MakeDigits, tmp_path: Path
) -> None:
    data = some_digits(12)

    def go(out: str, steps: int, **options: Any) -> Path:
        return train(
            from_dict({"training": {"steps": steps}}, config), tmp_path / out, dataset=data, quiet=True, **options
        )

    whole = go("whole", 3)
    terms = read_json(whole / "run.json")["objective"]
    assert [t.partition(" = ")[0] for t in terms if "vision" in t and " = " in t] == [
        "discriminator: 0.5, 1, 1 * vision",
        "generator: 0.5, 1, 1 * vision",
    ]
    row = read_rows(whole / "metrics.jsonl")[0]
    assert {f"{n}/vision/{k}" for n in ("discriminator", "generator") for k in range(4)} <= row.keys()
    go("parts", 2)
    go("parts", 3, resume=True)
    assert all(torch.equal(t, weights(whole)[name]) for name, t in weights(tmp_path / "parts").items())
    heads = [name for name in weights(whole) if name.startswith("discriminator.heads.vision.")]
    assert len(heads) == 3 * 4 + 3  # two layers a map, the whole's, and the classes; nothing of the network
    assert not load_discriminator(whole).heads


def test_another_network_of_a_resumed_run_is_named_and_another_place_is_not(
    config: Config, some_digits: MakeDigits, tmp_path: Path, tiny_convnext: Path
) -> None:
    from transformers import ConvNextV2Model

    data, out = some_digits(12), tmp_path / "run"
    train(config, out, dataset=data, quiet=True)
    shutil.copytree(tiny_convnext, tmp_path / "moved")
    longer = {"training": {"steps": 4}}
    train(
        from_dict(longer | {"vision": {"path": str(tmp_path / "moved")}}, config),
        out,
        dataset=data,
        resume=True,
        quiet=True,
    )
    model = ConvNextV2Model.from_pretrained(tiny_convnext)
    model.embeddings.patch_embeddings.weight.data.mul_(1.1)  # type: ignore[operator]
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"the head vision was .* is "):
        train(
            from_dict({"training": {"steps": 5}, "vision": {"path": str(tmp_path / "other")}}, config),
            out, dataset=data, resume=True, quiet=True,
        )  # fmt: skip


def test_bfloat16_and_compiled_blocks_train_with_it(config: Config, some_digits: MakeDigits, tmp_path: Path) -> None:
    changes = {"training": {"precision": "bfloat16", "compile": True, "micro_batch": 4, "steps": 1}}
    out = train(from_dict(changes, config), tmp_path / "run", dataset=some_digits(12), quiet=True)
    bfloat16 = read_rows(out / "metrics.jsonl")[0]
    plain = from_dict({"training": {"steps": 1}}, config)
    exact = read_rows(train(plain, tmp_path / "plain", dataset=some_digits(12), quiet=True) / "metrics.jsonl")[0]
    for name in (f"{network}/vision/{k}" for network in ("discriminator", "generator") for k in range(4)):
        assert bfloat16[name] == pytest.approx(exact[name], rel=0.05)


def test_rotations_are_learned_once_and_kept(
    tiny_config: Config, some_digits: MakeDigits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], cache_folder: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr("catgan.encoders.rotations.IMAGES", 256)
    config = from_dict({"vision": {"path": "rotations", "width": 8}, "training": {"steps": 1}}, tiny_config)
    data = some_digits(30)
    train(config, tmp_path / "a", dataset=data)
    said = capsys.readouterr().err
    assert "training a network to tell how pictures are turned, once" in said
    assert "of those of held-out pictures" in said
    train(config, tmp_path / "b", dataset=data)
    said = capsys.readouterr().err
    assert "training a network" not in said
    assert "of those of held-out pictures" in said
    assert len(list((cache_folder / "encoders").iterdir())) == 1
    assert all(torch.equal(t, weights(tmp_path / "b")[name]) for name, t in weights(tmp_path / "a").items())


def test_a_run_keeps_its_own_copy_of_the_network_that_tells_turns(
    tiny_config: Config, some_digits: MakeDigits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    monkeypatch.setattr("catgan.encoders.rotations.IMAGES", 256)
    config = from_dict({"vision": {"path": "rotations", "width": 8}, "training": {"steps": 1}}, tiny_config)
    out = train(config, tmp_path / "a", dataset=some_digits(30), quiet=True)
    shutil.rmtree(cache_folder / "encoders")
    monkeypatch.setattr("catgan.training.vision.train_rotations", lambda *_: pytest.fail("trained again"))
    train(from_dict({"training": {"steps": 2}}, config), out, dataset=some_digits(30), resume=True, quiet=True)


def test_fine_tuning_starts_heads_of_another_shape_anew(
    config: Config, some_digits: MakeDigits, tmp_path: Path
) -> None:
    """At a rate at which nothing moves: what fits is taken over."""
    data = some_digits(12)
    source = train(config, tmp_path / "a", dataset=data, quiet=True)
    still = {"optimizer": {"lr_generator": 1e-12, "lr_discriminator": 1e-12}}
    start = still | {"training": {"steps": 1, "init_from": str(source)}}
    for change, anew in (
        ({}, set()),
        ({"vision": {"width": 16}}, {"heads"}),
        ({"sample": {"classes": 1}}, {"heads", "class_embedding"}),
    ):
        run = train(from_dict(start | change, config), tmp_path / "-".join(anew or "all"), dataset=data, quiet=True)
        before, after = weights(source), weights(run)
        for n in (n for n in after if n.startswith("discriminator.")):
            kept = before[n].shape == after[n].shape and torch.allclose(before[n], after[n], atol=1e-6)
            assert kept == (n.split(".")[1] not in anew), n


def test_terms_without_heads_and_heads_without_terms_are_refused(
    config: Config, some_digits: MakeDigits, tmp_path: Path
) -> None:
    plain = from_dict({"vision": {"path": None}}, config)
    for settings, objective in ((config, default_objective(plain)), (plain, default_objective(config))):
        with pytest.raises(UserError, match=r"there are vision-aided (heads|terms) but no (term|head) of that name"):
            train(settings, tmp_path / "run", objective=objective, dataset=some_digits(12), quiet=True)


def test_a_network_that_another_process_does_not_have_is_refused(
    config: Config, some_digits: MakeDigits, tmp_path: Path
) -> None:
    class Others(Processes):
        """Of which the first has another network, or one in a folder that is not to be seen from here."""

        def __init__(self, answers: list[Any]) -> None:
            super().__init__()
            object.__setattr__(self, "answers", answers)

        def from_first(self, work: Callable[[], Any]) -> Any:
            return self.answers.pop(0)  # type: ignore[attr-defined]

    with pytest.raises(UserError, match=r"the digest of its weights is \w+: must be another, as in the first process"):
        vision_heads(config, some_digits(12), tmp_path, torch.device("cpu"), Others(["another"]))
    turns = from_dict({"vision": {"path": "rotations"}}, config)
    with pytest.raises(UserError, match=r"must be in a folder that all machines share; set CATGAN_CACHE to one"):
        vision_heads(turns, some_digits(12), tmp_path, torch.device("cpu"), Others(["/nowhere/rotations"]))


def test_a_misspelt_name_is_seen_through(config: Config, some_digits: MakeDigits, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vision\.path is rotation: no such folder; did you mean rotations\?"):
        train(
            from_dict({"vision": {"path": "rotation"}}, config), tmp_path / "run", dataset=some_digits(12), quiet=True
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample": {"vae": "some/vae", "channels": 4}}, r"vision\.path is .*: must be None where samples are latents"),
        ({"sample": {"channels": 2}}, r"sample\.channels is 2: must be 1 or 3, pictures, with vision\.path"),
        ({"objective": {"supervision": "noise_levels"}}, r"must be None with objective\.supervision noise_levels"),
        ({"vision": {"weight": 0.0}}, r"vision\.weight is 0\.0: must be above 0"),
        ({"vision": {"stages": [0]}}, r"vision\.stages is 0: must be at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: Config, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(changes, config).validate()
