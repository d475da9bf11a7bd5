"""The feature space `classifier`: a small convolutional network, trained once on the real data.

For images that Inception says little about: small, grey, unlike photographs. Its Frechet distance compares runs on the
same data; it is no FID and must not be called so. The network and its accuracy on held-out real images are cached.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from catgan.draws import Purpose, stream
from catgan.errors import UserError
from catgan.evaluation.features import cache_folder, one_maker
from catgan.evaluation.sources import ImageSource, with_channels
from catgan.nn.fitting import fit
from catgan.system.files import digest, save_tensors, write_atomically
from catgan.system.progress import Progress

LARGEST = 64  # pixels; larger images are reduced to this
WIDTHS = (32, 64, 128, 128)
BATCH = 128
EPOCHS, FEWEST = 3, 80_000  # training looks at every image so often, and at so many images at least
DOUBTFUL = 0.8  # one that recognises fewer of the held-out images says little
VERSION = 2  # of network and training: raise it when either changes


def network(channels: int, size: int, classes: int) -> nn.Sequential:
    """Four convolutions, halving the size until it is 4, and a linear layer on pooled features."""
    layers: list[nn.Module] = []
    for before, after in pairwise((channels, *WIDTHS)):
        stride = 2 if size > 4 else 1
        size = -(-size // stride)
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], classes))
    return net.to(memory_format=torch.channels_last)  # the faster layout


class Classifier:
    """A trained classifier as a feature space: the input of its last layer, and its logits."""

    name, dim, names_classes = "classifier", WIDTHS[-1], True

    def __init__(self, net: nn.Sequential, channels: int, classes: int, accuracy: float, device: torch.device) -> None:
        self.network = net.eval().requires_grad_(False)
        self.channels, self.classes, self.accuracy = channels, classes, accuracy
        self.to(device)

    def to(self, device: torch.device) -> Classifier:
        """Move it, and return it."""
        self.network.to(device)
        self.device = device
        return self

    @property
    def doubt(self) -> str | None:
        """Why its numbers say little, if they do."""
        if self.accuracy >= DOUBTFUL:
            return None
        return (
            f"the classifier recognises only {self.accuracy:.0%} of held-out real images, so its numbers say little; "
            "features that need no classes: pixels, dinov2, inception"
        )

    def identity(self) -> str:
        state = self.network.state_dict().items()
        return digest("classifier", *(f"{n}{tuple(t.shape)}".encode() + t.cpu().numpy().tobytes() for n, t in state))

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.network[:-1](prepared(images.to(self.device)))
        return features, self.network[-1](features)


def prepared(images: Tensor) -> Tensor:
    """uint8 (n, C, H, W) to float32 in [-1, 1], at most 64 pixels wide."""
    x = images.float() / 127.5 - 1
    return F.interpolate(x, (LARGEST, LARGEST), mode="area") if x.shape[-1] > LARGEST else x


def classifier(source: ImageSource, device: torch.device, quiet: bool = False) -> Classifier:
    """The classifier of a dataset: from the cache, or trained now (minutes) and put there.

    Raises UserError for data without classes.
    """
    if len(source.class_names) < 2:
        raise UserError(
            f"{source.name} has no classes, so no classifier can be trained on it: use --features pixels, inception or dinov2"
        )
    key = digest(str(VERSION), str(len(source.class_names)), source.identity())
    path = cache_folder() / "classifiers" / f"{key}.safetensors"
    found = cached(path, device)
    if found is not None:
        return found
    with one_maker(path):
        return cached(path, device) or trained_and_kept(source, path, device, quiet)


def trained_and_kept(source: ImageSource, path: Path, device: torch.device, quiet: bool) -> Classifier:
    """Train the classifier of a dataset, and put it into the cache."""
    if not quiet:
        Progress.print(f"training a classifier on {source.name}, once (kept in {path})")
    images, labels = everything(source)
    made = trained(images, labels, len(source.class_names), device, quiet)
    about = {"channels": made.channels, "classes": made.classes, "accuracy": made.accuracy, "size": images.shape[-1]}
    state = {name: t.cpu().contiguous() for name, t in made.network.state_dict().items()}
    write_atomically(path, lambda aside: save_tensors(aside, state, {"catgan": json.dumps(about)}))
    if not quiet:
        Progress.print(f"its accuracy on held-out real images is {made.accuracy:.1%}")
    return made


def cached(path: Path, device: torch.device) -> Classifier | None:
    """The classifier of a file; None if it is not there or damaged (it will be written anew)."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["catgan"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        net = network(about["channels"], min(about["size"], LARGEST), about["classes"])
        net.load_state_dict(state)
        return Classifier(net, about["channels"], about["classes"], about["accuracy"], device)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError):
        return None


def everything(source: ImageSource) -> tuple[Tensor, Tensor]:
    """All images, at most 64 pixels wide, and their classes."""
    parts = [source.read(start, min(start + 1024, len(source))) for start in range(0, len(source), 1024)]
    images = []
    for x, _ in parts:
        small = x if x.shape[-1] <= LARGEST else ((prepared(x) + 1) * 127.5).round().clamp(0, 255).byte()
        images.append(with_channels(small, source.channels, source.name))
    return torch.cat(images), torch.cat([y for _, y in parts if y is not None])


def trained(images: Tensor, labels: Tensor, classes: int, device: torch.device, quiet: bool = True) -> Classifier:
    """Train on nine tenths of the images (uint8), for EPOCHS or FEWEST images, and measure on the rest."""
    order = torch.from_numpy(stream(0, Purpose.CLASSIFIER).permutation(len(images)))
    held = order[: max(1, min(10_000, len(images) // 10))]
    rows = order[len(held) :]
    total = max(EPOCHS * len(rows), FEWEST)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = network(images.shape[1], images.shape[-1], classes).to(device)
    steps = -(-total // BATCH)
    epochs = -(-total // len(rows))
    turns = torch.cat([rows[stream(0, Purpose.CLASSIFIER, 1 + e).permutation(len(rows))] for e in range(epochs)])

    def loss(step: int) -> Tensor:
        chosen = turns[step * BATCH : (step + 1) * BATCH]
        return F.cross_entropy(net(prepared(images[chosen].to(device))), labels[chosen].to(device))

    fit(net.parameters(), loss, steps, 3e-3, 1e-2, Progress(0, steps, BATCH, "classifier", quiet))
    made = Classifier(net, images.shape[1], classes, 0.0, device)
    seen = [net(prepared(images[part].to(device))).argmax(1).cpu() for part in held.split(1024)]
    made.accuracy = int((torch.cat(seen) == labels[held]).sum()) / len(held)
    return made
