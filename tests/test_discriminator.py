"""The scale-wise discriminator: logit k is a function of x_k and the class alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from catgan.config_io import from_dict
from catgan.discriminator import Discriminator, DiscriminatorBlock
from catgan.errors import UserError
from catgan.networks import build_networks
from catgan.nn.positions import rotary_table
from catgan.pyramid import Pyramid

SMALL: dict[str, Any] = {
    "channels": 2, "classes": 4, "scales": (2, 4, 8), "patches": (1, 2, 2), "depth": 3, "width": 16, "heads": 2,
    "head_dim": 24,
}  # fmt: skip


def build(**changes: Any) -> Discriminator:
    return Discriminator(**SMALL | changes)


def pyramid(discriminator: Discriminator, count: int = 5, channels: int = 2) -> list[torch.Tensor]:
    return [torch.randn(count, channels, size, size) for size in discriminator.scales]


def labels(count: int = 5, classes: int = 4) -> torch.Tensor:
    return torch.arange(count) % classes


def gradients(discriminator: Discriminator) -> list[list[float]]:
    """Largest gradient of d_k with respect to x_j, [k][j]."""
    x = [v.requires_grad_() for v in pyramid(discriminator)]
    logits = discriminator(x, labels())
    rows = []
    for k in range(logits.shape[1]):
        grads = torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True, allow_unused=True)
        rows.append([0.0 if g is None else g.abs().max().item() for g in grads])
    return rows


def test_a_logit_has_exactly_zero_gradient_with_respect_to_every_other_scale() -> None:
    for k, row in enumerate(gradients(build())):
        for j, largest in enumerate(row):
            assert (largest > 0) if j == k else (largest == 0.0)


def test_a_logit_of_the_aggregated_mode_depends_on_every_scale() -> None:
    assert min(min(row) for row in gradients(build(aggregated=True))) > 0


def test_a_logit_keeps_its_value_when_other_scales_change() -> None:
    discriminator = build()
    x = pyramid(discriminator)
    before = discriminator(x, labels())
    after = discriminator([x[0], *(torch.randn_like(v) for v in x[1:])], labels())
    assert torch.equal(after[:, 0], before[:, 0])
    assert (after[:, 1:] != before[:, 1:]).all()


def test_packed_and_scale_by_scale_evaluation_agree() -> None:
    discriminator = build(scales=(2, 4, 8, 16), patches=(1, 2, 2, 2))  # the finest scale takes the fused kernel
    torch.nn.init.normal_(discriminator.class_embedding.weight)  # logits of order one
    x, y = pyramid(discriminator), labels()
    packed = discriminator(x, y)
    single = torch.cat([discriminator([v], y, scales=[k]) for k, v in enumerate(x)], dim=1)
    assert packed.abs().mean() > 0.1
    assert torch.allclose(packed, single, atol=1e-5)
    assert torch.allclose(discriminator([x[3], x[1]], y, scales=[3, 1]), packed[:, [3, 1]], atol=1e-5)


def test_both_modes_have_the_same_weights_and_different_logits() -> None:
    split, joint = build(), build(aggregated=True)
    joint.load_state_dict(split.state_dict())
    x = pyramid(split)
    assert not torch.allclose(split(x, labels()), joint(x, labels()), atol=1e-6)


def test_patch_embeddings_are_shared_exactly_where_patch_sizes_are_equal() -> None:
    discriminator = build(scales=(2, 4, 8, 16), patches=(1, 2, 1, 4))
    assert {name: tuple(e.weight.shape) for name, e in discriminator.embeddings.items()} == {
        "1": (16, 2), "2": (16, 8), "4": (16, 32),
    }  # fmt: skip
    users = {}
    for k in range(4):
        discriminator.zero_grad(set_to_none=True)
        discriminator(pyramid(discriminator), labels())[:, k].sum().backward()
        touched = {n for n, e in discriminator.embeddings.items() if e.weight.grad is not None and e.weight.grad.any()}
        users[k] = touched
    assert users == {0: {"1"}, 1: {"2"}, 2: {"1"}, 3: {"4"}}


def test_every_scale_has_a_class_token_and_a_scale_embedding_of_its_own() -> None:
    discriminator = build()
    assert discriminator.cls.shape == discriminator.scale_embedding.shape == (3, 16)
    discriminator(pyramid(discriminator), labels())[:, 1].sum().backward()
    for parameter in (discriminator.cls, discriminator.scale_embedding):
        assert parameter.grad is not None
        assert parameter.grad[1].any()
        assert not parameter.grad[[0, 2]].any()


def test_tokens_are_one_class_token_and_the_patches_of_each_scale() -> None:
    features = build().features(pyramid(build()))
    assert [f.shape for f in features] == [(5, 1 + 4, 16), (5, 1 + 4, 16), (5, 1 + 16, 16)]


@pytest.mark.parametrize(
    ("scales", "patches"),
    [((8,), (2,)), ((4, 8), (2, 4)), ((1, 2, 4, 8, 16), (1, 1, 2, 2, 4)), ((3, 6, 12), (3, 3, 2))],
)
def test_any_number_of_scales(scales: tuple[int, ...], patches: tuple[int, ...]) -> None:
    discriminator = build(scales=scales, patches=patches)
    logits = discriminator(pyramid(discriminator), labels())
    assert logits.shape == (5, len(scales))
    assert logits.isfinite().all()


@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (3, 1), (7, 10)])
def test_any_number_of_channels_and_classes(channels: int, classes: int) -> None:
    discriminator = build(channels=channels, classes=classes)
    logits = discriminator(pyramid(discriminator, channels=channels), labels(classes=classes))
    assert logits.shape == (5, 3)


def test_the_size_of_the_discriminator_is_independent_of_the_generators(tiny_config: Any) -> None:
    config = from_dict(
        {"generator": {"width": 32, "depth": 6}, "discriminator": {"width": 24, "heads": 3, "depth": 1}}, tiny_config
    )
    generator, discriminator = build_networks(config.validate())
    assert (generator.width, len(generator.blocks)) == (32, 6)
    assert (discriminator.width, len(discriminator.blocks)) == (24, 1)


def test_a_logit_is_the_plain_product_of_head_and_class_embedding() -> None:
    discriminator = build().double()
    x, y = [v.double() for v in pyramid(discriminator)], labels()
    cls = discriminator.features(x)[1][:, 0]
    normed = cls / (cls.square().mean(-1, keepdim=True) + 1e-6).sqrt() * discriminator.norm.weight
    expected = (discriminator.head(normed) * discriminator.class_embedding.weight[y]).sum(-1)
    assert torch.allclose(discriminator(x, y)[:, 1], expected, atol=1e-12)


def test_a_pyramid_of_another_number_of_scales_is_an_error() -> None:
    discriminator = build()
    with pytest.raises(ValueError, match="shorter than"):
        discriminator(pyramid(discriminator)[:2], labels())


def test_a_block_adds_its_gains_times_attention_then_mlp() -> None:
    block = DiscriminatorBlock(16, 2).double()
    torch.nn.init.normal_(block.attention_gain)
    torch.nn.init.normal_(block.mlp_gain)
    x, about = torch.randn(3, 10, 16, dtype=torch.float64), (torch.cat([rotary_table(2, 8, 1)] * 2, 1), (5, 5))
    attended = x + block.attention_gain * block.attention(block.attention_norm(x), *about)
    expected = attended + block.mlp_gain * block.mlp(block.mlp_norm(attended))
    torch.testing.assert_close(block(x, *about), expected)


def test_initial_layer_scale_and_embeddings() -> None:
    discriminator = build(classes=500, width=512, heads=4)
    assert discriminator.class_embedding.weight.std().item() == pytest.approx(0.02, rel=0.03)
    for learned in (discriminator.cls, discriminator.scale_embedding):
        assert learned.std().item() == pytest.approx(0.02, rel=0.1)
    assert all((b.attention_gain == 0.1).all() and (b.mlp_gain == 0.1).all() for b in discriminator.blocks)


def test_logits_are_float32_and_finite_under_bfloat16_autocast() -> None:
    discriminator = build()
    x = pyramid(discriminator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = discriminator(x, labels())
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert torch.allclose(logits, discriminator(x, labels()), atol=0.02)


@pytest.mark.parametrize("precise", [[], [3], [4, 0, 2], [0, 1, 2, 3, 4]])
def test_samples_that_are_judged_in_float32_keep_their_places(precise: list[int]) -> None:
    discriminator = build(representation_dim=12)
    x, y = pyramid(discriminator), labels()
    exact = discriminator(x, y, represented=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = discriminator(x, y, represented=4)
        mixed = discriminator(x, y, represented=4, precise=torch.tensor(precise, dtype=torch.int64))
    assert mixed.represented.shape == rough.represented.shape
    for i in range(len(y)):
        near, far = (exact, rough) if i in precise else (rough, exact)
        distance = [(mixed.logits[i] - judged.logits[i]).abs().max() for judged in (near, far)]
        assert 100 * distance[0] < distance[1]


def test_in_float32_all_samples_are_judged_alike_whichever_are_precise() -> None:
    discriminator = build(representation_dim=12).double()
    x, y = [v.double() for v in pyramid(discriminator)], labels()
    plain, apart = discriminator(x, y, represented=4), discriminator(x, y, represented=4, precise=torch.tensor([1, 3]))
    torch.testing.assert_close(apart.logits, plain.logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(apart.represented, plain.represented, rtol=1e-12, atol=1e-12)


def test_representation_head_reads_the_finest_scale_only() -> None:
    discriminator = build(representation_dim=12)
    x = [v.requires_grad_() for v in pyramid(discriminator)]
    predicted = discriminator.represent(discriminator.features(x))
    assert predicted.shape == (5, 1 + 16, 12)
    grads = torch.autograd.grad(predicted.sum(), x, allow_unused=True)
    assert [g is not None and bool(g.any()) for g in grads] == [False, False, True]


def test_without_encoder_there_is_no_representation_head() -> None:
    discriminator = build()
    assert not [name for name, _ in discriminator.named_parameters() if "representation" in name]
    with pytest.raises(ValueError, match="representation_dim"):
        discriminator.represent(discriminator.features(pyramid(discriminator)))


def test_every_parameter_gets_a_gradient() -> None:
    discriminator = build()
    discriminator(pyramid(discriminator), labels()).sum().backward()
    assert [n for n, p in discriminator.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": (2, 8, 4)}, "sample.scales is 2,8,4"),
        ({"patches": (1, 2)}, "discriminator.patches is 1,2"),
        ({"patches": (1, 3, 2)}, "scale 1 is 4"),
        ({"heads": 3}, "discriminator.width is 16"),
    ],
)
def test_sizes_that_do_not_fit_are_user_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**change)


def test_with_mapped_classes_the_paper_s_size_is_reached_at_half_the_width() -> None:
    """96 M parameters fit both: head_dim 2048 without the mapping, 1024 with it."""
    with torch.device("meta"):
        sizes = [
            sum(
                p.numel()
                for p in Discriminator(head_dim=dim, class_mapping=mapped, representation_dim=768).parameters()
            )
            / 1e6
            for dim, mapped in ((2048, False), (1024, True))
        ]
    assert sizes == pytest.approx([96.06, 96.34], abs=0.01)


def test_the_perturbation_of_coarse_scales_survives_bfloat16_into_the_tokens() -> None:
    """At scale 4 of 32 it is 0.00125, below the steps of bfloat16 near 1: half of it would be lost, the rest doubled."""
    scales = (4, 8, 16, 32)
    discriminator = build(scales=scales, patches=(2, 2, 2, 2), width=64, channels=4)
    view, x = Pyramid(scales), 0.7 * torch.randn(32, 4, 32, 32)
    twin = x + 0.01 * torch.randn(x.shape)

    def energy() -> torch.Tensor:
        """Mean square of what the perturbation changes of the tokens, per scale."""
        pairs = zip(view(x), view(twin), strict=True)
        moved = [discriminator.tokens(k, a) - discriminator.tokens(k, b) for k, (a, b) in enumerate(pairs)]
        return torch.stack([m.float().square().mean() for m in moved])

    with torch.no_grad():
        exact = energy()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.allclose(energy(), exact, rtol=1e-3)


def test_a_scale_has_a_token_per_patch_and_its_cls() -> None:
    assert build(scales=(2, 4, 12), patches=(1, 2, 4)).lengths == (5, 5, 10)
