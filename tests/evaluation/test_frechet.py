"""Streamed moments against NumPy, and the Frechet distance against every other way to compute it."""

from __future__ import annotations

import time
import warnings
from itertools import pairwise
from statistics import median

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from catgan.evaluation.frechet import Moments, SingularWarning, Statistics, frechet_distance


def features(count: int, dim: int, seed: int = 0, offset: float = 0.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Correlated, with deviations from 0.1 to 10."""
    draws = np.random.default_rng(seed)
    mixing = draws.standard_normal((dim, dim)) / np.sqrt(dim) + np.diag(np.geomspace(0.1, 10, dim))
    return torch.from_numpy(draws.standard_normal((count, dim)) @ mixing + offset).to(dtype)


def statistics(x: Tensor) -> Statistics:
    return Moments.of(x).statistics


def gaussian(mu: list[float], variances: list[float]) -> Statistics:
    return Statistics(torch.tensor(mu, dtype=torch.float64), torch.diag(torch.tensor(variances, dtype=torch.float64)))


@given(
    count=st.integers(2, 60),
    dim=st.integers(1, 6),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    offset=st.sampled_from([0.0, -3.0, 1e4]),
)
def test_any_split_gives_numpys_mean_and_covariance(count: int, dim: int, cuts: list[int], offset: float) -> None:
    x = features(count, dim, seed=count, offset=offset)
    forth, back = Moments.zero(dim), Moments.zero(dim)
    parts = [x[a:b] for a, b in pairwise([0, *sorted(min(c, count) for c in cuts), count])]
    for part in parts:
        forth.add(Moments.of(part))
    for part in reversed(parts):
        back.add(Moments.of(part))
    expected = np.cov(x.double().numpy(), rowvar=False).reshape(dim, dim)
    for made in (forth.statistics, back.statistics):
        assert made.count == count
        np.testing.assert_allclose(made.mu, x.double().numpy().mean(0), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(made.sigma, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


def test_no_samples_leave_moments_as_they_are() -> None:
    made = Moments.of(features(5, 3))
    before = made.statistics
    made.add(Moments.of(torch.empty(0, 3)))
    made.add(Moments.zero(3))
    assert torch.equal(made.statistics.sigma, before.sigma)
    nothing = Moments.zero(3)
    nothing.add(Moments.zero(3))
    assert nothing.statistics.count == 0


@pytest.mark.parametrize(("count", "singular"), [(0, False), (1, True), (4, True), (5, False)])
def test_four_features_need_five_samples(count: int, singular: bool) -> None:
    assert Statistics(torch.zeros(4), torch.eye(4), count).singular is singular


@pytest.mark.parametrize("dim", [1, 2, 17, 64, 200])
def test_it_equals_the_formula_with_a_matrix_square_root(dim: int) -> None:
    a, b = statistics(features(4 * dim + 8, dim, 1)), statistics(features(5 * dim + 8, dim, 2) * 1.3 + 0.2)
    root = scipy.linalg.sqrtm(a.sigma.numpy() @ b.sigma.numpy()).real
    spread = float(a.sigma.trace() + b.sigma.trace()) - 2 * np.trace(root)
    expected = float((a.mu - b.mu).square().sum()) + spread
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_it_equals_torch_fidelity() -> None:
    x, y = features(300, 24, 1, dtype=torch.float64), features(250, 24, 2, dtype=torch.float64) + 0.1
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(t) for t in (x, y)), verbose=False)
    ours = frechet_distance(statistics(x), statistics(y))
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-9)


def test_closed_forms() -> None:
    a = gaussian([0, 0, 0], [1, 4, 9])
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a, gaussian([3, 0, 4], [1, 4, 9])) == pytest.approx(25)
    assert frechet_distance(a, gaussian([0, 0, 0], [4, 4, 1])) == pytest.approx((1 - 2) ** 2 + (3 - 1) ** 2)
    assert frechet_distance(a, gaussian([0, 0, 0], [0, 0, 0])) == pytest.approx(1 + 4 + 9)
    assert frechet_distance(gaussian([0, 0, 0], [1, 0, 0]), gaussian([0, 0, 0], [0, 1, 0])) == pytest.approx(2)


@pytest.mark.parametrize(("n", "m"), [(10, 12), (10, 200), (200, 10), (2, 2)])
def test_fewer_samples_than_features_are_exact_and_warned_about(n: int, m: int) -> None:
    """tr (S_1 S_2)^(1/2) is the sum of singular values of A_1 A_2^T, S = A^T A: no square root of a d x d matrix."""
    x, y = features(n, 40, 1, dtype=torch.float64), features(m, 40, 2, dtype=torch.float64)
    a, b = (t - t.mean(0) for t in (x, y))
    root = torch.linalg.matrix_norm(a @ b.T, ord="nuc") / ((n - 1) * (m - 1)) ** 0.5
    spread = a.square().sum() / (n - 1) + b.square().sum() / (m - 1) - 2 * root
    expected = float((x.mean(0) - y.mean(0)).square().sum() + spread)
    with pytest.warns(SingularWarning) as said:
        found = frechet_distance(statistics(x), statistics(y))
    assert found == pytest.approx(expected, rel=1e-6)
    few = [f"{k} samples for 40 features" for k in (n, m) if k <= 40]
    assert [str(w.message).split(":")[0] for w in said] == few


def test_a_singular_gaussian_is_at_no_distance_from_itself() -> None:
    a = statistics(features(10, 40))
    with pytest.warns(SingularWarning):
        # Of rounded zeros as eigenvalues, the roots would add up to 1e-8 of the trace.
        assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12 * float(a.sigma.trace()))


def test_enough_samples_warn_of_nothing() -> None:
    a = statistics(features(41, 40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(a, a)


@pytest.mark.slow
def test_it_is_three_times_faster_than_the_square_root() -> None:
    """At Inception's 2048 features; processor time of one thread, both in turn."""
    a, b = (statistics(features(4200, 2048, seed, dtype=torch.float64)) for seed in (1, 2))
    ours, theirs = [], []
    for _ in range(2):
        began = time.process_time()
        frechet_distance(a, b)
        ours.append(time.process_time() - began)
    began = time.process_time()
    scipy.linalg.sqrtm(a.sigma.numpy() @ b.sigma.numpy())
    theirs.append(time.process_time() - began)
    assert median(theirs) > 3 * median(ours), (theirs, ours)
