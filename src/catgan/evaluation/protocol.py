"""How a number was measured: stored with every result, since a distance without it means nothing."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from catgan.bounds import check_psi, check_seed
from catgan.errors import require
from catgan.evaluation.nearest import Nearest
from catgan.images import Rounding
from catgan.metrics import FEATURES, METRICS, RENAMED, Features, Metric, titles
from catgan.system.files import digest
from catgan.version import __version__

PACKAGES = ("torch", "torch-fidelity", "torchvision", "transformers", "numpy", "pillow")
ROUNDINGS = {
    "round": "round(127.5 x + 127.5), clamped to 0..255, uint8",
    "floor": "floor(127.5 x + 127.5), clamped to 0..255, uint8",
}


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"catgan": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(frozen=True)
class Protocol:
    """Everything that a result depends on, beside the samples themselves."""

    features: Features = "inception"
    """Feature space."""
    metrics: tuple[str, ...] = ("distance",)
    """What is measured: names in `catgan.metrics.METRICS`."""
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
    """How many reference images, evenly spread, KID, precision, recall and authenticity look at."""
    kid_subsets: int = 100
    """Subsets that KID averages over, of at most 1,000 samples each."""
    score_splits: int = 10
    """Parts of the samples that inception_score averages over."""
    neighbours: int = 3
    """k of precision's and recall's balls."""
    rounding: Rounding = "round"
    """How pixels become bytes: to the nearest (also what iMF's truncation of 127.5 x + 128 does), or down, as GAT's code."""

    def check(self) -> Protocol:
        """Return self, or raise UserError naming the field, its value and what is allowed."""
        require(self.features in FEATURES, "features", self.features, f"one of {', '.join(FEATURES)}")
        for name in self.metrics:
            todo = f"{name} is now {RENAMED[name]}" if name in RENAMED else ""
            require(name in METRICS, "metrics", name, f"among {', '.join(METRICS)}", todo)
        for name in ("reference_features", "kid_subsets", "score_splits", "neighbours"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.samples >= 2, "samples", self.samples, "at least 2")
        check_psi(self.psi)
        check_seed(self.first_seed + self.samples - 1, "first_seed + samples - 1")
        return self

    def of_given_images(self, count: int) -> Protocol:
        """The protocol without what only generated samples have: given images are what they are."""
        return replace(
            self,
            samples=count,
            class_sampling="as given",
            weights="none",
            first_seed=0,
            psi=1.0,
            precision="float32",
            rounding="round",
        )

    @property
    def wanted(self) -> dict[str, Metric]:
        """What the table says of the metrics."""
        return {name: METRICS[name] for name in self.metrics}

    @property
    def rows_kept(self) -> bool:
        """Whether single features are needed, not only their moments."""
        return any(metric.rows for metric in self.wanted.values())


IMAGENET_FID50K = Protocol(metrics=("distance", "inception_score"))
PRESETS = {
    "imagenet-fid50k": IMAGENET_FID50K,  # labels at random, as ADM, DiT and GAT
    "imagenet-fid50k-balanced": replace(IMAGENET_FID50K, class_sampling="balanced"),  # 50 of each class, as iMF and pMF
}
LABELS = {"uniform": "labels at random", "balanced": "classes balanced"}


@dataclass(frozen=True)
class Result:
    """Numbers, their names, and how they came about."""

    metrics: dict[str, float]
    protocol: Protocol
    about: dict[str, Any]  # samples, reference, feature space, versions
    seconds: float
    warnings: list[str] = field(default_factory=list)
    step: int = 0
    failures: list[str] = field(default_factory=list)  # of the generator, while it trains
    nearest: Nearest | None = None  # samples beside the images that they may be copies of, if asked for

    @property
    def names(self) -> dict[str, str]:
        """What each number is called. With Inception's the sampling of classes is said, which moves FID by a tenth."""
        known, p = titles(self.protocol.features), self.protocol
        labels = (
            f" ({LABELS[p.class_sampling]})"
            if p.features.startswith("inception") and p.class_sampling in LABELS
            else ""
        )
        return {name: known[name] + labels for name in self.metrics}

    @property
    def measured_by(self) -> str:
        """A digest of all that makes two numbers of one name comparable: they are not, where a resumed run changed it."""
        protocol = str(replace(self.protocol, metrics=())).replace(
            ", rounding='round'", ""
        )  # as before there was a choice
        return digest(protocol, self.about["reference"]["identity"], self.about["feature_space"]["identity"])

    def to_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "metrics": self.metrics,
            "names": self.names,
            "protocol": asdict(self.protocol) | self.about,
            "warnings": self.warnings,
            "failures": self.failures,
            "seconds": round(self.seconds, 1),
        } | ({"nearest": self.nearest.to_dict()} if self.nearest else {})

    def table(self) -> str:
        """A line per number; empty where none could be had, of which warnings tell."""
        width = max((len(n) for n in self.names.values()), default=0)
        return "\n".join(f"{self.names[m]:<{width}}  {value:.6g}" for m, value in self.metrics.items())


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample deviation of a number that was measured several times; of one there is no deviation."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
