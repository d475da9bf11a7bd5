"""What a run directory remembers of its run, and whether another may go on in it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catgan.config import Config
from catgan.data.datasets import Images
from catgan.errors import UserError
from catgan.objective import Term, default_objective
from catgan.objective.identity import identity
from catgan.training import train


def about(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def test_a_loss_replaced_from_python_is_not_silently_swapped_back(
    tiny_config: Config, data: Images, tmp_path: Path
) -> None:
    """Of the same name and weight, so that only the function tells them apart."""
    config = replace(tiny_config, training=replace(tiny_config.training, steps=1))
    own = Term("adversarial", 1.0, lambda s: (s.fake - s.real).square())
    objective = default_objective(config).with_term("generator", own)
    train(config, tmp_path / "run", dataset=data, quiet=True, objective=objective)
    assert f"adversarial = {identity(own)}" in about(tmp_path / "run")["objective"][-2]
    said = f"the generator's term adversarial was {identity(own)}"
    with pytest.raises(UserError, match=re.escape(said)):
        train(config, tmp_path / "run", dataset=data, quiet=True, resume=True)
    longer = replace(config, training=replace(config.training, steps=2))
    train(longer, tmp_path / "run", dataset=data, quiet=True, resume=True, objective=objective)


def test_runs_of_one_name_have_ids_of_their_own_and_keep_them(
    tiny_config: Config, data: Images, tmp_path: Path
) -> None:
    """By which Weights & Biases knows them."""
    config = replace(tiny_config, training=replace(tiny_config.training, steps=1))
    for folder in ("a", "b"):
        train(config, tmp_path / folder / "run", dataset=data, quiet=True)
    one, other = (about(tmp_path / folder / "run")["id"] for folder in ("a", "b"))
    assert one != other
    train(config, tmp_path / "a" / "run", dataset=data, quiet=True, resume=True)
    assert about(tmp_path / "a" / "run")["id"] == one
