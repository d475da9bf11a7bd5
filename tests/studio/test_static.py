"""The page without a server: what its folder holds, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

import catgan
from catgan.cli.main import main
from catgan.draws import sample_z
from catgan.errors import UserError
from catgan.evaluation.alignment import MEASURES, alignment
from catgan.images import to_bytes
from catgan.studio import static
from catgan.studio.model import Model
from catgan.studio.static import NAMES, SEEDS, runtime_files, write_static

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that stand for ONNX Runtime Web, which no test here runs."""
    folder = tmp_path_factory.mktemp("runtime")
    for name in {n for names in NAMES.values() for n in names}:
        (folder / name).write_text(name)
    return folder


@pytest.fixture(scope="session")
def page(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("static") / "page"
    with pytest.MonkeyPatch.context() as patched:
        for package in ("starlette", "uvicorn", "websockets"):  # a page without a server needs none of a server's
            patched.setitem(sys.modules, package, None)
        assert main(["studio", "digits", "--static", str(out), "--runtime", str(runtime)]) == 0
    return out


def test_it_has_all_that_the_page_names(page: Path, runtime: Path) -> None:
    about = json.loads((page / "models.json").read_text())
    assert about["engine"] == "local"
    assert (page / "runtime" / about["runtime"]).read_text() == about["runtime"]
    assert {p.name for p in (page / "runtime").iterdir()} == {*NAMES[False], "LICENSE"}
    assert {p.name for p in (page / "0").iterdir()} == {"style.onnx", "explore.onnx", "z.bin"}
    assert not (page / "server.js").exists()
    text = (page / "index.html").read_text()
    assert static.POLICY in text
    assert str(page.parent) not in "".join(p.read_text() for p in page.glob("*.*"))


def test_its_head_is_that_of_a_static_space(page: Path) -> None:
    import yaml

    head = yaml.safe_load((page / "README.md").read_text().split("---")[1])
    assert head["sdk"] == "static"
    assert (page / head["app_file"]).is_file()
    assert head["custom_headers"]["cross-origin-embedder-policy"] == "require-corp"


def test_the_files_of_a_model_give_its_samples(page: Path) -> None:
    pipe = catgan.load("digits")
    about = json.loads((page / "models.json").read_text())["models"][0]
    z = np.frombuffer((page / "0" / "z.bin").read_bytes(), "<f4").reshape(SEEDS, about["z_dim"])
    seeds, classes = [0, 7, SEEDS - 1], [3, 0, 9]
    assert np.array_equal(z[seeds], sample_z(seeds, about["z_dim"]).numpy())

    style = onnxruntime.InferenceSession(str(page / "0" / "style.onnx"))
    explore = onnxruntime.InferenceSession(str(page / "0" / "explore.onnx"))
    full, mean = style.run(["full", "class_mean"], {"z": z[seeds], "y": np.array(classes, np.int64)})
    w = mean + 0.8 * (full - mean)
    assert np.allclose(w, pipe.style(classes, seeds, psi=0.8).numpy(), atol=1e-5)

    made = dict(zip([o.name for o in explore.get_outputs()], explore.run(None, {"w": w}), strict=True))
    expected = pipe(classes, seeds, psi=0.8, stages=True)
    assert expected.stages is not None
    assert np.abs(made["h"].astype(int) - expected.stage_array.astype(int)).max() <= 1
    for k, x in enumerate(pipe.pyramid(expected.stages)):
        assert np.abs(made[f"x{k}"].astype(int) - to_bytes(x).astype(int)).max() <= 1
    measures = alignment(expected.stages, pipe.pyramid)
    assert np.allclose(made["alignment"], np.stack([measures[m].numpy() for m in MEASURES]), atol=1e-4)

    vectors = np.frombuffer(base64.b64decode(about["vectors"]), "<f4").reshape(about["directions"], about["width"])
    assert np.array_equal(vectors, Model(pipe, "digits").directions.numpy())


def test_what_is_there_is_not_overwritten(page: Path, runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in page.rglob("*")}
    assert main(["studio", "digits", "--static", str(page), "--runtime", str(runtime)]) == 2
    assert str(page) in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in page.rglob("*")}


def test_a_runtime_without_its_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studio", "digits", "--static", str(tmp_path / "page"), "--runtime", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert NAMES[False][0] in said
    assert said.count("\n") == 1
    assert not (tmp_path / "page").exists()


def test_options_of_a_folder_need_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studio", "digits", "--webgpu"]) == 2
    assert "--webgpu is for --static DIR" in capsys.readouterr().err


def test_raw_weights_are_refused(tmp_path: Path, runtime: Path) -> None:
    pipe = catgan.load("digits")
    pipe.weights = "generator"
    with pytest.raises(UserError, match="only averaged weights"):
        write_static([Model(pipe, "digits")], tmp_path / "page", runtime)


def test_another_package_than_the_tested_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(static.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"something else"))
    with pytest.raises(UserError, match="is not the package that was tested"):
        runtime_files(False)
    assert not list(tmp_path.iterdir())


def test_the_package_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("../outside", *(f"dist/{n}" for names in NAMES.values() for n in names)):
            info = tarfile.TarInfo(f"package/{name}")
            info.size = 4
            archive.addfile(info, io.BytesIO(b"file"))
    asked: list[str] = []

    def answer(address: str, **_: object) -> io.BytesIO:
        asked.append(address)
        return io.BytesIO(buffer.getvalue())

    monkeypatch.setenv("CATGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(static.urllib.request, "urlopen", answer)
    monkeypatch.setattr(static, "RUNTIME_SHA512", static.hashlib.sha512(buffer.getvalue()).hexdigest())
    folder = runtime_files(False)
    assert runtime_files(True) == folder
    assert len(asked) == 1
    assert {p.name for p in folder.iterdir()} == {n for names in NAMES.values() for n in names}
    assert not (tmp_path / "cache" / "outside").exists()


def test_no_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise static.urllib.error.URLError("no route to host")

    monkeypatch.setenv("CATGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(static.urllib.request, "urlopen", unreachable)
    with pytest.raises(UserError, match=r"no route to host.*--runtime DIR"):
        runtime_files(False)


def test_one_stage_has_no_alignment() -> None:
    """A generator of one scale: nothing to compare, and the file has no such output."""
    from catgan.config_io import from_dict
    from catgan.networks import build_generator, build_pyramid
    from catgan.recipes import recipe
    from catgan.sampling.onnx import compared, exported

    config = from_dict(
        {
            "sample": {"scales": [8]},
            "generator": {"depth": 1, "width": 16, "heads": 2},
            "discriminator": {"patches": [2]},
        },
        recipe("digits"),
    ).validate()
    torch.manual_seed(0)
    network = static.Explore(build_generator(config).eval().requires_grad_(False), build_pyramid(config))
    model = exported(network)
    assert [o.name for o in model.graph.output] == ["h", "x0"]
    compared(network, model.SerializeToString())
