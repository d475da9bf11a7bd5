from __future__ import annotations

import pickle

import pytest

from catgan.errors import UserError
from catgan.studies.catalogue import CONSISTENCY, GAT, LAMBDA, OFF, ON, STUDIES, TESTBEDS, runs_of
from catgan.studies.design import Versus


@pytest.mark.parametrize("run", runs_of(STUDIES.values()), ids=lambda run: run.name)
def test_every_run_has_a_configuration_and_can_be_handed_to_a_process(run) -> None:
    assert run.config.training.seed == run.seed
    assert run.config.training.threads == 1
    assert pickle.loads(pickle.dumps(run)) == run


@pytest.mark.parametrize("testbed", TESTBEDS.values(), ids=lambda t: t.name)
def test_diagnoses_and_evaluations_fall_on_the_steps_of_log_entries_and_on_the_last(testbed) -> None:
    c = testbed.config
    assert c.eval.every == c.log.diagnose_every
    assert c.eval.every % c.log.every == 0
    assert c.training.steps % c.eval.every == 0


def test_runs_that_studies_share_are_made_once() -> None:
    names = [run.name for run in runs_of([CONSISTENCY, LAMBDA])]
    assert len(set(names)) == len(names)
    assert "consistency/digits/on-0" in [run.name for run in runs_of([LAMBDA])]


def test_variants_differ_from_each_other() -> None:
    for study in STUDIES.values():
        configs = [v.config(TESTBEDS[study.testbeds[0]].config, 0) for v in study.variants]
        assert all(a != b for i, a in enumerate(configs) for b in configs[:i]), study.name


def test_claims_are_about_variants_of_their_study() -> None:
    for study in STUDIES.values():
        for claim in study.claims:
            assert claim.of in study.variants
            assert not isinstance(claim, Versus) or claim.than in study.variants


def test_the_baseline_has_gats_supervision_and_cats_sizes() -> None:
    ours, theirs = (v.config(TESTBEDS["digits"].config, 0) for v in (ON, GAT))
    assert theirs.objective.supervision == "noise_levels"
    assert theirs.objective.consistency == 0
    assert (theirs.generator.depth, theirs.generator.width) == (ours.generator.depth, ours.generator.width)
    assert theirs.training.steps == ours.training.steps


def test_only_what_is_asked_for_is_run() -> None:
    runs = runs_of([CONSISTENCY], testbeds=["digits"], variants=["off"], seeds=[7])
    assert [(r.variant, r.testbed.name, r.seed) for r in runs] == [(OFF, "digits", 7)]


@pytest.mark.parametrize(("option", "value"), [("testbeds", "imagenet"), ("variants", "offf")])
def test_what_a_study_does_not_have_is_refused(option: str, value: str) -> None:
    with pytest.raises(UserError, match=f"--{option} is {value}: must be one of"):
        runs_of([CONSISTENCY], **{option: [value]})
