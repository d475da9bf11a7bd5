"""The objective of CAT (paper sections 3.2 and 4): losses, the terms that weigh them, and what the discriminator sees."""

from catgan.objective.augment import augment, register
from catgan.objective.choice import default_supervision
from catgan.objective.losses import approximate_penalty, consistency, exact_penalty, relativistic, representation
from catgan.objective.noise_levels import NoiseLevelSupervision
from catgan.objective.supervision import Draws, PyramidSupervision, Supervision
from catgan.objective.terms import VISION, Objective, StepState, Term, default_objective, vision_aided
from catgan.objective.vision import VisionEncoder, VisionHeads

__all__ = [
    "VISION",
    "Draws",
    "NoiseLevelSupervision",
    "Objective",
    "PyramidSupervision",
    "StepState",
    "Supervision",
    "Term",
    "VisionEncoder",
    "VisionHeads",
    "approximate_penalty",
    "augment",
    "consistency",
    "default_objective",
    "default_supervision",
    "exact_penalty",
    "register",
    "relativistic",
    "representation",
    "vision_aided",
]
