"""DINOv2: real Dinov2Model code on tiny random weights, loaded from disk like the published ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch._dynamo.utils import counters

from catgan.encoders import DINOv2, Encoder, load_dino
from catgan.errors import UserError


@pytest.fixture(scope="module")
def dino(tiny_dino: Path) -> DINOv2:
    return load_dino(str(tiny_dino), size=56)


def images(count: int = 2, size: int = 56) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def test_it_is_an_encoder(dino: DINOv2) -> None:
    encoder: Encoder = dino
    cls, patches = encoder.encode(images(3))
    assert (cls.shape, patches.shape, encoder.dim) == ((3, 32), (3, 4, 4, 32), 32)
    assert not cls.requires_grad


def test_features_are_those_of_the_processor_that_belongs_to_it(dino: DINOv2) -> None:
    """Rescaled to [0, 1] and normalised by ImageNet's statistics; at the size of the network nothing is resized."""
    from transformers import BitImageProcessor

    processor = BitImageProcessor(
        do_resize=False, do_center_crop=False, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    x = images()
    pixels = processor(list(x.movedim(1, -1).numpy()), return_tensors="pt")["pixel_values"]
    tokens = dino.model(pixel_values=pixels).last_hidden_state
    cls, patches = dino.encode(x)
    torch.testing.assert_close(cls, tokens[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(patches.flatten(1, 2), tokens[:, 1:], rtol=1e-4, atol=1e-5)


def test_images_are_resized_bicubically_with_antialiasing(dino: DINOv2) -> None:
    """What PIL makes of a smooth image is what the network sees, up to PIL's rounding to bytes."""
    rows = np.linspace(20, 230, 128)
    image = np.stack(
        [np.add.outer(rows, rows) / 2, np.subtract.outer(rows, rows) / 2 + 125, np.full((128, 128), 90.0)], -1
    )
    image = image.astype(np.uint8)
    small = np.asarray(Image.fromarray(image).resize((56, 56), Image.Resampling.BICUBIC))
    seen: list[torch.Tensor] = []
    hook = dino.model.register_forward_pre_hook(lambda m, a, k: seen.append(k["pixel_values"]), with_kwargs=True)
    for picture in (image, small):
        dino.encode(torch.from_numpy(picture.copy()).movedim(-1, 0)[None])
    hook.remove()
    assert seen[0].shape == (1, 3, 56, 56)
    assert (seen[0] - seen[1]).abs().max() < 1.5 / 255 / 0.224


def test_bytes_and_pixels_are_the_same_images(dino: DINOv2) -> None:
    x = images()
    for a, b in zip(dino.encode(x), dino.encode(x.float() / 127.5 - 1), strict=True):
        torch.testing.assert_close(a, b)


def test_patch_tokens_lie_on_the_grid_as_the_image_does(dino: DINOv2) -> None:
    """A change in the top right corner changes the top right token before attention mixes them."""
    x = images(1)
    changed = x.clone()
    changed[..., :14, 42:] = 255 - changed[..., :14, 42:]
    embed = dino.model.embeddings.patch_embeddings
    moved = (embed(changed.float()) - embed(x.float())).abs().sum(-1)[0] > 0
    assert moved.nonzero().flatten().tolist() == [3]
    assert torch.equal(dino.encode(x)[1].flatten(1, 2)[0, 3], dino.encode(x)[1][0, 0, 3])


@pytest.mark.parametrize(("size", "grid"), [(28, 2), (84, 6)])
def test_other_sizes_give_other_grids(tiny_dino: Path, size: int, grid: int) -> None:
    assert load_dino(str(tiny_dino), size).encode(images())[1].shape == (2, grid, grid, 32)


def test_a_size_that_patches_do_not_tile_is_refused(tiny_dino: Path) -> None:
    with pytest.raises(UserError, match=r"encoder\.size is 30: must be a multiple of the encoder's patch size \(14\)"):
        load_dino(str(tiny_dino), 30)


def test_another_architecture_and_missing_weights_are_refused(tiny_dino: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_dino, tmp_path / "dino"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["layernorm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights, such as layernorm\.weight"):
        load_dino(str(folder), 56)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "dinov2_with_registers"}))
    with pytest.raises(UserError, match="model_type is dinov2_with_registers: must be dinov2"):
        load_dino(str(folder), 56)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        load_dino(str(folder), 56)


def test_compiled_blocks_give_the_same_and_share_one_graph(tiny_dino: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the compiler without its last part, which takes minutes."""
    torch._dynamo.reset()
    counters.clear()
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: real(function, **how | {"backend": "aot_eager"}))
    plain, compiled = load_dino(str(tiny_dino), 28), load_dino(str(tiny_dino), 28)
    compiled.compile()
    x = images()
    for a, b in zip(compiled.encode(x), plain.encode(x), strict=True):
        torch.testing.assert_close(a, b)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
