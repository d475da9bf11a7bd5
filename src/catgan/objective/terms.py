"""What the two networks minimise, as lists of named, weighted terms.

To add a term, write a function from a StepState to per-sample losses and put it into the objective:

    def darkness(state):                                   # (B,): mean square of the final output
        return state.h[-1].square().flatten(1).mean(1)

    objective = default_objective(config).with_term("generator", Term("darkness", 0.01, darkness))
    catgan.train(config, "runs/dark", objective=objective)

A term of the same name replaces the one there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from torch import Tensor

from catgan.config import Config
from catgan.networks import build_pyramid
from catgan.objective.losses import approximate_penalty, consistency, relativistic, representation, stage_weights
from catgan.schedules import geometric, rate

VISION = "vision"  # the name of the vision-aided heads, and of their terms in both networks


@dataclass
class StepState:
    """All that a term may look at, for one (micro-)batch of n samples, m of them under the penalties.

    The discriminator's terms see h without gradient; the generator's terms see `real` without gradient.
    """

    step: int | Tensor  # iteration, 0, 1, ...; a tensor () where steps are recorded (training.cuda_graph)
    y: Tensor  # (n,) classes of real samples and fakes
    x: Tensor  # (n, C, S, S) real samples, before augmentation
    h: Tensor  # (K + 1, n, C, S, S) stage outputs, before augmentation
    real: Tensor  # (n, K + 1) logits of real samples
    fake: Tensor  # (n, K + 1) logits of fakes
    penalised: Tensor  # (m,) which of the n samples are under the penalties
    real_perturbed: Tensor | None = None  # (m, K + 1) logits of the perturbed real samples
    fake_perturbed: Tensor | None = None  # (m, K + 1) logits of the perturbed fakes
    represented: Tensor | None = None  # (n, 1 + T_K, D) representation head on the real samples, if there is an encoder
    target: Tensor | None = None  # (n, 1 + T_K, D) the encoder's features of the same samples' raw images
    real_heads: dict[str, Tensor] = field(default_factory=dict)  # what the discriminator's heads make of real samples
    fake_heads: dict[str, Tensor] = field(default_factory=dict)  # and of fakes, (n, ...)


@dataclass(frozen=True)
class Term:
    """weight * mean(function(state)); the weight may be a function of the step.

    The function returns losses with the samples in its first dimension: all n of them, or (`over` =
    "penalised") the m under the penalties. They are averaged over the whole batch, whatever the micro-batches.
    """

    name: str
    weight: float | Callable[[int], float]
    function: Callable[[StepState], Tensor]
    over: Literal["batch", "penalised"] = "batch"

    def weight_at(self, step: int) -> float:
        return self.weight(step) if callable(self.weight) else self.weight


@dataclass(frozen=True)
class Objective:
    """The terms of both networks, in the order in which they are added up."""

    discriminator: tuple[Term, ...]
    generator: tuple[Term, ...]

    def with_term(self, network: Literal["generator", "discriminator"], term: Term) -> Objective:
        """A copy with one term added, or replaced if its name is there already."""
        terms: tuple[Term, ...] = getattr(self, network)
        if any(t.name == term.name for t in terms):
            return replace(self, **{network: tuple(term if t.name == term.name else t for t in terms)})
        return replace(self, **{network: (*terms, term)})

    def without_term(self, network: Literal["generator", "discriminator"], name: str) -> Objective:
        """A copy without the term of that name."""
        terms: tuple[Term, ...] = getattr(self, network)
        return replace(self, **{network: tuple(t for t in terms if t.name != name)})

    @property
    def penalises(self) -> bool:
        """Whether any term needs perturbed samples."""
        return any(t.over == "penalised" for t in self.discriminator)


def default_objective(config: Config) -> Objective:
    """CAT's objective: relativistic loss, approximated R1 and R2, and representation alignment; consistency for the
    generator; the vision-aided loss where config.vision.path names a network. Terms of weight 0 are left out."""
    o = config.objective
    eps = o.penalty_eps
    weights = stage_weights(len(config.sample.scales)) if o.consistency_weights is None else o.consistency_weights

    def r1(s: StepState) -> Tensor:
        assert s.real_perturbed is not None
        return approximate_penalty(s.real[s.penalised], s.real_perturbed, eps)

    def r2(s: StepState) -> Tensor:
        assert s.fake_perturbed is not None
        return approximate_penalty(s.fake[s.penalised], s.fake_perturbed, eps)

    def aligned(s: StepState) -> Tensor:
        assert s.represented is not None and s.target is not None  # noqa: PT018
        return representation(s.represented, s.target)

    discriminator = [Term("adversarial", 1.0, lambda s: relativistic(s.real, s.fake))]
    if o.penalty:
        half_gamma = partial(geometric, o.penalty / 2, (o.penalty_end or o.penalty) / 2, o.penalty_anneal)
        discriminator += [Term("r1", half_gamma, r1, "penalised"), Term("r2", half_gamma, r2, "penalised")]
    if o.representation:
        discriminator.append(Term("representation", o.representation, aligned))
    generator = [Term("adversarial", 1.0, lambda s: relativistic(s.fake, s.real))]
    if o.consistency and len(weights):
        pyramid = build_pyramid(config) if o.consistency_at == "scale" else None
        pull = partial(consistency, weights=weights, detach_anchor=o.detach_anchor, pyramid=pyramid)
        generator.append(Term("consistency", o.consistency, lambda s: pull(s.h)))
    objective = Objective(tuple(discriminator), tuple(generator))
    return (
        objective if config.vision.path is None else vision_aided(objective, config.vision.weight, config.vision.warmup)
    )


def vision_aided(objective: Objective, weight: float = 1.0, warmup: int = 0) -> Objective:
    """The objective with the relativistic loss of the heads named "vision" (`VisionHeads`) in both networks (paper A.3).

    warmup: steps over which its weight rises from 0.
    """

    def weight_at(step: int) -> float:
        return weight * rate(warmup, 0, step)

    def judged(state: StepState) -> Tensor:
        return relativistic(state.real_heads[VISION], state.fake_heads[VISION]).mean(2)

    def believed(state: StepState) -> Tensor:
        return relativistic(state.fake_heads[VISION], state.real_heads[VISION]).mean(2)

    return objective.with_term("discriminator", Term(VISION, weight_at, judged)).with_term(
        "generator", Term(VISION, weight_at, believed)
    )
