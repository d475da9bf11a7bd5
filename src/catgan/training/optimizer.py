"""AdamW as recipes have it: without the first moment that beta1 = 0 makes useless."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from catgan.config import Config


def build_optimizer(config: Config, network: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW as the recipe says."""
    o = config.optimizer
    kind = MomentlessAdamW if config.kept_moments == 1 else torch.optim.AdamW
    return kind(
        network.parameters(), lr=learning_rate, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay, fused=True
    )


class MomentlessAdamW(torch.optim.AdamW):
    """AdamW with beta1 = 0, whose running mean of gradients is the gradient: that stands in its place, to the bit.

    The mean would take 4 bytes a weight, and be written and read in every update.
    """

    def _init_group(
        self, group: dict[str, Any], params: list[Any], grads: list[Any], means: list[Any], squares: list[Any],
        largest_squares: list[Any], steps: list[Any],
    ) -> bool:  # fmt: skip
        """Fill the lists that the update reads, as PyTorch's own does, but for the means."""
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            params.append(p)
            grads.append(p.grad)
            means.append(p.grad)
            squares.append(state["exp_avg_sq"])
            steps.append(state["step"])
        return False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also of a checkpoint that has the means, of an earlier version."""
        kept = {
            number: {slot: value for slot, value in slots.items() if slot != "exp_avg"}
            for number, slots in state_dict["state"].items()
        }
        super().load_state_dict(state_dict | {"state": kept})
