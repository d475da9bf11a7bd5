"""Feature spaces: weights are checked before they are used, and images arrive as their networks want them."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity import FeatureExtractorInceptionV3
from torch_fidelity import feature_extractor_inceptionv3 as port
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection, Dinov2Config, Dinov2Model

import parity
from catgan.errors import UserError
from catgan.evaluation import features as module
from catgan.evaluation.collect import Keep, Work
from catgan.evaluation.evaluate import evaluate
from catgan.evaluation.evaluator import Evaluator
from catgan.evaluation.features import (
    INCEPTION_FILE,
    INCEPTION_URL,
    Clip,
    DINOv2ClassToken,
    Inception,
    InceptionSpatial,
    cache_folder,
    fetched,
)
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.reference import of_source
from catgan.evaluation.sources import Folder, Npz
from catgan.metrics import titles

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights for the real network."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(port, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("random", ["2048"])
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def inception(inception_file: Path) -> Inception:
    return Inception(CPU, inception_file)


@pytest.fixture(scope="module")
def dinov2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=56, mlp_ratio=2
    )
    path = tmp_path_factory.mktemp("weights") / "dinov2"
    Dinov2Model(config).save_pretrained(path)
    return path


def test_inception_gives_what_torch_fidelity_gives(inception: Inception, inception_file: Path) -> None:
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    theirs = FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], str(inception_file))
    for ours, expected in zip(inception(images), theirs(images), strict=True):
        assert torch.equal(ours, expected)
    assert inception(images)[0].shape == (2, inception.dim)
    assert inception(images)[1].shape == (2, inception.classes)  # type: ignore[union-attr]


def resized(image: np.ndarray, size: int = 299) -> np.ndarray:
    """TensorFlow 1's bilinear resize of (3, H, W), in float64: the corner of a pixel is its place."""
    rows, columns = (np.arange(size) * n / size for n in image.shape[1:])
    low, left = rows.astype(int), columns.astype(int)
    high, right = np.minimum(low + 1, image.shape[1] - 1), np.minimum(left + 1, image.shape[2] - 1)
    down, along = (rows - low)[:, None], columns - left
    upper = image[:, low][:, :, left] * (1 - along) + image[:, low][:, :, right] * along
    lower = image[:, high][:, :, left] * (1 - along) + image[:, high][:, :, right] * along
    return np.asarray(upper * (1 - down) + lower * down)


@pytest.fixture(scope="module")
def lively_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in which no signal dies away on its way."""
    folder = tmp_path_factory.mktemp("lively")
    parity.to_files(np.random.default_rng(0).integers(256, size=(4, 20, 12, 3), dtype=np.uint8), folder / "pictures")
    return parity.random_inception(folder / "inception.pth", [folder / "pictures"])


def test_spatial_features_are_seven_channels_of_mixed_6_in_every_cell(lively_file: Path) -> None:
    space = InceptionSpatial(CPU, lively_file)
    images = torch.randint(256, (2, 3, 20, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found, logits = space(images)
    assert logits is None
    assert found.shape == (2, space.dim) == (2, 2023)
    assert found.std() > 0.1
    net = FeatureExtractorInceptionV3("x", ["2048"], str(lively_file)).double()
    x = torch.from_numpy(np.stack([(resized(image.numpy().astype(float)) - 128) / 128 for image in images]))
    for name in (
        "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2",
        "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c",
    ):  # fmt: skip
        x = getattr(net, name)(x)
    weights = {n: t.numpy() for n, t in net.Mixed_6d.branch1x1.state_dict().items()}
    for channel in range(7):
        at = {n: weights[f"bn.{n}"][channel] for n in ("weight", "bias", "running_mean", "running_var")}
        each = np.einsum("c,nchw->nhw", weights["conv.weight"][channel, :, 0, 0], x.numpy())
        each = (each - at["running_mean"]) / np.sqrt(at["running_var"] + 1e-3) * at["weight"] + at["bias"]
        np.testing.assert_allclose(found.view(2, 17, 17, 7)[..., channel], each.clip(min=0), rtol=1e-3, atol=1e-3)
    assert space.identity() != Inception(CPU, lively_file).identity()
    assert titles("inception-spatial")["frechet_distance"] == "sFID"
    assert titles("inception-spatial")["precision"] == "spatial Inception precision"


def test_the_spatial_distance_is_to_the_files_own_statistics(lively_file: Path, tmp_path: Path) -> None:
    """As in ADM's reference files: mu_s and sigma_s beside mu and sigma."""
    draws = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", arr_0=draws.integers(256, size=(3, 8, 8, 3), dtype=np.uint8))
    own = draws.normal(size=2023)
    np.savez(tmp_path / "ref.npz", mu=np.zeros(2048), sigma=np.eye(2048), mu_s=own, sigma_s=np.zeros((2023, 2023)))
    result = evaluate(
        tmp_path / "a.npz", tmp_path / "ref.npz", features="inception-spatial", metrics=["distance"], device="cpu",
        feature_weights=str(lively_file),
    )  # fmt: skip
    x = InceptionSpatial(CPU, lively_file)(Npz(tmp_path / "a.npz").read(0, 3)[0])[0].double().numpy()
    expected = ((x.mean(0) - own) ** 2).sum() + x.var(0, ddof=1).sum()  # the other side is a point
    assert result.metrics["frechet_distance"] == pytest.approx(expected, rel=1e-6)
    assert result.names["frechet_distance"] == "sFID"


def test_small_grey_samples_against_large_colour_ones_through_inception(inception: Inception, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for i in range(2):
        pixels = draws.integers(256, size=(256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    np.savez(tmp_path / "a.npz", arr_0=draws.integers(256, size=(3, 8, 8, 1), dtype=np.uint8))
    protocol = Protocol("inception", ("distance", "inception_score"), samples=3, score_splits=1)
    reference = of_source(Folder(tmp_path), inception, Keep(), Work())
    result = Evaluator(reference, inception, protocol, Work()).measure(Npz(tmp_path / "a.npz"))
    assert result.metrics["frechet_distance"] > 0
    assert result.metrics["inception_score"] == pytest.approx(1, abs=0.1), "random weights say little"
    assert result.names["frechet_distance"] == "FID"
    assert len(result.warnings) == 2, "both covariances are singular"


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle was run",))


def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"fc.weight": Trap()}, path)
    with pytest.raises(UserError, match=r"evil.pth is no file of plain tensors"):
        Inception(CPU, path)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match=r"evil.pth is no file of plain tensors"):
        Inception(CPU, path)


def test_weights_of_another_network_and_absent_ones_are_named(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other.pth does not hold the weights of FID's Inception"):
        Inception(CPU, tmp_path / "other.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(UserError, match=r"tensor.pth does not hold the weights"):
        Inception(CPU, tmp_path / "tensor.pth")
    with pytest.raises(UserError, match=r"cannot read .*none.pth: No such file"):
        Inception(CPU, tmp_path / "none.pth")


def test_a_missing_download_names_file_address_and_place(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    def offline(url: str, timeout: float) -> io.BytesIO:
        raise URLError("no network")

    monkeypatch.setattr(module, "urlopen", offline)
    with pytest.raises(UserError) as caught:
        Inception(CPU)
    place = cache_folder / "weights" / INCEPTION_FILE
    for part in (f"{INCEPTION_FILE} is missing", "no network", INCEPTION_URL, str(place)):
        assert part in str(caught.value)
    assert not cache_folder.exists()


def test_a_download_is_kept_only_if_it_is_the_right_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def answer(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(b"weights")

    monkeypatch.setattr(module, "urlopen", answer)
    right = hashlib.sha256(b"weights").hexdigest()
    path = tmp_path / "deep" / "a.pth"
    with pytest.raises(UserError, match="https://x gave a file with SHA-256"):
        fetched("https://x", path, "0" * 64)
    assert not path.exists()
    assert fetched("https://x", path, right).read_bytes() == b"weights"
    assert fetched("https://x", path, right) == path
    assert len(asked) == 2, "what is there is not fetched again"
    path.write_bytes(b"weight")
    with pytest.raises(UserError, match=r"a.pth has SHA-256 .*, expected .*: delete it and fetch it again from https"):
        fetched("https://x", path, right)


def test_dinov2_gives_the_class_token_of_normalised_images(dinov2_folder: Path) -> None:
    space = DINOv2ClassToken(CPU, str(dinov2_folder))
    assert (space.dim, space.classes) == (16, 0)
    images = torch.randint(256, (2, 3, 224, 224), dtype=torch.uint8)
    x, logits = space(images)
    assert logits is None
    mean, std = (torch.tensor(t).view(3, 1, 1) for t in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        expected = Dinov2Model.from_pretrained(dinov2_folder)((images / 255 - mean) / std).last_hidden_state[:, 0]
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)
    assert space(images[..., :9, :9])[0].shape == (2, 16)
    assert DINOv2ClassToken(CPU, str(dinov2_folder)).identity() == space.identity()
    large = DINOv2ClassToken(CPU, str(dinov2_folder), "dinov2-l")
    assert (large.name, titles("dinov2-l")["frechet_distance"]) == ("dinov2-l", "DINOv2-L Frechet distance")


def test_dinov2_without_its_weights_is_an_error_that_names_the_options(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"nowhere does not exist; give a folder with .*--feature-weights .*--eval.weights"
    ):
        DINOv2ClassToken(CPU, str(tmp_path / "nowhere"))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
        projection_dim=8, initializer_range=0.5, initializer_factor=20.0,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("weights") / "clip"
    CLIPVisionModelWithProjection(config).save_pretrained(path)
    return path


def test_clip_gives_unit_embeddings_of_normalised_whole_images(clip_folder: Path, dinov2_folder: Path) -> None:
    space = Clip(CPU, str(clip_folder))
    assert (space.dim, space.size) == (8, 28)
    images = torch.randint(256, (3, 3, 28, 28), dtype=torch.uint8)
    x, logits = space(images)
    assert logits is None
    processor = CLIPImageProcessor(do_resize=False, do_center_crop=False)
    model = CLIPVisionModelWithProjection.from_pretrained(clip_folder)
    with torch.no_grad():
        embeddings = model(**processor(list(images), return_tensors="pt")).image_embeds.numpy()
    expected = embeddings / np.sqrt((embeddings**2).sum(1, keepdims=True))
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert space(images[..., :9, :9])[0].shape == (3, 8)
    assert Clip(CPU, str(clip_folder)).identity() == space.identity()
    with pytest.raises(UserError, match="its model_type is dinov2: must be clip or clip_vision_model"):
        Clip(CPU, str(dinov2_folder))


def test_cmmd_of_two_folders_of_images_is_that_of_an_independent_formula(clip_folder: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for name, count, top in (("a", 7, 256), ("b", 9, 200)):
        np.savez(tmp_path / f"{name}.npz", arr_0=draw.integers(top, size=(count, 20, 20, 3), dtype=np.uint8))
    result = evaluate(
        tmp_path / "a.npz", tmp_path / "b.npz", features="clip", device="cpu", feature_weights=str(clip_folder)
    )
    a, b = (Clip(CPU, str(clip_folder))(Npz(tmp_path / f"{n}.npz").read(0, 9)[0])[0].double().numpy() for n in "ab")

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([[np.exp(-((p - q) ** 2).sum() / 200) for q in y] for p in x]))

    expected = 1000 * (kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))
    assert expected > 0.01
    assert result.metrics["cmmd"] == pytest.approx(expected, rel=1e-6)
    assert (titles("clip")["cmmd"], titles("clip")["kid"]) == ("CMMD", "CLIP kernel distance")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CATGAN_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("CATGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "catgan"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "catgan"
