"""Steps that are replayed, on a stand-in for CUDA graphs: what a recording reads is filled before each replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.errors import UserError
from catgan.objective import Objective, StepState, Term, default_objective
from catgan.system.devices import KeptConstants
from catgan.system.processes import Processes
from catgan.training.graph import StepGraph
from catgan.training.parallel import Parallel
from catgan.training.step import Step, is_own
from catgan.training.timing import UNRECORDED

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
    assert len(step.graph.inputs[1]) == 4


def test_a_loss_that_reckons_with_the_step_and_a_weight_of_ones_own_are_right(tiny_config: Config) -> None:
    def rising(state: StepState) -> Tensor:
        return 0.1 * state.step * state.h[-1].square().flatten(1).mean(1)

    config = from_dict(CHANGES, tiny_config)
    check_equal(config, default_objective(config).with_term("generator", Term("rising", lambda k: 1.0 + k, rising)))


def captures(config: Config, device: str = "cuda", **about: Any) -> bool:
    names = ("world", "encoded", "own")
    given = {name: about.pop(name) for name in names if name in about}
    return from_dict({"training": about}, config).captures(device, **given)


def test_what_catgan_trains_in_one_process_with_whole_batches_on_a_gpu_is_replayed(tiny_config: Config) -> None:
    assert captures(tiny_config)
    assert captures(tiny_config, own=True, cuda_graph=True), "it is asked for"
    for reason in ({"own": True}, {"world": 2}, {"encoded": True}, {"micro_batch": 2}, {"cuda_graph": False}):
        assert not captures(tiny_config, **reason), reason
    assert not captures(tiny_config, "cpu")


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"device": "cpu"}, "the device is no GPU"),
        ({"world": 2}, "there are several processes"),
        ({"micro_batch": 2}, "a batch is passed in parts"),
        ({"encoded": True}, "an encoder reads the samples"),
    ],
)
def test_asked_for_where_it_cannot_be_it_says_why(tiny_config: Config, about: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=f"^training.cuda_graph is true, but {reason}: set it to false$"):
        captures(tiny_config, cuda_graph=True, **about)


def test_an_objective_of_ones_own_is_told_from_that_of_the_configuration(tiny_config: Config) -> None:
    usual = default_objective(tiny_config)
    assert not is_own(usual, tiny_config)
    assert is_own(usual.with_term("generator", Term("dark", 1.0, lambda s: s.h[-1].flatten(1).mean(1))), tiny_config)
    assert is_own(usual.without_term("discriminator", "r2"), tiny_config)


class Ends:
    """A recording that complains at its end, as CUDA's does, of what it saw before."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        raise RuntimeError("operation failed due to a previous error during capture")


@pytest.mark.parametrize(
    ("first", "expected", "message"),
    [
        (
            "operation not permitted when stream is capturing\nand more",
            UserError,
            r"false \(operation not permitted when",
        ),
        ("CUDA error: out of memory", RuntimeError, "^CUDA error: out of memory$"),
    ],
)
def test_what_cannot_be_recorded_is_said_in_one_line(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, first: str, expected: type[Exception], message: str
) -> None:
    streams: list[Any] = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: Ends())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "the stream before")
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)

    def fails(*_: Any) -> Any:
        raise RuntimeError(first)

    graph, step = StepGraph(fails, (), CPU), prepared(tiny_config, False)
    x, y = torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
    graph.fill(0, x, y, step.schedule(0))
    with pytest.raises(expected, match=message) as caught:
        graph.recorded()
    assert "\n" not in str(caught.value)
    assert streams == ["the stream before"]


def test_constants_are_made_once_and_may_be_changed() -> None:
    like = torch.zeros(2)
    with KeptConstants() as constants:
        made = [like.new_tensor([1.0, 0.5]) for _ in range(2)]
        made[0].mul_(2)
        other = like.new_tensor([1.0, 0.25]), like.double().new_tensor((1, 0.5))
        assert [t.tolist() for t in (*made, *other)] == [[2.0, 1.0], [1.0, 0.5], [1.0, 0.25], [1.0, 0.5]]
        assert other[1].dtype == torch.float64
        assert len(constants.made) == 3
        assert like.new_tensor(2.0).shape == ()
        assert like.new_tensor(data=[3.0]).tolist() == [3.0]
        assert like.new_tensor([[1.0]]).shape == (1, 1)
        assert len(constants.made) == 3


def test_the_gpu_of_a_run_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams and recordings belong to the current one."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name in ("cuda:1", "cpu"):
        Parallel(Processes(), torch.device(name))
    assert chosen == [torch.device("cuda:1")]
