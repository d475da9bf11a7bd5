"""Cases of a campaign: drawn from a seed, done once, and noted at once, so that an interrupted campaign goes on."""

from __future__ import annotations

import json
import random
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from catgan.studies.perform import checkout
from catgan.system.files import read_rows

Row = dict[str, Any]


class Journal:
    """RUNS/NAME.jsonl: a line for each case that is done."""

    def __init__(self, path: Path, seed: str) -> None:
        self.path, self.seed = path, seed
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, Row] = {
            row["case"]: row for row in read_rows(path) if row.get("seed") == seed and "failed" not in row
        }

    def chance(self, case: str) -> random.Random:
        """The random numbers of a case: they depend on its name and the seed alone."""
        return random.Random(f"{self.seed} {case}")

    def note(self, case: str, **found: Any) -> Row:
        row = {"case": case, "seed": self.seed, "commit": checkout()[0], **found}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows[case] = row
        return row

    def perform(self, cases: Iterable[str], work: Callable[[str, random.Random], Row]) -> list[Row]:
        """Do what is not done yet; the rows of all. A case fails by an exception: its text is kept under `failed`."""
        rows = []
        for case in cases:
            if case not in self.rows:
                began = time.monotonic()
                try:
                    found = work(case, self.chance(case))
                except Exception as error:  # whatever it is, the campaign goes on and says so
                    found = {
                        "failed": f"{type(error).__name__}: {error}"[:2000],
                        "trace": traceback.format_exc()[-4000:],
                    }
                row = self.note(case, **found, seconds=round(time.monotonic() - began, 2))
                print(f"{case}: {row.get('failed') or row.get('told') or 'done'}", flush=True)
            rows.append(self.rows[case])
        return rows
