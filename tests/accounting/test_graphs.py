"""What graphs are measured to keep, against autograd's own record under CUDA's own rules."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from catgan.accounting.graphs import Allocated, Graph, discriminator_graph, generator_graph
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.networks import build_discriminator, build_generator
from catgan.recipes import recipe


def kept(run: Callable[[], Any], network: nn.Module) -> int:
    """Bytes of the storages that autograd keeps of a forward pass, but for the network's own."""
    own = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
    storages: dict[int, Any] = {}

    def pack(t: Tensor) -> Tensor:
        storages[t.untyped_storage()._cdata] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run()
    return sum(s.nbytes() for key, s in storages.items() if key not in own)


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
@pytest.mark.skipif(
    torch.__version__ < (2, 10) and not torch.cuda.is_available(),
    reason="PyTorch 2.9 wants a driver to draw fake weights on CUDA",
)
@pytest.mark.parametrize(
    ("name", "batch", "precision"),
    [("cat-b2", 64, "bfloat16"), ("cat-h2", 32, "bfloat16"), ("digits", 64, "float32")],
)
def test_graphs_keep_what_autograd_records_on_cuda(
    name: str, batch: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All blocks as extrapolated from few; flash attention takes part by name. Outputs are held too."""
    config = from_dict({"training": {"batch": batch, "precision": precision}}, recipe(name))
    g, d, frozen = generator_graph(config), discriminator_graph(config), discriminator_graph(config, frozen=True)
    autocast = autocast_of_cuda if precision == "bfloat16" else contextlib.nullcontext
    monkeypatch.setattr(
        "catgan.nn.layers.attend", lambda q, k, v: torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
    )
    s = config.sample
    with FakeTensorMode(), torch.device("cuda"), autocast():
        generator, discriminator = build_generator(config), build_discriminator(config)
        z, y = torch.empty(batch, generator.z_dim), torch.zeros(batch * 5 // 2, dtype=torch.int64)
        pyramid = [torch.empty(len(y), s.channels, n, n) for n in s.scales]
        fakes = [torch.empty(batch, s.channels, n, n, requires_grad=True) for n in s.scales]
        represented = 0 if discriminator.representation is None else batch
        precise = (
            torch.arange(batch) if precision == "bfloat16" else None
        )  # a quarter of real and fake samples, and their twins
        of_g = kept(lambda: generator(z, y[:batch], all_stages=True), generator)
        of_d = kept(lambda: discriminator(pyramid, y, represented=represented, precise=precise), discriminator)
        of_frozen = kept(lambda: discriminator.requires_grad_(False)(fakes, y[:batch]), discriminator)
    assert g.kept * batch + g.copies == pytest.approx(of_g, rel=0.01)
    assert d.kept * len(y) + d.copies == pytest.approx(of_d, rel=0.01)
    assert frozen.kept * batch + frozen.copies == pytest.approx(of_frozen, rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_depth_adds_as_much_per_block(checkpointing: bool, tiny_config: Config) -> None:
    def graph(depth: int) -> Graph:
        return discriminator_graph(from_dict({"discriminator": {"depth": depth}}, tiny_config), checkpointing)

    one, two, nine = graph(1), graph(2), graph(9)
    assert nine.kept - one.kept == pytest.approx(8 * (two.kept - one.kept))
    assert nine.working == two.working


def test_checkpointing_keeps_the_residual_stream_of_each_block(tiny_config: Config) -> None:
    """Tokens (patches of all scales and [cls]) times channels times bytes of a float32."""
    one, two = (from_dict({"discriminator": {"depth": depth}}, tiny_config) for depth in (1, 2))
    more = discriminator_graph(two, True).kept - discriminator_graph(one, True).kept
    assert more == pytest.approx((1 + 4 + 16 + 3) * 16 * 4)
    assert discriminator_graph(two, True).working > discriminator_graph(two).working


def test_a_frozen_discriminator_keeps_less(tiny_config: Config) -> None:
    assert discriminator_graph(tiny_config, frozen=True).kept < discriminator_graph(tiny_config).kept


def test_autocast_copies_weights_and_float32_does_not(tiny_config: Config) -> None:
    half = from_dict({"training": {"precision": "bfloat16"}}, tiny_config)
    layers = [m for m in build_generator(tiny_config).modules() if isinstance(m, nn.Linear)]
    expected = 2 * sum(p.numel() for m in layers for p in m.parameters())
    assert generator_graph(half).copies == pytest.approx(expected, rel=0.01)
    assert generator_graph(tiny_config).copies == 0


def test_storages_are_counted_once_and_until_they_go() -> None:
    given = torch.zeros(1000)
    with Allocated([given]) as allocated:
        given += 1
        first = given + 1
        second = first.view(10, 100) * 2
        assert allocated.now == {"rest": 8000, "copies": 0}
        del first
        half = given.bfloat16()
        assert allocated.now == {"rest": 4000, "copies": 2000}
    assert allocated.most == {"rest": 8000, "copies": 2000}
    del second, half
    assert allocated.now == {"rest": 0, "copies": 0}
