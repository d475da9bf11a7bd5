"""catgan: CAT, the Cross-scale Aligned Transformer, for one-step image generation.

    import catgan
    catgan.train(catgan.recipe("digits"), "runs/digits")
    pipe = catgan.load("runs/digits")
    pipe(classes=[3], seeds=[0], psi=0.85).images

Names are imported on first use, so that the command line starts without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catgan.version import __version__

if TYPE_CHECKING:
    from catgan.config import Config
    from catgan.discriminator import Discriminator
    from catgan.errors import UserError
    from catgan.evaluation.evaluate import evaluate
    from catgan.generator import Generator
    from catgan.objective import Objective, StepState, Term, default_objective
    from catgan.pyramid import Pyramid
    from catgan.recipes import recipe
    from catgan.sampling.pipeline import CATPipeline, load
    from catgan.training import train

_HOMES = {
    "CATPipeline": "catgan.sampling.pipeline",
    "Config": "catgan.config",
    "Discriminator": "catgan.discriminator",
    "Generator": "catgan.generator",
    "Objective": "catgan.objective",
    "Pyramid": "catgan.pyramid",
    "StepState": "catgan.objective",
    "Term": "catgan.objective",
    "UserError": "catgan.errors",
    "default_objective": "catgan.objective",
    "evaluate": "catgan.evaluation.evaluate",
    "load": "catgan.sampling.pipeline",
    "recipe": "catgan.recipes",
    "train": "catgan.training.run",
}

__all__ = [
    "CATPipeline",
    "Config",
    "Discriminator",
    "Generator",
    "Objective",
    "Pyramid",
    "StepState",
    "Term",
    "UserError",
    "__version__",
    "default_objective",
    "evaluate",
    "load",
    "recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'catgan' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
