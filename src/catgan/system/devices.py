"""Picking a device, its memory, and recognising that it ran out of it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from catgan.errors import UserError

warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")  # PyTorch 2.9 alone says so


def pick_device(name: str) -> torch.device:
    """`auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N`. Raises UserError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"device is {name}: must be auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"device is {name}: this machine has {torch.cuda.device_count()} CUDA devices; use cpu or auto")
    return device


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on the device. To a GPU it goes by pinned memory, when the GPU comes to it: the CPU does not wait."""
    device = torch.device(device)
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@cache
def kept(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """These numbers on the device, int64 (n,), moved there once for the whole process: do not change them."""
    return moved(torch.tensor(numbers, dtype=torch.int64), device)


class KeptConstants(TorchFunctionMode):
    """Within it, what `new_tensor` makes of a list of numbers is moved to the GPU once, and copied there.

    A move waits for the GPU, and cannot be part of a CUDA graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[tuple[Any, ...], Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        plain = func is Tensor.new_tensor and len(args) == 2 and isinstance(args[1], (list, tuple)) and not kwargs
        if not plain or not all(isinstance(value, (int, float)) for value in args[1]):
            return func(*args, **kwargs)
        key = (*args[1], args[0].dtype, args[0].device)
        if key not in self.made:
            self.made[key] = func(*args)
        return self.made[key].clone()


def check_compiler(device: torch.device, asked: str, instead: str) -> None:
    """Raise UserError where torch.compile would need a C++ compiler and there is none.

    asked, instead: what wants it, and what else there is to do, for the message.
    """
    if not can_compile(device):
        raise UserError(f"{asked}, but there is no C++ compiler ({wanted_compiler()}): install one, or {instead}")


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has what it needs: on CPU, a C++ compiler."""
    return device.type != "cpu" or bool(shutil.which(wanted_compiler()) or shutil.which("clang++"))


def wanted_compiler() -> str:
    return os.environ.get("CXX", "g++")


@contextmanager
def tensor_float32(allowed: bool) -> Iterator[None]:
    """Whether CUDA may round what float32 matrix products and convolutions read to TensorFloat-32 (10 bits)."""
    cudnn, cublas = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = cudnn, cublas


def keep_freed_memory() -> None:
    """Have this process reuse the CPU memory that it frees, instead of returning it to the system (glibc only).

    One pass of a network needs the memory that the last one freed. The C library returns large blocks at once, and
    the system then hands them out again page by page: up to a fifth of a training step.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, -1)  # never
        libc.mallopt(mmap_max, 0)  # none


def memory_error(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory", "Storage size calculation overflowed")
    return any(words in str(error) for words in said)


def processor() -> str:
    """The name of this machine's processor, where Linux tells it; else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
