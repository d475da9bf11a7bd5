"""Properties of the device helpers."""

from __future__ import annotations

import platform

import pytest
import torch

from catgan.devices import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose allocator it sets")
def test_freed_memory_is_not_handed_out_page_by_page_again() -> None:
    import resource

    def new_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16, 1024, 1024)  # 64 MiB, above what malloc ever keeps by itself
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    assert new_pages() > 10_000
    assert min(new_pages() for _ in range(20)) < 100
