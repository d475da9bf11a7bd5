"""Named configurations: the rows of the paper, and small ones for real data on a laptop.

A recipe is a starting point. Every field can be changed on the command line, from YAML, or with `dataclasses.replace`.
"""

from __future__ import annotations

import difflib
from dataclasses import replace

from catgan.config import (
    AugmentConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    DiscriminatorConfig,
    EncoderConfig,
    EvalConfig,
    GeneratorConfig,
    LogConfig,
    ObjectiveConfig,
    OptimizerConfig,
    SampleConfig,
    TrainingConfig,
)
from catgan.errors import UserError


def scaled_lr(width: int) -> float:
    """GAT's rule: the learning rate that 2e-4 at width 768 becomes at another width."""
    return round(2e-4 * 768 / width, 8)


def gat(config: Config) -> Config:
    """The same run under GAT's supervision, penalties, modulation and class mapping: a baseline for CAT.

    Sizes, data, augmentation, learning rates and lengths stay as they are, and so does the name of a recipe that does not
    say cat-. GAT's rule for learning rates is `scaled_lr`.
    """
    return replace(
        config,
        recipe=config.recipe.replace("cat-", "gat-"),
        generator=replace(config.generator, shift=False),
        discriminator=replace(config.discriminator, class_mapping=True, aggregated=False),
        objective=replace(
            config.objective,
            supervision="noise_levels",
            penalty=0.1,
            penalty_end=None,
            penalty_anneal=0,
            penalty_fraction=1.0,
            penalty_noise="full",
            consistency=0.0,
        ),
    )


# ImageNet-256 in SD-VAE latents (paper tables 1 and 6). One epoch is 2,502 iterations at batch 512.
CAT_B2 = Config(
    recipe="cat-b2",
    data=DataConfig(source="latents"),
    sample=SampleConfig(size=32, channels=4, classes=1000, scales=(4, 8, 16, 32), vae="stabilityai/sd-vae-ft-ema"),
    generator=GeneratorConfig(depth=12, width=768, heads=12, patch=2),
    discriminator=DiscriminatorConfig(depth=12, width=768, heads=12, patches=(2, 2, 2, 2), representation_dim=768),
    encoder=EncoderConfig(path="facebook/dinov2-base"),
    objective=ObjectiveConfig(representation=1.0),
    training=TrainingConfig(steps=50_000, batch=512, precision="bfloat16"),
    log=LogConfig(every=100, preview_every=5000, diagnose_every=5000),
    checkpoint=CheckpointConfig(every=5000),
)
CAT_M2 = replace(
    CAT_B2,
    recipe="cat-m2",
    generator=replace(CAT_B2.generator, depth=24),
    training=replace(CAT_B2.training, steps=100_000),
)
CAT_H2 = replace(
    CAT_B2,
    recipe="cat-h2",
    generator=replace(CAT_B2.generator, depth=32, width=1280, heads=16),
    training=replace(CAT_B2.training, steps=150_000),
)

# The baseline of CAT-B/2's size (paper table 4), and GAT's own largest: 60 epochs.
GAT_B2 = gat(CAT_B2)
GAT_XL2 = gat(
    replace(
        CAT_B2,
        recipe="cat-xl2",
        generator=replace(CAT_B2.generator, depth=28, width=1152, heads=16),
        discriminator=replace(CAT_B2.discriminator, depth=28, width=1152, heads=16),
        optimizer=replace(CAT_B2.optimizer, lr_generator=scaled_lr(1152), lr_discriminator=scaled_lr(1152)),
        training=replace(CAT_B2.training, steps=150_000),
    )
)

# scikit-learn's 1,797 handwritten digits, 8x8: minutes on two CPU cores. A strong penalty makes digits appear quickly;
# letting it fall by a factor of 40 afterwards is what makes them vary.
DIGITS = Config(
    recipe="digits",
    data=DataConfig(source="digits"),
    sample=SampleConfig(size=8, channels=1, classes=10, scales=(2, 4, 8)),
    generator=GeneratorConfig(depth=3, width=64, heads=2, patch=2, z_dim=32),
    discriminator=DiscriminatorConfig(depth=3, width=64, heads=2, patches=(2, 2, 2), head_dim=256),
    augment=AugmentConfig(color=0.0, translation=0.0, cutout=0.0, flip=0.0),
    objective=ObjectiveConfig(penalty=0.2, penalty_end=0.005, penalty_anneal=750),
    optimizer=OptimizerConfig(lr_generator=scaled_lr(64), lr_discriminator=scaled_lr(64), ema_half_life=100),
    training=TrainingConfig(steps=1800, batch=64),
    log=LogConfig(every=15, preview_every=360, diagnose_every=180),
    checkpoint=CheckpointConfig(every=360),
)

# Fashion-MNIST's 60,000 training images, 28x28 padded to 32x32, from local IDX files: hours on two CPU cores.
FASHION_MNIST = Config(
    recipe="fashion-mnist",
    data=DataConfig(source="fashion-mnist"),
    sample=SampleConfig(size=32, channels=1, classes=10, scales=(4, 8, 16, 32)),
    generator=GeneratorConfig(depth=4, width=96, heads=3, patch=4),
    discriminator=DiscriminatorConfig(depth=4, width=96, heads=3, patches=(2, 2, 4, 4), head_dim=256),
    augment=AugmentConfig(color=0.0, translation=0.0, cutout=0.0, flip=0.0),
    objective=ObjectiveConfig(penalty=1.0, penalty_end=0.1, penalty_anneal=2000),
    optimizer=OptimizerConfig(lr_generator=scaled_lr(96), lr_discriminator=scaled_lr(96), ema_half_life=200),
    training=TrainingConfig(steps=4000, batch=64),
    log=LogConfig(every=20, preview_every=250, diagnose_every=250, diagnose_samples=500),
    eval=EvalConfig(every=500, samples=5000, features="classifier", metrics=("distance", "class_accuracy")),
    checkpoint=CheckpointConfig(every=250),
)

RECIPES = {c.recipe: c for c in (CAT_B2, CAT_M2, CAT_H2, GAT_B2, GAT_XL2, DIGITS, FASHION_MNIST)}


def recipe(name: str) -> Config:
    """The recipe of that name. Raises UserError for an unknown one."""
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, 1)
        raise UserError(
            f"recipe is {name}: must be one of {', '.join(RECIPES)}" + (f"; did you mean {close[0]}?" if close else "")
        )
    return RECIPES[name]
