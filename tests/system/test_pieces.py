"""Pieces of work: each is somebody's, once, and a folder of them is one run's at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catgan.errors import UserError
from catgan.system.pieces import unfinished, work_folder
from catgan.system.processes import Processes


@given(count=st.integers(0, 40), world=st.integers(1, 9), done=st.sets(st.integers(0, 39)))
def test_the_processes_together_do_what_is_not_done_once(count: int, world: int, done: set[int]) -> None:
    shares = [unfinished(count, Processes(rank, world), done.__contains__) for rank in range(world)]
    assert sorted(k for share in shares for k in share) == [k for k in range(count) if k not in done]
    again = [unfinished(count, Processes(rank, world), lambda k: False) for rank in range(world)]
    assert all(set(share) <= set(whole) for share, whole in zip(shares, again, strict=True)), "whatever is done"


def test_a_work_folder_is_one_runs_and_goes_away_when_all_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "parts"

    def interrupted(*names: str) -> None:
        with work_folder(folder, Processes()):
            for name in names:
                (folder / name).touch()
            with pytest.raises(UserError, match="parts is in use by another run"), work_folder(folder, Processes()):
                pytest.fail("two runs in one folder")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted("0")
    assert [p.name for p in folder.iterdir()] == ["0"], "what is finished stays"
    with work_folder(folder, Processes()):
        pass
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir()), "nothing was finished"
