"""Compiling the transformer blocks. Imports PyTorch's compiler, which takes seconds: for who wants it alone."""

from __future__ import annotations

import logging
import math
from typing import Any, cast

import torch
from torch import fx, nn
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

GRAPHS = 64  # of the blocks' code, at the most: sizes, precisions and networks of a process
ROWS = 64  # that the first of two sums adds up: their columns stay in the processor's cache

aten = torch.ops.aten


def compile_blocks(*networks: nn.Module, dynamic: bool | None) -> None:
    """Compile the transformer blocks of each network (its `blocks`, which are alike and share the result).

    DDP would cut graphs where one of its buckets ends, although a block is one call to it; it is told not to. The limit on
    graphs is for all networks and sizes of a process together, and past it there is an error.
    dynamic: False for a graph for each size of batch; None for one for any from the second size on. fullgraph: what
    torch would leave uncompiled, with a warning at most, is an error.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # on CPU it warns that there is no CUDA
    # On CPU one C++ file per graph rather than one per kernel: the C++ compiler is half of the wait.
    torch._dynamo.config.optimize_ddp = False
    torch._dynamo.config.recompile_limit = GRAPHS
    on_cpu: dict[str, Any] = {"cpp_wrapper": True, "post_grad_custom_post_pass": SumsInTwo()}
    for network in networks:
        options = on_cpu if next(network.parameters()).device.type == "cpu" else None
        for block in cast(nn.ModuleList, network.blocks):
            block.compile(fullgraph=True, dynamic=dynamic, options=options)


class SumsInTwo(CustomGraphPass):
    """Sums over rows, as the gradients of biases and gains are, as sums over runs of rows and then over the runs.

    The compiler's loop over the rows of a CPU tensor is within that over its columns, eight at a time: it reads every
    row again for every eight columns. Of ROWS rows, the cache still has the rest.
    """

    def __call__(self, graph: fx.Graph) -> None:
        for node in graph.find_nodes(op="call_function", target=aten.sum.dim_IntList):
            source, dims = node.args[0], node.args[1]
            shape = tuple(source.meta["val"].shape)
            if not all(isinstance(size, int) for size in shape):
                continue  # compiled for any size
            summed = {d % len(shape) for d in dims}
            leading = next((d for d in range(len(shape)) if d not in summed), len(shape))
            rows, rest = math.prod(shape[:leading]), shape[leading:]
            run = max(d for d in range(1, ROWS + 1) if rows % d == 0)
            if rows < ROWS * 8 or run == 1 or not rest:
                continue
            others = [d - leading + 2 for d in summed if d >= leading]
            with graph.inserting_before(node):
                runs = graph.call_function(aten.reshape.default, (source, [rows // run, run, *rest]))
                sums = graph.call_function(aten.sum.dim_IntList, (runs, [1, *others]))
                total = graph.call_function(aten.sum.dim_IntList, (sums, [0]))
                result = graph.call_function(aten.reshape.default, (total, list(node.meta["val"].shape)))
            result.meta.update(node.meta)
            node.replace_all_uses_with(result)
            graph.erase_node(node)

    def uuid(self) -> bytes:
        """What the compiler's cache tells versions of this apart by."""
        return get_hash_for_files((__file__,), str(ROWS))
