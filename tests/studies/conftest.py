"""A testbed that takes seconds, and records that were never run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from catgan.config_io import with_values
from catgan.studies.catalogue import TESTBEDS
from catgan.studies.design import Run, Testbed, Variant
from catgan.studies.records import RunRecord

STEPS = 12


@pytest.fixture(scope="session")
def quick() -> Testbed:
    """The digits for a dozen steps."""
    digits = TESTBEDS["digits"]
    small = {
        "training.steps": STEPS,
        "training.batch": 16,
        "log.every": 2,
        "log.diagnose_every": 4,
        "log.diagnose_samples": 50,
        "log.preview_every": STEPS,
        "eval.every": 4,
        "eval.samples": 60,
        "checkpoint.every": 2,
    }
    return replace(digits, config=with_values(digits.config, small), samples=60, minutes=0.1)


def made_up(variant: Variant, testbed: Testbed, seed: int, **numbers: float) -> RunRecord:
    """A record with these numbers at the end, that fall to them by a half, over 100 CPU seconds."""
    run = Run(variant, testbed, seed)
    curves = {name: [2 * value, value] for name, value in numbers.items()}
    half, steps = run.config.training.steps / 2, float(run.config.training.steps)
    return RunRecord(
        study=variant.study,
        testbed=testbed.name,
        variant=variant.name,
        seed=seed,
        command=run.command,
        commit="0" * 40,
        changed=False,
        config=run.config,
        machine={"processor": "a processor", "threads": 1},
        versions={"torch": "2"},
        began="2026-01-01 00:00:00",
        cpu_seconds=100.0,
        curves={"step": [half, steps], "cpu_seconds": [50.0, 100.0]} | curves,
        final=dict(numbers),
        truncated={},
        protocol={"samples": testbed.samples, "feature_space": {"identity": "a space"}},
    )
