"""The commands that take folders in place of an experiment: reports, and models made smaller, timed
and given back."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

Words = argparse.Namespace


def report(words: Words) -> None:
    """Writes the page of an experiment's results and prints where it is."""
    from hp_jax.report.page import write_report
    from hp_jax.storage.files import local_folder

    print(write_report(local_folder(words.folder)))


def _grid_status(words: Words) -> None:
    from hp_jax.storage import status

    found = status.statuses(words.folder, verify=words.verify)
    print(json.dumps(found, indent=1) if words.json else status.as_text(found, words.folder))
    damaged = sum("error" in one for one in found)
    if damaged:
        raise OSError(f"{damaged} of the {len(found)} stores in {words.folder} cannot be read")


def _convert(words: Words) -> None:
    from hp_jax.formats import model

    model.convert(words.model, Path(words.folder), force=words.force)


def _remove(words: Words) -> None:
    from hp_jax.shrink import remove

    budget = None
    if words.order or words.keep:
        if not (words.order and words.keep):
            raise ValueError(
                "--order says which heads go first and --keep how much stays: expected both, but "
                "one is missing"
            )
        of, most = words.keep[0], words.keep[1]
        if of not in ("heads", "parameters", "flops", "latency") or not _is_number(most):
            raise ValueError(
                f"--keep is {of} {most}, but heads, parameters, flops or latency and a number "
                "were expected"
            )
        options = {name: getattr(words, name) for name in ("floor", "multiple", "table", "batch")}
        budget = remove.Budget(words.order, of, float(most), **options)
    given = sum(map(bool, (words.heads, words.mask, budget)))
    if given != 1:
        raise ValueError(
            f"expected one of --heads, --mask, or --order with --keep, but got {given or 'none'} "
            "of them"
        )
    options = {
        "off": words.heads,
        "mask": words.mask,
        "budget": budget,
        "length": words.length,
        "force": words.force,
    }
    print(remove.remove(words.model, Path(words.folder), **options))


def _is_number(text: str) -> bool:
    try:
        return 0 <= float(text) < math.inf
    except ValueError:
        return False


def _export(words: Words) -> None:
    from hp_jax.architecture import Decoding
    from hp_jax.formats import export, model

    options = {
        "decoding": Decoding(beam=words.beam),
        "source_length": words.source_length,
        "force": words.force,
    }
    export.export(model.load_model(words.model), Path(words.folder), words.to, **options)


def _speed(words: Words) -> None:
    import jax

    from hp_jax.report.sections.speed import write
    from hp_jax.shrink import speed

    names = (
        "model",
        "removed",
        "shape",
        "shares",
        "multiple",
        "batch",
        "length",
        "beam",
        "rounds",
        "dtype",
        "seed",
    )
    given = {name: getattr(words, name) for name in names if getattr(words, name) is not None}
    given = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    rows = speed.speed(speed.Setting(**given), Path(words.out), force=words.force)
    print(write(rows, Path(words.out), jax.devices()[0].device_kind))
    print(Path(words.out) / "speed.json")


# --- their words ---------------------------------------------------------------------------------


def add_commands(commands: Any) -> None:
    """Adds them to argparse's sub-commands; each has its function as `call`."""
    convert = commands.add_parser(
        "convert", help="a model of another library as a model folder of hp_jax"
    )
    convert.add_argument("model", help="the folder of a Hugging Face, fairseq or Marian model")
    convert.add_argument("folder", help="the new folder")
    convert.add_argument("--force", action="store_true", help="overwrite what is in the folder")
    convert.set_defaults(call=_convert)
    remove = commands.add_parser(
        "remove", help="a smaller model: without some heads, or within a budget"
    )
    remove.add_argument("model", help="the folder of a model of hp_jax or of another library")
    remove.add_argument("folder", help="the new folder")
    remove.add_argument(
        "--heads",
        default="",
        help="those that go, such as '1:3,4 2:11' or 'E:1:3 A:2:1,4' (see the README)",
    )
    remove.add_argument(
        "--mask",
        default="",
        help="a file with what stays: .npy [rows, heads], or a line that names what goes",
    )
    order = (
        "what goes first: out/importance, out/pruning/ORDER, or a file with a head a line, such "
        "as cross.0.3"
    )
    remove.add_argument("--order", default="", help=order)
    much = (
        "heads, parameters, flops or latency, and how much of it stays at most: up to 1 a share, "
        "such as heads 0.5"
    )
    remove.add_argument("--keep", nargs=2, default=(), metavar=("WHAT", "MOST"), help=much)
    remove.add_argument(
        "--floor", type=int, default=0, help="heads that every row keeps (default: %(default)s)"
    )
    remove.add_argument(
        "--multiple",
        type=int,
        default=1,
        help="every row keeps a multiple of so many (default: %(default)s)",
    )
    remove.add_argument(
        "--length",
        type=int,
        default=128,
        help="tokens of an example, for FLOPs and latency (default: %(default)s)",
    )
    remove.add_argument("--table", default="", help="for latency, the speed.json of hp-jax speed")
    remove.add_argument(
        "--batch",
        type=int,
        default=1,
        help="for latency, examples a batch in the table (default: %(default)s)",
    )
    remove.add_argument("--force", action="store_true", help="overwrite what is in the folder")
    remove.set_defaults(call=_remove)
    given = commands.add_parser(
        "export", help="a model in a format of other libraries, or as a program that needs none"
    )
    given.add_argument("model", help="the folder of a model of hp_jax or of another library")
    given.add_argument("folder", help="the new folder")
    formats = ("hf", "hf-ragged", "fairseq", "marian", "safetensors", "stablehlo")
    padded = (
        "hf, fairseq and marian have zeros where heads were removed, so they are as large as the "
        "original; the others are not"
    )
    given.add_argument("--to", choices=formats, required=True, help=padded)
    given.add_argument(
        "--beam",
        type=int,
        default=5,
        help="beam search of a translation program (default: %(default)s)",
    )
    given.add_argument(
        "--source-length",
        type=int,
        default=64,
        help="most source tokens of a translation program (default: %(default)s)",
    )
    given.add_argument(
        "--force", action="store_true", help="replace the model that is in the folder"
    )
    given.set_defaults(call=_export)
    speed = commands.add_parser(
        "speed",
        help="how fast a model is beside itself with fewer heads, and what the compiler says",
    )
    speed.add_argument(
        "model", nargs="?", help="the folder of a model of hp_jax or of another library"
    )
    speed.add_argument(
        "removed",
        nargs="?",
        help="the same model with fewer heads; default: random heads are removed",
    )
    speed.add_argument(
        "--shape",
        help="random weights instead: tiny, mini, small, medium, minilm, base, or transformer",
    )
    speed.add_argument(
        "--shares", type=float, nargs="+", help="of the heads removed (default: 0.1 0.2 ... 0.9)"
    )
    speed.add_argument(
        "--multiple", type=int, help="every row keeps a multiple of so many heads (default: 1)"
    )
    speed.add_argument("--batch", type=int, nargs="+", help="examples a batch (default: 1 4 16 64)")
    speed.add_argument(
        "--length",
        type=int,
        nargs="+",
        help="tokens an example, random, without padding (default: 128)",
    )
    speed.add_argument(
        "--beam",
        type=int,
        nargs="+",
        help="of a translation model's search; 1 is greedy (default: 1 4)",
    )
    speed.add_argument(
        "--rounds", type=int, help="in each of which every model is timed (default: 5)"
    )
    speed.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of the computation (default: float32)"
    )
    speed.add_argument("--seed", type=int, help="of random weights, heads and tokens (default: 0)")
    speed.add_argument("--out", required=True, help="a folder for speed.json and the plot")
    speed.add_argument("--force", action="store_true", help="overwrite what is in the folder")
    speed.set_defaults(call=_speed)
    actions = commands.add_parser(
        "grid", help="look at results, also while jobs write them"
    ).add_subparsers(dest="action", required=True, metavar="ACTION")
    status = actions.add_parser(
        "status",
        help="what is done in each store of a folder, what is missing, and how it was made",
    )
    status.add_argument(
        "folder",
        help="an experiment's out folder, or any other folder or bucket path with results in it",
    )
    status.add_argument(
        "--verify", action="store_true", help="read everything, so that damaged files are found"
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(call=_grid_status)
    page = commands.add_parser(
        "report", help="one HTML page, pictures and tables from a folder of results"
    )
    page.add_argument("folder", help="the experiment's out folder")
    page.set_defaults(call=report)
