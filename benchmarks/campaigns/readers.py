"""What reads files that others made, each with how bad ones are made of good ones, and how all of it is read."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import http.client
import io
import json
import random
import shutil
import string
import struct
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from studio_served import Served, serving

import catgan
from campaigns.mutation import NUMBERS, WORDS, damaged, dumped, grown, hostile_archive, odd_message, odd_upload, strange
from catgan.checkpoint.manifest import MANIFEST, sealed
from catgan.cli import main as command
from catgan.config import Config
from catgan.config_io import from_dict, load_yaml, to_dict
from catgan.data.datasets import Images
from catgan.data.decode import BrokenError, to_picture
from catgan.data.idx import read_pair
from catgan.data.prepared import Prepared
from catgan.errors import UserError
from catgan.evaluation.reference import read_npz
from catgan.evaluation.sources import Folder, Npz
from catgan.recipes import recipe
from catgan.report.records import read_run
from catgan.sampling import onnx
from catgan.sampling.styles import read_styles, write_styles
from catgan.studies.records import read_record
from catgan.studio import projection
from catgan.studio.model import Model
from catgan.studio.server import INTERNAL, Studio

APART = "apart"  # in the folder of temporary files: what programs are told to write
SMALL = {
    "sample": {"size": 8, "channels": 1, "classes": 3, "scales": [4, 8]},
    "generator": {"depth": 2, "width": 16, "heads": 2, "patch": 4, "z_dim": 4},
    "discriminator": {"depth": 1, "width": 16, "heads": 2, "patches": [4, 4], "head_dim": 16},
    "training": {"steps": 2, "batch": 4, "device": "cpu", "compile": False, "threads": 1},
    "log": {"every": 1, "preview_every": 1000, "diagnose_every": 1000, "diagnose_samples": 4},
    "checkpoint": {"every": 1},
}


@dataclass(frozen=True)
class Reader:
    """What puts a bad input into an empty folder, and what reads it. Both know where good input lies (`make_good`)."""

    make: Callable[[Path, Path, random.Random], None]
    read: Callable[[Path, Path], object]


# -- good input, made once ---------------------------------------------------------------------------------------------


def make_good(folder: Path) -> None:
    """Put a good input of each kind into a folder."""
    noise = np.random.default_rng(0).uniform(-1, 1, (9, 1, 8, 8)).astype(np.float32)
    data = Images(noise, np.arange(9) % 3, ("ant", "bee", "cat"))
    run = catgan.train(from_dict(SMALL, recipe("digits")), folder / "run", dataset=data, quiet=True)
    (run / "evaluations").mkdir()
    result = {"step": 2, "metrics": {"frechet_distance": 1.5}, "names": {"frechet_distance": "FID"}, "protocol": {}}
    (run / "evaluations" / "one.json").write_text(json.dumps(result))
    pipe = catgan.load(run)
    pipe.save_pretrained(folder / "export", discriminator=True)
    onnx.write_onnx(pipe, folder / "export.onnx")
    write_styles(folder / "styles.safetensors", pipe, pipe.style([0, 1], [2, 3]), ["a", "b"])
    pictures = folder / "pictures"
    for i in range(6):
        path = pictures / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(path)
    for name, options in (("prepared", ()), ("jpegs", ("--jpeg", "90"))):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert (
                command(["prepare", str(pictures), str(folder / name), "--size", "8", "--workers", "1", *options]) == 0
            )
    for name, shape in (("images", (5, 4, 4)), ("labels", (5,))):
        header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        (folder / f"{name}.idx").write_bytes(header + bytes(range(int(np.prod(shape)))))
    np.savez(folder / "images.npz", noise[:, 0, ..., None].astype(np.uint8), np.arange(9))
    np.savez(folder / "statistics.npz", mu=np.zeros(4), sigma=np.eye(4), count=9)
    table = pa.table(
        {
            "image": [{"bytes": p.read_bytes(), "path": p.name} for p in sorted(pictures.glob("*/*"))],
            "label": [0, 0, 0, 1, 1, 1],
        }
    )
    kinds = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    about = json.dumps({"info": {"features": kinds}})
    (folder / PARQUET).write_bytes(parquet(table.replace_schema_metadata({"huggingface": about})))
    shutil.rmtree(pictures)


def copy(path: Path, to: Path) -> Path:
    """A copy of a file or folder in a folder."""
    return Path(shutil.copytree(path, to / path.name) if path.is_dir() else shutil.copy(path, to / path.name))


def spoil(path: Path, chance: random.Random) -> None:
    """Damage a file's bytes, or if it is JSON or YAML its tree."""
    if path.suffix == ".json" and chance.random() < 0.8:
        path.write_text(dumped(grown(json.loads(path.read_text()), chance)))
    else:
        path.write_bytes(damaged(path.read_bytes(), chance))


# -- configurations ----------------------------------------------------------------------------------------------------


def make_yaml(folder: Path, good: Path, chance: random.Random) -> None:
    path = folder / "config.yaml"
    tree = to_dict(recipe("digits"))
    kind = chance.randrange(5)
    if kind == 0:
        path.write_bytes(damaged(yaml.safe_dump(tree).encode(), chance))
    elif kind == 1:
        depth = chance.choice((5, 30, 3000))
        path.write_text(f"sample: {{scales: {'[' * depth}{']' * depth}}}")
    elif kind == 2:  # each list holds the one before twice
        lines = ["- &a0 [x, x]", *(f"- &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, chance.choice((3, 25, 60))))]
        path.write_text("sample:\n  scales:\n" + "\n".join(f"    {line}" for line in lines) + "\n")
    else:
        text = yaml.safe_dump(grown(tree, chance), allow_unicode=True)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))


def read_yaml(folder: Path, good: Path) -> None:
    load_yaml(folder / "config.yaml", recipe("digits")).validate()


def make_options(folder: Path, good: Path, chance: random.Random) -> None:
    names = [
        f"--{group.name}.{field.name}".replace("_", "-")
        for group in dataclasses.fields(Config)
        if dataclasses.is_dataclass(getattr(Config(), group.name))
        for field in dataclasses.fields(getattr(Config(), group.name))
    ]
    values = [
        *map(str, NUMBERS),
        *(w for w in WORDS if "\x00" not in w and "\ud800" not in w),
        "True",
        "none",
        "1,2",
        "--",
        "-",
        "--x",
    ]
    argv = []
    for _ in range(chance.randint(1, 4)):
        kind = chance.random()
        if kind < 0.3:
            argv += [chance.choice(names), *chance.choices(values, k=chance.choice((0, 1, 1, 1, 2, 3)))]
        elif kind < 0.4:
            argv += [f"--{''.join(chance.choices(string.printable, k=6))}"]
        else:  # what may be right
            argv += chance.choice(
                [[f"--training.{n}", str(k)] for n in ("steps", "seed", "batch") for k in (1, 8, 10**6)]
            )
    (folder / "options.json").write_text(json.dumps(argv))


def read_options(folder: Path, good: Path) -> None:
    by_command("info", "digits", *json.loads((folder / "options.json").read_text()))


def by_command(*argv: str) -> None:
    """Let the command line say what is wrong; its complaint as UserError."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            code = command(list(argv))
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    if code:  # progress may stand before what went wrong, nothing behind it
        _, error, text = said.getvalue().removesuffix("\n").rpartition(f"catgan {argv[0]}: error: ")
        assert error, f"no complaint: {said.getvalue()[-300:]!r}"
        refused(text)


def refused(text: str) -> NoReturn:
    """Raise UserError for a complaint that is one line. It is looked at before, as UserError would make one line of it."""
    check_message(text)
    raise UserError(text)


# -- checkpoints, exports, styles, ONNX --------------------------------------------------------------------------------


def make_checkpoint(folder: Path, good: Path, chance: random.Random) -> None:
    run = copy(good / "run", folder)
    newest = sorted((run / "checkpoints").iterdir())[-1]
    shutil.rmtree(sorted((run / "checkpoints").iterdir())[0])
    if chance.random() < 0.6:  # by somebody who can compute digests
        path = newest / MANIFEST
        tree = json.loads(path.read_text())
        tree.pop("digest")
        if chance.random() < 0.3:
            name = chance.choice(list(tree["files"]))
            tree["files"]["../../../outside/secret.safetensors"] = tree["files"].pop(name)
        else:
            tree = grown(tree, chance)
        body = dumped(tree)
        path.write_text(sealed(body[:-1]) if body.endswith("}") else body)
    elif chance.random() < 0.5:
        tensors_of(newest, chance)
    else:
        spoil(chance.choice(sorted(newest.iterdir())), chance)


def tensors_of(folder: Path, chance: random.Random) -> None:
    """Other tensors in a file of a checkpoint, with right checksums."""
    path = chance.choice(sorted(folder.glob("*.safetensors")))
    strange_tensors(path, chance)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest.pop("digest")
    data = path.read_bytes()
    manifest["files"][path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / MANIFEST).write_text(sealed(json.dumps(manifest)[:-1]))


def strange_tensors(path: Path, chance: random.Random) -> None:
    tensors = load_file(path)
    for name in chance.sample(sorted(tensors), min(3, len(tensors))):
        t = tensors.pop(name)
        match chance.randrange(6):
            case 0:
                pass
            case 1:
                tensors[name] = t.reshape(-1)[:1].clone()
            case 2:
                tensors[name] = t.to(
                    chance.choice((torch.float64, torch.int64, torch.bool, torch.complex64, torch.float16))
                )
            case 3:
                tensors[name + chance.choice(("x", "..", "/../x"))] = t
            case 4:
                tensors[name] = torch.full_like(t, float("nan")) if t.is_floating_point() else t
            case _:
                tensors[name] = torch.zeros(0, *t.shape[1:])
    save_file(tensors, path, {"format": "pt"})


def read_checkpoint(folder: Path, good: Path) -> None:
    catgan.load(folder / "run")([0], [0]).array  # noqa: B018


def make_export(folder: Path, good: Path, chance: random.Random) -> None:
    export = copy(good / "export", folder)
    if chance.random() < 0.4:
        path = export / "model.safetensors"
        if chance.random() < 0.5:
            strange_tensors(path, chance)
        else:
            header_of(path, chance)
        if chance.random() < 0.8:
            without_sums(export)
    else:
        spoil(export / "config.json", chance)


def without_sums(export: Path) -> None:
    """As older exports are: what comes behind the comparison of checksums is to be reached."""
    about = json.loads((export / "config.json").read_text())
    del about["sha256"]
    (export / "config.json").write_text(json.dumps(about))


def header_of(path: Path, chance: random.Random) -> None:
    """Another header before the same tensors: offsets, shapes and kinds that are untrue."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = dumped(grown(json.loads(data[8 : 8 + length]), chance)).encode()
    claimed = chance.choice((len(header),) * 3 + (2**63, 0, len(header) + 10**9))
    path.write_bytes(struct.pack("<Q", claimed) + header + data[8 + length :])


def read_export(folder: Path, good: Path) -> None:
    pipe = catgan.load(folder / "export")
    pipe([0], [0]).array  # noqa: B018
    repr(pipe)


def make_styles(folder: Path, good: Path, chance: random.Random) -> None:
    path = copy(good / "styles.safetensors", folder)
    if chance.random() < 0.5:
        header_of(path, chance)
    else:
        spoil(path, chance)


def read_style_file(folder: Path, good: Path) -> None:
    read_styles(folder / "styles.safetensors", catgan.load(good / "export"))


def make_names(folder: Path, good: Path, chance: random.Random) -> None:
    names = [str(strange(chance, 0)) for _ in range(3)]
    (folder / "names.json").write_text(json.dumps(names))


def read_onnx_metadata(folder: Path, good: Path) -> None:
    """What a file says of itself is read back as it was, whatever the classes are called."""
    import onnx as format

    pipe = catgan.load(good / "export")
    pipe.class_names = tuple(json.loads((folder / "names.json").read_text()))
    entries = onnx.metadata(pipe, onnx.build(pipe.generator, "z", False, 1.0))
    model = format.ModelProto()
    onnx.describe(model, entries)
    again = format.ModelProto.FromString(model.SerializeToString())
    assert {p.key: p.value for p in again.metadata_props} == entries
    assert json.loads(entries["class_names"]) == list(pipe.class_names)


def make_onnx(folder: Path, good: Path, chance: random.Random) -> None:
    """A model in a format that catgan writes and does not read: damaged, or with weights in a file elsewhere."""
    import onnx as format

    model = format.ModelProto.FromString((good / "export.onnx").read_bytes())
    if chance.random() < 0.5:
        tensor = chance.choice(model.graph.initializer)
        tensor.ClearField("raw_data")
        tensor.data_location = format.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=chance.choice(("../outside/secret.arrow", "/etc/passwd")))
    data = model.SerializeToString()
    name = chance.choice(("model.onnx", "config.json", "model.safetensors"))
    place = folder if name == "model.onnx" else copy(good / "export", folder)
    if name == "model.safetensors":
        without_sums(place)
    (place / name).write_bytes(data if chance.random() < 0.3 else damaged(data, chance))


def read_onnx(folder: Path, good: Path) -> None:
    (path,) = folder.iterdir()
    catgan.load(path)([0], [0]).array  # noqa: B018


# -- data --------------------------------------------------------------------------------------------------------------


@cache
def pictures() -> dict[str, bytes]:
    """A picture in every format that this Pillow writes."""
    Image.init()
    made = {}
    for kind in sorted(Image.SAVE):
        for mode in ("RGB", "L", "1", "P", "RGBA", "CMYK", "I;16", "F"):
            file = io.BytesIO()
            with contextlib.suppress(Exception):
                Image.effect_noise((24, 20), 60).convert("L" if "16" in mode or mode == "F" else mode).convert(
                    mode
                ).save(file, kind)
                if file.getvalue():
                    made[f"{kind} {mode}"] = file.getvalue()
    return made


def make_picture(folder: Path, good: Path, chance: random.Random) -> None:
    data = chance.choice(list(pictures().values()))
    (folder / "a.png").write_bytes(data if chance.random() < 0.1 else damaged(data, chance))


def read_picture(folder: Path, good: Path) -> None:
    with contextlib.suppress(BrokenError):
        to_picture((folder / "a.png").read_bytes(), 8, 3, "center")
    source = Folder(folder)
    source.read(0, 1)


def make_archive(folder: Path, good: Path, chance: random.Random) -> None:
    suffix, data = hostile_archive(chance.choice(list(pictures().values())), chance)
    if chance.random() < 0.5:
        data = damaged(data, chance)
    (folder / f"a{suffix}").write_bytes(data)


def read_archive(folder: Path, good: Path) -> None:
    (path,) = folder.iterdir()
    prepared(path)


def prepared(path: Path | str, *options: str) -> None:
    """Prepare data of a source, in a folder that does not count."""
    how = ("--size", "8", "--workers", "1", "--max-broken", "0.9")
    by_command("prepare", str(path), f"{tempfile.gettempdir()}/{APART}/data", *how, *options)


def make_idx(folder: Path, good: Path, chance: random.Random) -> None:
    for name in ("images", "labels"):
        data = (good / f"{name}.idx").read_bytes()
        data = damaged(data, chance) if chance.random() < 0.7 else data
        packed = chance.random() < 0.3
        data = gzip.compress(data) if packed else data
        data = damaged(data, chance) if packed and chance.random() < 0.5 else data
        (folder / f"train-{name}-idx{3 if name == 'images' else 1}-ubyte{'.gz' if packed else ''}").write_bytes(data)


def read_idx_files(folder: Path, good: Path) -> None:
    read_pair(folder, "train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    prepared(folder)


def make_prepared(folder: Path, good: Path, chance: random.Random) -> None:
    data = copy(good / chance.choice(("prepared", "jpegs")), folder)
    shard = next(data.glob("*.arrow"))
    meta = json.loads((data / "catgan.json").read_text())
    if chance.random() < 0.5:
        shard.write_bytes(damaged(shard.read_bytes(), chance))
        meta["shards"][0]["bytes"] = shard.stat().st_size
    elif chance.random() < 0.2:
        meta["shards"][0]["file"] = chance.choice(
            ("../../outside/secret.arrow", str(folder.parent / "outside" / "secret.arrow"))
        )
    else:
        meta = grown(meta, chance)
    (data / "catgan.json").write_text(dumped(meta))


def read_prepared(folder: Path, good: Path) -> None:
    (path,) = folder.iterdir()
    data = Prepared(path)
    data.batch(np.arange(len(data)), 0, 0)
    data.identity  # noqa: B018


COLUMNS = ("--image-column", "image", "--label-column", "label")


def make_table(folder: Path, good: Path, chance: random.Random) -> None:
    """A Hugging Face dataset as `save_to_disk` writes it: prepared data are one."""
    data = copy(good / "jpegs", folder)
    (data / "catgan.json").unlink()
    spoil(chance.choice([p for p in sorted(data.iterdir()) if p.suffix in (".arrow", ".json")]), chance)


def read_table(folder: Path, good: Path) -> None:
    prepared(folder / "jpegs", *COLUMNS)


PARQUET = "a.parquet"


def make_parquet(folder: Path, good: Path, chance: random.Random) -> None:
    """A folder of Parquet files, as the hub has them."""
    data = (good / PARQUET).read_bytes()
    match chance.randrange(6):
        case 0:
            data = damaged(data, chance)
        case 1:  # the footer: the schema and where everything lies
            (length,) = struct.unpack("<I", data[-8:-4])
            start = len(data) - 8 - length
            data = data[:start] + damaged(data[start:], chance)
        case 2:  # what Hugging Face's library reads of the columns' kinds
            table = pq.read_table(io.BytesIO(data))
            about = dumped(grown(json.loads(table.schema.metadata[b"huggingface"]), chance))
            table = table.replace_schema_metadata({b"huggingface": about.encode("utf-8", "surrogatepass")})
            data = parquet(table)
        case 3:
            data = parquet(odd_table(chance))
        case 4:  # pictures that lie elsewhere
            table, outside = pq.read_table(io.BytesIO(data)), folder.parent / "outside" / "secret.png"
            path = chance.choice(
                (str(outside), "../outside/secret.png", "/dev/zero", "/etc/hostname", "", "\x00", None)
            )
            pictures = [{"bytes": None, "path": path}] * len(table)
            column = pa.array(pictures, table.schema.field("image").type)
            data = parquet(table.set_column(0, table.schema.field("image"), column))
        case _:  # a description that names files elsewhere
            files = chance.choice(("../outside/*", str(folder.parent / "outside" / "secret.parquet"), *WORDS[:4]))
            card = yaml.safe_dump(grown({"configs": [{"config_name": "default", "data_files": files}]}, chance))
            (folder / "README.md").write_text(f"---\n{card}---\n", "utf-8", "surrogateescape")
    (folder / PARQUET).write_bytes(data)


def parquet(table: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def odd_table(chance: random.Random) -> Any:
    """Columns of other kinds than pictures and class numbers."""
    picture = chance.choice(list(pictures().values()))
    columns: list[Any] = [
        [1, 2, None],
        [1.5, float("nan"), float("inf")],
        ["a", "../x", None],
        [picture, b"", None],
        [[picture], [], None],
        [[[1]], [[2, 3]], []],
        [{"bytes": picture}, {"bytes": None}, None],
        [{"bytes": picture, "path": 1}] * 3,
        [{"bytes": "x", "path": None}, {"bytes": "y", "path": "z"}, None],
        [{"bytes": {"bytes": picture}, "path": ["x"]}] * 3,
        [2**62, -(2**62), 0],
        [None] * 3,
    ]
    names = chance.choice(
        (("image", "label"), ("image", "image"), ("", "label"), ("label", "x\ny"), ("i" * 500, "label"))
    )
    table = pa.table([pa.array(chance.choice(columns)) for _ in names], names=list(names))
    kinds = (
        {"image": {"_type": "Image"}},
        {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a"]}},
    )
    about = {"info": {"features": chance.choice(kinds)}}
    return table.replace_schema_metadata({"huggingface": json.dumps(about)}) if chance.random() < 0.5 else table


def read_parquet(folder: Path, good: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = Path(tempfile.gettempdir(), APART, "cache")
    try:
        prepared(f"hf:{folder}")
    except UserError:
        prepared(f"hf:{folder}", *COLUMNS)


def make_npz(folder: Path, good: Path, chance: random.Random) -> None:
    kind = chance.choice(("images", "statistics", "pickle", "pickle"))
    path = folder / "a.npz"
    if kind == "pickle":
        arrays = {
            chance.choice(("arr_0", "mu")): np.array([{"a": strange(chance)}], dtype=object),
            "arr_1": np.arange(1),
        }
        np.savez(path, **arrays)
    else:
        shutil.copy(good / f"{kind}.npz", path)
    if kind != "pickle" or chance.random() < 0.5:
        path.write_bytes(damaged(path.read_bytes(), chance))


def read_both(folder: Path, good: Path) -> None:
    path, faults = folder / "a.npz", []
    for read in (lambda: Npz(path).read(0, 9), lambda: read_npz(path)):
        try:
            read()
        except UserError as error:
            faults.append(error)
    for error in faults:
        check_message(str(error))
    if len(faults) == 2:
        raise faults[0]


# -- the studio --------------------------------------------------------------------------------------------------------


@cache
def studio(good: Path) -> tuple[Served, ExitStack]:
    """A studio that serves until the process ends."""
    projection.STARTS = 8
    stack = ExitStack()
    return stack.enter_context(serving(Studio([Model(catgan.load(good / "export"), "it")]))), stack


CONNECTED: list[Any] = []  # to the studio: what a case is to speak through


def make_message(folder: Path, good: Path, chance: random.Random) -> None:
    message = odd_message(chance)
    if isinstance(message, str):
        (folder / "text").write_text(message)
    else:
        (folder / "bytes").write_bytes(message)
    CONNECTED[:] = [studio(good)[0].socket()]


def read_message_file(folder: Path, good: Path) -> None:
    (path,) = folder.iterdir()
    with CONNECTED.pop() as socket:
        socket.send(path.read_text() if path.name == "text" else path.read_bytes())
        data = socket.recv()
    if isinstance(data, str):
        refused_by_studio(json.loads(data))


def make_upload(folder: Path, good: Path, chance: random.Random) -> None:
    (folder / "upload").write_bytes(odd_upload(chance, chance.choice(list(pictures().values()))))
    connection = http.client.HTTPConnection("127.0.0.1", studio(good)[0].port)
    connection.connect()
    CONNECTED[:] = [connection]


def read_upload(folder: Path, good: Path) -> None:
    with contextlib.closing(CONNECTED.pop()) as connection:
        headers = {"Origin": studio(good)[0].origin}
        connection.request("POST", "/project?steps=10", (folder / "upload").read_bytes(), headers)
        last = json.loads(connection.getresponse().read().splitlines()[-1])
    if "result" not in last:
        refused_by_studio(last)


def refused_by_studio(answer: dict[str, Any]) -> NoReturn:
    assert answer["error"] != INTERNAL
    assert str(Path.cwd().parent) not in answer["error"], "an answer that tells where files lie"
    refused(answer["error"])


# -- records -----------------------------------------------------------------------------------------------------------


def make_record(folder: Path, good: Path, chance: random.Random) -> None:
    found = sorted(Path(__file__).parents[2].glob("records/consistency/*/*.json"))[0]
    shutil.copy(found, folder / "a.json")
    spoil(folder / "a.json", chance)


def read_record_file(folder: Path, good: Path) -> None:
    read_record(folder / "a.json")


def make_run(folder: Path, good: Path, chance: random.Random) -> None:
    run = copy(good / "run", folder)
    names = ("config.yaml", "run.json", "metrics.jsonl", "evaluations/one.json")
    path = run / chance.choice(names)
    if path.suffix == ".jsonl" and chance.random() < 0.7:
        rows = [grown(json.loads(line), chance) for line in path.read_text().splitlines()]
        path.write_text("".join(dumped(row) + "\n" for row in rows))
    else:
        spoil(path, chance)


def read_run_folder(folder: Path, good: Path) -> None:
    found = read_run(folder / "run")
    found.terms, found.step, found.epochs_per_step, found.latest("eval/"), found.points("generator/loss")
    for one in found.evaluations:
        one.key(), one.features, [one.title(m) for m in one.metrics]


READERS = {
    "configuration": Reader(make_yaml, read_yaml),
    "options": Reader(make_options, read_options),
    "checkpoint": Reader(make_checkpoint, read_checkpoint),
    "export": Reader(make_export, read_export),
    "styles": Reader(make_styles, read_style_file),
    "ONNX metadata": Reader(make_names, read_onnx_metadata),
    "ONNX file": Reader(make_onnx, read_onnx),
    "picture": Reader(make_picture, read_picture),
    "archive": Reader(make_archive, read_archive),
    "IDX": Reader(make_idx, read_idx_files),
    "prepared data": Reader(make_prepared, read_prepared),
    "Arrow table": Reader(make_table, read_table),
    "Parquet": Reader(make_parquet, read_parquet),
    "npz": Reader(make_npz, read_both),
    "studio message": Reader(make_message, read_message_file),
    "studio upload": Reader(make_upload, read_upload),
    "record": Reader(make_record, read_record_file),
    "run directory": Reader(make_run, read_run_folder),
}


def check_message(text: str) -> None:
    """Raise AssertionError for what is not one line of at most 400 characters."""
    assert len(text) <= 400, f"a message of {len(text)} characters: {text[:300]}"
    assert text.strip()
    assert text.isprintable(), f"a message that is no line: {text[:300]!r}"
