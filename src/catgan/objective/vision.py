"""The vision-aided loss (paper A.3): heads of the discriminator that look through a frozen pretrained network.

The paper says only that it has one, "ConvNeXtV2-based", and points to pMF, whose own compares pairs of pictures. A GAN has
no pairs, so this one is adversarial, after Kumari et al. (arXiv:2112.09130): each feature map of the network gets a small
convolutional head with a logit per patch, the pooled feature one with class projection, and the loss is the relativistic
one of the other logits. All of it is a choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catgan.errors import UserError, require
from catgan.nn.layers import at_least_float32, full_precision

POWER_ITERATIONS = 8


class VisionEncoder(Protocol):
    """What the heads need of a frozen network. No module, so that its weights are nobody's parameters."""

    channels: tuple[int, ...]  # of each feature map
    dim: int  # of the pooled feature
    identity: str  # a digest of its weights: a run is resumed only with equal ones

    def maps(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """RGB images (B, 3, S, S) in [-1, 1] to feature maps (B, C_i, n_i, n_i), finest first, and a pooled feature (B, D).

        Differentiable in the images.
        """
        ...


def spectral(weight: Tensor) -> Tensor:
    """A weight (outputs, ...) divided by its largest singular value, as power iterations from a fixed start see it.

    Without a state, so that a logit depends on the weights alone: on no earlier pass, micro-batch or process.
    """
    matrix = weight.flatten(1)
    with torch.no_grad():
        u = torch.linspace(1, 2, len(matrix), dtype=matrix.dtype, device=matrix.device)
        for _ in range(POWER_ITERATIONS):
            v = F.normalize(u @ matrix, dim=0)
            u = F.normalize(matrix @ v, dim=0)
    largest = torch.dot(u, matrix @ v)
    return weight / largest


class PatchHead(nn.Module):
    """A feature map to a logit per position: normalised channels, 3x3, leaky ReLU, 1x1."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, n, n) to (B, n, n)."""
        x = F.layer_norm(features.movedim(1, -1), features.shape[1:2]).movedim(-1, 1)
        x = F.conv2d(x, spectral(self.inner.weight), self.inner.bias, padding=1)
        x = F.conv2d(F.leaky_relu(x, 0.2), spectral(self.outer.weight), self.outer.bias)
        return x[:, 0]


class VisionHeads(nn.Module):
    """Logits of the finest view x_K and its class, through a frozen network: trained with the discriminator as one of its
    heads (`Discriminator.add_heads`). In float32 even under autocast; the network runs as autocast has it.
    """

    def __init__(self, encoder: VisionEncoder, classes: int, width: int = 256) -> None:
        """width: channels of each head. Weights are drawn from torch's current random state. Raises UserError for an object
        that is no `VisionEncoder`."""
        super().__init__()
        members = ("channels", "dim", "identity", "maps")
        require(
            all(hasattr(encoder, name) for name in members), "the vision encoder", f"a {type(encoder).__name__}",
            f"an object with {', '.join(members)} (docs/pixels.md)",
        )  # fmt: skip
        self.encoder = encoder
        self.patches = nn.ModuleList(PatchHead(channels, width) for channels in encoder.channels)
        self.whole = nn.Linear(encoder.dim, width)
        self.class_embedding = nn.Embedding(classes, width)
        nn.init.normal_(self.class_embedding.weight, std=width**-0.5)

    def forward(self, pyramid: Sequence[Tensor], y: Tensor) -> Tensor:
        """x_0..x_K and classes y (B,) to (B, maps + 1, cells): logits of each map's patches, then those of the whole.

        All maps count alike: logits are averaged over the cells of the coarsest map, and that of the whole is repeated.
        Raises UserError for samples that are not pictures of one or three channels.
        """
        x = pyramid[-1]
        require(x.shape[1] in (1, 3), "sample.channels", x.shape[1], "1 or 3 for heads that look at pictures")
        maps, pooled = self.encoder.maps(x.expand(-1, 3, -1, -1))
        self.check(maps, pooled)
        cells = maps[-1].shape[-1]
        with full_precision(x.device):
            logits = [
                F.adaptive_avg_pool2d(head(at_least_float32(features)), cells).flatten(1)
                for head, features in zip(self.patches, maps, strict=True)
            ]
            hidden = F.layer_norm(at_least_float32(pooled), pooled.shape[1:])
            hidden = F.silu(F.linear(hidden, spectral(self.whole.weight), self.whole.bias))
            whole = (hidden * self.class_embedding(y)).sum(1, keepdim=True)
        return torch.stack([*logits, whole.expand_as(logits[0])], dim=1)

    def check(self, maps: Sequence[Tensor], pooled: Tensor) -> None:
        """Raise UserError unless the encoder gives what it says."""
        channels, dim = tuple(self.encoder.channels), self.encoder.dim
        if (
            pooled.shape[1:] == (dim,)
            and all(m.ndim == 4 for m in maps)
            and tuple(m.shape[1] for m in maps) == channels
        ):
            return
        found = ", ".join("x".join(map(str, t.shape[1:])) for t in (*maps, pooled))
        raise UserError(
            f"what the vision encoder gives is {found}: must be maps of {', '.join(map(str, channels))} channels and a "
            f"feature of {dim}, as it says"
        )
