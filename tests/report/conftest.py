"""Run directories made by hand: what training leaves, without training."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from catgan.config import Config
from catgan.config_io import dump_yaml

Made = Callable[..., Path]


def log_rows(scales: int, steps: Sequence[int], offset: float = 0.0) -> list[dict[str, float]]:
    """Entries as training writes them: a log entry and a diagnosis per step."""
    rows = []
    for step in steps:
        entry: dict[str, float] = {"step": step, "epoch": step / 10, "images_per_second": 80.0}
        for k in range(scales):
            entry |= {f"{n}/adversarial/{k}": 0.5 + k + offset for n in ("discriminator", "generator")}
            entry |= {f"discriminator/r1/{k}": 0.1 * step, f"logits/real/{k}": 1.0, f"logits/fake/{k}": 0.0}
        entry |= {"discriminator/gradient_norm": 1.0, "generator/gradient_norm": 2.0}
        rows.append(entry)
        if scales > 1:
            measures = ("delta", "floor", "excess", "R", "A")
            rows.append(
                {"step": step}
                | {f"diagnose/{m}/{k}": 0.1 * (k + 1) + offset for m in measures for k in range(scales - 1)}
                | {f"diagnose/{m}/mean": 0.2 + offset + step / 1000 for m in (*measures, "A_without_last")}
            )
    return rows


@pytest.fixture
def make_run(tmp_path: Path, tiny_config: Config) -> Made:
    """make_run(name, config, rows=..., about=..., evaluations={name: {...}}, best=..., previews=steps)."""

    def make(
        name: str,
        config: Config = tiny_config,
        rows: Sequence[Mapping[str, float]] | None = None,
        about: Mapping[str, Any] | None = None,
        evaluations: Mapping[str, Mapping[str, Any]] | None = None,
        best: Mapping[str, Any] | None = None,
        previews: Sequence[int] = (),
    ) -> Path:
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "previews").mkdir()
        (folder / "evaluations").mkdir()
        (folder / "config.yaml").write_text(dump_yaml(config))
        rows = log_rows(len(config.sample.scales), (2, 4)) if rows is None else rows
        (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        if about is not None:
            (folder / "run.json").write_text(json.dumps(about))
        for stem, content in (evaluations or {}).items():
            (folder / "evaluations" / f"{stem}.json").write_text(json.dumps(content))
        if best is not None:
            (folder / "checkpoints" / "best.json").write_text(json.dumps(best))
        for step in previews:
            picture = io.BytesIO()
            Image.new("L", (4, 4), step % 256).save(picture, format="PNG")
            for kind in ("samples", "stages"):
                (folder / "previews" / f"{kind}-{step:08d}.png").write_bytes(picture.getvalue())
        return folder

    return make
