"""The generator: accumulated stages, style, truncation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from catgan.errors import UserError
from catgan.generator import STYLE_BETA, Generator

SMALL: dict[str, Any] = {
    "size": 8, "channels": 2, "classes": 4, "stages": 3, "depth": 6, "width": 16, "heads": 2, "patch": 2, "z_dim": 8,
}  # fmt: skip


@pytest.fixture
def generator() -> Generator:
    return Generator(**SMALL)


def inputs(count: int = 5, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 8), torch.arange(count) % classes


def test_stages_are_running_sums_of_the_output_layers_at_full_size(generator: Generator) -> None:
    outs: list[torch.Tensor] = []
    for layer in generator.outputs:
        layer.register_forward_hook(lambda _m, _i, out: outs.append(out))
    h = generator(*inputs(), all_stages=True)
    assert h.shape == (3, 5, 2, 8, 8)
    assert torch.equal(h[0], outs[0])
    assert torch.equal(h[1], h[0] + outs[1])
    assert torch.equal(h[2], h[1] + outs[2])


def test_outputs_follow_uniformly_spaced_blocks(generator: Generator) -> None:
    order: list[str] = []
    for i, block in enumerate(generator.blocks):
        block.register_forward_hook(lambda *_, i=i: order.append(f"block {i}"))
    for k, layer in enumerate(generator.outputs):
        layer.register_forward_hook(lambda *_, k=k: order.append(f"output {k}"))
    generator(*inputs())
    assert order == [
        "block 0", "block 1", "output 0", "block 2", "block 3", "output 1", "block 4", "block 5", "output 2",
    ]  # fmt: skip


def test_the_last_stage_is_the_image(generator: Generator) -> None:
    z, y = inputs()
    assert torch.equal(generator(z, y, all_stages=True)[-1], generator(z, y))


def test_stage_k_does_not_depend_on_later_blocks(generator: Generator) -> None:
    z, y = inputs()
    before = generator(z, y, all_stages=True)
    with torch.no_grad():
        generator.blocks[2].mlp.down.weight.normal_()
        generator.blocks[2].modulation.bias.fill_(1.0)
    after = generator(z, y, all_stages=True)
    assert torch.equal(after[0], before[0])
    assert not torch.allclose(after[1], before[1])


@pytest.mark.parametrize(
    "change",
    [
        {"stages": 1, "depth": 1},
        {"stages": 2, "depth": 2},
        {"stages": 5, "depth": 5},
        {"channels": 1},
        {"channels": 7},
        {"classes": 1},
        {"patch": 1},
        {"patch": 8},
    ],
)
def test_any_number_of_stages_channels_classes_and_any_patch(change: dict[str, int]) -> None:
    arguments = SMALL | change
    h = Generator(**arguments)(*inputs(classes=arguments["classes"]), all_stages=True)
    assert h.shape == (arguments["stages"], 5, arguments["channels"], 8, 8)
    assert h.isfinite().all()


def test_output_depends_on_z_and_class_and_on_nothing_random(generator: Generator) -> None:
    z, y = inputs()
    x = generator(z, y)
    assert torch.equal(generator(z, y), x)
    assert not torch.allclose(generator(z + 1, y), x)
    assert not torch.allclose(generator(z, (y + 1) % 4), x)


def test_samples_of_a_batch_do_not_influence_each_other(generator: Generator) -> None:
    z, y = inputs()
    single = torch.cat([generator(z[i : i + 1], y[i : i + 1]) for i in range(5)])
    assert torch.allclose(generator(z, y), single, atol=1e-6)


def test_style_does_not_see_the_length_of_z_or_of_the_class_embedding(generator: Generator) -> None:
    z, y = inputs()
    w = generator.style(z, y)
    assert torch.allclose(generator.style(3 * z, y), w, atol=1e-5)
    torch.nn.init.normal_(generator.class_embedding.weight)  # large enough for the norm's epsilon not to matter
    w = generator.style(z, y)
    with torch.no_grad():
        generator.class_embedding.weight *= 3
    assert torch.allclose(generator.style(z, y), w, atol=1e-5)


def test_a_style_is_two_equalised_layers_with_silu_between_them_on_class_and_noise(generator: Generator) -> None:
    (z, y), (first, _, second) = inputs(), generator.mapping
    embedding = generator.class_embedding.weight[y]
    parts = [v / (v.square().mean(1, keepdim=True) + 1e-6).sqrt() for v in (embedding, z)]
    hidden = torch.nn.functional.silu(torch.cat(parts, 1) @ (0.01 * first.weight).T + 0.01 * first.bias)
    expected = hidden @ (0.01 * second.weight).T + 0.01 * second.bias
    torch.testing.assert_close(generator.style(z, y), expected, rtol=1e-4, atol=1e-5)


def test_modulation_starts_small_with_zero_bias_and_embedding_with_its_deviation() -> None:
    generator = Generator(**SMALL | {"classes": 2000, "z_dim": 32})
    assert generator.class_embedding.weight.std().item() == pytest.approx(0.02, rel=0.02)
    for module in (*generator.blocks, *generator.outputs):
        rows, columns = module.modulation.weight.shape
        assert module.modulation.weight.abs().max() <= 0.1 * (6 / (rows + columns)) ** 0.5
        assert not module.modulation.bias.any()


def test_gates_of_zero_switch_a_block_off(generator: Generator) -> None:
    block = generator.blocks[0]
    torch.nn.init.zeros_(block.modulation.weight)
    x, w = torch.randn(2, 16, 16), torch.randn(2, 16)
    assert torch.equal(block(x, w, generator.rotary), x)
    with torch.no_grad():
        block.modulation.bias[2 * 16 : 3 * 16] = 1.0  # the attention's gate
    assert not torch.allclose(block(x, w, generator.rotary), x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 7}, "generator.depth is 7"),
        ({"width": 18}, "generator.width is 18"),
        ({"heads": 3}, "generator.width is 16"),
        ({"heads": 8}, "generator.heads is 8"),
    ],
)
def test_sizes_that_do_not_fit_are_user_errors(change: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Generator(**SMALL | change)


# -- truncation --------------------------------------------------------------------------------------------------------


def train_style_mean(generator: Generator, updates: int = 3) -> None:
    for _ in range(updates):
        z, y = inputs(12)
        generator.update_style_mean(generator.style(z, y), y)


def test_psi_one_is_no_truncation(generator: Generator) -> None:
    train_style_mean(generator)
    z, y = inputs()
    assert torch.equal(generator(z, y, psi=1.0), generator(z, y))
    w = generator.style(z, y)
    assert torch.equal(generator.truncate(w, y, 1.0), w)


def test_psi_zero_gives_one_output_per_class(generator: Generator) -> None:
    train_style_mean(generator)
    z, _ = inputs(6)
    x = generator(z, torch.tensor([0, 0, 0, 1, 1, 1]), psi=0.0)
    assert torch.allclose(x[0], x[1], atol=1e-6)
    assert torch.allclose(x[3], x[5], atol=1e-6)
    assert not torch.allclose(x[0], x[3], atol=1e-6)


def test_truncation_interpolates_between_the_class_mean_and_w(generator: Generator) -> None:
    train_style_mean(generator)
    z, y = inputs()
    w, mean = generator.style(z, y), generator.style_mean(y)
    assert torch.allclose(generator.truncate(w, y, 0.85), mean + 0.85 * (w - mean), atol=1e-6)
    assert not torch.allclose(generator.truncate(w, y, 0.85), w, atol=1e-4)


def test_classes_without_a_mean_are_not_truncated(generator: Generator) -> None:
    generator.update_style_mean(torch.randn(2, 16), torch.tensor([1, 1]))
    z = torch.randn(2, 8)
    y = torch.tensor([0, 1])
    w = generator.style(z, y)
    truncated = generator.truncate(w, y, 0.0)
    assert torch.equal(truncated[0], w[0])
    assert not torch.allclose(truncated[1], w[1])


@pytest.mark.parametrize("updates", [1, 2, 50, 2000])
def test_mean_of_constant_styles_is_that_style_after_any_number_of_updates(generator: Generator, updates: int) -> None:
    w, y = torch.randn(1, 16).expand(3, 16), torch.tensor([2, 2, 2])
    for _ in range(updates):
        generator.update_style_mean(w, y)
    assert torch.allclose(generator.style_mean(y), w, rtol=1e-4, atol=1e-5)


def test_style_mean_is_what_a_loop_over_classes_computes(generator: Generator) -> None:
    generator.double()
    total, updates = torch.zeros(4, 16, dtype=torch.float64), [0] * 4
    for step in range(6):
        w, y = torch.randn(7, 16, dtype=torch.float64), torch.randint(0, 3 if step else 2, (7,))
        generator.update_style_mean(w, y)
        for c in range(4):
            if (y == c).any():
                total[c] = STYLE_BETA * total[c] + (1 - STYLE_BETA) * w[y == c].mean(0)
                updates[c] += 1
    assert updates[3] == 0
    for c in range(3):
        expected = total[c] / (1 - STYLE_BETA ** updates[c])
        assert torch.allclose(generator.style_mean(torch.tensor([c]))[0], expected, atol=1e-12)


def test_classes_absent_from_a_batch_keep_their_mean(generator: Generator) -> None:
    train_style_mean(generator)
    before = generator.style_mean(torch.arange(4))
    generator.update_style_mean(torch.randn(3, 16), torch.tensor([1, 1, 3]))
    after = generator.style_mean(torch.arange(4))
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert (after[[1, 3]] != before[[1, 3]]).any(1).all()


def test_nothing_but_its_update_changes_the_style_mean(generator: Generator) -> None:
    train_style_mean(generator)
    before = {name: buffer.clone() for name, buffer in generator.named_buffers()}
    generator.train()
    generator(*inputs(), psi=0.5).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in generator.named_buffers())


def test_style_mean_is_saved_and_fixed_tables_are_not(generator: Generator) -> None:
    names = set(generator.state_dict()) - {name for name, _ in generator.named_parameters()}
    assert names == {"style_sum", "style_updates"}


def test_without_shift_modulation_is_by_scale_and_gate_alone() -> None:
    """4d per block and d per output, as in GAT, in place of 6d and 2d."""
    sizes = {"depth": 4, "width": 16, "heads": 2, "stages": 2, "size": 8}
    usual, gat = Generator(**sizes), Generator(**sizes, shift=False)
    assert [b.modulation.out_features for b in gat.blocks] == [4 * 16] * 4
    assert [o.modulation.out_features for o in gat.outputs] == [16] * 2
    count = [sum(p.numel() for p in g.parameters()) for g in (usual, gat)]
    assert count[0] - count[1] == (4 * 2 + 2) * (16 * 16 + 16)


def test_without_shift_a_block_is_one_whose_shifts_are_zero() -> None:
    torch.manual_seed(0)
    usual, gat = (Generator(depth=2, width=16, heads=2, stages=2, size=8, shift=shift) for shift in (True, False))
    state = usual.state_dict()
    for name in list(state):
        if ".modulation." in name:
            torch.nn.init.normal_(state[name])
            parts = state[name].chunk(6 if "blocks" in name else 2)
            shifts = parts[::3] if "blocks" in name else parts[:1]
            for shift in shifts:
                shift.zero_()
    kept = {
        name: torch.cat([p for i, p in enumerate(v.chunk(6)) if i % 3]) if "blocks" in name else v.chunk(2)[1]
        for name, v in state.items()
        if ".modulation." in name
    }
    gat.load_state_dict(state | kept)
    usual.load_state_dict(state)
    z, y = torch.randn(3, 64), torch.arange(3)
    assert torch.allclose(usual(z, y, all_stages=True), gat(z, y, all_stages=True), atol=1e-6)
