"""The closed forms of memory against what PyTorch really holds and keeps."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from catgan.accounting.memory import Layout, Networks, Share, copied, moments, parameters, peak, state
from catgan.checkpoint import reading as checkpoint
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.draws import Purpose
from catgan.objective import default_objective
from catgan.recipes import recipe
from catgan.training.step import MicroBatch, Step

KEYS = ("weights", "gradients", "moments", "ema")
DDP = Layout(sharded=False, checkpointing=False)


def held(tensors: list[Tensor]) -> int:
    """Bytes of the storages of these tensors, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def kept(run: Callable[[], Any], apart_from: list[Tensor]) -> tuple[int, Any]:
    """Bytes of the storages that autograd keeps of a forward pass, but for those of some tensors; and its result."""
    known = {t.untyped_storage()._cdata for t in apart_from}
    storages: dict[int, Any] = {}

    def pack(t: Tensor) -> Tensor:
        storages[t.untyped_storage()._cdata] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = run()
    return sum(s.nbytes() for key, s in storages.items() if key not in known), result


def tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def share(config: Config) -> Share:
    return Share(1, config.training.batch, config.training.batch)


def measured(step: Step, config: Config) -> dict[str, tuple[int, float]]:
    """Bytes that the graphs of one iteration keep: measured, and by closed form."""
    n, networks = config.training.batch, Networks(config)
    m = networks.perturbed(n)
    s, device = config.sample, step.device
    part = MicroBatch(
        0,
        torch.rand(n, s.channels, s.size, s.size, device=device),
        torch.zeros(n, dtype=torch.int64, device=device),
        torch.randn(n, config.generator.z_dim, device=device),
        {p: torch.rand(n, 9, device=device) for p in Purpose},
        torch.arange(m, device=device),
        {p: [torch.randn(m, s.channels, s.size, s.size, device=device)] for p in Purpose},
    )
    copies = networks.a if networks.a == 2 else 0
    unused = sum(m.weight.numel() for m in represented(networks) if isinstance(m, nn.Linear))
    of_g, of_d = copies * copied(networks.generator), copies * (copied(networks.discriminator) - unused)
    generated, (_, h) = kept(lambda: step.generate(part.z, part.y), tensors(step.generator))
    trained, _ = kept(lambda: step.discriminator_state(part, h.detach()), tensors(step.discriminator))
    step.discriminator.requires_grad_(False)
    frozen, _ = kept(lambda: step.generator_state(part, h), tensors(step.discriminator))
    return {
        "generator": (generated, networks.generator_graph.kept(n) + of_g),
        "discriminator": (trained, networks.discriminator_graph().kept(2 * (n + m)) + of_d),
        "frozen": (frozen, networks.discriminator_graph(trained=False).kept(n) + of_d),
    }


def represented(networks: Networks) -> list[nn.Module]:
    head = networks.discriminator.representation
    return [] if head is None else list(head.modules())


# -- state -------------------------------------------------------------------------------------------------------------


def test_state_is_what_one_training_step_allocates(tiny_config: Config) -> None:
    step, found = Step(tiny_config, default_objective(tiny_config), torch.device("cpu")), {}
    update = step.update

    def watched(network: str, metrics: Any) -> None:
        every = [*step.generator.parameters(), *step.discriminator.parameters()]
        found[network] = held([p.grad for p in every if p.grad is not None])
        update(network, metrics)

    step.update = watched  # type: ignore[method-assign]
    x = torch.rand(8, 1, 8, 8)
    step.run(0, x, torch.arange(8) % 3)
    slots = [t for o in step.optimizers.values() for s in o.state.values() for t in s.values()]
    n = Networks(tiny_config)
    for network in ("generator", "discriminator"):
        expected = state(n, share(tiny_config), DDP, network, 0)
        assert expected["weights"] == held(tensors(step.generator) + tensors(step.discriminator))
        assert expected["gradients"] == found[network]
        assert expected["moments"] == held(slots)
        assert expected["ema"] == held(tensors(step.ema))
    networks = {"generator": step.generator, "discriminator": step.discriminator, "ema": step.ema}
    assert n.checkpoint == checkpoint.forecast(networks)


def test_fsdp_divides_the_state_and_keeps_buffers_whole(tiny_config: Config) -> None:
    n = Networks(tiny_config)
    alone, spread = (
        state(n, Share(gpus, 8, 8), Layout(sharded, False), "generator", 0) for gpus, sharded in ((1, False), (4, True))
    )
    assert alone["moments"] / spread["moments"] == 4
    assert alone["gradients"] / spread["gradients"] == 4
    assert 1 < alone["weights"] / spread["weights"] < 4


def test_ddp_keeps_buckets_of_both_networks(tiny_config: Config) -> None:
    n = Networks(tiny_config)
    found = state(n, Share(2, 8, 8), DDP, "generator", 0)["gradients"]
    assert found == parameters(n.generator) + parameters(n.discriminator)


def test_moments_are_twice_the_weights_and_a_counter_each(tiny_config: Config) -> None:
    g = Networks(tiny_config).generator
    assert moments(g) == 2 * parameters(g) + 4 * len(list(g.parameters()))


# -- activations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["tiny", "digits", "fashion-mnist"])
def test_graphs_on_cpu_are_within_a_fifth_of_the_closed_form(
    name: str, precision: str, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU has no fused RMSNorm and other rules of autocast."""
    config = tiny_config if name == "tiny" else recipe(name)
    config = replace(config, training=replace(config.training, batch=4, precision=precision, device="cpu"))
    monkeypatch.setattr("catgan.nn.layers.SHORT", 0)  # fused attention, as on a GPU
    for graph, (found, expected) in measured(
        Step(config, default_objective(config), torch.device("cpu")), config
    ).items():
        assert expected == pytest.approx(found, rel=0.2), graph


@contextlib.contextmanager
def autocast_of_cuda() -> Iterator[None]:
    """torch.autocast("cuda") switches itself off on a machine without CUDA; this does not."""
    usual = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        torch.set_autocast_dtype("cuda", usual)
        torch.set_autocast_enabled("cuda", False)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.skipif(torch.version.cuda is None, reason="PyTorch was built without CUDA's fused RMSNorm")
@pytest.mark.parametrize(
    ("name", "batch", "precision"),
    [("cat-b2", 64, "bfloat16"), ("cat-h2", 32, "bfloat16"), ("digits", 64, "float32")],
)
def test_graphs_of_cuda_are_the_closed_form(
    name: str, batch: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors without memory that follow CUDA's rules, at full width; flash attention takes part by name."""
    config = recipe(name)
    depth = len(config.sample.scales)  # few blocks, for speed
    changes = {"training": {"batch": batch, "precision": precision}, "generator": {"depth": depth}}
    config = from_dict({**changes, "discriminator": {"depth": 2}}, config)
    monkeypatch.setattr(nn.Module, "to", lambda self, *_: self)  # they are there already and cannot be moved
    monkeypatch.setattr(
        "catgan.nn.layers.attend", lambda q, k, v: torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
    )
    with FakeTensorMode():
        with torch.device("cuda"):
            step = Step(config, default_objective(config), torch.device("cuda"))
        monkeypatch.setattr(step, "autocast", autocast_of_cuda if precision == "bfloat16" else contextlib.nullcontext)
        for graph, (found, expected) in measured(step, config).items():
            assert expected == pytest.approx(found, rel=0.01), graph


class Allocated(TorchDispatchMode):
    """The most bytes that operations have had in storages at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[int] = set()
        self.now = self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.see, result)
        self.most = max(self.most, self.now)
        return result

    def see(self, t: Tensor) -> None:
        storage = t.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            weakref.finalize(storage, self.forget, key, size)

    def forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_discriminator_step_needs_what_is_kept_and_at_work(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the forward and backward passes allocate on CPU, at the worst moment."""
    config = from_dict({"training": {"batch": 16, "precision": precision, "device": "cpu"}}, recipe("digits"))
    monkeypatch.setattr("catgan.nn.layers.SHORT", 0)
    step = Step(config, default_objective(config), torch.device("cpu"))
    part = next(step.micro_batches("discriminator", 0, torch.rand(16, 1, 8, 8), torch.arange(16) % 10))
    with Allocated() as allocated:
        _, h = step.generate(part.z, part.y)
        step.accumulate_gradients("discriminator", step.discriminator_state(part, h.detach()), {})
    used = peak(Networks(config), share(config), DDP)
    expected = sum(used["bytes"][name] for name in ("activations", "backward", "gathered"))
    assert used["step"] == "discriminator"
    assert expected == pytest.approx(allocated.most, rel=0.2)


# -- the two steps -----------------------------------------------------------------------------------------------------


def test_the_discriminator_step_holds_the_generators_graph_only_if_fakes_are_reused(tiny_config: Config) -> None:
    n = Networks(from_dict({"training": {"batch": 16}}, tiny_config))
    graph = n.generator_graph.kept(8)
    reusing = peak(n, Share(1, 8, 8), DDP)["bytes"]["activations"]
    passes = peak(n, Share(1, 16, 8), DDP)["bytes"]["activations"]
    assert reusing - passes == pytest.approx(graph)


def test_penalties_add_their_share_of_samples(tiny_config: Config) -> None:
    with_penalty = peak(Networks(tiny_config), share(tiny_config), DDP)["bytes"]["activations"]
    config = from_dict({"objective": {"penalty": 0}}, tiny_config)
    without = peak(Networks(config), share(config), DDP)["bytes"]["activations"]
    d = Networks(tiny_config).discriminator_graph()
    assert with_penalty - without == pytest.approx(d.kept(20) - d.kept(16))


def test_checkpointing_leaves_the_residual_stream_of_each_block(tiny_config: Config) -> None:
    graph = Networks(tiny_config).discriminator_graph()
    rest = graph.rest.bytes(5, graph.tokens)
    assert graph.kept(5, checkpointing=True) - rest == 2 * 5 * (4 + 16 + 1 + 3 + 0) * 16 * 4
    assert graph.kept(5, checkpointing=True) < graph.kept(5)
