"""Protocols: complete in the record, checked, and honest about names."""

from __future__ import annotations

import dataclasses
import json

import pytest

from catgan.errors import UserError
from catgan.evaluation.protocol import IMAGENET_FID50K, Protocol, Result, versions
from catgan.metrics import numbers, titles


def test_only_inceptions_numbers_are_called_fid_kid_and_inception_score() -> None:
    published = ("FID", "KID", "Inception Score")
    assert {n for n in titles("inception").values() if n in published} == set(published)
    for features in ("dinov2", "classifier"):
        for name in titles(features).values():
            assert not any(word in name for word in (*published, "Inception"))
        assert titles(features)["frechet_distance"] != titles("inception")["frechet_distance"]


def test_every_number_has_a_name_in_every_feature_space() -> None:
    for features in ("inception", "dinov2", "classifier"):
        known = titles(features)
        assert set(known) == set(numbers())
        assert len(set(known.values())) == len(known)


def test_the_published_protocol() -> None:
    p = IMAGENET_FID50K
    assert (p.features, p.metrics, p.samples, p.class_sampling) == (
        "inception", ("distance", "inception_score"), 50_000, "uniform",
    )  # fmt: skip
    assert (p.psi, p.weights, p.score_splits, p.first_seed) == (1.0, "ema", 10, 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": 1}, "samples is 1: must be at least 2"),
        ({"samples": 0}, "samples is 0: must be at least 2"),
        ({"metrics": ("fid",)}, "metrics is fid: must be among distance, kid"),
        ({"metrics": ("score",)}, "metrics is score: .*; score is now inception_score"),
        ({"features": "classifer"}, "features is classifer: must be one of inception, dinov2, dinov2-l, classifier"),
        ({"kid_subsets": 0}, "kid_subsets is 0: must be at least 1"),
        ({"psi": 1.5}, "psi is 1.5"),
        ({"first_seed": -30, "samples": 20}, "first_seed"),
        ({"first_seed": 2**63 - 10, "samples": 20}, r"first_seed \+ samples - 1 is 9223372036854775817"),
    ],
)
def test_bad_values_are_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        dataclasses.replace(Protocol(), **changes).check()  # type: ignore[arg-type]


def test_a_result_is_recorded_with_every_field_of_its_protocol() -> None:
    result = Result({"kid": 0.5, "kid_std": 0.25}, Protocol(metrics=("kid",)), {"versions": versions()}, 1.26, ["w"], 9)
    stored = json.loads(json.dumps(result.to_dict()))
    assert {f.name for f in dataclasses.fields(Protocol)} < stored["protocol"].keys()
    assert (stored["metrics"], stored["names"]["kid"]) == ({"kid": 0.5, "kid_std": 0.25}, "KID (labels at random)")
    assert (stored["warnings"], stored["step"], stored["seconds"]) == (["w"], 9, 1.3)
    assert {"catgan", "torch", "torch-fidelity", "numpy", "pillow"} <= stored["protocol"]["versions"].keys()
    assert result.table().splitlines()[0].split() == ["KID", "(labels", "at", "random)", "0.5"]
