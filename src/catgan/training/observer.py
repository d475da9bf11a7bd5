"""What a run sees of itself while it trains: alignment, previews, diagnoses, evaluations.

The averaged generator is looked at. All processes call each of these at the same steps: under FSDP2 its weights are
gathered from all of them, and an evaluation is shared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from catgan.config import Config
from catgan.evaluation.alignment import MEASURES, alignment, diagnose
from catgan.training.assess import Assessor
from catgan.training.previews import Previews
from catgan.training.step import Step

if TYPE_CHECKING:
    from catgan.evaluation.protocol import Result


class Observer:
    """Looks at the networks of one run."""

    def __init__(
        self, config: Config, engine: Step, previews: Previews, assessor: Assessor, class_names: tuple[str, ...]
    ) -> None:
        self.config, self.engine, self.previews, self.assessor = config, engine, previews, assessor
        self.class_names, self.processes = class_names, engine.parallel.processes

    def alignment(self) -> dict[str, float]:
        """Alignment of the training fakes of the last step: free, but of raw weights and random samples."""
        assert self.engine.fakes is not None
        measured = alignment(self.engine.fakes.float(), self.engine.pyramid)
        return self.engine.parallel.mean(
            {f"alignment/{m}/{k}": v for m in MEASURES for k, v in enumerate(measured[m].mean(0).tolist())}
        )

    def synthesis(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The averaged generator as a function of z and y to all stages."""
        average = self.engine.whole_ema()

        def synthesize(z: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad(), self.engine.autocast():
                h: Tensor = average(z, y, all_stages=True)
            return h.float()

        return synthesize

    def preview(self, step: int) -> None:
        synthesize = self.synthesis()
        if self.processes.first:
            self.previews.draw(synthesize, step)
        self.processes.wait()

    def diagnosis(self) -> dict[str, float]:
        """The fixed protocol, by the first process."""
        c, synthesize = self.config, self.synthesis()
        scalars: dict[str, float] = {}
        if self.processes.first:
            result = diagnose(
                synthesize,
                self.engine.pyramid,
                classes=c.sample.classes,
                z_dim=c.generator.z_dim,
                device=self.engine.device,
                samples=c.log.diagnose_samples,
            )
            scalars = {f"diagnose/{m}/{k}": v for m in MEASURES for k, v in enumerate(getattr(result, m))}
            scalars |= {f"diagnose/{m}/mean": v for m, v in result.averages().items()}
        self.processes.wait()
        return scalars

    def evaluate(self, step: int) -> Result:
        return self.assessor.measure(self.engine.whole_ema(), self.class_names, step)
