"""Heads that are trained with the discriminator, as those of the vision-aided loss are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from vision_aided import Frozen, build_heads

from catgan.checkpoint import reading as checkpoint
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images
from catgan.errors import UserError
from catgan.objective import VISION, PyramidSupervision, VisionHeads, default_objective, vision_aided
from catgan.sampling.pipeline import load_discriminator
from catgan.training import train
from catgan.training.step import Metrics, Step

Gradients = dict[str, dict[str, Tensor]]


def build(config: Config, weight: float = 0.5) -> Step:
    objective = vision_aided(default_objective(config), weight)
    return Step(config, objective, torch.device("cpu"), heads=build_heads(config.sample.classes))


def gradients(step: Step) -> tuple[Gradients, Metrics]:
    """What one iteration would apply to the initial weights."""
    found: Gradients = {}

    def update(network: str, norms: Metrics) -> None:
        module: torch.nn.Module = getattr(step, network)
        found[network] = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        module.zero_grad(set_to_none=True)

    step.update = update  # type: ignore[method-assign]
    s = step.config.sample
    x = torch.rand(8, s.channels, s.size, s.size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return found, step.run(0, x, torch.arange(8) % s.classes)


def test_a_head_gets_gradients_of_its_term_and_gives_them_to_the_generator(tiny_config: Config) -> None:
    with_term, metrics = gradients(build(tiny_config))
    without, plain = gradients(build(tiny_config, weight=0.0))
    name = f"heads.{VISION}.whole.weight"
    assert with_term["discriminator"][name].any()
    assert not without["discriminator"][name].any()
    own = [n for n in without["discriminator"] if not n.startswith("heads.")]
    assert all(torch.equal(with_term["discriminator"][n], without["discriminator"][n]) for n in own)
    assert any(not torch.equal(g, without["generator"][n]) for n, g in with_term["generator"].items())
    assert {f"discriminator/{VISION}", f"generator/{VISION}"} <= metrics.keys()
    assert torch.equal(metrics["generator/adversarial"], plain["generator/adversarial"])


def test_it_is_frozen_in_the_generators_step_and_learns_in_its_own(tiny_config: Config) -> None:
    step, before, frozen = build(tiny_config), {}, []
    head = step.discriminator.heads[VISION]
    assert isinstance(head, VisionHeads)
    before = {n: p.clone() for n, p in head.named_parameters()}
    head.register_forward_hook(lambda *_: frozen.append(not head.whole.weight.requires_grad))
    step.run(0, torch.rand(8, 1, 8, 8), torch.arange(8) % 3)
    assert frozen == [
        False,
        True,
        True,
    ]  # one pass of the discriminator's step; real samples and fakes of the generator's
    assert all(not torch.equal(p, before[n]) for n, p in head.named_parameters())


def test_micro_batches_give_it_the_gradients_of_the_full_batch(tiny_config: Config) -> None:
    whole, _ = gradients(build(tiny_config))
    parts, _ = gradients(build(from_dict({"training": {"micro_batch": 3}}, tiny_config)))
    for name in (f"heads.{VISION}.whole.weight", f"heads.{VISION}.class_embedding.weight"):
        assert torch.allclose(parts["discriminator"][name], whole["discriminator"][name], rtol=1e-4, atol=1e-7)


def test_it_is_saved_resumed_bit_for_bit_and_left_out_where_nobody_asks_for_it(
    tiny_config: Config, some_digits: Callable[[int], Images], tmp_path: Path
) -> None:
    data = some_digits(12)

    def go(out: str, steps: int, resume: bool = False, aided: bool = True) -> Path:
        config = from_dict({"training": {"steps": steps}}, tiny_config)
        objective = default_objective(config)
        return train(
            config,
            tmp_path / out,
            resume=resume,
            objective=vision_aided(objective, 0.5) if aided else objective,
            heads=build_heads(3) if aided else None,
            dataset=data,
            quiet=True,
        )

    whole = checkpoint.read(checkpoint.listed(go("whole", 3) / "checkpoints")[-1])[1]
    go("parts", 2)
    with pytest.raises(UserError, match=f"another objective.*{VISION}"):
        go("parts", 3, resume=True, aided=False)
    parts = checkpoint.read(checkpoint.listed(go("parts", 3, resume=True) / "checkpoints")[-1])[1]
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())
    saved = {name for name in whole if f"heads.{VISION}." in name}
    assert f"discriminator.heads.{VISION}.whole.weight" in saved
    assert not any(name.startswith("ema.") for name in saved)
    assert not load_discriminator(tmp_path / "whole").heads
    tuned = from_dict({"training": {"init_from": str(tmp_path / "whole")}}, tiny_config)
    train(tuned, tmp_path / "tuned", dataset=data, quiet=True)


def test_another_head_or_supervision_of_a_resumed_run_is_named(
    tiny_config: Config, some_digits: Callable[[int], Images], tmp_path: Path
) -> None:
    class Other(VisionHeads):
        def forward(self, pyramid: Sequence[Tensor], y: Tensor) -> Tensor:
            return -super().forward(pyramid, y)

    class Shifted(PyramidSupervision):
        pass

    def go(head: type[VisionHeads], supervision: PyramidSupervision | None = None, resume: bool = True) -> None:
        objective = vision_aided(default_objective(tiny_config), 0.5)
        heads: dict[str, nn.Module] = {VISION: head(Frozen(), 3, 8)}
        data = some_digits(12)
        train(
            tiny_config, tmp_path / "run", objective=objective, heads=heads, supervision=supervision,
            dataset=data, resume=resume, quiet=True,
        )  # fmt: skip

    go(VisionHeads, resume=False)
    with pytest.raises(
        UserError,
        match=rf"the head {VISION} was catgan\.objective\.vision\.VisionHeads#\w+, is tests\.training\.test_heads\.",
    ):
        go(Other)
    with pytest.raises(UserError, match=r"the supervision was not there, is .*Shifted#"):
        go(VisionHeads, Shifted(tiny_config))
