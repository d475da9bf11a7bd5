"""The VAE: real AutoencoderKL code on tiny random weights, loaded from disk like the published ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from catgan.config_io import from_dict
from catgan.encoders import VAE, load_vae, vae_for
from catgan.errors import UserError
from catgan.recipes import recipe

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def vae(tiny_vae: Path) -> VAE:
    return load_vae(str(tiny_vae))


@pytest.fixture
def copy(tiny_vae: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_vae, tmp_path / "vae"))


def pictures(count: int = 2, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size) * 2 - 1


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_vae_knows_its_geometry_and_scale(vae: VAE) -> None:
    assert (vae.channels, vae.downsample, vae.scale) == (4, 8, 0.18215)


def test_moments_are_the_posteriors_mean_and_standard_deviation(vae: VAE) -> None:
    x = pictures()
    moments = vae.moments(x)
    posterior = vae.model.encode(x).latent_dist
    assert moments.shape == (2, 8, 2, 2)
    assert moments.dtype == torch.float32
    torch.testing.assert_close(moments, torch.cat([posterior.mean, posterior.logvar.exp().sqrt()], 1))
    assert (moments[:, 4:] > 0).all()


def test_decoding_undoes_the_scale_and_clips(vae: VAE) -> None:
    latents = torch.randn(2, 4, 2, 2)
    raw = vae.model.decode(latents).sample
    assert raw.shape == (2, 3, 16, 16)
    torch.testing.assert_close(vae.decode(latents * 0.18215), raw.clamp(-1, 1))
    assert vae.decode(latents * 1e4).abs().max() <= 1


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_decoding_in_slices_equals_decoding_the_whole(vae: VAE, batch: int) -> None:
    latents = torch.randn(5, 4, 2, 2)
    torch.testing.assert_close(vae.decode(latents, batch=batch), vae.decode(latents, batch=5), rtol=1e-4, atol=1e-5)


def test_tiling_takes_over_where_pictures_are_larger_than_the_vae_was_made_for(copy: Path) -> None:
    change_config(copy, sample_size=32)
    whole, tiled = load_vae(str(copy)), load_vae(str(copy), tiling=True)
    small, large = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 8, 8)
    assert torch.equal(whole.decode(small), tiled.decode(small))
    assert tiled.decode(large).shape == (1, 3, 64, 64)
    assert not torch.equal(whole.decode(large), tiled.decode(large))


def test_nothing_of_it_is_trained(vae: VAE) -> None:
    assert not any(p.requires_grad for p in vae.model.parameters())
    assert not vae.model.training
    assert not vae.moments(pictures().requires_grad_()).requires_grad


def test_bfloat16_is_close_and_float32_outside_and_can_be_undone(tiny_vae: Path) -> None:
    vae, latents = load_vae(str(tiny_vae)), torch.randn(2, 4, 2, 2)
    exact = vae.decode(latents)
    rough = vae.to("cpu", "bfloat16").decode(latents)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1
    assert vae.moments(pictures()).dtype == torch.float32
    assert torch.equal(vae.to("cpu").decode(latents), exact)
    with pytest.raises(UserError, match="precision is float8"):
        vae.to("cpu", "float8")


def test_the_identity_is_that_of_the_weights(vae: VAE, copy: Path) -> None:
    assert load_vae(str(copy)).identity == vae.identity
    tensors = load_file(copy / WEIGHTS)
    tensors["decoder.conv_out.bias"] += 1
    save_file(tensors, copy / WEIGHTS)
    assert load_vae(str(copy)).identity != vae.identity
    assert load_vae(str(copy)).encoder_identity == vae.encoder_identity, "it makes the same latents"
    tensors["quant_conv.bias"] += 1
    save_file(tensors, copy / WEIGHTS)
    assert load_vae(str(copy)).encoder_identity != vae.encoder_identity


def test_attention_weights_under_their_old_names_are_read(vae: VAE, copy: Path) -> None:
    """Published VAEs were saved before diffusers renamed them."""
    tensors = load_file(copy / WEIGHTS)
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        tensors = {k.replace(new, old): t for k, t in tensors.items()}
    save_file(tensors, copy / WEIGHTS)
    assert load_vae(str(copy)).identity == vae.identity


def test_pictures_that_do_not_divide_are_refused(vae: VAE) -> None:
    with pytest.raises(UserError, match="pictures have 20 pixels: must be a multiple of 8"):
        vae.moments(pictures(size=20))


@pytest.mark.parametrize("values", [{"shift_factor": 0.1}, {"latents_mean": [1.0] * 4}])
def test_shifted_latents_are_refused(copy: Path, values: dict[str, object]) -> None:
    change_config(copy, **values)
    with pytest.raises(UserError, match=rf"has {next(iter(values))} .*: must have none"):
        load_vae(str(copy))


def test_missing_weights_are_refused_not_drawn_at_random(copy: Path) -> None:
    tensors = load_file(copy / WEIGHTS)
    del tensors["encoder.conv_in.weight"]
    save_file(tensors, copy / WEIGHTS)
    with pytest.raises(UserError, match=r"lacks weights, such as encoder\.conv_in\.weight"):
        load_vae(str(copy))


def test_a_vae_must_be_that_of_the_samples(copy: Path) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(UserError, match=r"sample\.channels is 3: must be 4"):
        vae_for(from_dict({"sample": {"channels": 3}}, recipe("cat-b2")), str(copy), cpu, "float32")
    change_config(copy, scaling_factor=0.13025)
    with pytest.raises(UserError, match=r"scaling_factor .* is 0\.13025: must be 0\.18215"):
        vae_for(recipe("cat-b2"), str(copy), cpu, "float32")
