"""`catgan plan`: the same figures as text and as JSON."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from catgan.cli import main
from catgan.cli.configuration import parse_configuration
from catgan.cli.plan import PlanOptions, gib, quantity, text
from catgan.config import Config
from catgan.config_io import dump_yaml
from catgan.recipes import recipe

Output = pytest.CaptureFixture[str]


def printed(argv: str, capsys: Output) -> str:
    assert main(["plan", *argv.split()]) == 0
    return capsys.readouterr().out


def test_the_documentation_shows_what_is_printed(capsys: Output) -> None:
    page = Path(__file__).parents[2] / "docs" / "plan.md"
    said = printed("cat-h2 --gpus 8", capsys)
    assert said in page.read_text(), "docs/plan.md is out of date: paste what `catgan plan cat-h2 --gpus 8` prints"
    assert max(map(len, said.splitlines())) <= 100
    assert "what one H100 reached" in said


@pytest.mark.parametrize(
    "argv",
    [
        "cat-h2 --gpus 8",
        "cat-b2 --gpus 16 --gpu rtx4090 --batch 256",
        "digits --gpus 1 --generator.width 128 --micro-batch 8 --precision bfloat16",
        "digits --gpus 12 --batch 48 --objective.penalty-end None --training.no-reuse-fakes",
    ],
)
def test_the_command_that_it_prints_trains_what_was_planned(
    argv: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = json.loads(printed(f"{argv} --json", capsys))
    said = printed(argv, capsys)
    assert f"\n  {result['command']}\n" in said
    name, *words = shlex.split(result["command"])
    if name == "torchrun":
        launch = get_args_parser().parse_args(words)
        assert (launch.module, launch.training_script) == (True, "catgan")
        assert int(launch.nnodes.split(":")[0]) * int(launch.nproc_per_node) == result["gpus"]
        assert int(launch.nproc_per_node) <= 8
        words = launch.training_script_args
    trained: list[Config] = []
    monkeypatch.setattr("catgan.training.run.train", lambda config, *_, **__: trained.append(config))
    assert main(words) == 0
    planned, fastest = parse_configuration(PlanOptions, argv.split(), "plan", "").settings, result["fastest"]
    t = trained[0].training
    assert (t.micro_batch or result["batch_per_gpu"]) == fastest["micro_batch"]
    assert (t.parallel, t.recompute) == ("fsdp2" if fastest["sharded"] else "ddp", fastest["checkpointing"])
    same = {"micro_batch": 0, "parallel": "ddp", "recompute": False}
    plain = [replace(c, training=replace(c.training, **same)) for c in (planned, trained[0])]
    assert plain[0] == plain[1]


def test_a_run_that_python_started_from_no_recipe_has_a_plan_and_no_command(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "config.yaml").write_text(dump_yaml(replace(recipe("digits"), recipe="mine")))
    said = printed(f"{tmp_path} --gpus 1", capsys)
    assert said.startswith("mine on 1 x h100")
    assert "fastest that fits: one GPU, in one pass" in said
    assert "catgan train" not in said


def test_a_plan_that_fits_nowhere_has_no_command(capsys: Output) -> None:
    assert "Nothing fits" in printed("cat-h2 --gpus 8 --memory 1", capsys)


def test_json_gives_the_same_text(capsys: Output) -> None:
    argv = "digits --gpus 2 --gpu rtx4090 --price 0.5"
    result = json.loads(printed(f"{argv} --json", capsys), parse_constant=pytest.fail)
    assert result["measured_on_a_gpu"] is False
    said = printed(argv, capsys)
    assert said == text(result) + "\n"
    assert "cost at 0.5 per GPU hour" in said
    assert "kernel launches" in said


def test_figures_given_replace_those_of_the_table(capsys: Output) -> None:
    result = json.loads(printed("digits --gpus 1 --gpu l40s --memory 45 --tflops 50 --json", capsys))
    assert (result["gpu"]["memory"], result["gpu"]["float32"], result["gpu"]["interconnect"]) == (45, 50, 32)
    assert "--memory, --tflops given; the rest: NVIDIA L40S" in result["gpu"]["source"]


def test_another_gpu_needs_all_its_figures(capsys: Output) -> None:
    assert main(["plan", "digits", "--gpus", "1", "--gpu", "b200", "--memory", "180"]) == 2
    assert "--gpu is b200: must be one of h100, h200," in capsys.readouterr().err
    figures = "--memory 180 --tflops 2250 --interconnect 900 --network 50"
    assert printed(f"digits --gpus 1 --gpu b200 {figures}", capsys).startswith("digits on 1 x b200: 180 GiB")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("digitz --gpus 1", "digitz does not exist"),
        ("digits", "missing: --gpus"),
        ("digits --gpus 7", "--gpus is 7: must divide the batch (64)"),
        ("digits --gpus 1 --price -2", "--price is -2.0: must be above 0 and finite"),
        ("digits --gpus 1 --memory nan", "--memory is nan: must be above 0 and finite"),
        ("digits --gpus 1 --utilisation 1.5", "--utilisation is 1.5: must be above 0 and at most 1"),
    ],
)
def test_mistakes_get_one_line(argv: str, said: str, capsys: Output) -> None:
    assert main(["plan", *argv.split()]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_numbers_keep_digits_that_say_something() -> None:
    assert [gib(x * 2**30) for x in (0.0123, 0.5, 53.21)] == ["0.012", "0.50", "53.2"]
    assert [quantity(x) for x in (0.5, 97.08, 1234.5)] == ["0.500", "97.1", "1,234"]
