"""What each of several processes does in test_parallel.py: some iterations in float64, by DDP and by FSDP2, then one in
float32 and one under bfloat16.

With vision-aided heads in the discriminator.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from vision_aided import build_heads

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.networks import build_generator, build_networks
from catgan.objective import default_objective, vision_aided
from catgan.system.processes import Processes
from catgan.training import step as stepping
from catgan.training.parallel import Parallel, full_tensor
from catgan.training.step import Step

STEPS = 20
MODES = ("ddp", "fsdp2")
# One pass per process and step; and two passes, with activations recomputed (and so fakes generated twice).
VARIANTS: dict[str, dict[str, Any]] = {"whole": {}, "accumulated": {"recompute": True}}


# Of weights and samples: under bfloat16 they are float32.
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.float32, "same": torch.float32}


def precision(numbers: str) -> dict[str, str]:
    """The option that asks for bfloat16; "same": for the penalties too."""
    return {"precision": "bfloat16"} if numbers in ("bfloat16", "same") else {}


def passes(variant: str, world: int) -> int:
    """Samples in a pass of each of `world` processes."""
    share = configuration().training.batch // world
    return share // 2 if variant == "accumulated" else share


def configuration(**training: Any) -> Config:
    """Two scales, small enough for hundreds of steps, with a batch for up to four processes."""
    return from_dict(
        {
            "sample": {"size": 8, "channels": 1, "classes": 5, "scales": [4, 8], "vae": None},
            "generator": {"depth": 2, "width": 16, "heads": 2, "patch": 4, "z_dim": 4},
            # A representation head that nothing trains: DDP must not wait for its gradients.
            "discriminator": {
                "depth": 1,
                "width": 16,
                "heads": 2,
                "patches": [4, 4],
                "head_dim": 8,
                "representation_dim": 4,
            },
            "augment": {"color": 0.5},
            "training": {"batch": 8, "steps": STEPS, "seed": 3, **training},
            "objective": {"representation": 0.0},
            "encoder": {"path": None},
        },
    ).validate()


def real(config: Config, step: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The whole batch of a step."""
    generator = torch.Generator().manual_seed(step)
    s, n = config.sample, config.training.batch
    x = torch.rand(n, s.channels, s.size, s.size, generator=generator, dtype=torch.float64) * 2 - 1
    return x.to(dtype), torch.randint(s.classes, (n,), generator=generator)


def iterations(config: Config, parallel: Parallel | None, steps: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every metric of every step, every gradient of the first one, and all weights and buffers at the end.

    "bytes generator" and "bytes discriminator": of a number of the weights that a block computes with.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepping, "build_networks", lambda c: tuple(n.to(dtype) for n in build_networks(c)))
        heads = {n: head.to(dtype) for n, head in build_heads(config.sample.classes).items()}
        objective = vision_aided(default_objective(config), 0.5)
        step = Step(config, objective, torch.device("cpu"), parallel=parallel, heads=heads)
    found: dict[str, Tensor] = {}
    update = step.update

    def spy(network: str, norms: dict[str, Tensor]) -> None:
        if f"gradient {network}" not in found:
            found[f"gradient {network}"] = torch.cat(
                [full_tensor(p.grad).flatten() for p in getattr(step, network).parameters() if p.grad is not None]
            )
        update(network, norms)

    step.update = spy  # type: ignore[method-assign]
    for name in ("generator", "discriminator"):
        getattr(step, name).blocks[0].mlp.down.register_forward_pre_hook(
            lambda module, _, name=name: found.update({f"bytes {name}": torch.tensor(module.weight.element_size())})
        )
    begin, end = step.parallel.share(config.training.batch)
    for i in range(steps):
        x, y = real(config, i, dtype)
        metrics = step.run(i, x[begin:end], y[begin:end])
        found |= {f"{i} {name}": value.clone() for name, value in metrics.items()}
    for name in ("generator", "discriminator", "ema"):
        state = getattr(step, name).state_dict()
        found |= {f"final {name}.{key}": full_tensor(value).clone() for key, value in state.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepping, "build_generator", lambda c: build_generator(c).to(dtype))
        average = step.whole_ema()
    found |= {f"final whole ema.{key}": t for key, t in (*average.named_parameters(), *average.named_buffers())}
    return found


def work(rank: int, world: int, folder: Path) -> None:
    """One of `world` processes. The first writes what it found."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text()}
    torch.set_num_threads(1)
    found = {"world": torch.tensor(world)}
    processes = Processes(rank, world)
    for mode in MODES:
        parallel = Parallel(processes, torch.device("cpu"), mode == "fsdp2", timeout=120)
        for variant, training in VARIANTS.items():
            for numbers, steps in (("float64", STEPS), ("float32", 1), ("bfloat16", 1), ("same", 1)):
                config = configuration(micro_batch=passes(variant, world), **training, **precision(numbers))
                if numbers == "same":
                    config = from_dict({"objective": {"penalty_precision": "same"}}, config)
                result = iterations(config, parallel, steps, DTYPES[numbers])
                name = f"{mode} {variant} {numbers}"
                found |= {f"{name} {key}": value for key, value in result.items()}
    if processes.first:
        torch.save(found, folder / "found.pt")
    processes.wait()
    processes.leave()
