"""One iteration of CAT: a discriminator step, then a generator step (paper A.1 and A.2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from catgan.config import Config
from catgan.data.features import StoredFeatures
from catgan.draws import Purpose, normal, uniform
from catgan.encoders import Encoder
from catgan.generator import Generator
from catgan.images import from_bytes
from catgan.networks import build_generator, build_networks, penalised_samples
from catgan.objective.augment import PARAMETERS, augment, register
from catgan.objective.representation import as_tokens
from catgan.objective.terms import Objective, StepState, Term
from catgan.pyramid import Pyramid, resize
from catgan.system.devices import check_compiler, memory_error
from catgan.system.processes import Processes
from catgan.training import ema
from catgan.training.parallel import Parallel, full_tensor

Metrics = dict[str, Tensor]


def build_optimizer(config: Config, network: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW as the recipe says."""
    o = config.optimizer
    return torch.optim.AdamW(
        network.parameters(), lr=learning_rate, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay, fused=True
    )


# The uniform numbers that each network's step draws for its views of real samples and fakes.
AUGMENTATIONS = {
    "discriminator": (Purpose.AUGMENT_REAL_D, Purpose.AUGMENT_FAKE_D),
    "generator": (Purpose.AUGMENT_REAL_G, Purpose.AUGMENT_FAKE_G),
}


@dataclass
class MicroBatch:
    """Some consecutive samples of a global batch and their share of its draws."""

    step: int
    x: Tensor
    y: Tensor
    z: Tensor
    draws: dict[Purpose, Tensor]
    penalised: Tensor  # local indices
    noise: dict[Purpose, list[Tensor]]  # perturbations of the penalised samples: one at full size, or one per scale
    images: Tensor | None = None  # raw images of x, for the encoder
    last: bool = True  # of this process's samples: the processes exchange gradients after it


class Step:
    """The networks, their optimisers and the average, and how one iteration changes them.

    encoder: a frozen one on the same device, for a discriminator with a representation head.
    parallel: the processes that share every batch; by default this one alone.
    """

    def __init__(
        self,
        config: Config,
        objective: Objective,
        device: torch.device,
        encoder: Encoder | None = None,
        parallel: Parallel | None = None,
    ) -> None:
        self.config, self.objective, self.device, self.encoder = config, objective, device, encoder
        self.parallel = parallel or Parallel(Processes(), device)
        begin, end = self.parallel.share(config.training.batch)
        self.reuses_fakes = replace(config, training=replace(config.training, batch=end - begin)).reuses_fakes
        generator, discriminator = build_networks(config)
        self.generator, self.discriminator = generator.to(device), discriminator.to(device)
        self.ema = ema.frozen_copy(self.generator)
        if encoder is None and self.discriminator.representation is not None:
            self.discriminator.representation.requires_grad_(False)  # it would never get a gradient
        for network in (self.generator, self.discriminator):
            network.recompute = config.training.recompute
        for network in (self.generator, self.discriminator, self.ema):
            self.parallel.shard(network)
        self.trained = {
            "generator": self.parallel.wrap(self.generator),
            "discriminator": self.parallel.wrap(self.discriminator),
        }
        self.judging = [p for p in self.discriminator.parameters() if p.requires_grad]
        self.optimizers = {
            "generator": build_optimizer(config, self.generator, config.optimizer.lr_generator),
            "discriminator": build_optimizer(config, self.discriminator, config.optimizer.lr_discriminator),
        }
        self.pyramid = Pyramid(config.sample.scales, config.sample.down, config.sample.up)
        self.fakes: Tensor | None = None  # h of the last generator step, for the diagnostics
        if config.training.compile:
            check_compiler(device, "training.compile is true", "set it to false")
            from catgan.nn.compiling import compile_blocks

            # Of several sizes of micro-batch, all but the first have a graph for any size, which takes longer to make.
            dynamic = None if config.training.micro_batch else False
            compile_blocks(self.generator, self.discriminator, dynamic=dynamic)

    def autocast(self) -> AbstractContextManager[None]:
        bfloat16 = self.config.training.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bfloat16)

    # -- one iteration -------------------------------------------------------------------------------------------

    def run(self, step: int, x: Tensor, y: Tensor, images: Tensor | None = None) -> Metrics:
        """Iteration `step` (0, 1, ...) on real samples x (B, C, S, S) of classes y (B,), with an encoder also their raw
        images, uint8 (B, 3, P, P); of several processes, each gives its share of them. Returns scalars and vectors over
        scales, of the whole batch; nothing here waits for the device."""
        metrics: Metrics = {}
        norms: Metrics = {}
        reused: tuple[Tensor, Tensor] | None = None
        for part in self.micro_batches("discriminator", step, x, y, images):
            self.parallel.set_gradient_sync(self.trained["discriminator"], part.last)
            if self.reuses_fakes:
                reused = self.generate_with_gradient(part.z, part.y)
                h = reused[1].detach()
            else:
                h = self.generate_without_gradient(part.z, part.y)
            self.accumulate_gradients("discriminator", self.discriminator_state(part, h), metrics)
        self.update("discriminator", norms)

        styles, fakes = [], []
        self.freeze(True)
        try:
            for part in self.micro_batches("generator", step, x, y):
                self.parallel.set_gradient_sync(self.trained["generator"], part.last)
                w, h = reused if reused is not None else self.generate_with_gradient(part.z, part.y)
                self.accumulate_gradients("generator", self.generator_state(part, h), metrics)
                styles.append(w.detach())
                fakes.append(h.detach())
        finally:
            self.freeze(False)
        self.update("generator", norms)

        self.generator.update_style_mean(self.parallel.gather(torch.cat(styles)), self.parallel.gather(y))
        o = self.config.optimizer
        ema.update(self.ema, self.generator, ema.decay(step + 1, o.ema_half_life, o.ema_warmup))
        self.fakes = torch.cat(fakes, dim=1)
        return self.parallel.sum(metrics) | norms

    def fits(self, x: Tensor, y: Tensor, images: Tensor | None = None) -> bool:
        """Whether gradients for these few samples fit into memory. Changes no weight."""
        try:
            part = next(self.micro_batches("discriminator", 0, x, y, images))
            h = self.generate_with_gradient(part.z, part.y)[1]
            self.accumulate_gradients("discriminator", self.discriminator_state(part, h.detach()), {})
            part = next(self.micro_batches("generator", 0, x, y))
            self.accumulate_gradients("generator", self.generator_state(part, h), {})
            return True
        except (RuntimeError, MemoryError) as error:
            if not memory_error(error):
                raise
            return False
        finally:
            for optimizer in self.optimizers.values():
                optimizer.zero_grad(set_to_none=True)

    def micro_batches(
        self, network: str, step: int, x: Tensor, y: Tensor, images: Tensor | None = None
    ) -> Iterator[MicroBatch]:
        """Draw all numbers of a network's step for the whole batch, then hand out slices of this process's share."""
        c, seed, batch = self.config, self.config.training.seed, len(x) * self.parallel.processes.world
        begin, end = self.parallel.share(batch)
        size = c.training.micro_batch or len(x)
        fresh_z = network == "generator" and c.objective.fresh_z
        z = normal(seed, Purpose.Z_GENERATOR if fresh_z else Purpose.Z, step, (batch, c.generator.z_dim))
        draws = {p: uniform(seed, p, step, (batch, PARAMETERS)) for p in AUGMENTATIONS[network]}
        penalised = penalised_samples(batch, c.objective.penalty_fraction)
        perturbs = network == "discriminator" and self.objective.penalises
        purposes = (Purpose.PENALTY_REAL, Purpose.PENALTY_FAKE) if perturbs else ()
        noise = {p: self.perturbations(p, step, len(penalised)) for p in purposes}
        for start in range(begin, end, size):
            stop = min(start + size, end)
            here = slice(start - begin, stop - begin)
            mine = (penalised >= start) & (penalised < stop)
            yield MicroBatch(
                step,
                x[here],
                y[here],
                self.to_device(z[start:stop]),
                {p: self.to_device(u[start:stop]) for p, u in draws.items()},
                (penalised[mine] - start).to(self.device),
                {p: [self.to_device(n[mine]) for n in scales] for p, scales in noise.items()},
                None if images is None else images[here],
                last=stop == end,
            )

    def perturbations(self, purpose: Purpose, step: int, count: int) -> list[Tensor]:
        """Noise for all penalised samples of the batch: one (count, C, S, S), or one of each scale's size."""
        s, per_scale = self.config.sample, self.config.objective.penalty_noise == "per_scale"
        sizes = s.scales if per_scale else (s.size,)
        areas = [size * size for size in sizes]
        noise = normal(self.config.training.seed, purpose, step, (count, s.channels, sum(areas)))
        return [n.unflatten(2, (size, size)) for n, size in zip(noise.split(areas, 2), sizes, strict=True)]

    def to_device(self, draw: Tensor) -> Tensor:
        return draw.to(self.device, self.generator.positions.dtype, non_blocking=True)

    def generate_with_gradient(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Styles w (n, d) and stages h (K + 1, n, C, S, S), to be trained."""
        with self.autocast():
            w, h = self.trained["generator"](z, y, all_stages=True, with_style=True)
        return w, h

    @torch.no_grad()
    def generate_without_gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """Stages h (K + 1, n, C, S, S) without gradient."""
        with self.autocast():
            h: Tensor = self.generator(z, y, all_stages=True)
        return h

    def freeze(self, frozen: bool) -> None:
        """Whether the discriminator's parameters go without gradient."""
        for parameter in self.judging:
            parameter.requires_grad_(not frozen)

    # -- what each step shows to the discriminator -----------------------------------------------------------------

    def discriminator_state(self, part: MicroBatch, h: Tensor) -> StepState:
        """One packed pass over real samples, fakes, and the perturbed twins of the penalised ones."""
        n, chosen = len(part.y), part.penalised
        u_real, u_fake = part.draws[Purpose.AUGMENT_REAL_D], part.draws[Purpose.AUGMENT_FAKE_D]
        views = [self.view(part.x, u_real), self.view(h, u_fake)]
        labels = [part.y, part.y]
        penalises = self.objective.penalises
        if penalises:
            views.append(self.perturbed_view(part.x, u_real, chosen, part.noise[Purpose.PENALTY_REAL]))
            views.append(self.perturbed_view(h, u_fake, chosen, part.noise[Purpose.PENALTY_FAKE]))
            labels += [part.y[chosen]] * 2
        pyramid, represented = [torch.cat(scale) for scale in zip(*views, strict=True)], None
        with self.autocast():
            if self.encoder is None:
                logits = self.trained["discriminator"](pyramid, torch.cat(labels))
            else:
                logits, represented = self.trained["discriminator"](pyramid, torch.cat(labels), represented=n)
        m = len(chosen) if penalises else 0
        real, fake, real_perturbed, fake_perturbed = logits.split([n, n, m, m])
        target = None if part.images is None else self.encoded(part.images, u_real)
        return StepState(
            part.step, part.y, part.x, h, real, fake, chosen, real_perturbed, fake_perturbed, represented, target
        )

    @torch.no_grad()
    def encoded(self, images: Tensor, u: Tensor) -> Tensor:
        """The encoder's features of raw images, moved and mirrored as the samples of the same u: (n, 1 + T_K, D)."""
        c = self.config
        assert self.encoder is not None
        if not isinstance(self.encoder, StoredFeatures):
            seen = resize(from_bytes(images, u.dtype), c.encoder.size, "bicubic", "bicubic")
            images = register(seen, u, c.augment, c.sample.size)
        with self.autocast():
            cls, patches = self.encoder.encode(images)
        return as_tokens(cls, patches, c.sample.scales[-1] // c.discriminator.patches[-1])

    def generator_state(self, part: MicroBatch, h: Tensor) -> StepState:
        """Fakes with gradient through the frozen discriminator, real samples without."""
        with self.autocast():
            with torch.no_grad():
                real = self.discriminator(self.view(part.x, part.draws[Purpose.AUGMENT_REAL_G]), part.y)
            fake = self.discriminator(self.view(h, part.draws[Purpose.AUGMENT_FAKE_G]), part.y)
        return StepState(part.step, part.y, part.x, h, real, fake, part.penalised)

    def view(self, samples: Tensor, u: Tensor) -> list[Tensor]:
        """Augment at full size, then resize: what the discriminator sees."""
        return self.pyramid(augment(samples, u, self.config.augment))

    def perturbed_view(self, samples: Tensor, u: Tensor, chosen: Tensor, noise: list[Tensor]) -> list[Tensor]:
        """The view of the chosen samples plus eps * noise, under the very same augmentation."""
        eps, policy = self.config.objective.penalty_eps, self.config.augment
        samples = samples[..., chosen, :, :, :]
        anchor = samples if samples.ndim == 4 else samples[-1]
        if self.config.objective.penalty_noise == "full":
            return self.pyramid(augment(samples + eps * noise[0], u[chosen], policy, anchor))
        clean = self.pyramid(augment(samples, u[chosen], policy, anchor))
        return [x + eps * n for x, n in zip(clean, noise, strict=True)]

    # -- losses and updates ----------------------------------------------------------------------------------------

    def accumulate_gradients(self, network: str, state: StepState, metrics: Metrics) -> None:
        """Add this micro-batch's share of the batch's gradients, and of its metrics."""
        terms: tuple[Term, ...] = getattr(self.objective, network)
        batch = self.config.training.batch
        counts = {"batch": batch, "penalised": len(penalised_samples(batch, self.config.objective.penalty_fraction))}
        loss: Tensor | float = 0.0
        for term in terms:
            values = term.function(state)
            values = values.flatten(1) if values.ndim > 1 else values[:, None]
            share = values.sum(0) / counts[term.over]
            loss = loss + term.weight_at(state.step) * share.mean()
            accumulate(metrics, f"{network}/{term.name}", share)
        assert isinstance(loss, Tensor)
        self.parallel.backward(loss)
        accumulate(metrics, f"{network}/loss", loss)
        if network == "discriminator":
            accumulate(metrics, "logits/real", state.real.sum(0) / batch)
            accumulate(metrics, "logits/fake", state.fake.sum(0) / batch)

    def update(self, network: str, norms: Metrics) -> None:
        """Clip, step, forget the gradients. Their norm before the clipping goes into `norms`."""
        optimizer = self.optimizers[network]
        parameters = optimizer.param_groups[0]["params"]
        norms[f"{network}/gradient_norm"] = full_tensor(
            nn.utils.clip_grad_norm_(parameters, self.config.optimizer.clip)
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def whole_ema(self) -> Generator:
        """The averaged generator with all its weights. Under FSDP2 a copy, for which all processes must call this."""
        if not self.parallel.sharded:
            return self.ema
        average = build_generator(self.config).to(self.device).requires_grad_(False).eval()
        average.load_state_dict({name: full_tensor(t) for name, t in self.ema.state_dict().items()})
        return average


def accumulate(metrics: Metrics, name: str, value: Tensor) -> None:
    metrics[name] = metrics[name] + value.detach() if name in metrics else value.detach()
