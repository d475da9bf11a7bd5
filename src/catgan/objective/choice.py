"""The supervision of a configuration."""

from __future__ import annotations

from catgan.config import Config
from catgan.objective.noise_levels import NoiseLevelSupervision
from catgan.objective.supervision import PyramidSupervision, Supervision


def default_supervision(config: Config) -> Supervision:
    """What objective.supervision names: CAT's pyramid or GAT's noise levels."""
    if config.objective.supervision == "noise_levels":
        return NoiseLevelSupervision(config)
    return PyramidSupervision(config)
