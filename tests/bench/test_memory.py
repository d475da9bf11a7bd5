"""Peaks of memory, and who uses the time."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from catgan.bench.memory import check_memory, peak_bytes, python_share, state_bytes
from catgan.config_io import from_dict
from catgan.errors import UserError
from catgan.recipes import recipe

CPU = torch.device("cpu")
MIB = 2**20


def test_the_peak_is_what_is_there_at_once() -> None:
    before = torch.ones(MIB)  # does not count

    def one_after_the_other() -> None:
        for _ in range(3):
            torch.empty(MIB, dtype=torch.uint8)

    def together() -> None:
        kept = [torch.empty(MIB, dtype=torch.uint8) for _ in range(3)]
        kept.clear()
        torch.empty(MIB, dtype=torch.uint8)

    assert peak_bytes(one_after_the_other, CPU) == pytest.approx(MIB, abs=1000)
    assert peak_bytes(together, CPU) == pytest.approx(3 * MIB, abs=1000)
    assert before.numel() == MIB


def test_what_a_backward_pass_keeps_is_in_the_peak() -> None:
    w = torch.ones(MIB // 4, requires_grad=True)
    peak = peak_bytes(lambda: (w * 2).exp().sin().sum(), CPU)
    assert peak == pytest.approx(2 * MIB, rel=0.6)
    assert peak_bytes(lambda: (w * 2).exp().sin().sum().backward(), CPU) >= 2 * MIB


def test_state_is_weights_buffers_and_moments_each_once() -> None:
    network = nn.BatchNorm1d(10)
    optimizer = torch.optim.AdamW(network.parameters())
    weights = 4 * (10 + 10) + 4 * (10 + 10) + 8
    assert state_bytes([network, network], [optimizer]) == weights
    network(torch.randn(4, 10)).sum().backward()
    optimizer.step()
    assert state_bytes([network], [optimizer]) == weights + 2 * (2 * 40 + 4)


def test_pythons_share_is_the_time_outside_of_operators() -> None:
    x = torch.randn(600, 600)
    assert python_share(lambda: time.sleep(0.05)) > 0.9
    assert python_share(lambda: [x @ x for _ in range(20)]) < 0.3


def test_a_batch_beyond_the_machine_is_refused_with_one_that_may_fit() -> None:
    config = from_dict({"training": {"batch": 1_000_000}}, recipe("cat-b2"))
    with pytest.raises(UserError, match=r"training.batch is 1000000: a step needs about \d+ GiB.*smaller --batch"):
        check_memory(config, CPU)
    check_memory(recipe("digits"), CPU)
