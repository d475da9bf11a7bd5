"""Feature spaces: what an evaluation compares images in.

`inception`   FID's Inception-v3: its 2048 pooled features, and logits for the Inception Score
`inception-spatial`  seven channels of its map of 17 x 17 cells, where they are: what sFID compares
`dinov2`      the class token of DINOv2's ViT-B (`dinov2-l`: ViT-L); a discriminator trained with DINOv2 biases it
`clip`        the unit embedding of CLIP's ViT-L/14 at 336 pixels: what CMMD compares
`classifier`  a small convolutional network trained on the real data, for small or grey images (classifier.py)
`pixels`      brightness and contrast in each of 8 by 8 cells: no network, for data without classes
"""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol
from urllib.request import urlopen

import torch
import torch.nn.functional as F
from torch import Tensor

from catgan.encoders import load_dino
from catgan.encoders.files import find_folder, fingerprint, from_pretrained, read_config
from catgan.errors import UserError, first_line, require
from catgan.system.files import digest, sha256, write_bytes
from catgan.system.lock import exclusive
from catgan.system.packages import need
from catgan.system.progress import Progress

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
DINOV2 = {"dinov2": "facebook/dinov2-base", "dinov2-l": "facebook/dinov2-large"}
CLIP = "openai/clip-vit-large-patch14-336"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of pixels in [0, 1]
FEATURE_WEIGHTS = "--feature-weights (in training: --eval.weights)"


class FeatureSpace(Protocol):
    """Images to features, and to logits where the network has classes."""

    name: str  # in `catgan.metrics.FEATURES`
    channels: int  # of the images it takes: 1 or 3
    dim: int  # of its features
    classes: int  # of its logits, 0 without
    names_classes: bool  # whether its classes are those of the data

    def identity(self) -> str:
        """A digest of weights and preprocessing."""
        ...

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 (n, C, H, W) to features (n, dim) and logits (n, classes), float32."""
        ...


def cache_folder() -> Path:
    """Where weights and reference statistics are kept: CATGAN_CACHE, or catgan in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CATGAN_CACHE") or Path(home) / "catgan")


def one_maker(path: Path) -> AbstractContextManager[None]:
    """Hold the right to make a file of the cache, after whoever makes it now: it may then be there."""
    lock = cache_folder() / "locks" / path.stem
    return exclusive(lock, f"waiting for another process, which is making {path}")


class Inception:
    """torch-fidelity's port of the Inception-v3 that FID is defined by, 299 px with TensorFlow 1's bilinear resize."""

    name, channels, dim, classes, names_classes = "inception", 3, 2048, 1008, False
    layers: tuple[str, ...] = ("2048", "logits_unbiased")  # of the port

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        """weights: the file, in place of the one in the cache, which is downloaded and checked if it is not there."""
        need("torch_fidelity", "inception", "eval")
        path = weights or fetched(INCEPTION_URL, cache_folder() / "weights" / INCEPTION_FILE, INCEPTION_SHA256)
        check_plain(path)
        from torch_fidelity import FeatureExtractorInceptionV3

        # It unpickles the file without restrictions: only after check_plain has seen nothing but tensors in it.
        try:
            self.network = FeatureExtractorInceptionV3("inception-v3-compat", list(self.layers), str(path)).to(device)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} does not hold the weights of FID's Inception ({first_line(error)}): fetch {INCEPTION_URL}"
            ) from None
        self.device = device
        self._identity = digest(self.name, sha256(path))

    def identity(self) -> str:
        return self._identity

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = self.network(images.to(self.device))
        return features, logits


class InceptionSpatial(Inception):
    """What sFID compares (Nash et al., https://arxiv.org/abs/2103.03841), as in ADM's evaluator: the first 7 channels of
    `mixed_6/conv`, the 1 x 1 branch of the port's Mixed_6d, in each of 17 x 17 cells, channels last."""

    name, dim, classes = "inception-spatial", 7 * 17 * 17, 0
    layers = ("768",)  # the first after Mixed_6d: the rest is not computed

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        seen: list[Tensor] = []
        hook = self.network.Mixed_6d.branch1x1.register_forward_hook(lambda _, __, out: seen.append(out))
        try:
            self.network(images.to(self.device))
        finally:
            hook.remove()
        return seen[0][:, :7].permute(0, 2, 3, 1).flatten(1), None


class DINOv2ClassToken:
    """The class token of a DINOv2, as the encoder of representation alignment computes it, at 224 px."""

    channels, classes, names_classes = 3, 0, False

    def __init__(self, device: torch.device, weights: str | None = None, name: str = "dinov2") -> None:
        """weights: a local folder with config.json and model.safetensors, or a name on the Hugging Face Hub. name: dinov2,
        its ViT-B, or dinov2-l, its ViT-L."""
        self.encoder, self.name = load_dino(weights or DINOV2[name], device=device, option=FEATURE_WEIGHTS), name
        self.device, self.dim = device, self.encoder.dim

    def identity(self) -> str:
        return digest("dinov2", str(self.encoder.size), self.encoder.identity)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.encoder.encode(images.to(self.device))[0].float(), None


class Clip:
    """The image embedding of a CLIP as a unit vector: what CMMD compares (https://arxiv.org/abs/2401.09603).

    The whole image is resized (bicubic; of larger ones antialiased) and normalised as CLIP's training did.
    """

    name, channels, classes, names_classes = "clip", 3, 0, False

    def __init__(self, device: torch.device, weights: str | None = None) -> None:
        """weights: a local folder with config.json and model.safetensors, or a name on the Hugging Face Hub."""
        name = weights or CLIP
        what = f"CLIP {name}"
        need("transformers", what, "encoders")
        folder = find_folder(name, ("config.json", "model.safetensors"), what, FEATURE_WEIGHTS)
        kind = read_config(folder, what).get("model_type")
        require(kind in ("clip", "clip_vision_model"), f"{what}: its model_type", kind, "clip or clip_vision_model")
        from transformers import CLIPVisionModelWithProjection
        from transformers.utils import logging

        logging.disable_progress_bar()
        model: Any = from_pretrained(CLIPVisionModelWithProjection, folder, what, dtype=torch.float32)
        self.model, self.device = model.to(device), device
        self.size, self.dim = int(model.config.image_size), int(model.config.projection_dim)
        self.mean, self.std = (torch.tensor(t, device=device).view(3, 1, 1) for t in (CLIP_MEAN, CLIP_STD))
        self._identity = digest(self.name, str(self.size), fingerprint(model))

    def identity(self) -> str:
        return self._identity

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        x = images.to(self.device).float() / 255
        if x.shape[-1] != self.size:  # this way with the cubic of TensorFlow, also where it enlarges
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True)
        embedded = self.model(pixel_values=(x - self.mean) / self.std).image_embeds
        return F.normalize(embedded, dim=1), None


class Pixels:
    """Mean and standard deviation of each channel, in [-1, 1], in each of 8 by 8 cells of an image.

    It sees colours, layout, and how much detail there is, but not what an image shows: enough to notice samples that
    are all alike or copies. Where cells are single pixels, deviations are 0.
    """

    name, classes, names_classes = "pixels", 0, False
    cells = 8

    def __init__(self, channels: int) -> None:
        self.channels, self.dim = channels, 2 * channels * self.cells**2

    def identity(self) -> str:
        return digest("pixels", str(self.cells))

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        x = images.float() / 127.5 - 1
        mean, square = (F.adaptive_avg_pool2d(v, self.cells) for v in (x, x * x))
        deviation = (square - mean * mean).clamp(min=0).sqrt()
        return torch.cat([mean, deviation], 1).flatten(1), None


def check_plain(path: Path) -> None:
    """Raise UserError unless a .pth file holds tensors and nothing that runs code when it is read."""
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:
        raise UserError(f"{path} is no file of plain tensors: {first_line(error)}; fetch {INCEPTION_URL}") from None


def fetched(url: str, path: Path, expected: str) -> Path:
    """The file at `path`, downloaded from `url` if it is not there, with the expected SHA-256.

    Raises UserError naming file, address and place if it cannot be had, or if its content is another.
    """
    if not path.exists():
        Progress.print(f"downloading {url} to {path}")
        try:
            with urlopen(url, timeout=30) as answer:
                data: bytes = answer.read()
        except (OSError, HTTPException) as error:
            raise UserError(
                f"{path} is missing, and cannot be downloaded ({error}): put there what {url} has"
            ) from None
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise UserError(f"{url} gave a file with SHA-256 {found}, expected {expected}: try again")
        write_bytes(path, data)
    found = sha256(path)
    if found != expected:
        raise UserError(f"{path} has SHA-256 {found}, expected {expected}: delete it and fetch it again from {url}")
    return path
