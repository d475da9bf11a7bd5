"""Everything that a GPU should show, in ten minutes: `make gpu`, or `python benchmarks/gpu.py [--device cpu]`.

First the tests of every path on the GPU. Then how fast recipes train and sample: eager, compiled, and compiled and replayed
as CUDA graphs; and how fast a VAE of SD's size encodes. What was found goes to records/gpu: CARD.json, and a table for people. Each part that
fails leaves its reason instead of numbers. On a CPU all of it runs on next to nothing: the code is tried, not the speed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import untrained
from catgan.accounting.gpus import datasheet_peak
from catgan.bench.measure import Bench
from catgan.bench.rounds import Request
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.encoders.vae import VAE
from catgan.errors import UserError
from catgan.recipes import recipe
from catgan.studies.perform import checkout
from catgan.system.files import write_text
from catgan.system.tables import aligned

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {"digits": 64, "fashion-mnist": 32, "cat-b2": 64, "cat-m2": 64, "cat-h2": 32}  # samples of a step on one card
SAMPLED = (1, 64)  # batches of sampling
GOALS = {("cat-b2", "training step"): 0.4, ("cat-h2", "training step"): 0.45}  # shares of the card's bfloat16 peak
SAMPLING_GOAL = 0.6
ENCODED = 32  # pictures of 256 pixels in a pass of the VAE
WAYS: dict[str, dict[str, bool]] = {
    "eager": {"compile": False, "cuda_graph": False},
    "compiled": {"compile": True, "cuda_graph": False},
    "compiled, as CUDA graphs": {"compile": True, "cuda_graph": True},
}
TINY = {"generator": {"depth": 4, "width": 32, "heads": 2}, "discriminator": {"depth": 1, "width": 32, "heads": 2}}


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0 if all that could be tried worked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: the same code on next to nothing"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "records" / "gpu", help="folder of the record")
    parser.add_argument("--no-tests", dest="tests", action="store_false", help="measure alone")
    parser.add_argument("--recipes", nargs="+", choices=tuple(RECIPES), default=tuple(RECIPES), help="only these")
    o = parser.parse_args(argv)
    if o.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA GPU here; make gpu DEVICE=cpu tries the same code on a CPU", file=sys.stderr)
        return 2
    began = time.monotonic()
    found = about(o.device)
    path = o.out / f"{re.sub(r'[^A-Za-z0-9]+', '-', found['card']).strip('-').lower()}.json"
    earlier = json.loads(path.read_text()) if path.exists() else {}
    found["tests"] = (
        tests(o.device) if o.tests else earlier.get("tests")
    )  # what is not measured now stays, with its commit
    found["recipes"] = earlier.get("recipes", {})
    found["vae"] = attempt(lambda: vae_rate(o.device))
    measured_now = [found["vae"]]
    for name, part in parts(o.device, o.recipes):
        print(f"{name} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
        found["recipes"][name] = attempt(part) | {"commit": found["commit"]}
        measured_now.append(found["recipes"][name])
        write(found, path)  # after each, as the next may be the one that ends this
    found["seconds"] = round(time.monotonic() - began, 1)
    write(found, path)
    print(path.with_suffix(".md").read_text())
    print(path)
    failed = any("failed" in part for part in measured_now)
    return 1 if failed or (o.tests and found["tests"]["exit"]) else 0


def about(device: str) -> dict[str, Any]:
    """The card, and what ran on it."""
    on_gpu = device == "cuda"
    card = torch.cuda.get_device_name() if on_gpu else "cpu"
    return {
        "card": card,
        "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if on_gpu else None,
        "peak_tflops": datasheet_peak(card, "bfloat16") or None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda if on_gpu else None,
        "commit": checkout()[0],
        "command": "make gpu" if on_gpu else "make gpu DEVICE=cpu",
    }


def tests(device: str) -> dict[str, Any]:
    """How the tests of the GPU's paths ended."""
    options = ("-q", "-m", "gpu", "-rA", "--no-header", "--show-capture=no", "--tb=short")
    command = [sys.executable, "-m", "pytest", *options, str(ROOT / "tests" / "gpu")]
    environment = os.environ | ({"CATGAN_GPU": "cpu", "OMP_NUM_THREADS": "1"} if device == "cpu" else {})
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    outcome = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) .*?::(\S+)", done.stdout, re.MULTILINE)
    by_kind = {kind: [name for k, name in outcome if k == kind] for kind in ("PASSED", "FAILED", "ERROR")}
    print(done.stdout[-3000:] if done.returncode else f"{len(by_kind['PASSED'])} tests passed", file=sys.stderr)
    return {
        "exit": done.returncode,
        "passed": len(by_kind["PASSED"]),
        "failed": by_kind["FAILED"] + by_kind["ERROR"],
        "output": done.stdout[-20_000:] if done.returncode else "",
    }


def parts(device: str, recipes: Sequence[str]) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What is measured, by name: these recipes in their own precision, in each of `WAYS`."""
    for name in recipes:
        for way, choices in WAYS.items() if device == "cuda" else [("eager", {"compile": False})]:
            config = from_dict({"training": choices | {"batch": RECIPES[name], "device": device}}, recipe(name))
            if device == "cpu":
                tiny = {} if name == "digits" else TINY
                config = from_dict(tiny | {"training": {"batch": 4, "threads": 1}}, config)
            label = f"{name}, batch {config.training.batch}, {way}"
            yield label, lambda config=config: measured(config, device)  # type: ignore[misc]


def measured(config: Config, device: str) -> dict[str, Any]:
    """Training and sampling of one recipe, as shares of the card's peak, and the memory of a step beside the plan's."""
    sizes, repeats = (SAMPLED, 5) if device == "cuda" else ((1,), 1)
    only = ("step", "sampling") if config.compiles(device) else ("step", "sampling", "memory")
    request = Request(only, sizes, repeats, say=lambda _: None)
    result = Bench(config, request).run()
    peak = datasheet_peak(torch.cuda.get_device_name(), "bfloat16") if device == "cuda" else 0.0
    rows = [
        {
            "name": part["name"],
            "images_per_second": part["images_per_second"],
            "milliseconds": 1000 * part["seconds"]["median"],
            "of_peak": part["gflops"] / (1000 * peak) if peak and config.training.precision == "bfloat16" else None,
            "of_products": part["share"],
        }
        for part in result["parts"]
    ]
    return {"parts": rows, "memory": result.get("memory")}


def vae_rate(device: str) -> dict[str, Any]:
    """Pictures of 256 pixels that a VAE of SD's size, of random weights, encodes in a second: what `prepare` waits for."""
    model = untrained.vae((128, 256, 512, 512) if device == "cuda" else (8, 8, 8, 8), layers=2)
    vae = VAE(model.requires_grad_(False).eval(), "random").to(torch.device(device), "bfloat16")
    x = torch.rand(ENCODED if device == "cuda" else 1, 3, 256, 256, device=device) * 2 - 1
    vae.moments(x)
    if device == "cuda":
        torch.cuda.synchronize()
    began, passes = time.perf_counter(), 10 if device == "cuda" else 1
    for _ in range(passes):
        vae.moments(x)
    if device == "cuda":
        torch.cuda.synchronize()
    return {
        "images_per_second": passes * len(x) / (time.perf_counter() - began),
        "batch": len(x),
        "precision": "bfloat16",
    }


def attempt(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it found, or why it failed: one part must not cost the others."""
    try:
        return part()
    except (UserError, RuntimeError, ImportError, AssertionError) as error:
        return {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    finally:
        torch._dynamo.reset()  # the graphs of one recipe are of no use to the next
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def write(found: dict[str, Any], path: Path) -> None:
    write_text(path, json.dumps(found, indent=2) + "\n")
    write_text(path.with_suffix(".md"), page(found))


def page(found: dict[str, Any]) -> str:
    """The record as Markdown."""
    rows: list[tuple[str, ...]] = [("", "commit", "images/s", "ms", "of the card's peak", "goal")]
    failures = []
    for label, result in found["recipes"].items():
        if "failed" in result:
            failures.append(f"- {label}: {result['failed']}")
            continue
        for part in result["parts"]:
            goal = GOALS.get((label.partition(",")[0], part["name"]))
            goal = SAMPLING_GOAL if part["name"].startswith("sampling") and label.startswith("cat-") else goal
            share = "-" if part["of_peak"] is None else f"{part['of_peak']:.1%}"
            commit = result.get("commit", found["commit"])[:7]
            rows.append(
                (
                    f"{label}: {part['name']}", commit, f"{part['images_per_second']:,.4g}", f"{part['milliseconds']:.4g}",
                    share, "" if goal is None else f"{goal:.0%}",
                )
            )  # fmt: skip
    head = [
        f"# {found['card']}",
        "",
        f"`{found['command']}`, commit {found['commit']}, torch {found['torch']}, CUDA {found['cuda']}",
    ]
    if found["tests"]:
        head.append(
            f"\nTests: {found['tests']['passed']} passed, failed: {', '.join(found['tests']['failed']) or 'none'}."
        )
    if vae := found.get("vae"):
        head.append(
            "\nVAE of SD's size: "
            + (f"{vae['images_per_second']:,.0f} pictures/s." if "failed" not in vae else vae["failed"])
        )
    return "\n".join(
        [*head, "", "```", aligned(rows), "```", *(["", "Failed:", "", *failures] if failures else []), ""]
    )


if __name__ == "__main__":
    sys.exit(main())
