"""What values are allowed: one rule, one function, one line of error."""

from __future__ import annotations

import itertools
import math
import re
from numbers import Integral
from typing import TYPE_CHECKING

from catgan.errors import UserError

if TYPE_CHECKING:
    from catgan.config import Config

MAX_SEED = 2**63
WITHOUT_REPRESENTATION = "--objective.representation 0 --discriminator.representation-dim 0"

# The numbers that each metric of an evaluation gives.
NUMBERS = {
    "distance": ("frechet_distance",),
    "kid": ("kid", "kid_std"),
    "score": ("inception_score", "inception_score_std"),
    "precision_recall": ("precision", "recall"),
    "class_distance": ("class_distance",),
    "recognised": ("recognised",),
}


def require(ok: bool, name: str, value: object, allowed: str, todo: str = "") -> None:
    """Raise UserError unless ok: the field, its value, what is allowed, what to do."""
    if not ok:
        raise UserError(f"{name} is {value}: must be {allowed}" + (f"; {todo}" if todo else ""))


def check_scales(size: int, scales: tuple[int, ...], patches: tuple[int, ...]) -> None:
    """Raise UserError unless scales rise, end at the sample size and are divisible by their patches."""
    shown = ",".join(map(str, scales))
    require(len(scales) >= 1 and all(s >= 1 for s in scales), "sample.scales", shown or "empty", "positive sizes")
    require(all(a < b for a, b in itertools.pairwise(scales)), "sample.scales", shown, "increasing")
    require(scales[-1] == size, "sample.scales", shown, f"a list that ends at sample.size ({size})")
    require(
        len(patches) == len(scales),
        "discriminator.patches",
        ",".join(map(str, patches)),
        f"{len(scales)} sizes, one per scale",
    )
    for k, (s, p) in enumerate(zip(scales, patches, strict=True)):
        require(
            p >= 1 and s % p == 0,
            f"scale {k}",
            s,
            f"divisible by its patch size ({p})",
            "change sample.scales or discriminator.patches",
        )


def check_width(name: str, width: int, heads: int) -> None:
    """Raise UserError unless heads divide the width into head sizes divisible by 4 (two axes, pairs)."""
    require(width >= 4 and width % 4 == 0, f"{name}.width", width, "a positive multiple of 4")
    require(heads >= 1 and width % heads == 0, f"{name}.width", width, f"divisible by {name}.heads ({heads})")
    require(
        (width // heads) % 4 == 0,
        f"{name}.heads",
        heads,
        f"such that the head size ({width // heads}) is divisible by 4",
    )


def check_depth(depth: int, stages: int) -> None:
    """Raise UserError unless the generator's blocks split evenly into stages."""
    below = max(stages, depth // stages * stages)
    require(
        depth >= 1 and depth % stages == 0,
        "generator.depth",
        depth,
        f"divisible by the number of scales ({stages})",
        f"use {below} or {below + stages}",
    )


def check_patch(size: int, patch: int) -> None:
    """Raise UserError unless the generator's patches tile the sample."""
    require(patch >= 1 and size % patch == 0, "generator.patch", patch, f"a divisor of sample.size ({size})")


def check_seed(seed: int, name: str = "seed") -> int:
    """Return the seed if it is in [0, 2^63), else raise UserError."""
    require(isinstance(seed, Integral) and 0 <= seed < MAX_SEED, name, seed, "in [0, 2^63)")
    return int(seed)


def check_psi(psi: float) -> float:
    """Return the truncation psi if it is in [0, 1], else raise UserError."""
    require(0.0 <= psi <= 1.0, "psi", psi, "in [0, 1] (1 is no truncation)")
    return psi


def validate(c: Config) -> None:
    s, g, d, o, t = c.sample, c.generator, c.discriminator, c.objective, c.training
    for name, value in (
        ("sample.size", s.size),
        ("sample.channels", s.channels),
        ("sample.classes", s.classes),
        ("generator.depth", g.depth),
        ("generator.patch", g.patch),
        ("generator.z_dim", g.z_dim),
        ("discriminator.depth", d.depth),
        ("discriminator.head_dim", d.head_dim),
        ("encoder.size", c.encoder.size),
        ("training.steps", t.steps),
        ("training.batch", t.batch),
        ("log.every", c.log.every),
        ("log.preview_every", c.log.preview_every),
        ("log.preview_classes", c.log.preview_classes),
        ("log.preview_rows", c.log.preview_rows),
        ("log.diagnose_every", c.log.diagnose_every),
        ("log.diagnose_samples", c.log.diagnose_samples),
        ("eval.batch", c.eval.batch),
        ("checkpoint.every", c.checkpoint.every),
        ("checkpoint.keep", c.checkpoint.keep),
    ):
        require(value >= 1, name, value, "at least 1")
    check_scales(s.size, s.scales, d.patches)
    check_depth(g.depth, len(s.scales))
    check_width("generator", g.width, g.heads)
    check_width("discriminator", d.width, d.heads)
    check_patch(s.size, g.patch)
    if o.consistency_weights is not None:
        require(
            len(o.consistency_weights) == len(s.scales) - 1,
            "objective.consistency_weights",
            o.consistency_weights,
            f"{len(s.scales) - 1} numbers, one per stage but the last",
        )
        for number in o.consistency_weights:
            require(0 <= number < math.inf, "objective.consistency_weights", number, "at least 0 and finite")
    require(d.representation_dim >= 0, "discriminator.representation_dim", d.representation_dim, "at least 0")
    for name, share in (
        ("augment.color", c.augment.color),
        ("augment.translation", c.augment.translation),
        ("augment.cutout", c.augment.cutout),
        ("augment.flip", c.augment.flip),
    ):
        require(0.0 <= share <= 1.0, name, share, "in [0, 1]")
    require(0.0 < o.penalty_fraction <= 1.0, "objective.penalty_fraction", o.penalty_fraction, "in (0, 1]")
    for name, number in (
        ("objective.penalty_eps", o.penalty_eps),
        ("objective.penalty_end", 1.0 if o.penalty_end is None else o.penalty_end),
        ("optimizer.lr_generator", c.optimizer.lr_generator),
        ("optimizer.lr_discriminator", c.optimizer.lr_discriminator),
        ("optimizer.clip", c.optimizer.clip),
        ("sample.latent_scale", s.latent_scale),
        ("optimizer.ema_half_life", c.optimizer.ema_half_life),
        ("training.timeout", t.timeout),
    ):
        require(0.0 < number < math.inf, name, number, "above 0 and finite")
    for name, number in (
        ("objective.penalty", o.penalty),
        ("objective.penalty_anneal", o.penalty_anneal),
        ("objective.consistency", o.consistency),
        ("objective.representation", o.representation),
        ("optimizer.weight_decay", c.optimizer.weight_decay),
        ("optimizer.ema_warmup", c.optimizer.ema_warmup),
        ("training.micro_batch", t.micro_batch),
        ("training.threads", t.threads),
        ("eval.every", c.eval.every),
        ("data.workers", c.data.workers),
    ):
        require(0 <= number < math.inf, name, number, "at least 0 and finite")
    for name, beta in (("optimizer.beta1", c.optimizer.beta1), ("optimizer.beta2", c.optimizer.beta2)):
        require(0.0 <= beta < 1.0, name, beta, "in [0, 1)")
    if o.representation:
        require(
            d.representation_dim > 0,
            "discriminator.representation_dim",
            d.representation_dim,
            f"at least 1 with objective.representation {o.representation:g}",
            f"use 768 for DINOv2-B; to train without: {WITHOUT_REPRESENTATION}",
        )
        for name, moved in (("augment.translation", c.augment.translation), ("augment.flip", c.augment.flip)):
            require(
                not (c.encoder.cached and moved),
                name,
                moved,
                "0 with encoder.cached, whose features are of images as they are",
            )
    check_seed(t.seed, "training.seed")
    require(c.eval.samples >= 2, "eval.samples", c.eval.samples, "at least 2")
    given_by = {m: n for n, made in NUMBERS.items() for m in made}
    metric = given_by[c.eval.best]
    require(
        not c.eval.every or metric in c.eval.metrics,
        "eval.best",
        c.eval.best,
        "a number that eval.metrics gives",
        f"add {metric} to eval.metrics",
    )
    require(
        bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", t.device)), "training.device", t.device, "auto, cpu, cuda or cuda:N"
    )
