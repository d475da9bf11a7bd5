"""The table of metrics: one entry and its function are a new metric everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from catgan.metrics import METRICS, RENAMED, metric_of, numbers, titles

ROOT = Path(__file__).parent.parent

MINE = """
from catgan.evaluation.metrics import rows

def medians(samples, reference, protocol):
    a, b = rows(samples, reference)
    return {"median": float((a.median(0).values - b.median(0).values).norm())}
"""

SCRIPT = """
import json, sys
from catgan.metrics import METRICS, Metric, Number

METRICS["median"] = Metric("distance of medians", {"median": Number("{}median", "lower")}, "mine:medians", rows=True)

from catgan.cli import main
from catgan.config_io import from_dict
from catgan.evaluation import classifier
from catgan.report.records import BETTER, TITLES

classifier.FEWEST = 1
config = from_dict({"eval": {"every": 1, "metrics": ["median"], "best": "median"}})
print(json.dumps([config.eval.best, BETTER["median"], TITLES["median"]]))
samples, real, out = sys.argv[1:]
sys.exit(main(["evaluate", samples, "--reference", real, "--metrics", "median", "--out", out]))
"""


def test_a_new_metric_is_one_entry_and_its_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "script.py").write_text(SCRIPT)
    for name in ("samples", "real"):
        images = np.random.default_rng(len(name)).integers(256, size=(20, 8, 8, 1), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", arr_0=images, arr_1=np.arange(20) % 2)
    named = [str(tmp_path / name) for name in ("script.py", "samples.npz", "real.npz", "result.json")]
    done = subprocess.run([sys.executable, *named], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0]) == ["median", "lower", "median"]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["median"] > 0
    assert result["names"] == {"median": "classifier median"}


def test_every_number_is_of_one_metric_and_old_names_lead_to_new_ones() -> None:
    assert [metric_of(name) for name in numbers()] == [m for m, metric in METRICS.items() for _ in metric.numbers]
    assert len(numbers()) == sum(len(metric.numbers) for metric in METRICS.values())
    assert set(RENAMED.values()) <= set(METRICS)
    assert not set(RENAMED) & set(METRICS)


def test_only_inceptions_numbers_have_the_names_of_papers() -> None:
    inception, pixels = titles("inception"), titles("pixels")
    assert (inception["frechet_distance"], inception["precision"], inception["recall"]) == (
        "FID",
        "precision",
        "recall",
    )
    assert (pixels["frechet_distance"], pixels["recall"]) == ("pixel Frechet distance", "pixel recall")
