"""The vision-aided heads: what they see, and what their numbers may depend on."""

from __future__ import annotations

import pytest
import torch
from vision_aided import Frozen

from catgan.errors import UserError
from catgan.objective import VisionHeads
from catgan.objective.vision import PatchHead, spectral
from catgan.schedules import rate


def heads(classes: int = 3) -> VisionHeads:
    return VisionHeads(Frozen(), classes, width=8)


def test_logits_have_a_row_per_map_and_one_for_the_whole() -> None:
    module, x, y = heads(), torch.rand(4, 3, 16, 16) * 2 - 1, torch.tensor([0, 1, 2, 0])
    logits = module([torch.zeros(4, 3, 4, 4), x], y)
    assert logits.shape == (4, 3, 16)
    assert (logits[:, -1] == logits[:, -1, :1]).all()
    other = module([torch.ones(4, 3, 4, 4), x], (y + 1) % 3)
    assert torch.equal(other[:, :-1], logits[:, :-1])  # patches know no class, and nothing looks at x_0
    assert not torch.isclose(other[:, -1], logits[:, -1]).any()


def test_a_patch_sees_its_neighbours_through_a_leaky_relu() -> None:
    head = PatchHead(channels=3, width=4)
    assert [tuple(layer.weight.shape) for layer in (head.inner, head.outer)] == [(4, 3, 3, 3), (1, 4, 1, 1)]
    x = torch.randn(1, 3, 5, 5)
    normal = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    padded, wide = torch.nn.functional.pad(normal, (1, 1, 1, 1)), spectral(head.inner.weight)
    sums = (padded[0, :, 1:4, 2:5] * wide).sum((1, 2, 3)) + head.inner.bias  # around row 1, column 2
    seen = torch.where(sums > 0, sums, 0.2 * sums)
    logit = (seen * spectral(head.outer.weight)[0, :, 0, 0]).sum() + head.outer.bias
    torch.testing.assert_close(head(x)[0, 1, 2], logit[0])


def test_a_logit_depends_on_its_sample_alone() -> None:
    module, x, y = heads(), torch.rand(6, 3, 16, 16), torch.arange(6) % 3
    whole = module([x], y)
    torch.testing.assert_close(torch.cat([module([x[:1]], y[:1]), module([x[1:]], y[1:])]), whole)
    torch.testing.assert_close(module([x], y), whole, rtol=0, atol=0)  # no pass changes anything


def test_grey_pictures_are_seen_as_equal_channels() -> None:
    module, x, y = heads(), torch.rand(2, 1, 16, 16), torch.zeros(2, dtype=torch.int64)
    assert torch.equal(module([x], y), module([x.expand(-1, 3, -1, -1)], y))


def test_other_channels_are_refused() -> None:
    with pytest.raises(UserError, match=r"sample\.channels is 4: must be 1 or 3"):
        heads()([torch.rand(2, 4, 16, 16)], torch.zeros(2, dtype=torch.int64))


def test_an_object_without_feature_maps_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"the vision encoder is a Linear: must be an object with channels, dim, identity"
    ):
        VisionHeads(torch.nn.Linear(2, 2), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("channels", "dim"), [((6, 13), 12), ((6,), 12), ((6, 12), 11)])
def test_a_network_that_gives_something_else_than_it_says_is_refused(channels: tuple[int, ...], dim: int) -> None:
    encoder = Frozen()
    encoder.channels, encoder.dim = channels, dim  # type: ignore[misc, assignment]
    said = (
        rf"gives is 6x8x8, 12x4x4, 12: must be maps of {', '.join(map(str, channels))} channels and a feature of {dim}"
    )
    with pytest.raises(UserError, match=said):
        VisionHeads(encoder, 3, width=8)([torch.rand(2, 3, 16, 16)], torch.zeros(2, dtype=torch.int64))


def test_logits_of_the_whole_start_of_the_order_of_one() -> None:
    """Class embeddings have the deviation by which the product with `width` numbers of about 1 varies by about 1."""
    module = VisionHeads(Frozen(), 500, width=64)
    assert module.class_embedding.weight.std().item() == pytest.approx(1 / 8, rel=0.03)


@pytest.mark.parametrize("shape", [(8, 12, 3, 3), (1, 16, 1, 1), (24, 24), (64, 5)])
def test_weights_are_divided_by_their_largest_singular_value(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape)
    largest = torch.linalg.matrix_norm(spectral(weight).flatten(1), 2)
    assert 1 - 1e-5 < largest < 1.1  # the iterations see a little less than the largest where others are near


def test_without_a_gain_in_scale() -> None:
    """The gradient of a normalised weight is orthogonal to it."""
    weight = torch.randn(8, 12, dtype=torch.float64, requires_grad=True)
    (spectral(weight) * torch.randn(8, 12, dtype=torch.float64)).sum().backward()
    assert weight.grad is not None
    assert (weight.grad * weight).sum().abs().item() < 1e-9


def test_they_learn_on_frozen_features() -> None:
    """Alone, heads tell stripes along one axis from those along the other; their loss falls."""
    module, y = heads(1), torch.zeros(16, dtype=torch.int64)
    stripes = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 1, 16).expand(16, 1, 16, 16)
    optimizer, losses = torch.optim.AdamW(module.parameters(), lr=2e-3), []
    for _ in range(40):
        noise = 0.5 * torch.randn(16, 1, 16, 16)
        real, fake = module([stripes + noise], y), module([stripes.mT + noise], y)
        loss = torch.nn.functional.softplus(fake - real).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_the_weight_rises_over_the_warm_up() -> None:
    assert [rate(4, 0, step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
