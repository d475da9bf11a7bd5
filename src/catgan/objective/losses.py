"""The losses of CAT (paper section 3.2), each per sample: what `Term` weighs, averages and adds up.

relativistic         f(d_k(better) - d_k(worse)),  f(t) = softplus(-t)
approximate_penalty  ((d_k(x) - d_k(x + eps n)) / eps)^2,  n ~ N(0, I)
exact_penalty        |grad_x d_k(x)|^2
consistency          w_k |h_k - h_K|^2 / elements,  w_k = 1 / (K - k)            (equation 2)
representation       1 - cos([cls]) + mean over patches of 1 - cos(patch)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from catgan.nn.layers import at_least_float32
from catgan.pyramid import Pyramid


def relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """Pairing loss per sample and scale: logits (B, K + 1) to (B, K + 1).

    The discriminator calls it with (real, fake), the generator with (fake, real).
    """
    return F.softplus(worse - better)


def approximate_penalty(logits: Tensor, perturbed: Tensor, eps: float) -> Tensor:
    """Finite-difference penalty of Seaweed-APT, R1 on real samples and R2 on fakes, per sample and scale.

    logits, perturbed: (b, K + 1), for the same samples without and with noise eps * n. Its mean over n tends to
    |grad d_k|^2 as eps tends to 0.
    """
    return ((logits - perturbed) / eps).square()


def exact_penalty(discriminate: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """|grad_x d_k(x)|^2 by autograd, per sample and scale: the reference for `approximate_penalty`.

    discriminate: full-size samples (B, C, S, S) to logits (B, K + 1), augmentation and resizing included.
    Differentiable once more, so that it can be trained with; costs one backward pass per scale.
    """
    x = x.detach().requires_grad_()
    logits = discriminate(x)
    gradients = [torch.autograd.grad(logits[:, k].sum(), x, create_graph=True)[0] for k in range(logits.shape[1])]
    return torch.stack([g.square().flatten(1).sum(1) for g in gradients], dim=1)


def stage_weights(stages: int) -> tuple[float, ...]:
    """w_k = 1 / (K - k) for k < K: (1/3, 1/2, 1) for four stages. Coarse stages are pulled less."""
    return tuple(1.0 / (stages - 1 - k) for k in range(stages - 1))


def consistency(
    h: Tensor, weights: Sequence[float], detach_anchor: bool = False, pyramid: Pyramid | None = None
) -> Tensor:
    """w_k * mean((h_k - h_K)^2) per sample and stage k < K: stages (K + 1, B, C, S, S) to (B, K).

    Its mean is the loss of equation 2, with a mean over elements in place of the squared norm. The gradient flows
    into h_K too, unless `detach_anchor`. With a pyramid w_k * mean(r_k(h_k - h_K)^2), which leaves free what no
    discriminator of scale k sees.
    """
    anchor = h[-1].detach() if detach_anchor else h[-1]
    if pyramid is None:
        distance = (h[:-1] - anchor).square().flatten(2).mean(2)
    else:
        distance = torch.stack([x.square().flatten(1).mean(1) for x in pyramid(h - anchor)[:-1]])
    return (distance * distance.new_tensor(list(weights))[:, None]).T


def representation(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - cosine similarity: that of [cls] plus the mean over patches, per sample.

    predicted, target: (B, 1 + T, D), [cls] first. Returns (B,), in [0, 4].
    """
    distance = 1 - F.cosine_similarity(at_least_float32(predicted), at_least_float32(target), dim=-1)
    return distance[:, 0] + distance[:, 1:].mean(1)
