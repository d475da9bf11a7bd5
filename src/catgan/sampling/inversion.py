"""Projection: the style w whose sample is nearest to a picture.

What a generator has made it finds again, to a few grey levels. Any other picture becomes the nearest thing that the
generator can make, which may be far off: `Inversion.psnr` says how far.

1. The best few of many samples, of all classes, are where to start.
2. Adam moves all of them for a while; the best goes on to the end (Abdal et al., arXiv:1904.03189, in w).
3. Near is: the mean square at every scale and, where there is a discriminator, the angle between its features (a small
   encoder that knows the data).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from catgan.bounds import check_seed
from catgan.data.crop import Crop
from catgan.data.decode import to_picture
from catgan.discriminator import Discriminator
from catgan.errors import UserError, require
from catgan.images import from_bytes
from catgan.sampling.pipeline import CATPipeline, load_discriminator

CANDIDATES = 8  # starts of a picture that are tried
SHORT = 0.2  # of the steps, for all candidates
LEARNING_RATE = 0.3  # of Adam at the beginning, times the deviation of styles
FEATURES = 3.0  # weight of the features beside the mean square
FRAMES = 8  # samples on the way that are kept

Views = tuple[Sequence[Tensor], Sequence[Tensor]]  # of pictures: at every scale, and the discriminator's features


@dataclass(frozen=True)
class Inversion:
    """What projecting n pictures found."""

    w: Tensor  # (n, d) styles, on the CPU
    targets: Tensor  # (n, C, S, S) pictures, or their latents
    frames: Tensor  # (f, n, C, S, S) samples on the way: the best start first, that of w last
    psnr: list[float]  # dB, of pixels: how near the sample of w is to its picture
    start_psnr: list[float]  # the same of the best start
    starts: list[tuple[int, int]]  # class and seed of the best start


def invert(
    pipe: CATPipeline,
    targets: Tensor,
    steps: int = 300,
    starts: int = 512,
    classes: Sequence[int | str] = (),
    discriminator: Discriminator | None = None,
    progress: Callable[[int, Tensor], None] | None = None,
) -> Inversion:
    """Project pictures (n, C, S, S) in [-1, 1], or latents as `latents_of` makes them, to styles.

    starts: samples among which to begin, seeds from 0, of `classes` in turn, by default of all. discriminator: that of
    the same run (`load_discriminator`), for its features. progress: told after each step how many are done, of
    `total_steps(steps)`, and the samples of the moment (m, C, S, S), at first starts, then several of each picture; what it
    raises ends the work. Raises UserError for pictures of another shape, and values that are not allowed.
    """
    s, device = pipe.config.sample, pipe.device
    shape = (s.channels, s.size, s.size)
    if targets.ndim != 4 or tuple(targets.shape[1:]) != shape:
        raise UserError(f"pictures have shape {tuple(targets.shape)}: must be (n, {', '.join(map(str, shape))})")
    require(steps >= 1, "steps", steps, "at least 1")
    require(starts >= 1, "starts", starts, "at least 1")
    check_seed(starts - 1)
    numbers = pipe.class_numbers(classes) if classes else list(range(s.classes))
    chosen = [(numbers[k % len(numbers)], k) for k in range(starts)]
    w = pipe.style([c for c, _ in chosen], [seed for _, seed in chosen])
    x = targets.to(device, torch.float32)
    projection = Projection(pipe, x, discriminator, LEARNING_RATE * float(w.std()), progress or (lambda done, h: None))
    best = projection.nearest(w, min(CANDIDATES, starts))
    found, frames = projection.run(w[best], steps)
    frames.insert(0, pipe.generator.synthesize(w[best[:, 0]]))
    psnr, start_psnr = (pixel_psnr(pipe, frames[k], x) for k in (-1, 0))
    return Inversion(
        found.cpu(), targets, torch.stack(frames).cpu(), psnr, start_psnr, [chosen[int(k)] for k in best[:, 0]]
    )


def total_steps(steps: int) -> int:
    """How many steps `invert` makes when asked for `steps`: those of all candidates, and those of the best."""
    return short(steps) + steps


def short(steps: int) -> int:
    return max(1, round(SHORT * steps))


def rate_at(step: int, steps: int) -> float:
    """The share of the learning rate in a step from 0 on: it rises over a tenth of the steps, and falls as half a cosine."""
    rise = min(1.0, (step + 1) / max(1, steps // 10))
    return rise * (1 + math.cos(math.pi * step / steps)) / 2


class Projection:
    """Moves styles towards pictures."""

    def __init__(
        self,
        pipe: CATPipeline,
        x: Tensor,
        discriminator: Discriminator | None,
        learning_rate: float,
        progress: Callable[[int, Tensor], None],
    ) -> None:
        self.generator, self.pyramid = pipe.generator, pipe.pyramid
        self.discriminator = None if discriminator is None else discriminator.to(pipe.device)
        self.x, self.learning_rate, self.progress = x, learning_rate, progress
        self.done = 0

    @torch.no_grad()
    def nearest(self, w: Tensor, count: int) -> Tensor:
        """For each picture the numbers of the `count` styles whose samples are nearest in pixels: (n, count)."""
        parts = []
        for part in w.split(64):
            parts.append(self.generator.synthesize(part))
            self.progress(0, parts[-1])
        distance = torch.cdist(self.x.flatten(1)[None], torch.cat(parts).flatten(1)[None])[0]
        return distance.topk(count, dim=1, largest=False).indices

    def run(self, starts: Tensor, steps: int) -> tuple[Tensor, list[Tensor]]:
        """Candidates (n, c, d) to the styles found (n, d), and samples (n, C, S, S) on the way, the last of these styles."""
        n, count, _ = starts.shape
        for_all = self.wanted(self.x.repeat_interleave(count, 0))
        tried, samples = self.descend(starts.flatten(0, 1), for_all, short(steps), ())
        with torch.no_grad():
            error = self.distance(samples[-1], for_all)
        w = tried.unflatten(0, (n, count))[torch.arange(n, device=tried.device), error.view(n, count).argmin(1)]
        shown = {round(k * steps / FRAMES) for k in range(FRAMES)}
        return self.descend(w, self.wanted(self.x), steps, shown)

    @torch.no_grad()
    def wanted(self, x: Tensor) -> Views:
        """What `distance` compares of pictures (m, C, S, S)."""
        return self.views(x)

    def views(self, x: Tensor) -> Views:
        """Pictures at every scale, and what the discriminator makes of them, if there is one."""
        pyramid = self.pyramid(x)
        return pyramid, () if self.discriminator is None else self.discriminator.features(pyramid)

    def descend(
        self, w: Tensor, wanted: Views, steps: int, shown: Sequence[int] | set[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Adam on the distance, its rates by `rate_at`. Samples of the steps `shown`, and the last."""
        w = w.clone().requires_grad_()
        optimizer = torch.optim.Adam([w], lr=self.learning_rate)
        frames: list[Tensor] = []
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = self.learning_rate * rate_at(step, steps)
            h = self.generator.synthesize(w)
            if step in shown:
                frames.append(h.detach())
            optimizer.zero_grad()
            self.distance(h, wanted).sum().backward()
            optimizer.step()
            self.done += 1
            self.progress(self.done, h.detach())
        with torch.no_grad():
            frames.append(self.generator.synthesize(w))
        return w.detach(), frames

    def distance(self, h: Tensor, wanted: Views) -> Tensor:
        """Of samples (m, C, S, S) from pictures: (m,)."""
        (seen, features), (pictures, theirs) = self.views(h), wanted
        squares = [(a - b).square().flatten(1).mean(1) for a, b in zip(seen, pictures, strict=True)]
        total = torch.stack(squares).mean(0)
        if self.discriminator is None:
            return total
        angles = [(1 - F.cosine_similarity(a, b, dim=-1)).mean(1) for a, b in zip(features, theirs, strict=True)]
        return total + FEATURES * torch.stack(angles).sum(0)


def pixel_psnr(pipe: CATPipeline, h: Tensor, x: Tensor) -> list[float]:
    """Peak signal-to-noise ratio of samples against pictures, in pixels that a latent model's VAE makes of both, dB."""
    with torch.no_grad():
        a, b = (pipe.decode(t.detach().cpu()).clamp(-1, 1) for t in (h, x))
        error = (a - b).square().flatten(1).mean(1).clamp_min(1e-12)
    return [round(10 * math.log10(4 / float(e)), 2) for e in error]


def read_picture(pipe: CATPipeline, data: bytes, crop: Crop = "center") -> Tensor:
    """The bytes of a picture file as pixels of the model's size and channels, (C, P, P) in [-1, 1].

    Raises BrokenError for what is no picture, and UserError for latents without their VAE.
    """
    s, vae = pipe.config.sample, pipe.vae
    size, channels = (s.size, s.channels) if vae is None else (s.size * vae.downsample, 3)
    if channels not in (1, 3):
        raise UserError(f"this generator makes latents of {channels} channels: give their VAE (--vae)")
    pixels = to_picture(data, size, channels, crop).pixels
    return from_bytes(torch.from_numpy(pixels.copy()).movedim(-1, 0))


def own_discriminator(pipe: CATPipeline) -> Discriminator | None:
    """The discriminator that the pipeline's generator was trained with, where it was loaded from; None if it is not there."""
    if pipe.source is None:
        return None
    try:
        return load_discriminator(pipe.source)
    except UserError:  # exported without
        return None


def latents_of(pipe: CATPipeline, pictures: Tensor) -> Tensor:
    """Pictures (n, C, P, P) in [-1, 1] as the generator makes them: themselves, or the mean latents of its VAE."""
    if pipe.vae is None:
        return pictures
    return pipe.vae.moments(pictures)[:, : pipe.vae.channels] * pipe.vae.scale
