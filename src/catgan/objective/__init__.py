"""The objective of CAT (paper sections 3.2 and 4): one pure function per term, one file per idea."""

from catgan.objective.adversarial import relativistic
from catgan.objective.augment import augment, register
from catgan.objective.consistency import consistency
from catgan.objective.penalty import approximate_penalty, exact_penalty
from catgan.objective.representation import representation
from catgan.objective.terms import Objective, StepState, Term, default_objective

__all__ = [
    "Objective",
    "StepState",
    "Term",
    "approximate_penalty",
    "augment",
    "consistency",
    "default_objective",
    "exact_penalty",
    "register",
    "relativistic",
    "representation",
]
