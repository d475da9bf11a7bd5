"""Where scalars go."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.training.logs import MetricsLog


def test_weights_and_biases_knows_a_run_by_its_id_and_shows_its_name(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    run = SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **options: asked.update(options) or run))
    log = MetricsLog(tmp_path, from_dict({"log": {"wandb": True}}, tiny_config), 0, "ab12")
    log.close()
    assert (asked["id"], asked["name"], asked["resume"]) == ("ab12", tmp_path.name, "allow")


def test_the_losses_shown_are_those_of_the_newest_entry(tiny_config: Config, tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, tiny_config, 0, "ab12")
    assert log.losses == ""
    log.write(1, {"discriminator/loss": 0.25, "generator/loss": 1.0})
    log.write(2, {"diagnose/delta/0": 1.0})
    log.close()
    assert log.losses == "loss D 0.250 G 1.000"
