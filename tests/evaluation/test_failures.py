"""A generator that collapses or copies is told from one that learns, by the numbers of its evaluations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from catgan.data.datasets import digits
from catgan.evaluation.collect import Collected
from catgan.evaluation.failures import failures
from catgan.evaluation.features import Pixels
from catgan.evaluation.frechet import Moments
from catgan.evaluation.metrics import authenticity
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.reference import Reference
from catgan.images import to_bytes


def shares(samples: Tensor, reference: Tensor) -> tuple[float, float]:
    known = Reference("real", "", Moments.of(reference).statistics, reference)
    found = authenticity(Collected(Moments.of(samples), samples), known, Protocol())
    return found["authenticity"], found["authenticity_real"]


def share(samples: Tensor, reference: Tensor) -> float:
    return shares(samples, reference)[0]


@pytest.mark.parametrize("dim", [5, 20])
def test_copies_are_not_authentic_and_unseen_images_are_as_often_as_real_ones(dim: int) -> None:
    x = torch.randn(3500, dim, generator=torch.Generator().manual_seed(0))
    seen, unseen = x[:2500], x[2500:]
    assert share(seen[:1000], seen) == 0.0
    assert share(seen[:1000] + 1e-3, seen) < 0.01
    found, real = shares(unseen, seen)
    assert 0.3 < real < 0.8
    assert found == pytest.approx(real, abs=0.05)
    mixed = torch.cat([seen[:500], unseen[:500]])
    assert share(mixed, seen) == pytest.approx(share(unseen[:500], seen) / 2)


def test_copies_of_pictures_that_are_there_twice_are_no_more_authentic() -> None:
    x = 3 + torch.randn(300, 20, generator=torch.Generator().manual_seed(0))
    assert shares(x, torch.cat([x, x])) == (0.0, 0.0)


def test_authenticity_is_its_definition_for_a_reference_of_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from catgan.evaluation import metrics

    monkeypatch.setattr(metrics, "BLOCK", 7)
    a, b = torch.randn(2, 40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected, left_out = [], []
    for x in a:
        away = (b - x).norm(dim=1)
        row = int(away.argmin())
        others = (b - b[row]).norm(dim=1)
        others[row] = torch.inf
        expected.append(bool(away[row] > others.min()))
    for i, x in enumerate(b):
        rest = torch.cat([b[:i], b[i + 1 :]])
        away = (rest - x).norm(dim=1)
        row = int(away.argmin())
        others = (rest - rest[row]).norm(dim=1)
        others[row] = torch.inf
        left_out.append(bool(away[row] > others.min()))
    assert shares(a, b) == pytest.approx((sum(expected) / 40, sum(left_out) / 40))


def test_real_digits_that_were_not_seen_are_authentic_and_copies_are_not() -> None:
    pixels = torch.from_numpy(to_bytes(digits().pixels)).movedim(-1, 1)
    features = Pixels(1)(pixels)[0][torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))]
    found, real = shares(features[1000:], features[:1000])
    assert found == pytest.approx(real, abs=0.08)
    assert share(features[:500], features[:1000]) == 0.0


@pytest.mark.parametrize(
    ("metrics", "earlier", "progress", "said"),
    [
        ({"recall": 0.3, "authenticity": 0.5, "authenticity_real": 0.6}, [{"recall": 0.4}], 1.0, []),
        ({"recall": 0.1}, [{"recall": 0.4}, {"recall": 0.2}], 0.3, ["collapse: samples cover 10%", "40% before"]),
        ({"recall": 0.0}, [{"recall": 0.01}, {}], 0.3, []),
        ({"recall": 0.0}, [], 0.5, ["collapse: samples cover 0.0%"]),
        ({"recall": 0.3, "authenticity": 0.1, "authenticity_real": 0.5}, [], 0.1, ["memorisation: 90% of the samples"]),
        ({"frechet_distance": 3.0}, [], 1.0, []),
    ],
)
def test_what_is_said(
    metrics: dict[str, float], earlier: list[dict[str, float]], progress: float, said: list[str]
) -> None:
    found = failures(metrics, earlier, progress)
    assert len(found) == min(1, len(said))
    assert all(part in found[0] for part in said)


def test_pixels_are_brightness_and_contrast_of_cells() -> None:
    x = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    x[0, 0, 0, :2] = 255
    x[0, 1] = 255
    features, logits = Pixels(3)(x)
    mean, deviation = features.reshape(2, 3, 8, 8)
    assert logits is None
    assert features.shape == (1, Pixels(3).dim)
    assert mean[0, 0, 0].item() == 0.0
    assert deviation[0, 0, 0].item() == 1.0
    assert (mean[1] == 1).all()
    assert deviation[1:].abs().max() == 0
