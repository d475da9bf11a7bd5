"""Every setting of a run, as frozen dataclasses. No torch here: the command line must start fast.

Field comments become the help texts of `catgan train`. The rules between fields are in `checks.py`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
import yaml

from catgan.checks import validate
from catgan.errors import UserError

FORMAT_VERSION = 1  # of config.yaml and of exported models
LATENT_SCALE = 0.18215  # SD-VAE: latents times this have about unit variance


@dataclass(frozen=True)
class DataConfig:
    source: Literal["digits", "fashion-mnist", "latents", "prepared"] = "latents"
    """Where real samples come from."""
    path: str | None = None
    """Folder with the files of fashion-mnist (IDX), latents (moments.npy, labels.npy), or what catgan prepare made."""
    workers: int = 2
    """Threads that read batches ahead of training; 0 reads each when it is needed. The numbers are the same."""


@dataclass(frozen=True)
class SampleConfig:
    """The space of samples x, of shape (channels, size, size), and its pyramid."""

    size: int = 32
    """Height and width S of a sample, in pixels or latent pixels."""
    channels: int = 4
    """Channels C of a sample."""
    classes: int = 1000
    """Number of classes; 1 is unconditional."""
    scales: tuple[int, ...] = (4, 8, 16, 32)
    """Resolutions of scales 0..K, coarse to fine; the last one is the sample size."""
    down: Literal["area", "bilinear", "bicubic", "nearest"] = "area"
    """Filter of r_k towards coarser resolutions (the paper does not name it)."""
    up: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    """Filter of r_K back to full size, used by the diagnostics."""
    vae: str | None = None
    """VAE that decodes samples to pictures: folder or Hugging Face name; None: samples are pixels."""
    vae_identity: str | None = None
    """Digest of the encoder that made the latents: a VAE with another one does not decode them. None: not known."""
    latent_scale: float = LATENT_SCALE
    """What latents are multiplied by: the scaling_factor of their VAE."""


@dataclass(frozen=True)
class GeneratorConfig:
    depth: int = 12
    """Transformer blocks; a multiple of the number of scales."""
    width: int = 768
    """Channels d of a token and of the style vector w."""
    heads: int = 12
    """Attention heads."""
    patch: int = 2
    """Side of a square patch, in (latent) pixels."""
    z_dim: int = 64
    """Size of z and of the class embedding beside it."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    depth: int = 12
    """Transformer blocks."""
    width: int = 768
    """Channels of a token."""
    heads: int = 12
    """Attention heads."""
    patches: tuple[int, ...] = (2, 2, 2, 2)
    """Patch size of each scale; scales with equal patch sizes share their embedding."""
    head_dim: int = 2048
    """Size of the projection in which [cls] and class embedding meet."""
    aggregated: bool = False
    """Drop the block-diagonal mask: all scales attend to each other (the paper's ablation)."""
    representation_dim: int = 0
    """Output size of the representation head (768 for DINOv2-B); 0 leaves the head out."""


@dataclass(frozen=True)
class AugmentConfig:
    """Differentiable augmentation; 0 switches an operation off."""

    color: float = 0.5
    """Probability of changed brightness, saturation and contrast."""
    translation: float = 0.125
    """Largest shift, as a share of the size; always applied."""
    cutout: float = 0.5
    """Side of the erased square, as a share of the size; always applied."""
    flip: float = 0.4
    """Probability of a horizontal flip."""


@dataclass(frozen=True)
class EncoderConfig:
    """The frozen encoder (DINOv2) whose features the representation head learns to predict."""

    path: str | None = None
    """Folder or Hugging Face name of a DINOv2; None is no encoder."""
    size: int = 224
    """Pixels to which real images are resized for it; a multiple of its patch size (14)."""
    cached: bool = False
    """Take its features from the data (`catgan prepare --encoder`); needs augment.translation 0 and augment.flip 0."""


@dataclass(frozen=True)
class ObjectiveConfig:
    penalty: float = 1.0
    """gamma of R1 and R2: each is weighted by gamma / 2; 0 leaves them out."""
    penalty_end: float | None = None
    """gamma after its anneal; None keeps it at `penalty`."""
    penalty_anneal: int = 0
    """Steps over which gamma moves geometrically from `penalty` to `penalty_end`."""
    penalty_eps: float = 0.01
    """Standard deviation of the perturbation in the approximated penalties."""
    penalty_fraction: float = 0.25
    """Share of the batch that the penalties look at."""
    penalty_noise: Literal["full", "per_scale"] = "full"
    """Where the perturbation enters: at full size before augmentation, or at each scale after resizing."""
    consistency: float = 0.1
    """lambda of the consistency loss; 0 leaves it out."""
    consistency_weights: tuple[float, ...] | None = None
    """w_0..w_{K-1}; None is 1 / (K - k)."""
    detach_anchor: bool = False
    """Stop the consistency gradient at h_K, so that only earlier stages move."""
    representation: float = 0.0
    """Weight of the discriminator's alignment with the encoder's features of real images; 0 leaves it out."""
    fresh_z: bool = False
    """Draw a new z for the generator step instead of the discriminator step's."""


@dataclass(frozen=True)
class OptimizerConfig:
    lr_generator: float = 2e-4
    """AdamW learning rate of the generator."""
    lr_discriminator: float = 2e-4
    """AdamW learning rate of the discriminator."""
    beta1: float = 0.0
    """AdamW's first beta."""
    beta2: float = 0.99
    """AdamW's second beta."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    clip: float = 1.0
    """Largest gradient norm of each network; longer gradients are scaled to it."""
    ema_half_life: float = 692.8
    """Half-life of the generator's weight average, in steps (692.8 is a decay of 0.999 per step)."""
    ema_warmup: float = 0.05
    """While young the average is shorter: its half-life is at most this share of the steps so far; 0 is off."""


@dataclass(frozen=True)
class TrainingConfig:
    steps: int = 50_000
    """Length of the run, in iterations (one discriminator and one generator step each)."""
    batch: int = 512
    """Samples per iteration."""
    micro_batch: int = 0
    """Samples per forward pass and process; gradients add up to the whole batch's. 0 is all of a process's at once."""
    seed: int = 0
    """Seed of the initial weights and of every draw."""
    device: str = "auto"
    """Where to train: auto, cpu, cuda or cuda:N."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is autocast: weights stay in float32."""
    compile: bool = False
    """Compile the transformer block with torch.compile (needs a C++ compiler on CPU)."""
    reuse_fakes: bool = True
    """Generate once per iteration for both steps: exact with shared z, and cheaper. Off under micro-batches."""
    init_from: str | None = None
    """Run directory or checkpoint whose weights to start from (fine-tuning)."""
    threads: int = 0
    """CPU threads of PyTorch; 0 leaves its choice."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """How several processes (torchrun) train together: whole networks in each, or sharded ones."""
    recompute: bool = False
    """Activation checkpointing: keep each block's input alone and compute the rest again. Less memory, more time."""
    timeout: int = 600
    """Seconds that one process may keep the others waiting in a step before the run ends."""


@dataclass(frozen=True)
class LogConfig:
    every: int = 50
    """Steps between entries of metrics.jsonl and TensorBoard."""
    preview_every: int = 1000
    """Steps between sample grids and stage grids."""
    preview_classes: int = 10
    """How many classes (evenly spread) the previews show."""
    preview_rows: int = 4
    """Seeds per class in the sample grid."""
    diagnose_every: int = 1000
    """Steps between alignment diagnostics of the averaged generator."""
    diagnose_samples: int = 1000
    """(class, seed) pairs that a diagnosis uses."""
    peak: float | None = None
    """TFLOP/s that one device can do, of which `mfu` is the achieved share; None: the datasheet's, for GPUs that plan
    knows."""
    wandb: bool = False
    """Also log to Weights & Biases (needs `pip install catgan[wandb]`)."""


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation of the averaged generator during training."""

    every: int = 0
    """Steps between evaluations; 0 is none."""
    samples: int = 10_000
    """Samples to generate each time: seeds 0, 1, ..., classes in turn."""
    features: Literal["inception", "dinov2", "classifier"] = "inception"
    """Feature space; classifier is a small network trained on the data, for small or grey images."""
    metrics: tuple[Literal["distance", "kid", "score", "precision_recall", "class_distance", "recognised"], ...] = (
        "distance",
    )
    """What to measure; all but distance, class_distance and recognised need `pip install catgan[eval]`."""
    best: Literal[
        "frechet_distance", "kid", "inception_score", "precision", "recall", "class_distance", "recognised"
    ] = "frechet_distance"
    """The number by which checkpoints/best-XXXXXXXX is kept."""
    reference: str | None = None
    """Images, or an .npz with mu and sigma, to compare with; None is the training data."""
    weights: str | None = None
    """Local weights of inception (a .pth file) or dinov2 (a folder)."""
    batch: int = 250
    """Images at a time."""


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = 1000
    """Steps between checkpoints."""
    keep: int = 3
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
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    log: LogConfig = field(default_factory=LogConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    @property
    def reuses_fakes(self) -> bool:
        """Whether an iteration generates once: asked for, with one z, and with the whole batch in one pass."""
        t = self.training
        return t.reuse_fakes and not self.objective.fresh_z and (t.micro_batch == 0 or t.micro_batch >= t.batch)

    @property
    def previewed(self) -> list[int]:
        """The classes that previews show, evenly spread."""
        shown = min(self.log.preview_classes, self.sample.classes)
        return [k * self.sample.classes // shown for k in range(shown)]

    def validate(self) -> Config:
        """Return self, or raise UserError naming the field, its value and what is allowed."""
        validate(self)
        return self


# Fields that `--resume` may change: but for the batch they do not touch the numbers that training computes, up to
# rounding. The data goes on at the same sample. Of the encoder a checkpoint remembers the weights, whatever their path.
RESUMABLE = (
    "training.steps", "training.batch", "training.micro_batch", "training.parallel", "training.recompute",
    "training.compile", "training.device", "training.threads", "training.timeout", "training.reuse_fakes",
    "data.workers", "log", "eval", "checkpoint", "sample.vae", "encoder.path",
)  # fmt: skip


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested plain dictionaries (tuples become lists), ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return list(value) if isinstance(value, tuple) else value

    return {"format": FORMAT_VERSION, **plain(config)}


def from_dict(values: dict[str, Any], base: Config | None = None, where: str = "configuration") -> Config:
    """Build a Config from nested dictionaries; fields not named keep the values of `base`.

    Raises UserError for an unknown field, a value of the wrong type or a newer format.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: the file is {values!r}: must be a mapping of field: value")
    values = dict(values)
    version = values.pop("format", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise UserError(
            f"{where}: format is {version}: this catgan reads {FORMAT_VERSION}; install the version that wrote it"
        )
    config: Config = _merge(base or Config(), values, "", where)
    return config


def _merge(base: Any, values: Any, prefix: str, where: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"{where}: {prefix.rstrip('.') or 'the file'} is {values!r}: must be a mapping of field: value")
    hints = typing.get_type_hints(type(base))
    changes = {}
    for name, value in values.items():
        if name not in hints:
            known = ", ".join(f.name for f in dataclasses.fields(base))
            raise UserError(f"{where}: unknown field {prefix}{name}; known here: {known}")
        current = getattr(base, name)
        if dataclasses.is_dataclass(current):
            changes[name] = _merge(current, value, f"{prefix}{name}.", where)
        else:
            changes[name] = _coerce(value, hints[name], f"{prefix}{name}", where)
    return dataclasses.replace(base, **changes)


def _coerce(value: Any, hint: Any, name: str, where: str) -> Any:
    """The value as the type of its field; lenient where YAML is (1e-3 is a string there, 1 may stand for 1.0)."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    error = UserError(f"{where}: {name} is {value!r}: must be {_describe(hint)}")
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _coerce(value, next(a for a in args if a is not type(None)), name, where)
    if origin is Literal:
        if value not in args:
            raise error
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise error
        return tuple(_coerce(v, args[0], name, where) for v in value)
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            raise error from None
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise error
    return value


def _describe(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple:
        return f"a list of {_describe(args[0])}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if a is type(None) else _describe(a) for a in args)
    return {int: "an integer", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))


def load_yaml(path: Path, base: Config | None = None) -> Config:
    """Read a YAML file of (some) fields over `base`. Raises UserError for anything that does not fit."""
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    return from_dict(values or {}, base, str(path))


def dump_yaml(config: Config) -> str:
    """The whole configuration as YAML text."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def differences(old: Config, new: Config) -> list[str]:
    """Dotted names of the fields in which two configurations differ."""

    def walk(a: Any, b: Any, prefix: str) -> list[str]:
        names: list[str] = []
        for f in dataclasses.fields(a):
            x, y = getattr(a, f.name), getattr(b, f.name)
            if dataclasses.is_dataclass(x):
                names += walk(x, y, f"{prefix}{f.name}.")
            elif x != y:
                names.append(prefix + f.name)
        return names

    return walk(old, new, "")


def attribute(config: Config, name: str) -> Any:
    """The value of a dotted field name."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value
