"""Several processes compute what one would: losses, gradients, norms, style means, penalties, average, scalars."""

from __future__ import annotations

import socket

import compiled
import equivalence
import pytest
import torch
import torch.multiprocessing as mp
from equivalence import MODES, STEPS, VARIANTS, configuration, iterations
from torch import Tensor

from catgan.config_io import from_dict
from catgan.errors import UserError
from catgan.objective import default_objective
from catgan.system.processes import Processes
from catgan.training.parallel import Parallel
from catgan.training.run import check_shares
from catgan.training.step import Step

Found = dict[str, Tensor]
# Every logit has this bias times the class embedding, and losses are of differences: its gradient is only rounding,
# which Adam, dividing by its size, makes into steps of full length in a random direction.
NO_GRADIENT = "discriminator.head.bias"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def one() -> Found:
    return iterations(configuration(), None, STEPS, torch.float64)


@pytest.fixture(scope="module", params=[2, 4])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What so many real processes, connected by gloo, found."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "port").write_text(str(free_port()))
    mp.spawn(equivalence.work, (request.param, folder), nprocs=request.param)
    found: Found = torch.load(folder / "found.pt", weights_only=True)
    return found


def chosen(found: Found, prefix: str) -> Found:
    return {n.removeprefix(prefix): v for n, v in found.items() if n.startswith(prefix)}


def first_step(found: Found, prefix: str) -> Found:
    """Scalars and gradients."""
    return {n: v for n, v in chosen(found, prefix).items() if not n.startswith(("final ", "bytes "))}


def furthest(found: Found, expected: Found) -> tuple[float, str]:
    """The largest difference relative to the largest element of a tensor, and its name."""
    assert found.keys() == expected.keys()
    names = [n for n in found if NO_GRADIENT not in n]
    return max(
        (float((found[n] - expected[n]).abs().max() / expected[n].abs().max().clamp_min(1e-30)), n) for n in names
    )


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("mode", MODES)
def test_it_equals_one_process(several: Found, one: Found, mode: str, variant: str) -> None:
    mine = chosen(several, f"{mode} {variant} float64 ")
    difference, name = furthest(mine, one)
    assert difference < 1e-9, name


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("mode", MODES)
def test_its_first_step_equals_that_of_one_process_in_float32(several: Found, mode: str, variant: str) -> None:
    """With passes of equal size in both: float32 arithmetic depends on it, and the penalties magnify that.

    Adam's first step has one length whatever the gradient's, so weights afterwards are not compared.
    """
    found = first_step(several, f"{mode} {variant} float32 ")
    size = equivalence.passes(variant, int(several["world"]))
    alone = iterations(configuration(micro_batch=size), None, 1, torch.float32)
    difference, name = furthest(found, {n: alone[n] for n in found})
    assert difference < 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("mode", MODES)
def test_its_first_step_is_that_of_one_process_under_bfloat16(several: Found, mode: str, variant: str) -> None:
    """Penalised samples, of which a pass of several may have none, are judged in float32, all others in bfloat16."""
    found = first_step(several, f"{mode} {variant} bfloat16 ")
    size = equivalence.passes(variant, int(several["world"]))
    alone = iterations(configuration(micro_batch=size, precision="bfloat16"), None, 1, torch.float32)
    penalties = {n: v for n, v in found.items() if "/r1" in n or "/r2" in n}
    assert len(penalties) == 2
    assert furthest(penalties, {n: alone[n] for n in penalties})[0] < 1e-5
    difference, name = furthest(found, {n: alone[n] for n in found})
    assert difference < 0.02, name


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_fsdp2_gathers_blocks_in_bfloat16_but_where_penalties_need_float32(several: Found, variant: str) -> None:
    """Gradients are added up in float32. With penalties in bfloat16 they are rough: it rounds as much as it perturbs."""
    for numbers, expected in (("bfloat16", (2, 4)), ("same", (2, 2)), ("float32", (4, 4))):
        of = chosen(several, f"fsdp2 {variant} {numbers} bytes ")
        assert (int(of["generator"]), int(of["discriminator"])) == expected
        assert int(several[f"ddp {variant} {numbers} bytes generator"]) == 4
    by_ddp, by_fsdp2 = (
        {n: v for n, v in first_step(several, f"{mode} {variant} same ").items() if n.startswith("gradient ")}
        for mode in ("ddp", "fsdp2")
    )
    assert all(gradient.dtype == torch.float32 for gradient in by_fsdp2.values())
    difference, name = furthest(by_fsdp2, by_ddp)
    assert difference < 0.2, name


@pytest.fixture(scope="module")
def compiled_and_not(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What two real processes found with compiled blocks and without."""
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "port").write_text(str(free_port()))
    mp.spawn(compiled.work, (2, folder), nprocs=2)
    found: Found = torch.load(folder / "found.pt", weights_only=True)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_compiled_blocks_give_the_losses_and_gradients_of_eager_ones(compiled_and_not: Found, mode: str) -> None:
    eager, quick = (
        {n: v for n, v in chosen(compiled_and_not, f"{mode} {name} ").items() if n.startswith(("0 ", "gradient "))}
        for name in ("eager", "compiled")
    )
    difference, name = furthest(quick, eager)
    assert difference < 1e-4, name
    assert int(compiled_and_not[f"{mode} eager graphs"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["compiled", "compiled bfloat16"])
def test_their_graphs_are_whole_and_few(compiled_and_not: Found, mode: str, name: str) -> None:
    """What FSDP2 and DDP add to a call stays outside of them: they compute with whole weights."""
    assert not bool(compiled_and_not[f"{mode} {name} sharded"])
    assert 0 < int(compiled_and_not[f"{mode} {name} graphs"]) <= 10
    assert int(compiled_and_not[f"{mode} {name} breaks"]) == 0


def test_each_process_takes_consecutive_samples() -> None:
    alone = Parallel(Processes(), torch.device("cpu"))
    assert alone.share(8) == (0, 8)


@pytest.mark.parametrize(("device", "made_current"), [("cuda", []), ("cuda:1", ["cuda:1"]), ("cpu", [])])
def test_only_a_named_card_is_made_the_current_one(
    device: str, made_current: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch refuses a device without an index here; without one the current card is meant."""
    made = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: made.append(str(device)))
    Parallel(Processes(), torch.device(device))
    assert made == made_current


def test_a_batch_that_the_processes_do_not_divide_is_an_error() -> None:
    check_shares(configuration(), 4)
    with pytest.raises(UserError, match=r"training\.batch is 8: must be a multiple of the number of processes, 3"):
        check_shares(configuration(), 3)


def test_a_head_that_nothing_trains_is_frozen() -> None:
    """DDP would wait for its gradients. A resumed run may have one; freezing for the generator's step leaves it so."""
    config = from_dict({"discriminator": {"representation_dim": 4}}, configuration())
    step = Step(config, default_objective(config), torch.device("cpu"))
    step.run(0, *equivalence.real(config, 0, torch.float32))
    frozen = {n for n, p in step.discriminator.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in step.discriminator.named_parameters() if n.startswith("representation.")}
