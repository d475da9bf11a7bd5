"""Processes: what torchrun says, and one process without it."""

from __future__ import annotations

import pytest
import torch

from catgan.errors import UserError
from catgan.system.processes import Processes


def test_one_process_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    alone = Processes.from_environment()
    assert (alone.rank, alone.world, alone.first) == (0, 1, True)
    alone.wait()
    assert not torch.distributed.is_initialized()


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "5")
    fifth = Processes.from_environment()
    assert (fifth.rank, fifth.world, fifth.first) == (5, 8, False)
    assert fifth.device("auto") == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert fifth.device("auto") == fifth.device("cuda") == "cuda:1"
    assert fifth.device("cpu") == "cpu"
    assert fifth.device("cuda:3") == "cuda:3"  # one process on this machine, as far as it knows
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(UserError, match="device is cuda:3, one GPU for all processes: must be cuda or auto"):
        fifth.device("cuda:3")
    assert [Processes().device(name) for name in ("auto", "cuda", "cuda:3")] == ["auto", "cuda", "cuda:3"]
