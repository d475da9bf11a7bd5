"""The job scripts for SLURM, with stand-ins for SLURM's commands and torchrun, and with sbatch where it is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from catgan.cli.configuration import expand, split_own
from catgan.cli.train import OWN
from catgan.studies.catalogue import AGAINST_GAT
from catgan.studies.paper import batch_file, paper_runs

SCRIPT = Path(__file__).parents[2] / "examples" / "slurm.sbatch"
COMMANDS = {
    "scontrol": 'case "$1 $2" in requeue*) touch requeued ;; *hostnames) printf \'node1\\nnode2\\n\' ;; *) echo "$STATE" ;; esac',
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scancel": 'kill -TERM "$(< step)"',
    "torchrun": 'printf "%s\\n" "$@" > started; [[ ! $STAYS ]] || { echo $$ > step.new; mv step.new step; exec sleep 60; }',
}


@pytest.fixture(params=["example", "paper"])
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The one of examples/, or one that `catgan reproduce --scale paper` writes."""
    if request.param == "example":
        return SCRIPT
    path = tmp_path / "job.sbatch"
    path.write_text(batch_file(paper_runs(AGAINST_GAT)[0], tmp_path, 8))
    return path


def start(script: Path, folder: Path, **more: str) -> subprocess.Popen[str]:
    """The script as SLURM runs it on the first of two machines, in `folder`, where the stand-ins leave what they were told."""
    for name, body in {
        ".venv/bin/activate": "",
        **{f"bin/{n}": f"#!/bin/bash\n{b}\n" for n, b in COMMANDS.items()},
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)
        path.chmod(0o755)
    slurm = {"JOB_NODELIST": "node[1-2]", "CPUS_PER_TASK": "64", "NNODES": "2", "GPUS_ON_NODE": "8", "JOB_ID": "7"}
    environment = {f"SLURM_{name}": value for name, value in slurm.items()} | more
    environment["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"
    return subprocess.Popen(["bash", script], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def started(folder: Path) -> list[str]:
    """What torchrun was called with."""
    job = start(SCRIPT, folder)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 0, said
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


@pytest.mark.parametrize(
    ("script_is_told", "step_is_told", "preempted", "queued"),
    [
        pytest.param(signal.SIGUSR1, None, "None", True, id="end-of-time"),
        pytest.param(signal.SIGTERM, signal.SIGTERM, "None", False, id="scancel"),
        pytest.param(None, signal.SIGTERM, "2026-11-26T16:43:53", True, id="preemption"),
        pytest.param(None, signal.SIGKILL, "None", False, id="fault"),
    ],
)
def test_a_job_returns_after_a_preemption_and_the_end_of_its_time_alone(
    script: Path,
    script_is_told: signal.Signals | None,
    step_is_told: signal.Signals | None,
    preempted: str,
    queued: bool,
    tmp_path: Path,
) -> None:
    """Whom SLURM tells what, and its words for a job's state, are those of SLURM 22.05."""
    state = f"   PreemptEligibleTime=2026-11-26T16:43:47 PreemptTime={preempted}"
    job = start(script, tmp_path, STAYS="yes", STATE=state)
    step = tmp_path / "step"
    try:
        while not step.exists():
            assert job.poll() is None
            time.sleep(0.01)
        if script_is_told:
            job.send_signal(script_is_told)
        if step_is_told:
            os.kill(int(step.read_text()), step_is_told)
        _, said = job.communicate(timeout=60)
    finally:
        job.kill()
        with suppress(FileNotFoundError, ProcessLookupError):  # unless it has ended
            os.kill(int(step.read_text()), signal.SIGKILL)
    assert job.returncode == 128 + (step_is_told or signal.SIGTERM), said
    assert (tmp_path / "requeued").exists() == queued


@pytest.mark.skipif(not shutil.which("sbatch"), reason="SLURM is not installed here")
def test_slurm_accepts_the_script(script: Path) -> None:
    if subprocess.run(["scontrol", "ping"], capture_output=True).returncode:
        pytest.skip("no controller of SLURM answers here")
    small = ("--nodes=1", "--gpus-per-node=0", "--cpus-per-task=1", "--time=1")  # in place of what the script asks for
    done = subprocess.run(["sbatch", "--test-only", *small, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
