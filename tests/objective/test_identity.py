"""Terms are told apart by what they compute, and by nothing else."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from catgan.objective import StepState, Term, default_objective
from catgan.objective.identity import changes, identity, object_identity, recorded
from catgan.recipes import recipe

PLAIN = """
SCALE = 2.0
UNUSED = 1

def helper(x):
    return x.square()

def unused(x):
    return x

def loss(s):
    return SCALE * helper(s.h[-1]).flatten(1).mean(1)
"""


def made(folder: Path, source: str, name: str = "loss", module: str = "mine") -> str:
    """The digest of a function in a module of this source."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}.py"
    path.write_text(source)
    loaded = ModuleType(module)
    exec(compile(source, str(path), "exec"), loaded.__dict__)
    return identity(Term("term", 1.0, loaded.__dict__[name])).partition("#")[2]


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("UNUSED = 1", "UNUSED = 2\n\n# a remark", True),
        ("    return x\n", "    return -x\n", True),  # of a function that the loss does not call
        ("def loss(s):", "def loss(s):\n    '''What it is.'''\n    # why", True),
        ("SCALE * helper(s.h[-1])", "SCALE  *  helper( s.h[-1] )", True),
        ("SCALE = 2.0", "SCALE = 3.0", False),
        ("x.square()", "x.abs()", False),
        (".mean(1)", ".sum(1)", False),
    ],
)
def test_only_what_is_computed_counts(old: str, new: str, same: bool, tmp_path: Path) -> None:
    before = made(tmp_path / "a", PLAIN)
    assert (made(tmp_path / "b", PLAIN.replace(old, new), module="elsewhere") == before) == same


def scaled(factor: float) -> Callable[[StepState], Tensor]:
    return lambda s: factor * s.h[-1].flatten(1).mean(1)


def weighted(s: StepState, by: float, of: Any = None) -> Tensor:
    return by * s.h[-1].flatten(1).mean(1)


class Judge(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, s: StepState) -> Tensor:
        return self.factor * s.h[-1].flatten(1).mean(1)


@pytest.mark.parametrize(
    "make",
    [
        scaled,
        lambda v: functools.partial(weighted, by=v),
        lambda v: functools.partial(weighted, by=1.0, of=torch.tensor([v])),
        Judge,
    ],
    ids=["closure", "partial", "tensor", "module"],
)
def test_values_that_a_function_carries_count(make: Callable[[float], Callable[[StepState], Tensor]]) -> None:
    one, same, other = (identity(Term("t", 1.0, make(v))) for v in (1.0, 1.0, 2.0))
    assert one == same
    assert one != other


class Noise:
    """A supervision, or whatever else is handed over as an object."""

    scale = 1.0

    def __init__(self, level: float) -> None:
        self.level, self.seen = level, 0

    def real(self, x: Tensor) -> Tensor:
        return self.moved(x)

    def moved(self, x: Tensor) -> Tensor:
        return x + self.level * self.scale


class Coarse(Noise):
    scale = 2.0


class Other(Noise):
    def moved(self, x: Tensor) -> Tensor:
        return x - self.level * self.scale


def test_objects_are_told_apart_by_what_they_do_and_by_the_values_for_it() -> None:
    one, same = Noise(1.0), Noise(1.0)
    same.seen = 9
    assert object_identity(one) == object_identity(same), "nothing looks at what differs"
    assert object_identity(one).startswith(f"{__name__}.Noise#")
    digests = {object_identity(thing).partition("#")[2] for thing in (one, Noise(2.0), Coarse(1.0), Other(1.0))}
    assert len(digests) == 4
    layers = [torch.nn.Sequential(torch.nn.Linear(3, n)) for n in (4, 4, 5)]
    assert len({object_identity(network) for network in layers}) == 2, "weights do not count, layers do"


def test_a_schedule_counts_beyond_the_steps_at_which_weights_are_recorded() -> None:
    def late(step: int, until: int) -> float:
        return float(step > until)

    one, other = (identity(Term("t", functools.partial(late, until=n), Judge(1.0))) for n in (200, 300))
    assert one != other


def test_a_function_without_source_has_an_identity() -> None:
    bodies = ("s.h[-1]", "s.h[0]")
    one, other = (identity(Term("t", 1.0, eval(f"lambda s: {body}"))) for body in bodies)
    assert one != other
    assert identity(Term("t", 1.0, torch.mean)).startswith("torch.")


def test_two_functions_in_a_line_are_told_apart() -> None:
    one, same, other = (identity(Term("t", 1.0, f)) for f in (lambda s: s.fake, lambda s: s.fake, lambda s: s.real))
    assert one == same
    assert one != other


def test_a_term_may_name_classes_and_its_own_class() -> None:
    def checked(s: StepState) -> Tensor:
        assert isinstance(s.real, Tensor)
        return s.real

    assert identity(Term("t", 1.0, checked)).startswith(__name__)
    assert identity(Term("t", 1.0, Coarse(1.0).real)) != identity(Term("t", 1.0, Other(1.0).real))


def test_functions_that_call_each_other_come_to_an_end(tmp_path: Path) -> None:
    source = "def loss(s):\n    return other(s)\n\ndef other(s):\n    return loss(s)\n"
    assert made(tmp_path / "a", source) != made(tmp_path / "b", source.replace("return loss", "return -loss"))


def test_the_terms_of_catgan_are_the_same_in_every_process_and_differ_by_their_settings() -> None:
    code = (
        "from catgan.objective import default_objective\nfrom catgan.objective.identity import identity\n"
        "from catgan.recipes import recipe\nprint(*map(identity, default_objective(recipe('digits')).discriminator))"
    )
    printed = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)]
    terms = default_objective(recipe("digits")).discriminator
    assert printed == [" ".join(map(identity, terms)) + "\n"] * 2
    assert len(set(map(identity, terms))) == len(terms)


def test_changes_name_the_term_and_what_changed() -> None:
    before = ["generator: 1, 1, 1 * adversarial = catgan.x#aa", "generator: 0.1, 0.1, 0.1 * dark = mine.dark#bb"]
    assert changes(before, list(before)) == []
    assert changes(before, [t.replace("mine.dark#bb", "yours.dark#bb") for t in before]) == []
    assert changes(before, before[:1]) == ["the generator's term dark was mine.dark#bb, is left out"]
    assert changes(before[:1], before) == ["the generator's term dark was not there, is mine.dark#bb"]
    assert changes(before, [before[0], before[1].replace("bb", "cc")]) == [
        "the generator's term dark was mine.dark#bb, is mine.dark#cc"
    ]
    assert changes(before, [before[0], before[1].replace("0.1,", "0.2,", 1)]) == [
        "the generator's term dark had the weights 0.1, 0.1, 0.1, has 0.2, 0.1, 0.1"
    ]
    assert changes(["encoder: aa"], ["encoder: bb"]) == ["the encoder was aa, is bb"]
    assert changes(before, before[::-1]) == ["the order of the terms differs"]


def test_runs_of_earlier_versions_go_on_with_the_same_objective() -> None:
    """What their checkpoints say of it. Where it has to change, say in the changelog that they cannot be resumed."""
    told = {
        line.partition(" = ")[0]: line.rpartition("#")[2]
        for line in recorded(default_objective(recipe("digits")), None, {}, None)
    }
    assert told == {
        "discriminator: 1, 1, 1 * adversarial": "5e598811f806",
        "discriminator: 0.015, 0.015, 0.015 * r1": "786fcb286f54",
        "discriminator: 0.015, 0.015, 0.015 * r2": "7e207525c1d7",
        "generator: 1, 1, 1 * adversarial": "17fd89876e58",
        "generator: 0.1, 0.1, 0.1 * consistency": "d3a2ae36387f",
    }
