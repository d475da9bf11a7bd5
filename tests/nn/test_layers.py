"""Attention, SwiGLU, equalised linear layers and patches."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from catgan.nn import layers
from catgan.nn.layers import Attention, EqualizedLinear, SwiGLU, attend, linear, patchify, rms_norm, unpatchify
from catgan.nn.positions import rotary_table, rotate


def test_rms_norm_gives_root_mean_square_one_whatever_the_scale() -> None:
    x = torch.randn(5, 16)
    assert torch.allclose(rms_norm(x).square().mean(-1), torch.ones(5), atol=1e-4)
    assert torch.allclose(rms_norm(7 * x), rms_norm(x), atol=1e-4)


@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_linear_starts_xavier_uniform_with_zero_bias(gain: float) -> None:
    layer = linear(200, 100, gain)
    bound = gain * math.sqrt(6 / 300)
    assert layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not layer.bias.any()


def test_equalized_linear_stores_a_hundred_times_the_xavier_weight_it_uses() -> None:
    layer = EqualizedLinear(200, 100)
    bound = math.sqrt(6 / 300)
    used = layer(torch.eye(200)).T  # the bias starts at zero
    assert used.abs().max() <= bound
    assert used.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert torch.allclose(layer.weight, 100 * used, rtol=1e-5)


def test_equalized_linear_moves_by_a_hundredth_of_an_adam_step() -> None:
    layer = EqualizedLinear(4, 3)
    before = layer(torch.eye(4)).detach()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.5)
    layer(torch.eye(4)).sum().backward()
    optimizer.step()
    moved = before - layer(torch.eye(4)).detach()
    assert torch.allclose(moved, torch.full_like(moved, 2 * 0.01 * 0.5), rtol=1e-3)  # weight and bias, one step each


def test_equalized_linear_scales_its_bias_too() -> None:
    layer = EqualizedLinear(4, 3)
    torch.nn.init.ones_(layer.bias)
    assert torch.allclose(layer(torch.zeros(1, 4)), torch.full((1, 3), 0.01))


@pytest.mark.parametrize("tokens", [1, 5, 17, layers.SHORT, layers.SHORT + 1])
def test_attend_is_softmax_attention_for_short_and_long_sequences(tokens: int) -> None:
    q, k, v = (torch.randn(2, 3, tokens, 8, dtype=torch.float64) for _ in range(3))
    expected = torch.einsum("bhqc,bhkc->bhqk", q, k).div(8**0.5).softmax(-1) @ v
    assert torch.allclose(attend(q, k, v), expected, atol=1e-12)


def test_both_paths_of_attend_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(2, 3, 9, 8) for _ in range(3))
    short = attend(q, k, v)
    monkeypatch.setattr(layers, "SHORT", 0)
    assert torch.allclose(attend(q, k, v), short, atol=1e-6)


def masked_attention(attention: Attention, x: torch.Tensor, rotary: torch.Tensor, spans: list[int]) -> torch.Tensor:
    """Dense attention with a block-diagonal mask, from the same weights."""
    batch, tokens, width = x.shape
    q, k, v = attention.qkv(x).view(batch, tokens, 3, attention.heads, -1).unbind(2)
    q, k = rotate(attention.query_norm(q), rotary), rotate(attention.key_norm(k), rotary)
    mask = torch.block_diag(*(torch.ones(n, n) for n in spans)).bool()
    mixed = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), attn_mask=mask)
    return attention.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


@pytest.mark.parametrize("spans", [[1], [2, 3, 4], [5, 17, 40], [40, 50]])
def test_attention_over_spans_is_dense_attention_under_a_block_diagonal_mask(spans: list[int]) -> None:
    attention = Attention(16, 2).double()
    for norm in (attention.query_norm, attention.key_norm):
        torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    x = torch.randn(2, sum(spans), 16, dtype=torch.float64)
    rotary = rotary_table(10, 8)[:, : sum(spans)].double()
    assert torch.allclose(attention(x, rotary, spans), masked_attention(attention, x, rotary, spans), atol=1e-12)


@pytest.mark.parametrize("spans", [(24,), (2, 5, 17), (5, 17, 90)])
def test_attention_in_bfloat16_is_that_of_its_rounded_weights(spans: tuple[int, ...]) -> None:
    attention = Attention(16, 2).bfloat16()
    torch.nn.init.uniform_(attention.query_norm.weight, 0.5, 2.0)
    x, rotary = torch.randn(3, sum(spans), 16).bfloat16(), rotary_table(11, 8)[:, : sum(spans)]
    found = attention(x, rotary, spans)
    assert found.dtype == torch.bfloat16
    exact = masked_attention(attention.double(), x.double(), rotary.double(), list(spans))
    assert torch.allclose(found.double(), exact, atol=0.03)


def test_attention_normalises_queries_and_keys_but_not_values() -> None:
    attention = Attention(16, 2)
    x, rotary = torch.randn(2, 6, 16), rotary_table(3, 8)[:, :6]
    before = attention(x, rotary, (6,))
    with torch.no_grad():
        attention.qkv.weight[:32] *= 5
    assert torch.allclose(attention(x, rotary, (6,)), before, atol=1e-4)
    with torch.no_grad():
        attention.qkv.weight[32:] *= 5
    assert torch.allclose(attention(x, rotary, (6,)), 5 * before, atol=1e-3)


@pytest.mark.parametrize(("width", "hidden"), [(1280, 3416), (768, 2048), (64, 176), (16, 48)])
def test_swiglu_hidden_width_is_two_thirds_of_four_widths_rounded_up_to_eight(width: int, hidden: int) -> None:
    with torch.device("meta"):
        assert SwiGLU(width).down.in_features == hidden


def test_swiglu_is_silu_times_linear() -> None:
    mlp = SwiGLU(8)
    x = torch.randn(3, 8)
    hidden = mlp.down.in_features
    a, b = (F.linear(x, mlp.gate_up.weight[i], mlp.gate_up.bias[i]) for i in (slice(hidden), slice(hidden, None)))
    assert torch.allclose(mlp(x), mlp.down(a * a.sigmoid() * b), atol=1e-6)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4))
def test_unpatchify_is_the_inverse_of_patchify(batch: int, channels: int, grid: int, patch: int) -> None:
    size = grid * patch
    x = torch.arange(float(batch * channels * size * size)).view(batch, channels, size, size)
    tokens = patchify(x, patch)
    assert tokens.shape == (batch, grid * grid, patch * patch * channels)
    assert torch.equal(unpatchify(tokens, patch), x)


def test_a_token_holds_the_pixels_of_its_patch_in_row_major_order() -> None:
    x = torch.randn(2, 3, 6, 6)
    token = patchify(x, 2)[:, 5]  # row 1, column 2 of the 3x3 grid
    assert torch.equal(token, x[:, :, 2:4, 4:6].permute(0, 2, 3, 1).flatten(1))
