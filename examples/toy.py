"""The idea of CAT in a minute: stages that agree, on signals of 16 numbers (docs/toy.md tells what comes out).

    python examples/toy.py

Data are sums of random steps: signs held over 16, 8, 4 and 2 samples, the shorter the smaller. A generator puts out four
stages h_0..h_3, and at each of four resolutions a discriminator of its own judges one of them. Nothing says that the
four are stages of the same signal, until a consistency loss does. The file reads from top to bottom: data, networks,
training, measures. Losses, measures and random draws are the library's.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from catgan.draws import Purpose, sample_z, stream
from catgan.errors import UserError, require
from catgan.evaluation.alignment import alignment
from catgan.objective import approximate_penalty, consistency, relativistic
from catgan.objective.losses import stage_weights
from catgan.report.plots import figure
from catgan.system.files import write_bytes, write_text
from catgan.training import ema
from catgan.version import __version__
from toy_report import draw, table

SIZE, SCALES = 16, (2, 4, 8, 16)
Z_DIM, WIDTH = 32, 128
BATCH, PENALISED = 256, 64  # samples of a step; how many are under the penalties: a quarter, as in the paper
LEARNING_RATE, BETAS = 1e-3, (0.0, 0.99)
GAMMA, EPS = 0.1, 0.01  # weight of the penalties, and size of their perturbation
HALF_LIFE, WARMUP = 50, 0.05  # of the generator's average, in steps; at most 5 % of the steps so far
SAMPLES, HELD_OUT = 2000, 2**32  # samples of a measurement, and the seed of its real signals, which no training uses

# -- data --------------------------------------------------------------------------------------------------------------


def normal(seed: int, purpose: Purpose, position: int, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(stream(seed, purpose, position).standard_normal(shape, dtype=np.float32))


def uniform(seed: int, purpose: Purpose, position: int, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(stream(seed, purpose, position).random(shape, dtype=np.float32))


def signals(seed: int, position: int, count: int) -> Tensor:
    """Real signals (count, 16): over levels j = 0..3, 2^j random signs times 0.8^j, each held over 16 / 2^j samples,
    plus noise of standard deviation 0.05."""
    signs = torch.where(uniform(seed, Purpose.DATA_ORDER, position, (count, 15)) < 0.5, -1.0, 1.0)
    x = 0.05 * normal(seed, Purpose.POSTERIOR, position, (count, SIZE))
    for j, level in enumerate(signs.split((1, 2, 4, 8), dim=1)):
        x = x + 0.8**j * level.repeat_interleave(SIZE // 2**j, dim=1)
    return x


class Pyramid:
    """r_0..r_3, with the calls of catgan.pyramid.Pyramid: means over blocks, and back by holding them."""

    def __call__(self, h: Tensor) -> list[Tensor]:
        """Stages h (4, B, 16) to [r_0(h_0), ..., r_3(h_3)]. One signal (B, 16) stands for all stages, as real ones do."""
        stages = h.expand(len(SCALES), -1, -1)
        return [h_k.unflatten(-1, (size, -1)).mean(-1) for h_k, size in zip(stages, SCALES, strict=True)]

    def enlarge(self, x: Tensor) -> Tensor:
        """r_K: back to 16 samples."""
        return x.repeat_interleave(SIZE // x.shape[-1], dim=-1)


# -- networks ----------------------------------------------------------------------------------------------------------


class Generator(nn.Module):
    """f_k = MLP_k(f_{k-1}, z) and h_k = h_{k-1} + Linear_k(f_k): z (B, 32) to all stages (4, B, 16)."""

    def __init__(self) -> None:
        super().__init__()

        def mlp(inputs: int) -> nn.Module:
            return nn.Sequential(nn.Linear(inputs, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())

        self.first = mlp(Z_DIM)
        self.later = nn.ModuleList(mlp(WIDTH + Z_DIM) for _ in SCALES[1:])
        self.outputs = nn.ModuleList(nn.Linear(WIDTH, SIZE) for _ in SCALES)

    def forward(self, z: Tensor) -> Tensor:
        features = [self.first(z)]
        for block in self.later:
            features.append(block(torch.cat([features[-1], z], dim=1)))
        return torch.stack([out(f) for out, f in zip(self.outputs, features, strict=True)]).cumsum(0)


class Discriminator(nn.Module):
    """d_k = MLP_k(r_k(h_k)), a function of one scale alone: stages (4, B, 16) to logits (B, 4).

    The four networks are one batched product; short inputs are filled up with zeros.
    """

    def __init__(self) -> None:
        super().__init__()
        shapes = ((SIZE, WIDTH), (WIDTH, WIDTH), (WIDTH, 1))
        self.weights = nn.ParameterList(torch.empty(len(SCALES), n, m).uniform_(-(n**-0.5), n**-0.5) for n, m in shapes)
        self.biases = nn.ParameterList(torch.zeros(len(SCALES), 1, m) for _, m in shapes)
        self.pyramid = Pyramid()

    def forward(self, h: Tensor) -> Tensor:
        x = torch.stack([F.pad(x_k, (0, SIZE - x_k.shape[-1])) for x_k in self.pyramid(h)])
        x = torch.baddbmm(self.biases[0], x, self.weights[0])
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            x = torch.baddbmm(bias, F.silu(x), weight)
        return x.squeeze(-1).T


# -- training ----------------------------------------------------------------------------------------------------------


def train(weight: float, seed: int, steps: int, every: int) -> dict[str, Any]:
    """Train with consistency weight lambda; measure the averaged generator every few steps, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)  # for the initial weights; all other draws are keyed
    generator, discriminator = Generator(), Discriminator()
    average = ema.frozen_copy(generator)
    adam_g, adam_d = (
        torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, betas=BETAS, fused=True)
        for network in (generator, discriminator)
    )
    z_test, x_test = sample_z(range(SAMPLES), Z_DIM), signals(HELD_OUT, 0, SAMPLES)
    rows, began = [], time.process_time()  # CPU time, which is the time that one free core takes
    for step in range(steps):
        x = signals(seed, step, BATCH).expand(len(SCALES), -1, -1)
        h = generator(normal(seed, Purpose.Z, step, (BATCH, Z_DIM)))  # one set of fakes for both networks

        # Discriminator: at each scale real above fake, and flat around both (R1, R2). One pass for all four.
        n, m = (EPS * normal(seed, p, step, (PENALISED, SIZE)) for p in (Purpose.PENALTY_REAL, Purpose.PENALTY_FAKE))
        fakes = h.detach()
        views = [x, fakes, x[:, :PENALISED] + n, fakes[:, :PENALISED] + m]
        real, fake, real_near, fake_near = discriminator(torch.cat(views, dim=1)).split([v.shape[1] for v in views])
        r1 = approximate_penalty(real[:PENALISED], real_near, EPS).mean()
        r2 = approximate_penalty(fake[:PENALISED], fake_near, EPS).mean()
        loss = relativistic(real, fake).mean() + GAMMA / 2 * (r1 + r2)
        adam_d.zero_grad()
        loss.backward()
        adam_d.step()

        # Generator: at each scale fake above real, and all stages near the last one (equations 2 and 3).
        real, fake = discriminator(x), discriminator(h)
        loss = relativistic(fake, real).mean() + weight * consistency(h, stage_weights(len(SCALES))).mean()
        adam_g.zero_grad()
        loss.backward(inputs=list(generator.parameters()))
        adam_g.step()
        ema.update(average, generator, ema.decay(step + 1, HALF_LIFE, WARMUP))

        if (step + 1) % every == 0 or step + 1 == steps:
            with torch.no_grad():
                h = average(z_test)
            rows.append({"step": step + 1, **measure(h, x_test)})
    seconds = time.process_time() - began
    seen = [Pyramid().enlarge(x_k)[:4].tolist() for x_k in Pyramid()(h)]  # four samples, as the discriminator sees them
    return {"lambda": weight, "seed": seed, "CPU seconds": seconds, "rows": rows, "stages": seen}


# -- measures ----------------------------------------------------------------------------------------------------------


def measure(h: Tensor, x: Tensor) -> dict[str, float]:
    """Equation 1 for stages h (4, B, 16), means over samples, and the squared MMD of h_3 to real signals x (B, 16).

    A_2 is left out: it is 1 by definition.
    """
    values = {name: v.mean(0).tolist() for name, v in alignment(h, Pyramid()).items()}
    shown = {f"{name}_{k}": v for name in ("excess", "R", "A") for k, v in enumerate(values[name])}
    del shown["A_2"]
    return shown | {"MMD^2": mmd2(h[-1], x)}


def mmd2(fake: Tensor, real: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of two sets (n, 16), about 0 if they have one distribution.

    The kernel is Gaussian, its bandwidth the median distance of two real signals.
    """
    n, bandwidth = len(real), torch.pdist(real).median()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(a, b).square() / (2 * bandwidth**2))

    within = (kernel(fake, fake).sum() + kernel(real, real).sum() - 2 * n) / (n * (n - 1))
    return float(within - 2 * kernel(fake, real).mean())


# -- the whole ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    seeds: int = 3
    """Trainings for each consistency weight."""
    steps: int = 1250
    """Steps of a training."""
    every: int = 125
    """Steps between measurements."""
    consistency: tuple[float, ...] = (0.0, 0.1)
    """Consistency weights lambda to compare."""
    jobs: int = 2
    """Trainings at a time, a thread each."""
    out: Path = Path("runs/toy")
    """Folder for toy.png and toy.json."""


def run(o: Options) -> None:
    """Train all, print the table, write toy.png and toy.json."""
    for name in ("seeds", "steps", "every", "jobs"):
        require(getattr(o, name) >= 1, f"--{name}", getattr(o, name), "at least 1")
    require(len(o.consistency) >= 1 and min(o.consistency) >= 0, "--consistency", o.consistency, "weights of 0 or more")
    figure(1)  # raises UserError now, not after the training, if matplotlib is missing
    jobs = [(w, seed, o.steps, o.every) for w, seed in product(o.consistency, range(o.seeds))]
    print(f"{len(jobs)} trainings of {o.steps} steps, {min(o.jobs, len(jobs))} at a time", flush=True)
    runs = []
    with ProcessPoolExecutor(o.jobs, get_context("spawn")) as pool:
        for result in pool.map(train, *zip(*jobs, strict=True)):
            runs.append(result)
            print(f"lambda {result['lambda']:g}, seed {result['seed']}: {result['CPU seconds']:.0f} s", flush=True)
    x = signals(HELD_OUT, 1, SAMPLES)
    data = measure(x.expand(len(SCALES), -1, -1), signals(HELD_OUT, 0, SAMPLES))
    print(table(runs, data))
    versions = {"catgan": __version__, "torch": torch.__version__, "python": platform.python_version()}
    settings = {n: v for n, v in asdict(o).items() if n != "out"}
    record = {"versions": versions, "settings": settings, "data": data, "runs": runs}
    write_text(o.out / "toy.json", json.dumps(record) + "\n")
    write_bytes(o.out / "toy.png", draw(runs, data))
    print(f"wrote {o.out / 'toy.png'} and {o.out / 'toy.json'}")


if __name__ == "__main__":
    try:
        run(tyro.cli(Options, description=__doc__))
    except UserError as error:
        sys.exit(f"toy.py: error: {error}")
