"""An ONNX file gives the samples of PyTorch, says what it is, and is there only if it does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import catgan
from catgan import shipped
from catgan.cli import main
from catgan.config import Config
from catgan.draws import sample_z
from catgan.errors import UserError
from catgan.images import to_bytes
from catgan.networks import build_generator
from catgan.sampling.onnx import TOLERANCE, ForFidelity, write_onnx
from catgan.sampling.pipeline import CATPipeline

onnx = pytest.importorskip("onnx", reason="needs ONNX: pip install 'catgan[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'catgan[onnx]'")
pytest.importorskip("onnxscript", reason="needs onnxscript: pip install 'catgan[onnx]'")

LEVELS = 2  # of 255
Run = Callable[..., list[np.ndarray]]


def made_by(config: Config, trained: int) -> CATPipeline:
    """A random generator with running means of w of its first `trained` classes."""
    torch.manual_seed(0)
    generator = build_generator(config)
    y = torch.arange(trained)
    generator.update_style_mean(generator.style(torch.randn(trained, generator.z_dim), y), y)
    return CATPipeline(generator, config, ("ant", "bee", "cat"), 7)


@pytest.fixture(scope="module")
def pipe(tiny_config: Config) -> CATPipeline:
    """The last of its three classes was never trained on."""
    return made_by(tiny_config, 2)


@pytest.fixture(scope="module")
def latent(tiny_config: Config) -> CATPipeline:
    """Latents of more tokens than attention takes by plain products."""
    sample = replace(tiny_config.sample, size=20, channels=4, scales=(5, 10, 20), vae="a/vae")
    return made_by(replace(tiny_config, sample=sample), 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def file(pipe: CATPipeline, folder: Path) -> Path:
    return write_onnx(pipe, folder / "tiny.onnx", stages=True).path


@pytest.fixture(scope="module")
def latent_file(latent: CATPipeline, folder: Path) -> Path:
    return write_onnx(latent, folder / "latent.onnx", "w", stages=True).path


@pytest.fixture(scope="module")
def fidelity_file(pipe: CATPipeline, folder: Path) -> Path:
    return write_onnx(pipe, folder / "fidelity.onnx", "fidelity", psi=0.7).path


def by_onnxruntime(path: Path) -> Run:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda **inputs: session.run(None, inputs)


def by_openvino(path: Path) -> Run:
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'catgan[openvino]'")
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda **inputs: [np.array(value) for value in compiled(inputs).values()]


def given(pipe: CATPipeline, classes: list[int], seeds: list[int], psi: float) -> dict[str, np.ndarray]:
    z = sample_z(seeds, pipe.generator.z_dim).numpy()
    return {"z": z, "y": np.array(classes, np.int64), "psi": np.array(psi, np.float32)}


def levels(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(to_bytes(torch.from_numpy(a)).astype(int) - b).max())


def about(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


# -- samples -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "fashion-mnist"])
def test_a_shipped_model_gives_the_pictures_of_pytorch_everywhere(name: str, tmp_path: Path) -> None:
    pipe = catgan.load(name)
    assert main(["export", name, str(tmp_path / "model.onnx"), "--onnx"]) == 0
    for run in (by_onnxruntime(tmp_path / "model.onnx"), by_openvino(tmp_path / "model.onnx")):
        for classes, seeds, psi in (([3], [5], 1.0), (list(range(10)), list(range(10, 20)), 0.7)):
            (images,) = run(**given(pipe, classes, seeds, psi))
            assert levels(images, pipe(classes, seeds, psi=psi).array) <= LEVELS
    found = about(tmp_path / "model.onnx")
    assert found["licence"] == shipped.about(f"{name}.{shipped.DEFAULT_TAGS[name]}").licence
    assert (found["recipe"], json.loads(found["class_names"])) == (pipe.config.recipe, list(pipe.class_names))


@pytest.mark.parametrize("by", [by_onnxruntime, by_openvino])
def test_batches_psi_and_stages_are_those_of_the_pipeline(
    pipe: CATPipeline, file: Path, by: Callable[[Path], Run]
) -> None:
    """A class that was never trained on is left alone by psi, as by the pipeline."""
    run = by(file)
    for n in (1, 2, 5):
        classes, seeds = [k % 3 for k in range(n)], list(range(n))
        for psi in (1.0, 0.85, 0.0):
            images, stages = run(**given(pipe, classes, seeds, psi))
            expected = pipe(classes, seeds, psi=psi, stages=True).stages
            np.testing.assert_allclose(stages, expected, rtol=0, atol=1e-4)
            np.testing.assert_array_equal(images, stages[-1])
    truncated = run(**given(pipe, [2, 2], [0, 1], 0.0))[0]
    assert np.abs(truncated[0] - truncated[1]).max() > 1e-3


@pytest.mark.parametrize("by", [by_onnxruntime, by_openvino])
def test_styles_go_to_latents(latent: CATPipeline, latent_file: Path, by: Callable[[Path], Run]) -> None:
    for n in (1, 4):
        w = latent.style([1], list(range(n)), psi=0.5)
        images, stages = by(latent_file)(w=w.numpy())
        assert stages.shape == (3, n, 4, 20, 20)
        np.testing.assert_allclose(stages, latent(w=w, stages=True).stages, rtol=0, atol=1e-3)
        np.testing.assert_array_equal(images, stages[-1])


# -- the file ----------------------------------------------------------------------------------------------------------


def test_a_file_says_what_it_is(pipe: CATPipeline, file: Path, latent_file: Path) -> None:
    found, latents = about(file), about(latent_file)
    assert found["recipe"] == "digits"
    assert [json.loads(found[k]) for k in ("step", "classes", "size", "channels", "stages")] == [7, 3, 8, 1, 3]
    assert json.loads(found["class_names"]) == ["ant", "bee", "cat"]
    assert json.loads(found["range"]) == [-1, 1]
    assert list(json.loads(found["inputs"])) == ["z", "y", "psi"]
    assert list(json.loads(found["outputs"])) == ["images", "stages"]
    assert float(found["largest_difference"]) < TOLERANCE
    assert "12 samples in batches of 1 and 3: ONNX Runtime" in found["compared"]
    assert "licence" not in found
    assert (latents["space"], latents["vae"]) == ("latents", "a/vae")
    assert list(json.loads(latents["inputs"])) == ["w"]


def test_a_file_has_basic_operators_floats_of_32_bits_and_small_integers(
    file: Path, latent_file: Path, fidelity_file: Path
) -> None:
    for path in (file, latent_file, fidelity_file):
        model = onnx.load(path)
        assert [(s.domain, s.version) for s in model.opset_import] == [("", 18)]
        assert not model.functions
        assert {node.domain for node in model.graph.node} == {""}
        constants = [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute if a.t.name)]
        for tensor in constants:
            array = onnx.numpy_helper.to_array(tensor)
            assert array.dtype == np.float32 or np.abs(array.astype(float)).max(initial=0) < 2**31
            assert array.dtype != np.float64
        text = path.read_bytes()
        assert str(Path(catgan.__file__).parent).encode() not in text, "no paths of this machine"
        assert b"stack_trace" not in text


# -- torch-fidelity ------------------------------------------------------------------------------------------------------


def test_torch_fidelity_draws_every_class_of_it(pipe: CATPipeline, fidelity_file: Path) -> None:
    wrapper = pytest.importorskip("torch_fidelity.generative_model_onnx", reason="needs catgan[eval]")
    model = wrapper.GenerativeModelONNX(str(fidelity_file), pipe.generator.z_dim + 1, "normal", 0)
    z = torch.randn(3, 9)
    z[:, -1] = torch.tensor([-1.0, 0.0, 1.0])  # in the three thirds of a normal distribution
    images = model(z)
    assert images.dtype == torch.uint8
    assert images.shape == (3, 3, 8, 8)
    expected = pipe([0, 1, 2], z=z[:, :-1], psi=0.7).array
    assert np.abs(images.movedim(1, -1).numpy().astype(int) - expected).max() <= 1
    assert model(torch.tensor([[0.0] * 8 + [t] for t in (-9.0, 9.0)])).shape[0] == 2, "the tails have classes"


def test_one_class_needs_no_number_that_chooses_it(tiny_config: Config) -> None:
    one = made_by(replace(tiny_config, sample=replace(tiny_config.sample, classes=1)), 1)
    z = torch.randn(2, 8)
    (images,) = ForFidelity(one.generator, 0.7)(z)
    assert np.array_equal(images.movedim(1, -1), one([0], z=z, psi=0.7).array.repeat(3, axis=-1))


def test_torch_fidelitys_command_line_takes_it(
    pipe: CATPipeline, fidelity_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a feature extractor that needs no weights."""
    fidelity = pytest.importorskip("torch_fidelity.fidelity", reason="needs catgan[eval]")
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    class Cells(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **options: Any) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str]:
            return ("cells",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "cells"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            assert images.dtype == torch.uint8
            assert images.shape[1] == 3
            return (torch.nn.functional.avg_pool2d(images.float(), 4).flatten(1),)

    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "cells", Cells)
    argv = ["fidelity", "--fid", "--feature-extractor", "cells", "--cpu", "--json", "--silent", "--no-cache"]
    for number in (1, 2):
        option = f"--input{number}"
        argv += [option, str(fidelity_file), f"{option}-model-z-type", "normal", f"{option}-model-z-size", "9"]
        argv += [f"{option}-model-num-classes", "0", f"{option}-model-num-samples", "70"]
    monkeypatch.setattr(sys, "argv", argv)
    fidelity.main()
    assert json.loads(capsys.readouterr().out)["frechet_inception_distance"] == pytest.approx(0, abs=1e-3)


# -- what goes wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("digits {tmp}/model --onnx", "model: must be named NAME.onnx"),
        ("digits {tmp}/there.onnx --onnx", "there.onnx exists: choose another name"),
        ("digits {tmp}/new.onnx --onnx --discriminator", "leave out --discriminator"),
        (
            "digits {tmp}/new.onnx --onnx --fidelity --stages",
            "a file for torch-fidelity has one output: leave out stages",
        ),
        ("digits {tmp}/new.onnx --onnx --fidelity --from-style", "--fidelity takes z: leave out --from-style"),
        ("digits {tmp}/new.onnx --onnx --psi 0.5", "psi is 0.5: only a file for torch-fidelity has it fixed"),
        ("digits {tmp}/new.onnx --onnx --fidelity --psi 2", "psi is 2.0: must be in [0, 1]"),
        ("digits {tmp}/new --from-style", "--from-style is for ONNX files: add --onnx"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    argv: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.onnx").write_text("mine")
    assert main(["export", *argv.format(tmp=tmp_path).split()]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("there.onnx", "mine")]


def test_raw_weights_latents_for_torch_fidelity_and_large_networks_are_refused(
    pipe: CATPipeline, latent: CATPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="makes latents, torch-fidelity takes pixels"):
        write_onnx(latent, tmp_path / "new.onnx", "fidelity")
    with pytest.raises(UserError, match="form is x: must be one of z, w, fidelity"):
        write_onnx(pipe, tmp_path / "new.onnx", "x")  # type: ignore[arg-type]
    raw = CATPipeline(pipe.generator, pipe.config, pipe.class_names)
    raw.weights = "generator"
    with pytest.raises(UserError, match="weights is generator: only averaged weights are exported"):
        write_onnx(raw, tmp_path / "new.onnx")
    monkeypatch.setattr("catgan.sampling.onnx.LARGEST", 1000)
    with pytest.raises(UserError, match=r"the weights are .* GiB: an ONNX file holds at most 2"):
        write_onnx(pipe, tmp_path / "new.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(
    package: str, pipe: CATPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"ONNX export needs {package}, .*: pip install 'catgan\[onnx\]'"):
        write_onnx(pipe, tmp_path / "new.onnx")


def test_nothing_is_left_where_samples_differ_or_the_comparison_is_interrupted(
    pipe: CATPipeline, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("catgan.sampling.onnx.exported", lambda network: onnx.load(file))
    with monkeypatch.context() as patch:
        patch.setattr("catgan.sampling.onnx.TOLERANCE", 1e-12)
        with pytest.raises(
            UserError, match=r"samples differ from PyTorch's by .*: must be at most .*e-12; nothing was written"
        ):
            write_onnx(pipe, tmp_path / "new.onnx", stages=True)
    other = CATPipeline(build_generator(pipe.config), pipe.config, pipe.class_names)
    with pytest.raises(UserError, match=r"samples differ from PyTorch's by .*: must be at most 0\.0.*"):
        write_onnx(other, tmp_path / "new.onnx", stages=True)
    with monkeypatch.context() as patch:
        patch.setattr("catgan.sampling.onnx.runs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_onnx(pipe, tmp_path / "new.onnx", stages=True)
    assert not list(tmp_path.iterdir())
