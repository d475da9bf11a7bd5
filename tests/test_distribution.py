"""What is installed from a wheel is the whole package, and what is unpacked from a source distribution can be tested."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

import catgan

ROOT = Path(__file__).parent.parent
CARRIED = ("src/catgan", "tests", "docs", "examples", "benchmarks", "records")
NOT_SOURCES = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".*_cache", ".hypothesis")


def test_the_citation_names_the_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == catgan.__version__


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a release is built from: building writes beside the sources."""
    copy = tmp_path_factory.mktemp("release") / "catgan"
    for folder in CARRIED:
        shutil.copytree(ROOT / folder, copy / folder, ignore=NOT_SOURCES)
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="module")
def built(tree: Path) -> Path:
    """The folder with the source distribution, and the wheel that was built of it."""
    out = tree.parent / "dist"
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def files(folder: Path, root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_package_and_no_others(built: Path, tree: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
    described = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    package = files(tree / "src/catgan", tree / "src")
    assert names - described == package
    assert any(name.endswith("licenses/LICENSE") for name in described)
    assert path.stat().st_size < 8e6, "weights and the rest stay small enough to be fetched by everybody"


@pytest.mark.slow
def test_a_wheel_says_what_it_needs_and_brings_the_command(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        info = next(name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
        metadata = message_from_bytes(wheel.read(f"{info}/METADATA"))
        commands = wheel.read(f"{info}/entry_points.txt").decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "catgan = catgan.cli:main" in commands
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    core = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert sorted(core) == sorted(project["dependencies"])


@pytest.mark.slow
def test_a_source_distribution_holds_what_tests_and_pages_read(built: Path, tree: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for folder in CARRIED:
        assert files(tree / folder, tree) <= names
    read = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "CITATION.cff", "Makefile", "constraints.txt"}
    assert read | {"mkdocs.yml", "pyproject.toml"} <= names
