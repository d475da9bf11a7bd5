"""What a process opens, changes, starts and connects to elsewhere than it may: seen by Python's audit events, and by strace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Python itself, its packages, and what systems tell of themselves.
ALLOWED = (
    sys.prefix,
    sys.base_prefix,
    str(Path(__file__).parents[2]),
    "/proc",
    "/sys",
    "/dev",
    "/usr",
    "/etc/localtime",
    "/etc/ld.so.cache",  # of libraries that are loaded late
)
EVENTS = ("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")  # fmt: skip
NEVER = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class")

CALLS = (
    "open", "openat", "openat2", "creat", "truncate", "unlink", "unlinkat", "rename", "renameat", "renameat2", "mkdir",
    "mkdirat", "rmdir", "mknod", "mknodat", "link", "linkat", "symlink", "symlinkat", "chmod", "fchmodat", "chown", "lchown",
    "fchownat",
)  # fmt: skip
NEVER_CALLED = ("execve", "execveat", "connect")
OF_ITSELF = ("unlink", "rename", "link", "symlink")  # calls that follow no link that is at the end of a path
LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)")
PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<((?:[^<>\\]|\\.)*)>, )?"((?:[^"\\]|\\.)*)"')  # in a folder or not
WAIT = 20  # seconds for strace to begin, and to write what it saw


class Opened:
    """What happens `elsewhere` while it is `watched`."""

    def __init__(self, trace: Path | None = None) -> None:
        """trace: what strace writes about this process."""
        self.watching, self.allowed, self.elsewhere = False, tuple[str, ...](), list[str]()
        self.trace = None if trace is None else trace.open(encoding="latin-1")
        self.marks = self.calls = 0  # calls: that strace saw in the last block

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """For sys.addaudithook. Raises nothing: what it would raise, readers could catch."""
        if not self.watching:
            return
        if event in NEVER:
            self.elsewhere.append(f"{event} {arguments[:2]!r:.200}")
        elif event in EVENTS and isinstance(arguments[0], (str, bytes, os.PathLike)):
            path = os.fsdecode(arguments[0])
            if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # of an open folder, as shutil.rmtree does it
                path = str(Path(f"/proc/self/fd/{arguments[1]}").readlink() / path)
            self.check(event, path)

    def check(self, what: str, path: str) -> None:
        if what.startswith(OF_ITSELF):
            folder, name = os.path.split(path)
            path = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118 (the folder may be empty)
        else:
            path = os.path.realpath(path)
        if not any(path == root or path.startswith(f"{root}/") for root in self.allowed):
            self.elsewhere.append(f"{what} {path}")

    @contextmanager
    def watched(self, roots: Sequence[Path]) -> Iterator[None]:
        self.elsewhere = []
        self.allowed = tuple(os.path.realpath(root) for root in (*ALLOWED, *roots))
        self.traced()
        self.watching = True
        try:
            yield
        finally:
            self.watching = False
            self.calls = 0
            for line in self.traced():
                self.note_line(line)

    def traced(self) -> list[str]:
        """What strace wrote since the last time. It is known to be all when a call that was made last is seen."""
        if self.trace is None:
            return []
        self.marks += 1
        mark, seen, end = f"/catgan-mark/{self.marks}", "", time.monotonic() + WAIT
        with suppress(OSError):
            os.open(mark, os.O_RDONLY)
        while f'"{mark}"' not in seen:
            if time.monotonic() > end:
                raise RuntimeError("strace has ended")
            seen += self.trace.read()
        return seen.partition(f'"{mark}"')[0].splitlines()[:-1]

    def note_line(self, line: str) -> None:
        """The same as `note`, for a line of strace's."""
        if (match := LINE.match(line)) is None:  # a signal, or the end of a call
            return
        name, arguments = match.groups()
        self.calls += name in (*CALLS, *NEVER_CALLED)
        if name in NEVER_CALLED:
            self.elsewhere.append(f"{name} {arguments:.200}")
        elif name in CALLS:
            paths = PATH.findall(arguments)
            for folder, path in paths[-1:] if name.startswith("symlink") else paths:
                self.check(name, os.path.join(plain(folder), plain(path)))  # noqa: PTH118 (either may be empty)


def plain(text: str) -> str:
    """A path without strace's escapes."""
    return os.fsdecode(text.encode("latin-1").decode("unicode_escape").encode("latin-1"))


def check_strace() -> None:
    """End the program where there is no strace."""
    if shutil.which("strace") is None:
        raise SystemExit("--trace needs strace, which is not installed: apt-get install strace")


def strace(pid: int, trace: Path) -> subprocess.Popen[str]:
    """Let strace write what a process and its children open and do, until they end. Returns once it does."""
    calls = ",".join(f"?{name}" for name in (*CALLS, *NEVER_CALLED))  # ?: where the machine has it
    argv = ["strace", "-f", "-y", "-qq", "-o", str(trace), "-e", f"trace={calls}", "-p", str(pid)]
    tracer = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + WAIT
    while not is_traced(pid):
        if tracer.poll() is not None or time.monotonic() > end:
            tracer.kill()
            raise SystemExit(f"strace does not trace process {pid}: {tracer.communicate()[1].strip()}")
        time.sleep(0.01)
    return tracer


def is_traced(pid: int | str = "self") -> bool:
    return "\nTracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
