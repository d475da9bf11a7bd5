"""Random faults on the way of runs: each ends as one that nobody disturbed.

`python benchmarks/reliability.py kills` is the long campaign, which goes on after an interruption.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from campaigns.journal import Journal
from campaigns.kills import KINDS, Kills

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_happens_the_end_is_the_same(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    count, seed = request.config.getoption("--faults"), request.config.getoption("--faults-seed")
    rows = Kills(tmp_path / "kills").perform(
        Journal(tmp_path / "kills.jsonl", seed), [f"{kind}-{i}" for i in range(count)]
    )
    assert [row for row in rows if "failed" in row] == []
