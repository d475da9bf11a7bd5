"""The core needs few packages; what else is missing is named with the extra that brings it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catgan.cli import main
from catgan.errors import UserError
from catgan.system.packages import need

PROJECT = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text())["project"]
BLOCKED = """
import sys
for name in ("datasets", "diffusers", "huggingface_hub", "matplotlib", "onnx", "onnxruntime", "onnxscript", "openvino",
             "pandas", "pyarrow", "sklearn", "scipy", "tensorboard", "torch_fidelity", "transformers", "wandb"):
    sys.modules[name] = None
from catgan.cli import main
sys.exit(main(sys.argv[1:]))
"""


def packages(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[>=]", text)[0] for text in requirements}


def test_the_core_is_small() -> None:
    assert packages(PROJECT["dependencies"]) == {"torch", "numpy", "safetensors", "tyro", "pyyaml", "pillow"}


def test_a_missing_package_is_named_with_an_extra_that_there_is() -> None:
    with pytest.raises(UserError, match=r"this needs no_such, which is not installed: pip install 'catgan\[data\]'"):
        need("no_such", "this", "data")
    sources = (Path(__file__).parent.parent.parent / "src").rglob("*.py")
    named = {
        extra for path in sources for extra in re.findall(r"catgan\[(\w+)\]|need\(.*, \"(\w+)\"\)", path.read_text())
    }
    assert {a or b for a, b in named} <= set(PROJECT["optional-dependencies"])


@pytest.mark.slow
def test_training_and_sampling_go_on_without_any_extra(tmp_path: Path) -> None:
    moments = np.random.default_rng(0).random((8, 2, 8, 8), np.float32)
    np.save(tmp_path / "moments.npy", moments)
    np.save(tmp_path / "labels.npy", np.arange(8) % 2)
    small = (
        "--sample.channels 1 --sample.classes 2 --generator.depth 3 --generator.width 16 --generator.heads 2 --steps 1 --batch 4 "
        "--discriminator.depth 1 --discriminator.width 16 --discriminator.heads 2 --discriminator.head-dim 8 --device cpu "
        f"--data.source latents --data.path {tmp_path} --log.diagnose-samples 4 --log.preview-rows 1 --out {tmp_path / 'run'}"
    )

    def call(*argv: str) -> str:
        command = [sys.executable, "-c", BLOCKED, *argv]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        return done.stderr

    said = call("train", "digits", *small.split())
    assert "no log for TensorBoard, which is not installed: pip install 'catgan[tensorboard]'" in said
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 1
    assert not (tmp_path / "run" / "tensorboard").exists()
    call("sample", str(tmp_path / "run"), "--classes", "0", "--seeds", "0", "--out", str(tmp_path / "samples"))


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("demo --out here", "matplotlib", "demo"),
        ("train digits --out here", "sklearn", "demo"),
        ("train digits --out here --log.wandb", "wandb", "wandb"),
        ("prepare pictures here --size 32", "pyarrow", "data"),
        ("prepare hf:mnist here --size 32", "datasets", "hub"),
        ("prepare pictures here --size 32 --vae pictures", "diffusers", "encoders"),
        ("evaluate digits --features classifier", "sklearn", "demo"),
        ("evaluate digits --features inception --reference pictures", "torch_fidelity", "eval"),
        ("evaluate digits --features dinov2 --feature-weights pictures --reference pictures", "transformers", "encoders"),
        ("evaluate digits --features pixels --reference pictures --count 8", "torch_fidelity", "eval"),
        ("sample digits --out here --backend openvino", "openvino", "openvino"),
        ("export digits here.onnx --onnx", "onnxscript", "onnx"),
        ("push digits owner/name", "huggingface_hub", "hub"),
    ],
)  # fmt: skip
def test_a_command_that_misses_a_package_names_its_extra_in_one_line_and_leaves_nothing(
    command: str,
    package: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ant", "bee"):
        Path("pictures", name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(f"pictures/{name}/0.png")
    for file in ("config.json", "model.safetensors"):
        Path("pictures", file).touch()
    before = set(tmp_path.rglob("*"))
    for name in [package, *(loaded for loaded in sys.modules if loaded.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(command.split()) == 2
    said = capsys.readouterr().err.splitlines()
    assert f"pip install 'catgan[{extra}]'" in said[-1]
    assert not [line for line in said if "Traceback" in line or "downloading" in line]
    assert not [path for path in set(tmp_path.rglob("*")) - before if "cache" not in path.parts]


REPORTING = """
import sys
from catgan.system.packages import need
need("huggingface_hub", "a test", "hub")
need("openvino", "a test", "openvino")
from huggingface_hub.utils import build_hf_headers
from openvino.tools.ovc import telemetry_utils
print("torch/" in build_hf_headers()["user-agent"], telemetry_utils.tm.__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("wanted", "reports"), [(None, "False"), ("0", "True")])
def test_packages_report_nothing_unless_the_user_wants_them_to(wanted: str | None, reports: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_TELEMETRY"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": wanted} if wanted else {}
    done = subprocess.run([sys.executable, "-c", REPORTING], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [reports, "openvino.tools.ovc.telemetry_stub"], done.stderr


SESSION = """
from catgan.system.packages import need
need("onnx", "a test", "onnx")
runtime = need("onnxruntime", "a test", "onnx")
from onnx import TensorProto, helper
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", [value("x")], [value("y")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
"""


@pytest.mark.slow
def test_onnx_runtime_keeps_no_number_of_the_device(tmp_path: Path) -> None:
    silent = ("ORT_DISABLE_TELEMETRY", "CI", "ORT_RUNNING_UNIT_TESTS")  # what would silence it without catgan
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", SESSION], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*")) == []
