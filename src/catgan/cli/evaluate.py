"""`catgan evaluate SAMPLES`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from catgan.bounds import Count, Share
from catgan.cli.parse import parse
from catgan.errors import UserError, require
from catgan.metrics import METRICS, Features, MetricName
from catgan.shipped import located
from catgan.system.files import write_text

if TYPE_CHECKING:
    from catgan.evaluation.evaluator import Evaluator
    from catgan.evaluation.protocol import Protocol, Result
    from catgan.evaluation.sources import ImageSource

DESCRIPTION = """Measure a trained generator, or given images, against real ones.

SAMPLES is a run directory, a checkpoint, a model of `catgan models`, a folder of images, an .npz with arr_0 (uint8,
NHWC), digits:train, fashion-mnist:test, ...
The reference is what the run was trained on, or --reference: images in any of these forms, or an .npz with mu and sigma.
Results are written with their whole protocol. An interrupted evaluation goes on when it is called again. Under
torchrun the processes share the work and give the numbers that one would.

  catgan evaluate runs/digits --features classifier
  catgan evaluate runs/cat-b2 --preset imagenet-fid50k --reference imagenet256.npz
  catgan evaluate samples.npz --reference pictures/ --features inception --metrics distance kid
  catgan evaluate digits --count 5000 --psi 1 0.9 0.8 0.7     # a curve, with a plot
  catgan evaluate digits --count 5000 --repeats 3             # mean and deviation over seeds
  torchrun --nproc-per-node 8 -m catgan evaluate runs/fashion-mnist --features dinov2
"""

NOTHING = "no number: the warnings say why"
METRICS_HELP = (
    "; ".join(f"{name}: {metric.about}" for name, metric in METRICS.items())
    + ". Default: all that samples, reference and features allow."
)


@dataclass(frozen=True)
class EvaluateOptions:
    samples: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SAMPLES")]
    """A run directory, a checkpoint, a shipped model, or images: a folder, an .npz, digits:train, fashion-mnist:train or :test."""
    reference: str | None = None
    """Real images to compare with, or an .npz with their mu and sigma; default: what the run was trained on."""
    features: Literal["auto"] | Features = "auto"
    """Feature space; auto: inception, or classifier for grey images and those below 64 pixels. Only Inception's distance is FID."""
    feature_weights: str | None = None
    """Weights of inception (a .pth file) or dinov2 (a folder) on this machine, instead of downloading them."""
    metrics: Annotated[tuple[MetricName, ...], tyro.conf.arg(help=METRICS_HELP)] = ()
    preset: Literal["imagenet-fid50k", "imagenet-fid50k-balanced"] | None = None
    """A published protocol: fixes features, metrics, count, class_sampling, psi and weights. Labels at random, as ADM, DiT and
    GAT have it, or balanced: 50 of each class, as iMF and pMF, which lowers FID by about 0.1."""
    count: int = 50_000
    """How many samples to generate; given images are all measured."""
    class_sampling: Literal["uniform", "balanced"] = "uniform"
    """Classes of generated samples: uniform at random, or in turn."""
    first_seed: int = 0
    """Seed of the first sample; the others follow."""
    psi: tuple[float, ...] = (1.0,)
    """Truncation; 1 for published numbers. Several make a curve of the numbers over psi, of the same seeds."""
    repeats: Count = 1
    """Measure so many times, each with seeds of its own: mean and deviation."""
    rounding: Literal["round", "floor"] = "round"
    """How pixels become bytes: to the nearest, or down."""
    weights: Literal["ema", "generator"] = "ema"
    """ema: the moving average (EMA); generator: the raw weights."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the generator's arithmetic."""
    vae: str | None = None
    """VAE of a latent model: folder or Hugging Face name; default: the one its configuration names."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    batch: Count = 64
    """Images at a time: lower it if memory runs out."""
    max_broken: Share = 0.01
    """Share of image files that may be unreadable."""
    data_path: str | None = None
    """Folder of Fashion-MNIST's files, where it is named as samples or reference."""
    nearest_sheet: Count | None = None
    """Also show so many samples, those nearest to an image of the reference, beside the four nearest: are they copies?"""
    save_reference: Path | None = None
    """Also write the reference's mu and sigma to this .npz, which can then be a --reference itself."""
    json: bool = False
    """Print JSON."""
    out: Path | None = None
    """File of the result; default: RUN/evaluations/..., or evaluation-....json here for given images."""


def main(argv: Sequence[str]) -> None:
    o = parse(EvaluateOptions, argv, "evaluate", description=DESCRIPTION)

    from catgan.evaluation import opening
    from catgan.evaluation.collect import Work
    from catgan.evaluation.evaluator import Facts
    from catgan.evaluation.reference import write_npz
    from catgan.evaluation.sources import Generated
    from catgan.system.devices import pick_device
    from catgan.system.processes import Processes

    processes = Processes.from_environment()
    device = pick_device(processes.device(o.device))
    require(len(set(o.psi)) == len(o.psi), "psi", " ".join(map(str, o.psi)), "each value once")
    protocol = wanted(o)
    source = opening.open_samples(o.samples, protocol, str(device), o.data_path, o.vae)
    if not isinstance(source, Generated):
        if o.preset and len(source) != protocol.samples:
            raise UserError(
                f"--preset {o.preset} measures {protocol.samples:,} samples, here are {len(source):,}: leave --preset out"
            )
        if several(o):
            raise UserError("--repeats and several --psi need a generator, not given images: leave them out")
        protocol = protocol.of_given_images(len(source)).check()
    real = opening.open_real(o.reference, source, o.data_path)
    check_sheet(o, protocol, real[1] is not None)
    if o.features == "auto" and o.preset is None:
        protocol = replace(protocol, features=opening.fitting_features(source, real))
    work = Work(o.batch, processes, o.max_broken, quiet=not processes.first)
    place = o.out.parent if o.out else results_folder(o)
    evaluator = opening.open_evaluator(real, Facts.of(source), protocol, work, device, o.feature_weights, place)
    if o.save_reference and processes.first:
        write_npz(o.save_reference, evaluator.reference.statistics, evaluator.features.name)
    measuring = Measuring(o, evaluator, place, real[1])
    if not several(o):
        result, out = measuring.measure(source, evaluator.protocol)
        if processes.first:
            show(result, out, o.json)
        return
    assert isinstance(source, Generated)
    results = []
    for p in variants(evaluator.protocol, o):
        samples = Generated(source.pipe, p.samples, p.class_sampling, p.first_seed, p.psi, p.rounding)
        results.append(measuring.measure(samples, p)[0])
        if processes.first and not o.json:
            print(f"psi {p.psi:g}, seeds from {p.first_seed}: {first_number(results[-1])}", file=sys.stderr)
    if processes.first:
        show_several(results, o, place)


@dataclass(frozen=True)
class Measuring:
    """Measures samples against one reference, and writes what is found to files named by what was measured how."""

    o: EvaluateOptions
    evaluator: Evaluator
    place: Path  # folder of results
    pictures: ImageSource | None  # of the reference, if it has any

    def measure(self, samples: ImageSource, protocol: Protocol) -> tuple[Result, Path]:
        """The result, and its file. All processes of a run take part; the first one writes."""
        from catgan.evaluation.evaluator import Evaluator
        from catgan.evaluation.nearest import sheet
        from catgan.images import save_png
        from catgan.system.files import digest

        o, known, space, work = self.o, self.evaluator.reference, self.evaluator.features, self.evaluator.work
        key = digest(samples.identity(), known.identity, space.identity(), str(protocol))[:12]
        in_run = f"{protocol.features}-{protocol.samples}-{key}.json"
        out = self.place / (f"evaluation-{key}.json" if self.place == Path() else in_run)
        out = o.out if o.out and not several(o) else out
        beside = (o.nearest_sheet, self.pictures) if o.nearest_sheet and self.pictures else None
        result = Evaluator(known, space, protocol, work).measure(samples, out.with_name(f".{key}.work"), beside)
        if work.processes.first:
            write_text(out, json.dumps(result.to_dict(), indent=2) + "\n")
            if result.nearest and self.pictures:
                save_png(sheet(result.nearest, samples, self.pictures, space.name), sheet_of(out))
        return result, out


def several(o: EvaluateOptions) -> bool:
    return len(o.psi) > 1 or o.repeats > 1


def check_sheet(o: EvaluateOptions, protocol: Protocol, has_images: bool) -> None:
    """Raise UserError where a sheet of the nearest images is asked for and cannot be had."""
    if o.nearest_sheet is None:
        return
    if several(o):
        raise UserError("--nearest-sheet shows one measurement: leave it out, or --repeats and all but one --psi")
    if not has_images:
        raise UserError(
            f"--nearest-sheet shows images of the reference, and {o.reference} has only mu and sigma: "
            "give images as --reference, or leave it out"
        )
    if protocol.metrics and "authenticity" not in protocol.metrics:
        by = f"--preset {o.preset}" if o.preset else "--metrics"
        raise UserError(
            f"--nearest-sheet needs the metric authenticity, which is not in {by}: add it, or leave out {by}"
        )


def sheet_of(out: Path) -> Path:
    """Where the sheet of a result lies."""
    return out.with_name(f"{out.stem}-nearest.png")


def variants(protocol: Protocol, o: EvaluateOptions) -> list[Protocol]:
    """One protocol for each psi and repetition."""
    seeds = [o.first_seed + k * protocol.samples for k in range(o.repeats)]
    return [replace(protocol, psi=psi, first_seed=seed).check() for psi in o.psi for seed in seeds]


def show(result: Result, out: Path, as_json: bool) -> None:
    for note in result.warnings:
        print(f"warning: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    measured, reference, space = (result.about[n] for n in ("measured", "reference", "feature_space"))
    accuracy = f", accuracy {space['accuracy']:.1%} on held-out real images" if "accuracy" in space else ""
    print(f"{measured['name']}: {measured['images']:,} images")
    print(f"reference: {reference['name']}" + (f", {reference['images']:,} images" if reference["images"] else ""))
    print(f"features: {space['name']}{accuracy}\n\n{result.table() or NOTHING}\n\n{out}")
    if result.nearest:
        closer, real = result.nearest.closer, result.nearest.closer_real
        print(
            f"{sheet_of(out)}: closer to an image than real ones are: {closer:.1%} of the samples, {real:.1%} of real images"
        )


def first_number(result: Result) -> str:
    return next((f"{result.names[name]} {value:.6g}" for name, value in result.metrics.items()), NOTHING)


def show_several(results: Sequence[Result], o: EvaluateOptions, place: Path) -> None:
    """A row for each psi: means over the repetitions, with their deviations. Written as JSON too, and a curve as a plot."""
    from catgan.evaluation.protocol import mean_and_deviation
    from catgan.system.files import digest, write_bytes
    from catgan.system.packages import installed
    from catgan.system.tables import aligned

    first = results[0]
    known = [name for name in first.metrics if all(name in r.metrics for r in results)]  # some may lack a class
    table = {
        psi: {name: mean_and_deviation([r.metrics[name] for r in results if r.protocol.psi == psi]) for name in known}
        for psi in o.psi
    }
    content: dict[str, Any] = {
        "psi": list(o.psi),
        "repeats": o.repeats,
        "names": {name: first.names[name] for name in known},
        "mean": {name: [row[name][0] for row in table.values()] for name in known},
        "deviation": {name: [row[name][1] for row in table.values()] for name in known},
        "results": [r.to_dict() for r in results],
    }
    key = digest(*(json.dumps(r.to_dict()["protocol"], sort_keys=True) for r in results))[:12]
    # Beside a run's evaluations, not among them, which reports read.
    folder = place.parent / "curves" if place.name == "evaluations" else place
    out = o.out or folder / f"{'psi' if len(o.psi) > 1 else 'repeats'}-{key}.json"
    write_text(out, json.dumps(content, indent=2) + "\n")
    if o.json:
        print(json.dumps(content, indent=2))
        return
    for note in dict.fromkeys(w for r in results for w in r.warnings):
        print(f"warning: {note}", file=sys.stderr)
    shown = [name for name in known if not name.endswith("_std")]
    rows: list[Sequence[str]] = [("psi", *(first.names[name] for name in shown))]
    for psi, row in table.items():
        pairs = [row[name] for name in shown]
        rows.append(
            (f"{psi:g}", *(f"{mean:.4g}" + (f" ± {off:.2g}" if off is not None else "") for mean, off in pairs))
        )
    print(aligned(rows))
    if o.repeats > 1:
        print(f"means and sample deviations over {o.repeats} times {first.protocol.samples:,} seeds")
    if len(o.psi) > 1 and shown and installed("matplotlib"):
        from catgan.report.plots import plot_over_psi

        picture = out.with_suffix(".png")
        write_bytes(picture, plot_over_psi(list(o.psi), {first.names[n]: content["mean"][n] for n in shown}))
        print(picture)
    print(out)


def results_folder(o: EvaluateOptions) -> Path:
    """evaluations/ of the run that is measured, else the current folder."""
    from catgan.checkpoint.reading import is_checkpoint

    path = located(Path(o.samples))
    run = path if path.is_dir() and not is_checkpoint(path) else path.parent.parent
    return run / "evaluations" if (run / "config.yaml").exists() else Path()


def wanted(o: EvaluateOptions) -> Protocol:
    """The protocol that the options describe; what a preset fixes may not be given otherwise."""
    from catgan.evaluation.protocol import PRESETS, Protocol

    features: Features = "inception" if o.features == "auto" else o.features
    given = Protocol(
        features, o.metrics, o.count, o.class_sampling, o.first_seed, o.psi[0], o.weights, o.precision,
        rounding=o.rounding,
    )  # fmt: skip
    if o.preset is None:
        return given
    preset, plain = PRESETS[o.preset], Protocol(metrics=())
    if len(o.psi) > 1:
        raise UserError(
            f"psi is {' '.join(map(str, o.psi))}, but --preset {o.preset} fixes it to {preset.psi:g}: leave out one of them"
        )
    for name in ("features", "metrics", "samples", "class_sampling", "psi", "weights"):
        value, fixed = getattr(given, name), getattr(preset, name)
        if value not in (getattr(plain, name), fixed):
            raise UserError(f"{name} is {value}, but --preset {o.preset} fixes it to {fixed}: leave out one of them")
    return replace(preset, first_seed=o.first_seed, precision=o.precision, rounding=o.rounding)
