"""The objective as lists of named, weighted terms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.networks import build_pyramid
from catgan.objective import Objective, StepState, Term, consistency, default_objective


def zero(state: StepState) -> torch.Tensor:
    return state.y * 0.0


def names(terms: tuple[Term, ...]) -> list[str]:
    return [t.name for t in terms]


def state(stages: int = 3) -> StepState:
    """Four samples, of which 0 and 2 are under the penalties."""
    return StepState(
        step=0,
        y=torch.zeros(4, dtype=torch.int64),
        x=torch.randn(4, 1, 8, 8),
        h=torch.randn(stages, 4, 1, 8, 8),
        real=torch.randn(4, stages),
        fake=torch.randn(4, stages),
        penalised=torch.tensor([0, 2]),
        real_perturbed=torch.randn(2, stages),
        fake_perturbed=torch.randn(2, stages),
    )


def test_with_term_adds_at_the_end_and_leaves_the_original_alone() -> None:
    before = Objective((Term("a", 1.0, zero),), ())
    after = before.with_term("discriminator", Term("b", 2.0, zero)).with_term("generator", Term("c", 3.0, zero))
    assert names(after.discriminator) == ["a", "b"]
    assert names(after.generator) == ["c"]
    assert names(before.discriminator) == ["a"]


def test_with_term_replaces_a_term_of_the_same_name_in_its_place() -> None:
    before = Objective((), (Term("a", 1.0, zero), Term("b", 1.0, zero)))
    after = before.with_term("generator", Term("a", 5.0, zero))
    assert [(t.name, t.weight) for t in after.generator] == [("a", 5.0), ("b", 1.0)]
    assert after.discriminator == ()


def test_without_term_removes_it_from_one_network_only() -> None:
    before = Objective((Term("a", 1.0, zero),), (Term("a", 1.0, zero), Term("b", 1.0, zero)))
    after = before.without_term("generator", "a")
    assert (names(after.discriminator), names(after.generator)) == (["a"], ["b"])
    assert after.without_term("generator", "not there") == after


def test_the_default_objective_is_that_of_the_paper(tiny_config: Config) -> None:
    objective = default_objective(tiny_config)
    weights = {n: [(t.name, t.weight_at(0)) for t in getattr(objective, n)] for n in ("discriminator", "generator")}
    assert weights == {
        "discriminator": [("adversarial", 1.0), ("r1", 0.5), ("r2", 0.5)],
        "generator": [("adversarial", 1.0), ("consistency", 0.1)],
    }
    assert objective.penalises


@pytest.mark.parametrize(
    ("change", "discriminator", "generator"),
    [
        ({"objective": {"penalty": 0}}, ["adversarial"], ["adversarial", "consistency"]),
        ({"objective": {"consistency": 0}}, ["adversarial", "r1", "r2"], ["adversarial"]),
        (
            {"sample": {"scales": [8]}, "discriminator": {"patches": [2]}},
            ["adversarial", "r1", "r2"],
            ["adversarial"],
        ),
    ],
)
def test_terms_of_weight_zero_are_left_out(
    tiny_config: Config, change: dict[str, Any], discriminator: list[str], generator: list[str]
) -> None:
    objective = default_objective(from_dict(change, tiny_config))
    assert (names(objective.discriminator), names(objective.generator)) == (discriminator, generator)
    assert objective.penalises == ("r1" in discriminator)


def test_values_of_the_default_terms(tiny_config: Config) -> None:
    config = from_dict({"objective": {"penalty_eps": 0.1}}, tiny_config)
    objective, s = default_objective(config), state()
    values = {f"{n}/{t.name}": t.function(s) for n in ("discriminator", "generator") for t in getattr(objective, n)}
    softplus = torch.nn.functional.softplus
    assert torch.allclose(values["discriminator/adversarial"], softplus(s.fake - s.real))
    assert torch.allclose(values["generator/adversarial"], softplus(s.real - s.fake))
    assert torch.allclose(values["discriminator/r1"], ((s.real[[0, 2]] - s.real_perturbed) / 0.1) ** 2)
    assert torch.allclose(values["discriminator/r2"], ((s.fake[[0, 2]] - s.fake_perturbed) / 0.1) ** 2)
    assert torch.allclose(values["generator/consistency"], consistency(s.h, (0.5, 1.0)))


def test_consistency_weights_and_anchor_come_from_the_configuration(tiny_config: Config) -> None:
    config = from_dict({"objective": {"consistency_weights": [0.0, 7.0], "detach_anchor": True}}, tiny_config)
    s = state()
    s.h.requires_grad_()
    term = default_objective(config).generator[1]
    values = term.function(s)
    assert not values[:, 0].any()
    assert torch.allclose(values[:, 1], 7 * (s.h[1] - s.h[2]).square().mean((1, 2, 3)))
    values.sum().backward()
    assert s.h.grad is not None
    assert not s.h.grad[-1].any()


def test_stages_may_be_compared_at_their_own_resolutions(tiny_config: Config) -> None:
    config = from_dict({"objective": {"consistency_at": "scale"}}, tiny_config)
    s = state()
    expected = consistency(s.h, (0.5, 1.0), pyramid=build_pyramid(config))
    assert torch.equal(default_objective(config).generator[1].function(s), expected)
    assert not torch.equal(default_objective(tiny_config).generator[1].function(s), expected)


def test_equal_logits_cost_log_two_for_both_networks(tiny_config: Config) -> None:
    s = state()
    s.fake = s.real
    objective = default_objective(tiny_config)
    for terms in (objective.discriminator, objective.generator):
        assert terms[0].function(s).mean().item() == pytest.approx(math.log(2))


def test_representation_alignment_is_a_term_of_the_discriminator_of_the_configured_weight(tiny_config: Config) -> None:
    config = from_dict({"objective": {"representation": 0.7}}, tiny_config)
    term = default_objective(config).discriminator[-1]
    assert (term.name, term.weight, term.over) == ("representation", 0.7, "batch")
    assert "representation" not in names(default_objective(tiny_config).discriminator)
