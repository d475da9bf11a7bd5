"""What is studied: testbeds, variants, and the claims that runs of these decide.

A study asks one question of the paper, or one that it leaves open. It compares variants on testbeds, by seeds; a variant
may belong to another study, whose record then counts. All that a run is follows from these tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from catgan.config import Config
from catgan.config_io import with_values
from catgan.errors import check_known
from catgan.recipes import CAT_B2, CAT_M2, DIGITS, FASHION_MNIST, gat
from catgan.studies.design import Run, Study, Testbed, Times, Variant, Versus, Within

# -- testbeds ----------------------------------------------------------------------------------------------------------


def observed(config: Config, times: int, samples: int, metrics: tuple[str, ...]) -> Config:
    """With so many diagnoses and evaluations over the run, one thread of the CPU, and no more files than needed."""
    every = config.training.steps // times  # a multiple of the steps between log entries
    return replace(
        config,
        training=replace(config.training, threads=1, device="cpu", compile=bool(config.training.compile)),
        log=replace(config.log, every=max(1, every // 6), diagnose_every=every, preview_every=config.training.steps),
        eval=replace(config.eval, every=every, samples=samples, features="classifier", metrics=metrics),
        checkpoint=replace(config.checkpoint, every=every, keep=1),
    )


WITHOUT_CLASSES = ("distance", "precision_recall")
WITH_CLASSES = (*WITHOUT_CLASSES, "class_accuracy")

SHORT = with_values(DIGITS, {"training.steps": 1440})
UNCONDITIONAL = with_values(SHORT, {"sample.classes": 1, "optimizer.lr_decay": 0})
# What is best on digits, with the loss and without (docs/experiments.md), is in the recipe; this is what was before.
SLOW = with_values(
    UNCONDITIONAL,
    {
        "optimizer.lr_generator": 0.0024,
        "optimizer.lr_discriminator": 0.0024,
        "objective.penalty": 0.2,
        "objective.penalty_end": 0.005,
        "objective.penalty_anneal": 750,
        "objective.penalty_fraction": 0.25,
    },
)

FASHION = with_values(FASHION_MNIST, {"training.steps": 2520, "training.compile": True})

TESTBEDS = {
    t.name: t
    for t in (
        Testbed(
            "digits",
            "scikit-learn's digits without their classes, 8x8, scales 2, 4, 8",
            observed(UNCONDITIONAL, 12, 2000, WITHOUT_CLASSES),
            5,
        ),
        Testbed(
            "digits-slow",
            "the same, not tuned: half the learning rates, and penalties that fall, on a quarter of the batch",
            observed(SLOW, 12, 2000, WITHOUT_CLASSES),
            4,
        ),
        Testbed(
            "digits-classes",
            "the digits with their ten classes, by most of the recipe `digits`",
            observed(SHORT, 12, 2000, WITH_CLASSES),
            5,
        ),
        Testbed(
            "fashion",
            "Fashion-MNIST without its classes, 32x32, scales 4, 8, 16, 32",
            observed(with_values(FASHION, {"sample.classes": 1}), 12, 2000, WITHOUT_CLASSES),
            12,
        ),
        Testbed(
            "fashion-classes",
            "Fashion-MNIST with its ten classes, by the recipe `fashion-mnist`",
            observed(FASHION, 12, 2000, WITH_CLASSES),
            12,
        ),
    )
}


# -- studies -----------------------------------------------------------------------------------------------------------

OFF = Variant("consistency", "off", "no consistency loss (lambda 0)", {"objective.consistency": 0.0})
ON = Variant("consistency", "on", "the consistency loss, lambda 0.1", {"objective.consistency": 0.1})

CONSISTENCY = Study(
    name="consistency",
    question="What does the consistency loss do to the stages, and to the images?",
    figure="figures 4, 6 and 8",
    variants=(OFF, ON),
    claims=(
        Within(
            "Without it delta rises over training", "tends to rise", "delta/mean", OFF, "delta/mean", "higher", 0.25
        ),
        Within("Without it R rises over training", "tends to rise", "R/mean", OFF, "R/mean", "higher", 0.25),
        Within("Without it the excess of delta rises", "-", "excess/mean", OFF, "excess/mean", "higher", 0.25),
        Within(
            "Without it delta is no smaller at finer stages",
            "does not shrink",
            "delta/last",
            OFF,
            "delta/first",
            "higher",
        ),
        Within("Nor is its excess", "-", "excess/last", OFF, "excess/first", "higher"),
        Versus("It lowers delta", "-39 % (Base), -45 % (Medium)", "delta/mean", ON, OFF, "lower"),
        Versus("It lowers the excess of delta", "-", "excess/mean", ON, OFF, "lower"),
        Versus("Also over the whole training", "-", "excess/mean", ON, OFF, "lower", "over training"),
        Versus("It lowers R", "-43 % (Base), -46 % (Medium)", "R/mean", ON, OFF, "lower"),
        Versus("It raises A", "+46 % (Base), +66 % (Medium)", "A/mean", ON, OFF, "higher"),
        Versus(
            "It improves the images: distance",
            "FID 5.43 -> 4.06 (Base), 2.34 -> 1.93 (Medium)",
            "frechet_distance",
            ON,
            OFF,
            "lower",
        ),
        Versus("It improves the images: precision", "-", "precision", ON, OFF, "higher"),
        Versus("It improves the images: recall", "-", "recall", ON, OFF, "higher"),
    ),
    testbeds=("digits", "digits-slow", "digits-classes", "fashion", "fashion-classes"),
    curves=("frechet_distance", "excess/mean", "R/mean", "A/mean"),
    paper=CAT_B2,
)

WEAK = Variant("lambda", "0.01", "lambda 0.01", {"objective.consistency": 0.01})
STRONG = Variant("lambda", "1", "lambda 1", {"objective.consistency": 1.0})
LAMBDA = Study(
    name="lambda",
    question="How strong should the consistency loss be?",
    figure="figure 7",
    variants=(OFF, WEAK, ON, STRONG),
    claims=(
        Versus("lambda 0.1 is better than none", "FID 4.06 and 5.43", "frechet_distance", ON, OFF, "lower"),
        Versus("lambda 0.1 is better than 1", "FID 4.06 and 4.45", "frechet_distance", ON, STRONG, "lower"),
        Versus("lambda 1 is better than none", "FID 4.45 and 5.43", "frechet_distance", STRONG, OFF, "lower"),
        Versus("lambda 0.1 is better than 0.01", "-", "frechet_distance", ON, WEAK, "lower"),
    ),
    testbeds=("digits",),
    curves=("frechet_distance", "excess/mean"),
    paper=CAT_B2,
)

# At comparable sizes of G and D together; that CAT-B/2 with 4.063 equals GAT-XL/2 is its other comparison.
PAPERS_GAT = "FID 2.552 (CAT-H/2), 4.021 (GAT-XL/2), 20 epochs"
GAT = Variant("gat", "gat", "GAT's supervision by noise levels, and its discriminator", {}, gat)
AGAINST_GAT = Study(
    name="gat",
    question="Is CAT ahead of GAT with networks of equal size?",
    figure="table 4, which compares networks of other sizes",
    variants=(ON, OFF, GAT),
    claims=(
        Versus("CAT is better after equal steps", PAPERS_GAT, "frechet_distance", ON, GAT, "lower"),
        Versus("CAT is better after equal CPU time", "-", "frechet_distance", ON, GAT, "lower", "equal CPU time"),
        Versus("CAT has more recall", "-", "recall", ON, GAT, "higher"),
        Versus("Its stages are better aligned", "-", "excess/mean", ON, GAT, "lower"),
        Versus("CAT without consistency is better too", "-", "frechet_distance", OFF, GAT, "lower"),
    ),
    testbeds=("digits",),
    curves=("frechet_distance", "excess/mean"),
    paper=CAT_B2,
)

AGGREGATED = Variant(
    "aggregated",
    "aggregated",
    "scales attend to each other, no consistency loss",
    {"discriminator.aggregated": True, "objective.consistency": 0.0},
)
AGGREGATION = Study(
    name="aggregated",
    question="Must the discriminator keep its scales apart?",
    figure="figure 9",
    variants=(OFF, AGGREGATED),
    claims=(
        Versus("Aggregated is worse", "severely", "frechet_distance", AGGREGATED, OFF, "higher"),
        Versus("Its stages are worse aligned", "-", "excess/mean", AGGREGATED, OFF, "higher"),
    ),
    testbeds=("digits",),
    curves=("frechet_distance", "excess/mean"),
    paper=CAT_B2,
    columns=("cross_scale_attention",),
    remark="Attention that leaves its scale is 0 with the mask; if every token attended to all alike it would be K / (K + 1).",
)

DEEP_D = Variant(
    "discriminator",
    "deep",
    "twice the blocks of the discriminator",
    {"discriminator.depth": Times(2)},
)
DISCRIMINATOR = Study(
    name="discriminator",
    question="Does a larger discriminator help?",
    figure="table 5",
    variants=(ON, DEEP_D),
    claims=(
        Versus(
            "A discriminator of twice the depth is better",
            "FID 5.11 -> 4.28 (G-M/2, 12 epochs)",
            "frechet_distance",
            DEEP_D,
            ON,
            "lower",
        ),
        Versus("Also after equal CPU time", "-", "frechet_distance", DEEP_D, ON, "lower", "equal CPU time"),
    ),
    testbeds=("digits",),
    curves=("frechet_distance",),
    paper=with_values(CAT_M2, {"training.steps": 30_000}),
)

DEEP_G = Variant("generator", "deep", "twice the blocks of the generator", {"generator.depth": Times(2)})
GENERATOR = Study(
    name="generator",
    question="Does a larger generator help?",
    figure="figures 5 and 6",
    variants=(ON, DEEP_G),
    claims=(
        Versus(
            "A generator of twice the depth is better",
            "FID 4.06 -> 3.00 (20 epochs)",
            "frechet_distance",
            DEEP_G,
            ON,
            "lower",
        ),
        Versus("Also after equal CPU time", "-", "frechet_distance", DEEP_G, ON, "lower", "equal CPU time"),
    ),
    testbeds=("digits",),
    curves=("frechet_distance",),
    paper=CAT_B2,
)

DETACHED = Variant(
    "loss", "detached", "h_K feels no consistency gradient (`detach_anchor`)", {"objective.detach_anchor": True}
)
AT_SCALE = Variant(
    "loss", "at-scale", "r_k(h_k) against r_k(h_K) (`consistency_at: scale`)", {"objective.consistency_at": "scale"}
)
LOSS = Study(
    name="loss",
    question="What of the consistency loss does it?",
    figure="none: the paper has one form of the loss",
    variants=(OFF, ON, DETACHED, AT_SCALE),
    claims=(
        Versus("The final stage has to move too", "-", "frechet_distance", ON, DETACHED, "lower"),
        Versus("Earlier stages alone align as well", "-", "excess/mean", DETACHED, OFF, "lower"),
        Versus("Binding what no discriminator sees does harm", "-", "frechet_distance", AT_SCALE, ON, "lower"),
        Versus("Binding what is seen aligns", "-", "excess/mean", AT_SCALE, OFF, "lower"),
    ),
    testbeds=("digits", "digits-classes"),
    curves=("frechet_distance", "excess/mean"),
    paper=CAT_B2,
)


def scales(name: str, sizes: list[int], patches: list[int], about: str = "") -> Variant:
    """A variant with these scales; its generator has 12 blocks, which one to four stages divide."""
    changes = {"sample.scales": sizes, "discriminator.patches": patches, "generator.depth": 12}
    return Variant("hierarchy", name, f"scales {', '.join(map(str, sizes))}{about}", changes)


ONE_SCALE = scales("one", [8], [2])
TWO_SCALES = scales("two", [4, 8], [2, 2])
THREE_SCALES = scales("three", [2, 4, 8], [2, 2, 2])
FOUR_SCALES = scales("four", [1, 2, 4, 8], [1, 2, 2, 2])
AUTO_SCALES = scales("auto", [4, 6, 8], [2, 2, 2], ", chosen from the data (`--sample.scales auto`)")
HIERARCHY = Study(
    name="hierarchy",
    question="How many scales, and which?",
    figure="none: the paper sets them by hand",
    variants=(ONE_SCALE, TWO_SCALES, THREE_SCALES, FOUR_SCALES, AUTO_SCALES),
    claims=(
        Versus("Two scales are better than one", "-", "frechet_distance", TWO_SCALES, ONE_SCALE, "lower"),
        Versus("Three are better than two", "-", "frechet_distance", THREE_SCALES, TWO_SCALES, "lower"),
        Versus("Four are better than three", "-", "frechet_distance", FOUR_SCALES, THREE_SCALES, "lower"),
        Versus("Scales from the data beat halving", "-", "frechet_distance", AUTO_SCALES, THREE_SCALES, "lower"),
    ),
    testbeds=("digits",),
    curves=("frechet_distance", "recall"),
    paper=None,
)

AIDED = Variant(
    "vision",
    "aided",
    "vision-aided heads on a network that learned, without labels, how pictures are turned",
    {"vision.path": "rotations", "vision.width": 64, "vision.warmup": 500},
)
VISION = Study(
    name="vision",
    question="Do heads that look through a frozen network help?",
    figure="appendix A.3, which has no comparison",
    variants=(ON, AIDED),
    claims=(
        Versus("They improve the images: distance", "-", "frechet_distance", AIDED, ON, "lower"),
        Versus("Also after equal CPU time", "-", "frechet_distance", AIDED, ON, "lower", "equal CPU time"),
        Versus("They improve the images: precision", "-", "precision", AIDED, ON, "higher"),
        Versus("They improve the images: recall", "-", "recall", AIDED, ON, "higher"),
    ),
    testbeds=("fashion",),
    curves=("frechet_distance", "recall", "excess/mean"),
    paper=None,
    remark=(
        "The metrics' classifier knows labels that the frozen network does not. That network's own training is not counted."
    ),
)

STUDIES = {
    s.name: s
    for s in (
        CONSISTENCY, LAMBDA, AGAINST_GAT, AGGREGATION, DISCRIMINATOR, GENERATOR, LOSS, HIERARCHY, VISION,
    )
}  # fmt: skip


# -- runs --------------------------------------------------------------------------------------------------------------


def runs_of(
    studies: Iterable[Study],
    testbeds: Iterable[str] = (),
    variants: Iterable[str] = (),
    seeds: Iterable[int] = (),
) -> list[Run]:
    """The runs of studies, each once, all variants of a seed before the next seed.

    testbeds, variants, seeds: these alone; by default those of the studies. Raises UserError for names that the studies
    do not have.
    """
    studies, wanted_testbeds, wanted_variants, wanted_seeds = list(studies), list(testbeds), list(variants), list(seeds)
    known_variants = dict.fromkeys(v.name for s in studies for v in s.variants)
    known_testbeds = dict.fromkeys(t for s in studies for t in s.testbeds)
    for name in wanted_variants:
        check_known("--variants", name, known_variants)
    for name in wanted_testbeds:
        check_known("--testbeds", name, known_testbeds)
    found: dict[str, Run] = {}
    for study in studies:
        for testbed in (t for t in study.testbeds if not wanted_testbeds or t in wanted_testbeds):
            for seed in wanted_seeds or range(study.seeds):
                for variant in (v for v in study.variants if not wanted_variants or v.name in wanted_variants):
                    run = Run(variant, TESTBEDS[testbed], seed)
                    found.setdefault(run.name, run)
    return list(found.values())
