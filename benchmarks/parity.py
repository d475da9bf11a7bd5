"""Does `catgan evaluate` give torch-fidelity's numbers? `python benchmarks/parity.py`

The same PNG files through torch-fidelity's command line, through `catgan evaluate`, and through formulas in float64 that
share no code with either, on the features that torch-fidelity's command line kept. The samples are a shipped model's, as
`catgan sample --format npz` writes them; torch-fidelity reads no .npz and gets its pictures as files. Inception's weights
are random, with batch norms set on these pictures, so that features differ between them; --weights names the real file.
What was found goes to records/parity: as JSON, and as the table that the documentation shows.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from scipy.special import log_softmax

from catgan.cli import main as catgan
from catgan.evaluation.opening import open_images
from catgan.evaluation.protocol import versions
from catgan.metrics import titles
from catgan.studies.perform import checkout, machine
from catgan.system.files import write_text

ROOT = Path(__file__).resolve().parents[1]
SEED = 2020  # of torch-fidelity's draws
EXTRACTOR = "inception-v3-compat"
NAMES = {  # ours, theirs
    "frechet_distance": "frechet_inception_distance",
    "inception_score": "inception_score_mean",
    "inception_score_std": "inception_score_std",
    "kid": "kernel_inception_distance_mean",
    "kid_std": "kernel_inception_distance_std",
    "precision": "precision",
    "recall": "recall",
}


@dataclass(frozen=True)
class Setting:
    """What is compared."""

    model: str = "fashion-mnist"
    real: str = "fashion-mnist:test"
    samples: int = 300
    reals: int = 400
    weights: Path | None = None

    @property
    def subset(self) -> int:
        """Pictures of a KID subset: torch-fidelity's command line must be told, catgan takes what there is."""
        return min(1000, self.samples, self.reals)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plain = Setting()
    parser.add_argument("--model", default=plain.model, help="a shipped model or a run")
    parser.add_argument("--real", default=plain.real, help="real pictures, as --reference of catgan evaluate")
    parser.add_argument("--samples", type=int, default=plain.samples, help="how many of the model's samples")
    parser.add_argument("--reals", type=int, default=plain.reals, help="how many real pictures, the first ones")
    parser.add_argument("--weights", type=Path, help="FID's Inception; default: random weights")
    parser.add_argument("--out", type=Path, default=ROOT / "records" / "parity", help="folder of the record")
    o = parser.parse_args(argv)
    setting = Setting(o.model, o.real, o.samples, o.reals, o.weights)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = compared(setting, Path(folder))
    options = [
        f"--{n} {getattr(o, n)}" for n in ("model", "real", "samples", "reals") if getattr(o, n) != getattr(plain, n)
    ]
    found |= {
        "command": " ".join(["python benchmarks/parity.py", *options, *(["--weights FILE"] if o.weights else [])]),
        "commit": checkout()[0],
        "machine": machine(),
        "versions": versions(),
        "seconds": round(time.monotonic() - began, 1),
    }
    path = o.out / f"{Path(setting.model).name}.json"
    write_text(path, json.dumps(found, indent=2) + "\n")
    write_text(path.with_suffix(".md"), table(found) + "\n")
    print(f"{table(found)}\n\n{path}")
    return 0


def compared(setting: Setting, folder: Path) -> dict[str, Any]:
    """The numbers of all three ways. folder: an empty one, for pictures, weights and features."""
    samples, reals = folder / "samples", folder / "real"
    archive = sampled(setting, folder)
    to_files(np.load(archive)["arr_0"], samples)
    real = open_images(setting.real)
    to_files(real.read(0, setting.reals)[0].permute(0, 2, 3, 1).numpy(), reals)
    weights = setting.weights or random_inception(folder / "inception.pth", [samples, reals])
    theirs, command = by_torch_fidelity(samples, reals, weights, setting.subset, folder / "kept")
    ours = by_catgan(archive, reals, weights, folder)
    alone = by_formula(*kept_features(folder / "kept"), setting.subset)
    rows = {
        name: {"torch_fidelity": theirs[known], "catgan": ours[name], "formula": alone[name]}
        for name, known in NAMES.items()
    }
    for row in rows.values():
        row["difference"] = difference(list(row.values()))
    return {
        "model": setting.model,
        "real": setting.real,
        "samples": setting.samples,
        "reals": setting.reals,
        "weights": "random" if setting.weights is None else setting.weights.name,
        "torch_fidelity_command": command,
        "numbers": rows,
    }


def difference(values: Sequence[float]) -> float:
    """The largest difference of any two values as a share of the largest magnitude."""
    largest = max(map(abs, values))
    return (max(values) - min(values)) / largest if largest else 0.0


# -- pictures and weights ----------------------------------------------------------------------------------------------


def sampled(setting: Setting, folder: Path) -> Path:
    """The .npz that `catgan sample --format npz` writes."""
    by_command("sample", setting.model, "--format", "npz", "--count", setting.samples, "--out", folder)
    return folder / "samples.npz"


def to_files(pixels: np.ndarray, folder: Path) -> None:
    """uint8 (n, H, W, 1 or 3) as PNG files, in the order of their names."""
    folder.mkdir()
    for i, one in enumerate(pixels):
        Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one).save(folder / f"{i:06}.png")


def random_inception(path: Path, folders: Sequence[Path]) -> Path:
    """Random weights of FID's Inception, its batch norms set on the first 16 pictures of each folder.

    Without that all pictures have almost the same features: a fresh network makes signals smaller with every layer.
    """
    from torch_fidelity import FeatureExtractorInceptionV3 as Inception
    from torch_fidelity import feature_extractor_inceptionv3 as port

    torch.manual_seed(0)
    fetch, port.load_state_dict_from_url = port.load_state_dict_from_url, lambda *_, **__: {}
    load, Inception.load_state_dict = Inception.load_state_dict, lambda *_: None
    try:
        network = Inception("random", ["2048", "logits_unbiased"])
    finally:
        port.load_state_dict_from_url, Inception.load_state_dict = fetch, load
    files = [path for folder in folders for path in sorted(folder.iterdir())[:16]]
    pictures = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the running moments become those of this batch
    with torch.no_grad():
        network(torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous())
        network.fc.weight *= 3  # so that the class probabilities of two pictures differ
    torch.save(network.state_dict(), path)
    return path


# -- the three ways ----------------------------------------------------------------------------------------------------


def by_torch_fidelity(
    samples: Path, reals: Path, weights: Path, subset: int, kept: Path
) -> tuple[dict[str, float], str]:
    """The numbers of torch-fidelity's command line, and the command. kept: where it leaves its features."""
    options = [
        "--cpu", "--json", "--fid", "--isc", "--kid", "--prc", "--feature-extractor", EXTRACTOR,
        "--kid-subset-size", subset, "--input1", samples, "--input2", reals,
        "--feature-extractor-weights-path", weights,
        "--cache-root", kept, "--input1-cache-name", "samples", "--input2-cache-name", "real", "--silent",
    ]  # fmt: skip
    command = [sys.executable, "-m", "torch_fidelity.fidelity", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    shown = {samples: "samples", reals: "real", weights: "inception.pth", kept: "kept"}
    return json.loads(done.stdout), " ".join(["fidelity", *(str(shown.get(o, o)) for o in options)])


def by_catgan(archive: Path, reals: Path, weights: Path, folder: Path) -> dict[str, float]:
    """The numbers of `catgan evaluate` for an .npz of samples."""
    metrics = ("distance", "inception_score", "kid", "precision_recall")
    options = ["--features", "inception", "--feature-weights", weights, "--device", "cpu", "--json"]
    out = folder / "result.json"
    by_command("evaluate", archive, "--reference", reals, "--metrics", *metrics, *options, "--out", out)
    found: dict[str, float] = json.loads(out.read_text())["metrics"]
    return found


def by_command(*arguments: object) -> None:
    """Run a catgan command, its output left out. Raises RuntimeError if it fails."""
    with redirect_stdout(io.StringIO()):
        status = catgan([str(a) for a in arguments])
    if status:
        raise RuntimeError(f"catgan {' '.join(map(str, arguments))} ended with {status}")


def kept_features(kept: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What torch-fidelity's command line kept: features (n, 2048) of both sides, and logits of the samples, float64."""

    def read(side: str, layer: str) -> np.ndarray:
        path = kept / f"{side}-{EXTRACTOR}-features-{layer}.pt"
        array: np.ndarray = torch.load(path, weights_only=True).double().numpy()
        return array

    return read("samples", "2048"), read("real", "2048"), read("samples", "logits_unbiased")


def by_formula(x: np.ndarray, y: np.ndarray, logits: np.ndarray, subset: int) -> dict[str, float]:
    """All numbers from their definitions, in float64. x, y: features of samples and real pictures."""
    return {"frechet_distance": frechet(x, y), **score(logits), **kernel(x, y, subset), **manifolds(x, y)}


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """|mu_x - mu_y|^2 + tr S_x + tr S_y - 2 tr (S_x S_y)^(1/2) (Heusel et al., arXiv:1706.08500).

    With A = (x - mu_x) / (n - 1)^(1/2) and B of y likewise, S_x = A^T A, and the eigenvalues of S_x S_y other than 0 are
    the squares of the singular values of A B^T: neither a covariance nor a root of one is formed.
    """
    a, b = ((side - side.mean(0)) / np.sqrt(len(side) - 1) for side in (x, y))
    between = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * between)


def score(logits: np.ndarray, splits: int = 10) -> dict[str, float]:
    """exp of the mean KL divergence of p(y|x) from p(y), per split (Salimans et al., arXiv:1606.03498)."""
    logs = log_softmax(logits[np.random.RandomState(SEED).permutation(len(logits))], axis=1)
    bounds = [i * len(logs) // splits for i in range(splits + 1)]
    scores = []
    for part in (logs[a:b] for a, b in pairwise(bounds)):
        p = np.exp(part)
        scores.append(np.exp((p * (part - np.log(p.mean(0)))).sum(1).mean()))
    return {"inception_score": float(np.mean(scores)), "inception_score_std": float(np.std(scores))}


def kernel(x: np.ndarray, y: np.ndarray, subset: int, subsets: int = 100) -> dict[str, float]:
    """Unbiased squared MMD with the kernel (x y / d + 1)^3 over random subsets (Binkowski et al., arXiv:1801.01401)."""
    draws, found = np.random.RandomState(SEED), []
    within = [((side @ side.T) / x.shape[1] + 1) ** 3 for side in (x, y)]
    across = ((x @ y.T) / x.shape[1] + 1) ** 3
    for _ in range(subsets):
        a, b = (draws.choice(len(side), subset, replace=False) for side in (x, y))
        inside = [(k[np.ix_(r, r)].sum() - k[r, r].sum()) for k, r in zip(within, (a, b), strict=True)]
        found.append(sum(inside) / (subset * (subset - 1)) - 2 * across[np.ix_(a, b)].mean())
    return {"kid": float(np.mean(found)), "kid_std": float(np.std(found))}


def manifolds(x: np.ndarray, y: np.ndarray, k: int = 3) -> dict[str, float]:
    """Share of one side within the k-th nearest neighbour's distance of any of the other (arXiv:1904.06991)."""

    def inside(points: np.ndarray, others: np.ndarray) -> float:
        radii = np.sort(cdist(others, others), axis=1)[:, k]  # the first is the point itself
        return float((cdist(points, others) <= radii).any(1).mean())

    return {"precision": inside(x, y), "recall": inside(y, x)}


# -- what people see ---------------------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """A record as a Markdown table."""
    head = ("metric", "torch-fidelity's command line", "catgan", "formula in float64", "largest relative difference")
    names = titles("inception")
    rows: list[Sequence[str]] = [head, ["---"] * len(head)]
    for name, row in found["numbers"].items():
        apart = row["difference"]
        numbers = (f"{row[way]:.9g}" for way in ("torch_fidelity", "catgan", "formula"))
        rows.append([names[name], *numbers, f"{apart:.0e}" if apart else "0"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
