"""`catgan train RECIPE`, and `catgan train --data DIR`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from catgan.cli.configuration import SHORT, expanded, over, recipe_first, split_own
from catgan.cli.fitting import concerns, described, fitted, of_another_length, training_command, unfit
from catgan.cli.parse import parse
from catgan.config import Config
from catgan.config_io import load_yaml
from catgan.errors import UserError, said_once
from catgan.recipes import RECIPES, recipe
from catgan.system.processes import whole_number

OWN = {"--data": None, "--out": None, "--resume": False, "--config": None}
USAGE = f"""usage: catgan train [RECIPE] [--data DIR] [--out DIR] [--resume] [--config FILE] [OPTIONS]

Train a recipe: {", ".join(RECIPES)}.

  --data DIR      train on what catgan prepare made: channels, size, classes and VAE follow from it, and without RECIPE
                  also the recipe, its scales and patches, and augmentation by the number of pictures
  --out DIR       run directory (default: runs/RECIPE; without RECIPE runs/ and the name of DIR)
  --resume        go on from the run's latest checkpoint; values then come from the run instead of the recipe
                  (processes that torchrun starts again do so by themselves)
  --config FILE   YAML with some or all fields, over the recipe's values; a run's config.yaml is such a file
  {", ".join(SHORT)}
                  short for the training.* options of these names

Options go over --data, that over the YAML file, and that over the recipe.

  catgan train digits
  catgan train digits --resume --steps 4000
  catgan train --data prepared
  catgan train digits --sample.scales auto      # as many as the recipe has, chosen from the data
  catgan train fashion-mnist --data.path /usr/share/datasets/fashion-mnist --batch 64
  torchrun --nproc-per-node 8 -m catgan train cat-h2 --precision bfloat16 --micro-batch 32
"""


def main(argv: Sequence[str]) -> None:
    own, options = split_own(argv, "train", OWN)
    name, chosen = None, None  # the recipe, or what was chosen for the data
    if not own.data or (options and not options[0].startswith("-")):
        name = recipe_first(argv if not own.data else options, "train", USAGE)[0]
        base, options = recipe(name), options[1:]
    out = Path(own.out or f"runs/{name or Path(own.data).resolve().name}")
    begun = (out / "config.yaml").exists()
    own.resume |= begun and whole_number("TORCHELASTIC_RESTART_COUNT", 0) > 0
    if own.resume and begun:
        base = load_yaml(out / "config.yaml")
        if name and base.recipe != name:
            raise UserError(f"{out} is a run of recipe {base.recipe}, not {name}: choose another --out")
    elif not name:
        with said_once():
            base = chosen = fitted(Path(own.data), gpu_here())
    if own.config:
        base = over(base, own.config)
    if own.data:
        base = on_data(base, Path(own.data), keep_sample=own.resume and begun)
    options = expanded(options)
    options, auto = without_auto(options, base)
    with said_once():
        config = parse(
            Config, options, f"train {name or ''}".rstrip(), default=base, description=USAGE.partition("\n\n")[2]
        )
        if own.data and config.sample.scales[-1:] != (config.sample.size,):
            raise UserError(sizes_do_not_fit(Path(own.data), config))
        if chosen is not None:
            config = of_another_length(config, chosen)
        if auto:
            config = with_auto_scales(config)
        config.validate()
    if own.data and not whole_number("RANK", 0):
        said = [] if name or own.resume else [described(config, Path(own.data))]
        for line in (*said, *(f"warning: {w}" for w in concerns(Path(own.data), config.training.batch))):
            print(line, file=sys.stderr)

    from catgan.training.run import train

    train(config, out, resume=own.resume)
    if not whole_number("RANK", 0):
        run = shlex.quote(str(out))
        print(
            f"trained {config.training.steps} steps: {out}\nnext: catgan report {run}    catgan sample {run}    catgan studio {run}"
        )


def gpu_here() -> bool:
    import torch

    return torch.cuda.is_available()


def without_auto(options: Sequence[str], base: Config) -> tuple[list[str], bool]:
    """The options with the recipe's scales for `--sample.scales auto`, and whether that was there."""
    at = [i for i, pair in enumerate(pairwise(options)) if pair == ("--sample.scales", "auto")]
    kept = list(options)
    for i in reversed(at):
        kept[i + 1 : i + 2] = map(str, base.sample.scales)
    return kept, bool(at)


def with_auto_scales(config: Config) -> Config:
    """With as many scales as it has, chosen from its data."""
    from catgan.data import open_dataset
    from catgan.evaluation.scales import auto_scales

    scales = auto_scales(config, open_dataset(config.data, config.sample.size))
    print(f"scales from the data: {' '.join(map(str, scales))}", file=sys.stderr)
    return replace(config, sample=replace(config.sample, scales=scales))


def on_data(config: Config, folder: Path, keep_sample: bool) -> Config:
    """The configuration for prepared data. keep_sample: of a run that goes on, only where the data is."""
    from catgan.data.prepared import read_meta, sample_shape

    meta = read_meta(folder)
    config = replace(config, data=replace(config.data, source="prepared", path=str(folder.absolute())))
    if keep_sample:
        return config
    channels, size, _ = sample_shape(meta)
    sample = replace(config.sample, channels=channels, size=size, classes=len(meta["classes"]), vae=None)
    if meta["vae"]:
        sample = replace(
            sample, vae=meta["vae_path"], vae_identity=meta["vae"]["identity"], latent_scale=meta["vae"]["scale"]
        )
    config = replace(config, sample=sample)
    if len(meta["classes"]) < 2 and config.eval.features == "classifier":  # there is nothing to classify
        config = replace(config, eval=replace(config.eval, every=0))
    return config


def sizes_do_not_fit(folder: Path, config: Config) -> str:
    """What to do about data of another size than the recipe's last scale."""
    from catgan.data.prepared import read_meta

    scales, size, takes = config.sample.scales, config.sample.size, config.sample.scales[-1]
    shown = " ".join(map(str, scales))
    return (
        f"{folder} has samples of {size}x{size}, {config.recipe} takes {takes}x{takes} (sample.scales {shown}): "
        f"prepare the pictures with --size {takes}"
        + ("" if unfit(folder, read_meta(folder)) else f", take what fits ({training_command(folder)})")
        + f", or give --sample.scales that end at {size}, with --discriminator.patches and --generator.patch that divide them"
    )
