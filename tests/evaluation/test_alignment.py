"""Equation 1 on cases that can be computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from catgan.draws import sample_z
from catgan.evaluation.alignment import Alignment, alignment, diagnose, fixed_pairs
from catgan.pyramid import Pyramid

BLOCKS = {"down": "area", "up": "nearest"}  # filters that keep cells constant, for sums by hand


def stages(*images: list[list[float]]) -> Tensor:
    """(K + 1, 1, 1, S, S) of one sample."""
    return torch.tensor(images)[:, None, None]


def test_two_stages_by_hand() -> None:
    h = stages([[2.0, 2.0], [2.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]])
    measured = {m: v.item() for m, v in alignment(h, Pyramid((1, 2), **BLOCKS)).items()}
    delta, floor = math.sqrt(6 / 30), math.sqrt(5 / 30)  # from 2, and from the mean 2.5
    expected = {"delta": delta, "floor": floor, "excess": delta - floor, "R": delta, "A": 1.0}
    assert measured == pytest.approx(expected, abs=1e-6)


def test_three_stages_by_hand() -> None:
    """From 0 over a stage that is half wrong to a constant 1: cos((2, 0), (1, 1)) = 1 / sqrt(2)."""
    wrong = [[2.0, 2.0, 0.0, 0.0]] * 4
    h = stages([[0.0] * 4] * 4, wrong, [[1.0] * 4] * 4)
    measured = alignment(h, Pyramid((1, 2, 4), **BLOCKS))
    assert measured["delta"][0].tolist() == pytest.approx([1, 1])
    assert measured["floor"][0].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert measured["R"][0].tolist() == pytest.approx([math.sqrt(2), 1])
    assert measured["A"][0].tolist() == pytest.approx([1 / math.sqrt(2), 1])


def test_a_stage_that_moves_away_has_negative_alignment() -> None:
    h = stages([[0.0] * 4] * 4, [[-1.0] * 4] * 4, [[1.0] * 4] * 4)
    assert alignment(h, Pyramid((1, 2, 4)))["A"][0].tolist() == pytest.approx([-1, 1])


def test_the_last_a_is_one_by_definition() -> None:
    h = torch.randn(4, 10, 2, 16, 16)
    measured = alignment(h, Pyramid((2, 4, 8, 16)))["A"]
    assert measured.shape == (10, 3)
    assert torch.allclose(measured[:, -1], torch.ones(10), atol=1e-5)
    assert (measured[:, :-1] < 0.9).all()


def test_identical_stages_are_as_good_as_their_resolution_allows() -> None:
    h = torch.randn(10, 2, 16, 16).expand(4, -1, -1, -1, -1)
    measured = alignment(h, Pyramid((2, 4, 8, 16)))
    assert torch.equal(measured["delta"], measured["floor"])
    assert not measured["excess"].any()
    assert (measured["floor"] > 0.1).all()  # noise is rich in high frequencies


def test_an_image_that_the_coarsest_scale_can_show_has_no_floor() -> None:
    coarse = torch.randn(10, 2, 2, 2).repeat_interleave(8, -1).repeat_interleave(8, -2)
    measured = alignment(coarse.expand(4, -1, -1, -1, -1), Pyramid((2, 4, 8, 16), **BLOCKS))
    assert all(measured[m].abs().max() < 1e-5 for m in ("delta", "floor", "excess", "R"))


def test_measures_do_not_depend_on_the_scale_of_the_images() -> None:
    h = torch.randn(3, 5, 1, 8, 8)
    a, b = alignment(h, Pyramid((2, 4, 8))), alignment(9 * h, Pyramid((2, 4, 8)))
    assert all(torch.allclose(a[m], b[m], atol=1e-5) for m in a)


def test_norms_are_per_sample() -> None:
    h = torch.randn(3, 5, 1, 8, 8)
    together = alignment(h, Pyramid((2, 4, 8)))
    for i in range(5):
        alone = alignment(h[:, i : i + 1], Pyramid((2, 4, 8)))
        assert all(torch.allclose(together[m][i], alone[m][0], atol=1e-6) for m in alone)


def test_one_scale_has_nothing_to_align() -> None:
    assert all(v.shape == (5, 0) for v in alignment(torch.randn(1, 5, 1, 8, 8), Pyramid((8,))).values())


def test_the_protocol_has_fixed_pairs() -> None:
    assert fixed_pairs(5, 3) == ([0, 1, 2, 0, 1], [0, 1, 2, 3, 4])


def generator(z: Tensor, y: Tensor) -> Tensor:
    """Stages that depend on z and class: (3, B, 1, 8, 8)."""
    base = z[:, :64].view(1, -1, 1, 8, 8) + y.view(1, -1, 1, 1, 1)
    return torch.cat([base.flip(-1) * 0.5, base.flip(-2), base])


def measure(samples: int, batch: int) -> Alignment:
    return diagnose(
        generator, Pyramid((2, 4, 8)), classes=3, z_dim=64, device=torch.device("cpu"), samples=samples, batch=batch
    )


def test_a_diagnosis_is_the_mean_over_its_pairs_whatever_the_batch() -> None:
    whole, parts = measure(10, 10), measure(10, 3)
    direct = alignment(generator(sample_z(range(10), 64), torch.arange(10) % 3), Pyramid((2, 4, 8)))
    for m in ("delta", "floor", "excess", "R", "A"):
        assert getattr(whole, m) == pytest.approx(getattr(parts, m), abs=1e-6)
        assert getattr(whole, m) == pytest.approx(direct[m].mean(0).tolist(), abs=1e-5)


def test_a_diagnosis_records_what_it_was_measured_on() -> None:
    protocol = measure(4, 2).protocol
    assert (protocol["samples"], protocol["scales"], protocol["down"], protocol["up"], protocol["psi"]) == (
        4, [2, 4, 8], "area", "bilinear", 1.0,
    )  # fmt: skip


def test_a_is_averaged_with_and_without_the_last_stage() -> None:
    result = Alignment([0.2, 0.4], [0.1, 0.1], [0.1, 0.3], [0.5, 0.7], [0.4, 1.0], {})
    averages = result.averages()
    assert (averages["A"], averages["A_without_last"], averages["delta"]) == pytest.approx((0.7, 0.4, 0.3))
    assert result.to_dict()["average"] == averages
    assert "0.400" in result.table()
    assert Alignment([0.2], [0.1], [0.1], [0.5], [1.0], {}).table().splitlines()[-1].startswith("mean "), (
        "it is all of A"
    )
