"""Representation alignment in training: who learns from it, and what must not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from catgan.checkpoint import reading as checkpoint
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images
from catgan.errors import UserError
from catgan.objective import default_objective
from catgan.training import train
from catgan.training.step import Metrics, Step
from catgan.training.target import ComputedTarget, representation_target

CPU = torch.device("cpu")


class Patches(nn.Module):
    """An encoder of patches of 4 pixels: 8x8 images give 2x2 patch tokens."""

    dim, identity = 6, "patches"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = nn.Conv2d(3, self.dim, 4, 4).requires_grad_(False)
        self.seen: list[Tensor] = []

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(images)
        patches = self.layer(images.to(self.layer.weight.dtype))
        return patches.mean((2, 3)), patches.movedim(1, -1)


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return from_dict(
        {
            "discriminator": {"representation_dim": 6},
            "encoder": {"path": "unused", "size": 8},
            "objective": {"representation": 1.0},
        },
        tiny_config,
    )


def noise() -> Images:
    """Thirty noise images of 8x8 in three classes, values that bytes can hold."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8))
    return Images((pixels / 127.5 - 1).astype(np.float32), np.arange(30) % 3, ("a", "b", "c"))


@pytest.fixture
def data() -> Images:
    return noise()


def batch(config: Config, double: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (config.training.batch, 3, 8, 8), generator=generator, dtype=torch.uint8)
    x = images.to(torch.float64 if double else torch.float32).mean(1, keepdim=True) / 127.5 - 1
    return x, torch.arange(len(x)) % 3, images


def build(config: Config, double: bool = False) -> Step:
    encoder = Patches()
    step = Step(config.validate(), default_objective(config), CPU, ComputedTarget(encoder, config, noise()))
    if double:
        for network in (step.generator, step.discriminator, step.ema, encoder):
            network.double()
    return step


def seen(step: Step) -> list[Tensor]:
    """What the encoder was shown."""
    assert isinstance(step.target, ComputedTarget)
    assert isinstance(step.target.encoder, Patches)
    return step.target.encoder.seen


def gradients(step: Step, config: Config) -> tuple[dict[str, dict[str, Tensor]], Metrics]:
    """The gradients of one iteration in float64 on the initial weights."""
    found: dict[str, dict[str, Tensor]] = {}

    def update(network: str, metrics: Metrics) -> None:
        module: nn.Module = getattr(step, network)
        found[network] = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        module.zero_grad(set_to_none=True)

    step.update = update  # type: ignore[method-assign]
    return found, step.run(0, *batch(config, double=True))


@pytest.mark.parametrize("micro", [3, 4])
def test_micro_batches_give_the_gradients_and_metrics_of_the_full_batch(config: Config, micro: int) -> None:
    whole, metrics = gradients(build(config, double=True), config)
    parts_config = from_dict({"training": {"micro_batch": micro}}, config)
    parts, parts_metrics = gradients(build(parts_config, double=True), parts_config)
    assert metrics["discriminator/representation"] > 0.1
    assert all(torch.allclose(parts_metrics[m], metrics[m], rtol=1e-9) for m in metrics)
    for network, grads in whole.items():
        for name, grad in grads.items():
            assert (grad - parts[network][name]).norm() <= 1e-9 * grad.norm() + 1e-15, name


def test_its_gradient_reaches_the_whole_discriminator_but_other_scales_and_never_the_generator(config: Config) -> None:
    alone = from_dict({"objective": {"penalty": 0, "consistency": 0}}, config)
    step, without = build(alone, double=True), from_dict({"objective": {"representation": 0}}, alone)
    objective = default_objective(alone).without_term("discriminator", "adversarial")
    step.objective = objective
    only, _ = gradients(step, alone)
    moved = {n for n, g in only["discriminator"].items() if g.any()}
    assert {
        "representation.0.weight",
        "representation.4.bias",
        "blocks.0.mlp.down.weight",
        "embeddings.2.weight",
    } <= moved
    assert not only["discriminator"]["scale_embedding"][:-1].any()
    assert only["discriminator"]["scale_embedding"][-1].any()
    assert not {"head.weight", "class_embedding.weight"} & moved
    both, _ = gradients(build(alone, double=True), alone)
    plain, _ = gradients(build(without, double=True), without)
    assert both["generator"].keys() == plain["generator"].keys()
    assert all(torch.equal(both["generator"][n], g) for n, g in plain["generator"].items())


def test_every_parameter_of_both_networks_learns(config: Config) -> None:
    found, _ = gradients(build(config, double=True), config)
    for network, module in (("generator", build(config).generator), ("discriminator", build(config).discriminator)):
        assert found[network].keys() == dict(module.named_parameters()).keys()


def test_the_head_runs_once_an_iteration_on_the_real_samples_alone(config: Config) -> None:
    step, rows, passes = build(config), [], []
    assert step.discriminator.representation is not None
    step.discriminator.representation.register_forward_hook(lambda _m, x, _o: rows.append(len(x[0])))
    step.discriminator.register_forward_hook(lambda _m, x, _o: passes.append(len(x[1])))
    step.run(0, *batch(config))
    assert rows == [8]
    assert passes == [8 + 8 + 2 + 2, 8, 8]


def test_the_encoder_sees_the_images_as_the_discriminator_sees_their_samples(config: Config) -> None:
    """Same size, same row of numbers: moved and mirrored alike."""
    config = from_dict({"augment": {"color": 0, "cutout": 0}}, config)
    step = build(config)
    _, y, images = batch(config)
    x, images = images[:, :1].float() / 127.5 - 1, images[:, :1].expand(-1, 3, -1, -1)
    step.run(3, x, y, images)
    (part,) = step.micro_batches("discriminator", 3, x, y)
    view = step.supervision.real(part.x, part.draws)[-1]
    assert torch.allclose(seen(step)[0][:, :1], view, atol=1e-6)
    assert not torch.allclose(view, part.x)


def test_other_losses_are_those_of_a_run_without_it(config: Config) -> None:
    without = from_dict({"objective": {"representation": 0}}, config)
    _, a = gradients(build(config, double=True), config)
    _, b = gradients(build(without, double=True), without)
    assert a.keys() - b.keys() == {"discriminator/representation"}
    for name in ("discriminator/adversarial", "discriminator/r1", "generator/loss"):
        assert torch.equal(a[name], b[name])


@pytest.mark.parametrize("change", [{"training": {"precision": "bfloat16"}}, {"discriminator": {"aggregated": True}}])
def test_variants_train_with_finite_losses(config: Config, change: dict[str, Any]) -> None:
    config = from_dict(change, config)
    config = from_dict({"training": {"batch": 2}}, config)
    metrics = build(config).run(0, *batch(config))
    assert all(m.isfinite().all() for m in metrics.values())
    assert metrics["discriminator/representation"].dtype == torch.float32


def test_trying_for_size_includes_it_and_changes_nothing(config: Config) -> None:
    step = build(config)
    assert step.fits(*batch(config))
    assert len(seen(step)) == 1
    assert all(p.grad is None for p in step.discriminator.parameters())


# -- whole runs --------------------------------------------------------------------------------------------------------


def test_the_loss_falls_in_a_short_run_towards_a_real_dinov2(
    tiny_config: Config, tiny_dino: Path, data: Images
) -> None:
    config = from_dict(
        {
            "discriminator": {"representation_dim": 32},
            "encoder": {"path": str(tiny_dino), "size": 28},
            "objective": {"representation": 1.0},
            "optimizer": {"lr_discriminator": 0.003},
            "augment": {"color": 0, "cutout": 0},
        },
        tiny_config,
    )
    step = Step(config, default_objective(config), CPU, representation_target(config, data, CPU))
    rows = np.arange(8)
    losses = []
    for i in range(12):
        metrics = step.run(i, *data.batch(rows, 0, i), data.images(rows))
        losses.append(float(metrics["discriminator/representation"]))
    assert sum(losses[-3:]) / 3 < 0.6 * losses[0]


def test_a_run_is_resumed_bit_for_bit_and_only_with_the_same_encoder(
    config: Config, data: Images, tmp_path: Path
) -> None:
    def changed(steps: int, path: str = "unused") -> Config:
        return from_dict({"training": {"steps": steps}, "encoder": {"path": path}}, config)

    def go(out: str, steps: int, path: str = "unused", encoder: Patches | None = None, resume: bool = False) -> Path:
        return train(
            changed(steps, path), tmp_path / out, dataset=data, encoder=encoder or Patches(), resume=resume, quiet=True
        )

    whole = checkpoint.read(checkpoint.listed(go("whole", 3) / "checkpoints")[-1])
    go("parts", 2)
    other = Patches()
    other.identity = "other"
    with pytest.raises(UserError, match=r"another objective: the encoder was patches, is other"):
        go("parts", 3, encoder=other, resume=True)
    parts = checkpoint.read(checkpoint.listed(go("parts", 3, path="moved", resume=True) / "checkpoints")[-1])
    assert all(torch.equal(parts[1][k], t) for k, t in whole[1].items())
    assert parts[0].objective[-1] == "encoder: patches"
    assert any(line.startswith("discriminator: 1, 1, 1 * representation = ") for line in parts[0].objective)


def test_fine_tuning_may_drop_the_head_or_add_one(config: Config, data: Images, tmp_path: Path) -> None:
    """At a rate at which nothing moves: all but the head is taken over, and the head that is added is a new one."""
    source = train(config, tmp_path / "with", dataset=data, encoder=Patches(), quiet=True)
    config = from_dict({"optimizer": {"lr_generator": 1e-12, "lr_discriminator": 1e-12}}, config)
    plain = from_dict(
        {
            "discriminator": {"representation_dim": 0},
            "objective": {"representation": 0},
            "training": {"init_from": str(source)},
        },
        config,
    )
    dropped = train(plain, tmp_path / "dropped", dataset=data, quiet=True)
    back = from_dict({"training": {"init_from": str(dropped), "seed": 1}}, config)
    added = train(back, tmp_path / "back", dataset=data, encoder=Patches(), quiet=True)
    head = "discriminator.representation."
    prefixes = ("generator.", "discriminator.")
    before, without, anew = (checkpoint.read(checkpoint.resolve(run), prefixes)[1] for run in (source, dropped, added))
    assert without.keys() == {name for name in before if not name.startswith(head)}
    assert anew.keys() == before.keys()
    learned = [name for name in without if "style" not in name]  # running means move with every step
    assert all(torch.allclose(before[n], t[n], atol=1e-6) for n in learned for t in (without, anew))
    assert not torch.allclose(before[f"{head}0.weight"], anew[f"{head}0.weight"], atol=1e-2)


# -- mistakes ----------------------------------------------------------------------------------------------------------


class NoImages:
    """A dataset that forgets its pictures."""

    def __init__(self, data: Images) -> None:
        self.class_names, self.shape, self.batch, self.length = data.class_names, data.shape, data.batch, len(data)

    def __len__(self) -> int:
        return self.length


def test_data_without_raw_images_is_refused_with_the_way_out(config: Config, data: Images, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        train(config, tmp_path / "run", dataset=NoImages(data), encoder=Patches(), quiet=True)
    assert "no raw images" in str(caught.value)
    assert "--objective.representation 0 --discriminator.representation-dim 0" in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder": {"path": None}}, "encoder.path is not set: .*--encoder.path facebook/dinov2-base"),
        ({"discriminator": {"representation_dim": 0}}, "representation_dim is 0: must be at least 1 .* use 768"),
        (
            {"objective": {"representation": 0}},
            "representation_dim is 6: must be 0 where objective.representation is 0",
        ),
        ({"objective": {"representation": -1}}, "objective.representation is -1.0: must be at least 0"),
        ({"encoder": {"size": 0}}, "encoder.size is 0: must be at least 1"),
    ],
)
def test_fields_that_do_not_fit_together_are_named(
    config: Config, data: Images, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        train(from_dict(change, config), tmp_path / "run", dataset=data, quiet=True)


def test_a_head_of_another_size_than_the_encoders_is_refused(config: Config, data: Images) -> None:
    config = from_dict({"discriminator": {"representation_dim": 7}}, config)
    with pytest.raises(UserError, match="representation_dim is 7: must be that of the encoder, 6"):
        representation_target(config, data, CPU, Patches())


def test_a_run_with_an_untrained_head_of_an_older_version_goes_on(config: Config, data: Images) -> None:
    older = from_dict({"objective": {"representation": 0}, "encoder": {"path": None}}, config)
    assert representation_target(older, data, CPU, resume=True) is None
