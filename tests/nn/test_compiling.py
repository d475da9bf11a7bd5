"""The sums that the compiler is given are those that the network asks for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from catgan.nn.compiling import ROWS, SumsInTwo

SUM = torch.ops.aten.sum.dim_IntList


def sums(graph: fx.Graph) -> int:
    return len(graph.find_nodes(op="call_function", target=SUM))


@pytest.mark.parametrize(
    ("shape", "dims", "keep"),
    [
        ((1024, 3), [0], False),
        ((1024, 3), [0], True),
        ((40, 26, 5), [0, 1], False),
        ((40, 26, 2, 3, 4), [0, 1, 3], False),
        ((40, 26, 2, 3, 4), [0, -2, 1], True),
        ((1030, 7), [0], False),
    ],
)
def test_sums_over_many_rows_are_made_in_two_and_stay_what_they_are(
    shape: tuple[int, ...], dims: list[int], keep: bool
) -> None:
    x = torch.randn(shape, dtype=torch.float64)

    def total(x: Tensor) -> Tensor:
        return x.sum(dims, keepdim=keep) * 2

    module = make_fx(total)(x)
    SumsInTwo()(module.graph)
    module.recompile()
    assert sums(module.graph) == 2
    assert module(x).shape == total(x).shape
    torch.testing.assert_close(module(x), total(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "dims"),
    [((ROWS, 8), [0]), ((1024, 8), [1]), ((1024, 8), [0, 1]), ((1021, 8), [0])],
    ids=["few rows", "columns", "everything", "a prime number of rows"],
)
def test_other_sums_are_left_alone(shape: tuple[int, ...], dims: list[int]) -> None:
    module = make_fx(lambda x: x.sum(dims))(torch.randn(shape))
    SumsInTwo()(module.graph)
    assert sums(module.graph) == 1


def test_sums_of_any_number_of_rows_are_left_alone() -> None:
    module = make_fx(lambda x: x.sum(0), tracing_mode="symbolic")(torch.randn(1024, 8))
    SumsInTwo()(module.graph)
    assert sums(module.graph) == 1
