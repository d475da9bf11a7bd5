"""Frozen networks with feature maps, for the vision-aided loss: ConvNeXtV2 through transformers, others through timm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from catgan.encoders.dino import MEAN, STD
from catgan.encoders.files import find_folder, fingerprint, from_pretrained, read_config
from catgan.errors import UserError, require
from catgan.pyramid import resize
from catgan.system.files import digest
from catgan.system.packages import need
from catgan.system.processes import Processes
from catgan.system.progress import Progress

FILES, PREPROCESSOR = ("config.json", "model.safetensors"), "preprocessor_config.json"
Triple = tuple[float, float, float]
# Arguments of timm's create_model that are no sizes of a network, but make it read other files or become another thing.
NO_SIZES = {
    "cache_dir", "checkpoint_path", "exportable", "features_only", "model_name", "no_jit", "pretrained", "pretrained_cfg",
    "pretrained_cfg_overlay", "scriptable",
}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """How a network sees images, and what of it is looked at."""

    size: int  # pixels
    stages: tuple[int, ...]
    mean: Triple  # per channel, of pixels in [0, 1]
    std: Triple


class FeatureMaps:
    """Images to feature maps and a pooled feature. Made by `load_vision`.

    Its weights are frozen; gradients reach the images.
    """

    def __init__(
        self, model: nn.Module, run: Callable[[Tensor], tuple[list[Tensor], Tensor]], what: str, seen: Seen
    ) -> None:
        """run: normalised images (B, 3, size, size) to maps, finest first, and the pooled feature. what: its name for
        messages. Raises UserError for a network that gives none for images of that size."""
        self.model, self.run, self.size = model, run, seen.size
        self.identity = digest("feature maps", fingerprint(model), str(seen))[:16]
        device = next(model.parameters()).device
        self.mean = torch.tensor(seen.mean, device=device).view(3, 1, 1) * 2 - 1  # of pixels in [-1, 1]
        self.std = torch.tensor(seen.std, device=device).view(3, 1, 1) * 2
        try:
            with torch.no_grad():
                maps, pooled = self.maps(torch.zeros(1, 3, seen.size, seen.size, device=device))
        except Exception as error:  # whatever a network makes of a size that is not its own
            said = " ".join(str(error).split())[:200]
            raise UserError(f"{what} cannot look at images of vision.size {seen.size}: {said}") from None
        shapes = ", ".join("x".join(map(str, t.shape[1:])) for t in (*maps, pooled))
        fits = pooled.ndim == 2 and all(m.ndim == 4 and m.shape[-1] == m.shape[-2] for m in maps)
        require(fits, f"{what}: what it gives", shapes, "square feature maps and a pooled feature")
        self.channels, self.dim = tuple(m.shape[1] for m in maps), pooled.shape[1]

    def maps(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """RGB images (B, 3, S, S) in [-1, 1] to feature maps (B, C_i, n_i, n_i), finest first, and a pooled feature (B, D).

        Images are resized to `size` (bicubic, antialiased) and normalised first.
        """
        x = resize(images, self.size, "bicubic", "bicubic")
        return self.run((x - self.mean.to(x.dtype)) / self.std.to(x.dtype))


def load_vision(
    path: str,
    size: int = 224,
    stages: Sequence[int] = (2, 3, 4),
    device: torch.device | str = "cpu",
    normalisation: str = "own",
    option: str = "--vision.path",
) -> FeatureMaps:
    """Load a frozen network from a folder or by its name on the Hugging Face Hub: one that transformers saved as a
    ConvNeXtV2, such as facebook/convnextv2-base-22k-224, or one of timm's, such as timm/convnextv2_base.fcmae_ft_in22k_in1k.

    size: pixels at which it sees images. stages: whose outputs are the maps, 1 is the first; of a transformer of timm,
    blocks. normalisation: "own", what its files say, or ImageNet's; "imagenet"; or "half" (mean and deviation 0.5). Raises UserError
    for a missing package or file, damaged weights, another architecture, and sizes or stages that it does not have.
    """
    what = f"vision encoder {path}"
    folder = find_folder(path, FILES, what, f"{option} FOLDER", [PREPROCESSOR])
    config = read_config(folder, what)
    if "architecture" in config:
        return of_timm(folder, config, what, size, stages, device, normalisation)
    require(
        config.get("model_type") == "convnextv2", f"{what}: its model_type", config.get("model_type"), "convnextv2",
        "or a network that timm saved, whose config.json has an architecture",
    )  # fmt: skip
    return of_transformers(folder, what, size, stages, device, normalisation)


def of_transformers(
    folder: Path, what: str, size: int, stages: Sequence[int], device: torch.device | str, normalisation: str
) -> FeatureMaps:
    """A ConvNextV2Model."""
    need("transformers", what, "encoders")
    from transformers import ConvNextV2Model
    from transformers.utils import logging

    logging.disable_progress_bar()
    model: Any = from_pretrained(ConvNextV2Model, folder, what, dtype=torch.float32)
    c = model.config
    require(c.num_channels == 3, f"{what}: its number of channels", c.num_channels, "3: it looks at RGB pictures")
    check_stages(what, stages, len(c.depths))
    stride = c.patch_size * 2 ** (len(c.depths) - 1)
    require(
        size % stride == 0, "vision.size", size, f"a multiple of {stride}, what one position of its last map covers"
    )

    def run(x: Tensor) -> tuple[list[Tensor], Tensor]:
        out = model(pixel_values=x, output_hidden_states=True)
        return [out.hidden_states[stage] for stage in stages], out.pooler_output

    own = read_config(folder, what, PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else {}
    mean, std = normalised(normalisation, own.get("image_mean"), own.get("image_std"), what)
    return FeatureMaps(model.to(device), run, what, Seen(size, tuple(stages), mean, std))


def of_timm(
    folder: Path, config: dict[str, Any], what: str, size: int, stages: Sequence[int], device: torch.device | str,
    normalisation: str,
) -> FeatureMaps:  # fmt: skip
    """A network of timm's, saved as on its Hub: config.json with its architecture, and what it was trained with."""
    timm = need("timm", what, "timm")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    about, options = dict(config.get("pretrained_cfg") or {}), dict(config.get("model_args") or {})
    name = str(config["architecture"])
    if not timm.is_model(name):
        raise UserError(f"{what}: its architecture is {name}: not one that timm {timm.__version__} knows")
    refused = ", ".join(sorted(NO_SIZES & set(options)))
    require(not refused, f"{what}: model_args in its config.json", refused, "sizes of a network alone")
    channels = options.get("in_chans", 3)
    require(channels == 3, f"{what}: its number of channels", channels, "3: it looks at RGB pictures")
    try:
        model: Any = timm.create_model(name, pretrained=False, **options | {"num_classes": 0})
        state = load_file(folder / "model.safetensors")
        last = about.get("classifier") or getattr(model, "pretrained_cfg", {}).get("classifier") or ()
        last = (last,) if isinstance(last, str) else tuple(last)  # layers that only a classifier has
        state = {key: t for key, t in state.items() if key.rpartition(".")[0] not in last}
        faults = [f"lacks weights, such as {key}" for key in sorted(set(model.state_dict()) - set(state))]
        faults += [
            f"has weights of another network, such as {key}" for key in sorted(set(state) - set(model.state_dict()))
        ]
        if faults:
            raise UserError(f"{what}: {folder} {faults[0]}")
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError, TypeError, OSError) as error:
        raise UserError(f"{what}: {folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    if not hasattr(model, "forward_intermediates"):
        raise UserError(f"{what}: {name} has no feature maps (timm's forward_intermediates)")
    check_stages(what, stages, len(model.feature_info))
    model.eval().requires_grad_(False)
    indices = [stage - 1 for stage in stages]

    def run(x: Tensor) -> tuple[list[Tensor], Tensor]:
        final, maps = model.forward_intermediates(x, indices=indices, output_fmt="NCHW")
        return list(maps), model.forward_head(final, pre_logits=True)

    mean, std = normalised(normalisation, about.get("mean"), about.get("std"), what)
    if about.get("license") and Processes.from_environment().first:
        Progress.print(f"{what}: licence {about['license']}")
    return FeatureMaps(model.to(device), run, what, Seen(size, tuple(stages), mean, std))


def check_stages(what: str, stages: Sequence[int], count: int) -> None:
    """Raise UserError unless the network has these stages, in rising order."""
    fits = bool(stages) and list(stages) == sorted(set(stages)) and stages[0] >= 1 and stages[-1] <= count
    require(fits, "vision.stages", " ".join(map(str, stages)), f"of 1 to {count}, rising, for {what}")


def normalised(choice: str, mean: Any, std: Any, what: str) -> tuple[Triple, Triple]:
    """Mean and standard deviation for pixels in [0, 1], by vision.normalisation and what the network's files say."""
    if choice == "half":
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if choice == "imagenet" or mean is None or std is None:
        return MEAN, STD
    for values in (mean, std):
        numbers = isinstance(values, list) and all(isinstance(v, (int, float)) for v in values)
        require(numbers and len(values) == 3, f"{what}: its normalisation", values, "three numbers")
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
