"""Scale-wise attention against a dense mask, forward and backward: `python benchmarks/attention.py`.

The discriminator's attention is one call per scale. The obvious alternative is one call over all tokens with a
block-diagonal mask. Interleaved, medians, ratios above 1 in favour of the calls per scale.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from catgan.nn.layers import attend_within
from catgan.system.devices import keep_freed_memory

SIZES = {  # name: batch, heads, head size, tokens per scale with [cls]
    "cat-b2": (4, 12, 64, (5, 17, 65, 257)),
    "fashion-mnist": (160, 3, 32, (5, 17, 17, 65)),
    "digits": (160, 2, 32, (2, 5, 17)),
}
ROUNDS = 15


def dense(q: Tensor, k: Tensor, v: Tensor, spans: tuple[int, ...]) -> Tensor:
    mask = torch.block_diag(*(torch.ones(n, n) for n in spans)).bool()
    return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), attn_mask=mask).transpose(1, 2)


def seconds(function: Callable[..., Tensor], inputs: list[Tensor], spans: tuple[int, ...]) -> float:
    gradient = torch.randn_like(inputs[0])
    began = time.perf_counter()
    function(*inputs, spans).backward(gradient)
    return time.perf_counter() - began


def main() -> None:
    keep_freed_memory()  # as training does
    print(f"{torch.get_num_threads()} threads, float32, forward and backward, medians of {ROUNDS}")
    for name, (batch, heads, head_size, spans) in SIZES.items():
        inputs = [torch.randn(batch, sum(spans), heads, head_size, requires_grad=True) for _ in range(3)]
        torch.testing.assert_close(attend_within(*inputs, spans), dense(*inputs, spans), rtol=1e-4, atol=1e-5)
        times: dict[str, list[float]] = {"per scale": [], "dense": []}
        for _ in range(ROUNDS):
            times["per scale"].append(seconds(attend_within, inputs, spans))
            times["dense"].append(seconds(dense, inputs, spans))
        a, b = (sorted(t)[ROUNDS // 2] * 1e3 for t in times.values())
        print(f"{name:<14} {sum(spans):>4} tokens   per scale {a:7.2f} ms   dense mask {b:7.2f} ms   ratio {b / a:.2f}")


if __name__ == "__main__":
    main()
