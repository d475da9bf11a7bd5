"""Cross-scale alignment diagnostics (paper equation 1).

With e_k = r_K(x_k), every x_k enlarged to full size, and norms per sample:

    delta_k = |x_K - e_k| / |x_K|              how far stage k is from the final image
    R_k     = |e_{k+1} - e_k| / |x_K|          how much the next stage rewrites
    A_k     = cos(e_{k+1} - e_k, x_K - e_k)    whether it rewrites towards the final image; A_{K-1} is 1
    floor_k = |x_K - r_K(r_k(x_K))| / |x_K|    the delta_k that the coarse resolution alone costs
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from catgan.draws import sample_z
from catgan.pyramid import Pyramid

if TYPE_CHECKING:
    from catgan.sampling.pipeline import CATPipeline

MEASURES = ("delta", "floor", "excess", "R", "A")


def alignment(h: Tensor, pyramid: Pyramid) -> dict[str, Tensor]:
    """Per sample and stage k < K: h (K + 1, B, C, S, S) to delta, floor, excess (delta - floor), R and A, each (B, K)."""
    final = h[-1]
    enlarged = [pyramid.enlarge(x) for x in pyramid(h)]
    coarse = [pyramid.enlarge(x) for x in pyramid(final)]
    size = norm(final).clamp_min(1e-12)
    stages = range(len(enlarged) - 1)

    def per_stage(value: Callable[[int], Tensor]) -> Tensor:
        return torch.stack([value(k) for k in stages], dim=1) if len(stages) else size.new_empty(len(size), 0)

    delta = per_stage(lambda k: norm(final - enlarged[k]) / size)
    floor = per_stage(lambda k: norm(final - coarse[k]) / size)
    return {
        "delta": delta,
        "floor": floor,
        "excess": delta - floor,
        "R": per_stage(lambda k: norm(enlarged[k + 1] - enlarged[k]) / size),
        "A": per_stage(
            lambda k: F.cosine_similarity((enlarged[k + 1] - enlarged[k]).flatten(1), (final - enlarged[k]).flatten(1))
        ),
    }


def norm(x: Tensor) -> Tensor:
    """Euclidean norm per sample."""
    return x.flatten(1).norm(dim=1)


@dataclass(frozen=True)
class Alignment:
    """A diagnosis: means over samples, per stage k = 0..K-1, and what they were measured on."""

    delta: list[float]
    floor: list[float]
    excess: list[float]
    R: list[float]
    A: list[float]
    protocol: dict[str, Any]

    def averages(self) -> dict[str, float]:
        """Means over stages; A also without A_{K-1}, which is 1 by definition. Empty where there is nothing to average."""
        measures = {m: getattr(self, m) for m in MEASURES} | {"A_without_last": self.A[:-1]}
        return {m: sum(values) / len(values) for m, values in measures.items() if values}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"average": self.averages()}

    def table(self) -> str:
        """Stages as rows, measures as columns, and their averages."""
        if not self.delta:
            return "one scale: there are no earlier stages to compare"
        average = self.averages()
        lines = ["stage  " + "".join(f"{m:>9}" for m in MEASURES)]
        for k in range(len(self.delta)):
            lines.append(f"k = {k:<3}" + "".join(f"{getattr(self, m)[k]:9.3f}" for m in MEASURES))
        lines.append("mean   " + "".join(f"{average[m]:9.3f}" for m in MEASURES))
        if len(self.A) > 1:
            lines.append(f"mean A without the last stage, whose A is 1 by definition: {average['A_without_last']:.3f}")
        return "\n".join(lines)


def fixed_pairs(count: int, classes: int) -> tuple[list[int], list[int]]:
    """The protocol's (class, seed) pairs: seeds 0, 1, ..., classes in turn."""
    return [i % classes for i in range(count)], list(range(count))


@torch.no_grad()
def diagnose(
    synthesize: Callable[[Tensor, Tensor], Tensor],
    pyramid: Pyramid,
    *,
    classes: int,
    z_dim: int,
    device: torch.device,
    samples: int = 1000,
    batch: int = 250,
    protocol: dict[str, Any] | None = None,
) -> Alignment:
    """Measure a generator on the fixed pairs.

    synthesize: (z, y) to all stages (K + 1, B, C, S, S); the protocol asks for the averaged weights.
    """
    ys, seeds = fixed_pairs(samples, classes)
    totals: dict[str, Tensor] = {}
    for start in range(0, samples, batch):
        part = slice(start, min(start + batch, samples))
        z, y = sample_z(seeds[part], z_dim).to(device), torch.tensor(ys[part], device=device)
        for measure, values in alignment(synthesize(z, y).float(), pyramid).items():
            totals[measure] = totals.get(measure, 0) + values.double().sum(0)
    means = {m: (t / samples).tolist() for m, t in totals.items()}
    described = {
        "samples": samples,
        "pairs": "class i mod classes, seed i",
        "weights": "ema",
        "psi": 1.0,
        "scales": list(pyramid.scales),
        "down": pyramid.down,
        "up": pyramid.up,
    }
    return Alignment(**means, protocol=described | (protocol or {}))


def diagnose_pipeline(pipe: CATPipeline, samples: int = 1000, batch: int = 250) -> Alignment:
    """`diagnose` for a loaded pipeline."""

    def synthesize(z: Tensor, y: Tensor) -> Tensor:
        stages = pipe(y.tolist(), z=z, stages=True, batch_size=len(z)).stages
        assert stages is not None
        return stages

    return diagnose(
        synthesize,
        pipe.pyramid,
        classes=pipe.config.sample.classes,
        z_dim=pipe.generator.z_dim,
        device=pipe.device,
        samples=samples,
        batch=batch,
        protocol={
            "recipe": pipe.config.recipe,
            "step": pipe.step,
            "precision": pipe.precision,
            "weights": pipe.weights,
        },
    )
