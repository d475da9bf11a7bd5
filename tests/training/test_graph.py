"""Steps that are replayed, on a stand-in for CUDA graphs: what a recording reads is filled before each replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.errors import UserError
from catgan.objective import Objective, StepState, Term, default_objective
from catgan.system.devices import KeptConstants
from catgan.training.graph import UNRECORDED, StepGraph
from catgan.training.step import Step

CPU = torch.device("cpu")
CHANGES = {
    "objective": {"penalty_end": 0.1, "penalty_anneal": 5},
    "optimizer": {"lr_warmup": 4, "lr_decay": 3},
    "training": {"batch": 6},
}


class Replays(StepGraph):
    """On a CPU, where a recording is the iteration itself, run anew by every replay on the tensors that it read."""

    recordings = 0

    def unrecorded(self) -> dict[str, Tensor]:
        return self.once()

    def recorded(self) -> Any:
        self.recordings += 1
        return self, {}

    def replay(self) -> None:
        self.metrics = self.once()


def prepared(config: Config, graph: bool, objective: Objective | None = None) -> Step:
    step = Step(config, objective or default_objective(config), CPU)
    if graph:
        step.graph = Replays(step.iterate, step.optimizers.values(), CPU)
    return step


def run(step: Step, number: int, size: int | None = None) -> dict[str, Tensor]:
    s, n = step.config.sample, size or step.config.training.batch
    x = torch.rand(n, s.channels, s.size, s.size, generator=torch.Generator().manual_seed(number)) * 2 - 1
    return step.run(number, x, (torch.arange(n) + number) % s.classes)


def check_equal(
    config: Config, objective: Objective | None = None, sizes: Callable[[int], int | None] = lambda k: None
) -> Step:
    eager, replayed = (prepared(config, graph, objective) for graph in (False, True))
    for k in range(UNRECORDED + 4):
        a, b = run(eager, k, sizes(k)), run(replayed, k, sizes(k))
        assert a.keys() == b.keys()
        for name, value in a.items():
            torch.testing.assert_close(b[name], value, rtol=1e-4, atol=1e-6)
    for name in ("generator", "discriminator", "ema"):
        found, expected = (dict(getattr(s, name).state_dict()) for s in (replayed, eager))
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=2e-5)
    return replayed


@pytest.mark.parametrize(
    "change", [{}, {"objective": {"fresh_z": True}}, {"objective": {"penalty_noise": "per_scale"}}]
)
def test_a_replay_is_given_the_samples_draws_and_schedules_of_its_step(
    tiny_config: Config, change: dict[str, Any]
) -> None:
    step = check_equal(from_dict(change, from_dict(CHANGES, tiny_config)))
    assert step.graph is not None
    assert step.graph.recordings == 1


def test_another_size_is_recorded_anew(tiny_config: Config) -> None:
    step = check_equal(from_dict(CHANGES, tiny_config), sizes=lambda k: 6 if k < 5 else 4)
    assert step.graph is not None
    assert len(step.graph.parts["generator"].y) == 4


def test_a_loss_that_reckons_with_the_step_and_a_weight_of_ones_own_are_right(tiny_config: Config) -> None:
    def rising(state: StepState) -> Tensor:
        return 0.1 * state.step * state.h[-1].square().flatten(1).mean(1)

    config = from_dict(CHANGES, tiny_config)
    check_equal(config, default_objective(config).with_term("generator", Term("rising", lambda k: 1.0 + k, rising)))


def test_only_one_process_with_whole_batches_on_a_gpu_replays(tiny_config: Config) -> None:
    def captures(device: str = "cuda", world: int = 1, encoded: bool = False, **training: Any) -> bool:
        return from_dict({"training": training}, tiny_config).captures(device, world, encoded)

    assert captures()
    assert captures(cuda_graph=True)
    assert not captures(cuda_graph=False)
    assert not captures("cpu", cuda_graph=True)
    assert not captures(world=2)
    assert not captures(encoded=True)
    assert not captures(micro_batch=2)


def test_what_cannot_be_recorded_is_said_in_one_line(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def capture(*_: Any, **__: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", capture)

    def fails(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand much more")

    graph = StepGraph(fails, (), CPU)
    step = prepared(tiny_config, False)
    x, y = torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
    graph.fill({n: next(step.micro_batches(n, 0, x, y)) for n in ("discriminator", "generator")}, step.schedule(0))
    with pytest.raises(
        UserError, match=r"^a step cannot be recorded: set training.cuda_graph to false \(operation not"
    ):
        graph.recorded()


def test_constants_are_made_once_for_each_use() -> None:
    like = torch.zeros(2)
    with KeptConstants() as constants:
        made = [like.new_tensor([1.0, 0.5]) for _ in range(2)]
        other = like.new_tensor([1.0, 0.25]), like.double().new_tensor([1.0, 0.5])
        assert made[0] is made[1]
        assert [t.tolist() for t in (made[0], *other)] == [[1.0, 0.5], [1.0, 0.25], [1.0, 0.5]]
        assert other[1].dtype == torch.float64
        assert len(constants.made) == 3
    assert like.new_tensor([1.0, 0.5]) is not made[0]
