"""Whether two versions of catgan compute the same bits: `capture` runs one, `compare` holds two captures together.

    python benchmarks/same_bits.py capture CHECKOUT OUT [--cases CASE ...]
    python benchmarks/same_bits.py compare OUT_A OUT_B [--cases CASE ...]

`capture` runs catgan as it is in CHECKOUT/src, with this Python, on one thread of the CPU, in the new folder OUT: it
trains on digits (as it is, in micro-batches, resumed, in two processes with DDP and with FSDP2) and on latents with
representation alignment (features computed or stored), and samples, evaluates, exports and prepares. Inputs are made here
from seeds: pictures, and an untrained VAE and DINOv2. That needs the extras demo, encoders and eval, and two minutes
of an idle machine. What a command prints goes to OUT/logs. A command that fails is told, and the others go on; exit status 1.

`compare` prints a line for each case and kind of output, and exits with 1 if anything differs, be it a single bit of a
tensor, array, logged number, picture or prepared file. Of the JSON beside prepared files it compares the fields that both
have. Times and memory are left out. What is called otherwise by now is found through RENAMED.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Parts of dotted names and of paths, as they were called once.
RENAMED = {"average": "ema", "recognised": "class_accuracy"}
# Logged numbers that no two runs have in common, by the first part of their names.
MEASURED = {"time", "memory", "images_per_second", "cpu_seconds", "mfu"}

DIGITS = "train digits --log.every 5 --log.preview-every 30 --log.diagnose-every 30 --log.diagnose-samples 50"
LATENT = (
    "train cat-b2 --precision float32 --steps 10 --batch 8 --sample.scales 4 8 --encoder.size 28 "
    "--generator.depth 2 --generator.width 16 --generator.heads 2 --discriminator.patches 2 2 --discriminator.depth 1 "
    "--discriminator.width 16 --discriminator.heads 2 --discriminator.head-dim 8 --discriminator.representation-dim 32 "
    "--log.every 1 --log.preview-every 10 --log.preview-rows 1 --log.diagnose-every 10 --log.diagnose-samples 4"
)
PREPARE = "prepare inputs/pictures --size 64 --shard-rows 5 --workers 1 --vae inputs/vae"
STORED = "--encoder.cached --encoder.path None --augment.translation 0 --augment.flip 0"

# Case, processes, arguments of catgan. A case writes to the folder of its name; some read what those above them wrote.
COMMANDS = (
    ("digits", 1, f"{DIGITS} --steps 60 --checkpoint.every 30 --out digits/run"),
    ("micro-batches", 1, f"{DIGITS} --steps 10 --micro-batch 16 --out micro-batches/run"),
    ("resumed", 1, f"{DIGITS} --steps 5 --out resumed/run"),
    ("resumed", 1, "train digits --steps 10 --resume --out resumed/run"),
    ("ddp", 2, f"{DIGITS} --steps 10 --training.parallel ddp --out ddp/run"),
    ("fsdp2", 2, f"{DIGITS} --steps 10 --training.parallel fsdp2 --out fsdp2/run"),
    ("sample", 1, "sample digits/run --seeds 0-3 --stages --out sample/grid"),
    ("sample", 1, "sample digits/run --seeds 0-1 --psi 0.8 --format png --out sample/png"),
    ("sample", 1, "sample digits/run --seeds 0 --format npz --count 300 --out sample/npz"),
    ("evaluate", 1, "evaluate digits/run --features classifier --count 300 --out evaluate/result.json"),
    ("export", 1, "export digits/run export/model"),
    ("prepare", 1, f"{PREPARE} prepare/mirrored --flip"),
    ("prepare", 1, f"{PREPARE} prepare/features --encoder inputs/dino --encoder-size 28"),
    ("latents", 1, f"{LATENT} --data prepare/mirrored --encoder.path inputs/dino --out latents/run"),
    ("latents", 1, "sample latents/run --seeds 0-1 --out latents/samples"),
    ("features", 1, f"{LATENT} {STORED} --data prepare/features --out features/run"),
)
CASES = tuple(dict.fromkeys(case for case, _, _ in COMMANDS))


# -- capture -----------------------------------------------------------------------------------------------------------


def capture(checkout: Path, out: Path, cases: list[str]) -> int:
    """Run the commands of these cases in the new folder `out`, and return how many of them failed."""
    out.mkdir(parents=True)
    commands = [command for command in COMMANDS if command[0] in cases]
    if any("inputs/" in arguments for _, _, arguments in commands):
        make_inputs(out / "inputs")
    set_up = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    environment = os.environ | set_up | {"PYTHONPATH": str(checkout / "src"), "CATGAN_CACHE": str(out / "cache")}
    show = [sys.executable, "-c", "import catgan; print(catgan.__file__)"]
    found = Path(subprocess.check_output(show, env=environment, cwd=out, text=True).strip())
    if not found.is_relative_to(checkout):
        raise SystemExit(f"Python takes catgan from {found}, not from {checkout}")
    (out / "logs").mkdir()
    failed = 0
    for number, (case, processes, arguments) in enumerate(commands):
        launch = f"-m torch.distributed.run --standalone --nproc-per-node {processes}" if processes > 1 else ""
        command = [sys.executable, *shlex.split(f"{launch} -m catgan {arguments}")]
        (out / case).mkdir(exist_ok=True)
        log, began = out / "logs" / f"{number:02d}-{case}.txt", time.perf_counter()
        with log.open("w") as text:
            code = subprocess.run(command, env=environment, cwd=out, stdout=text, stderr=subprocess.STDOUT).returncode
        failed += code != 0
        result = f"failed with {code}, see {log}" if code else "done"
        print(f"{case:14} {time.perf_counter() - began:5.1f} s  {result}", flush=True)
    return failed


def make_inputs(folder: Path) -> None:
    """Pictures of two classes, and an untrained VAE and DINOv2, small ones; always the same."""
    import torch
    from PIL import Image

    import untrained

    chance = np.random.default_rng(0)
    for k in range(22):
        path = folder / "pictures" / "ab"[k % 2] / f"{k:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (7, 8, 3), dtype=np.uint8)).resize((80, 70)).save(path)
    torch.manual_seed(0)
    untrained.vae().save_pretrained(folder / "vae")
    untrained.dino().save_pretrained(folder / "dino")


# -- compare -----------------------------------------------------------------------------------------------------------

SHOWN = 5  # differences of one kind
Outputs = dict[str, dict[str, np.ndarray]]  # by kind, then by name


def compare(a: Path, b: Path, cases: list[str]) -> int:
    """Print a table of what the two captures hold of these cases, and return how many kinds of output differ."""
    for folder in (a, b):
        if not folder.is_dir():
            raise SystemExit(f"{folder} is no capture: it does not exist")
    print(f"{'case':14} {'what':9} {'count':>6} {'bytes':>12}  result")
    differing = 0
    for case in ("inputs", *cases):
        left, right = read(a, case), read(b, case)
        if case == "inputs" and not (left and right):  # made only for the cases that need them
            continue
        if not left and not right:
            print(f"{case:14} {'nothing':9} {0:6} {0:12}  DIFFERENT: must hold something")
            differing += 1
        for kind in sorted(left.keys() | right.keys()):
            here, there = left.get(kind, {}), right.get(kind, {})
            if kind == "fields":
                common = here.keys() & there.keys()
                here, there = ({name: side[name] for name in common} for side in (here, there))
            found = list(differences(here, there))
            size = sum(item.nbytes for item in here.values())
            result = f"DIFFERENT: {len(found):,}" if found else "equal"
            print("\n    ".join([f"{case:14} {kind:9} {len(here):6,} {size:12,}  {result}", *found[:SHOWN]]))
            differing += bool(found)
    return differing


def read(out: Path, case: str) -> Outputs:
    """What a case wrote, under the names of today. Tensors are whole, however many files hold their rows."""
    from safetensors.numpy import load_file

    outputs: Outputs = {}

    def add(kind: str, name: str, item: Any) -> None:
        known = outputs.setdefault(kind, {})
        name = renamed(name)
        if name in known and kind != "tensors":
            raise SystemExit(f"{out / case} has {name} twice")
        known[name] = np.concatenate([known[name], item]) if name in known else np.asarray(item)

    for path in sorted((out / case).rglob("*")):
        name, folder = (str(p.relative_to(out / case)) for p in (path, path.parent))
        if path.suffix == ".safetensors":  # in the order of the processes, whose number ends their names
            for tensor, value in load_file(path).items():
                add("tensors", f"{folder}/{tensor}", value)
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                for array in arrays:
                    add("arrays", f"{name}/{array}", arrays[array])
        elif path.suffix in (".png", ".arrow", ".npy"):
            add("pictures" if path.suffix == ".png" else "files", name, np.frombuffer(path.read_bytes(), np.uint8))
        elif path.name == "metrics.jsonl":
            for number, line in enumerate(path.read_text().splitlines()):
                for key, value in json.loads(line).items():
                    if key.partition("/")[0] not in MEASURED:
                        add("numbers", f"{name}/{number}/{key}", float(value))
        elif case == "evaluate" and path.suffix == ".json":
            for key, value in json.loads(path.read_text())["metrics"].items():
                add("numbers", f"{name}/{key}", float(value))
        elif case == "prepare" and path.suffix == ".json":
            text = path.read_text().replace(f"{out.resolve()}{os.sep}", "")
            for key, value in leaves(json.loads(text)):
                add("fields", f"{name}{key}", json.dumps(value))
    return outputs


def renamed(name: str) -> str:
    return "".join(RENAMED.get(part, part) for part in re.split(r"([./])", name))


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested dicts and lists, with the path to each."""
    if not isinstance(value, dict | list):
        yield name, value
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(inner, f"{name}/{key}")


def differences(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> Iterator[str]:
    """A line for each item that only one side has or whose bits differ."""
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b:
            yield f"{name}: only in the {'second' if name in b else 'first'}"
            continue
        x, y = a[name], b[name]
        if x.ndim == y.ndim == 0 and x.tobytes() != y.tobytes():
            yield f"{name}: {x} and {y}"
        elif (x.dtype, x.shape) != (y.dtype, y.shape):
            yield f"{name}: {x.dtype} {x.shape} and {y.dtype} {y.shape}"
        elif x.tobytes() != y.tobytes():
            changed = sum(p.tobytes() != q.tobytes() for p, q in zip(x.flat, y.flat, strict=True))
            apart = np.abs(x.astype(np.float64) - y.astype(np.float64)).max()
            yield f"{name}: {changed:,} of {x.size:,} elements, up to {apart:.2g} apart"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, folders in (("capture", ("checkout", "out")), ("compare", ("a", "b"))):
        sub = commands.add_parser(command)
        for folder in folders:
            sub.add_argument(folder, type=Path)
        sub.add_argument("--cases", nargs="+", choices=CASES, default=CASES, metavar="CASE", help=", ".join(CASES))
    options = parser.parse_args()
    if options.command == "capture":
        sys.exit(capture(options.checkout.resolve(), options.out.resolve(), options.cases) > 0)
    sys.exit(compare(options.a, options.b, options.cases) > 0)


if __name__ == "__main__":
    main()
