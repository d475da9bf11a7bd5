"""A training run on paper: memory, time and cost on GPUs that nobody has to own yet.

Everything here is arithmetic on published peaks and counted sizes, but for the share of the peak, `gpus.UTILISATION`.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from catgan.accounting.compute import compute, precise_passes, step_gmacs, training_passes
from catgan.accounting.gpus import GPU, UTILISATION
from catgan.accounting.memory import Layout, Networks, Share, parameter_bytes, peak, whole
from catgan.accounting.published import EPOCH, PAPER_EPOCHS
from catgan.config import Config
from catgan.errors import UserError, require

NODE = 8  # GPUs of one machine
USABLE = 0.9  # share of a GPU's memory; the rest goes to the driver's context, NCCL's buffers and fragmentation
GIB = 2**30


def plan(
    config: Config, gpu: GPU, gpus: int, utilisation: float = UTILISATION, price: float | None = None
) -> dict[str, Any]:
    """Memory per GPU, seconds per step, hours and cost of a whole run, and how best to start it, as plain data.

    utilisation: share of the GPU's dense peak that the counted multiply-accumulates reach. price: of one GPU for one
    hour, in any currency. Raises UserError for numbers that do not fit together.
    """
    config.validate()
    batch = config.training.batch
    require(0.0 < utilisation <= 1.0, "--utilisation", f"{utilisation:g}", "above 0 and at most 1")
    if not 1 <= gpus <= batch or batch % gpus:
        raise UserError(f"--gpus is {gpus}: must divide the batch ({batch})")
    local = batch // gpus
    share = Share(gpus, local, min(config.training.micro_batch or local, local))
    networks, counted = Networks(config), compute(config, gpus)
    column = partial(evaluate, networks, counted, gpu, utilisation=utilisation, price=price)
    layouts = [
        Layout(sharded, checkpointing)
        for sharded in ((False, True) if gpus > 1 else (False,))
        for checkpointing in (False, True)
    ]
    columns = [column(share, layout) for layout in layouts]
    fitting = [
        column(replace(share, micro=even(local, min(most, share.micro))), layout)
        for layout, c in zip(layouts, columns, strict=True)
        if (most := c["memory"]["largest_micro_batch"])
    ]
    return {
        "recipe": config.recipe,
        "measured_on_a_gpu": False,
        "gpu": asdict(gpu),
        "gpus": gpus,
        "batch": batch,
        "batch_per_gpu": local,
        "micro_batch": share.micro,
        "reuses_fakes": share.reuses_fakes(config),
        "aligned": networks.aligned,
        "vision_aided": counted["training"]["vision_network"],
        "precision": config.training.precision,
        "utilisation": utilisation,
        "price": price,
        "usable_bytes": USABLE * gpu.memory * GIB,
        "checkpoint_bytes": networks.checkpoint,
        "gmacs_per_sample": counted["training"]["gmacs_per_sample"],
        "layouts": columns,
        "fastest": min(fitting, key=lambda c: c["step"]["seconds"]["total"], default=None),
    }


def evaluate(
    networks: Networks,
    counted: dict[str, Any],
    gpu: GPU,
    share: Share,
    layout: Layout,
    *,
    utilisation: float,
    price: float | None,
) -> dict[str, Any]:
    """One column of the plan."""
    config, batch = networks.config, share.local * share.gpus
    used = peak(networks, share, layout)
    total, usable = sum(used["bytes"].values()), USABLE * gpu.memory * GIB
    all_gmacs, precise = sample_gmacs(config, counted, share, layout), precise_gmacs(config, counted, layout)
    fastest = gpu.bfloat16 if config.training.precision == "bfloat16" else gpu.float32
    slower = gpu.tf32 if config.objective.penalty_precision == "tf32" else gpu.float32
    seconds = {
        "arithmetic": 2e-3 * share.local * ((all_gmacs - precise) / fastest + precise / slower) / utilisation,
        "communication": traffic(networks, share, layout) / bandwidth(gpu, share.gpus),
    }
    step = sum(seconds.values())
    lengths = {"recipe": config.training.steps * batch}
    if config.recipe in PAPER_EPOCHS:
        lengths["paper"] = PAPER_EPOCHS[config.recipe] * EPOCH
    most = largest(networks, share, layout, usable)
    return asdict(layout) | {
        "micro_batch": share.micro,
        "memory": used | {"total": total, "fits": total <= usable, "largest_micro_batch": most},
        "step": {"seconds": seconds | {"total": step}, "images_per_second": batch / step},
        "runs": {name: length(images, batch, step, share.gpus, price) for name, images in lengths.items()},
    }


# -- memory ------------------------------------------------------------------------------------------------------------


def largest(n: Networks, share: Share, layout: Layout, usable: float) -> int:
    """The largest micro-batch up to the batch per GPU that fits; 0 if not even one sample does."""

    def needed(micro: int) -> float:
        return float(sum(peak(n, replace(share, micro=micro), layout)["bytes"].values()))

    return bisect_right(range(1, share.local + 1), usable, key=needed)


def even(local: int, most: int) -> int:
    """The smallest micro-batch that needs no more passes than one of `most` samples does."""
    return -(-local // -(-local // most))


# -- time --------------------------------------------------------------------------------------------------------------


def sample_gmacs(config: Config, counted: dict[str, Any], share: Share, layout: Layout) -> float:
    """Billions of multiply-accumulates per sample and step, recomputation included."""
    forward = {network: counted[network]["gmacs"] for network in ("generator", "discriminator")}
    again = recomputed_passes(config) if layout.checkpointing else {}
    passes = {name: n + again.get(name, 0) for name, n in training_passes(share.config(config)).items()}
    return step_gmacs(forward, passes, counted["training"]["auxiliary_gmacs"])


def precise_gmacs(config: Config, counted: dict[str, Any], layout: Layout) -> float:
    """Those of `sample_gmacs` that are in the penalties' own precision. A pass recomputed is a fourth beside a trained one's 3."""
    again = 4 / 3 if layout.checkpointing else 1.0
    return float(again * precise_passes(config) * counted["discriminator"]["gmacs"])


def recomputed_passes(config: Config) -> dict[str, float]:
    """Forward passes per sample that checkpointing adds: one for each pass whose graph is kept (`training_passes`)."""
    o = config.objective
    return {"generator": 1.0, "discriminator": 2 + 2 * o.penalty_fraction * bool(o.penalty) + 1}


def traffic(n: Networks, share: Share, layout: Layout) -> float:
    """Bytes that one GPU sends per step.

    DDP all-reduces float32 gradients once a step: 2 (N - 1) / N of them. FSDP2 gathers weights for each forward and
    each backward pass and scatters sums of gradients, (N - 1) / N each time, in every micro-batch.
    """
    g, d, rate = parameter_bytes(n.generator), parameter_bytes(n.discriminator), (share.gpus - 1) / share.gpus
    if not layout.sharded:
        return 2 * rate * (g + d)
    passes = -(-share.local // share.micro)
    forwards = 1 if share.reuses_fakes(n.config) else 2
    packed = 2 if n.config.precise_penalties and n.config.objective.penalty else 1  # one of each precision
    g_whole, d_whole = (sum(whole(n, name)[:2]) for name in ("generator", "discriminator"))
    gathers = (forwards + 1) * g_whole + (2 * packed + 3) * d_whole  # D: packed, and back; real; fake, and back
    return passes * rate * (gathers + g + packed * d)


def bandwidth(gpu: GPU, gpus: int) -> float:
    """Bytes per second that each GPU sends. Beyond one machine, rings go out by all its network links at once."""
    slowest = gpu.interconnect if gpus <= NODE else min(gpu.interconnect, NODE * gpu.network)
    return slowest * 1e9


def length(images: int, batch: int, step: float, gpus: int, price: float | None) -> dict[str, float | None]:
    """A run over so many images: steps, hours, hours times GPUs, and their cost if there is a price."""
    steps = -(-images // batch)
    hours = steps * step / 3600
    return {
        "images": images,
        "epochs": images / EPOCH,
        "steps": steps,
        "hours": hours,
        "gpu_hours": hours * gpus,
        "cost": None if price is None else hours * gpus * price,
    }
