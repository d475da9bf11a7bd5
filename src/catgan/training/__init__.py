"""Training, by one process or several: the step, the loop, the weight average, checkpoints."""

from catgan.training.run import train

__all__ = ["train"]
