from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from catgan.config_io import load_yaml
from catgan.errors import UserError
from catgan.studies.catalogue import AGAINST_GAT, DISCRIMINATOR, HIERARCHY, STUDIES
from catgan.studies.paper import paper_runs, write


def test_configurations_and_jobs_of_the_imagenet_runs_are_written(tmp_path: Path) -> None:
    said = write(paper_runs(AGAINST_GAT), tmp_path, 8)
    folder = tmp_path / "gat" / "gat-0"
    config = load_yaml(folder / "config.yaml")
    assert config.recipe == "gat-b2"
    assert config.objective.supervision == "noise_levels"
    assert config.training.micro_batch > 0
    assert "torchrun --nproc-per-node 8 -m catgan train cat-b2" in said
    assert "computed, not measured" in said
    subprocess.run(["bash", "-n", folder / "job.sbatch"], check=True)


def test_the_discriminators_are_compared_over_twelve_epochs(tmp_path: Path) -> None:
    small, large = (run.config for run in paper_runs(DISCRIMINATOR))
    assert round(small.training.steps * small.training.batch / 1_281_167) == 12
    assert (small.discriminator.depth, large.discriminator.depth) == (12, 24)
    assert small.generator.depth == 24


@pytest.mark.parametrize("study", [s for s in STUDIES.values() if s.paper], ids=lambda s: s.name)
def test_every_variant_fits_the_papers_networks(study) -> None:
    assert all(run.config.training.batch == 512 for run in paper_runs(study))


def test_what_is_made_for_a_testbed_has_no_runs_there() -> None:
    with pytest.raises(UserError, match="study hierarchy has no runs at the paper's scale"):
        paper_runs(HIERARCHY)
