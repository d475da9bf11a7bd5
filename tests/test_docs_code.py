"""What the documentation shows works: blocks of Python run, commands are accepted and, where that is cheap, run too.

Each page has a folder with pictures and short runs in it. Its blocks are taken in order, recipes cut to two steps.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import catgan
from catgan.cli import main
from catgan.cli.main import COMMANDS
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.errors import UserError
from catgan.metrics import METRICS
from catgan.recipes import RECIPES
from catgan.shipped import DEFAULT_TAGS

ROOT = Path(__file__).parent.parent
PAGES = sorted(str(p.relative_to(ROOT)) for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SYSTEM = {"sudo", "apt-get", "source", "python3"}  # programs that are not ours to check
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# Options and commands whose values or arguments are read: where one is not here, the command is only checked.
READ = {"--reference", "--vae", "--encoder", "--data", "--data.path", "--encoder.path", "--init-from"}
READERS = {"prepare", "sample", "interpolate", "invert", "evaluate", "diagnose", "report", "compare", "export"}
FEWER = {"evaluate": ["--count", "100"]}  # added to a command
MOST = {"--steps": 100, "--count": 1000}  # beyond it, a command is only checked


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(m[1], m[2], text[: m.start()].count("\n") + 2)
        for m in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words[: words.index(">")] if ">" in words else words


def arguments(words: list[str]) -> list[str] | None:
    """What `catgan` is given in a command, alone or under torchrun; None for another program."""
    if words[0] == "catgan":
        return words[1:]
    if words[0] == "torchrun":
        return words[words.index("catgan") + 1 :]
    return None


def is_usage(argv: list[str]) -> bool:
    """Whether capitals or brackets stand for what a reader puts there."""
    return any(re.fullmatch(r"[A-Z]+|\[.*", word) for word in argv)


# -- checked -----------------------------------------------------------------------------------------------------------


class Accepted(Exception):  # noqa: N818  (no error)
    pass


def accepted(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The options that a command was given, as it parsed and validated them; it does nothing with them.

    Raises UserError for what it refuses.
    """

    def stop(*arguments: Any, **options: Any) -> None:
        parsed = function(*arguments, **options)
        raise Accepted(parsed.validate() if isinstance(parsed, Config) else parsed)

    name, *rest = argv
    if "--data" in rest and not Path(rest[rest.index("--data") + 1]).exists():  # then what follows from it is not known
        at = rest.index("--data")
        rest = rest[:at] + rest[at + 2 :]
        rest = rest if at else ["pictures-32", *rest]
    module = import_module(f"catgan.cli.{name}")
    called = next(n for n in ("parse", "parse_configuration") if hasattr(module, n))
    function = getattr(module, called)
    with monkeypatch.context() as patch:
        patch.setattr(module, called, stop)
        try:
            module.main(rest)
        except Accepted as found:
            return found.args[0]
    raise AssertionError(f"catgan {name} parses nothing")


def check_program(words: list[str]) -> None:
    """A command that is not catgan's: the file, target or extra that it names is there."""
    if Path(words[0]).name in ("python", "pytest", "sbatch"):
        assert (ROOT / words[1]).is_file(), words
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    elif Path(words[0]).name == "pip":
        for named in re.findall(r"\[(.*)\]", " ".join(words)):
            assert set(named.split(",")) <= set(EXTRAS), words
    else:
        assert words[0] in SYSTEM, words


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_are_accepted(page: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.language == "yaml":
            check_yaml(block)
        for words in commands(block.text) if block.language == "sh" else ():
            argv = arguments(words)
            try:
                if argv is None:
                    check_program(words)
                elif is_usage(argv):
                    assert argv[0] in COMMANDS
                else:
                    supply_runs(" ".join(argv), run)
                    accepted(argv, monkeypatch)
            except UserError as error:
                pytest.fail(f"{page}:{block.line}: {shlex.join(words)}: {error}")


def check_yaml(block: Block) -> None:
    """A file is put where its first line says; it fits some recipe, with all its fields."""
    name = re.match(r"# (\S+\.yaml)\n", block.text)
    if name:
        Path(name[1]).write_text(block.text)
    problems = []
    for config in RECIPES.values():
        try:
            from_dict(yaml.safe_load(block.text), config).validate()
            return
        except UserError as error:
            problems.append(str(error))
    pytest.fail(f"line {block.line}: {problems}")


# -- run ---------------------------------------------------------------------------------------------------------------


def short(c: Config) -> Config:
    """A recipe with its scales, depths and data, but two steps of four samples through narrow networks."""
    return replace(
        c,
        generator=replace(c.generator, width=16, heads=2),
        discriminator=replace(c.discriminator, width=16, heads=2, head_dim=16),
        training=replace(c.training, steps=2, batch=4, device="cpu"),
        log=replace(c.log, preview_rows=1, diagnose_samples=4),
        eval=replace(c.eval, samples=20, batch=20),
    )


@pytest.fixture
def short_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("digits", "fashion-mnist", "pictures-32"):
        monkeypatch.setitem(RECIPES, name, short(RECIPES[name]))
    monkeypatch.setattr("catgan.evaluation.classifier.FEWEST", 128)
    monkeypatch.setattr("catgan.evaluation.classifier.EPOCHS", 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    return catgan.train(short(catgan.recipe("digits")), tmp_path_factory.mktemp("trained") / "run", quiet=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twelve colour pictures."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("ant", "bee"):
        (folder / name).mkdir()
        for i in range(12):
            Image.fromarray(rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def folder(pictures: Path, short_recipes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a page's blocks run, with a folder of pictures. What they add to the table of metrics is taken out again."""
    before = dict(METRICS)
    place = tmp_path / "page"
    place.mkdir()
    monkeypatch.chdir(place)
    shutil.copytree(pictures, place / "pictures")
    yield place
    METRICS.clear()
    METRICS.update(before)


def supply_runs(text: str, run: Path) -> None:
    """Put a copy of the run at each place where a text names one that is not there yet, and its checkpoint."""
    (checkpoint,) = (run / "checkpoints").iterdir()
    for name, step in re.findall(r"\b(runs/[\w-]+)(/checkpoints/step-\d+)?", text):
        if not Path(name).exists():
            shutil.copytree(run, name)
        if step and not Path(name + step).exists():
            shutil.copytree(checkpoint, name + step)


def new_run(argv: list[str]) -> list[str]:
    """The folder where a command starts a run."""
    starts = argv[0] == "train" and "--resume" not in argv
    if not starts:
        return []
    named_after = argv[2] if argv[1] == "--data" else argv[1]
    return [argv[argv.index("--out") + 1] if "--out" in argv else f"runs/{named_after}"]


def matching(place: str) -> list[str]:
    """The files and folders that a shell would put in place of a word; the word itself where there is none to match."""
    return sorted(map(str, Path().glob(place))) if not Path(place).is_absolute() else []


def can_run(words: list[str], argv: list[str], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a command runs here: in seconds, in one process, and on what is there."""
    long = ("bench", "demo", "plan", "push", "reproduce", "ship", "studio")  # the last is a server, which would not end
    if words[0] == "torchrun" or is_usage(argv) or argv[0] in long:
        return False
    if "--training.compile" in argv or "--backend" in argv:  # compilers take long
        return False
    options = dict(pairwise(argv))
    if any(option in options and int(options[option]) > most for option, most in MOST.items()):
        return False
    if argv[0] == "evaluate" and options.get("--features") != "classifier":  # the others need weights from elsewhere
        return False
    places = [options[option] for option in READ if option in options]
    if argv[0] in READERS:
        places.append(argv[1])
    if not all(matching(place) for place in places if place != "digits"):
        return False
    if argv[0] != "train":
        return True
    if options.get("--init-from") in DEFAULT_TAGS:  # of the recipe's own size, which is cut here
        return False
    config = accepted(argv, monkeypatch)
    source, needs_encoder = config.data, config.objective.representation > 0
    return (source.source == "digits" or bool(source.path and Path(source.path).exists())) and not needs_encoder


def runs_here(text: str) -> bool:
    """Whether a block of Python runs here: not what is left to be filled in, nor what is for a GPU where there is none."""
    return not re.search(r"<\w+>", text) and ("cuda" not in text or torch.cuda.is_available())


def run_python(block: Block, page: str, names: dict[str, Any]) -> None:
    """Run a block among the names of those before it; one that cannot run here is compiled, and its imports done.

    A block that begins with the name of a file is put there.
    """
    tree = ast.parse(block.text)
    module = re.match(r"# (\w+)\.py\n", block.text)
    if module:  # what the next block imports
        Path(module[0][2:-1]).write_text(block.text)
        return
    if not runs_here(block.text):
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    ast.increment_lineno(tree, block.line - 1)
    exec(compile(tree, ROOT / page, "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_in_order(
    page: str, folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(folder)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python":
            if "train(" in block.text:
                for name in re.findall(r'train\(.*"(runs/[\w-]+)"(?!, resume)', block.text):
                    shutil.rmtree(name, ignore_errors=True)
            else:
                supply_runs(block.text, run)
            run_python(block, page, names)
        elif block.language == "yaml":
            check_yaml(block)
        for words in commands(block.text) if block.language == "sh" else ():
            argv = arguments(words)
            if argv is None:
                continue
            supply_runs(" ".join(word for word in argv if word not in new_run(argv)), run)
            if can_run(words, argv, monkeypatch):
                for name in new_run(argv):
                    shutil.rmtree(name, ignore_errors=True)
                expanded = [name for word in argv for name in (matching(word) or [word])] + FEWER.get(argv[0], [])
                assert main(expanded) == 0, f"{page}:{block.line}: {shlex.join(words)}: {capsys.readouterr().err}"
            elif argv[0] == "prepare" and len(argv) > 2:  # what is there would be another data set
                shutil.rmtree(argv[2], ignore_errors=True)


@pytest.mark.parametrize(
    ("command", "runs"),
    [
        ("catgan train digits", True),
        ("catgan sample runs/first --seeds 0-3", True),
        ("catgan compare runs/*", True),
        ("catgan prepare pictures prepared --size 32", True),
        ("catgan prepare nothing prepared --size 32", False),
        ("catgan train fashion-mnist", False),
        ("catgan train cat-b2 --data nothing", False),
        ("catgan train --data nothing", False),
        ("catgan train digits --init-from digits", False),
        ("catgan train digits --training.compile", False),
        ("catgan evaluate runs/first --features inception", False),
        ("torchrun --standalone -m catgan train digits", False),
        ("catgan train RECIPE [--out DIR]", False),
    ],
)
def test_a_command_runs_where_it_takes_seconds_and_all_is_there(
    command: str, runs: bool, folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supply_runs("runs/first", run)
    words = shlex.split(command)
    argv = arguments(words)
    assert argv is not None
    assert can_run(words, argv, monkeypatch) == runs


def test_a_block_of_python_runs_where_it_can() -> None:
    assert runs_here('pipe = catgan.load("runs/digits")')
    assert not runs_here('pipe = catgan.load("<checkpoint>")')
    assert runs_here('pipe.to("cuda")') == torch.cuda.is_available()
