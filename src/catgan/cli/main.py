"""Dispatch to a command, and turn mistakes of the user into one line and exit code 2."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module

from catgan.errors import UserError, check_known
from catgan.version import __version__

COMMANDS = {
    "prepare": "make data to train on: of pictures in folders, archives, IDX files or Hugging Face datasets",
    "train": "train a recipe, resume a run, or fine-tune another run's weights",
    "sample": "images from a trained run: grid, single PNGs, or an .npz for evaluators",
    "interpolate": "walk between samples in style space: strip and GIF",
    "studio": "play with generators in the browser: seeds, stages, walks, directions, your own pictures",
    "invert": "find pictures again in style space: the w whose sample is nearest",
    "evaluate": "FID, KID, precision, recall and more, with the protocol they were measured by",
    "diagnose": "measure cross-scale alignment: table, JSON and plot",
    "report": "a page about a run: samples, losses, alignment, evaluation",
    "compare": "several runs beside each other: page, table, means over seeds",
    "export": "the averaged generator as a folder to publish: safetensors, configuration, model card",
    "push": "publish a model on the Hugging Face Hub: lists the files, and uploads them with --yes",
    "models": "list the trained models that come with catgan, usable by name",
    "ship": "put a run's weights into the package, for those who release it",
    "info": "layers, tokens, parameters and compute of a recipe",
    "compute": "what every recipe costs, beside published models and the paper's figures",
    "plan": "memory, time and cost of a training run on GPUs, on paper",
    "bench": "how fast a recipe trains and samples here, as a share of what the machine can do",
    "reproduce": "run the paper's experiments, record them, and make the page of results",
    "demo": "train on handwritten digits and build a page about it, in minutes",
}

HELP = f"""catgan {__version__}: one-step image generation with the Cross-scale Aligned Transformer

usage: catgan COMMAND [OPTIONS]

commands:
{chr(10).join(f"  {name:<13}{text}" for name, text in COMMANDS.items())}

Recipes: cat-b2, cat-m2, cat-h2, gat-b2, gat-xl2 (ImageNet-256 latents), cat-b2-pixels, digits, fashion-mnist,
pictures-32, pictures-64, pictures-128 (your own: catgan prepare, then catgan train --data DIR chooses).
Try `catgan demo`, then `catgan COMMAND --help` for the options of a command.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"catgan {__version__}")
        return 0
    name, *rest = argv
    try:
        check_known("command", name, COMMANDS)
        import_module(f"catgan.cli.{name}").main(rest)
    except UserError as error:
        if not (error.raised_by_all and rank()):
            who = f"catgan {name}" if name in COMMANDS else "catgan"
            print(f"{who}: error: {f'rank {rank()}: ' if rank() else ''}{error}", file=sys.stderr)
        if error.exit_immediately:
            sys.stdout.flush()
            os._exit(error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, RuntimeError, MemoryError) as error:
        said = explained(error)
        if said is None:
            raise
        print(f"catgan {name}: error: {f'rank {rank()}: ' if rank() else ''}{said}", file=sys.stderr)
        return 2
    return 0


def rank() -> int:
    """This process's number under torchrun; 0 without."""
    text = os.environ.get("RANK", "0")
    return int(text) if text.isdecimal() else 0


def explained(error: Exception) -> str | None:
    """One line for what a machine lacks (permission, disk space, memory); None for what only we can mend."""
    if isinstance(error, OSError):
        if isinstance(error, PermissionError):
            return f"no permission for {error.filename}: change its permissions or choose another place"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk is full{f' ({error.filename})' if error.filename else ''}: free some space"
        if error.errno in (errno.EROFS, errno.EFBIG, errno.EIO) and error.filename:
            return f"cannot write {error.filename}: {error.strerror}"
        return None
    from catgan.system.devices import memory_error

    return "out of memory: use a smaller batch or a smaller network" if memory_error(error) else None
