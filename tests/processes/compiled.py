"""What each of two processes does in test_parallel.py: a step with compiled blocks and one without, by DDP and by FSDP2."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from equivalence import MODES, configuration, iterations
from torch import fx
from torch._dynamo.backends.debugging import aot_eager
from torch._dynamo.utils import counters
from torch.distributed.tensor import DTensor

from catgan.system.processes import Processes
from catgan.training.parallel import Parallel

COMPILE = torch.compile
sharded: list[bool] = []  # of each graph, whether it was given parts of weights


def traced(graph: fx.GraphModule, inputs: list[Any]) -> Any:
    """Traced and differentiated as ever, and not made into machine code, which takes minutes."""
    sharded.append(any(isinstance(t, DTensor) for t in inputs))
    return aot_eager(graph, inputs)


def traced_only(function: Callable[..., Any], *, options: Any = None, **how: Any) -> Any:
    return COMPILE(function, backend=traced, **how)


def work(rank: int, world: int, folder: Path) -> None:
    """One of `world` processes. The first writes losses, gradients and how many graphs there were."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text()}
    torch.set_num_threads(1)
    found, processes = {}, Processes(rank, world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", traced_only)
        patch.setattr("catgan.training.step.check_compiler", lambda *_: None)
        for mode in MODES:
            for name, training in (
                ("eager", {}),
                ("compiled", {"compile": True}),
                ("compiled bfloat16", {"compile": True, "precision": "bfloat16"}),
            ):
                torch._dynamo.reset()
                counters.clear()
                sharded.clear()
                parallel = Parallel(processes, torch.device("cpu"), mode == "fsdp2", timeout=120)
                result = iterations(configuration(**training), parallel, 1, torch.float32)
                found |= {f"{mode} {name} {key}": value for key, value in result.items()}
                found[f"{mode} {name} graphs"] = torch.tensor(counters["stats"]["unique_graphs"])
                found[f"{mode} {name} sharded"] = torch.tensor(any(sharded))
                found[f"{mode} {name} breaks"] = torch.tensor(sum(counters["graph_break"].values()))
    if processes.first:
        torch.save(found, folder / "found.pt")
    processes.wait()
    processes.leave()
