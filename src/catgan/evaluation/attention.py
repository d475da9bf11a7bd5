"""Cross-scale attention of the discriminator (paper figure 9): how much the tokens of a scale look at each scale.

    m_ij = share of attention mass that tokens of scale i put on tokens of scale j     per layer; sum_j m_ij = 1

averaged over heads, over the query tokens of scale i ([cls] included) and over samples. Attending to values that say
which scale a token belongs to gives the shares, so the very attention of the network is measured: its spans, its
queries and keys, its kernel. A scale-wise discriminator has the identity, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from catgan.data import Dataset
from catgan.discriminator import Discriminator
from catgan.errors import UserError
from catgan.evaluation.alignment import fixed_pairs
from catgan.nn.layers import Attention, attend_within, full_precision
from catgan.system.progress import Progress

if TYPE_CHECKING:
    from catgan.sampling.pipeline import CATPipeline


@torch.no_grad()
def attention_mass(discriminator: Discriminator, pyramid: Sequence[Tensor]) -> Tensor:
    """Per sample: x_0..x_K, each (B, C, S_k, S_k), to m (B, layers, K + 1, K + 1) in [0, 1], float64, rows that sum to 1.

    In the precision of the weights, whatever autocast says. Layer by layer: no attention matrix outlives its layer.
    """
    layers: list[Tensor] = []

    def measure(attention: Attention, inputs: tuple[Tensor, Tensor, tuple[int, ...]]) -> None:
        layers.append(mass_between(attention, *inputs, discriminator.lengths))

    attentions = [m for m in discriminator.modules() if isinstance(m, Attention)]
    handles = [attention.register_forward_pre_hook(measure) for attention in attentions]
    try:
        with full_precision(pyramid[0].device):
            discriminator.features(pyramid)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(layers, dim=1)


def mass_between(
    attention: Attention, x: Tensor, rotary: Tensor, spans: Sequence[int], lengths: Sequence[int]
) -> Tensor:
    """m of one layer, (B, K + 1, K + 1), from the inputs of its attention; lengths: tokens of each scale."""
    q, k, v = attention.project(x, rotary)
    scales = len(lengths)
    scale_of = torch.arange(scales, device=x.device).repeat_interleave(torch.tensor(lengths, device=x.device))
    # As wide as the real values where possible: fused kernels want queries, keys and values of one size.
    marks = F.one_hot(scale_of, max(scales, v.shape[-1])).to(v.dtype)[None, :, None].expand(*v.shape[:3], -1)
    shares = attend_within(q, k, marks, spans)[..., :scales].double()
    mass = torch.stack([part.mean((1, 2)) for part in shares.split(tuple(lengths), dim=1)], dim=1)
    return mass / mass.sum(-1, keepdim=True)  # the rounding of the softmax: a lone share becomes exactly 1


@dataclass(frozen=True)
class CrossScaleAttention:
    """A diagnosis: m per source of samples, averaged over them, and what it was measured on."""

    mass: dict[str, Tensor]  # "generated", and "real" if there were real samples: (layers, K + 1, K + 1), float64
    tokens: list[int]  # of each scale, [cls] included
    protocol: dict[str, Any]

    def per_layer(self, source: str) -> list[float]:
        """Off-diagonal share of each layer: mass that leaves its own scale, every scale counting the same."""
        shares: list[float] = (1 - self.mass[source].diagonal(dim1=1, dim2=2)).mean(1).tolist()
        return shares

    def off_diagonal(self, source: str) -> float:
        """The mean of `per_layer`: 0 for a scale-wise discriminator."""
        return float(np.mean(self.per_layer(source)))

    def uniform(self) -> list[float]:
        """A row of m if every token attended to all tokens of all scales alike: the scales' shares of the tokens."""
        return [n / sum(self.tokens) for n in self.tokens]

    def to_dict(self) -> dict[str, Any]:
        measured = {
            source: {
                "layers": mass.tolist(),
                "mean": mass.mean(0).tolist(),
                "off_diagonal_per_layer": self.per_layer(source),
                "off_diagonal": self.off_diagonal(source),
            }
            for source, mass in self.mass.items()
        }
        return {"tokens": self.tokens, "uniform": self.uniform(), **measured, "protocol": self.protocol}

    def table(self) -> str:
        """Mean over layers, scales i as rows and j as columns, then the off-diagonal share of each layer.

        Of an aggregated discriminator also what attention to all tokens alike would give.
        """
        aggregated = self.protocol["aggregated"]
        lines = []
        for source, mass in self.mass.items():
            rows = {f"i = {i}": row for i, row in enumerate(mass.mean(0).tolist())}
            rows |= {"uniform": self.uniform()} if aggregated else {}
            lines += [
                f"{source} samples, mean over layers",
                "from   " + cells(f"j = {j}" for j in range(len(self.tokens))),
            ]
            lines += [f"{name:<7}" + cells(f"{share:.3f}" for share in row) for name, row in rows.items()] + [""]
        shares = {source: self.per_layer(source) for source in self.mass}
        lines += ["mass that leaves its scale", "layer  " + cells(shares)]
        for n, row in enumerate(zip(*shares.values(), strict=True), start=1):
            lines.append(f"{n:<7}" + cells(f"{share:.3f}" for share in row))
        lines.append("mean   " + cells(f"{self.off_diagonal(source):.3f}" for source in shares))
        if aggregated:
            lines.append("uniform" + cells([f"{1 - 1 / len(self.tokens):.3f}"] * len(shares)))
            lines.append("uniform: what attention to all tokens alike would give")
        return "\n".join(lines)


def cells(texts: Iterable[str]) -> str:
    return "".join(f"{text:>11}" for text in texts)


def diagnose_attention(
    pipe: CATPipeline, discriminator: Discriminator, dataset: Dataset | None, samples: int = 1000, batch: int = 250
) -> CrossScaleAttention:
    """Measure a discriminator on generated samples, and on real ones if there is a dataset.

    Generated: the alignment diagnostics' fixed pairs, psi = 1. Real: `samples` rows spread evenly over the dataset,
    or all of them if it has fewer. Neither is augmented. Raises UserError for a discriminator of noise levels.
    """
    if pipe.config.objective.supervision == "noise_levels":
        raise UserError(
            "objective.supervision is noise_levels: its discriminator has one grid of tokens, so there is no attention "
            "between scales; diagnose without --attention"
        )
    discriminator = discriminator.to(pipe.device)
    ys, seeds = fixed_pairs(samples, pipe.config.sample.classes)
    real = 0 if dataset is None else min(samples, len(dataset))

    def generated(part: slice) -> Tensor:
        """Stages (K + 1, B, C, S, S)."""
        stages = pipe(ys[part], seeds[part], stages=True, batch_size=batch).stages
        assert stages is not None
        return stages

    def mean_mass(source: str, count: int, read: Callable[[slice], Tensor]) -> Tensor:
        """m averaged over samples, (layers, K + 1, K + 1), on the CPU."""
        progress = Progress(0, count, 1, f"{source} sample")
        sums = []
        for start in range(0, count, batch):
            part = slice(start, min(start + batch, count))
            sums.append(attention_mass(discriminator, pipe.pyramid(read(part).to(pipe.device))).sum(0))
            progress.update(part.stop)
        progress.close()
        return torch.stack(sums).sum(0).cpu() / count

    mass = {"generated": mean_mass("generated", samples, generated)}
    if dataset is not None:
        rows = np.arange(real) * len(dataset) // real
        # One by one, so that what a dataset draws for sample i does not depend on the batch.
        mass["real"] = mean_mass(
            "real", real, lambda p: torch.cat([dataset.batch(rows[i : i + 1], 0, i)[0] for i in range(p.start, p.stop)])
        )
    protocol = {
        "recipe": pipe.config.recipe,
        "step": pipe.step,
        "samples": samples,
        "pairs": "class i mod classes, seed i",
        "weights": pipe.weights,
        "psi": 1.0,
        "precision": pipe.precision,
        "real_samples": real,
        "augmentation": "none",
        "averaged_over": "heads, tokens of scale i with its [cls], samples",
        "aggregated": discriminator.aggregated,
        "scales": list(discriminator.scales),
        "patches": list(discriminator.patches),
        "down": pipe.pyramid.down,
    }
    return CrossScaleAttention(mass, list(discriminator.lengths), protocol)
