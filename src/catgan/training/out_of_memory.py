"""What to say when a step does not fit into memory: which micro-batch would."""

from __future__ import annotations

from catgan.errors import UserError
from catgan.training.batches import Batch
from catgan.training.step import Step


def advice(engine: Step, batch: Batch) -> UserError:
    """What went wrong, and the largest micro-batch (half the size, a quarter, ...) that fits, which is tried."""
    processes = engine.parallel.processes
    size = engine.config.training.micro_batch or engine.config.training.batch // processes.world
    said = f"out of memory on {engine.device} with {size} samples per pass: "
    if processes.several:  # trying smaller ones would have to be done by all processes at once
        return UserError(said + "use a smaller --micro-batch")
    while size > 1:
        size //= 2
        if engine.fits(*batch.first(size)):
            return UserError(
                said + f"--micro-batch {size} fits; go on with it and --resume, or start again in a new --out"
            )
    return UserError(said + "not even 1 sample fits; use a smaller network")
