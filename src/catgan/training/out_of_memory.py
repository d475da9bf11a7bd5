"""What to say when a step does not fit into memory: which micro-batch would."""

from __future__ import annotations

from catgan.errors import UserError
from catgan.system.devices import memory_error
from catgan.training.batches import Batch
from catgan.training.step import Step


def advice(engine: Step, batch: Batch) -> UserError:
    """What went wrong, and the largest micro-batch of this batch that fits, which is tried without changing a weight."""
    processes = engine.parallel.processes
    size = engine.config.training.micro_batch or engine.config.training.batch // processes.world
    said = f"out of memory on {engine.device} with {size} samples per pass: "
    if processes.several:  # trying smaller ones would have to be done by all processes at once
        return UserError(said + "use a smaller --micro-batch")
    fits = largest_fitting(engine, batch, size)
    if not fits:
        return UserError(said + "not even 1 sample fits; use a smaller network")
    return UserError(said + f"--micro-batch {fits} fits; go on with it and --resume, or start again in a new --out")


def largest_fitting(engine: Step, batch: Batch, size: int) -> int:
    """Half of `size`, a quarter, and so on, whichever fits first; 0 if none does."""
    while size > 1:
        size //= 2
        try:
            if engine.fits(*batch.to(engine.device, size)):
                return size
        except (RuntimeError, MemoryError) as error:
            if not memory_error(error):
                raise
    return 0
