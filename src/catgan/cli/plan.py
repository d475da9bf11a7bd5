"""`catgan plan RECIPE --gpus N`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tyro

from catgan.accounting.gpus import UTILISATION
from catgan.bounds import Above0
from catgan.cli.configuration import ConfigurationOptions, as_options, parse_configuration
from catgan.errors import UserError
from catgan.recipes import RECIPES
from catgan.system.tables import aligned

if TYPE_CHECKING:
    from catgan.accounting.gpus import GPU
    from catgan.config import Config

DESCRIPTION = """A training run on paper: memory per GPU, time per step, hours and cost of the whole run.

Arithmetic on counted sizes and published peaks, of which one H100 was seen to reach a quarter.
"""

NOTE = """\
Computed; the share of the peak is what one H100 reached. FSDP2 is --training.parallel fsdp2, ckpt
is --training.recompute; under FSDP2, several passes need more than this (docs/plan.md)."""

SHORT = 0.02  # seconds of arithmetic below which launching kernels takes longer
TOO_SHORT = "Steps this short wait for kernel launches, not for arithmetic: expect them to take longer."


@dataclass(frozen=True)
class PlanOptions(ConfigurationOptions):
    gpus: int = tyro.MISSING
    """Number of GPUs N; it divides the batch."""
    gpu: str = "h100"
    """h100 (SXM), h200, a100-80, a100-40, l40s, rtx4090, or another name with all its figures given."""
    utilisation: float = UTILISATION
    """Share of the GPU's dense peak that the counted arithmetic reaches; the default is what an H100 was seen to reach."""
    price: Above0 | None = None
    """Price of one GPU for one hour, in any currency; without it only GPU hours are shown."""
    memory: Above0 | None = None
    """Memory of one GPU, GiB, in place of the table's."""
    tflops: Above0 | None = None
    """Dense peak of one GPU in the recipe's number format, TFLOP/s, in place of the table's."""
    interconnect: Above0 | None = None
    """GB/s to the other GPUs of the machine, one direction, in place of the table's."""
    network: Above0 | None = None
    """GB/s per GPU to other machines, one direction, in place of the table's."""


def main(argv: Sequence[str]) -> None:
    o = parse_configuration(PlanOptions, argv, "plan", DESCRIPTION)

    from catgan.accounting.plan import plan

    result = plan(o.settings, chosen_gpu(o), o.gpus, o.utilisation, o.price)
    startable = result["fastest"] and o.settings.recipe in RECIPES  # not what only Python has made
    result["command"] = command(o.settings, o.gpus, result["fastest"]) if startable else None
    print(json.dumps(result, indent=2) if o.json else text(result))


def chosen_gpu(o: PlanOptions) -> GPU:
    """The GPU of the table with the figures that the options give in place of its own."""
    from catgan.accounting.gpus import GPU, GPUS

    figures = {"memory": o.memory, "tflops": o.tflops, "interconnect": o.interconnect, "network": o.network}
    given: dict[str, Any] = {name: value for name, value in figures.items() if value is not None}
    if "tflops" in given:
        given["bfloat16"] = given["float32"] = given.pop("tflops")
    if o.gpu in GPUS:
        gpu = GPUS[o.gpu]
        source = f"{', '.join(f'--{n}' for n in figures if figures[n] is not None)} given; the rest: {gpu.source}"
        return replace(gpu, **given, source=source) if given else gpu
    if None in figures.values():
        raise UserError(
            f"--gpu is {o.gpu}: must be one of {', '.join(GPUS)}; "
            "for another one give --memory, --tflops, --interconnect and --network"
        )
    return GPU(o.gpu, source="given", **given)


def command(config: Config, gpus: int, column: dict[str, Any]) -> str:
    """The command line that trains the configuration on so many GPUs as a column of the plan says."""
    training = replace(
        config.training,
        parallel="fsdp2" if column["sharded"] else "ddp",
        recompute=column["checkpointing"],
        micro_batch=0 if column["micro_batch"] == config.training.batch // gpus else column["micro_batch"],
    )
    train = ["catgan", "train", config.recipe, *as_options(replace(config, training=training))]
    if gpus == 1:
        return shlex.join(train)
    each = max(n for n in range(1, 9) if gpus % n == 0)  # GPUs of a machine
    machines = (
        f"--nnodes {gpus // each} --rdzv-backend c10d --rdzv-endpoint HOST:29400" if gpus > each else "--standalone"
    )
    return f"torchrun {machines} --nproc-per-node {each} -m {shlex.join(train)}"


# -- text ------------------------------------------------------------------------------------------------------------

PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "moments": "AdamW's moments",
    "ema": "weight average (EMA)",
    "gathered": "bfloat16 copies, gathered blocks",
    "encoder": "frozen networks",
    "activations": "activations",
    "backward": "backward pass at work",
}


def text(r: dict[str, Any]) -> str:
    return "\n\n".join([head(r), memory(r), times(r), *runs(r), start(r), NOTE])


def head(r: dict[str, Any]) -> str:
    g, bfloat16 = r["gpu"], r["precision"] == "bfloat16"
    peak = f"{g['bfloat16' if bfloat16 else 'float32']:g} TFLOP/s dense {r['precision']}"
    wires = f"{g['interconnect']:g} GB/s in a machine, {g['network']:g} GB/s per GPU between machines"
    passes = "in one pass" if r["micro_batch"] == r["batch_per_gpu"] else f"at most {r['micro_batch']} per pass"
    fakes = "fakes generated once" if r["reuses_fakes"] else "fakes generated twice"
    return "\n".join(
        [
            f"{r['recipe']} on {r['gpus']} x {g['name']}: {g['memory']:g} GiB, {peak}",
            f"{wires}",
            f"({g['source']})",
            f"batch {r['batch']}: {r['batch_per_gpu']} per GPU, {passes}; {fakes}",
        ]
    )


def title(r: dict[str, Any], layout: dict[str, Any]) -> str:
    base = "one GPU" if r["gpus"] == 1 else "FSDP2" if layout["sharded"] else "DDP"
    return f"{base} + ckpt" if layout["checkpointing"] else base


def table(r: dict[str, Any], name: str, rows: list[Sequence[str]]) -> str:
    """A column for each layout, as wide in each table as in the others."""
    return aligned([(name.ljust(38), *(title(r, layout).rjust(13) for layout in r["layouts"])), *rows])


def memory(r: dict[str, Any]) -> str:
    rows: list[Sequence[str]] = []
    columns = [layout["memory"] for layout in r["layouts"]]
    for part, said in PARTS.items():
        if any(c["bytes"][part] for c in columns):
            rows.append((said, *(gib(c["bytes"][part]) for c in columns)))
    rows.append(("together", *(gib(c["total"]) for c in columns)))
    rows.append((f"fits in {gib(r['usable_bytes'])} usable", *("yes" if c["fits"] else "no" for c in columns)))
    rows.append(("largest micro-batch", *(str(c["largest_micro_batch"] or "none") for c in columns)))
    rows.append(("fullest step", *(c["step"] for c in columns)))
    notes = ["ckpt: activation checkpointing of every block. 10 % of memory is left to driver and fragments."]
    if r["aligned"]:
        notes.append("The alignment with DINOv2 is counted, in memory and in time.")
    if r["vision_aided"]:
        notes.append(f"The vision-aided loss is counted as with {r['vision_aided']}.")
    return "\n".join([table(r, "GiB per GPU", rows), *notes, f"checkpoint on disk: {gib(r['checkpoint_bytes'])} GiB"])


def times(r: dict[str, Any]) -> str:
    columns = [layout["step"] for layout in r["layouts"]]
    rows: list[Sequence[str]] = []
    for part in ("arithmetic", "communication", "total"):
        name = "together, not overlapped" if part == "total" else part
        rows.append((name, *(f"{c['seconds'][part]:#.3g}" for c in columns)))
    rows.append(("images per second", *(f"{c['images_per_second']:,.0f}" for c in columns)))
    text = table(r, f"seconds per step at {100 * r['utilisation']:g} % of peak", rows)
    short = min(c["seconds"]["arithmetic"] for c in columns) < SHORT
    return text + ("\n" + TOO_SHORT if short else "")


def runs(r: dict[str, Any]) -> list[str]:
    """One table for each length of the run."""
    tables = []
    for name in r["layouts"][0]["runs"]:
        columns = [layout["runs"][name] for layout in r["layouts"]]
        first = columns[0]
        whose = "the recipe" if name == "recipe" else f"the paper, {first['epochs']:.0f} epochs"
        rows: list[Sequence[str]] = [("days", *(f"{c['hours'] / 24:#,.3g}" for c in columns))]
        rows.append(("GPU hours", *(quantity(c["gpu_hours"]) for c in columns)))
        if r["price"] is not None:
            rows.append((f"cost at {r['price']:g} per GPU hour", *(quantity(c["cost"]) for c in columns)))
        tables.append(table(r, f"{whose}: {first['steps']:,} steps", rows))
    return tables


def start(r: dict[str, Any]) -> str:
    """The fastest way that fits, and the command for it."""
    c = r["fastest"]
    if c is None:
        return "Nothing fits, not even a single sample per pass: take more memory per GPU, or a smaller network."
    passes = "in one pass" if c["micro_batch"] == r["batch_per_gpu"] else f"{c['micro_batch']} samples per pass"
    used, seconds = gib(c["memory"]["total"]), c["step"]["seconds"]["total"]
    return f"fastest that fits: {title(r, c)}, {passes}: {used} GiB, {seconds:#.3g} s per step" + (
        f"\n  {r['command']}" if r["command"] else ""
    )


def gib(count: float) -> str:
    """Bytes in GiB: 53.2, 0.012."""
    value = count / 2**30
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def quantity(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
