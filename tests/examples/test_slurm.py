"""The job script for SLURM, with stand-ins for SLURM's commands and torchrun."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from catgan.cli.configuration import expand, split_own
from catgan.cli.train import OWN

SCRIPT = Path(__file__).parents[2] / "examples" / "slurm.sbatch"
COMMANDS = {
    "scontrol": "printf 'node1\\nnode2\\n'",
    "srun": 'while [[ $1 == --* ]]; do shift; done; "$@"',
    "torchrun": 'printf "%s\\n" "$@" > started',
}


def started(folder: Path) -> list[str]:
    """What torchrun was called with."""
    for name, body in {
        ".venv/bin/activate": "",
        **{f"bin/{n}": f"#!/bin/bash\n{b}\n" for n, b in COMMANDS.items()},
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)
        path.chmod(0o755)
    slurm = {"JOB_NODELIST": "node[1-2]", "CPUS_PER_TASK": "64", "NNODES": "2", "GPUS_ON_NODE": "8", "JOB_ID": "7"}
    environment = {f"SLURM_{name}": value for name, value in slurm.items()}
    environment["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(["bash", SCRIPT], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (folder / "started").read_text().split()


def test_a_run_is_started_on_all_machines_and_resumed_where_it_began(tmp_path: Path) -> None:
    arguments = started(tmp_path)
    assert arguments[: arguments.index("-m")][:4] == ["--nnodes", "2", "--nproc-per-node", "8"]
    assert "node1:29400" in arguments
    own, options = split_own(arguments[arguments.index("train") + 2 :], "train", OWN)
    assert (own.data, own.out, own.resume) == ("/shared/imagenet-latents", "runs/cat-h2", False)
    assert [expand(o) for o in options] == ["--training.micro-batch", "32"]
    (tmp_path / "runs" / "cat-h2").mkdir(parents=True)
    (tmp_path / "runs" / "cat-h2" / "config.yaml").touch()
    assert started(tmp_path)[-1] == "--resume"
