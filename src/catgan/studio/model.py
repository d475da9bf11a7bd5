"""A generator that answers the studio's page: points to styles, styles to pictures, with the time of each part."""

from __future__ import annotations

import base64
import binascii
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from msgspec import structs
from torch import Tensor

from catgan.bounds import check_psi
from catgan.draws import sample_z
from catgan.errors import UserError, require
from catgan.evaluation.alignment import alignment
from catgan.images import to_bytes
from catgan.sampling.directions import principal_directions
from catgan.sampling.pipeline import CATPipeline, Samples
from catgan.studio.protocol import MAX_DIRECTIONS, Film, Point, Request

AT_ONCE = 4  # pictures that a decoder makes before it is somebody else's turn


class Model:
    """A pipeline with a label. Not for several threads at once."""

    def __init__(self, pipe: CATPipeline, label: str) -> None:
        self.pipe, self.label = pipe, label
        self.generator = pipe.generator
        self.milliseconds: dict[str, float] = {}

    def warm(self) -> None:
        """Make a picture with and without stages: compilers and caches work before somebody waits for them."""
        for stages in (True, False):
            self.answer(Request(0, "sample", [Point()], stages=stages))

    # -- what it is --------------------------------------------------------------------------------------------------

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the page needs to know: sizes, classes, stages. No path of this machine."""
        pipe, s = self.pipe, self.pipe.config.sample
        vae = pipe.vae
        return {
            "label": self.label,
            "recipe": pipe.config.recipe,
            "step": pipe.step,
            "weights": pipe.weights,
            "fingerprint": pipe.fingerprint(),
            "classes": [pipe.class_name(k) for k in range(s.classes)],
            "size": s.size * vae.downsample if vae else s.size,
            "latent": vae is not None,
            "scales": list(s.scales),
            "width": self.generator.width,
            "directions": len(self.directions),
            "backend": pipe.backend,
            "device": pipe.device.type,
        }

    @cached_property
    def directions(self) -> Tensor:
        """Principal directions, (m, d)."""
        return principal_directions(self.pipe, MAX_DIRECTIONS)

    # -- styles ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def styles(self, points: Sequence[Point]) -> Tensor:
        """w of points, (n, d). Raises UserError for a class that is not there, or a style that is none."""
        labels = self.pipe.class_numbers([p.label for p in points])
        others = self.pipe.class_numbers([p.label if p.other is None else p.other for p in points])
        mix = torch.tensor([[p.mix] for p in points], device=self.pipe.device)
        psi = torch.tensor([[check_psi(p.psi)] for p in points], device=self.pipe.device)
        y, y_other = (torch.tensor(c, device=self.pipe.device) for c in (labels, others))
        z = sample_z([p.seed for p in points], self.generator.z_dim)
        w = self.pipe.style(labels, (), z=z)
        other = w.clone() if others == labels else self.pipe.style(others, (), z=z)
        given = [i for i, p in enumerate(points) if p.w is not None]
        if given:
            w[given] = other[given] = torch.stack([self.read(points[i].w or "") for i in given])
        mean, mean_other = (self.generator.truncate(v, c, 0.0) for v, c in ((w, y), (other, y_other)))
        other[given] += mean_other[given] - mean[given]  # as far from the mean of the other class
        w, mean = (torch.lerp(a, b, mix) for a, b in ((w, other), (mean, mean_other)))
        w = torch.where(psi == 1, w, mean + psi * (w - mean))
        amounts = np.zeros((len(points), len(self.directions)), np.float32)
        for i, p in enumerate(points):
            require(
                len(p.directions) <= amounts.shape[1],
                "number of directions",
                len(p.directions),
                f"at most {amounts.shape[1]}",
            )
            amounts[i, : len(p.directions)] = p.directions
        return w + torch.from_numpy(amounts).to(w) @ self.directions if amounts.any() else w

    def read(self, text: str) -> Tensor:
        """A style (d,) from base64. Raises UserError for anything else."""
        d = self.generator.width
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise UserError("style is no base64: must be what the studio gave") from None
        require(
            len(data) == 4 * d, "size of the style", f"{len(data)} bytes", f"{4 * d}, for {d} numbers of this generator"
        )
        w = torch.from_numpy(np.frombuffer(data, "<f4").copy())
        if not bool(w.isfinite().all()) or float(w.abs().max()) > 1e4:
            raise UserError("style has numbers that are not finite or beyond 10,000")
        return w.to(self.pipe.device)

    # -- pictures ----------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Header and arrays for a request: w (n, d) of a single point; images (n, P, P, 1 or 3); and if asked for h, and x0..xK.

        Raises UserError for what the generator has not.
        """
        self.milliseconds = {}
        single = len(request.points) == 1
        require(
            single or not (request.stages or request.to), "number of points", len(request.points), "1 with stages or to"
        )
        with self.timed("style"):
            w = self.styles([*request.points, *([request.to] if request.to else [])])
            if request.to:
                w = torch.lerp(w[:1], w[1:], request.at)
        with self.timed("generator"):
            made = self.pipe(w=w, stages=request.stages)
        parts = {"w": w.float().cpu().numpy()} if single else {}
        measures: dict[str, list[float | None]] = {}
        with self.timed("decoder" if self.pipe.vae else "pixels"):
            if request.stages:
                h, x, measures = self.explored(made)
                parts |= {"images": h[-1:], "h": h} | {f"x{k}": x_k for k, x_k in enumerate(x)}
            else:
                parts["images"] = made.array
        header = {"id": request.id, "model": request.model, "panel": request.panel, "step": self.pipe.step}
        return header | {"alignment": measures, "ms": self.milliseconds}, parts

    def pieces(self, request: Request) -> list[Request]:
        """The request; where a decoder takes its time parts of it, between which others are answered."""
        n = len(request.points)
        size = AT_ONCE if self.pipe.vae else n
        return [structs.replace(request, points=request.points[i : i + size]) for i in range(0, n, size)]

    def explored(self, made: Samples) -> tuple[np.ndarray, list[np.ndarray], dict[str, list[float | None]]]:
        """Of one sample with its stages: pixels of h_0..h_K, of x_0..x_K, and the measures of its alignment per stage."""
        assert made.stages is not None
        pyramid, decode = self.pipe.pyramid, made.decode
        h = made.stage_array[:, 0]
        x = [*(to_bytes(decode(x_k)) for x_k in pyramid(made.stages)[:-1]), h[-1:]]  # x_K is h_K
        found = alignment(made.stages, pyramid)
        return (
            h,
            x,
            {name: [rounded(v) for v in values[0].tolist()] for name, values in found.items()},
        )

    def film(self, film: Film) -> Iterator[np.ndarray]:
        """The frames of a walk, uint8 (P, P, 1 or 3)."""
        w = self.styles(film.points)
        w = torch.cat([w, w[:1]]) if film.loop else w
        per_leg = max(1, round(film.seconds * film.rate))
        t = torch.arange(per_leg, device=w.device)[:, None] / per_leg
        legs = [torch.lerp(a, b, t) for a, b in pairwise(w)]
        way = torch.cat(legs if film.loop else [*legs, w[-1:]])
        for part in way.split(32):
            yield from self.pipe(w=part).array

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.milliseconds[part] = round(1000 * (time.perf_counter() - began), 2)


def joined(
    answers: Sequence[tuple[dict[str, Any], dict[str, np.ndarray]]],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One answer of those to the pieces of a request."""
    header, parts = answers[-1]
    if len(answers) == 1:
        return header, parts
    times: Counter[str] = sum((Counter(h["ms"]) for h, _ in answers), Counter())
    return header | {"ms": dict(times)}, {"images": np.concatenate([p["images"] for _, p in answers])}


def rounded(value: float) -> float | None:
    """Four digits behind the point; None for what JSON has no number for."""
    return round(value, 4) if math.isfinite(value) else None
