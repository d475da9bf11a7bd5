"""The page of a run: every section appears, or is left out for the right reason, whatever the run holds."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from catgan.cli import main
from catgan.config import Config
from catgan.recipes import gat, recipe
from catgan.report.records import read_run
from catgan.report.run_page import commands, denser_early, write_run_page

Made = Callable[..., Path]
ABOUT = {
    "class_names": ["ant", "bee", "cat"],
    "samples": 40,
    "objective": ["discriminator: 1, 1, 1 * adversarial", "generator: 0.1, 0.1, 0.1 * consistency"],
    "torch": "9.9",
    "machine": "a machine",
}
EVALUATION = {
    "step": 4,
    "metrics": {"frechet_distance": 12.3, "kid": 0.01, "kid_std": 0.002},
    "names": {"frechet_distance": "classifier Frechet distance"},
    "protocol": {"features": "a classifier", "samples": 500},
}


def written(folder: Path) -> str:
    out = folder / "report.html"
    write_run_page(read_run(folder), out)
    return out.read_text("utf-8")


@pytest.fixture
def quick_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """One empty picture for every plot, where plots are not what is tested."""
    for module in ("run_page", "sections"):
        monkeypatch.setattr(f"catgan.report.{module}.plot_lines", lambda *args, **options: b"\x89PNG")


def headings(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)


def test_a_full_run_gets_every_section_in_order(make_run: Made) -> None:
    rows = [{"step": s, "eval/frechet_distance": 20.0 - s, "eval/kid": 0.1} for s in (2, 4)]
    folder = make_run("full", about=ABOUT, previews=(0, 2, 4), evaluations={"training-00000004": EVALUATION})
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(r) + "\n" for r in rows)
    (folder / "checkpoints" / "best.json").write_text('{"step": 4, "metric": "frechet_distance", "value": 16.0}')
    html = written(folder)
    assert headings(html) == [
        "Samples",
        "Stages: one sample per row, coarse to fine",
        "Losses and penalties",
        "Gradients and logits",
        "Alignment of the stages",
        "Evaluation",
        "Configuration",
        "Objective",
        "Machine and versions",
        "Go on",
    ]
    assert "Classes: ant, bee, cat." in html
    assert "Finished after 4 steps." in html
    assert "<b>16</b><span>best classifier Frechet distance, step 4</span>" in html
    assert "classifier Frechet distance, lower is better (dotted: best checkpoint)" in html
    assert "Feature space: a classifier." in html


@pytest.mark.usefixtures("quick_plots")
def test_real_samples_and_the_full_diagnosis_are_shown_where_they_are(make_run: Made) -> None:
    folder = make_run("diagnosed", previews=(0, 4))
    assert "real samples of the same classes" not in written(folder)
    assert "Diagnosis" not in headings(written(folder))
    picture = (folder / "previews" / "samples-00000000.png").read_bytes()
    (folder / "previews" / "real.png").write_bytes(picture)
    measures = {m: [0.125, 0.375] for m in ("delta", "floor", "excess", "R", "A")}
    protocol = {"samples": 1000, "weights": "ema", "psi": 1.0, "step": 4}
    means = dict.fromkeys(measures, 0.25)
    (folder / "diagnosis").mkdir()
    (folder / "diagnosis" / "diagnosis.png").write_bytes(picture)
    (folder / "diagnosis" / "attention.json").write_text('{"generated": {"off_diagonal": 0.25}}')
    (folder / "diagnosis" / "diagnosis.json").write_text(
        json.dumps(measures | {"protocol": protocol, "average": means})
    )
    html = written(folder)
    assert "real samples of the same classes</figcaption><img" in html
    assert headings(html)[headings(html).index("Alignment of the stages") + 1] == "Diagnosis"
    assert "By catgan diagnose: 1,000 samples, ema weights, psi = 1." in html
    assert "<td>k = 1</td><td>0.375</td>" in html
    assert "alignment</figcaption><img" in html
    assert "Attention that leaves its scale: generated samples 25.0%." in html


def test_a_run_that_has_just_begun_has_a_page_too(make_run: Made) -> None:
    html = written(make_run("new", rows=[]))
    assert headings(html) == ["Losses", "Configuration", "Go on"]
    assert "Unfinished: step 0 of 4." in html
    assert "Nothing is logged yet." in html


@pytest.mark.usefixtures("quick_plots")
def test_a_run_of_one_scale_has_no_stages_and_no_alignment(make_run: Made, tiny_config: Config) -> None:
    c = tiny_config
    one = replace(c, sample=replace(c.sample, scales=(8,)), discriminator=replace(c.discriminator, patches=(2,)))
    html = written(make_run("one", one, previews=(0, 4)))
    assert "Samples" in headings(html)
    assert not [h for h in headings(html) if "tage" in h]
    assert "catgan diagnose" not in html


@pytest.mark.usefixtures("quick_plots")
def test_under_gat_the_stages_are_judged_together_under_noise(make_run: Made, tiny_config: Config) -> None:
    rows = [{"step": s, "discriminator/r1/0": 1.0, "logits/real/0": 1.0, "discriminator/loss": 0.5} for s in (2, 4)]
    html = written(make_run("gat", gat(tiny_config), rows=rows, previews=(0, 4)))
    assert "8 x 8 pixels, 3 classes, 3 noise levels." in html
    assert "judges them together, stage k under noise of deviation 0.89, 0.66, 0.01." in html


def test_latents_of_a_thousand_classes(make_run: Made) -> None:
    names = [f"class number {k}" for k in range(1000)]
    html = written(make_run("latents", recipe("cat-b2"), about={"class_names": names}, previews=(0,)))
    assert "The samples are latents" in html
    assert "class number 900" in html
    assert "class number 901" not in html
    assert "catgan sample" not in html


@pytest.mark.usefixtures("quick_plots")
def test_without_a_diagnosis_the_alignment_of_training_fakes_is_shown(make_run: Made) -> None:
    folder = make_run("undiagnosed")
    rows = (folder / "metrics.jsonl").read_text().replace("diagnose/", "alignment/")
    (folder / "metrics.jsonl").write_text(rows)
    assert "these are training fakes of raw weights" in written(folder)
    (folder / "metrics.jsonl").write_text("\n".join(r for r in rows.splitlines() if "alignment" not in r))
    assert "Alignment of the stages" not in headings(written(folder))


@pytest.mark.usefixtures("quick_plots")
def test_the_table_of_stages_holds_the_newest_diagnosis(make_run: Made) -> None:
    rows = [
        {"step": s} | {f"diagnose/{m}/{k}": s + k / 10 for m in ("delta", "floor", "excess", "R", "A") for k in (0, 1)}
        for s in (1, 3)
    ]
    html = written(make_run("stages", rows=rows))
    cells = re.findall(r"<td>(k = 0|k = 1|mean)</td><td>([\d.]+)</td>", html)
    assert cells == [("k = 0", "3.000"), ("k = 1", "3.100"), ("mean", "3.050")]
    assert "Mean A without the last stage: 3.000." in html


@pytest.mark.usefixtures("quick_plots")
def test_evaluations_of_different_protocols_stand_apart(make_run: Made) -> None:
    other = EVALUATION | {"protocol": {"features": "pixels", "samples": 500}}
    html = written(make_run("apart", evaluations={"mine": EVALUATION, "other": other}))
    assert html.count("Feature space: ") == 2
    assert "0.01 ± 0.002" in html
    assert "<th>classifier Frechet distance ↓</th><th>kernel distance ↓</th></tr>" in html


@pytest.mark.usefixtures("quick_plots")
def test_configuration_shows_what_differs_from_the_recipe(make_run: Made) -> None:
    base = recipe("digits")
    changed = replace(base, objective=replace(base.objective, consistency=0.0))
    html = written(make_run("changed", changed))
    assert "<td>objective.consistency</td><td>0.1</td><td>0</td>" in html
    assert "objective.penalty_eps</td>" not in html
    assert "As the recipe digits." in written(make_run("same", base))
    assert "own is no recipe of this catgan." in written(make_run("own", replace(base, recipe="own")))


@pytest.mark.usefixtures("quick_plots")
def test_terms_of_ones_own_are_drawn(make_run: Made) -> None:
    rows = [{"step": s, "generator/darkness/0": 0.1} for s in (1, 2)]
    assert "generator: darkness" in written(make_run("term", rows=rows))


class Links(HTMLParser):
    """Collects tags, and what they load or lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


EVIL = "<script>alert(1)</script>&\"'$x_"


def test_texts_are_escaped_and_nothing_outside_is_loaded(make_run: Made, tiny_config: Config) -> None:
    c = tiny_config
    config = replace(c, recipe=EVIL, data=replace(c.data, path=EVIL), training=replace(c.training, init_from=EVIL))
    about = {"class_names": [EVIL] * 3, "objective": [EVIL, f"generator: 1, 1, 1 * {EVIL}"], "machine": EVIL, EVIL: 1}
    rows = [{"step": s, f"generator/{EVIL}/0": 0.1, f"generator/{EVIL}/1": 0.2, f"eval/{EVIL}": 1.0} for s in (1, 2)]
    evaluation = {"step": 2, "metrics": {EVIL: 1.0}, "names": {EVIL: EVIL}, "protocol": {"features": EVIL, EVIL: EVIL}}
    name = EVIL.replace("/", "")
    html = written(
        make_run(name, config, rows, about, {"evil": evaluation}, {"step": 2, "metric": EVIL, "value": 1}, (0, 2))
    )
    links = Links()
    links.feed(html)
    assert "script" not in links.tags
    assert html.count("&lt;script&gt;") > 8
    assert links.targets
    assert all(t.startswith("data:image/png;base64,") for t in links.targets)
    for target in links.targets:
        assert base64.b64decode(target.partition(",")[2])[:4] == b"\x89PNG"
    assert not re.search(r"url\(|@import|https?:", html)


def test_earlier_previews_are_few_and_denser_at_first() -> None:
    chosen = denser_early(range(0, 10_000, 100), 10_000)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 6
    assert chosen[0] == 0
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert gaps == sorted(gaps)
    assert denser_early([0, 5], 9) == [0, 5]


def test_commands_quote_the_path(make_run: Made) -> None:
    folder = make_run("two words")
    assert f"catgan train digits --out '{folder}' --resume --steps 8" in commands(read_run(folder))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"config.yaml": None}, "is no run of catgan: it has no config.yaml"),
        ({"config.yaml": "generator: {depth: many}"}, "generator.depth is 'many'"),
        ({"run.json": '{"objective": 1.5}'}, "run.json is damaged: objective is 1.5"),
        ({"run.json": "{"}, "run.json is damaged: it is no JSON"),
        ({"evaluations/x.json": '{"step": 1}'}, "x.json is damaged: must be a JSON object with step, metrics"),
        ({"evaluations/x.json": '{"step": "a", "metrics": {}}'}, "x.json is damaged: step is 'a'"),
        ({"evaluations/x.json": '{"step": 1, "metrics": {}, "names": 5}'}, "x.json is damaged: names is 5"),
        ({"evaluations/x.json": "[" * 5000 + "]" * 5000}, "x.json is damaged"),  # too deep for some Pythons
        ({"checkpoints/best.json": "[]"}, "best.json is damaged"),
        ({"diagnosis/diagnosis.json": "{}"}, "diagnosis.json is damaged: must be a JSON object with delta"),
    ],
)
def test_damage_is_one_line(
    damage: dict[str, str | None], said: str, make_run: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("damaged")
    for name, content in damage.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).unlink() if content is None else (folder / name).write_text(content)
    assert main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_cut_off_and_foreign_lines_of_the_metrics_are_passed_over(make_run: Made) -> None:
    folder = make_run("cut")
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'3\n{"epoch": 1}\n{"step": 9, "epoch": {}}\n{"step": "9"}\n\xff\xfe\n{"step": 9, "discrim')
    assert read_run(folder).step == 4


@pytest.mark.usefixtures("quick_plots")
def test_the_command_writes_where_it_is_told(
    make_run: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("told", previews=(0,))
    assert main(["report", str(folder), "--out", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!doctype html>")
    assert not (folder / "report.html").exists()
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "report.html")
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "does not exist: must be a run directory" in capsys.readouterr().err
    Image.open(folder / "previews" / "samples-00000000.png").verify()
