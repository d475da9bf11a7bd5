"""Penalties of a step in bfloat16 against those of one in float32: same weights, samples and noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.discriminator import DiscriminatorBlock
from catgan.objective import PyramidSupervision, default_objective
from catgan.recipes import recipe
from catgan.training.step import Step

SCALES = 4
PENALTIES = ("r1", "r2")


def configuration(name: str = "cat-b2", **changes: Any) -> Config:
    """The scales and samples of a recipe with small networks: sixteen samples, half of them under the penalties."""
    small = {
        "sample": {"classes": 4, "vae": None},
        "generator": {"depth": 4, "width": 32, "heads": 2},
        "discriminator": {"depth": 4, "width": 32, "heads": 2, "head_dim": 64, "representation_dim": 0},
        "objective": {"representation": 0.0, "penalty_fraction": 0.5},
        "encoder": {"path": None},
        "vision": {"path": None},
        "training": {"batch": 16, "precision": "float32"},
    }
    return from_dict(changes, from_dict(small, recipe(name))).validate()


def latents(count: int, seed: int) -> Tensor:
    """Smooth and rough ones, of deviation 0.9."""
    draw = torch.Generator().manual_seed(seed)
    octaves = [torch.randn(count, 4, s, s, generator=draw) for s in (4, 8, 16, 32)]
    x = torch.stack([F.interpolate(o, size=32, mode="bilinear") for o in octaves]).sum(0)
    return 0.9 * x / x.std()


def pictures(count: int, seed: int) -> Tensor:
    """Smooth and rough ones of 256 pixels, of deviation 0.5."""
    draw = torch.Generator().manual_seed(seed)
    octaves = [torch.randn(count, 3, s, s, generator=draw) for s in (4, 16, 64, 256)]
    x = torch.stack([F.interpolate(o, size=256, mode="bilinear") for o in octaves]).sum(0)
    return (0.5 * x / x.std()).clamp(-1, 1)


SAMPLES = {"cat-b2": latents, "cat-b2-pixels": pictures}


@cache
def trained() -> dict[str, Tensor]:
    """Weights of a discriminator that has learned to tell latents from noise, without penalties: its slopes have grown."""
    torch.manual_seed(0)
    step = Step(configuration(), default_objective(configuration()), torch.device("cpu"))
    optimizer, y = torch.optim.AdamW(step.judging, lr=1e-3, betas=(0.0, 0.99)), torch.arange(12) % 4
    for i in range(30):
        x = torch.cat([latents(6, i), 0.9 * torch.randn(6, 4, 32, 32)])
        logits = step.discriminator(step.pyramid(x), y)
        optimizer.zero_grad()
        F.softplus(logits[6:] - logits[:6]).mean().backward()
        optimizer.step()
    return step.discriminator.state_dict()


def penalties(
    weights: dict[str, Tensor] | None, name: str = "cat-b2", **changes: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """R1 and R2 per scale (K + 1,), and the gradient of each one's mean in the discriminator's blocks, flat."""
    config = configuration(name, **changes)
    step = Step(config, default_objective(config), torch.device("cpu"))
    if weights is not None:
        step.discriminator.load_state_dict(weights)
    (part,) = step.micro_batches("discriminator", 0, SAMPLES[name](16, 1000), torch.arange(16) % 4)
    s = config.sample
    size = (SCALES, 16, s.channels, s.size, s.size)
    h = 0.9 * torch.randn(size, generator=torch.Generator().manual_seed(1))  # the very same fakes
    state = step.discriminator_state(part, h)
    values, gradients = {}, {}
    for term in step.objective.discriminator:
        if term.name in PENALTIES:
            value = term.function(state)
            blocks = list(step.discriminator.blocks.parameters())
            gradient = torch.autograd.grad(value.mean(), blocks, retain_graph=True)
            values[term.name], gradients[term.name] = value.detach().mean(0), torch.cat([g.flatten() for g in gradient])
    return values, gradients


class TF32(TorchFunctionMode):
    """Rounds what products read to the 10 bits of TensorFloat-32, as tensor cores do; a gradient's products too, as far
    as they read the same."""

    PRODUCTS = (F.linear, torch.Tensor.matmul, torch.Tensor.__matmul__, F.scaled_dot_product_attention)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        count = {F.scaled_dot_product_attention: 3}.get(function, 2) if function in self.PRODUCTS else 0
        return function(*(self.rounded(a) for a in args[:count]), *args[count:], **(kwargs or {}))

    @staticmethod
    def rounded(x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return x
        bits = x.detach().contiguous().view(torch.int32)
        return x + (((bits + 0x1000) & ~0x1FFF).view(torch.float32) - x.detach())


def with_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks compute as with TF32 products; the patch embedding and the head, as always, without."""
    usual = DiscriminatorBlock.forward

    def forward(block: DiscriminatorBlock, *inputs: Any) -> Tensor:
        with TF32():
            return usual(block, *inputs)

    monkeypatch.setattr(DiscriminatorBlock, "forward", forward)


BFLOAT16 = {"precision": "bfloat16"}
WEIGHTS: dict[str, Callable[[], dict[str, Tensor] | None]] = {"untrained": lambda: None, "trained": trained}


def cosine(a: Tensor, b: Tensor) -> float:
    return F.cosine_similarity(a, b, dim=0).item()


@pytest.mark.parametrize("stage", WEIGHTS)
@pytest.mark.parametrize("more", [{}, {"recompute": True}])
def test_penalties_under_bfloat16_are_those_of_float32(stage: str, more: dict[str, Any]) -> None:
    """Within 0.2 % per scale, and so their gradients: sums of rows in other batches are rounded in another order."""
    check_as_in_float32(WEIGHTS[stage](), "cat-b2", more)


def test_so_they_are_in_pixels_where_the_perturbation_shrinks_to_a_sixteenth() -> None:
    """From 256 to 16 pixels; judged in bfloat16 too, the coarsest penalty would be mostly rounding."""
    check_as_in_float32(None, "cat-b2-pixels", {})
    exact, _ = penalties(None, "cat-b2-pixels")
    found, _ = penalties(None, "cat-b2-pixels", training=BFLOAT16, objective={"penalty_precision": "same"})
    for name in PENALTIES:
        print(name, found[name] / exact[name])
        assert found[name][0] / exact[name][0] > 5


@pytest.mark.parametrize(("kind", "expected"), [("full", [1 / 16, 1 / 8, 1 / 4, 1]), ("per_scale", [1, 1, 1, 1])])
def test_noise_at_full_size_shrinks_at_coarse_scales_and_noise_per_scale_does_not(
    kind: str, expected: list[float]
) -> None:
    """Of 256 pixels, in units of eps. So with noise per scale a penalty measures |grad of d_k in x_k|^2, at 16 pixels 256
    times as much as the |grad of d_k in h|^2 of noise at full size."""
    still = {"color": 0.0, "translation": 0.0, "cutout": 0.0, "flip": 0.0}
    config = configuration("cat-b2-pixels", augment=still, objective={"penalty_noise": kind, "penalty_fraction": 1.0})
    x, see = pictures(16, 1), PyramidSupervision(config)
    draws = see.draw(0, "discriminator", range(16), 16, True, torch.device("cpu"))
    pairs = zip(see.real(x, draws), see.real_perturbed(x, draws), strict=True)
    found = [((b - a).std() / config.objective.penalty_eps).item() for a, b in pairs]
    assert found == pytest.approx(expected, rel=0.02)


def check_as_in_float32(weights: dict[str, Tensor] | None, recipe_name: str, more: dict[str, Any]) -> None:
    (exact, exact_gradients), (found, gradients) = (
        penalties(weights, recipe_name, training=training) for training in ({}, BFLOAT16 | more)
    )
    for name in PENALTIES:
        torch.testing.assert_close(found[name], exact[name], rtol=0.002, atol=0)
        assert (gradients[name] - exact_gradients[name]).norm() < 0.002 * exact_gradients[name].norm()


@pytest.mark.parametrize("stage", WEIGHTS)
def test_judged_in_bfloat16_they_are_mostly_rounding(stage: str) -> None:
    """At the coarsest scale dozens of times too large; and their gradients point elsewhere."""
    exact, exact_gradients = penalties(WEIGHTS[stage]())
    found, gradients = penalties(WEIGHTS[stage](), training=BFLOAT16, objective={"penalty_precision": "same"})
    for name in PENALTIES:
        ratio = found[name] / exact[name]
        print(stage, name, "bfloat16", exact[name], ratio, cosine(gradients[name], exact_gradients[name]))
        assert ratio[0] > 30
        assert cosine(gradients[name], exact_gradients[name]) < 0.9


@pytest.mark.parametrize("stage", WEIGHTS)
def test_with_tf32_products_the_gradients_of_penalties_are_right(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulated: three bits more than bfloat16, and so a 64th of its rounding in the penalties."""
    exact, exact_gradients = penalties(WEIGHTS[stage]())
    with_tf32(monkeypatch)
    found, gradients = penalties(WEIGHTS[stage](), training=BFLOAT16)
    for name in PENALTIES:
        ratio = found[name] / exact[name]
        print(stage, name, "tf32", exact[name], ratio, cosine(gradients[name], exact_gradients[name]))
        assert ratio.log().mean().exp() < 2
        assert cosine(gradients[name], exact_gradients[name]) > 0.95


@pytest.mark.parametrize("change", [{"precision": "float32"}, BFLOAT16 | {"micro_batch": 5}, BFLOAT16])
def test_float32_is_asked_for_under_bfloat16_alone(change: dict[str, Any]) -> None:
    """In one call of the discriminator, of as many samples as ever."""
    config = configuration(training=change)
    step, asked, sizes = Step(config, default_objective(config), torch.device("cpu")), [], []

    def look(module: Any, args: Any, given: dict[str, Any], out: Any) -> None:
        asked.append(given["precise"])
        sizes.append(len(out.logits))

    step.discriminator.register_forward_hook(look, with_kwargs=True)
    step.discriminator_step(step.micro_batches("discriminator", 0, latents(16, 1), torch.arange(16) % 4), {})
    assert sum(sizes) == 16 + 16 + 8 + 8
    assert len(sizes) == (4 if "micro_batch" in change else 1)
    if change["precision"] == "float32":
        assert asked == [None]
    else:
        assert sum(map(len, asked)) == 4 * 8


def test_the_choice_is_of_no_consequence_in_float32() -> None:
    found = [penalties(None, objective={"penalty_precision": p}) for p in ("same", "tf32", "float32")]
    for values, gradients in found[1:]:
        assert all(torch.equal(values[n], found[0][0][n]) for n in PENALTIES)
        assert all(torch.equal(gradients[n], found[0][1][n]) for n in PENALTIES)


@pytest.mark.parametrize(("choice", "allowed"), [("tf32", True), ("float32", False), ("same", None)])
def test_tensor_float_32_in_a_step_is_as_chosen_but_not_at_its_ends(
    choice: str, allowed: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`None`: as it was before. The patch embedding's inputs, and the logits, differ by too little for 10 bits."""
    config = configuration(training=BFLOAT16, objective={"penalty_precision": choice})
    step, blocks, embeddings = Step(config, default_objective(config), torch.device("cpu")), set(), set()
    step.discriminator.blocks[0].register_forward_hook(lambda *_: blocks.add(torch.backends.cuda.matmul.allow_tf32))
    step.discriminator.embeddings["2"].register_forward_hook(
        lambda *_: embeddings.add(torch.backends.cuda.matmul.allow_tf32)
    )
    before = torch.backends.cuda.matmul.allow_tf32
    step.run(0, latents(16, 1), torch.arange(16) % 4)
    assert blocks == {before if allowed is None else allowed}
    assert embeddings == {False}
    assert torch.backends.cuda.matmul.allow_tf32 == before
