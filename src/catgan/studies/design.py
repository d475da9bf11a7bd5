"""What a study is made of: testbeds, variants, the runs of one on the other, and claims that runs decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from catgan.config import Config
from catgan.config_io import attribute, with_values
from catgan.metrics import METRICS, NumberName


@dataclass(frozen=True)
class Times:
    """So many times what a field is on the testbed."""

    factor: int


@dataclass(frozen=True)
class Testbed:
    """Data and networks on which variants are compared; its configuration has the consistency loss as in the paper."""

    __test__ = False  # no test, for pytest

    name: str
    about: str
    config: Config
    minutes: float  # of a core that a run takes, about
    samples: int = 10_000  # that the last evaluation generates

    @property
    def metrics(self) -> tuple[NumberName, ...]:
        """The numbers that its evaluations give and by which something can be judged."""
        found = (METRICS[name].numbers.items() for name in self.config.eval.metrics)
        return tuple(n for known in found for n, number in known if number.better)


@dataclass(frozen=True)
class Variant:
    """A testbed's configuration with some fields changed."""

    study: str  # that records it
    name: str
    about: str
    changes: Mapping[str, Any] = field(default_factory=dict)  # values of fields, or `Times`
    start: Callable[[Config], Config] | None = None  # what is done to the configuration before

    def config(self, base: Config, seed: int) -> Config:
        """Raises UserError for changes that do not fit the configuration."""
        base = self.start(base) if self.start else base
        values = {n: v.factor * attribute(base, n) if isinstance(v, Times) else v for n, v in self.changes.items()}
        return with_values(base, values | {"training.seed": seed}).validate()


Moment = Literal["end", "equal CPU time", "over training"]


@dataclass(frozen=True)
class Versus:
    """One variant against another, by one number of independent runs."""

    text: str
    paper: str  # the paper's numbers for it, or "-"
    number: str
    of: Variant
    than: Variant
    expected: Literal["lower", "higher"]
    at: Moment = "end"


@dataclass(frozen=True)
class Within:
    """Two numbers of the same runs: of two stages, or of two moments, as shares of the steps."""

    text: str
    paper: str
    number: str
    of: Variant
    than_number: str
    expected: Literal["lower", "higher"]
    early: float = 1.0  # the moment of `than_number`; that of `number` is the end


Claim = Versus | Within


@dataclass(frozen=True)
class Study:
    name: str
    question: str
    figure: str  # of the paper
    variants: tuple[Variant, ...]
    claims: tuple[Claim, ...]
    testbeds: tuple[str, ...]
    curves: tuple[str, ...]  # numbers whose course the page shows
    paper: Config | None  # what stands for the testbed at the paper's scale, if its variants make sense there
    seeds: int = 3
    columns: tuple[str, ...] = ()  # numbers that its tables have beside metrics and alignment
    remark: str = ""  # for the page, without numbers


@dataclass(frozen=True)
class Run:
    """One training of a variant on a testbed."""

    variant: Variant
    testbed: Testbed
    seed: int

    @property
    def name(self) -> str:
        """STUDY/TESTBED/VARIANT-SEED: where its record lies."""
        return f"{self.variant.study}/{self.testbed.name}/{self.variant.name}-{self.seed}"

    @cached_property
    def config(self) -> Config:
        return self.variant.config(self.testbed.config, self.seed)

    @property
    def command(self) -> str:
        """What runs this one alone."""
        v = self.variant
        return f"catgan reproduce {v.study} --testbeds {self.testbed.name} --variants {v.name} --seeds {self.seed}"
