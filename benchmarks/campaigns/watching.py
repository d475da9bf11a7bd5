"""What a process holds while it works."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from campaigns.journal import Row


def look(pid: int) -> Row:
    """Memory, threads and open files of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "pid": pid,
        "megabytes": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 (links that may be gone are counted too)
    }


def of_longest(rows: Sequence[Row]) -> list[Row]:
    """The looks at the process that was looked at most."""
    of: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        of[row["pid"]].append(row)
    return max(of.values(), key=len)


def held(warm: Sequence[Row], at: np.ndarray, over: str, per: str, digits: int) -> tuple[float, list[list[str]]]:
    """What a process held in looks at it: megabytes for each unit of `at` (n,) by least squares, and rows of a table.

    over, per: how the table calls all of `at`, and a unit. digits: of the slope.
    """
    megabytes = np.array([row["megabytes"] for row in warm])
    slope = float(np.polyfit(at, megabytes, 1)[0]) if np.ptp(at) else float("nan")
    return slope, [
        ["memory after warm-up, at the end", f"{megabytes[0]:.0f} MB, {megabytes[-1]:.0f} MB"],
        [f"slope over {over}", f"{slope:+.{digits}f} MB {per}"],
        ["threads, open files (most)", f"{max(r['threads'] for r in warm)}, {max(r['files'] for r in warm)}"],
    ]
