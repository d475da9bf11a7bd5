"""From a trained run to pictures: `pipe = catgan.load(path); pipe(classes=[3], seeds=[0], psi=0.85).images`.

Latents become pictures by themselves, by the VAE that the configuration names or that the caller gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from catgan import shipped
from catgan.bounds import check_psi, check_seed
from catgan.checkpoint.card import evaluations
from catgan.checkpoint.export import FILES, is_export, opened, write_export
from catgan.checkpoint.manifest import Header
from catgan.checkpoint.publishing import CARD, Publication, write_publication
from catgan.checkpoint.reading import HEADS, load_network
from catgan.config import Config
from catgan.data import Dataset, check_fits, is_data_of, open_dataset
from catgan.discriminator import Discriminator
from catgan.draws import sample_z
from catgan.encoders import VAE, vae_for
from catgan.encoders.files import find_folder, fingerprint
from catgan.errors import UserError, require
from catgan.generator import Generator
from catgan.images import Rounding, captioned, save_png, to_bytes, to_picture
from catgan.networks import build_discriminator, build_generator, build_pyramid
from catgan.pyramid import Pyramid
from catgan.sampling import hub, showcase
from catgan.sampling.backends import Backend, Synthesize, check_backend, synthesizer
from catgan.shipped import choices, located
from catgan.system.devices import pick_device
from catgan.system.files import read_if_there
from catgan.system.progress import counted


@dataclass(frozen=True)
class Samples:
    """What a pipeline made."""

    latents: Tensor  # (n, C, S, S), float32 on the CPU: outputs h_K as the network made them
    stages: Tensor | None  # (K + 1, n, C, S, S), h_0..h_K, if asked for
    decode: Callable[[Tensor], Tensor]  # (..., C, S, S) to pixels in [-1, 1]; the pipeline's

    def __repr__(self) -> str:
        stages = f", {counted(len(self.stages), 'stage')}" if self.stages is not None else ""
        return f"Samples({len(self.latents)} of {'x'.join(map(str, self.latents.shape[1:]))}{stages})"

    @cached_property
    def array(self) -> np.ndarray:
        """uint8 pixels (n, P, P, 1 or 3), rounded. Raises UserError for latents without their VAE."""
        return self.as_bytes()

    def as_bytes(self, rounding: Rounding = "round") -> np.ndarray:
        """`array`, rounded to the nearest byte or down."""
        return to_bytes(self.decode(self.latents), rounding)

    @cached_property
    def stage_array(self) -> np.ndarray:
        """uint8 pixels of all stages, (K + 1, n, P, P, 1 or 3). Raises UserError if they were not kept."""
        if self.stages is None:
            raise UserError("stages were not kept: sample with stages=True")
        return to_bytes(self.decode(self.stages))

    @property
    def images(self) -> list[Image.Image]:
        """One PIL image per sample."""
        return [to_picture(pixels) for pixels in self.array]


class CATPipeline:
    """A generator with what belongs to it. Made by `catgan.load` or `CATPipeline.from_pretrained`."""

    def __init__(self, generator: Generator, config: Config, class_names: Sequence[str], step: int = 0) -> None:
        self.generator = generator.eval().requires_grad_(False)
        self.config, self.class_names, self.step = config, tuple(class_names), step
        self.device, self.precision = torch.device("cpu"), "float32"
        self.backend: Backend = "eager"
        self.synthesize: Synthesize | None = None  # of the backend, made when it is first needed
        self.weights = "ema"
        self.source: Path | None = None  # the checkpoint or exported folder that it was loaded from
        self.loaded_vae: VAE | None = None

    def __repr__(self) -> str:
        s = self.config.sample
        return (
            f"CATPipeline(recipe {self.config.recipe}, step {self.step}, {self.weights}, {s.channels}x{s.size}x{s.size}, "
            f"{counted(s.classes, 'class', 'classes')}, {self.precision} on {self.device})"
        )

    @classmethod
    def from_pretrained(
        cls, name: str | Path, vae: str | VAE | None = None, revision: str | None = None
    ) -> CATPipeline:
        """An exported model (`catgan export`), a run or a shipped model, or OWNER/NAME[@REVISION] on the Hugging Face Hub.

        revision: the branch, tag or commit of a name on the Hub. Raises UserError if there is none, for a revision of what
        is not on the Hub, and for names on the Hub without huggingface_hub or a network.
        """
        local = located(Path(name)).exists()
        if revision is not None:
            if local or "@" in str(name):
                raise UserError(
                    f"revision is {revision}: {name} {'is no name on the Hub' if local else 'has one already'}"
                )
            name = f"{name}@{revision}"
        return load(
            name
            if local
            else find_folder(str(name), FILES, f"model {name}", f"the path, or name {choices(Path(name))}"),
            vae=vae,
        )

    def save_pretrained(self, out: str | Path, discriminator: bool = False) -> Path:
        """Write a new folder to publish: weights, configuration and a model card. Returns its path.

        Its VAE is named, not copied. discriminator: with that of the same checkpoint, so that it can be fine-tuned.
        Raises UserError for raw weights, if something is at `out` already, or if it cannot be written.
        """
        if self.weights != "ema":
            raise UserError(f"weights is {self.weights}: only averaged weights are exported")
        config = self.published_config
        if discriminator and self.source is None:
            raise UserError("the discriminator of this pipeline is not known: load it from a run or a checkpoint")
        judge = load_discriminator(self.source) if discriminator and self.source else None
        header = Header(self.step, config, self.class_names, (), self.step * config.training.batch)
        return write_export(Path(out), header, self.generator, judge, self.run)

    def push_to_hub(
        self, name: str, *, private: bool = False, licence: str = "", datasets: Sequence[str] = (),
        discriminator: bool = False, message: str = "", revision: str | None = None,
    ) -> str:  # fmt: skip
        """Publish as OWNER/NAME on the Hugging Face Hub, as one commit; returns the address. Nothing there is deleted.

        It uploads what `catgan push` lists, without asking. private: of a new repository. licence, datasets: for the card.
        revision: a branch. Raises UserError as `save_pretrained` and `catgan.sampling.hub.upload` do.
        """
        with self.prepared_push(name, licence, datasets, discriminator, revision) as folder:
            return hub.upload(folder, name, private, message or self.push_message, revision).url

    @property
    def push_message(self) -> str:
        return f"catgan: {self.config.recipe}, step {self.step}"

    @contextmanager
    def prepared_push(
        self, name: str, licence: str = "", datasets: Sequence[str] = (), discriminator: bool = False,
        revision: str | None = None,
    ) -> Iterator[Path]:  # fmt: skip
        """A temporary folder of what `push_to_hub` uploads: the export, sheet.png, stages.png and the completed card.

        The card of an exported folder is kept and completed. Raises UserError for a bad name, and as `save_pretrained` does.
        """
        hub.check_name(name)
        vae = self.published_config.sample.vae
        if vae and Path(vae).exists():
            raise UserError(
                f"the VAE is {vae}, a folder that others do not have: name one on the Hub, with --vae or with_vae"
            )
        with TemporaryDirectory(prefix="catgan-push-") as place:
            folder = self.save_pretrained(Path(place) / "model", discriminator)
            if self.source and is_export(self.source) and (self.source / CARD).is_file():
                copyfile(self.source / CARD, folder / CARD)
            captions = self.save_showcase(folder)
            told = self.told()
            about = Publication(
                name,
                hub.address(name, revision),
                f"{name}@{revision}" if revision else name,
                licence or told.get("licence", ""),
                tuple(datasets),
                "" if datasets else told.get("trained_on", ""),
                told.get("evaluations", ()),
            )
            write_publication(folder, self.published_config, about, captions)
            yield folder

    def told(self) -> dict[str, Any]:
        """What a shipped model or a run has written down of licence, data and evaluations."""
        if self.source and is_export(self.source):
            return read_if_there(self.source / shipped.ABOUT)
        return {"evaluations": evaluations(self.run, self.step)}

    def save_showcase(self, folder: Path) -> dict[str, str]:
        """Write sheet.png and stages.png, and return what they show. Raises UserError for latents without their VAE."""
        classes, seeds = showcase.chosen(self.config.sample.classes)
        names = [self.class_name(c) for c in classes]
        made = self([c for c in classes for _ in seeds], seeds * len(classes)).array
        few = classes[: showcase.STRIPS] if len(classes) > 1 else classes * showcase.STRIPS
        first = [0] * len(few) if len(classes) > 1 else list(range(len(few)))
        stages = self(few, first, stages=True).stage_array
        rows = [f"{self.class_name(c)}, seed {s}" for c, s in zip(few, first, strict=True)]
        captions = {
            "sheet.png": f"Samples of seeds 0-{seeds[-1]}, psi 1, not selected",
            "stages.png": "Outputs of the stages h_0 to h_K of some samples, psi 1, not selected",
        }
        pictures = {"sheet.png": showcase.sheet(made, names, seeds), "stages.png": showcase.strips(stages, rows)}
        for name, picture in pictures.items():
            save_png(captioned(picture, captions[name]), folder / name)
        return captions

    @property
    def published_config(self) -> Config:
        """The configuration, naming the VAE that samples are decoded by."""
        if self.loaded_vae is None:
            return self.config
        return replace(self.config, sample=replace(self.config.sample, vae=self.loaded_vae.path))

    @property
    def run(self) -> Path | None:
        """The directory of the run that it was loaded from, if it was."""
        run = self.source and self.source.parent.parent
        return run if run and (run / "config.yaml").exists() else None

    def open_data(self) -> Dataset:
        """The data that it was trained on. Raises UserError if they are not where the configuration says, or others are."""
        config, about = self.config, read_if_there(self.run / "run.json") if self.run else {}
        dataset = open_dataset(config.data, config.sample.size)
        if not is_data_of(dataset, config, about | {"class_names": list(self.class_names)}):
            raise UserError(
                f"{config.data.path or config.data.source}, which data.source names, is not what this generator was trained "
                "on: give that as the reference"
            )
        check_fits(dataset, config)
        return dataset

    @property
    def vae(self) -> VAE | None:
        """What decodes samples, loaded on first use; None if they are pixels. Raises UserError if it cannot be had."""
        if self.loaded_vae is None and self.config.sample.vae is not None:
            self.with_vae(self.config.sample.vae)
        return self.loaded_vae

    def with_vae(self, vae: str | Path | VAE) -> CATPipeline:
        """Decode with this VAE: one in memory, a folder, or a name on the Hugging Face Hub. Returns self.

        Raises UserError if it cannot be had, or cannot be that of the samples.
        """
        if not isinstance(vae, VAE):
            vae = vae_for(self.config, str(vae), self.device, self.precision, "--vae")
        self.loaded_vae = vae.to(self.device, self.precision)
        return self

    def decode(self, samples: Tensor) -> Tensor:
        """Outputs of the generator (..., C, S, S) to pixels (..., 1 or 3, P, P) in [-1, 1].

        Raises UserError for latents without their VAE.
        """
        if self.vae is not None:
            return self.vae.decode(samples.flatten(0, -4)).unflatten(0, samples.shape[:-3])
        channels = samples.shape[-3]
        if channels not in (1, 3):
            raise UserError(
                f"this generator makes latents of {channels} channels, not pixels: give their VAE (--vae, or with_vae), or use .latents"
            )
        return samples

    @property
    def pyramid(self) -> Pyramid:
        return build_pyramid(self.config)

    def to(
        self, device: str | torch.device | None = None, precision: str | None = None, backend: Backend | None = None
    ) -> CATPipeline:
        """Move to a device (auto, cpu, cuda, cuda:N), compute in float32 or bfloat16, or by another of `catgan.sampling.backends`
        (eager, compile, openvino). Returns self. Raises UserError for one that is not there."""
        moved = self.device if device is None else pick_device(str(device))
        check_backend(backend or self.backend, moved)
        self.synthesize, self.device, self.backend = None, moved, backend or self.backend
        self.generator.to(moved)
        if precision is not None:
            require(precision in ("float32", "bfloat16"), "precision", precision, "float32 or bfloat16")
            self.precision = precision
        if self.loaded_vae is not None:
            self.loaded_vae.to(self.device, self.precision)
        return self

    def fingerprint(self) -> str:
        """A digest of the weights and buffers: equal for equal generators."""
        return fingerprint(self.generator)

    def class_numbers(self, classes: int | str | Iterable[int | str]) -> list[int]:
        """One class or several, by number or name, as numbers. Raises UserError for one that is not there."""
        numbers = []
        for c in (classes,) if isinstance(classes, (str, int, Integral)) else classes:
            if isinstance(c, str) and c in self.class_names:
                numbers.append(self.class_names.index(c))
            elif (isinstance(c, Integral) or str(c).isdecimal()) and 0 <= int(c) < self.config.sample.classes:
                numbers.append(int(c))
            else:
                names = ", ".join(self.class_names[:12]) + (", ..." if len(self.class_names) > 12 else "")
                raise UserError(
                    f"class is {c}: must be a number from 0 to {self.config.sample.classes - 1} or one of {names}"
                )
        return numbers

    def class_name(self, number: int) -> str:
        """The name of a class; its number, if the data had no such class."""
        return self.class_names[number] if number < len(self.class_names) else str(number)

    def style(
        self,
        classes: int | str | Iterable[int | str],
        seeds: int | Sequence[int],
        psi: float = 1.0,
        z: Tensor | None = None,
    ) -> Tensor:
        """w of each (class, seed), truncated, (n, d). One class or one seed goes with all of the other."""
        numbers = self.class_numbers(classes)
        seeds = (int(seeds),) if isinstance(seeds, (int, Integral)) else seeds
        if not numbers or (z is None and not len(seeds)):
            raise UserError("no classes or no seeds: give at least one of each")
        given = len(seeds) if z is None else len(z)
        count = max(len(numbers), given)
        if not {len(numbers), given} <= {1, count}:
            raise UserError(
                f"{counted(len(numbers), 'class', 'classes')} and {counted(given, 'seed')}: must be equally many, or one of either"
            )
        numbers = numbers * count if len(numbers) == 1 else numbers
        if z is None:
            z = sample_z([check_seed(s) for s in seeds], self.generator.z_dim)
        elif z.ndim != 2 or z.shape[1] != self.generator.z_dim:
            raise UserError(f"z has shape {tuple(z.shape)}: must be (n, {self.generator.z_dim})")
        z, y = z.to(self.device).expand(count, -1), torch.tensor(numbers, device=self.device)
        with torch.no_grad():
            return self.generator.truncate(self.generator.style(z, y), y, check_psi(psi))

    @torch.no_grad()
    def __call__(
        self,
        classes: int | str | Iterable[int | str] = (0,),
        seeds: int | Sequence[int] = (0,),
        *,
        psi: float = 1.0,
        z: Tensor | None = None,
        w: Tensor | None = None,
        stages: bool = False,
        batch_size: int = 64,
    ) -> Samples:
        """Generate one sample per (class, seed).

        Sample i depends on its class and seed alone, up to rounding. z: (n, z_dim) instead of seeds. w: (n, d)
        instead of classes, seeds and psi. psi in [0, 1] pulls w towards the class mean; 1 does not.
        stages: keep h_0..h_K too. Raises UserError for unknown classes, bad seeds, psi or shapes.
        """
        require(batch_size >= 1, "batch_size", batch_size, "at least 1")
        if w is None:
            w = self.style(classes, seeds, psi, z)
        elif w.ndim != 2 or w.shape[1] != self.generator.width:
            raise UserError(f"w has shape {tuple(w.shape)}: must be (n, {self.generator.width})")
        if self.synthesize is None:
            self.synthesize = synthesizer(self.generator, self.backend, self.precision)
        parts = [self.synthesize(part, stages).float().cpu() for part in w.to(self.device).split(batch_size)]
        made = torch.cat(parts, dim=1 if stages else 0)
        return Samples(made[-1], made, self.decode) if stages else Samples(made, None, self.decode)


def load(path: str | Path, weights: str = "ema", vae: str | Path | VAE | None = None) -> CATPipeline:
    """Load a generator from a run directory (its latest checkpoint), a checkpoint or an exported folder, onto the CPU.

    Or one that comes with catgan, by its name (`catgan models`). weights: "ema" (EMA) or "generator" (raw; not exported).
    vae: in place of the one that the configuration names. Raises UserError if there is nothing to load.
    """
    require(weights in ("ema", "generator"), "weights", weights, "ema or generator")
    source, header, stored = opened(Path(path))
    if weights != "ema" and is_export(source):
        raise UserError(f"weights is {weights}: {path} is an exported model, which has averaged weights only")
    generator = build_generator(header.config)
    load_network(generator, stored, weights)
    pipe = CATPipeline(generator, header.config, header.class_names, header.step)
    pipe.weights, pipe.source = weights, source.absolute()
    return pipe if vae is None else pipe.with_vae(vae)


def load_discriminator(path: str | Path) -> Discriminator:
    """Load the discriminator of a run directory (its latest checkpoint), a checkpoint or an exported folder that has it.

    Onto the CPU, as it was trained: there is no average of it. Heads that were added to it are left out. Raises UserError
    if there is nothing to load.
    """
    _, header, stored = opened(Path(path), ("discriminator",))
    discriminator = build_discriminator(header.config)
    load_network(discriminator, stored, "discriminator", {name for name in stored if name.startswith(HEADS)})
    return discriminator.eval().requires_grad_(False)
