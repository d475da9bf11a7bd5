"""`catgan info RECIPE`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from catgan.cli.compute import total
from catgan.cli.configuration import ConfigurationOptions, parse_configuration

DESCRIPTION = """Layers, tokens, parameters and compute of a recipe or run, counted on networks without weights.

GMACs are billions of multiply-accumulates per sample: what papers of the field call GFLOPs. All options of
`catgan train` are understood: catgan info cat-h2 --generator.width 1024
"""


def main(argv: Sequence[str]) -> None:
    o = parse_configuration(ConfigurationOptions, argv, "info", DESCRIPTION)

    from catgan.accounting.compute import compute

    result = compute(o.settings)
    print(json.dumps(result, indent=2) if o.json else table(result))


def table(result: dict[str, Any]) -> str:
    g, d, t = result["generator"], result["discriminator"], result["training"]
    scales = " + ".join(str(n) for n in d["tokens_per_scale"])
    head = f" (+ {d['representation_gmacs']:.3g} representation head)" if d["representation_gmacs"] else ""
    beside = (
        ("alignment with DINOv2-B", "alignment_gmacs"),
        (f"vision-aided loss, as with {t['vision_network']}", "vision_gmacs"),
    )
    auxiliary = "".join(f" + {t[name]:.1f} ({what})" for what, name in beside if t[name])
    rows = [
        ("", "generator", "discriminator"),
        ("blocks", g["depth"], d["depth"]),
        ("width", g["width"], d["width"]),
        ("heads", g["heads"], d["heads"]),
        ("tokens", g["tokens"], f"{d['tokens']} ({scales}, {d['cls_tokens']} [cls])"),
        ("parameters", f"{g['parameters'] / 1e6:.1f} M", f"{d['parameters'] / 1e6:.1f} M"),
        ("GMACs, forward", f"{g['gmacs']:.3g}", f"{d['gmacs']:.3g}{head}"),
    ]
    lines = [f"{a:<16}{b!s:<14}{c}" for a, b, c in rows]
    lines += [
        "",
        f"training        {t['steps']:,} steps of {t['batch']} samples",
        f"per sample      {t['generator_passes']:g} F_G + {t['discriminator_passes']:g} F_D{auxiliary}"
        f" = {t['gmacs_per_sample']:,.4g} GMACs",
        f"                ({t['paper_gmacs_per_sample']:,.4g} as the paper counts, with fakes generated twice)",
        f"whole run       {total(2 * t['total_gmacs'])} FLOPs ({total(t['total_gmacs'])} multiply-accumulates)",
    ]
    return f"{result['recipe']}\n\n" + "\n".join(lines)
