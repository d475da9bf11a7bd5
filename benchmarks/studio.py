"""How many pictures a second does `catgan studio` show while a slider moves? `python benchmarks/studio.py`

From end to end: a slider of the page in Debian's Chromium is moved in steps of 4 ms, and pictures that are drawn are counted;
for each model by each backend, and by ONNX Runtime Web in the page itself (`catgan studio --static`), with its stages
(h_0..h_K, x_0..x_K and their measures, as the page opens) and without. The server, Chromium and this script share the cores.
Rounds go through all settings in turns; the median counts. What was found goes to records/studio.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from studio_process import StudioProcess

import campaigns  # noqa: F401 (it knows the way to what the tests share)
from catgan.evaluation.protocol import versions
from catgan.studies.perform import checkout, machine
from catgan.system.files import write_text

ROOT = Path(__file__).resolve().parents[1]
MODELS, STATIC = ("digits", "fashion-mnist"), "browser"
BACKENDS = ("eager", "openvino", STATIC)
WARM, PATIENCE = 0.5, 120  # seconds: before it is measured, in which three pictures must come; until it is given up
MOVING = """(seconds) => new Promise((done) => {
  const slider = document.getElementById("psi"), count = () => Number(document.documentElement.dataset.pictures ?? 0);
  const began = performance.now(), before = count();
  const moving = setInterval(() => {
    const passed = (performance.now() - began) / 1000;
    if (passed >= seconds) {
      clearInterval(moving);
      done((count() - before) / passed);
      return;
    }
    slider.value = Math.abs(((passed / 2) % 2) - 1);
    slider.dispatchEvent(new Event("input"));
  }, 4);
})"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="shipped models or runs")
    parser.add_argument(
        "--backends", nargs="+", default=list(BACKENDS), help=f"as --backend of catgan studio, or {STATIC}"
    )
    parser.add_argument("--seconds", type=float, default=5, help="of a measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each setting")
    parser.add_argument("--note", default="", help="what else the machine did, for the record")
    parser.add_argument("--out", type=Path, default=ROOT / "records" / "studio", help="folder of the record")
    o = parser.parse_args(argv)
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    rows = measured(o.models, o.backends, o.seconds, o.rounds)
    given = [
        f"{k} {' '.join(v)}"
        for k, v, d in (("--models", o.models, MODELS), ("--backends", o.backends, BACKENDS))
        if v != list(d)
    ]
    given += [f"{k} {v:g}" for k, v, d in (("--seconds", o.seconds, 5), ("--rounds", o.rounds, 3)) if v != d]
    found = {
        "cores": cores,
        "pictures_per_second": rows,
        "load": {"before": round(load, 1), "note": o.note},
        "command": " ".join(["python benchmarks/studio.py", *given]),
        "commit": checkout()[0],
        "machine": machine(),
        "versions": versions() | {"playwright": version("playwright"), "chromium": chromium()},
    }
    path = o.out / f"{cores}-cores.json"
    write_text(path, json.dumps(found, indent=2) + "\n")
    write_text(path.with_suffix(".md"), table(rows) + "\n")
    print(f"{table(rows)}\n\n{path}")
    return 0


def measured(models: Sequence[str], backends: Sequence[str], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """A row for each setting, with the median and all values."""
    settings = [(m, b, stages) for m in models for b in backends for stages in (True, False)]
    values: dict[tuple[str, str, bool], list[float]] = {s: [] for s in settings}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(rounds):
            for model, backend, stages in settings:
                values[model, backend, stages].append(moved(browser, model, backend, stages, seconds))
        browser.close()
    return [
        {
            "model": m,
            "backend": b,
            "stages": s,
            "median": round(statistics.median(v), 1),
            "all": [round(x, 1) for x in v],
        }
        for (m, b, s), v in values.items()
    ]


def moved(browser: Browser, model: str, backend: str, stages: bool, seconds: float) -> float:
    """Pictures a second of a page of its own."""
    with studio(model, backend) as address:
        page = browser.new_page()
        page.goto(address)
        page.locator("#view table").first.wait_for(timeout=1000 * PATIENCE)  # the first picture, with its stages
        if not stages:
            page.get_by_text("Stages", exact=True).click()
        tries = 0
        while page.evaluate(MOVING, WARM) < 3 / WARM:  # OpenVINO compiles, and processors wake up
            if (tries := tries + 1) * WARM > PATIENCE:
                raise RuntimeError(f"{model} by {backend} shows no pictures: {page.inner_text('#problem')}")
        rate: float = page.evaluate(MOVING, seconds)
        page.close()
    return rate


@contextmanager
def studio(model: str, backend: str) -> Iterator[str]:
    """The address of a studio in a process of its own, or of a page without a server."""
    if backend == STATIC:
        with TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "catgan", "studio", model, "--static", f"{folder}/page"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            with page_without_server(Path(folder) / "page") as address:
                yield address
        return
    process = StudioProcess(model, "--backend", backend)
    try:
        yield process.start()
    finally:
        process.stop()


@contextmanager
def page_without_server(folder: Path) -> Iterator[str]:
    """The address of a folder that Python's server of files serves."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1000):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


def chromium() -> str:
    done = subprocess.run(["chromium", "--version"], capture_output=True, text=True)
    return found[0] if (found := re.search(r"[\d.]+", done.stdout)) else "unknown"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A record as a Markdown table."""
    lines = ["| model | backend | with its stages | the picture alone |", "| --- | --- | --- | --- |"]
    by = {(r["model"], r["backend"], r["stages"]): r["median"] for r in rows}
    for model, backend in dict.fromkeys((r["model"], r["backend"]) for r in rows):
        lines.append(f"| {model} | {backend} | {by[model, backend, True]:.0f} | {by[model, backend, False]:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
