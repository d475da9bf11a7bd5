"""How a number was measured: stored with every result, since a distance without it means nothing."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from catgan.bounds import check_psi, check_seed
from catgan.errors import require
from catgan.version import __version__

Features = Literal["inception", "dinov2", "classifier"]
Metric = Literal["distance", "kid", "score", "precision_recall", "class_distance", "recognised"]
PACKAGES = ("torch", "torch-fidelity", "torchvision", "transformers", "numpy", "pillow")
ROUNDING = "round(127.5 x + 127.5), clamped to 0..255, uint8"


HIGHER_IS_BETTER = ("inception_score", "precision", "recall", "recognised")  # of the others lower is


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"catgan": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Protocol:
    """Everything that a result depends on, beside the samples themselves."""

    features: Features = "inception"
    """Feature space."""
    metrics: tuple[Metric, ...] = ("distance",)
    """What is measured."""
    samples: int = 50_000
    """How many samples are generated or read."""
    class_sampling: Literal["uniform", "balanced", "as given"] = "uniform"
    """Classes of generated samples: uniform at random, in turn, or those of given images."""
    first_seed: int = 0
    """Sample i has seed first_seed + i."""
    psi: float = 1.0
    """Truncation; 1 (none) is what published numbers use."""
    weights: Literal["ema", "generator", "none"] = "ema"
    """Averaged (EMA) or raw weights; none for given images."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the generator; features are always computed in float32."""
    reference_features: int = 50_000
    """How many reference images, evenly spread, KID, precision and recall look at."""
    kid_subsets: int = 100
    """Subsets that KID averages over, of at most 1,000 samples each."""
    score_splits: int = 10
    """Parts of the samples that the Inception Score averages over."""
    neighbours: int = 3
    """k of precision's and recall's balls."""

    def check(self) -> Protocol:
        """Return self, or raise UserError naming the field, its value and what is allowed."""
        for name in ("samples", "reference_features", "kid_subsets", "score_splits", "neighbours"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.samples >= 2, "samples", self.samples, "at least 2")
        check_psi(self.psi)
        check_seed(self.first_seed + self.samples - 1, "first_seed + samples - 1")
        return self

    def of_given_images(self, count: int) -> Protocol:
        """The protocol without what only generated samples have: given images are what they are."""
        return replace(
            self, samples=count, class_sampling="as given", weights="none", first_seed=0, psi=1.0, precision="float32"
        )

    @property
    def rows_kept(self) -> bool:
        """Whether single features are needed, not only their moments."""
        return bool({"kid", "precision_recall"} & set(self.metrics))


IMAGENET_FID50K = Protocol(metrics=("distance", "score"))
PRESETS = {"imagenet-fid50k": IMAGENET_FID50K}


def titles(features: str) -> dict[str, str]:
    """The name under which each number may be reported. Only Inception's are FID, KID and Inception Score."""
    kind = {"inception": "", "dinov2": "DINOv2 ", "classifier": "classifier "}[features]
    fid = features == "inception"
    return {
        "frechet_distance": "FID" if fid else f"{kind}Frechet distance",
        "kid": "KID" if fid else f"{kind}kernel distance",
        "kid_std": "KID, deviation over subsets" if fid else f"{kind}kernel distance, deviation over subsets",
        "inception_score": "Inception Score" if fid else f"{kind}score",
        "inception_score_std": "Inception Score, deviation over splits"
        if fid
        else f"{kind}score, deviation over splits",
        "precision": f"{kind}precision",
        "recall": f"{kind}recall",
        "class_distance": "per-class FID, mean" if fid else f"per-class {kind}Frechet distance, mean",
        "recognised": "recognised as the class asked for",
    }


@dataclass(frozen=True)
class Result:
    """Numbers, their names, and how they came about."""

    metrics: dict[str, float]
    protocol: Protocol
    about: dict[str, Any]  # samples, reference, feature space, versions
    seconds: float
    warnings: list[str] = field(default_factory=list)
    step: int = 0

    @property
    def names(self) -> dict[str, str]:
        known = titles(self.protocol.features)
        return {name: known[name] for name in self.metrics}

    def to_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "metrics": self.metrics,
            "names": self.names,
            "protocol": asdict(self.protocol) | self.about,
            "warnings": self.warnings,
            "seconds": round(self.seconds, 1),
        }

    def table(self) -> str:
        """A line per number."""
        width = max(len(n) for n in self.names.values())
        return "\n".join(f"{self.names[m]:<{width}}  {value:.6g}" for m, value in self.metrics.items())
