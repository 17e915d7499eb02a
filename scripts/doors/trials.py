"""Malformed inputs, made from a seed: what is changed in good material, and the command that is
then tried on it."""

import json
import math
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

WRONG = (None, True, "?", "", math.nan, math.inf, -7, 0.5, 10**7, 10**40, [], {}, [None], {"a": -1})
"""Put in place of values of JSON."""
FLAGS = ("-1", "nan", "inf", "", "x", "1e400", "10000000000000000000000", "0", "-0.5", "\\", "../x")


class Trial(NamedTuple):
    """One malformed input: at which door, what is wrong with it, and the command that is tried."""

    door: str
    what: str
    argv: list[str]
    legal: bool
    """Whether the change may be right, so that another result is no fault."""
    names: tuple[str, ...]
    """One of these is in a clear message."""


Change = Callable[[random.Random, Path], tuple[str, bool]]
"""Changes a file in place; what was done, and whether that may be right."""


# --- changes -------------------------------------------------------------------------------------


def json_value(dice: random.Random, path: Path) -> tuple[str, bool]:
    """Another value somewhere in a JSON file, or a field less."""
    value = json.loads(path.read_text())
    places = list(_places(value))
    place = dice.choice(places)
    at = value
    for key in place[:-1]:
        at = at[key]
    old, name = at[place[-1]], ".".join(map(str, place))
    if dice.random() < 0.12 and isinstance(at, dict):
        del at[place[-1]]
        path.write_text(json.dumps(value))
        return f"{name} removed", True
    new = dice.choice([one for one in WRONG if one is not old and one != old])
    at[place[-1]] = new
    path.write_text(json.dumps(value))
    alike = type(new) is type(old) and not (isinstance(new, float | int) and not 0 <= new < 10**39)
    return f"{name} = {str(new)[:20]}", alike or new is None


def _places(value, path=()) -> Iterator[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in items:
        yield (*path, key)
        if isinstance(below, dict | list) and below:
            yield from _places(below, (*path, key))


def whole_json(dice: random.Random, path: Path) -> tuple[str, bool]:
    """Something else than the object that a JSON file should hold."""
    text = dice.choice(["", "null", "[]", "3", "{", '"x"', "{}", "NaN", "[" * 100_000, "\0"])
    path.write_text(text)
    return f"holds {text[:5]!r}", text == "{}"


def truncated(dice: random.Random, path: Path) -> tuple[str, bool]:
    """Less of the file."""
    content = path.read_bytes()
    size = dice.randrange(len(content))
    path.write_bytes(content[:size])
    return f"first {size} of {len(content)} bytes", path.suffix == ".txt" or path.suffix == ".tsv"


def flipped(dice: random.Random, path: Path) -> tuple[str, bool]:
    """Other bytes near the front, where headers are."""
    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[dice.randrange(min(len(content), 400))] = dice.randrange(256)
    path.write_bytes(content)
    return "3 bytes flipped", True


def lying_sizes(dice: random.Random, path: Path) -> tuple[str, bool]:
    """A large number among the first bytes."""
    content = bytearray(path.read_bytes())
    place = dice.randrange(0, min(len(content) - 8, 64), 8)
    struct.pack_into("<Q", content, place, dice.choice([2**63, 2**40, 2**31, 0]))
    path.write_bytes(content)
    return f"a size at byte {place}", True


def no_file(dice: random.Random, path: Path) -> tuple[str, bool]:
    """Something that is no file, or nothing."""
    kind = dice.choice(["folder", "pipe", "device", "dangling link", "nothing"])
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "nothing":
        path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    return f"a {kind}", kind == "nothing"


def text_lines(dice: random.Random, path: Path) -> tuple[str, bool]:
    """A line that does not belong, at a random place of a text file."""
    lines = path.read_bytes().split(b"\n")
    line = dice.choice(
        [b"\xff\xfe", b"\0", b"a\tb\tc\td", b"x", b"9" * 5000, b"enc.9.9", b"1:99", b"E:1:1 1:1"]
    )
    lines.insert(dice.randrange(len(lines)), line)
    path.write_bytes(b"\n".join(lines))
    return f"a line {line[:12]!r}", True


def tensors(dice: random.Random, path: Path) -> tuple[str, bool]:
    """A tensor of other numbers, another type or shape, or none, in a file of safetensors."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    all_ = load_file(path)
    name = dice.choice(sorted(all_))
    kind = dice.choice(["nan", "inf", "huge", "int64", "bool", "shape", "gone", "more", "empty"])
    x = all_[name]
    made = {
        "nan": lambda: x * np.nan,
        "inf": lambda: np.full_like(x, np.inf),
        "huge": lambda: np.full(x.shape, 1e300),
        "int64": lambda: x.astype(np.int64),
        "bool": lambda: x > 0,
        "shape": lambda: np.concatenate([x, x]),
        "empty": lambda: x[:0],
    }
    if kind == "gone":
        del all_[name]
    elif kind == "more":
        all_[f"{name}.more"] = x.copy()
    else:
        all_[name] = np.ascontiguousarray(made[kind]())
    save_file(all_, path)
    return f"{name} {kind}", False


def array(dice: random.Random, path: Path) -> tuple[str, bool]:
    """Another array in a .npy file."""
    import numpy as np

    kind = dice.choice(["nan", "half", "shape", "object", "text", "3", "empty"])
    x = np.load(path).astype(float)
    made = {
        "nan": x * np.nan,
        "half": x / 2,
        "shape": x[:, :-1],
        "object": np.array([[{}]], object),
        "text": x.astype(str),
        "3": x * 3,
        "empty": x[:0],
    }
    np.save(path, made[kind], allow_pickle=True)
    return f"an array: {kind}", False


def chunk(dice: random.Random, folder: Path) -> tuple[str, bool]:
    """A chunk of a results folder damaged or lost."""
    files = sorted(path for path in folder.rglob("c/*") if path.is_file())
    path = dice.choice(files)
    what, _ = dice.choice([truncated, flipped, no_file])(dice, path)
    return f"{path.relative_to(folder)}: {what}", False


# --- doors ---------------------------------------------------------------------------------------

JSON = (json_value, json_value, json_value, json_value, whole_json, truncated, no_file)
MODELS = {
    "trained": {
        "config.json": JSON,
        "model.safetensors": (tensors, tensors, truncated, flipped, lying_sizes, no_file),
        "vocab.txt": (text_lines, truncated, no_file),
    },
    "hf": {"config.json": JSON, "tokenizer_config.json": JSON, "tokenizer.json": JSON},
    "hf_marian": {
        "config.json": JSON,
        "vocab.json": JSON,
        "tokenizer_config.json": JSON,
        "source.spm": (truncated, flipped, no_file),
        "model.safetensors": (tensors, truncated),
    },
    "flat": {"config.json": JSON, "text.json": JSON, "model.safetensors": (tensors, truncated)},
    "own": {"config.json": JSON, "tokenizer.json": JSON},
    "npz": {"model.npz": (truncated, flipped, no_file), "vocab.spm": (truncated, no_file)},
    "bin": {"model.bin": (truncated, flipped, lying_sizes, no_file)},
}
RESULTS = (
    "importance",
    "ablation/validation/one_off",
    "pruning/one_shot/ranking",
    "pruning/one_shot/test",
)
READERS = (
    ["report", "runs"],
    ["grid", "status", "runs"],
    ["grid", "status", "runs", "--verify"],
    ["remove", "trained", "new", "--order", "runs/importance", "--keep", "heads", "0.5"],
    ["remove", "trained", "new", "--order", "runs/pruning/one_shot", "--keep", "heads", "0.5"],
    ["importance", "config.py"],
    ["prune", "config.py"],
)
NUMBERS = (
    "--seed",
    "--data.max-length",
    "--data.batch",
    "--data.batch-tokens",
    "--data.buckets",
    "--train.learning-rate",
    "--train.epochs",
    "--train.weight-decay",
    "--train.betas",
    "--train.clip",
    "--train.label-smoothing",
    "--importance.norm",
    "--ablation.masks-at-once",
    "--ablation.mask-devices",
    "--ablation.part",
    "--ablation.random.shares",
    "--pruning.floor",
    "--pruning.shares",
    "--pruning.heads",
    "--pruning.calibrate",
    "--pruning.repair",
    "--pruning.rescale",
    "--pruning.precision",
    "--pruning.label-draws",
)
NAMES = ("--importance.split", "--data.task", "--data.path", "--data.label", "--model", "--out")
WORDS = ("", "no such", "http://x/y", "a\\b", "\n", "/dev/null", "~x", "[", "train[5:1]", "\x07")
PYTHON = (
    "x = = 1",
    "if 1:\n\tx = 1\n        y = 2",
    "raise SystemExit(3)",
    "config = 3",
    "from hp_jax.config import *\nconfig = ClassificationExperiment('m')",
    "from hp_jax.config import *\nconfig = ClassificationExperiment(modle='m')",
    "from hp_jax.config import *\nconfig = ClassificationExperiment(seed='x')",
    "from hp_jax.config import *\nconfig = ClassificationExperiment(data=Pruning())",
    "# coding: latin-99",
    "x = '\0'",
    "def f(): f()\nf()",
    "import nothing_there",
    "raise BaseException('x')",
)
HEADS = (
    "9:9",
    "0:1",
    "1:x",
    "E:1:1",
    "enc.0",
    "enc.9.1",
    "enc.0.3-1",
    "1:1 enc.0.1",
    "?",
    ":",
    "-1:1",
)


def model(dice: random.Random) -> Trial:
    """A file of a model is changed, and the model converted."""
    kind = dice.choice(sorted(MODELS))
    name = dice.choice(sorted(MODELS[kind]))
    what, legal = dice.choice(MODELS[kind][name])(dice, Path(kind) / name)
    argv = dice.choice([["convert", kind, "new"], ["export", kind, "new", "--to", "safetensors"]])
    return Trial("models", f"{kind}/{name}: {what}", argv, legal, (kind,))


def results(dice: random.Random) -> Trial:
    """A file of a results folder is changed, and the folder read or gone on with."""
    store = Path("runs") / dice.choice(RESULTS)
    kind = dice.choice(["manifest", "manifest", "manifest", "zarr", "chunk", "chunk"])
    if kind == "chunk":
        what, legal = chunk(dice, store)
    else:
        arrays = sorted(store.glob("*/zarr.json"))
        path = store / "manifest.json" if kind == "manifest" else dice.choice(arrays)
        what, legal = dice.choice(JSON)(dice, path)
        what = f"{path.relative_to(store)}: {what}"
    return Trial("results", f"{store}/{what}", dice.choice(READERS), legal, (str(store), "runs"))


def masks(dice: random.Random) -> Trial:
    """A mask, an order or names of heads."""
    kind = dice.choice(["mask.npy", "masks.txt", "order.txt", "heads", "heads"])
    head = ["remove", "trained", "new"]
    if kind == "heads":
        text = dice.choice(HEADS)
        names = (text, "heads", *text.split())
        legal = text == "E:1:1"  # the authors' word for enc.0.0
        return Trial("masks", f"--heads {text!r}", [*head, "--heads", text], legal, names)
    changes = (
        (array, truncated, no_file) if kind == "mask.npy" else (text_lines, truncated, no_file)
    )
    what, legal = dice.choice(changes)(dice, Path(kind))
    order = ["--order", kind, "--keep", "heads", "0.8"]
    argv = [*head, *(order if kind == "order.txt" else ["--mask", kind])]
    return Trial("masks", f"{kind}: {what}", argv, legal, (kind, "the least is"))


def data(dice: random.Random) -> Trial:
    """A file of text."""
    path = Path("sst2/dev.tsv")
    what, legal = dice.choice([text_lines, truncated, no_file, flipped])(dice, path)
    shutil.rmtree("runs")
    return Trial("data", f"dev.tsv: {what}", ["importance", "config.py"], legal, ("dev", "sst2"))


def flags(dice: random.Random) -> Trial:
    """A value of a flag."""
    shutil.rmtree("runs")
    if dice.random() < 0.3:
        flag, value = dice.choice(NAMES), dice.choice(WORDS)
    else:
        flag, value = dice.choice(NUMBERS), dice.choice(FLAGS)
    argv = ["importance", "config.py", flag, value]
    field = flag.strip("-").replace("-", "_")
    last = field.rpartition(".")[2]
    names = (flag, field, last, value, "folder", "file")
    return Trial("flags", f"{flag} {value!r}", argv, True, names)


def configs(dice: random.Random) -> Trial:
    """A config file."""
    text = dice.choice(PYTHON)
    Path("config.py").write_text(text)
    if dice.random() < 0.2:
        Path("config.py").write_bytes(text.encode("utf-16"))
    if dice.random() < 0.1:
        no_file(dice, Path("config.py"))
    return Trial("configs", repr(text[-40:]), ["importance", "config.py"], False, ("config",))


def folders(dice: random.Random) -> Trial:
    """A command on a folder that is not its own."""
    where = dice.choice(
        ["foreign", ".", "..", "/", "sst2", "runs", "hf", "trained", "order.txt", ""]
    )
    if dice.random() < 0.3:
        where = dice.choice(["link", "pipe", "a/../..", "~", "\n", "http://x/y"])
        if where == "link":
            Path("link").symlink_to("foreign")
        if where == "pipe":
            os.mkfifo("pipe")
    argv = dice.choice(
        [
            ["convert", "own", where, "--force"],
            ["remove", "own", where, "--heads", "1:1", "--force"],
            ["export", "own", where, "--to", "safetensors", "--force"],
            ["report", where],
            ["grid", "status", where],
            ["speed", "own", "--out", where, "--length", "999999"],
            ["convert", where, "new"],
        ]
    )
    legal, names = where in ("hf", "runs", "trained"), (where, os.path.expanduser(where), "folder")
    return Trial("folders", " ".join(argv), argv, legal, names)


DOORS = {
    "models": model,
    "results": results,
    "masks": masks,
    "data": data,
    "flags": flags,
    "configs": configs,
    "folders": folders,
}
"""Each changes what is in the working directory, and says what is to be tried."""
SHARES = {"models": 8, "results": 6, "masks": 2, "data": 1, "flags": 4, "configs": 1, "folders": 2}
"""How often each is taken."""


def make(seed: int, number: int) -> Trial:
    """The trial of that number, of whose material the working directory is a copy."""
    dice = random.Random(f"{seed}-{number}")
    door = dice.choices(sorted(SHARES), [SHARES[name] for name in sorted(SHARES)])[0]
    return DOORS[door](dice)
