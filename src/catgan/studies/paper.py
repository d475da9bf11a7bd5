"""The studies at the paper's scale: ImageNet-256 in latents, on GPUs. Nothing of this has been run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from catgan.accounting.gpus import GPUS
from catgan.accounting.plan import plan
from catgan.config import Config
from catgan.config_io import dump_yaml, load_yaml, with_values
from catgan.errors import UserError
from catgan.studies.design import Study, Variant
from catgan.system.files import write_text
from catgan.system.tables import aligned


@dataclass(frozen=True)
class PaperRun:
    study: Study
    variant: Variant
    seed: int
    base: Config

    @property
    def name(self) -> str:
        return f"{self.variant.study}/{self.variant.name}-{self.seed}"

    @property
    def config(self) -> Config:
        return self.variant.config(self.base, self.seed)


def paper_runs(study: Study, seeds: Sequence[int] = ()) -> list[PaperRun]:
    """A run per variant and seed; one seed by default, for what it costs. Raises UserError for a study that has none."""
    if study.paper is None:
        raise UserError(f"study {study.name} has no runs at the paper's scale: its variants are made for its testbed")
    return [PaperRun(study, variant, seed, study.paper) for seed in seeds or (0,) for variant in study.variants]


def start(run: PaperRun, data: Callable[[Config], Config], out: Path) -> None:
    """Train it, or go on, as one of torchrun's processes; by its config.yaml, if `write` has made one.

    data: puts the data into a configuration.
    """
    from catgan.training.run import train

    written, folder = out / run.name / "config.yaml", out / run.name / "run"
    config = load_yaml(written) if written.exists() else run.config
    train(data(config), folder, resume=(folder / "config.yaml").exists())


def write(runs: Sequence[PaperRun], out: Path, gpus: int) -> str:
    """Per run OUT/STUDY/VARIANT-SEED/config.yaml and job.sbatch; returns a table of them, with hours on paper."""
    rows: list[Sequence[str]] = [("run", "steps", "GPU hours", "start it")]
    for run in runs:
        folder, config = out / run.name, run.config
        fastest = plan(config, GPUS["h100"], gpus)["fastest"]
        hours = "does not fit"
        if fastest:
            hours = f"{fastest['runs']['recipe']['gpu_hours']:,.0f}"
            layout = {
                "training.micro_batch": fastest["micro_batch"],
                "training.parallel": "fsdp2" if fastest["sharded"] else "ddp",
                "training.recompute": fastest["checkpointing"],
            }
            config = with_values(config, layout)
        write_text(folder / "config.yaml", dump_yaml(config))
        write_text(folder / "job.sbatch", batch_file(run, folder, gpus))
        rows.append((run.name, f"{config.training.steps:,}", hours, f"sbatch {folder / 'job.sbatch'}"))
    return (
        aligned(rows, (0, 3))
        + f"\n\nHours on {gpus} H100 by `catgan plan`: computed, not measured. Without SLURM, for example:\n"
        + command(runs[0], out / runs[0].name, gpus)
        + "\nLATENTS are what catgan prepare makes of ImageNet (docs/data.md); in the sbatch files change the lines that are marked."
    )


def arguments(run: PaperRun, folder: Path) -> list[str]:
    """Those of `catgan train`, without the data."""
    return [run.config.recipe, "--config", str(folder / "config.yaml"), "--out", str(folder / "run")]


def command(run: PaperRun, folder: Path, gpus: int) -> str:
    words = ["torchrun", "--nproc-per-node", str(gpus), "-m", "catgan", "train", *arguments(run, folder)]
    return shlex.join(words) + " --data LATENTS"


def batch_file(run: PaperRun, folder: Path, gpus: int) -> str:
    """A SLURM job on one machine, which goes on by itself after a preemption and at the end of its time."""
    words = shlex.join(arguments(run, folder.absolute()))
    return f"""\
#!/bin/bash
# {run.study.question} {run.variant.about}, seed {run.seed}. Change what is marked to your cluster; for several
# machines see docs/distributed.md.
#SBATCH --job-name={run.variant.study}-{run.variant.name}-{run.seed}
#SBATCH --nodes=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={8 * gpus}       # change
#SBATCH --time=24:00:00           # change
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={folder.absolute()}/job-%j.out
#SBATCH --signal=B:USR1@180

source .venv/bin/activate                  # change
data=/shared/imagenet-latents              # change: what catgan prepare made
arguments=({words} --data "$data")
if [[ -e {shlex.quote(str(folder.absolute() / "run" / "config.yaml"))} ]]; then
    arguments+=(--resume)
fi
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=150
stopped=
trap 'stopped=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
trap : TERM
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \\
    torchrun --nproc-per-node {gpus} --max-restarts 3 -m catgan train "${{arguments[@]}}" &
step=$!
while [[ $(jobs -pr) ]]; do
    wait "$step"
done
wait "$step"
code=$?
preempted() {{ scontrol show job "$SLURM_JOB_ID" | grep -q ' PreemptTime=[0-9]'; }}
if [[ $code != 0 ]] && {{ [[ $stopped ]] || preempted; }}; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
