"""One iteration of CAT: a discriminator step, then a generator step (paper A.1 and A.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from catgan.config import Config
from catgan.discriminator import Judgement
from catgan.generator import Generator
from catgan.networks import build_generator, build_networks, build_pyramid
from catgan.objective.choice import default_supervision
from catgan.objective.identity import recorded
from catgan.objective.supervision import Network, Supervision
from catgan.objective.terms import VISION, Objective, StepState, Term, default_objective
from catgan.schedules import rate
from catgan.system.devices import KeptConstants, check_compiler, memory_error, tensor_float32
from catgan.system.processes import Processes
from catgan.training import ema
from catgan.training.graph import Metrics, StepGraph
from catgan.training.microbatches import MicroBatch, MicroBatches
from catgan.training.optimizer import build_optimizer
from catgan.training.parallel import Parallel, full_tensor
from catgan.training.target import RepresentationTarget

NETWORKS: tuple[Network, Network] = ("discriminator", "generator")  # in the order of their steps
# Squared lengths, per stage, of the gradient at h of the consistency loss and of all other losses.
PULLS = ("generator/pull", "generator/rest")


class Step:
    """The networks, their optimisers and the average, and how one iteration changes them.

    target: what the representation head is trained towards, on the same device. parallel: the processes that share
    every batch; by default this one alone. supervision: what the discriminator is shown; by default what
    objective.supervision names.
    heads: more modules that are trained with the discriminator, see `Discriminator.add_heads`.
    """

    def __init__(
        self,
        config: Config,
        objective: Objective,
        device: torch.device,
        target: RepresentationTarget | None = None,
        parallel: Parallel | None = None,
        supervision: Supervision | None = None,
        heads: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.config, self.objective, self.device, self.target = config, objective, device, target
        self.parallel = parallel or Parallel(Processes(), device)
        self.supervision = supervision or default_supervision(config)
        self.pyramid = build_pyramid(config)
        self.micro_batches = MicroBatches(config, self.supervision, self.parallel, objective.penalises)
        self.precise_penalties = objective.penalises and config.precise_penalties
        self.reuses_fakes = config.reuses_fakes(self.parallel.processes.world)

        generator, discriminator = build_networks(config)
        discriminator.add_heads(heads or {})
        self.generator, self.discriminator = generator.to(device), discriminator.to(device)
        self.ema = ema.frozen_copy(self.generator)
        if target is None and self.discriminator.representation is not None:
            self.discriminator.representation.requires_grad_(False)  # it would never get a gradient
        for network in (self.generator, self.discriminator):
            network.recompute = config.training.recompute
        # FSDP2 has one number format for a block. The discriminator's judge penalised samples in float32, others not.
        gathered = torch.bfloat16 if config.training.precision == "bfloat16" else None
        self.parallel.shard(self.generator, gathered)
        self.parallel.shard(self.discriminator, None if self.precise_penalties else gathered)
        self.parallel.shard(self.ema)
        self.wrapped = {  # what is called where gradients are to be added up over the processes
            "generator": self.parallel.wrap(self.generator),
            "discriminator": self.parallel.wrap(self.discriminator),
        }
        self.judging = [p for p in self.discriminator.parameters() if p.requires_grad]
        o = config.optimizer
        self.learning_rates = {"generator": o.lr_generator, "discriminator": o.lr_discriminator}
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        self.optimizers = {n: build_optimizer(config, networks[n], lr) for n, lr in self.learning_rates.items()}
        self.fakes: Tensor | None = None  # h of the last generator step, for the diagnostics
        self.scheduled: Mapping[str, float | Tensor] = self.schedule(0)  # what it says at this step
        self.constants: AbstractContextManager[Any] = nullcontext()
        self.graph: StepGraph | None = None
        custom = supervision is not None or bool(set(heads or {}) - {VISION})
        own = device.type == "cuda" and (custom or is_own(objective, config))
        if config.captures(device.type, self.parallel.processes.world, target is not None, own):
            self.graph, self.constants = StepGraph(self.iterate, self.optimizers.values(), device), KeptConstants()
        if config.compiles(device.type):
            check_compiler(device, "training.compile is true", "set it to false")
            from catgan.nn.compiling import compile_blocks  # and PyTorch's compiler, which takes seconds

            # Of several sizes of micro-batch, all but the first have a graph for any size, which takes longer to make.
            compile_blocks(self.generator, self.discriminator, dynamic=None if config.training.micro_batch else False)

    # -- one iteration -------------------------------------------------------------------------------------------

    def run(self, step: int, x: Tensor, y: Tensor, encoded: Tensor | None = None) -> Metrics:
        """Iteration `step` (0, 1, ...) on real samples x (B, C, S, S) of classes y (B,), with a representation target
        also what it reads for them; of several processes, each gives its share of them. Returns scalars and vectors
        over scales, of the whole batch; nothing here waits for the device.

        "generator/consistency_share" is, per stage, |g| / (|g| + |g'|) for the gradient g of the consistency loss at h and
        g' of all other losses.
        """
        if self.graph is not None:
            return self.graph.run(step, x, y, self.schedule(step))
        if self.parallel.reorders:
            self.parallel.reorders = False
            self.rehearse(step, x, y, encoded)
        return self.iterate(step, x, y, self.schedule(step), encoded)

    def rehearse(self, step: int, x: Tensor, y: Tensor, encoded: Tensor | None) -> None:
        """Compute the gradients of a step and forget them. Changes no weight.

        DDP packs gradients anew after its first backward pass, in the order in which they came. The sum over three or more
        processes depends on where a gradient lies: without this, the first step after resuming would round otherwise.
        """
        parts = partial(self.micro_batches, step=step, x=x, y=y, encoded=encoded)
        self.scheduled = self.schedule(step)
        with self.float32_products():
            reused = self.discriminator_step(parts("discriminator"), {})
            self.generator_step(parts("generator"), reused, {})
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def schedule(self, step: int) -> dict[str, float]:
        """The numbers that change from step to step: learning rates, weights of terms and of the old average."""
        o = self.config.optimizer
        factor = rate(o.lr_warmup, o.lr_decay, step)
        return (
            {f"{network}/rate": base * factor for network, base in self.learning_rates.items()}
            | {f"{n}/{t.name}": t.weight_at(step) for n in NETWORKS for t in getattr(self.objective, n)}
            | {"average": ema.decay(step + 1, o.ema_half_life, o.ema_warmup)}
        )

    def iterate(
        self,
        step: int | Tensor,
        x: Tensor,
        y: Tensor,
        scheduled: Mapping[str, float | Tensor],
        encoded: Tensor | None = None,
    ) -> Metrics:
        """`run` by the numbers of `schedule`: these and the step's may be tensors () on the device."""
        parts = partial(self.micro_batches, step=step, x=x, y=y, encoded=encoded)
        sums, norms = Metrics(), Metrics()
        self.scheduled = scheduled
        for network, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self.scheduled[f"{network}/rate"]
        with self.float32_products():
            reused = self.discriminator_step(parts("discriminator"), sums)
            self.update("discriminator", norms)
            w, self.fakes = self.generator_step(parts("generator"), reused, sums)
            self.update("generator", norms)

        self.generator.update_style_mean(self.parallel.gather(w), self.parallel.gather(y))
        ema.update(self.ema, self.generator, self.scheduled["average"])
        metrics = self.parallel.sum(sums)
        if PULLS[0] in metrics:
            pull, rest = (metrics.pop(name).sqrt() for name in PULLS)
            norms["generator/consistency_share"] = pull / (pull + rest).clamp_min(1e-30)
        return metrics | norms

    def discriminator_step(self, parts: Iterable[MicroBatch], sums: Metrics) -> tuple[Tensor, Tensor] | None:
        """The gradient, in the discriminator, of the mean over samples and scales k of

            L_D = f(d_k(x) - d_k(h)) + gamma / 2 * (R1_k(x) + R2_k(h)) + lambda_rep * L_rep(x)

        and of other terms, heads included. Returns styles and stages where the generator's step may use them again.
        """
        reused: tuple[Tensor, Tensor] | None = None
        for part in parts:
            self.parallel.set_gradient_sync(self.wrapped["discriminator"], part.last)
            if self.reuses_fakes:
                reused = self.generate_with_gradient(part.z, part.y)
                h = reused[1].detach()
            else:
                h = self.generate_without_gradient(part.z, part.y)
            self.accumulate_gradients("discriminator", self.discriminator_state(part, h), part.counts, sums)
        return reused

    def generator_step(
        self, parts: Iterable[MicroBatch], reused: tuple[Tensor, Tensor] | None, sums: Metrics
    ) -> tuple[Tensor, Tensor]:
        """The gradient, in the generator, of the mean over samples and scales k of

            L_G = f(d_k(h) - d_k(x)) + lambda * w_k |h_k - h_K|^2

        and of other terms, through the frozen discriminator. Returns styles w (B, d) and stages h (K + 1, B, C, S, S).
        """
        styles, fakes = [], []
        self.freeze_discriminator(True)
        try:
            for part in parts:
                self.parallel.set_gradient_sync(self.wrapped["generator"], part.last)
                w, h = reused or self.generate_with_gradient(part.z, part.y)
                self.accumulate_gradients("generator", self.generator_state(part, h), part.counts, sums)
                styles.append(w.detach())
                fakes.append(h.detach())
        finally:
            self.freeze_discriminator(False)
        return torch.cat(styles), torch.cat(fakes, dim=1)

    def fits(self, x: Tensor, y: Tensor, encoded: Tensor | None = None) -> bool:
        """Whether gradients for these few samples fit into memory. Changes no weight."""
        try:
            x, y, encoded = x.to(self.device), y.to(self.device), None if encoded is None else encoded.to(self.device)
            self.scheduled = self.schedule(0)
            with torch.compiler.set_stance("force_eager"):  # no graph for a size that may never be used
                part = next(self.micro_batches("discriminator", 0, x, y, encoded))
                h = self.generate_with_gradient(part.z, part.y)[1]
                self.accumulate_gradients("discriminator", self.discriminator_state(part, h.detach()), part.counts, {})
                part = next(self.micro_batches("generator", 0, x, y))
                self.accumulate_gradients("generator", self.generator_state(part, h), part.counts, {})
            return True
        except (RuntimeError, MemoryError) as error:
            if not memory_error(error):
                raise
            return False
        finally:
            for optimizer in self.optimizers.values():
                optimizer.zero_grad(set_to_none=True)

    # -- fakes, and what the discriminator makes of them -----------------------------------------------------------

    def autocast(self) -> AbstractContextManager[None]:
        bfloat16 = self.config.training.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bfloat16)

    def float32_products(self) -> AbstractContextManager[None]:
        """TensorFloat-32 as the penalties' precision has it, for forward and backward passes; without, as it is."""
        if not self.precise_penalties:
            return nullcontext()
        return tensor_float32(self.config.objective.penalty_precision == "tf32")

    def generate_with_gradient(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Styles w (n, d) and stages h (K + 1, n, C, S, S), to be trained."""
        with self.autocast():
            w, h = self.wrapped["generator"](z, y, all_stages=True, with_style=True)
        return w, h

    @torch.no_grad()
    def generate_without_gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """Stages h (K + 1, n, C, S, S) without gradient."""
        with self.autocast():
            h: Tensor = self.generator(z, y, all_stages=True)
        return h

    def discriminator_state(self, part: MicroBatch, h: Tensor) -> StepState:
        """One packed pass over real samples, fakes, and the perturbed twins of the penalised ones.

        Under bfloat16, rounding changes a logit by as much as the perturbation does, so penalised samples and twins are
        judged in float32 (objective.penalty_precision): each once, for the penalties and for all other terms.
        """
        n, chosen, see = len(part.y), part.draws.penalised, self.supervision
        views, classes = [see.real(part.x, part.draws), see.fake(h, part.draws)], [part.y, part.y]
        m = len(chosen) if self.objective.penalises else 0
        if self.objective.penalises:
            views += [see.real_perturbed(part.x, part.draws), see.fake_perturbed(h, part.draws)]
            classes += [part.y[chosen]] * 2
        precise: Tensor | None = None
        if self.precise_penalties:
            twins = torch.arange(2 * n, 2 * (n + m), device=chosen.device)
            precise = torch.cat([chosen, n + chosen, twins])
        packed = [torch.cat(tensors) for tensors in zip(*views, strict=True)]
        with self.autocast():
            judged: Judgement = self.wrapped["discriminator"](
                packed,
                torch.cat(classes),
                represented=0 if self.target is None else n,
                headed=2 * n,
                precise=precise,
            )
        real, fake, real_perturbed, fake_perturbed = judged.logits.split([n, n, m, m])
        return StepState(
            step=part.step,
            y=part.y,
            x=part.x,
            h=h,
            real=real,
            fake=fake,
            penalised=chosen,
            real_perturbed=real_perturbed,
            fake_perturbed=fake_perturbed,
            represented=judged.represented,
            target=self.target_tokens(part),
            real_heads={name: made[:n] for name, made in judged.heads.items()},
            fake_heads={name: made[n:] for name, made in judged.heads.items()},
        )

    @torch.no_grad()
    def target_tokens(self, part: MicroBatch) -> Tensor | None:
        """Features of the real samples' raw images, moved and mirrored like them: (n, 1 + T_K, D)."""
        if self.target is None or part.encoded is None:
            return None
        with self.autocast():
            return self.target.tokens(
                part.encoded, part.x.dtype, lambda images: self.supervision.register(images, part.draws)
            )

    def generator_state(self, part: MicroBatch, h: Tensor) -> StepState:
        """Fakes with gradient through the frozen discriminator, real samples without."""
        n, see = len(part.y), self.supervision
        with self.autocast():
            with torch.no_grad():
                real: Judgement = self.discriminator(see.real(part.x, part.draws), part.y, headed=n)
            fake: Judgement = self.discriminator(see.fake(h, part.draws), part.y, headed=n)
        return StepState(
            step=part.step,
            y=part.y,
            x=part.x,
            h=h,
            real=real.logits,
            fake=fake.logits,
            penalised=part.draws.penalised,
            real_heads=real.heads,
            fake_heads=fake.heads,
        )

    def freeze_discriminator(self, frozen: bool) -> None:
        """Whether the discriminator's parameters, those of its heads included, go without gradient."""
        for parameter in self.judging:
            parameter.requires_grad_(not frozen)

    # -- losses and updates ----------------------------------------------------------------------------------------

    def accumulate_gradients(
        self, network: Network, state: StepState, counts: Mapping[str, int], sums: Metrics
    ) -> None:
        """Add this micro-batch's share of the batch's gradients, and of its metrics.

        counts: how many samples of the whole batch a term's mean is over, by `Term.over`.
        """
        terms: tuple[Term, ...] = getattr(self.objective, network)
        loss: Tensor | float = 0.0
        pull: Tensor | None = None
        for term in terms:
            with self.constants:
                values = term.function(state)
            values = values.flatten(1) if values.ndim > 1 else values[:, None]
            share = values.sum(0) / counts[term.over]
            weighted = self.scheduled[f"{network}/{term.name}"] * share.mean()
            loss = loss + weighted
            if (network, term.name) == ("generator", "consistency") and weighted.requires_grad:
                (pull,) = torch.autograd.grad(weighted, state.h, retain_graph=True, allow_unused=True)
                state.h.retain_grad()
            add(sums, f"{network}/{term.name}", share)
        assert isinstance(loss, Tensor)
        self.parallel.backward(loss)
        if pull is not None and state.h.grad is not None:
            add(sums, PULLS[0], pull.square().sum((1, 2, 3, 4)))
            add(sums, PULLS[1], (state.h.grad - pull).square().sum((1, 2, 3, 4)))
            state.h.grad = None
        add(sums, f"{network}/loss", loss)
        if network == "discriminator":
            add(sums, "logits/real", state.real.sum(0) / counts["batch"])
            add(sums, "logits/fake", state.fake.sum(0) / counts["batch"])

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
        with torch.device("meta"):  # without initial weights
            average = build_generator(self.config)
        average = average.to_empty(device=self.device).requires_grad_(False).eval()
        for whole, part in zip(ema.tensors(average), ema.tensors(self.ema), strict=True):
            whole.copy_(full_tensor(part))
        return average


def is_own(objective: Objective, config: Config) -> bool:
    """Whether an objective computes anything else than the configuration's."""
    found, usual = (recorded(o, None, {}, None) for o in (objective, default_objective(config)))
    return found != usual


def add(sums: Metrics, name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value.detach() if name in sums else value.detach()
