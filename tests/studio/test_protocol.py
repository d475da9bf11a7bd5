"""Bounds of every field, one line for what does not fit, and answers that unpack to what was packed."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catgan.errors import UserError
from catgan.studio.protocol import MAX_POINTS, SAFE, Film, Point, Request, packed, read, sender, unpacked


def request(**changes: Any) -> str:
    return json.dumps({"id": 0, "panel": "sample", "points": [{}], **changes})


def film(**changes: Any) -> str:
    return json.dumps({"points": [{}, {}], **changes})


def test_what_is_left_out_has_a_default() -> None:
    assert read(request(), Request) == Request(0, "sample", [Point()])
    assert read(film(), Film) == Film([Point(), Point()])
    assert Point() == Point(label=0, other=None, mix=0, seed=0, psi=1, w=None, directions=[])


IN_BOUNDS: list[dict[str, Any]] = [
    *({"label": n} for n in (0, 1_000_000)),
    *({"other": n} for n in (0, 1_000_000)),
    *({"seed": n} for n in (0, SAFE)),
    *({name: v} for name in ("mix", "psi") for v in (0, 0.5, 1)),
    {"w": "A" * 65536},
    {"directions": [-20, 20] * 5},
]
OUT_OF_BOUNDS: list[dict[str, Any]] = [
    *({name: n} for name in ("label", "other") for n in (-1, 1_000_001, 0.5, "0", [0])),
    *({"seed": n} for n in (-1, SAFE + 1, 1e300, "x", None)),
    *({name: v} for name in ("mix", "psi") for v in (-0.01, 1.01, None, "1")),
    {"w": "A" * 65537},
    {"w": 1},
    {"directions": [0] * 11},
    {"directions": [20.5]},
    {"directions": ["1"]},
    {"colour": 1},
]


@pytest.mark.parametrize("point", IN_BOUNDS, ids=lambda p: str(p)[:30])
def test_a_point_within_its_bounds_is_taken(point: dict[str, Any]) -> None:
    for text, kind in ((request(points=[point]), Request), (film(points=[point] * 2), Film)):
        (name, value), *_ = point.items()
        assert getattr(read(text, kind).points[0], name) == value


@pytest.mark.parametrize("point", OUT_OF_BOUNDS, ids=lambda p: str(p)[:30])
def test_a_point_beyond_its_bounds_is_refused_in_one_line_that_names_the_field(point: dict[str, Any]) -> None:
    for text, kind in (
        (request(points=[point]), Request),
        (request(to=point), Request),
        (film(points=[point] * 2), Film),
    ):
        with pytest.raises(UserError) as said:
            read(text, kind)
        assert str(said.value).startswith(f"message is no {kind.__name__.lower()}: ")
        assert "\n" not in str(said.value)
        assert next(iter(point)) in str(said.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": -1}, {"id": SAFE + 1}, {"id": "1"}, {"panel": "cellar"}, {"points": []}, {"points": [{}] * (MAX_POINTS + 1)},
        {"points": {}}, {"model": -1}, {"model": 101}, {"at": -0.1}, {"at": 1.1}, {"stages": 1}, {"stages": "true"}, {"more": 0},
    ],
    ids=str,
)  # fmt: skip
def test_a_request_beyond_its_bounds_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^message is no request: .*"):
        read(request(**changes), Request)


@pytest.mark.parametrize(
    "changes",
    [
        {"points": [{}]}, {"points": [{}] * (MAX_POINTS + 1)}, {"format": "exe"}, {"format": "../gif"}, {"seconds": 0.09},
        {"seconds": 30.1}, {"seconds": "1"}, {"rate": 0}, {"rate": 61}, {"rate": 2.5}, {"loop": 1}, {"model": 101}, {"more": 0},
    ],
    ids=str,
)  # fmt: skip
def test_a_film_beyond_its_bounds_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^message is no film: .*"):
        read(film(**changes), Film)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{", b"\xff\xfe", b"\x00" * 9, b"[" * 100_000, b'{"points":' * 50_000, b"9" * 5000,
        request(points=[{"psi": float("nan")}]).encode(), request(points=[{"psi": float("inf")}]).encode(),
        request().replace('"id": 0', '"id": 1e999').encode(), b'{"id": 0, "panel": "\xff"}',
    ],
    ids=lambda d: repr(d[:20]),
)  # fmt: skip
def test_what_is_no_json_of_a_request_is_refused_in_one_short_line(data: bytes) -> None:
    with pytest.raises(UserError) as said:
        read(data, Request)
    assert "\n" not in str(said.value)
    assert len(str(said.value)) < 250


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_users_mistake(data: bytes) -> None:
    with pytest.raises(UserError):
        read(data, Request)


@given(
    st.dictionaries(st.text(max_size=8), st.integers(0, 100), max_size=3),
    st.lists(st.tuples(st.sampled_from(["uint8", "float32"]), st.lists(st.integers(0, 5), min_size=1, max_size=4)), max_size=4),
)  # fmt: skip
def test_answers_unpack_to_what_was_packed(header: dict[str, int], shapes: list[tuple[str, list[int]]]) -> None:
    header.pop("parts", None)
    draws = np.random.default_rng(0)
    parts = {str(i): (255 * draws.random(shape)).astype(kind) for i, (kind, shape) in enumerate(shapes)}
    found, arrays = unpacked(packed(header, parts))
    assert found == header
    assert arrays.keys() == parts.keys()
    for name, array in parts.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_numbers_lie_where_a_browser_can_view_them() -> None:
    for text in ("", "a", "ab", "abc"):
        data = packed({"said": text}, {"w": np.arange(3, dtype=np.float32)})
        (length,) = struct.unpack_from("<I", data)
        assert length % 4 == 0
        assert np.frombuffer(data, "<f4", 3, 4 + length).tolist() == [0, 1, 2]


def test_a_refused_request_is_known_by_its_number_if_it_has_one() -> None:
    told = {"id": 7, "panel": "walk", "model": 0}
    assert sender('{"id": 7, "panel": "walk", "points": [{"colour": 1}]}') == told
    assert sender(b'{"id": -1, "panel": "walk"}') == sender("[]") == sender("{") == sender("[" * 100_000) == {}
