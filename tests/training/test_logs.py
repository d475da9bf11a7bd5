"""Where scalars go."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.errors import UserError
from catgan.training.logs import MetricsLog


def test_weights_and_biases_knows_a_run_by_its_id_and_shows_its_name(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    run = SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **options: asked.update(options) or run))
    with MetricsLog(tmp_path, from_dict({"log": {"wandb": True}}, tiny_config), 0, "ab12"):
        pass
    assert (asked["id"], asked["name"], asked["resume"]) == ("ab12", tmp_path.name, "allow")


def test_the_losses_shown_are_those_of_the_newest_entry(tiny_config: Config, tmp_path: Path) -> None:
    with MetricsLog(tmp_path, tiny_config, 0, "ab12") as log:
        assert log.losses == ""
        log.write(1, {"discriminator/loss": 0.25, "generator/loss": 1.0})
        log.write(2, {"diagnose/delta/0": 1.0})
    assert log.losses == "loss D 0.250 G 1.000"


def unwritable(log: MetricsLog) -> None:
    """TensorBoard meets a folder that cannot be written only when it flushes."""

    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    log.tensorboard.file_writer.event_writer._async_writer._writer.flush = fail


def test_what_tensorboard_could_not_write_is_told_in_one_line(tiny_config: Config, tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=f"^cannot write {tmp_path}: Read-only file system$"),
        MetricsLog(tmp_path, tiny_config, 0, "ab12") as log,
    ):
        unwritable(log)


def test_the_end_of_a_log_hides_no_other_error(tiny_config: Config, tmp_path: Path) -> None:
    def fails() -> None:
        with MetricsLog(tmp_path, tiny_config, 0, "ab12") as log:
            unwritable(log)
            raise ValueError("the first")

    with pytest.raises(ValueError, match="the first"):
        fails()
