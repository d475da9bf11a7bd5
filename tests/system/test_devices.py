"""Properties of the device helpers."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from catgan.system.devices import tensor_float32

PAGES = """
import resource
import torch
from catgan.system.devices import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 1024, 1024)  # 64 MiB, above what malloc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

new_pages()
before = new_pages()
keep_freed_memory()
new_pages()
print(before, min(new_pages() for _ in range(20)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose allocator it sets")
def test_freed_memory_is_not_handed_out_page_by_page_again() -> None:
    """In a process of its own, because it cannot be undone."""
    output = subprocess.run([sys.executable, "-c", PAGES], check=True, capture_output=True, text=True).stdout
    before, after = map(int, output.split())
    assert after < 100 < before


@pytest.mark.parametrize("allowed", [False, True])
def test_tensor_float_32_is_as_asked_and_the_setting_comes_back(allowed: bool) -> None:
    def settings() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = settings()
    with tensor_float32(allowed):
        with tensor_float32(not allowed):
            assert settings() == (not allowed, not allowed)
        assert settings() == (allowed, allowed)
    assert settings() == before
