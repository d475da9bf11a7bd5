"""One iteration: what it changes, what it leaves alone, and what must not matter."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.utils import counters

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.errors import UserError
from catgan.networks import build_networks
from catgan.objective import Objective, StepState, Term, augment, default_objective
from catgan.objective.supervision import penalised_samples
from catgan.recipes import gat
from catgan.training import ema
from catgan.training.step import Metrics, Step

Gradients = dict[str, dict[str, Tensor]]


def build(config: Config, objective: Objective | None = None, double: bool = False) -> Step:
    step = Step(config.validate(), objective or default_objective(config), torch.device("cpu"))
    if double:
        for network in (step.generator, step.discriminator, step.ema):
            network.double()
    return step


def data(config: Config, double: bool = False) -> tuple[Tensor, Tensor]:
    """Real samples in [-1, 1] of classes 0, 1, ..., in turn."""
    s, dtype = config.sample, torch.float64 if double else torch.float32
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(config.training.batch, s.channels, s.size, s.size, generator=generator, dtype=dtype) * 2 - 1
    return x, torch.arange(len(x)) % s.classes


def train(config: Config, steps: int = 3, objective: Objective | None = None) -> tuple[Step, Metrics]:
    step, metrics = build(config, objective), {}
    for i in range(steps):
        metrics = step.run(i, *data(config))
    return step, metrics


def weights(step: Step) -> dict[str, Tensor]:
    networks = {"generator": step.generator, "discriminator": step.discriminator, "ema": step.ema}
    return {f"{n}.{k}": v.clone() for n, network in networks.items() for k, v in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def gradients(step: Step, config: Config, double: bool = True) -> tuple[Gradients, Metrics]:
    """The gradients that one iteration would apply to the initial weights."""
    found: Gradients = {}

    def update(network: str, metrics: Metrics) -> None:
        module: nn.Module = getattr(step, network)
        found[network] = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        module.zero_grad(set_to_none=True)

    step.update = update  # type: ignore[method-assign]
    return found, step.run(0, *data(config, double))


def assert_close(a: Gradients, b: Gradients) -> None:
    for network in ("generator", "discriminator"):
        assert a[network].keys() == b[network].keys()
        for name, grad in a[network].items():
            error = (grad - b[network][name]).norm()
            assert error <= 1e-9 * grad.norm() + 1e-15, f"{network}.{name}"


# -- what must not matter ----------------------------------------------------------------------------------------------


def test_reusing_fakes_ends_in_the_same_weights_to_the_bit(tiny_config: Config) -> None:
    results, calls = [], []
    for reuse in (True, False):
        step = build(from_dict({"training": {"reuse_fakes": reuse}}, tiny_config))
        count: list[int] = []
        step.generator.blocks[0].register_forward_hook(lambda *_, count=count: count.append(1))
        metrics = [step.run(i, *data(tiny_config)) for i in range(3)]
        results.append((weights(step), metrics[-1]))
        calls.append(len(count))
    assert calls == [3, 6]
    assert same(results[0][0], results[1][0])
    assert same(results[0][1], results[1][1])


@pytest.mark.parametrize("micro", [1, 3, 4, 8, 100])
@pytest.mark.parametrize("kind", ["full", "per_scale", "noise_levels"])
def test_micro_batches_give_the_gradients_and_metrics_of_the_full_batch(
    tiny_config: Config, micro: int, kind: str
) -> None:
    gats = kind == "noise_levels"
    config = gat(tiny_config) if gats else from_dict({"objective": {"penalty_noise": kind}}, tiny_config)
    whole, whole_metrics = gradients(build(config, double=True), config)
    parts_config = from_dict({"training": {"micro_batch": micro}}, config)
    parts, metrics = gradients(build(parts_config, double=True), parts_config)
    assert_close(whole, parts)
    assert metrics.keys() == whole_metrics.keys()
    assert all(torch.allclose(metrics[m], whole_metrics[m], rtol=1e-9) for m in metrics)


@pytest.mark.parametrize("network", ["discriminator", "generator"])
def test_micro_batches_are_slices_of_one_batch_and_its_draws(tiny_config: Config, network: str) -> None:
    step = build(tiny_config)
    x, y = data(tiny_config)
    (whole,) = step.micro_batches(network, 5, x, y)
    parts = list(build(from_dict({"training": {"micro_batch": 3}}, tiny_config)).micro_batches(network, 5, x, y))
    assert [len(p.x) for p in parts] == [3, 3, 2]
    for get in (lambda p: p.x, lambda p: p.y, lambda p: p.z):
        assert torch.equal(torch.cat([get(p) for p in parts]), get(whole))
    for name, rows in whole.draws.rows.items():
        assert torch.equal(torch.cat([p.draws.rows[name] for p in parts]), rows)
    for name, noise in whole.draws.noise.items():
        assert torch.equal(torch.cat([p.draws.noise[name][0] for p in parts]), noise[0])
    assert [start + i for start, p in zip((0, 3, 6), parts, strict=True) for i in p.draws.penalised.tolist()] == [0, 4]
    assert all(p.counts == {"batch": 8, "penalised": 2} for p in parts)


def test_two_runs_with_the_same_seed_are_identical_and_other_seeds_differ(tiny_config: Config) -> None:
    torch.manual_seed(3)
    first = weights(train(tiny_config)[0])
    torch.manual_seed(4)
    assert same(weights(train(tiny_config)[0]), first)
    assert not same(weights(train(from_dict({"training": {"seed": 1}}, tiny_config))[0]), first)


def test_an_iteration_depends_on_the_state_and_its_number_alone(tiny_config: Config) -> None:
    """So a run that continues from saved weights and optimisers does what an uninterrupted one would do."""
    a = build(tiny_config)
    for i in range(3):
        a.run(i, *data(tiny_config))
    b = build(tiny_config)
    for name in ("generator", "discriminator", "ema"):
        getattr(b, name).load_state_dict(getattr(a, name).state_dict())
    for name, optimizer in b.optimizers.items():
        optimizer.load_state_dict(copy.deepcopy(a.optimizers[name].state_dict()))
    a.run(3, *data(tiny_config))
    b.run(3, *data(tiny_config))
    assert same(weights(a), weights(b))


def test_initial_weights_depend_on_the_seed_alone(tiny_config: Config) -> None:
    def initial(config: Config) -> list[Tensor]:
        return [p for network in build_networks(config) for p in network.state_dict().values()]

    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = initial(tiny_config)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    assert all(torch.equal(a, b) for a, b in zip(first, initial(tiny_config), strict=True))
    other = initial(from_dict({"training": {"seed": 1}}, tiny_config))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_training_leaves_torchs_random_state_alone(tiny_config: Config) -> None:
    state = torch.get_rng_state()
    train(tiny_config, 1)
    assert torch.equal(torch.get_rng_state(), state)


# -- who learns when ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reuse", [True, False])
def test_each_network_gets_gradients_in_its_own_step_only(tiny_config: Config, reuse: bool) -> None:
    config = from_dict({"training": {"reuse_fakes": reuse}}, tiny_config)
    step, seen = build(config), []
    original = step.update

    def update(network: str, metrics: Metrics) -> None:
        other = step.discriminator if network == "generator" else step.generator
        assert all(p.grad is None for p in other.parameters())
        assert all(p.grad is not None for p in getattr(step, network).parameters())
        seen.append(network)
        original(network, metrics)

    step.update = update  # type: ignore[method-assign]
    step.run(0, *data(config))
    assert seen == ["discriminator", "generator"]
    for network in (step.generator, step.discriminator):
        assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_every_weight_of_both_networks_moves(tiny_config: Config) -> None:
    before, after = weights(build(tiny_config)), weights(train(tiny_config, 1)[0])
    still = [k for k in before if torch.equal(before[k], after[k])]
    assert still == []


def test_the_generator_learns_from_the_updated_discriminator(tiny_config: Config) -> None:
    """With a discriminator that does not move, the generator's first loss is another one."""
    frozen = from_dict({"optimizer": {"lr_discriminator": 1e-30}}, tiny_config)
    assert not torch.equal(
        train(tiny_config, 1)[1]["generator/adversarial"], train(frozen, 1)[1]["generator/adversarial"]
    )


@pytest.mark.parametrize("micro", [0, 3])
def test_style_means_are_updated_once_per_step(tiny_config: Config, micro: int) -> None:
    config = from_dict({"training": {"micro_batch": micro}, "sample": {"classes": 12}}, tiny_config)
    step = build(config, double=True)
    reference, _ = build_networks(config)
    (part,) = build(from_dict({"training": {"micro_batch": 0}}, config), double=True).micro_batches(
        "generator", 0, *data(config, double=True)
    )
    reference.double()
    reference.update_style_mean(reference.style(part.z, part.y), part.y)
    step.run(0, *data(config, double=True))
    assert step.generator.style_updates.tolist() == [1] * 8 + [0] * 4
    assert torch.allclose(step.generator.style_sum, reference.style_sum, atol=1e-12)
    step.run(1, *data(config, double=True))
    assert step.generator.style_updates.tolist() == [2] * 8 + [0] * 4
    assert torch.equal(step.ema.style_updates, step.generator.style_updates)


def test_the_average_follows_the_generator(tiny_config: Config) -> None:
    config = from_dict({"optimizer": {"ema_half_life": 2.0, "ema_warmup": 0.5}}, tiny_config)
    step = build(config)
    expected = {n: p.clone() for n, p in step.generator.named_parameters()}
    for i in range(3):
        step.run(i, *data(config))
        decay = ema.decay(i + 1, 2.0, 0.5)
        expected = {n: decay * expected[n] + (1 - decay) * p for n, p in step.generator.named_parameters()}
    assert all(torch.allclose(p, expected[n], atol=1e-6) for n, p in step.ema.named_parameters())


def test_gradients_are_clipped_to_the_norm_of_the_recipe(tiny_config: Config) -> None:
    config = from_dict({"optimizer": {"clip": 0.001}}, tiny_config)
    step, norms = build(config), {}
    for name, optimizer in step.optimizers.items():

        def hook(*_: Any, name: str = name) -> None:
            grads = [p.grad for p in getattr(step, name).parameters()]
            norms[name] = torch.cat([g.flatten() for g in grads]).norm().item()

        optimizer.register_step_pre_hook(hook)
    metrics = step.run(0, *data(config))
    assert norms == pytest.approx({"generator": 0.001, "discriminator": 0.001}, rel=1e-3)
    assert metrics["generator/gradient_norm"] > 0.001  # the metric tells the length before clipping


def test_optimisers_are_those_of_the_recipe(tiny_config: Config) -> None:
    config = from_dict(
        {"optimizer": {"lr_generator": 1e-3, "lr_discriminator": 2e-3, "beta1": 0.1, "weight_decay": 0.2}}, tiny_config
    )
    for name, optimizer in build(config).optimizers.items():
        group = optimizer.param_groups[0]
        assert group["lr"] == {"generator": 1e-3, "discriminator": 2e-3}[name]
        assert (group["betas"], group["weight_decay"]) == ((0.1, 0.99), 0.2)


# -- penalties ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 600), st.floats(0, 1, exclude_min=True))
def test_penalised_samples_are_evenly_spread_and_at_least_one(batch: int, fraction: float) -> None:
    chosen = penalised_samples(batch, fraction).tolist()
    assert len(chosen) == max(1, int(batch * fraction))
    assert all(0 <= i < batch for i in chosen)
    gaps = [b - a for a, b in zip(chosen, [*chosen[1:], batch + chosen[0]], strict=True)]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


def passes(config: Config) -> list[int]:
    """Batch sizes of the discriminator's passes in one iteration."""
    step, sizes = build(config), []
    step.discriminator.register_forward_hook(lambda _m, _i, out: sizes.append(len(out.logits)))
    step.run(0, *data(config))
    return sizes


def test_the_discriminator_step_is_one_packed_pass_with_twins_of_the_penalised_samples(tiny_config: Config) -> None:
    assert passes(tiny_config) == [8 + 8 + 2 + 2, 8, 8]
    assert passes(from_dict({"objective": {"penalty_fraction": 0.01}}, tiny_config)) == [8 + 8 + 1 + 1, 8, 8]


def test_without_penalty_there_is_no_perturbed_pass(tiny_config: Config) -> None:
    config = from_dict({"objective": {"penalty": 0}}, tiny_config)
    assert passes(config) == [8 + 8, 8, 8]
    assert "discriminator/r1" not in train(config, 1)[1]


def test_noise_per_scale_is_another_penalty(tiny_config: Config) -> None:
    config = from_dict({"objective": {"penalty_noise": "per_scale"}}, tiny_config)
    (a, full), (b, per_scale) = (gradients(build(c, double=True), c) for c in (tiny_config, config))
    for name in ("discriminator/r1", "discriminator/r2"):
        assert per_scale[name].isfinite().all()
        assert (per_scale[name] != full[name]).all()
    assert torch.equal(per_scale["discriminator/adversarial"], full["discriminator/adversarial"])
    assert not torch.allclose(a["discriminator"]["head.weight"], b["discriminator"]["head.weight"], rtol=1e-6)


def test_noise_per_scale_enters_after_resizing(tiny_config: Config) -> None:
    config = from_dict({"objective": {"penalty_noise": "per_scale"}}, tiny_config)
    step = build(config, double=True)
    (part,) = step.micro_batches("discriminator", 0, *data(config, double=True))
    draws, noise = part.draws, part.draws.noise["real"]
    plain = step.supervision.real(part.x, draws)
    twins = step.supervision.real_perturbed(part.x, draws)
    assert [n.shape for n in noise] == [(2, 1, 2, 2), (2, 1, 4, 4), (2, 1, 8, 8)]
    for x, twin, n in zip(plain, twins, noise, strict=True):
        assert torch.allclose(twin - x[draws.penalised], 0.01 * n, atol=1e-12)


@pytest.mark.parametrize("samples", ["real", "fake"])
def test_a_twin_without_noise_is_the_sample_itself(tiny_config: Config, samples: str) -> None:
    """The very same augmentation: the colour means included."""
    config = from_dict({"augment": {"color": 1.0}}, tiny_config)
    step = build(config)
    (part,) = step.micro_batches("discriminator", 0, *data(config))
    see, silent = step.supervision, replace(part.draws, noise={samples: (torch.zeros(2, 1, 8, 8),)})
    if samples == "real":
        views, twins = see.real(part.x, silent), see.real_perturbed(part.x, silent)
    else:
        h = step.generate_with_gradient(part.z, part.y)[1]
        views, twins = see.fake(h, silent), see.fake_perturbed(h, silent)
    for x, twin in zip(views, twins, strict=True):
        assert torch.equal(twin, x[part.draws.penalised])


def test_noise_at_full_size_is_added_before_augmentation_and_to_every_stage(tiny_config: Config) -> None:
    step = build(tiny_config)
    (part,) = step.micro_batches("discriminator", 0, *data(tiny_config))
    h = step.generate_with_gradient(part.z, part.y)[1].detach()
    u, noise, chosen = part.draws.rows["fake"], part.draws.noise["fake"][0], part.draws.penalised
    expected = augment(h[:, chosen] + 0.01 * noise, u[chosen], tiny_config.augment, anchor=h[-1, chosen])
    views = step.supervision.fake_perturbed(h, part.draws)
    assert all(torch.equal(a, b) for a, b in zip(views, step.pyramid(expected), strict=True))


def test_real_and_fake_twins_get_noise_of_their_own(tiny_config: Config) -> None:
    (part,) = build(tiny_config).micro_batches("discriminator", 0, *data(tiny_config))
    assert not torch.equal(part.draws.noise["real"][0], part.draws.noise["fake"][0])


# -- options and terms -------------------------------------------------------------------------------------------------


def test_fresh_z_changes_the_generator_step_only(tiny_config: Config) -> None:
    config = from_dict({"objective": {"fresh_z": True}}, tiny_config)
    (shared, a), (fresh, b) = (gradients(build(c, double=True), c) for c in (tiny_config, config))
    assert torch.equal(a["discriminator/loss"], b["discriminator/loss"])
    assert not torch.allclose(a["generator/consistency"], b["generator/consistency"])
    assert not torch.allclose(shared["generator"]["mapping.0.weight"], fresh["generator"]["mapping.0.weight"])


def test_detach_anchor_changes_the_generators_gradients_and_no_loss(tiny_config: Config) -> None:
    config = from_dict({"objective": {"detach_anchor": True}}, tiny_config)
    (flowing, a), (stopped, b) = (gradients(build(c, double=True), c) for c in (tiny_config, config))
    assert torch.equal(a["generator/loss"], b["generator/loss"])
    last = "outputs.2.pixels.weight"
    assert not torch.allclose(flowing["generator"][last], stopped["generator"][last])


def darkness(state: StepState) -> Tensor:
    """Mean square of the final output, (B,)."""
    return state.h[-1].square().flatten(1).mean(1)


def test_a_custom_term_adds_its_gradient_without_touching_the_trainer(tiny_config: Config) -> None:
    plain, _ = gradients(build(tiny_config, double=True), tiny_config)
    objective = default_objective(tiny_config).with_term("generator", Term("darkness", 0.7, darkness))
    step = build(tiny_config, objective, double=True)
    (part,) = step.micro_batches("discriminator", 0, *data(tiny_config, double=True))
    h = step.generate_with_gradient(part.z, part.y)[1]
    names, parameters = zip(*step.generator.named_parameters(), strict=True)
    own = torch.autograd.grad(0.7 * h[-1].square().mean(), parameters, allow_unused=True)
    changed, metrics = gradients(step, tiny_config)
    for name, grad in zip(names, own, strict=True):
        expected = plain["generator"][name] + (0 if grad is None else grad)
        assert torch.allclose(changed["generator"][name], expected, rtol=1e-9, atol=1e-14)
    assert torch.allclose(metrics["generator/darkness"], h[-1].square().mean())
    assert all(torch.equal(changed["discriminator"][n], g) for n, g in plain["discriminator"].items())


@pytest.mark.parametrize("micro", [0, 3])
def test_a_term_over_penalised_samples_is_averaged_over_them(tiny_config: Config, micro: int) -> None:
    def one(state: StepState) -> Tensor:
        return torch.ones(len(state.penalised), 2) + 0 * state.real.sum()

    config = from_dict({"training": {"micro_batch": micro}}, tiny_config)
    objective = default_objective(config).with_term("discriminator", Term("one", 1.0, one, over="penalised"))
    metrics = train(config, 1, objective)[1]
    assert metrics["discriminator/one"].tolist() == [1.0, 1.0]


def test_the_loss_is_the_weighted_sum_of_its_terms_means(tiny_config: Config) -> None:
    objective = default_objective(tiny_config)
    metrics = train(tiny_config, 1)[1]
    for network, terms in (("discriminator", objective.discriminator), ("generator", objective.generator)):
        expected = sum(t.weight_at(0) * metrics[f"{network}/{t.name}"].mean() for t in terms)
        assert torch.allclose(metrics[f"{network}/loss"], expected)


@pytest.mark.parametrize("micro", [0, 3])
def test_the_share_of_the_consistency_gradient_is_that_of_its_own_gradient_at_h(
    tiny_config: Config, micro: int
) -> None:
    config = from_dict({"training": {"micro_batch": micro}}, tiny_config)
    found = gradients(build(config, double=True), config)[1]["generator/consistency_share"]
    step = build(tiny_config, double=True)
    (part,) = step.micro_batches("generator", 0, *data(tiny_config, double=True))
    h = step.generate_with_gradient(part.z, part.y)[1]
    terms = {t.name: t for t in step.objective.generator}
    lengths = {}
    for name, term in terms.items():
        loss = term.weight_at(0) * term.function(step.generator_state(part, h)).mean()
        lengths[name] = torch.autograd.grad(loss, h, retain_graph=True)[0].square().sum((1, 2, 3, 4)).sqrt()
    expected = lengths["consistency"] / (lengths["consistency"] + lengths["adversarial"])
    assert found.shape == (3,)
    assert torch.allclose(found, expected)


def test_metrics_are_vectors_over_scales(tiny_config: Config) -> None:
    step, metrics = train(tiny_config, 1)
    for name in ("discriminator/adversarial", "discriminator/r1", "generator/adversarial", "logits/real"):
        assert metrics[name].shape == (3,)
    assert metrics["generator/consistency"].shape == (2,)
    assert not any(m.requires_grad for m in metrics.values())
    assert step.fakes is not None
    assert step.fakes.shape == (3, 8, 1, 8, 8)


VARIANTS: list[dict[str, Any]] = [
    {"training": {"precision": "bfloat16"}},
    {"discriminator": {"aggregated": True}},
    {"sample": {"classes": 1}},
    {"sample": {"channels": 3}},
    {"sample": {"scales": [8]}, "discriminator": {"patches": [2]}},
    {"sample": {"scales": [1, 2, 4, 6, 8]}, "discriminator": {"patches": [1, 1, 2, 2, 4]}, "generator": {"depth": 5}},
    {"generator": {"width": 24, "heads": 3}, "discriminator": {"width": 8, "heads": 1}},
    {"training": {"batch": 1}},
]


@pytest.mark.parametrize("change", VARIANTS)
def test_variants_train_with_finite_losses_and_float32_weights(tiny_config: Config, change: dict[str, Any]) -> None:
    step, metrics = train(from_dict(change, tiny_config), 2)
    assert all(m.isfinite().all() for m in metrics.values())
    state = {k: v for k, v in weights(step).items() if not k.endswith("style_updates")}
    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in state.values())


# -- trying for size ---------------------------------------------------------------------------------------------------


def test_trying_for_size_changes_nothing(tiny_config: Config) -> None:
    step = build(tiny_config)
    before = weights(step)
    assert step.fits(*data(tiny_config))
    assert same(weights(step), before)
    assert all(p.grad is None for n in (step.generator, step.discriminator) for p in n.parameters())


def test_only_a_lack_of_memory_means_that_a_batch_does_not_fit(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> Callable[..., Any]:
        def generate(*_: Any) -> Any:
            raise error

        return generate

    step = build(tiny_config)
    monkeypatch.setattr(step, "generate_with_gradient", fail(torch.OutOfMemoryError("out of memory")))
    assert not step.fits(*data(tiny_config))
    monkeypatch.setattr(step, "generate_with_gradient", fail(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes"):
        step.fits(*data(tiny_config))


@pytest.mark.slow
def test_compiled_blocks_give_the_losses_of_eager_ones(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to rounding: metrics of the first two steps agree to 1e-4. Sums are made in two even of so few rows."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("needs a C++ compiler: apt-get install g++")
    monkeypatch.setattr("catgan.nn.compiling.ROWS", 4)
    results = []
    for compiled in (False, True):
        config = from_dict({"training": {"compile": compiled}}, tiny_config)
        engine = Step(config, default_objective(config), torch.device("cpu"))
        torch.manual_seed(1)
        x, y = torch.randn(8, 1, 8, 8), torch.randint(0, 3, (8,))
        results.append([engine.run(step, x, y) for step in (0, 1)])
    for eager, compiled_metrics in zip(*results, strict=True):
        for name, value in eager.items():
            torch.testing.assert_close(compiled_metrics[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_blocks_are_few_whatever_the_micro_batches(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Sizes 3 and 2, with 0 or 1 of them penalised, and blocks at several depths: torch gives up on the ninth graph."""
    compiled = nn.Module.compile
    monkeypatch.setattr("catgan.training.step.check_compiler", lambda *_: None)
    monkeypatch.setattr(nn.Module, "compile", lambda self, options, **how: compiled(self, backend="eager", **how))
    torch._dynamo.reset()
    counters.clear()
    training = {"compile": True, "batch": 20, "micro_batch": 3, "precision": precision}
    config = from_dict({"training": training}, tiny_config)
    engine = Step(config, default_objective(config), torch.device("cpu"))
    engine.run(0, torch.randn(20, 1, 8, 8), torch.randint(0, 3, (20,)))
    few = counters["stats"]["unique_graphs"]
    engine.run(1, torch.randn(20, 1, 8, 8), torch.randint(0, 3, (20,)))
    assert counters["stats"]["unique_graphs"] == few
    assert few <= (8 if precision == "float32" else 8 + 2)  # the blocks of two networks, of which each may have 8


def test_compiling_without_a_compiler_says_what_to_do(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    config = from_dict({"training": {"compile": True}}, tiny_config)
    with pytest.raises(UserError, match=r"no C\+\+ compiler"):
        Step(config, default_objective(config), torch.device("cpu"))
