"""Do the numbers of `catgan evaluate` measure what they should? `python benchmarks/distances.py --out distances.json`

Fashion-MNIST's test half against its train half: as it is (the floor), and degraded in known ways at rising strengths.
Each degradation names the metrics that must get worse with every step, and those that must stay. What does not is
listed at the end, and the exit code is then 1. A second floor compares two halves of the train half.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from catgan.data.datasets import Images, fashion_folder, fashion_mnist
from catgan.evaluation.collect import Work
from catgan.evaluation.evaluator import Evaluator
from catgan.evaluation.features import FeatureSpace
from catgan.evaluation.opening import open_features, open_reference
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.sources import DatasetImages, ImageSource

COLUMNS = ("frechet_distance", "kid", "class_distance", "precision", "recall", "class_accuracy")
PLAIN = Protocol(
    features="classifier", metrics=("distance", "kid", "precision_recall", "class_distance", "class_accuracy")
)
WORK = Work(batch=250, quiet=False)

Degrade = Callable[[Tensor, Tensor, float, torch.Generator], tuple[Tensor, Tensor]]


def noise(x: Tensor, y: Tensor, deviation: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Gaussian noise; x is (n, 1, S, S) in [-1, 1], so that 2 is the whole range."""
    return (x + deviation * torch.randn(x.shape, generator=draw)).clamp(-1, 1), y


def blur(x: Tensor, y: Tensor, deviation: float, _: torch.Generator) -> tuple[Tensor, Tensor]:
    """A Gaussian filter; its standard deviation is in pixels."""
    reach = int(4 * deviation) + 1
    kernel = (-torch.arange(-reach, reach + 1).square() / (2 * deviation**2)).exp()
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), kernel)
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), kernel.transpose(2, 3)), y


def salt(x: Tensor, y: Tensor, share: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """A share of the pixels turns white."""
    return x.masked_fill(torch.rand(x.shape, generator=draw) < share, 1.0), y


def contrast(x: Tensor, y: Tensor, lost: float, _: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pixels move towards the mid grey by a share of their distance from it."""
    return x * (1 - lost), y


def labels(x: Tensor, y: Tensor, share: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """A share of the images exchange their classes; the images stay."""
    chosen = torch.randperm(len(y), generator=draw)[: round(share * len(y))]
    y = y.clone()
    y[chosen] = y[chosen.roll(1)]
    return x, y


def classes(x: Tensor, y: Tensor, dropped: float, _: torch.Generator) -> tuple[Tensor, Tensor]:
    """The last classes go; the other images stay, so there are fewer."""
    kept = y < 10 - dropped
    return x[kept], y[kept]


@dataclass(frozen=True)
class Degradation:
    """A way of making images worse, with rising strengths, and which way each metric must then go (0: nowhere)."""

    function: Degrade
    strengths: tuple[float, ...]
    expected: dict[str, int]


PIXELS = {"frechet_distance": 1, "kid": 1, "class_distance": 1, "precision": -1, "class_accuracy": -1}
DEGRADATIONS = {
    "noise": Degradation(noise, (0.1, 0.2, 0.4, 0.8), PIXELS),
    # Not precision: an image that is blurred a little is more typical, so more images fall among the reference's.
    "blur": Degradation(blur, (0.5, 1, 2, 4), {m: way for m, way in PIXELS.items() if m != "precision"}),
    "salt": Degradation(salt, (0.01, 0.03, 0.1, 0.3), PIXELS),
    "contrast": Degradation(contrast, (0.05, 0.1, 0.2, 0.4), PIXELS),
    "labels": Degradation(
        labels, (0.05, 0.1, 0.2, 0.4), {"class_distance": 1, "class_accuracy": -1, "frechet_distance": 0, "kid": 0}
    ),
    "classes": Degradation(classes, (2, 4, 6), {"frechet_distance": 1, "kid": 1, "recall": -1}),
}


def degraded(images: Images, name: str, strength: float, seed: int = 0) -> ImageSource:
    """The images after a degradation; equal draws at every strength."""
    draw = torch.Generator().manual_seed(seed)
    x, y = DEGRADATIONS[name].function(images.pixels, images.labels, strength, draw)
    return DatasetImages(Images(x.numpy(), y.numpy(), images.class_names), f"{name} {strength:g}")


def part(images: Images, rows: np.ndarray) -> Images:
    return Images(images.pixels[rows].numpy(), images.labels[rows].numpy(), images.class_names)


def moves(values: list[float], way: int) -> bool:
    """Whether values rise (1), fall (-1) or stay (0) from each one to the next."""
    steps = np.diff(values)
    return bool((steps * way > 0).all() if way else np.allclose(values, values[0], rtol=1e-4, atol=1e-6))


def failures(series: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    """What does not go as expected. series: numbers of each degradation, the floor first, then by strength."""
    word = {1: "rise", -1: "fall", 0: "stay"}
    for name, rows in series.items():
        for metric, way in DEGRADATIONS[name].expected.items():
            values = [row[metric] for row in rows if metric in row]
            if len(values) == len(rows) and not moves(values, way):
                yield f"{name}: {metric} does not {word[way]}: {', '.join(f'{v:.4g}' for v in values)}"


def line(name: str, numbers: dict[str, float]) -> str:
    return f"{name:<16}" + "".join(f"{numbers[c]:>18.4f}" if c in numbers else f"{'-':>18}" for c in COLUMNS)


def measure(source: ImageSource, real: ImageSource, space: FeatureSpace, protocol: Protocol) -> dict[str, float]:
    began = time.perf_counter()
    reference = open_reference((None, real), space, protocol, WORK)
    numbers = Evaluator(reference, space, protocol, WORK).measure(source).metrics
    print(line(source.name, numbers) + f"{time.perf_counter() - began:>10.0f} s", flush=True)
    return numbers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-path", help="folder of the four IDX files; default: where Debian puts them")
    parser.add_argument("--features", choices=("classifier", "inception", "dinov2"), default="classifier")
    parser.add_argument("--feature-weights", help="local weights of inception (a file) or dinov2 (a folder)")
    parser.add_argument("--count", type=int, default=10_000, help="test images, the first ones (default: all, 10,000)")
    parser.add_argument("--reference-features", type=int, default=5_000, help="train images of KID, precision, recall")
    parser.add_argument("--kid-subsets", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON file of all numbers")
    o = parser.parse_args()

    folder = fashion_folder(o.data_path)
    train, test = fashion_mnist(folder, 32), part(fashion_mnist(folder, 32, "t10k"), np.arange(o.count))
    real = DatasetImages(train, "fashion-mnist")
    space = open_features(o.features, torch.device("cpu"), o.feature_weights, real, WORK)
    protocol = replace(
        PLAIN, features=o.features, reference_features=o.reference_features, kid_subsets=o.kid_subsets, samples=o.count
    )
    if not space.names_classes:
        protocol = replace(protocol, metrics=("distance", "kid", "precision_recall"))

    print(f"{'':<16}" + "".join(f"{c:>18}" for c in COLUMNS))
    without_rows = replace(protocol, metrics=tuple(m for m in protocol.metrics if m not in ("kid", "precision_recall")))
    even, odd = (
        DatasetImages(train, f"train, {n}", np.arange(i, len(train), 2)) for i, n in enumerate(("even", "odd"))
    )
    halves = measure(even, odd, space, without_rows)
    floor = measure(DatasetImages(test, "test"), real, space, protocol)
    series = {
        name: [floor] + [measure(degraded(test, name, s), real, space, protocol) for s in kind.strengths]
        for name, kind in DEGRADATIONS.items()
    }
    wrong = list(failures(series))
    print("\n".join(wrong) or "everything goes the way it should")
    if o.out:
        about: dict[str, Any] = {"features": o.features, "accuracy": getattr(space, "accuracy", None)}
        strengths = {name: [0, *kind.strengths] for name, kind in DEGRADATIONS.items()}
        made = about | {"count": o.count, "halves": halves, "strengths": strengths, "series": series, "failures": wrong}
        o.out.write_text(json.dumps(made, indent=2) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
