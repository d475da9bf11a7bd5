"""What published models cost, by closed form, and how CAT compares (paper tables 2, 3 and 7, appendix A.2).

Nothing here needs PyTorch: a transformer's matrix products follow from its sizes. CAT and GAT are counted on their
networks in `compute.py`; `account` puts both side by side, with the figures that the paper states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

EPOCH = 1_281_167  # training images of ImageNet-1k
CAT = "arXiv:2605.26449"
PAPER_EPOCHS = {"cat-b2": 20, "cat-m2": 40, "cat-h2": 60, "cat-b2-pixels": 40}  # section 3.1, table 2, A.3
PMF, DRIFTING = "arXiv:2601.22158", "arXiv:2602.04770"
FAKES_TWICE = 4.0  # generator passes per step: 1 for the discriminator's fakes, then 3 to train on new ones


def blocks(depth: int, width: int, hidden: int, tokens: int, matrices: int = 3) -> float:
    """GMACs of plain transformer blocks on one sequence.

    Per block: projections to q, k, v and out, attention among all tokens, and a feed-forward layer of hidden width
    `hidden` with `matrices` matrices (3 for SwiGLU, 2 without a gate).
    """
    per_token = 4 * width**2 + matrices * width * hidden
    return depth * (tokens * per_token + 2 * tokens**2 * width) / 1e9


def dinov2_b() -> float:
    """GMACs of DINOv2's ViT-B/14 at 224 px: [cls] and 16 x 16 patches, all outputs, no classifier."""
    patches = 16 * 16 * (14 * 14 * 3) * 768 / 1e9
    return blocks(depth=12, width=768, hidden=3072, tokens=257, matrices=2) + patches


@dataclass(frozen=True)
class Model:
    """What it costs to train and to sample a model: forward costs times passes, times images seen."""

    name: str
    forward: Mapping[str, float]
    """GMACs per sample of one forward pass of each network or path."""
    passes: Mapping[str, float]
    """How many forward passes' worth one training step spends on each: a trained one counts 3, a blocked one 1."""
    auxiliary: float
    """GMACs per sample and step beside these: representation head and frozen encoder."""
    sampling: float
    """GMACs per generated sample."""
    images: float
    """Training images seen, repeats included."""
    source: str
    """Where sizes, passes and epochs come from."""

    @property
    def formula(self) -> str:
        terms = [f"{n:g} {name}" if n != 1 else name for name, n in self.passes.items()]
        return " + ".join(terms + [f"{self.auxiliary:.1f}"] * (self.auxiliary > 0))

    @property
    def per_sample(self) -> float:
        """GMACs per sample and training step."""
        return sum(n * self.forward[name] for name, n in self.passes.items()) + self.auxiliary

    @property
    def total(self) -> float:
        """GMACs of the whole training."""
        return self.per_sample * self.images

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "sampling_gmacs": self.sampling,
            "forward_gmacs": dict(self.forward),
            "passes": dict(self.passes),
            "auxiliary_gmacs": self.auxiliary,
            "formula": self.formula,
            "gmacs_per_sample": self.per_sample,
            "images": self.images,
            "epochs": self.images / EPOCH,
            "total_gmacs": self.total,
            "source": self.source,
        }


def imf_xl2(joint: bool = True) -> Model:
    """iMF-XL/2: 40 shared blocks of width 1024, then 8 for u and 8 for v, on 256 patches and 20 conditioning tokens.

    F_u and F_v run one of the two heads, F_uv both; without `joint`, F_uv is counted as if it ran one.
    """
    width, hidden, tokens = 1024, 2730, 276
    patches = 256 * 16 * width / 1e9  # into the network, or out of one head
    conditions = 4 * (256 + width) * width / 1e9  # duration, guidance scale, both ends of its interval
    one = blocks(48, width, hidden, tokens) + 2 * patches + conditions
    both = one + blocks(8, width, hidden, tokens) + patches
    return Model(
        name="iMF-XL/2",
        forward={"F_v": one, "F_u": one, "F_uv": both if joint else one},
        passes={"F_v": 3, "F_u": 1, "F_uv": 3},
        auxiliary=0.0,
        sampling=one,
        images=800 * EPOCH,
        source=f"sizes: arXiv:2512.02012, github.com/Lyy-iiis/imeanflow; passes: {CAT} A.2; epochs: {CAT} table 2",
    )


@dataclass(frozen=True)
class Reported:
    """What is published of a one-step generator of ImageNet-256 that was trained from scratch; None is not stated there."""

    name: str
    space: str
    """latent or pixel."""
    fid: float
    """FID-50K, as published. Classes are drawn at random or balanced: see the documentation of `catgan evaluate`."""
    parameters: int
    """Millions, of the generator alone."""
    gmacs: float | None
    """Per sample, of the generator alone: in latent space decoding comes on top."""
    epochs: int | None
    """Passes over ImageNet; of drifting models, as many generated samples (200,000 steps of 8,192 are their 1,280)."""
    source: str


REPORTED = (
    Reported("MeanFlow-XL/2", "latent", 3.43, 676, 119, 240, f"{CAT} table 2"),
    Reported("pMF-B/16", "pixel", 3.12, 118, 33, 320, f"{PMF} tables 6, 8"),
    Reported("pMF-L/16", "pixel", 2.52, 410, 117, 320, f"{PMF} tables 6, 8"),
    Reported("pMF-H/16", "pixel", 2.22, 956, 271, 360, f"{PMF} tables 6, 8"),
    Reported("GAT-XL/2", "latent", 2.18, 602, 119, 60, f"{CAT} table 2"),
    Reported("CAT-M/2", "latent", 1.93, 261, 46, 40, f"{CAT} table 2"),
    Reported("Drifting B/16", "pixel", 1.76, 134, None, 640, f"{DRIFTING} tables 6, 8"),
    Reported("Drifting B/2", "latent", 1.75, 133, None, 1280, f"{DRIFTING} tables 5, 8"),
    Reported("iMF-XL/2", "latent", 1.72, 610, 175, 800, f"{CAT} table 2"),
    Reported("Drifting L/16", "pixel", 1.61, 464, 87, 640, f"{DRIFTING} tables 6, 8, section 5.2"),
    Reported("CAT-H/2", "latent", 1.56, 960, 167, 60, f"{CAT} table 2"),
    Reported("Drifting L/2", "latent", 1.54, 463, None, 1280, f"{DRIFTING} tables 5, 8"),
)
DECODER = 310  # GMACs of SD's VAE decoder at 256 pixels, as PMF's table 6 states


def counted_model(name: str, counted: Mapping[str, Any], reuse: bool = False) -> Model:
    """A recipe as `compute.compute` counted it, fakes generated twice as in the paper, or with `reuse` as the recipe does."""
    g, d, t = counted["generator"], counted["discriminator"], counted["training"]
    return Model(
        name=name,
        forward={"F_G": g["gmacs"], "F_D": d["gmacs"]},
        passes={"F_G": t["generator_passes"] if reuse else FAKES_TWICE, "F_D": t["discriminator_passes"]},
        auxiliary=t["auxiliary_gmacs"],
        sampling=g["gmacs"],
        images=t["samples"],
        source=f"recipe {counted['recipe']}, counted on its networks",
    )


def account(recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that `catgan compute` shows, as plain data.

    recipes: results of `compute.compute` by name, the three `cat-*` and `gat-xl2` among them.
    """
    h2 = counted_model("CAT-H/2", recipes["cat-h2"])
    models = [
        counted_model("CAT-M/2", recipes["cat-m2"]),
        h2,
        counted_model("CAT-H/2, fakes reused", recipes["cat-h2"], reuse=True),
        counted_model("GAT-XL/2", recipes["gat-xl2"]),
        imf_xl2(),
    ]
    return {
        "unit": "GMACs: 10^9 multiply-accumulates in matrix products and attention",
        "epoch_images": EPOCH,
        "encoder": {"name": "DINOv2 ViT-B/14 at 224 px", "gmacs": dinov2_b(), "source": "closed form"},
        "recipes": dict(recipes),
        "models": [m.to_dict() | {"times_cat_h2": m.total / h2.total} for m in models],
        "decoder_gmacs": DECODER,
        "reported": [asdict(r) for r in sorted(REPORTED, key=lambda r: -r.fid)],
        "paper": beside_paper(recipes),
    }


def beside_paper(recipes: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each figure on size and cost that the paper states, beside ours.

    `relation` is how the paper states it: exactly, approximately, or as a lower bound.
    """
    h2, gat = (counted_model(name, recipes[name]) for name in ("cat-h2", "gat-xl2"))
    imf = imf_xl2()
    b, m, h = (recipes[f"cat-{size}"] for size in ("b2", "m2", "h2"))
    rows = [
        ("parameters of G-B/2, millions", b["generator"]["parameters"] / 1e6, "=", 133, "table 6"),
        ("parameters of G-M/2, millions", m["generator"]["parameters"] / 1e6, "=", 261, "tables 2, 6"),
        ("parameters of G-H/2, millions", h["generator"]["parameters"] / 1e6, "=", 960, "tables 2, 6"),
        ("parameters of D-B/2, millions", b["discriminator"]["parameters"] / 1e6, "=", 96, "table 6"),
        ("sampling CAT-M/2, GMACs", m["generator"]["gmacs"], "=", 46, "table 2"),
        ("sampling CAT-H/2, GMACs", h2.sampling, "=", 166.7, "figures 12, 13"),
        ("sampling GAT-XL/2, GMACs", gat.sampling, "=", 119, "table 2"),
        ("sampling iMF-XL/2, GMACs", imf.sampling, "=", 174.6, "figures 12, 13"),
        ("passes through D per CAT step", h2.passes["F_D"], "=", 10.5, "A.2"),
        ("epochs of CAT-B/2", b["training"]["samples"] / EPOCH, "=", PAPER_EPOCHS["cat-b2"], "section 3.1"),
        ("epochs of CAT-M/2", m["training"]["samples"] / EPOCH, "=", PAPER_EPOCHS["cat-m2"], "table 2"),
        ("epochs of CAT-H/2", h2.images / EPOCH, "=", PAPER_EPOCHS["cat-h2"], "table 2"),
        ("epochs, iMF-XL/2 / CAT-H/2", imf.images / h2.images, "~", 13, "section 1"),
        ("training, iMF-XL/2 / CAT-H/2", imf.total / h2.total, ">", 16, "section 4"),
        ("the same, were F_uv = F_u", imf_xl2(joint=False).total / h2.total, ">", 16, "section 4"),
        ("training, GAT-XL/2 / CAT-H/2", gat.total / h2.total, "~", 2.2, "section 4"),
    ]
    return [
        {
            "figure": figure,
            "ours": ours,
            "relation": relation,
            "paper": paper,
            "difference_percent": 100 * (ours / paper - 1),
            "where": f"{CAT} {where}",
        }
        for figure, ours, relation, paper, where in rows
    ]
