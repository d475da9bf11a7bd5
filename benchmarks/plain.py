"""CAT's training step as a first implementation would have it: what `against_plain.py` compares with.

Everything in the obvious way, from the paper's equations, with the weights of a given Generator and Discriminator:

- attention of the discriminator over all tokens, with a block-diagonal mask
- one discriminator pass each for real samples, fakes, and the perturbed twins of either
- fakes generated anew for the generator's step
- optionally every block recomputed in the backward pass, as code made for large models ships
- a Python loop over classes for the mean styles, and one over weights for their average
- PyTorch's optimiser as it comes; nothing compiled

Only draws (`catgan.draws`) are catgan's own, so that both sides see the same numbers: losses and gradients are equal up
to rounding, which the tests assert in float64. Micro-batches are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from catgan.config import AugmentConfig, Config
from catgan.discriminator import Discriminator
from catgan.draws import Purpose, normal, uniform
from catgan.encoders import Encoder
from catgan.generator import STYLE_BETA, Generator
from catgan.nn.positions import rotary_table, sincos_positions

EPS = 1e-6  # of RMSNorm
Metrics = dict[str, Tensor]


# -- layers ------------------------------------------------------------------------------------------------------------


def rms_norm(x: Tensor, weight: Tensor | None = None) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), None if weight is None else weight.to(x.dtype), EPS)


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, half-split: x (B, heads, T, head size); cos, sin: (T, head size / 2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def attention(layer: nn.Module, x: Tensor, rotary: Tensor, mask: Tensor | None) -> Tensor:
    """x: (B, T, d); mask: (T, T), True where a token may look."""
    batch, tokens, width = x.shape
    q, k, v = linear(layer.qkv, x).view(batch, tokens, 3, layer.heads, -1).permute(2, 0, 3, 1, 4)
    q = rotate(rms_norm(q, layer.query_norm.weight), *rotary).to(v.dtype)
    k = rotate(rms_norm(k, layer.key_norm.weight), *rotary).to(v.dtype)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return linear(layer.out, mixed.transpose(1, 2).reshape(batch, tokens, width))


def swiglu(layer: nn.Module, x: Tensor) -> Tensor:
    gate, up = linear(layer.gate_up, x).chunk(2, dim=-1)
    return linear(layer.down, F.silu(gate) * up)


def patchify(x: Tensor, p: int) -> Tensor:
    """(B, C, S, S) to (B, (S / p)^2, p * p * C)."""
    b, c, s, _ = x.shape
    x = x.view(b, c, s // p, p, s // p, p).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(b, (s // p) ** 2, p * p * c)


def unpatchify(x: Tensor, p: int) -> Tensor:
    b, t, size = x.shape
    grid, c = math.isqrt(t), size // p**2
    return x.view(b, grid, grid, p, p, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, grid * p, grid * p)


# -- networks ----------------------------------------------------------------------------------------------------------


class PlainGenerator:
    """The generator's equations on the weights of a `Generator`."""

    def __init__(self, config: Config, weights: Generator, recompute: bool) -> None:
        g, s = config.generator, config.sample
        self.weights, self.patch, self.recompute = weights, g.patch, recompute
        self.per_stage = g.depth // len(s.scales)
        like = next(weights.parameters())
        self.positions = sincos_positions(s.size // g.patch, g.width).to(like)
        self.rotary = rotary_table(s.size // g.patch, g.width // g.heads).to(like)

    def style(self, z: Tensor, y: Tensor) -> Tensor:
        x = torch.cat([rms_norm(F.embedding(y, self.weights.class_embedding.weight)), rms_norm(z)], dim=1)
        first, _, last = self.weights.mapping
        x = F.silu(F.linear(x, first.weight * first.multiplier, first.bias * first.multiplier))
        return F.linear(x, last.weight * last.multiplier, last.bias * last.multiplier)

    def block(self, layer: nn.Module, x: Tensor, w: Tensor) -> Tensor:
        modulation = linear(layer.modulation, F.silu(w))[:, None]
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        x = x + gate1 * attention(layer.attention, rms_norm(x) * (1 + scale1) + shift1, self.rotary, None)
        return x + gate2 * swiglu(layer.mlp, rms_norm(x) * (1 + scale2) + shift2)

    def output(self, layer: nn.Module, x: Tensor, w: Tensor) -> Tensor:
        shift, scale = linear(layer.modulation, F.silu(w))[:, None].chunk(2, dim=-1)
        pixels = unpatchify(linear(layer.pixels, rms_norm(x) * (1 + scale) + shift), self.patch)
        return pixels.float() if pixels.dtype == torch.bfloat16 else pixels

    def stages(self, w: Tensor) -> list[Tensor]:
        """h_0..h_K, each (B, C, S, S)."""
        x = self.positions.expand(len(w), -1, -1)
        h: list[Tensor] = []
        for i, layer in enumerate(self.weights.blocks):
            x = recomputed(self.recompute, self.block, layer, x, w)
            if (i + 1) % self.per_stage == 0:
                out = self.output(self.weights.outputs[len(h)], x, w)
                h.append(h[-1] + out if h else out)
        return h


class PlainDiscriminator:
    """The discriminator's equations on the weights of a `Discriminator`, with a dense mask."""

    def __init__(self, config: Config, weights: Discriminator, recompute: bool) -> None:
        d, self.scales = config.discriminator, config.sample.scales
        self.weights, self.patches, self.recompute = weights, d.patches, recompute
        like = next(weights.parameters())
        grids = [s // p for s, p in zip(self.scales, self.patches, strict=True)]
        self.positions = [sincos_positions(grid, d.width).to(like) for grid in grids]
        self.rotary = torch.cat([rotary_table(grid, d.width // d.heads, 1) for grid in grids], dim=1).to(like)
        blocks = [torch.ones(1 + grid * grid, 1 + grid * grid, dtype=torch.bool) for grid in grids]
        self.starts = [sum(len(b) for b in blocks[:k]) for k in range(len(blocks))]
        self.mask = None if d.aggregated else torch.block_diag(*blocks).to(like.device)

    def block(self, layer: nn.Module, x: Tensor) -> Tensor:
        normed = rms_norm(x, layer.attention_norm.weight)
        x = x + layer.attention_gain * attention(layer.attention, normed, self.rotary, self.mask)
        return x + layer.mlp_gain * swiglu(layer.mlp, rms_norm(x, layer.mlp_norm.weight))

    def tokens(self, pyramid: Sequence[Tensor]) -> Tensor:
        """x_0..x_K to all tokens after the last block, (B, T, d)."""
        parts = []
        for k, x in enumerate(pyramid):
            with torch.autocast(x.device.type, enabled=False):
                patches = linear(self.weights.embeddings[str(self.patches[k])], patchify(x, self.patches[k]))
            cls = self.weights.cls[k].expand(len(x), 1, -1)
            tokens = torch.cat([cls.to(patches.dtype), patches + self.positions[k]], dim=1)
            parts.append(tokens + self.weights.scale_embedding[k])
        x = torch.cat(parts, dim=1)
        for layer in self.weights.blocks:
            x = recomputed(self.recompute, self.block, layer, x)
        return x

    def logits(self, x: Tensor, y: Tensor) -> Tensor:
        """Tokens and classes to d_0..d_K, (B, K + 1)."""
        with torch.autocast(x.device.type, enabled=False):
            cls = x[:, self.starts]
            cls = cls.float() if cls.dtype == torch.bfloat16 else cls
            head = linear(self.weights.head, rms_norm(cls, self.weights.norm.weight))
            classes = F.embedding(y, self.weights.class_embedding.weight)
            if len(self.weights.class_mapping):
                first, second = self.weights.class_mapping[0], self.weights.class_mapping[2]
                hidden = F.silu(F.linear(classes, 0.01 * first.weight, 0.01 * first.bias))
                classes = F.linear(hidden, 0.01 * second.weight, 0.01 * second.bias)
            return (head * classes[:, None]).sum(-1)


def recomputed(recompute: bool, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """function(*inputs), in training optionally computed once more by the backward pass instead of kept."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False)
    return function(*inputs)


# -- what the discriminator sees ---------------------------------------------------------------------------------------


def resize(x: Tensor, size: int, mode: str) -> Tensor:
    if x.shape[-1] == size:
        return x
    if mode in ("area", "nearest"):
        return F.interpolate(x, size=(size, size), mode=mode)
    return F.interpolate(x, size=(size, size), mode=mode, align_corners=False, antialias=size < x.shape[-1])


def augment(x: Tensor, u: Tensor, policy: AugmentConfig, anchor: Tensor) -> Tensor:
    """Colour, flip, translation, cutout of samples (B, C, S, S); u: (B, 9) in [0, 1); anchor: whose means colour uses."""
    size, here = x.shape[-1], torch.arange(x.shape[-1], device=x.device)
    if policy.color:
        chosen, brightness, saturation, contrast = u[:, :4, None, None, None].unbind(1)
        changed = x + (brightness - 0.5)
        grey = anchor.mean(1, keepdim=True)
        changed = (changed - grey) * (2 * saturation) + grey
        mean = anchor.mean((1, 2, 3), keepdim=True)
        changed = (changed - mean) * (contrast + 0.5) + mean
        x = torch.where(chosen < policy.color, changed, x)
    x = flip(x, u, policy.flip)
    x = translate(x, *shifts(u, size, policy.translation))
    if policy.cutout:
        side = int(size * policy.cutout + 0.5)
        start = (u[:, 6:8] * (size + 1 - side % 2)).floor().long() - side // 2
        inside = [(here >= s[:, None]) & (here < s[:, None] + side) for s in start.T]
        x = x * ~(inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    return x


def flip(x: Tensor, u: Tensor, probability: float) -> Tensor:
    return torch.where((u[:, 8] < probability)[:, None, None, None], x.flip(-1), x) if probability else x


def shifts(u: Tensor, size: int, ratio: float) -> tuple[Tensor, int]:
    """Whole pixels that each sample moves, rows and columns, (B, 2); and the most that any can."""
    reach = int(size * ratio + 0.5)
    return (u[:, 4:6] * (2 * reach + 1)).floor().long() - reach, reach


def translate(x: Tensor, shift: Tensor, reach: int) -> Tensor:
    """Move samples (B, C, S, S) by whole pixels, zeros coming in."""
    if reach == 0:
        return x
    here, sample = torch.arange(x.shape[-1], device=x.device), torch.arange(len(x), device=x.device)
    rows, columns = (reach + here + s[:, None] for s in shift.T)
    padded = F.pad(x, [reach] * 4).permute(0, 2, 3, 1)
    return padded[sample[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


# -- the step ----------------------------------------------------------------------------------------------------------


class PlainStep:
    """One iteration: `run` takes and returns what `catgan.training.step.Step.run` does, and changes the same weights."""

    graph = None  # never replayed

    def __init__(
        self,
        config: Config,
        generator: Generator,
        discriminator: Discriminator,
        ema: Generator,
        recompute: bool = False,
        encoder: Encoder | None = None,
    ) -> None:
        """recompute: activation checkpointing of every block. encoder: for a representation head."""
        self.encoder = encoder
        self.config, self.device = config, next(generator.parameters()).device
        self.weights, self.ema = {"generator": generator, "discriminator": discriminator}, ema
        self.generator = PlainGenerator(config, generator, recompute)
        self.discriminator = PlainDiscriminator(config, discriminator, recompute)
        o = config.optimizer
        self.optimizers = {
            name: torch.optim.AdamW(
                self.weights[name].parameters(), lr=lr, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay
            )
            for name, lr in (("generator", o.lr_generator), ("discriminator", o.lr_discriminator))
        }

    def run(self, step: int, x: Tensor, y: Tensor, images: Tensor | None = None) -> Metrics:
        """Iteration `step` (0, 1, ...) on real samples x (B, C, S, S) of classes y (B,), with an encoder also their
        raw images, uint8 (B, 3, P, P)."""
        metrics: Metrics = {}
        z = self.draw(normal, Purpose.Z, step, range(len(x)), (self.config.generator.z_dim,))
        self.train_discriminator(step, x, y, z, images, metrics)
        if self.config.objective.fresh_z:
            z = self.draw(normal, Purpose.Z_GENERATOR, step, range(len(x)), (self.config.generator.z_dim,))
        w = self.train_generator(step, x, y, z, metrics)
        self.update_style_means(w, y)
        self.update_average(step + 1)
        return metrics

    def train_discriminator(
        self, step: int, x: Tensor, y: Tensor, z: Tensor, images: Tensor | None, metrics: Metrics
    ) -> None:
        o, batch = self.config.objective, len(x)
        u_real = self.draw(uniform, Purpose.AUGMENT_REAL_D, step, range(batch), (9,))
        u_fake = self.draw(uniform, Purpose.AUGMENT_FAKE_D, step, range(batch), (9,))
        with torch.no_grad():
            _, h = self.generate(z, y)
        stages = len(self.config.sample.scales)
        tokens = self.tokens(self.view([x] * stages, u_real))
        real = self.discriminator.logits(tokens, y)
        fake = self.judge(self.view(h, u_fake), y)
        losses = {"adversarial": F.softplus(fake - real).mean(0)}
        weights = {"adversarial": 1.0, "representation": o.representation}
        if images is not None:
            losses["representation"] = self.representation(tokens, images, u_real)
        if o.penalty:
            count = max(1, int(batch * o.penalty_fraction))
            some = torch.tensor([i * batch // count for i in range(count)], device=self.device)
            for name, samples, u, clean, purpose in (
                ("r1", [x] * stages, u_real, real, Purpose.PENALTY_REAL),
                ("r2", h, u_fake, fake, Purpose.PENALTY_FAKE),
            ):
                twins = self.perturbed_view(
                    [s[some] for s in samples], u[some], self.noise(purpose, step, some.tolist())
                )
                perturbed = self.judge(twins, y[some])
                losses[name] = ((clean[some] - perturbed) / o.penalty_eps).square().mean(0)
                weights[name] = self.gamma(step) / 2
        self.update("discriminator", losses, weights, metrics)

    def train_generator(self, step: int, x: Tensor, y: Tensor, z: Tensor, metrics: Metrics) -> Tensor:
        """Returns the styles, (B, d)."""
        c, o, batch = self.config, self.config.objective, len(x)
        u_real = self.draw(uniform, Purpose.AUGMENT_REAL_G, step, range(batch), (9,))
        u_fake = self.draw(uniform, Purpose.AUGMENT_FAKE_G, step, range(batch), (9,))
        self.weights["discriminator"].requires_grad_(False)
        w, h = self.generate(z, y)
        with torch.no_grad():
            real = self.judge(self.view([x] * len(h), u_real), y)
        fake = self.judge(self.view(h, u_fake), y)
        losses = {"adversarial": F.softplus(real - fake).mean(0)}
        if o.consistency and len(h) > 1:
            factors = o.consistency_weights or [1 / (len(h) - 1 - k) for k in range(len(h) - 1)]
            anchor = h[-1].detach() if o.detach_anchor else h[-1]
            losses["consistency"] = torch.stack(
                [f * (stage - anchor).square().mean() for f, stage in zip(factors, h[:-1], strict=True)]
            )
        self.update("generator", losses, {"adversarial": 1.0, "consistency": c.objective.consistency}, metrics)
        self.weights["discriminator"].requires_grad_(True)
        return w.detach()

    def update(self, network: str, losses: Metrics, weights: dict[str, float], metrics: Metrics) -> None:
        """The losses' gradients, clipped, and one step of the optimiser."""
        optimizer = self.optimizers[network]
        loss = sum((weights[name] * value.mean() for name, value in losses.items()), torch.zeros(()).to(self.device))
        loss.backward()
        parameters = list(self.weights[network].parameters())
        norm = nn.utils.clip_grad_norm_(parameters, self.config.optimizer.clip)
        optimizer.step()
        optimizer.zero_grad()
        metrics |= {f"{network}/{name}": value.detach() for name, value in losses.items()}
        metrics |= {f"{network}/loss": loss.detach(), f"{network}/gradient_norm": norm}

    # -- parts of a step -------------------------------------------------------------------------------------------

    def autocast(self) -> torch.autocast:
        bfloat16 = self.config.training.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bfloat16)

    def generate(self, z: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        w = self.generator.style(z, y)
        with self.autocast():
            return w, self.generator.stages(w)

    def judge(self, pyramid: Sequence[Tensor], y: Tensor) -> Tensor:
        return self.discriminator.logits(self.tokens(pyramid), y)

    def tokens(self, pyramid: Sequence[Tensor]) -> Tensor:
        with self.autocast():
            return self.discriminator.tokens(pyramid)

    def representation(self, tokens: Tensor, images: Tensor, u: Tensor) -> Tensor:
        """1 - cosine similarity of what the head predicts and the encoder's features, [cls] plus the mean over patches."""
        c = self.config
        head, grid = self.weights["discriminator"].representation, c.sample.scales[-1] // c.discriminator.patches[-1]
        with self.autocast():
            predicted = head(tokens[:, -(1 + grid * grid) :])
            with torch.no_grad():
                raw = resize(images.to(u.dtype) / 127.5 - 1, c.encoder.size, "bicubic")
                raw = flip(raw, u, c.augment.flip)
                per_pixel = raw.shape[-1] / c.sample.size
                shift, reach = shifts(u, c.sample.size, c.augment.translation)
                raw = translate(raw, (shift * per_pixel).round().long(), math.ceil(reach * per_pixel))
                cls, patches = self.encoder.encode(raw)
                patches = resize(patches.movedim(-1, 1), grid, "bicubic").flatten(2).mT
                target = torch.cat([cls[:, None], patches], dim=1)
        distance = 1 - F.cosine_similarity(predicted.to(u.dtype), target.to(u.dtype), dim=-1)
        return (distance[:, 0] + distance[:, 1:].mean(1)).mean(0, keepdim=True)

    def view(self, stages: Sequence[Tensor], u: Tensor, anchor: Tensor | None = None) -> list[Tensor]:
        """Augment each stage at full size, then resize it to its scale."""
        s = self.config.sample
        anchor = stages[-1] if anchor is None else anchor
        seen = [augment(stage, u, self.config.augment, anchor) for stage in stages]
        return [resize(x, size, s.down) for x, size in zip(seen, s.scales, strict=True)]

    def perturbed_view(self, stages: Sequence[Tensor], u: Tensor, noise: list[Tensor]) -> list[Tensor]:
        """Noise is one tensor at full size, or one per stage, added before augmentation; or one per scale, after resizing."""
        eps = self.config.objective.penalty_eps
        if self.config.objective.penalty_noise == "full":
            each = noise if len(noise) == len(stages) else noise * len(stages)
            return self.view([stage + eps * n for stage, n in zip(stages, each, strict=True)], u, anchor=stages[-1])
        return [x + eps * n for x, n in zip(self.view(stages, u), noise, strict=True)]

    def gamma(self, step: int) -> float:
        """Weight of the penalties: a geometric way from `penalty` to `penalty_end`."""
        o = self.config.objective
        end = o.penalty_end or o.penalty
        if o.penalty_anneal == 0:
            return o.penalty
        return float(o.penalty * (end / o.penalty) ** min(1.0, step / o.penalty_anneal))

    def noise(self, purpose: Purpose, step: int, samples: list[int]) -> list[Tensor]:
        s = self.config.sample
        if self.config.objective.penalty_noise == "per_scale":
            areas = [n * n for n in s.scales]
            drawn = self.draw(normal, purpose, step, samples, (s.channels, sum(areas))).split(areas, 2)
            return [n.unflatten(2, (size, size)) for n, size in zip(drawn, s.scales, strict=True)]
        stages = len(s.scales) if self.config.discriminator.aggregated and purpose is Purpose.PENALTY_FAKE else 1
        return list(self.draw(normal, purpose, step, samples, (stages, s.channels, s.size, s.size)).unbind(1))

    def draw(
        self, kind: Callable[..., Tensor], purpose: Purpose, step: int, samples: Sequence[int], shape: tuple[int, ...]
    ) -> Tensor:
        """The random numbers of some samples of the batch."""
        like = next(self.weights["generator"].parameters())
        return kind(self.config.training.seed, purpose, step, samples, shape).to(like)

    # -- averages --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def update_style_means(self, w: Tensor, y: Tensor) -> None:
        g = self.weights["generator"]
        for k in range(self.config.sample.classes):
            chosen = y == k
            if chosen.any():
                g.style_sum[k].lerp_(w[chosen].mean(0).to(g.style_sum.dtype), 1 - STYLE_BETA)
                g.style_updates[k] += 1

    @torch.no_grad()
    def update_average(self, steps: int) -> None:
        """The running average of the generator; its half-life is at most a share of the steps so far."""
        o = self.config.optimizer
        half_life = min(o.ema_half_life, o.ema_warmup * steps) if o.ema_warmup else o.ema_half_life
        decay = 0.5 ** (1 / half_life)
        for mean, value in zip(self.ema.parameters(), self.weights["generator"].parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        for mean, value in zip(self.ema.buffers(), self.weights["generator"].buffers(), strict=True):
            mean.copy_(value)
