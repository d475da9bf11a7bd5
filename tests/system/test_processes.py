"""Processes: what torchrun says, and one process without it."""

from __future__ import annotations

import pytest
import torch

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
    assert fifth.device("auto") == "cuda:1"
    assert fifth.device("cpu") == "cpu"
    assert Processes().device("auto") == "auto"
