"""A program that does with files what Python does not see: `opening_in_c.py MINE OTHER TRACE`, once strace traces it.

What is noticed of it is printed, as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from campaigns.opened import Opened, is_traced

mine, other, trace = map(Path, sys.argv[1:])
while not is_traced():
    time.sleep(0.01)
opened, c = Opened(trace), ctypes.CDLL(None)
with opened.watched([mine]):
    c.open(os.fsencode(mine / "a"), os.O_RDONLY)
    c.open(os.fsencode(mine / ".." / other.name), os.O_RDONLY)
    c.openat(os.open(mine, os.O_RDONLY), b'../b \n\xff"', os.O_RDONLY)
    c.unlink(os.fsencode(other))
    c.symlink(b"/etc/passwd", os.fsencode(mine / "link"))
    c.system(b"true")
print(json.dumps([opened.elsewhere, opened.calls]))
