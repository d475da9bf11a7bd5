"""Named configurations."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from catgan.config import AugmentConfig
from catgan.config_io import differences
from catgan.errors import UserError
from catgan.networks import build_discriminator, build_generator
from catgan.recipes import RECIPES, augmentation, divides_into_tokens, gat, nearest_size, recipe, scaled_lr, with_size


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_valid_and_knows_its_name(name: str) -> None:
    assert recipe(name).validate().recipe == name


@pytest.mark.parametrize(
    ("name", "depth", "width", "heads", "steps"),
    [("cat-b2", 12, 768, 12, 50_000), ("cat-m2", 24, 768, 12, 100_000), ("cat-h2", 32, 1280, 16, 150_000)],
)
def test_the_recipes_of_the_paper_have_its_settings(name: str, depth: int, width: int, heads: int, steps: int) -> None:
    c = recipe(name)
    assert (c.generator.depth, c.generator.width, c.generator.heads, c.generator.patch) == (depth, width, heads, 2)
    assert (c.discriminator.depth, c.discriminator.width, c.discriminator.heads) == (12, 768, 12)
    assert (c.sample.size, c.sample.channels, c.sample.scales) == (32, 4, (4, 8, 16, 32))
    assert (c.training.steps, c.training.batch, c.training.precision) == (steps, 512, "bfloat16")
    o = c.optimizer
    assert (o.lr_generator, o.lr_discriminator, o.beta1, o.beta2, o.weight_decay, o.clip) == (
        2e-4, 2e-4, 0.0, 0.99, 0.0, 1.0,
    )  # fmt: skip
    assert (c.objective.penalty, c.objective.penalty_eps, c.objective.penalty_fraction) == (1.0, 0.01, 0.25)
    assert (c.objective.consistency, c.objective.detach_anchor, c.objective.fresh_z) == (0.1, False, False)
    assert (c.augment.color, c.augment.translation, c.augment.cutout, c.augment.flip) == (0.5, 0.125, 0.5, 0.4)
    assert (c.discriminator.representation_dim, c.objective.representation) == (768, 1.0)
    assert (c.encoder.path, c.encoder.size, c.sample.vae) == (
        "facebook/dinov2-base", 224, "stabilityai/sd-vae-ft-ema",
    )  # fmt: skip


def test_digits_are_not_flipped() -> None:
    assert recipe("digits").augment.flip == 0.0


def test_an_unknown_recipe_suggests_a_known_one() -> None:
    with pytest.raises(UserError, match=r"recipe is cat-b3: must be one of cat-b2, .*; did you mean cat-"):
        recipe("cat-b3")
    with pytest.raises(UserError, match=r"must be one of [^?]*$"):
        recipe("zebra")


def test_learning_rates_scale_inversely_with_width() -> None:
    assert scaled_lr(768) == pytest.approx(2e-4)
    assert scaled_lr(64) == pytest.approx(2.4e-3)


def test_gat_changes_the_supervision_and_what_comes_with_it_and_no_size() -> None:
    cat, other = recipe("cat-b2"), recipe("gat-b2")
    assert set(differences(cat, other)) == {
        "recipe", "generator.shift", "discriminator.class_mapping", "objective.supervision", "objective.penalty",
        "objective.penalty_fraction", "objective.consistency",
    }  # fmt: skip
    assert (other.objective.penalty, other.objective.penalty_fraction, other.objective.consistency) == (0.1, 1.0, 0.0)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_valid_counterpart_under_gat(name: str) -> None:
    config = gat(recipe(name)).validate()
    o = config.objective
    assert (o.supervision, o.penalty_end, o.penalty_anneal) == ("noise_levels", None, 0)
    assert config.optimizer == recipe(name).optimizer
    assert gat(config) == config


@pytest.mark.parametrize("name", ["gat-b2", "gat-xl2"])
def test_gats_own_recipes_follow_its_rule_for_learning_rates(name: str) -> None:
    config = recipe(name)
    assert config.optimizer.lr_generator == scaled_lr(config.generator.width)
    assert config.optimizer.lr_discriminator == scaled_lr(config.discriminator.width)


# -- recipes for other data ----------------------------------------------------------------------------------------------

PICTURES = ("pictures-32", "pictures-64", "pictures-128")
SIZES = [size for size in range(8, 129) if divides_into_tokens(size)]


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("size", SIZES)
def test_networks_of_any_size_have_scales_that_double_and_few_tokens(name: str, size: int) -> None:
    c = with_size(recipe(name), size).validate()
    scales = c.sample.scales
    grids = [s // p for s, p in zip(scales, c.discriminator.patches, strict=True)]
    assert c.sample.size == size
    assert 2 <= scales[0] <= 20
    assert all(1.6 <= b / a <= 2.5 for a, b in pairwise(scales))
    assert grids[0] in (2, 3)
    assert grids == sorted(grids)
    assert grids[-1] <= size // c.generator.patch <= 16
    if name == "pictures-32" and size not in (11, 13, 14, 21, 22, 26, 27, 49, 77, 91, 98, 119, 121):
        assert grids[-1] in (3, 4, 5), "about the recipe's 4"
    with torch.device("meta"):
        build_generator(c)
        discriminator = build_discriminator(c)
    assert sum(discriminator.lengths) <= sum(1 + n * n for n in (4, 8, 16, 16))


@pytest.mark.parametrize("name", [*PICTURES, "cat-b2", "cat-h2", "fashion-mnist"])
def test_at_its_own_size_a_recipe_stays_as_it_is(name: str) -> None:
    assert with_size(recipe(name), recipe(name).sample.size) == recipe(name)


def test_named_recipes_for_pictures_augment_them() -> None:
    for name in PICTURES:
        assert recipe(name).augment == augmentation(1, 3), name


def test_scales_are_halves_wherever_patches_allow_it() -> None:
    for size in (16, 32, 48, 64, 72, 80, 96, 112, 128):
        assert with_size(recipe("pictures-64"), size).sample.scales == tuple(size // n for n in (8, 4, 2, 1))


def test_a_size_without_patches_names_the_nearest_with() -> None:
    with pytest.raises(
        UserError, match=r"sample.size is 37: must be divisible into 6 to 16 patches a side; 36 would do"
    ):
        with_size(recipe("pictures-32"), 37)
    assert [nearest_size(n) for n in (1, 8, 17, 40, 47, 100, 127)] == [6, 8, 16, 40, 48, 100, 126]
    assert all(abs(nearest_size(n) - n) <= 2 for n in range(8, 129))


def test_augmentation_fades_from_a_few_pictures_to_many() -> None:
    full = AugmentConfig(flip=0.0)
    assert augmentation(1, 3) == augmentation(2_000, 3) == full
    assert augmentation(10_000, 3) == AugmentConfig(color=0.25, translation=0.062, cutout=0.25, flip=0.0)
    none = augmentation(50_000, 3)
    assert (none.color, none.translation, none.cutout, none.flip) == (0, 0, 0, 0)
    assert augmentation(10**6, 1) == none
    strengths = [augmentation(n, 3).cutout for n in range(1_000, 60_000, 1_000)]
    assert strengths == sorted(strengths, reverse=True)


def test_the_colours_of_grey_pictures_stay() -> None:
    assert augmentation(10, 1).color == 0
    assert augmentation(10, 1).cutout == 0.5
