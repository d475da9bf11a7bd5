"""Every setting of a run, as frozen dataclasses. No torch here: the command line must start fast.

The comment under a field becomes its help text in `catgan train`; its type says what values it allows. Rules between
fields are the functions at the end.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from catgan.bounds import (
    Above0,
    Allowed,
    AtLeast0,
    AtLeast2,
    Count,
    CountOrZero,
    Seed,
    Share,
    ShareAbove0,
    ShareBelow1,
    check_bounds,
)
from catgan.errors import UserError, require
from catgan.metrics import Features, MetricName, NumberName, metric_of

LATENT_SCALE = 0.18215  # SD-VAE: latents times this have about unit variance
WITHOUT_REPRESENTATION = "--objective.representation 0 --discriminator.representation-dim 0"

Device = Annotated[
    str, Allowed("auto, cpu, cuda or cuda:N", lambda name: re.fullmatch(r"auto|cpu|cuda(:\d+)?", name) is not None)
]


@dataclass(frozen=True)
class DataConfig:
    source: Literal["digits", "fashion-mnist", "latents", "prepared"] = "latents"
    """Where real samples come from."""
    path: str | None = None
    """Folder with the files of fashion-mnist (IDX), latents (moments.npy, labels.npy), or what catgan prepare made."""
    workers: CountOrZero = 2
    """Threads that read batches ahead of training; 0 reads each when it is needed. The numbers are the same."""


@dataclass(frozen=True)
class SampleConfig:
    """The space of samples x, of shape (channels, size, size), and its pyramid."""

    size: Count = 32
    """Height and width S of a sample, in pixels or latent pixels."""
    channels: Count = 4
    """Channels C of a sample."""
    classes: Count = 1000
    """Number of classes; 1 is unconditional."""
    scales: tuple[int, ...] = (4, 8, 16, 32)
    """Resolutions of scales 0..K, coarse to fine; the last one is the sample size. `catgan train` takes auto: from the data."""
    down: Literal["area", "bilinear", "bicubic", "nearest"] = "area"
    """Filter of r_k towards coarser resolutions (the paper does not name it)."""
    up: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    """Filter of r_K back to full size, used by the diagnostics."""
    vae: str | None = None
    """VAE that decodes samples to pictures: folder or Hugging Face name; None: samples are pixels."""
    vae_identity: str | None = None
    """Digest of the encoder that made the latents: a VAE with another one does not decode them. None: not known."""
    latent_scale: Above0 = LATENT_SCALE
    """What latents are multiplied by: the scaling_factor of their VAE."""


@dataclass(frozen=True)
class GeneratorConfig:
    depth: Count = 12
    """Transformer blocks; a multiple of the number of scales."""
    width: int = 768
    """Channels d of a token and of the style vector w."""
    heads: int = 12
    """Attention heads."""
    patch: Count = 2
    """Side of a square patch, in (latent) pixels."""
    z_dim: Count = 64
    """Size of z and of the class embedding beside it."""
    shift: bool = True
    """Modulate tokens by a shift too, 6d per block and 2d per output; false: by scale and gate alone, 4d and d, as in GAT."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    depth: Count = 12
    """Transformer blocks."""
    width: int = 768
    """Channels of a token."""
    heads: int = 12
    """Attention heads."""
    patches: tuple[int, ...] = (2, 2, 2, 2)
    """Patch size of each scale; scales with equal patch sizes share their embedding."""
    head_dim: Count = 2048
    """Size of the projection in which [cls] and class embedding meet."""
    aggregated: bool = False
    """Drop the block-diagonal mask: all scales attend to each other (the paper's ablation)."""
    class_mapping: bool = False
    """Two layers between a class's embedding and its product with [cls], as in GAT; with head_dim 1024 the paper's 96 M too."""
    representation_dim: CountOrZero = 0
    """Output size of the representation head (768 for DINOv2-B); 0 leaves the head out."""


@dataclass(frozen=True)
class AugmentConfig:
    """Differentiable augmentation; 0 switches an operation off."""

    color: Share = 0.5
    """Probability of changed brightness, saturation and contrast."""
    translation: Share = 0.125
    """Largest shift, as a share of the size; always applied."""
    cutout: Share = 0.5
    """Side of the erased square, as a share of the size; always applied."""
    flip: Share = 0.4
    """Probability of a horizontal flip."""
    register: Literal["proportional", "gat"] = "proportional"
    """How far an encoder's image moves for a shift of its sample: by as much of its size, or, as GAT's inverted ratio has it, hardly."""


@dataclass(frozen=True)
class EncoderConfig:
    """The frozen encoder (DINOv2) whose features the representation head learns to predict."""

    path: str | None = None
    """Folder or Hugging Face name of a DINOv2; None is no encoder."""
    size: Count = 224
    """Pixels to which real images are resized for it; a multiple of its patch size (14)."""
    cached: bool = False
    """Take its features from the data (`catgan prepare --encoder`); needs augment.translation 0 and augment.flip 0."""


@dataclass(frozen=True)
class VisionConfig:
    """The vision-aided loss (paper A.3): heads of the discriminator that look at h_K through a frozen network."""

    path: str | None = None
    """Folder or Hugging Face name of a ConvNeXtV2 or of a network of timm's; rotations: a small one, trained on the data
    without labels; None leaves the loss out."""
    size: CountOrZero = 0
    """Pixels to which pictures are resized for it; 0 is 224, for rotations about the sample size."""
    stages: tuple[Count, ...] = (2, 3, 4)
    """Stages of the network whose feature maps get a head, 1 is the first; of a transformer its blocks."""
    width: Count = 256
    """Channels of each head."""
    weight: Above0 = 1.0
    """Weight of the loss in both networks."""
    warmup: CountOrZero = 1000
    """Steps over which the weight rises from 0."""
    normalisation: Literal["own", "imagenet", "half"] = "own"
    """Of pixels: what the network's files say, ImageNet's mean and deviation, or 0.5 and 0.5."""


@dataclass(frozen=True)
class ObjectiveConfig:
    supervision: Literal["pyramid", "noise_levels"] = "pyramid"
    """What the discriminator sees of stage k: resolution k and a logit for each (CAT), or noise of level k and one logit (GAT)."""
    penalty: AtLeast0 = 1.0
    """gamma of R1 and R2: each is weighted by gamma / 2; 0 leaves them out."""
    penalty_end: Above0 | None = None
    """gamma after its anneal; None keeps it at `penalty`."""
    penalty_anneal: CountOrZero = 0
    """Steps over which gamma moves geometrically from `penalty` to `penalty_end`."""
    penalty_eps: Above0 = 0.01
    """Standard deviation of the perturbation in the approximated penalties."""
    penalty_fraction: ShareAbove0 = 0.25
    """Share of the batch that the penalties look at; at least one sample."""
    penalty_noise: Literal["full", "per_scale"] = "full"
    """Where the perturbation enters: at full size before augmentation, or at each scale after resizing."""
    penalty_precision: Literal["same", "tf32", "float32"] = "tf32"
    """Under bfloat16, what judges penalised samples and their twins: float32 (tf32: on CUDA with TF32 products), or bfloat16 too."""
    consistency: AtLeast0 = 0.1
    """lambda of the consistency loss; 0 leaves it out."""
    consistency_weights: tuple[AtLeast0, ...] | None = None
    """w_0..w_{K-1}; None is 1 / (K - k)."""
    consistency_at: Literal["full", "scale"] = "full"
    """Where stages are compared with h_K: at full size (the paper), or at each scale's own resolution, r_k(h_k) with r_k(h_K)."""
    detach_anchor: bool = False
    """Stop the consistency gradient at h_K, so that only earlier stages move."""
    representation: AtLeast0 = 0.0
    """Weight of the discriminator's alignment with the encoder's features of real images; 0 leaves it out."""
    fresh_z: bool = False
    """Draw a new z for the generator step instead of the discriminator step's."""


@dataclass(frozen=True)
class OptimizerConfig:
    lr_generator: Above0 = 2e-4
    """AdamW learning rate of the generator."""
    lr_discriminator: Above0 = 2e-4
    """AdamW learning rate of the discriminator."""
    lr_warmup: CountOrZero = 0
    """Steps over which learning rates rise from 0; 0 is off."""
    lr_decay: CountOrZero = 0
    """Step n from which learning rates fall as sqrt(n / step); 0 is off."""
    beta1: ShareBelow1 = 0.0
    """AdamW's first beta."""
    beta2: ShareBelow1 = 0.99
    """AdamW's second beta."""
    weight_decay: AtLeast0 = 0.0
    """AdamW's weight decay."""
    clip: Above0 = 1.0
    """Largest gradient norm of each network; longer gradients are scaled to it."""
    ema_half_life: Above0 = 692.8
    """Half-life of the generator's weight average, in steps (692.8 is a decay of 0.999 per step)."""
    ema_warmup: AtLeast0 = 0.05
    """While young the average is shorter: its half-life is at most this share of the steps so far; 0 is off."""


@dataclass(frozen=True)
class TrainingConfig:
    steps: Count = 50_000
    """Length of the run, in iterations (one discriminator and one generator step each)."""
    batch: Count = 512
    """Samples per iteration, of all processes together; a multiple of their number."""
    micro_batch: CountOrZero = 0
    """Samples per forward pass and process; gradients add up to the whole batch's. 0 is all of a process's at once."""
    seed: Seed = 0
    """Seed of the initial weights and of every draw."""
    device: Device = "auto"
    """Where to train: auto, cpu, cuda or cuda:N."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is autocast: weights stay in float32."""
    compile: bool | None = None
    """Compile the transformer block with torch.compile (needs a C++ compiler on CPU); None: on CUDA."""
    cuda_graph: bool | None = None
    """Record a step as a CUDA graph and replay it, so that small networks do not wait for the CPU: in one process, with whole
    batches and no encoder; None: there, unless losses, supervision or heads are your own (docs/extend.md)."""
    reuse_fakes: bool = True
    """Generate once per iteration for both steps: exact with shared z, and cheaper. Off under micro-batches."""
    init_from: str | None = None
    """Run directory, checkpoint, folder exported with its discriminator, or shipped model, whose weights to start from (fine-tuning)."""
    threads: CountOrZero = 0
    """CPU threads of PyTorch; 0 leaves its choice."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """How several processes (torchrun) train together: whole networks in each, or sharded ones."""
    recompute: bool = False
    """Activation checkpointing: keep each block's input alone and compute the rest again. Less memory, more time."""
    timeout: Count = 600
    """Seconds that one process may keep the others waiting in a step before the run ends."""


@dataclass(frozen=True)
class LogConfig:
    every: Count = 50
    """Steps between entries of metrics.jsonl and TensorBoard."""
    preview_every: Count = 1000
    """Steps between sample grids and stage grids."""
    preview_classes: Count = 10
    """How many classes (evenly spread) the previews show, a column each; as many columns where there is only one."""
    preview_rows: Count = 4
    """Seeds per column of the sample grid."""
    diagnose_every: Count = 1000
    """Steps between alignment diagnostics of the averaged generator."""
    diagnose_samples: Count = 1000
    """(class, seed) pairs that a diagnosis uses."""
    peak: Above0 | None = None
    """TFLOP/s that one device can do, of which `mfu` is the achieved share; None: the datasheet's, for GPUs that plan
    knows."""
    wandb: bool = False
    """Also log to Weights & Biases (needs `pip install catgan[wandb]`)."""


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation of the averaged generator during training."""

    every: CountOrZero = 0
    """Steps between evaluations; 0 is none."""
    samples: AtLeast2 = 10_000
    """Samples to generate each time: seeds 0, 1, ..., classes in turn."""
    features: Features = "inception"
    """Feature space; classifier is a small network trained on the data, for small or grey images; pixels needs none."""
    metrics: tuple[MetricName, ...] = ("distance",)
    """What to measure; kid, inception_score and precision_recall need `pip install catgan[eval]`. Collapse is seen by
    recall, memorisation by authenticity."""
    best: NumberName = "frechet_distance"
    """The number by which checkpoints/best-XXXXXXXX is kept, of evaluations that see neither collapse nor memorisation."""
    reference: str | None = None
    """Images, or an .npz with mu and sigma, to compare with; None is the training data."""
    weights: str | None = None
    """Local weights of inception (a .pth file) or dinov2 (a folder)."""
    batch: Count = 250
    """Images at a time."""


@dataclass(frozen=True)
class CheckpointConfig:
    every: Count = 1000
    """Steps between checkpoints."""
    keep: Count = 3
    """How many of the latest checkpoints stay."""
    keep_steps: tuple[int, ...] = ()
    """Steps whose checkpoints stay for good."""


@dataclass(frozen=True)
class Config:
    """One run: everything needed to build it again."""

    recipe: tyro.conf.Suppress[str] = "cat-b2"
    """Name of the recipe this configuration started from."""
    data: DataConfig = field(default_factory=DataConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    log: LogConfig = field(default_factory=LogConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def captures(self, device: str, world: int = 1, encoded: bool = False, own: bool = False) -> bool:
        """Whether steps are replayed as a CUDA graph: by default where they can be and losses, supervision and heads are none
        of one's own. encoded: an encoder reads real samples. Raises UserError where it is asked for and cannot be."""
        against = {
            "the device is no GPU": device != "cuda",
            "there are several processes": world > 1,
            "a batch is passed in parts": bool(self.training.micro_batch),
            "an encoder reads the samples": encoded,
        }
        reason = next((words for words, holds in against.items() if holds), None)
        if self.training.cuda_graph and reason:
            raise UserError(f"training.cuda_graph is true, but {reason}: set it to false")
        asked = not own if self.training.cuda_graph is None else self.training.cuda_graph
        return asked and reason is None

    def compiles(self, device: str) -> bool:
        """Whether blocks are compiled on a device of that type: as asked for, or by default on CUDA."""
        return device == "cuda" if self.training.compile is None else self.training.compile

    @property
    def kept_moments(self) -> int:
        """How many of AdamW's two moments are kept: with beta1 0 the first is the gradient."""
        return 1 if self.optimizer.beta1 == 0 else 2

    def reuses_fakes(self, processes: int = 1) -> bool:
        """Whether an iteration generates once: asked for, with one z, and with all of a process's samples in one pass."""
        t = self.training
        in_one_pass = t.micro_batch == 0 or t.micro_batch * processes >= t.batch
        return t.reuse_fakes and not self.objective.fresh_z and in_one_pass

    @property
    def precise_penalties(self) -> bool:
        """Whether penalised samples and their twins are judged in another precision than the others."""
        return self.training.precision == "bfloat16" and self.objective.penalty_precision != "same"

    @property
    def previewed(self) -> list[int]:
        """The class of each column of the previews: classes evenly spread, or the only one."""
        if self.sample.classes == 1:
            return [0] * self.log.preview_classes
        shown = min(self.log.preview_classes, self.sample.classes)
        return [k * self.sample.classes // shown for k in range(shown)]

    def validate(self) -> Config:
        """Return self, or raise UserError naming the field, its value and what is allowed."""
        check_bounds(self)
        s, g, d = self.sample, self.generator, self.discriminator
        check_scales(s.size, s.scales, d.patches)
        check_depth(g.depth, len(s.scales))
        check_width("generator", g.width, g.heads)
        check_width("discriminator", d.width, d.heads)
        check_patch(s.size, g.patch)
        check_objective(self)
        check_vision(self)
        check_evaluation(self)
        return self


# -- rules between fields ----------------------------------------------------------------------------------------------


def check_scales(size: int, scales: tuple[int, ...], patches: tuple[int, ...]) -> None:
    """Raise UserError unless scales rise, end at the sample size and are divisible by their patches."""
    shown = ",".join(map(str, scales))
    require(len(scales) >= 1 and all(s >= 1 for s in scales), "sample.scales", shown or "empty", "positive sizes")
    require(all(a < b for a, b in itertools.pairwise(scales)), "sample.scales", shown, "increasing")
    require(scales[-1] == size, "sample.scales", shown, f"a list that ends at sample.size ({size})")
    require(
        len(patches) == len(scales),
        "discriminator.patches",
        ",".join(map(str, patches)),
        f"{len(scales)} sizes, one per scale",
    )
    for k, (s, p) in enumerate(zip(scales, patches, strict=True)):
        require(
            p >= 1 and s % p == 0,
            f"scale {k}",
            s,
            f"divisible by its patch size ({p})",
            "change sample.scales or discriminator.patches",
        )


def check_width(name: str, width: int, heads: int) -> None:
    """Raise UserError unless heads divide the width into head sizes divisible by 4 (two axes, pairs)."""
    require(width >= 4 and width % 4 == 0, f"{name}.width", width, "a positive multiple of 4")
    require(heads >= 1 and width % heads == 0, f"{name}.width", width, f"divisible by {name}.heads ({heads})")
    require(
        (width // heads) % 4 == 0,
        f"{name}.heads",
        heads,
        f"such that the head size ({width // heads}) is divisible by 4",
    )


def check_depth(depth: int, stages: int) -> None:
    """Raise UserError unless the generator's blocks split evenly into stages."""
    below = max(stages, depth // stages * stages)
    require(
        depth >= 1 and depth % stages == 0,
        "generator.depth",
        depth,
        f"divisible by the number of scales ({stages})",
        f"use {below} or {below + stages}",
    )


def check_patch(size: int, patch: int) -> None:
    """Raise UserError unless the generator's patches tile the sample."""
    require(patch >= 1 and size % patch == 0, "generator.patch", patch, f"a divisor of sample.size ({size})")


def check_objective(c: Config) -> None:
    """Raise UserError for what the supervision has not, weights of other stages, and a representation head that its
    features do not fit."""
    o, dim = c.objective, c.discriminator.representation_dim
    if o.supervision == "noise_levels":
        within = "with objective.supervision noise_levels, which has one grid of tokens"
        require(not c.discriminator.aggregated, "discriminator.aggregated", "true", f"false {within}")
        require(o.penalty_noise == "full", "objective.penalty_noise", o.penalty_noise, f"full {within}")
    if o.consistency_weights is not None:
        stages = len(c.sample.scales) - 1
        require(
            len(o.consistency_weights) == stages,
            "objective.consistency_weights",
            o.consistency_weights,
            f"{stages} numbers, one per stage but the last",
        )
    if not o.representation:
        return
    require(
        dim > 0,
        "discriminator.representation_dim",
        dim,
        f"at least 1 with objective.representation {o.representation:g}",
        f"use 768 for DINOv2-B; to train without: {WITHOUT_REPRESENTATION}",
    )
    for name, moved in (("augment.translation", c.augment.translation), ("augment.flip", c.augment.flip)):
        require(
            not (c.encoder.cached and moved),
            name,
            moved,
            "0 with encoder.cached, whose features are of images as they are",
        )


def check_vision(c: Config) -> None:
    """Raise UserError for a vision-aided loss where h_K is not seen as a picture."""
    if c.vision.path is None:
        return
    s, todo = c.sample, "train without: --vision.path None"
    require(s.vae is None, "vision.path", c.vision.path, f"None where samples are latents (sample.vae {s.vae})", todo)
    require(s.channels in (1, 3), "sample.channels", s.channels, "1 or 3, pictures, with vision.path", todo)
    require(
        c.objective.supervision == "pyramid",
        "vision.path",
        c.vision.path,
        "None with objective.supervision noise_levels, which shows h_K under noise",
    )


def check_evaluation(c: Config) -> None:
    """Raise UserError for a best checkpoint by a number that is not measured."""
    metric = metric_of(c.eval.best)
    require(
        not c.eval.every or metric in c.eval.metrics,
        "eval.best",
        c.eval.best,
        "a number that eval.metrics gives",
        f"add {metric} to eval.metrics",
    )
