"""Cross-scale consistency, the idea of CAT (paper equation 2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def stage_weights(stages: int) -> tuple[float, ...]:
    """w_k = 1 / (K - k) for k < K: (1/3, 1/2, 1) for four stages. Coarse stages are pulled less."""
    return tuple(1.0 / (stages - 1 - k) for k in range(stages - 1))


def consistency(h: Tensor, weights: Sequence[float], detach_anchor: bool = False) -> Tensor:
    """w_k * mean((h_k - h_K)^2) per sample and stage k < K: (K + 1, B, C, S, S) to (B, K).

    Its mean is the loss of equation 2, with a mean over elements in place of the squared norm. The gradient flows
    into h_K too, unless `detach_anchor`.
    """
    anchor = h[-1].detach() if detach_anchor else h[-1]
    distance = (h[:-1] - anchor).square().flatten(2).mean(2)
    return (distance * distance.new_tensor(list(weights))[:, None]).T
