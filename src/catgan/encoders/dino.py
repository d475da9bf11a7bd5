"""DINOv2, the frozen encoder of representation alignment (paper: DINOv2-ViT-B), through transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from catgan.encoders.files import find_folder, fingerprint, from_pretrained, read_config
from catgan.errors import require
from catgan.images import from_bytes
from catgan.pyramid import resize
from catgan.system.packages import need

FILES = ("config.json", "model.safetensors")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, per channel, pixels in [0, 1]


class DINOv2:
    """Images to a class token and patch tokens, both after the last normalisation. Frozen. Made by `load_dino`."""

    def __init__(self, model: Any, size: int) -> None:
        """model: transformers' Dinov2Model; size: pixels at which it sees images."""
        self.model, self.size = model, size
        self.dim = int(model.config.hidden_size)
        self.identity = fingerprint(model)
        device = next(model.parameters()).device
        self.mean, self.std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))

    def compile(self) -> None:
        """Compile its blocks, which are alike and share the result. What the compiler cannot do runs as before."""
        for block in self.model.encoder.layer:
            block.compile()

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """RGB images (B, 3, S, S), uint8 or float in [-1, 1], to class token (B, D) and patch tokens (B, n, n, D).

        Images are resized to `size` (bicubic, antialiased) and normalised by ImageNet's mean and standard deviation.
        """
        dtype = next(self.model.parameters()).dtype
        x = from_bytes(images, dtype) if images.dtype == torch.uint8 else images.to(dtype)
        x = resize(x, self.size, "bicubic", "bicubic")
        tokens = self.model(pixel_values=((x + 1) / 2 - self.mean.to(dtype)) / self.std.to(dtype)).last_hidden_state
        grid = self.size // self.model.config.patch_size
        return tokens[:, 0], tokens[:, 1:].unflatten(1, (grid, grid))


def load_dino(path: str, size: int = 224, device: torch.device | str = "cpu", option: str = "--encoder.path") -> DINOv2:
    """Load a DINOv2 from a folder or by its name on the Hugging Face Hub, such as facebook/dinov2-base.

    size: pixels at which it sees images, a multiple of its patch size. Raises UserError for a missing package or file,
    damaged weights, another architecture, or a size that does not fit.
    """
    what = f"encoder {path}"
    need("transformers", what, "encoders")
    folder = find_folder(path, FILES, what, f"{option} FOLDER")
    kind = read_config(folder, what).get("model_type")
    require(kind == "dinov2", f"{what}: its model_type", kind, "dinov2")
    from transformers import Dinov2Model
    from transformers.utils import logging

    logging.disable_progress_bar()
    model: Any = from_pretrained(Dinov2Model, folder, what, dtype=torch.float32)
    patch = model.config.patch_size
    require(size % patch == 0, "encoder.size", size, f"a multiple of the encoder's patch size ({patch})")
    return DINOv2(model.to(device), size)
