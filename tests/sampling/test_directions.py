"""Principal directions of style space."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import catgan
from catgan.errors import UserError
from catgan.sampling import directions as module
from catgan.sampling.directions import principal_directions


@pytest.fixture(scope="module")
def pipe() -> catgan.CATPipeline:
    return catgan.load("digits")


def test_they_are_orthogonal_and_the_longest_comes_first(pipe: catgan.CATPipeline) -> None:
    directions = principal_directions(pipe)
    assert directions.shape == (10, pipe.generator.width)
    products = directions.double() @ directions.double().T
    lengths = products.diagonal().sqrt()
    assert torch.all(lengths.diff() < 0)
    assert (products - products.diagonal().diag()).abs().max() < 1e-5 * products.max()


def test_each_is_a_standard_deviation_of_other_styles_of_a_class(pipe: catgan.CATPipeline) -> None:
    directions = principal_directions(pipe, 3).double()
    w = torch.stack([pipe.style(k, range(100_000 * (k + 1), 100_000 * (k + 1) + 400)) for k in range(10)]).double()
    along = (w - w.mean(1, keepdim=True)) @ (directions / directions.norm(dim=1, keepdim=True)).T
    assert torch.allclose(along.flatten(0, 1).std(0), directions.norm(dim=1), rtol=0.05)


def test_they_are_the_same_each_time_and_their_largest_element_is_positive(pipe: catgan.CATPipeline) -> None:
    first, again = principal_directions(pipe, 4), principal_directions(pipe, 4)
    assert torch.equal(first, again)
    assert torch.all(first.gather(1, first.abs().argmax(1, keepdim=True)) > 0)


def test_there_are_no_more_than_dimensions(pipe: catgan.CATPipeline) -> None:
    assert len(principal_directions(pipe, 1000)) == pipe.generator.width
    with pytest.raises(UserError, match="count is 0: must be at least 1"):
        principal_directions(pipe, 0)


def test_a_deviation_is_no_smaller_where_there_are_few_samples_of_a_class(
    pipe: catgan.CATPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two samples around their own mean half the variance is left: a thousand classes have few each."""
    many = principal_directions(pipe, pipe.generator.width).norm(dim=1)
    monkeypatch.setattr(module, "STYLES", 20)  # two of each class
    few = []
    for first in range(0, 400, 20):
        w = pipe.style
        monkeypatch.setattr(pipe, "style", lambda c, seeds, w=w, first=first: w(c, [first + s for s in seeds]))
        few.append(float(principal_directions(pipe, pipe.generator.width).square().sum()))
        monkeypatch.setattr(pipe, "style", w)
    assert np.mean(few) == pytest.approx(float(many.square().sum()), rel=0.2)
