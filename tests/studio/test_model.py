"""Points to styles and pictures: what the pipeline itself makes of them, and how mixtures, directions and walks move."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from catgan.errors import UserError
from catgan.evaluation.alignment import MEASURES, diagnose_pipeline
from catgan.images import to_bytes
from catgan.sampling.pipeline import CATPipeline, load
from catgan.studio.model import Model
from catgan.studio.protocol import Film, Point, Request


@pytest.fixture(params=["tiny", "digits", "latent"])
def any_pipe(request: pytest.FixtureRequest, tiny_model: Path, latent_model: Path) -> CATPipeline:
    return load({"tiny": tiny_model, "latent": latent_model, "digits": "digits"}[request.param])


@pytest.fixture
def model(pipe: CATPipeline) -> Model:
    return Model(pipe, "tiny")


def asked(*points: Point, **more: Any) -> Request:
    return Request(1, "sample", list(points), **more)


def text(w: Tensor | np.ndarray) -> str:
    return base64.b64encode(np.asarray(w, "<f4").tobytes()).decode()


@pytest.mark.parametrize("psi", [0.0, 0.3, 0.7, 1.0])
def test_a_plain_point_has_the_very_style_and_pixels_of_the_pipeline(any_pipe: CATPipeline, psi: float) -> None:
    classes, seeds = [0, 2, 2, 1], [0, 5, 6, 2**53 - 1]
    made = Model(any_pipe, "m")
    points = [Point(label=c, seed=s, psi=psi) for c, s in zip(classes, seeds, strict=True)]
    assert torch.equal(made.styles(points), any_pipe.style(classes, seeds, psi))
    _, parts = made.answer(asked(*points))
    np.testing.assert_array_equal(parts["images"], any_pipe(classes, seeds, psi=psi).array)
    _, parts = made.answer(asked(points[1], stages=True))
    kept = any_pipe([2], [5], psi=psi, stages=True)
    np.testing.assert_array_equal(parts["h"], kept.stage_array[:, 0])
    np.testing.assert_array_equal(parts["images"], kept.stage_array[-1])
    assert torch.equal(torch.from_numpy(parts["w"]), any_pipe.style([2], [5], psi))


def test_both_ends_of_a_mixture_are_its_classes(model: Model) -> None:
    for psi in (0.0, 0.6, 1.0):
        pair = [Point(label=0, other=2, mix=mix, seed=3, psi=psi) for mix in (0.0, 1.0)]
        assert torch.equal(model.styles(pair), model.pipe.style([0, 2], [3, 3], psi))
    ends = model.pipe.style([0, 2], [3, 3])
    between = model.styles([Point(label=0, other=2, mix=0.25, seed=3)])
    torch.testing.assert_close(between[0], ends[0] + 0.25 * (ends[1] - ends[0]))


def test_without_truncation_left_there_is_the_mean_of_the_class_or_of_the_mixture(model: Model) -> None:
    means = model.generator.style_mean(torch.arange(3))
    found = model.styles([Point(label=k, seed=9, psi=0) for k in range(3)])
    assert torch.equal(found, means)
    mixed = model.styles([Point(label=0, other=1, mix=0.5, seed=9, psi=0)])
    torch.testing.assert_close(mixed[0], (means[0] + means[1]) / 2)


def test_classes_that_were_never_trained_on_are_not_truncated(pipe: CATPipeline) -> None:
    pipe.generator.style_updates.zero_()
    assert torch.equal(Model(pipe, "m").styles([Point(seed=4, psi=0.2)]), pipe.style([0], [4]))


def test_moving_along_directions_adds_them(model: Model) -> None:
    plain, moved = model.styles([Point(seed=2, psi=0.8), Point(seed=2, psi=0.8, directions=[1.5, 0, -2])])
    torch.testing.assert_close(moved - plain, 1.5 * model.directions[0] - 2 * model.directions[2])
    assert torch.equal(model.styles([Point(seed=2, directions=[0, 0])]), model.styles([Point(seed=2)]))


def test_a_style_that_is_given_comes_back_bit_for_bit_and_can_be_edited(model: Model) -> None:
    w = model.pipe.style([1], [77]) + 0.25
    given = Point(label=1, w=text(w))
    _, parts = model.answer(asked(given))
    assert torch.equal(torch.from_numpy(parts["w"]), w)
    np.testing.assert_array_equal(parts["images"], model.pipe(w=w).array)
    mean = model.generator.style_mean(torch.tensor([1, 2]))
    truncated = model.styles([Point(label=1, w=text(w), psi=0.5)])
    torch.testing.assert_close(truncated[0], mean[0] + 0.5 * (w[0] - mean[0]))
    assert torch.equal(model.styles([Point(label=1, w=text(w), psi=0)])[0], mean[0])
    elsewhere = model.styles([Point(label=1, w=text(w), other=2, mix=1.0)])
    torch.testing.assert_close(elsewhere[0] - mean[1], w[0] - mean[0])


@pytest.mark.parametrize(
    ("style", "said"),
    [
        ("?", "no base64"), ("é", "no base64"), ("", "size of the style is 0 bytes"), (text(np.zeros(15)), "60 bytes"),
        (text(np.full(16, np.nan)), "not finite"), (text(np.full(16, np.inf)), "not finite"), (text(np.full(16, 2e4)), "10,000"),
    ],
)  # fmt: skip
def test_a_style_that_is_none_is_refused_in_one_line(model: Model, style: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        model.answer(asked(Point(w=style)))


def test_what_the_generator_has_not_is_refused(model: Model) -> None:
    with pytest.raises(UserError, match="class is 3"):
        model.answer(asked(Point(label=3)))
    with pytest.raises(UserError, match="class is 9"):
        model.answer(asked(Point(other=9)))
    for more in ({"stages": True}, {"to": Point()}):
        with pytest.raises(UserError, match="number of points is 2"):
            model.answer(asked(Point(), Point(), **more))


def test_a_walk_begins_and_ends_at_its_points(model: Model) -> None:
    a, b = Point(label=0, seed=1), Point(label=2, seed=8, psi=0.5)
    ends = torch.cat([model.styles([a]), model.styles([b])])
    for at, w in ((0.0, ends[0]), (1.0, ends[1])):
        _, parts = model.answer(asked(a, to=b, at=at))
        torch.testing.assert_close(torch.from_numpy(parts["w"][0]), w, rtol=0, atol=1e-6)
    _, parts = model.answer(asked(a, to=b, at=0.25))
    torch.testing.assert_close(torch.from_numpy(parts["w"][0]), torch.lerp(*ends, 0.25))


@pytest.mark.parametrize("loop", [True, False])
def test_a_film_has_its_frames_and_passes_through_its_points(any_pipe: CATPipeline, loop: bool) -> None:
    made, points = Model(any_pipe, "m"), [Point(label=k, seed=k) for k in range(3)]
    frames = list(made.film(Film(points, seconds=0.5, rate=9, loop=loop)))
    legs = 3 if loop else 2
    assert len(frames) == 4 * legs + (not loop)
    pictures = any_pipe(w=made.styles(points)).array
    for k in range(legs if loop else legs + 1):  # batches of other sizes may round otherwise
        assert np.abs(frames[4 * k].astype(int) - pictures[k]).max() <= 1
    halfway = any_pipe(w=torch.lerp(*made.styles(points[:2]), 0.5)[None]).array[0]
    assert np.abs(frames[2].astype(int) - halfway).max() <= 1


def test_the_shortest_film_has_one_frame_a_leg(model: Model) -> None:
    frames = list(model.film(Film([Point(), Point(seed=1)], seconds=0.1, rate=1)))
    assert len(frames) == 2


@pytest.mark.parametrize("latent", [False, True])
def test_measures_of_a_sample_are_those_of_a_diagnosis(tiny_model: Path, latent_model: Path, latent: bool) -> None:
    pipe = load(latent_model if latent else tiny_model)
    header, parts = Model(pipe, "m").answer(asked(Point(), stages=True))
    expected = diagnose_pipeline(pipe, samples=1).to_dict()  # its first pair is class 0, seed 0
    assert set(header["alignment"]) == set(MEASURES)
    for name in MEASURES:
        assert header["alignment"][name] == pytest.approx(expected[name], abs=1e-4)
    assert header["alignment"]["A"][-1] == 1
    stages = pipe([0], [0], stages=True).stages
    assert stages is not None
    for k, x in enumerate(pipe.pyramid(stages)):
        np.testing.assert_array_equal(parts[f"x{k}"], to_bytes(pipe.decode(x)))


def test_a_latent_model_answers_with_its_decoders_pictures(latent_model: Path) -> None:
    model = Model(load(latent_model), "latent")
    assert (model.about["size"], model.about["latent"]) == (64, True)
    header, parts = model.answer(asked(Point(), Point(seed=1)))
    assert parts["images"].shape == (2, 64, 64, 3)
    assert {"style", "generator", "decoder"} == header["ms"].keys()
    _, parts = model.answer(asked(Point(), stages=True))
    assert [parts[n].shape for n in ("h", "x0", "x1", "x2")] == [(3, 64, 64, 3), *((1, s, s, 3) for s in (16, 32, 64))]


def test_what_is_said_of_a_model_names_no_path(tiny_model: Path, latent_model: Path) -> None:
    for path in (tiny_model, latent_model):
        about = Model(load(path), "label").about
        assert about["classes"] == ["ant", "bee", "cat"]
        assert (about["scales"], about["step"], about["directions"]) == ([2, 4, 8], 7, 10)
        assert "/" not in str(about)
