"""Named configurations: the rows of the paper, and small ones for real data on a laptop.

A recipe is a starting point. Every field can be changed on the command line, from YAML, or with `dataclasses.replace`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

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
    VisionConfig,
)
from catgan.errors import check_known, require


def scaled_lr(width: int) -> float:
    """GAT's rule: the learning rate that 2e-4 at width 768 becomes at another width."""
    return round(2e-4 * 768 / width, 8)


def gat(config: Config) -> Config:
    """The same run under GAT's supervision, penalties, modulation and class mapping, without vision-aided heads: a
    baseline for CAT.

    Sizes, data, augmentation, learning rates and lengths stay as they are, and so does the name of a recipe that does not
    say cat-. GAT's rule for learning rates is `scaled_lr`.
    """
    return replace(
        config,
        recipe=config.recipe.replace("cat-", "gat-"),
        generator=replace(config.generator, shift=False),
        discriminator=replace(config.discriminator, class_mapping=True, aggregated=False),
        vision=replace(config.vision, path=None),
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

# ImageNet-256 in pixels, with token grids as in latents and a vision-aided loss (paper A.3: 40 epochs). That the loss is
# adversarial, its heads, weight and warm-up are choices: docs/pixels.md.
CAT_B2_PIXELS = replace(
    CAT_B2,
    recipe="cat-b2-pixels",
    data=DataConfig(source="prepared"),
    sample=SampleConfig(size=256, channels=3, classes=1000, scales=(16, 32, 64, 256)),
    generator=replace(CAT_B2.generator, patch=16),
    discriminator=replace(CAT_B2.discriminator, patches=(8, 8, 8, 16)),
    vision=VisionConfig(path="facebook/convnextv2-base-22k-224"),
    training=replace(CAT_B2.training, steps=100_000),
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

# scikit-learn's 1,797 handwritten digits, 8x8: minutes on two CPU cores. Small penalties on the whole batch, and
# learning rates of twice GAT's rule, make digits that vary in half the steps of large ones on a quarter of it.
DIGITS = Config(
    recipe="digits",
    data=DataConfig(source="digits"),
    sample=SampleConfig(size=8, channels=1, classes=10, scales=(2, 4, 8)),
    generator=GeneratorConfig(depth=3, width=64, heads=2, patch=2, z_dim=32),
    discriminator=DiscriminatorConfig(depth=3, width=64, heads=2, patches=(2, 2, 2), head_dim=256),
    augment=AugmentConfig(color=0.0, translation=0.0, cutout=0.0, flip=0.0),
    objective=ObjectiveConfig(penalty=0.03, penalty_fraction=1.0),
    optimizer=OptimizerConfig(lr_generator=0.005, lr_discriminator=0.005, lr_decay=800, ema_half_life=100),
    training=TrainingConfig(steps=1680, batch=64),
    log=LogConfig(every=15, preview_every=360, diagnose_every=180),
    checkpoint=CheckpointConfig(every=360),
)

# Fashion-MNIST's 60,000 training images, 28x28 padded to 32x32, from local IDX files: hours on two CPU cores. What learns
# fastest per CPU minute (docs/experiments.md): narrow networks with few tokens, small batches, penalties on all of them,
# and learning rates of one and a half times GAT's rule; later they fall.
FASHION_MNIST = Config(
    recipe="fashion-mnist",
    data=DataConfig(source="fashion-mnist"),
    sample=SampleConfig(size=32, channels=1, classes=10, scales=(4, 8, 16, 32)),
    generator=GeneratorConfig(depth=4, width=64, heads=2, patch=4),
    discriminator=DiscriminatorConfig(depth=4, width=64, heads=2, patches=(2, 2, 4, 8), head_dim=256),
    augment=AugmentConfig(color=0.0, translation=0.0, cutout=0.0, flip=0.0),
    objective=ObjectiveConfig(penalty=0.1, penalty_end=0.02, penalty_anneal=10_000, penalty_fraction=1.0),
    optimizer=OptimizerConfig(lr_generator=0.0036, lr_discriminator=0.0036, lr_decay=4000, ema_half_life=1000),
    training=TrainingConfig(steps=60_000, batch=32),
    log=LogConfig(every=50, preview_every=1000, diagnose_every=2000, diagnose_samples=500),
    eval=EvalConfig(every=2000, samples=5000, features="classifier", metrics=("distance", "class_accuracy")),
    checkpoint=CheckpointConfig(every=1000),
)

# Pictures of one's own, as catgan prepare makes them: an hour on two CPU cores at 32 pixels, for one GPU at 64 and 128.
# At 32 as what is best on Fashion-MNIST. At 64 and 128 nothing was compared: learning rates follow GAT's rule, and
# penalties grow with the size between the 0.1 that is good at 32 pixels and the paper's 1.
PICTURES_32 = replace(
    FASHION_MNIST,
    recipe="pictures-32",
    data=DataConfig(source="prepared"),
    sample=replace(FASHION_MNIST.sample, channels=3, classes=1),
    augment=AugmentConfig(flip=0.0),
    training=replace(FASHION_MNIST.training, steps=20_000),
    log=replace(FASHION_MNIST.log, preview_every=500),
    eval=EvalConfig(),
)
PICTURES_64 = replace(
    PICTURES_32,
    recipe="pictures-64",
    sample=replace(PICTURES_32.sample, size=64, scales=(8, 16, 32, 64)),
    generator=GeneratorConfig(depth=8, width=256, heads=4, patch=4),
    discriminator=DiscriminatorConfig(depth=8, width=256, heads=4, patches=(4, 4, 4, 4), head_dim=512),
    objective=ObjectiveConfig(penalty=0.5, penalty_fraction=1.0),
    optimizer=OptimizerConfig(lr_generator=scaled_lr(256), lr_discriminator=scaled_lr(256), ema_half_life=500),
    training=TrainingConfig(steps=16_000, batch=64, precision="bfloat16"),
    log=LogConfig(every=50, preview_every=500, diagnose_every=1000),
    checkpoint=CheckpointConfig(every=1000),
)
PICTURES_128 = replace(
    PICTURES_64,
    recipe="pictures-128",
    sample=replace(PICTURES_64.sample, size=128, scales=(16, 32, 64, 128)),
    generator=GeneratorConfig(depth=12, width=384, heads=6, patch=8),
    discriminator=DiscriminatorConfig(depth=12, width=384, heads=6, patches=(8, 8, 8, 8), head_dim=1024),
    objective=replace(PICTURES_64.objective, penalty=1.0),
    optimizer=OptimizerConfig(lr_generator=scaled_lr(384), lr_discriminator=scaled_lr(384), ema_half_life=500),
    training=TrainingConfig(steps=32_000, batch=64, precision="bfloat16"),
)

RECIPES = {
    c.recipe: c
    for c in (
        CAT_B2, CAT_M2, CAT_H2, CAT_B2_PIXELS, GAT_B2, GAT_XL2, DIGITS, FASHION_MNIST, PICTURES_32, PICTURES_64, PICTURES_128,
    )
}  # fmt: skip


def recipe(name: str) -> Config:
    """The recipe of that name. Raises UserError for an unknown one."""
    check_known("recipe", name, RECIPES)
    return RECIPES[name]


# -- recipes for other data ----------------------------------------------------------------------------------------------

FEWEST_TOKENS, MOST_TOKENS = 6, 16  # along a side of the finest grid
FEW_PICTURES, MANY_PICTURES = 2_000, 50_000


def divides_into_tokens(size: int) -> list[int]:
    """The grids, in tokens along a side, into which patches divide samples of that size: some, or none, as for 37."""
    return [n for n in range(FEWEST_TOKENS, MOST_TOKENS + 1) if size % n == 0]


def nearest_size(size: int) -> int:
    """The size nearest to this one that patches divide: itself, if they do; of two the smaller."""
    ways = (size + sign * away for away in range(size + FEWEST_TOKENS) for sign in (-1, 1))
    return next(s for s in ways if s > 0 and divides_into_tokens(s))


def with_size(config: Config, size: int) -> Config:
    """The configuration for samples of another size: networks of the same width, with about as many tokens.

    The finest grids are those nearest to the configuration's. Each scale is half of the next, as far as patches allow:
    the token grids, 2 on the coarsest, grow evenly towards the finest (2, 4, 8, 16), and each may be up to twice or half
    of that to bring its scale nearer to the half, but not above the next. There are as many scales as before, but none
    below 2 pixels, and as many blocks as they divide. Raises UserError for a size that no patches divide.
    """
    s, g, d = config.sample, config.generator, config.discriminator
    if size == s.size:
        return config
    grids = divides_into_tokens(size)
    near = nearest_size(size)
    require(
        bool(grids),
        "sample.size",
        size,
        f"divisible into {FEWEST_TOKENS} to {MOST_TOKENS} patches a side",
        f"{near} would do",
    )
    finest = min(grids, key=lambda n: off(n, s.size / g.patch))
    below = min(len(s.scales) - 1, int(math.log2(size / 2)))  # scales below the finest
    nearest = sorted((n for n in range(3, finest + 1) if size % n == 0), key=lambda n: off(n, s.size / d.patches[-1]))
    tried = [halved(size, judged, below) for judged in nearest]
    scales, patches = next(
        (found for found in tried if all(1.6 <= b / a <= 2.5 for a, b in pairwise(found[0]))), tried[0]
    )
    depth = max(g.depth - g.depth % len(scales), len(scales))
    return replace(
        config,
        sample=replace(s, size=size, scales=scales),
        generator=replace(g, patch=size // finest, depth=depth),
        discriminator=replace(d, patches=patches),
    )


def halved(size: int, finest: int, below: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Scales, coarse to fine, and their patches: `size` in so many tokens along a side, and so many halves below."""
    chosen = [(finest, size // finest)]  # tokens along a side, and patch: from the finest scale down
    for k in reversed(range(below)):
        half, even = size / 2 ** (below - k), 2 * (finest / 2) ** (k / below)
        chosen.append(nearest_scale(half, even, most=chosen[-1][0]))
    chosen.reverse()
    return tuple(n * patch for n, patch in chosen), tuple(patch for _, patch in chosen)


def nearest_scale(half: float, even: float, most: int) -> tuple[int, int]:
    """Tokens along a side, at most so many, and patch of the scale nearest to `half` pixels and, if there are several,
    to `even` tokens."""
    counts = [n for n in range(2, most + 1) if even / 2 <= n <= 2 * even]
    pairs = [(n, patch) for n in counts for patch in range(1, int(2 * half) // n + 1)]
    return min(pairs, key=lambda pair: (off(pair[0] * pair[1], half), off(pair[0], even)))


def off(number: float, target: float) -> float:
    """How far a number is from a target, as the logarithm of their ratio; at least 0."""
    return abs(math.log(number / target))


def augmentation(pictures: int, channels: int) -> AugmentConfig:
    """Augmentation for so many pictures: all of it up to 2,000, none from 50,000, even in their logarithm between.

    Colours change where there are three channels. Nothing is mirrored: whether that leaves a picture one of its kind
    (it does not with letters) only people know.
    """
    full, none = math.log(FEW_PICTURES), math.log(MANY_PICTURES)
    strength = min(1.0, max(0.0, (none - math.log(max(pictures, 1))) / (none - full)))
    most = AugmentConfig()
    color, translation, cutout = (round(v * strength, 3) for v in (most.color, most.translation, most.cutout))
    return AugmentConfig(color=color if channels == 3 else 0.0, translation=translation, cutout=cutout, flip=0.0)
