"""What a recipe costs: layers, tokens, parameters and multiply-accumulates, counted on networks without weights.

One multiply-accumulate (MAC) is two floating-point operations; what papers of the field call GFLOPs are GMACs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from catgan.accounting.published import FAKES_TWICE, dinov2_b
from catgan.accounting.vision import HEAD_PASSES, NETWORK_PASSES, heads_of, trunk
from catgan.config import Config
from catgan.networks import build_discriminator, build_generator


def gmacs(run: Callable[[], Any]) -> float:
    """Billions of multiply-accumulates in matrix products and attention while `run` runs."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 2e9


def parameters(network: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(p.numel() for p in network.parameters())


def compute(config: Config, processes: int = 1) -> dict[str, Any]:
    """Sizes, and costs in GMACs per sample, of a configuration: in seconds and without allocating weights.

    The discriminator's `gmacs` is that of one sample at all scales, without its representation head;
    `representation_gmacs` is the head's. With a head, `alignment_gmacs` is what aligning it costs per sample and step:
    its training on real samples and the frozen encoder's forward pass (paper A.2); with config.vision.path `vision_gmacs`
    is what the vision-aided loss costs, and `auxiliary_gmacs` is both. `gmacs_per_sample` is what a step of
    this run of so many processes computes, `paper_gmacs_per_sample` what the paper counts: fakes generated twice.
    """
    config.validate()
    s, g, d = config.sample, config.generator, config.discriminator
    with torch.device("meta"):
        generator, discriminator = build_generator(config), build_discriminator(config)
        z, y = torch.empty(1, g.z_dim), torch.empty(1, dtype=torch.int64)
        pyramid = [torch.empty(1, discriminator.channels, n, n) for n in discriminator.scales]
        forward_g = gmacs(lambda: generator(z, y, all_stages=True))
        forward_d = gmacs(lambda: discriminator(pyramid, y))
        head = 0.0
        if discriminator.representation is not None:
            features = [torch.empty(1, n, d.width) for n in discriminator.lengths]
            head = gmacs(lambda: discriminator.represent(features))
        vision = vision_gmacs(config, y)
    alignment = 3 * head + dinov2_b() if head else 0.0
    auxiliary = alignment + vision
    passes = training_passes(config, processes)
    forward = {"generator": forward_g, "discriminator": forward_d}
    per_sample = step_gmacs(forward, passes, auxiliary)
    samples = config.training.steps * config.training.batch
    return {
        "recipe": config.recipe,
        "generator": {
            "depth": g.depth,
            "width": g.width,
            "heads": g.heads,
            "tokens": (s.size // g.patch) ** 2,
            "outputs": len(s.scales),
            "parameters": parameters(generator),
            "gmacs": forward_g,
        },
        "discriminator": {
            "depth": d.depth,
            "width": d.width,
            "heads": d.heads,
            "tokens": sum(discriminator.lengths),
            "tokens_per_scale": [n - 1 for n in discriminator.lengths],
            "cls_tokens": len(discriminator.lengths),
            "parameters": parameters(discriminator),
            "gmacs": forward_d,
            "representation_gmacs": head,
        },
        "training": {
            "batch": config.training.batch,
            "steps": config.training.steps,
            "samples": samples,
            "generator_passes": passes["generator"],
            "discriminator_passes": passes["discriminator"],
            "alignment_gmacs": alignment,
            "vision_gmacs": vision,
            "vision_network": None if (seen := trunk(config)) is None else seen.name,
            "auxiliary_gmacs": auxiliary,
            "gmacs_per_sample": per_sample,
            "paper_gmacs_per_sample": step_gmacs(forward, passes | {"generator": FAKES_TWICE}, auxiliary),
            "total_gmacs": per_sample * samples,
        },
    }


def vision_gmacs(config: Config, y: torch.Tensor) -> float:
    """GMACs per sample and step of the vision-aided loss: of its frozen network, and of its heads for classes y (1,)."""
    network, heads = trunk(config), heads_of(config)
    if network is None or heads is None:
        return 0.0
    each = gmacs(lambda: heads([torch.empty(1, 3, network.size, network.size, device="meta")], y))
    return NETWORK_PASSES * network.gmacs + HEAD_PASSES * each


def step_gmacs(forward: Mapping[str, float], passes: Mapping[str, float], auxiliary: float) -> float:
    """GMACs per sample and step: each network's forward pass times their number, and what there is beside them."""
    return sum(passes[network] * forward[network] for network in passes) + auxiliary


def training_passes(config: Config, processes: int = 1) -> dict[str, float]:
    """Forward passes' worth of compute per sample and step (paper A.2): a trained forward and backward is 3.

    Generator: 1 for the discriminator step's fakes and 3 for its own step, or 3 if each process reuses its fakes.
    Discriminator: 3 for each of real, fake and the two perturbed shares; then 1 for real and 2 for fake while frozen.
    """
    o = config.objective
    penalised = 2 * o.penalty_fraction if o.penalty else 0.0
    generator = 3.0 if config.reuses_fakes(processes) else FAKES_TWICE
    return {"generator": generator, "discriminator": 3 * (2 + penalised) + 1 + 2}


def precise_passes(config: Config) -> float:
    """How many of the discriminator's `training_passes` are in the precision of the penalties: 3 for each penalised
    sample, real and fake, and for each of their twins."""
    o = config.objective
    return 3 * 4 * o.penalty_fraction if o.penalty and config.precise_penalties else 0.0
