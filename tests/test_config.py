"""Configurations: rules, YAML, errors that name the field and its value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catgan.bounds import MAX_SEED, check_psi, check_seed
from catgan.config import Config
from catgan.config_io import FORMAT_VERSION, differences, dump_yaml, from_dict, load_yaml, to_dict
from catgan.errors import UserError
from catgan.recipes import RECIPES


def nested(name: str, value: object) -> dict[str, Any]:
    """{"a": {"b": value}} for "a.b"."""
    section, field = name.split(".")
    return {section: {field: value}}


COUNTS = [
    "sample.size", "sample.channels", "sample.classes", "generator.depth", "generator.patch", "generator.z_dim",
    "discriminator.depth", "discriminator.head_dim", "training.steps", "training.batch", "log.every",
    "log.preview_every", "log.preview_classes", "log.preview_rows", "log.diagnose_every", "log.diagnose_samples",
    "checkpoint.every", "checkpoint.keep", "encoder.size",
]  # fmt: skip
SHARES = ["augment.color", "augment.translation", "augment.cutout", "augment.flip"]
POSITIVE = [
    "objective.penalty_eps", "optimizer.lr_generator", "optimizer.lr_discriminator", "optimizer.clip",
    "optimizer.ema_half_life",
]  # fmt: skip
NOT_NEGATIVE = [
    "objective.penalty", "objective.consistency", "objective.representation", "optimizer.weight_decay",
    "optimizer.ema_warmup",
]  # fmt: skip
NAN = float("nan")

BROKEN: list[tuple[str, object]] = [
    *((name, 0) for name in COUNTS),
    *((name, -3) for name in COUNTS),
    *((name, value) for name in SHARES for value in (-0.1, 1.5, NAN)),
    *((name, value) for name in POSITIVE for value in (0.0, -1.0, NAN)),
    *((name, value) for name in NOT_NEGATIVE for value in (-0.5, NAN)),
    ("training.micro_batch", -1),
    ("training.threads", -1),
    ("discriminator.representation_dim", -1),
    ("objective.penalty_fraction", 0.0),
    ("objective.penalty_fraction", 1.1),
    ("optimizer.beta1", 1.0),
    ("optimizer.beta2", -0.1),
    ("training.seed", -1),
    ("training.seed", MAX_SEED),
    ("training.device", "gpu"),
    ("generator.depth", 4),
    ("generator.patch", 3),
    ("generator.width", 18),
    ("generator.width", 0),
    ("discriminator.width", 18),
]


@pytest.mark.parametrize(("name", "value"), BROKEN)
def test_a_value_out_of_range_names_its_field_and_itself(tiny_config: Config, name: str, value: object) -> None:
    with pytest.raises(UserError) as caught:
        from_dict(nested(name, value), tiny_config).validate()
    assert str(caught.value).startswith(f"{name} is {value}: must be ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": {"scales": []}}, "sample.scales is empty: must be positive sizes"),
        ({"sample": {"scales": [0, 4, 8]}}, "sample.scales is 0,4,8: must be positive"),
        ({"sample": {"scales": [4, 4, 8]}}, "sample.scales is 4,4,8: must be increasing"),
        ({"sample": {"scales": [8, 4, 2]}}, "sample.scales is 8,4,2: must be increasing"),
        ({"sample": {"scales": [2, 4, 16]}}, r"sample.scales is 2,4,16: must be a list that ends at sample.size \(8\)"),
        ({"discriminator": {"patches": [2, 2]}}, "discriminator.patches is 2,2: must be 3 sizes, one per scale"),
        ({"discriminator": {"patches": [2, 3, 2]}}, r"scale 1 is 4: must be divisible by its patch size \(3\)"),
        ({"discriminator": {"patches": [2, 0, 2]}}, r"scale 1 is 4: must be divisible by its patch size \(0\)"),
        ({"generator": {"depth": 7}}, r"generator.depth is 7: .* \(3\); use 6 or 9"),
        ({"generator": {"depth": 2}}, r"generator.depth is 2: .* \(3\); use 3 or 6"),
        ({"generator": {"heads": 3}}, r"generator.width is 16: must be divisible by generator.heads \(3\)"),
        ({"generator": {"heads": 0}}, r"generator.width is 16: must be divisible by generator.heads \(0\)"),
        ({"generator": {"heads": 8}}, r"generator.heads is 8: .* the head size \(2\) is divisible by 4"),
        ({"discriminator": {"heads": 5}}, r"discriminator.width is 16: must be divisible by discriminator.heads \(5\)"),
        ({"discriminator": {"heads": 8}}, r"discriminator.heads is 8: .* \(2\) is divisible by 4"),
        (
            {"objective": {"consistency_weights": [1.0]}},
            r"objective.consistency_weights is \(1.0,\): must be 2 numbers",
        ),
        (
            {"objective": {"supervision": "noise_levels"}, "discriminator": {"aggregated": True}},
            "discriminator.aggregated is true: must be false with objective.supervision noise_levels",
        ),
        (
            {"objective": {"supervision": "noise_levels", "penalty_noise": "per_scale"}},
            "objective.penalty_noise is per_scale: must be full with objective.supervision noise_levels",
        ),
    ],
)
def test_a_rule_between_fields_names_what_breaks_it(tiny_config: Config, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(change, tiny_config).validate()


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"seed": MAX_SEED - 1}},
        {"training": {"device": "cuda:3"}},
        {"augment": {"flip": 1.0, "cutout": 0.0}},
        {"objective": {"penalty": 0, "consistency": 0, "penalty_fraction": 1.0}},
        {"objective": {"consistency_weights": [0.0, 1.0]}},
        {"sample": {"scales": [8]}, "discriminator": {"patches": [4]}, "generator": {"depth": 1}},
        {"training": {"micro_batch": 100}},
    ],
)
def test_values_at_the_edge_of_what_is_allowed_are_accepted(tiny_config: Config, change: dict[str, Any]) -> None:
    config = from_dict(change, tiny_config)
    assert config.validate() is config


@pytest.mark.parametrize("seed", [-1, MAX_SEED])
def test_check_seed_names_what_it_checks(seed: int) -> None:
    assert check_seed(MAX_SEED - 1) == MAX_SEED - 1
    with pytest.raises(UserError, match=f"seeds is {seed}"):
        check_seed(seed, "seeds")


@pytest.mark.parametrize("psi", [-0.1, 1.1, NAN, "a"])
def test_psi_is_between_zero_and_one(psi: Any) -> None:
    assert (check_psi(0.0), check_psi(1.0)) == (0.0, 1.0)
    with pytest.raises(UserError, match=f"psi is {psi}"):
        check_psi(psi)


# -- YAML --------------------------------------------------------------------------------------------------------------


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_yaml(name: str, tmp_path: Path) -> None:
    assert load_yaml(write(tmp_path, dump_yaml(RECIPES[name]))) == RECIPES[name]


@given(
    scales=st.lists(st.integers(1, 512), min_size=1, max_size=6),
    weights=st.none() | st.lists(st.floats(0, 10), max_size=5),
    lr=st.floats(1e-12, 10),
    seed=st.integers(0, MAX_SEED - 1),
    path=st.none() | st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20),
    aggregated=st.booleans(),
    down=st.sampled_from(["area", "bilinear", "bicubic", "nearest"]),
)
def test_any_configuration_survives_yaml(
    tmp_path_factory: pytest.TempPathFactory, scales: list[int], weights: list[float] | None, lr: float, seed: int,
    path: str | None, aggregated: bool, down: str,
) -> None:  # fmt: skip
    config = from_dict(
        {
            "data": {"path": path},
            "sample": {"scales": scales, "down": down},
            "discriminator": {"aggregated": aggregated},
            "objective": {"consistency_weights": weights},
            "optimizer": {"lr_generator": lr},
            "training": {"seed": seed},
        }
    )
    assert from_dict(to_dict(config)) == config
    assert load_yaml(write(tmp_path_factory.mktemp("yaml"), dump_yaml(config))) == config


def test_fields_not_named_keep_the_values_of_the_base(tiny_config: Config, tmp_path: Path) -> None:
    config = load_yaml(write(tmp_path, "generator:\n  depth: 6\n"), tiny_config)
    assert differences(tiny_config, config) == ["generator.depth"]
    assert load_yaml(write(tmp_path, ""), tiny_config) == tiny_config


def test_numbers_are_read_as_people_write_them(tmp_path: Path) -> None:
    text = "optimizer:\n  lr_generator: 1e-3\n  clip: 2\ntraining:\n  steps: 1.0e+4\n"
    config = load_yaml(write(tmp_path, text))
    assert (config.optimizer.lr_generator, config.optimizer.clip, config.training.steps) == (0.001, 2.0, 10_000)
    assert isinstance(config.optimizer.clip, float)
    assert isinstance(config.training.steps, int)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widht": 3}, "unknown field widht; known here: recipe, data, sample"),
        ({"generator": {"widht": 3}}, "unknown field generator.widht; known here: depth, width"),
        ({"generator": {"depth": "deep"}}, "generator.depth is 'deep': must be an integer"),
        ({"generator": {"depth": 2.5}}, "generator.depth is 2.5: must be an integer"),
        ({"generator": {"depth": True}}, "generator.depth is True: must be an integer"),
        ({"generator": {"depth": None}}, "generator.depth is None: must be an integer"),
        ({"generator": 5}, "generator is 5: must be a mapping"),
        ({"generator": None}, "generator is None: must be a mapping"),
        ({"sample": {"scales": 8}}, "sample.scales is 8: must be a list of an integer"),
        ({"sample": {"scales": [4, "x"]}}, "sample.scales is 'x': must be an integer"),
        ({"sample": {"down": "lanczos"}}, "sample.down is 'lanczos': must be one of area, bilinear, bicubic, nearest"),
        ({"optimizer": {"clip": "tight"}}, "optimizer.clip is 'tight': must be a number"),
        ({"optimizer": {"clip": True}}, "optimizer.clip is True: must be a number"),
        ({"discriminator": {"aggregated": 1}}, "discriminator.aggregated is 1: must be true or false"),
        ({"data": {"path": 5}}, "data.path is 5: must be text"),
        (
            {"objective": {"consistency_weights": 1.0}},
            "objective.consistency_weights is 1.0: must be a list of a number",
        ),
        ({"format": FORMAT_VERSION + 1}, f"format is {FORMAT_VERSION + 1}: this catgan reads {FORMAT_VERSION}"),
    ],
)
def test_an_unknown_field_or_a_wrong_type_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^here: {message}"):
        from_dict(change, where="here")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text", "a: [1, 2", "\x00", "3"])
def test_a_file_that_is_no_mapping_of_fields_is_named(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_yaml(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*missing.yaml: No such file"):
        load_yaml(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match=r"binary\.yaml is not valid YAML"):
        load_yaml(tmp_path / "binary.yaml")


def test_a_dump_carries_the_format_version() -> None:
    assert dump_yaml(Config()).startswith(f"format: {FORMAT_VERSION}\n")


def test_differences_are_dotted_names(tiny_config: Config) -> None:
    other = from_dict({"recipe": "x", "generator": {"width": 32}, "log": {"every": 9, "wandb": True}}, tiny_config)
    assert differences(tiny_config, other) == ["recipe", "generator.width", "log.every", "log.wandb"]
    assert differences(tiny_config, tiny_config) == []


def test_numbers_that_no_tensor_can_have_are_refused(tiny_config: Config) -> None:
    for change in ({"generator": {"width": 10**30}}, {"sample": {"scales": [4, 10**30]}}):
        with pytest.raises(UserError, match=r"is .*0{20,}: must be below 2"):
            from_dict(change, tiny_config).validate()


@pytest.mark.timeout(20)
def test_a_file_that_grows_when_it_is_written_out_is_refused_at_once(tmp_path: Path) -> None:
    """Each list names the one before twice: short as YAML, endless as text."""
    lists = ["- &a0 [x, x]", *(f"- &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    path = write(tmp_path, "sample:\n  scales:\n" + "".join(f"    {line}\n" for line in lists))
    with pytest.raises(UserError, match=r"sample\.scales is \['x', 'x'\]: must be an integer$"):
        load_yaml(path)


@pytest.mark.parametrize(
    "text", ["[" * 5000 + "]" * 5000, "sample: {size: 2026-02-31}", f"sample: {{size: {'9' * 5000}}}"]
)
def test_what_the_yaml_reader_cannot_cope_with_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not valid YAML"):
        load_yaml(write(tmp_path, text))


def test_an_evaluation_needs_two_samples() -> None:
    assert from_dict({"eval": {"samples": 2}}).validate().eval.samples == 2
    with pytest.raises(UserError, match=r"eval\.samples is 1: must be at least 2"):
        from_dict({"eval": {"samples": 1}}).validate()
