"""Frozen networks with feature maps: real ConvNextV2Model and timm code on tiny random weights from disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from catgan.encoders.rotations import fitting_size, save_rotations, train_rotations
from catgan.encoders.vision import FeatureMaps, load_vision
from catgan.errors import UserError
from catgan.objective import VisionEncoder


@pytest.fixture(scope="module")
def convnext(tiny_convnext: Path) -> FeatureMaps:
    return load_vision(str(tiny_convnext), size=32)


def pictures(count: int = 2, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size) * 2 - 1


def changed(folder: Path, out: Path, name: str = "config.json", **values: Any) -> str:
    """A copy of a folder with other values in a JSON file."""
    shutil.copytree(folder, out)
    path = out / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))
    return str(out)


def test_it_gives_maps_finest_first_and_a_pooled_feature(convnext: FeatureMaps) -> None:
    encoder: VisionEncoder = convnext
    maps, pooled = encoder.maps(pictures(3))
    assert [tuple(m.shape) for m in maps] == [(3, 16, 8, 8), (3, 24, 4, 4), (3, 32, 2, 2)]
    assert tuple(pooled.shape) == (3, 32)
    assert (encoder.channels, encoder.dim) == ((16, 24, 32), 32)


def test_maps_are_those_of_the_network_on_what_its_processor_makes(convnext: FeatureMaps) -> None:
    from transformers import ConvNextImageProcessor

    x = (pictures() * 127.5 + 127.5).round()
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    processor = ConvNextImageProcessor(do_resize=False, image_mean=mean, image_std=std)
    seen = processor(list(x.byte().movedim(1, -1).numpy()), return_tensors="pt")["pixel_values"]
    out = convnext.model(pixel_values=seen, output_hidden_states=True)
    maps, pooled = convnext.maps(x / 127.5 - 1)
    for a, b in zip([*maps, pooled], [*out.hidden_states[2:], out.pooler_output], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_gradients_reach_the_pictures_and_not_the_weights(convnext: FeatureMaps) -> None:
    x = pictures(2, 48).requires_grad_()
    maps, pooled = convnext.maps(x)
    (sum(m.sum() for m in maps) + pooled.sum()).backward()
    assert x.grad is not None
    assert x.grad.abs().sum((1, 2, 3)).gt(0).all()
    assert all(not p.requires_grad and p.grad is None for p in convnext.model.parameters())
    assert not convnext.model.training


def test_normalisation_is_the_files_own_or_what_is_asked_for(tiny_convnext: Path, tmp_path: Path) -> None:
    own = changed(
        tiny_convnext, tmp_path / "own", "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3], image_std=[1, 1, 2]
    )
    said = load_vision(own, 32)
    assert (said.mean.flatten() + 1).tolist() == pytest.approx([0.2, 0.4, 0.6])
    assert said.std.flatten().tolist() == [2, 2, 4]
    half = load_vision(own, 32, normalisation="half")
    assert half.mean.abs().max() == 0
    assert half.std.flatten().tolist() == [1, 1, 1]
    imagenet = load_vision(own, 32, normalisation="imagenet")
    assert imagenet.mean.flatten().tolist() == load_vision(str(tiny_convnext), 32).mean.flatten().tolist()


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({"model_type": "convnext"}, {}, "its model_type is convnext: must be convnextv2"),
        ({}, {"size": 40}, "vision.size is 40: must be a multiple of 16, what one position of its last map covers"),
        ({}, {"stages": (2, 5)}, "vision.stages is 2 5: must be of 1 to 4, rising"),
        ({}, {"stages": (3, 2)}, "vision.stages is 3 2: must be of 1 to 4, rising"),
        ({"num_channels": 4}, {}, "cannot be loaded"),
        ({"architecture": "no_such_net"}, {}, "its architecture is no_such_net: not one that timm"),
        ({"architecture": "convnextv2_atto"}, {}, "lacks weights, such as"),
    ],
)
def test_a_network_that_does_not_fit_is_one_line(
    tiny_convnext: Path, tmp_path: Path, values: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        load_vision(changed(tiny_convnext, tmp_path / "other", **values), **{"size": 32, **options})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_channels_than_three_are_refused(tmp_path: Path) -> None:
    from transformers import ConvNextV2Config, ConvNextV2Model

    sizes = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8]}
    ConvNextV2Model(ConvNextV2Config(num_channels=4, patch_size=2, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="its number of channels is 4: must be 3"):
        load_vision(str(tmp_path), 32)


def test_missing_weights_name_the_file_its_source_and_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_vision("someone/convnextv2-nowhere")
    message = str(caught.value)
    for part in (
        "config.json",
        "model.safetensors",
        "https://huggingface.co/someone/convnextv2-nowhere",
        "--vision.path",
    ):
        assert part in message
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no model\.safetensors; pickled weights are not read"):
        load_vision(str(tmp_path))


def test_of_a_repository_its_normalisation_is_fetched_too(tiny_convnext: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def snapshot(name: str, *, allow_patterns: list[str], **_: Any) -> str:
        asked.append(allow_patterns)
        return str(tiny_convnext)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr("huggingface_hub.model_info", lambda *_, **__: None)
    assert load_vision("someone/net", 32).channels == (16, 24, 32)
    assert asked == [["config.json", "model.safetensors", "preprocessor_config.json"]]


# -- timm --------------------------------------------------------------------------------------------------------------


def saved_by_timm(name: str, folder: Path, **options: Any) -> str:
    """A random network as timm's Hub keeps it."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=5, **options)
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    about = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "license": "cc-by-nc-4.0"}
    (folder / "config.json").write_text(
        json.dumps({"architecture": name, "model_args": options, "pretrained_cfg": about})
    )
    return str(folder)


def test_a_network_of_timms_takes_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
    encoder = load_vision(saved_by_timm("convnextv2_atto", tmp_path / "net", **small), 64)
    assert encoder.channels == (16, 24, 32)
    assert encoder.dim == 32
    x = pictures(2, 64).requires_grad_()
    maps, pooled = encoder.maps(x)
    assert [m.shape[-1] for m in maps] == [8, 4, 2]
    pooled.sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert encoder.mean.flatten().tolist() == [0, 0, 0]
    assert "licence cc-by-nc-4.0" in capsys.readouterr().err


def test_of_a_vision_transformer_stages_are_blocks(tmp_path: Path) -> None:
    path = saved_by_timm(
        "vit_tiny_patch16_224", tmp_path / "vit", embed_dim=24, depth=3, num_heads=2, img_size=32, patch_size=8
    )
    encoder = load_vision(path, 32, stages=(1, 3))
    maps, pooled = encoder.maps(pictures())
    assert [tuple(m.shape) for m in maps] == [(2, 24, 4, 4)] * 2
    assert pooled.shape == (2, 24)
    with pytest.raises(UserError, match=r"cannot look at images of vision\.size 48: Input height"):
        load_vision(path, 48, stages=(1, 3))
    with pytest.raises(UserError, match=r"vision\.stages is 4: must be of 1 to 3"):
        load_vision(path, 32, stages=(4,))


def test_a_config_of_timm_cannot_make_it_read_other_files(tmp_path: Path) -> None:
    """Such as a pickle, which would run code."""
    path = Path(saved_by_timm("vit_tiny_patch16_224", tmp_path / "vit", embed_dim=24, depth=1, num_heads=2))
    config = json.loads((path / "config.json").read_text())
    config["model_args"] |= {"checkpoint_path": str(tmp_path / "evil.pth"), "pretrained": True}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"model_args in its config\.json is checkpoint_path, pretrained: must be sizes"
    ):
        load_vision(str(path), 224, stages=(1,))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"in_chans": 1}, "its number of channels is 1: must be 3"),
        ({"num_classes": 7, "depth": 2}, "lacks weights, such as blocks.1"),
        ({"qkv_bias": False}, "has weights of another network, such as"),
    ],
)
def test_a_config_that_is_not_of_the_weights_is_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    path = Path(saved_by_timm("vit_tiny_patch16_224", tmp_path / "vit", embed_dim=24, depth=1, num_heads=2))
    config = json.loads((path / "config.json").read_text())
    config["model_args"] |= more
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        load_vision(str(path), 224, stages=(1,))


def test_damaged_weights_of_timm_are_one_line(tmp_path: Path) -> None:
    path = Path(saved_by_timm("vit_tiny_patch16_224", tmp_path / "vit", embed_dim=24, depth=1, num_heads=2))
    state = load_file(path / "model.safetensors")
    save_file(state | {"norm.weight": torch.ones(7)}, path / "model.safetensors")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_vision(str(path), 224, stages=(1,))
    (path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_vision(str(path), 224, stages=(1,))


def test_a_network_without_feature_maps_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved_by_timm("vit_tiny_patch16_224", tmp_path / "vit", embed_dim=24, depth=1, num_heads=2)

    class Plain(torch.nn.Linear):
        """What an older network of timm's is."""

    plain = Plain(2, 2)
    save_file(plain.state_dict(), tmp_path / "vit" / "model.safetensors")
    monkeypatch.setattr("timm.create_model", lambda *_, **__: plain)
    with pytest.raises(UserError, match="vit_tiny_patch16_224 has no feature maps"):
        load_vision(path, 224, stages=(1,))


# -- rotations ---------------------------------------------------------------------------------------------------------


def test_a_network_learns_to_tell_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of pictures that are bright at the top, which four turns tell apart."""
    monkeypatch.setattr("catgan.encoders.rotations.IMAGES", 40 * 128)
    ramp = torch.linspace(255, 0, 16).view(1, 1, 16, 1).expand(64, 1, 16, 16)
    noisy = (ramp + 20 * torch.randn(64, 1, 16, 16)).clamp(0, 255).byte()
    network, accuracy = train_rotations(lambda rows: noisy[rows], 64, 16, torch.device("cpu"), quiet=True)
    assert accuracy > 0.9
    save_rotations(network, accuracy, tmp_path)
    x = noisy[:4].expand(-1, 3, -1, -1).float() / 127.5 - 1
    with torch.no_grad():
        expected = network(pixel_values=x, output_hidden_states=True)  # sees what it was trained on
        maps, pooled = load_vision(str(tmp_path), 16).maps(x)
    assert [m.shape[-1] for m in maps] == [8, 4, 2]
    torch.testing.assert_close(pooled, expected.pooler_output)
    torch.testing.assert_close(maps[0], expected.hidden_states[2])


def test_its_pictures_have_a_multiple_of_16_pixels() -> None:
    assert [fitting_size(n) for n in (8, 16, 28, 32, 40)] == [16, 16, 32, 32, 48]
