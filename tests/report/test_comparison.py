"""Comparing runs: groups by configuration, figures checked against numpy, the steps they are taken at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catgan.cli import main
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.recipes import recipe
from catgan.report.comparison import compare, figure_text, text, to_dict

Made = Callable[..., Path]
DIGITS = recipe("digits")


def config(base: Config = DIGITS, **changes: Any) -> Config:
    """The base with group__field = value changes."""
    for name, value in changes.items():
        group, _, field = name.partition("__")
        base = from_dict({group: {field: value}}, base)
    return base


def diagnoses(values: dict[int, float]) -> list[dict[str, float]]:
    """A diagnosis per step, whose delta is the value, and the others multiples of it."""
    measures = ("delta", "excess", "R", "A", "A_without_last")
    return [
        {"step": s} | {f"diagnose/{m}/mean": v * (i + 1) for i, m in enumerate(measures)} for s, v in values.items()
    ]


def test_groups_are_runs_of_one_configuration_up_to_the_seed(make_run: Made) -> None:
    runs = [
        make_run("a", config()),
        make_run("b", config(objective__consistency=0.0)),
        make_run("c", config(training__seed=1, training__device="cuda:1", data__workers=0, log__every=7)),
        make_run("d", config(objective__consistency=0.0, training__seed=1)),
    ]
    groups = compare(runs).groups
    assert [g.runs for g in groups] == [[0, 2], [1, 3]]
    assert [g.label for g in groups] == ["objective.consistency 0.1", "objective.consistency 0"]


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"sample__scales": [2, 4, 8], "log__diagnose_samples": 5}, "log.diagnose_samples 5"),
        ({"training__init_from": "x"}, "training.init_from x"),
        ({"generator__width": 32, "objective__consistency": 0.5}, "generator.width 32, objective.consistency 0.5"),
        ({"data__path": "x", "generator__width": 8, "generator__depth": 6, "training__batch": 9}, "b"),
    ],
)
def test_labels_say_what_differs_or_else_the_directory(changes: dict[str, Any], label: str, make_run: Made) -> None:
    groups = compare([make_run("a", config()), make_run("b", config(**changes))]).groups
    assert groups[1].label == label


def test_recipes_are_labels_and_fields_differ_within_a_recipe(make_run: Made) -> None:
    fashion = recipe("fashion-mnist")
    runs = [make_run("a", config()), make_run("b", fashion), make_run("c", config(fashion, objective__penalty=2.0))]
    comparison = compare(runs)
    assert [g.label for g in comparison.groups] == [
        "digits",
        "fashion-mnist, objective.penalty 0.1",
        "fashion-mnist, objective.penalty 2",
    ]
    assert "sample.scales (2 4 8 / 4 8 16 32)" in comparison.notes[0]


def test_runs_of_another_objective_are_no_seeds_of_each_other(make_run: Made) -> None:
    """By name and digest of their functions, as runs of the same weights and names of terms are recorded."""
    cat = ["generator: 1, 1, 1 * adversarial = catgan.f#aa", "generator: 0.1, 0.1, 0.1 * consistency = catgan.g#bb"]
    objectives = {
        "cat": cat,
        "hinge": [cat[0].replace("catgan.f#aa", "mine.hinge#cc"), cat[1]],
        "square": [cat[0].replace("catgan.f#aa", "__main__.make.<locals>.square#dd"), cat[1]],
        "alone": cat[:1],
        "dark": [*cat, "generator: 0.1, 0.08, 0.05 * dark = mine.dark#ee"],
    }
    runs = [make_run(name, config(), about={"objective": terms}) for name, terms in objectives.items()]
    assert [g.label for g in compare(runs).groups] == [
        "generator adversarial = CAT's, generator consistency 0.1",
        "generator adversarial = hinge, generator consistency 0.1",
        "generator adversarial = square, generator consistency 0.1",
        "generator adversarial = CAT's, without generator consistency",
        "generator adversarial = CAT's, generator consistency 0.1, generator dark 0.1 to 0.05",
    ]
    assert [g.label for g in compare([runs[0], runs[4]]).groups] == [
        "without generator dark",
        "generator dark 0.1 to 0.05",
    ]
    again = make_run("again", config(training__seed=1), about={"objective": cat})
    assert [g.runs for g in compare([runs[0], again]).groups] == [[0, 1]]


def test_functions_of_one_name_are_told_apart_by_their_digests(make_run: Made) -> None:
    runs = [
        make_run(d, config(), about={"objective": [f"generator: 1, 1, 1 * adversarial = mine.loss#{d}"]}) for d in "ab"
    ]
    assert [g.label for g in compare(runs).groups] == [f"generator adversarial = loss {d}" for d in "ab"]


def test_terms_that_fields_account_for_are_not_named(make_run: Made) -> None:
    """A penalty's function carries its settings, and so has another digest."""
    runs = [
        make_run(d, config(objective__penalty=p), about={"objective": [f"discriminator: 1, 1, 1 * r1 = catgan.r1#{d}"]})
        for d, p in (("a", 1.0), ("b", 2.0))
    ]
    assert [g.label for g in compare(runs).groups] == ["objective.penalty 1", "objective.penalty 2"]


def test_means_and_deviations_are_those_of_numpy(make_run: Made) -> None:
    deltas = [0.31, 0.47, 0.36]
    runs = [make_run(f"seed-{i}", config(training__seed=i), diagnoses({10: 9.0, 20: d})) for i, d in enumerate(deltas)]
    runs.append(make_run("other", config(objective__consistency=0.0), diagnoses({20: 0.8})))
    table = to_dict(compare(runs))["tables"][0]
    seeds, other = table["groups"]
    for i, measure in enumerate(("delta", "excess", "R", "A", "A_without_last")):
        values = np.array(deltas) * (i + 1)
        assert seeds[measure]["mean"] == pytest.approx(values.mean())
        assert seeds[measure]["std"] == pytest.approx(values.std(ddof=1))
        assert seeds[measure]["n"] == 3
    assert other["delta"] == {"mean": 0.8, "std": None, "n": 1}
    assert table["at"] == "step 20, the last that the runs have in common"


@pytest.mark.parametrize(
    ("at", "entries", "steps", "said"),
    [
        (
            "common",
            ({5: 0.5, 10: 1.0, 20: 2.0}, {5: 0.6, 10: 3.0, 15: 4.0}),
            [10, 10],
            "step 10, the last that the runs have in common",
        ),
        ("last", ({10: 1.0, 20: 2.0}, {10: 3.0, 15: 4.0}), [20, 15], "the last step of each run"),
        ("common", ({10: 1.0}, {15: 4.0}), [10, 15], "the last step of each run, since there is no common one"),
        ("common", ({10: 1.0, 20: 2.0}, {}), [20, None], "the last step of each run"),
    ],
)
def test_figures_are_of_the_last_common_step(
    at: Any, entries: tuple[dict[int, float], ...], steps: list[int | None], said: str, make_run: Made
) -> None:
    runs = [make_run(f"run-{i}", config(training__seed=i), diagnoses(e)) for i, e in enumerate(entries)]
    table = compare(runs, at).tables[0]
    assert table.steps == steps
    assert table.at == said
    assert [v.get("delta") for v in table.values] == [
        None if s is None else e[s] for s, e in zip(steps, entries, strict=True)
    ]


def test_runs_of_other_lengths_are_apart(make_run: Made) -> None:
    runs = [make_run("a", config(), diagnoses({5: 1.0})), make_run("b", config(training__steps=9), diagnoses({5: 1.0}))]
    assert [g.label for g in compare(runs).groups] == [f"training.steps {DIGITS.training.steps}", "training.steps 9"]


def fake_evaluation(distance: float, samples: int = 100, step: int = 4) -> dict[str, Any]:
    return {
        "step": step,
        "metrics": {"frechet_distance": distance, "kid": 0.1, "kid_std": 0.01},
        "names": {"frechet_distance": "classifier Frechet distance"},
        "protocol": {"features": "a classifier", "samples": samples, "measured": {"step": step}},
    }


def test_only_evaluations_of_one_protocol_share_a_table(make_run: Made) -> None:
    runs = [
        make_run("a", config(), [], evaluations={"x": fake_evaluation(3.0), "y": fake_evaluation(1.0, 900)}),
        make_run("b", config(training__seed=1), [], evaluations={"x": fake_evaluation(4.0)}),
    ]
    comparison = compare(runs)
    few, many = comparison.tables
    assert few.title == "Evaluation: a classifier, samples 100"
    assert few.columns == {"frechet_distance": "classifier Frechet distance", "kid": "kernel distance"}
    assert [v.get("frechet_distance") for v in few.values] == [3.0, 4.0]
    assert [v.get("frechet_distance") for v in many.values] == [1.0, None]
    assert "their figures do not compare" in comparison.notes[0]
    assert "3.50 ± 0.71" in text(comparison)


def test_evaluations_during_training_count_by_the_metrics_file(make_run: Made) -> None:
    """A resumed run drops entries past its checkpoint; files of the abandoned steps may still lie there."""
    rows = [{"step": s, "eval/frechet_distance": float(s)} for s in (2, 4)]
    files = {f"training-{s:08d}": fake_evaluation(9.0, step=s) for s in (4, 6)}
    (table,) = compare([make_run("a", config(), rows, evaluations=files)]).tables
    assert table.steps == [4]
    assert table.values[0]["frechet_distance"] == 4.0


def test_a_single_run_and_one_without_figures(make_run: Made) -> None:
    comparison = compare([make_run("alone", config(), [])])
    assert [g.label for g in comparison.groups] == ["alone"]
    assert text(comparison) == "no diagnosis and no evaluation is logged yet"


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([], "-"),
        ([1.23456], "1.235"),
        ([1.0, 1.1], "1.050 ± 0.071"),
        ([100.0, 120.0], "110 ± 14"),
        ([2.0, 2.0], "2 ± 0"),
    ],
)
def test_deviations_decide_the_digits(values: list[float], shown: str) -> None:
    assert figure_text(values) == shown


def test_the_command_writes_a_page_and_prints_what_it_writes(
    make_run: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_config: Config
) -> None:
    seeds = [
        make_run(f"<b>$_{i}", replace(tiny_config, training=replace(tiny_config.training, seed=i))) for i in (0, 1)
    ]
    changed = replace(tiny_config, objective=replace(tiny_config.objective, consistency=0.0))
    own = make_run("_own", changed, previews=(2, 4))
    evaluation = fake_evaluation(1.0)
    for step in (2, 4):
        (own / "evaluations" / f"{step}.json").write_text(json.dumps(evaluation | {"step": step}))
    out = tmp_path / "out"
    assert main(["compare", *map(str, (*seeds, own)), "--json", "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "compare.json").read_text())
    assert [r["group"] for r in printed["runs"]] == [0, 0, 1]
    html = (out / "compare.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Alignment, means over stages",
        "Evaluation: a classifier",
        "Samples",
        "Alignment over training",
        "Losses and penalties",
        "Runs",
        "What differs",
    ]
    assert "classifier Frechet distance, lower is better, over epochs" in html
    assert f"<td>{own}</td>" in html, "the folder, to find the run by"
    assert "objective.consistency 0: _own, step 4</figcaption><img" in html
    assert "<b>$" not in html
    assert "&lt;b&gt;$_0" in html
    assert not re.search(r"https?:|url\(|<script", html)
    assert main(["compare", *map(str, (*seeds, own)), "--out", str(out)]) == 0
    assert "objective.consistency 0.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("", "no run to compare"),
        ("{run} {tmp}/none", "does not exist: must be a run directory"),
        ("{run} {run}/../a", "is named twice"),
        ("{run} {tmp}", "is no run of catgan: it has no config.yaml"),
        ("{run} --at first", "--at"),
        ("{run} --out {run}/config.yaml", "cannot write"),
    ],
)
def test_mistakes_are_one_line(
    argv: str, said: str, make_run: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("a")
    assert main(["compare", *argv.format(run=run, tmp=tmp_path).split()]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_means_over_some_runs_or_different_steps_say_so(make_run: Made) -> None:
    rows = ({10: 1.0}, {15: 4.0}, {})
    runs = [make_run(f"seed-{i}", config(training__seed=i), diagnoses(d)) for i, d in enumerate(rows)]
    printed = text(compare(runs))
    assert re.search(r"2 of 3 +10-15 ", printed)
    assert "are at different steps, so their mean says little" in printed
    assert "different steps" not in text(compare(runs[::2]))
