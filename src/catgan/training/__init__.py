"""Training on one device: the step, the loop, the weight average, checkpoints."""

from catgan.training.run import train

__all__ = ["train"]
