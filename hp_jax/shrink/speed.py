"""What removed heads save: a model timed beside itself with fewer heads, in one process; and what
the compiler says."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib.metadata
import itertools
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
from msgspec import Meta

from hp_jax.architecture import BertConfig, Decoding, Seq2SeqConfig
from hp_jax.formats.families import family_of, task_of
from hp_jax.formats.model import load_model
from hp_jax.formats.reading import Options
from hp_jax.heads import gates, living_heads, removal_counts
from hp_jax.removal import remove_heads
from hp_jax.shrink import costs
from hp_jax.shrink.budget import Order, alone, solve
from hp_jax.shrink.timing import LEAST, alternate, rates_of, ratio_of
from hp_jax.storage.files import check_free, made_folder, sign, write_json
from hp_jax.task import Batch, Params
from hp_jax.typed import Checked, Count, Counts, Natural

log = logging.getLogger("hp_jax")

VARIABLES = (
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TRIM_THRESHOLD_",
    "XLA_FLAGS",
    "LIBTPU_INIT_ARGS",
)
"""Of the environment, those that change times."""
PACKAGES = ("hp_jax", "jax", "jaxlib", "flax", "numpy")


def _bert(layers: int, heads: int, width: int) -> BertConfig:
    ffn, labels = 4 * width, ("a", "b")
    return BertConfig(
        "bert",
        labels,
        30522,
        positions=512,
        types=2,
        layers=layers,
        heads=heads,
        width=width,
        ffn=ffn,
    )


SHAPES: dict[str, BertConfig | Seq2SeqConfig] = {
    "tiny": _bert(2, 2, 128),
    "mini": _bert(4, 4, 256),
    "small": _bert(4, 8, 512),
    "medium": _bert(8, 8, 512),
    "minilm": _bert(6, 12, 384),
    "base": _bert(12, 12, 768),
    "transformer": Seq2SeqConfig(source_vocab=32000, target_vocab=32000, eos=2, pad=1, start=2),
}
"""Google's BERT models, MiniLM with 6 layers, and Vaswani et al.'s translation model (6 + 6 layers,
8 heads, width 512)."""


@dataclasses.dataclass(frozen=True)
class Setting(Checked):
    """What to time; either `model` or `shape` says of what."""

    model: str = ""
    """A model's folder."""
    removed: str = ""
    """The folder of the same model with fewer heads; without it, `shares` of the heads are removed
    at random."""
    shape: str = ""
    """Random weights of one of the SHAPES."""
    shares: tuple[Annotated[float, Meta(gt=0, le=1)], ...] = (
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
        0.8,
        0.9,
    )
    """Of all heads, the least of one random order: rows lose different numbers, as when a model is
    pruned."""
    multiple: Count = 1
    """Rows keep multiples of so many heads, and no more heads in all than without that."""
    batch: Counts = (1, 4, 16, 64)
    length: Counts = (128,)
    """Tokens an example (of a pair: a side), none of them padding."""
    beam: Counts = (1, 4)
    """Of a translation model's search; 1 is greedy."""
    rounds: Count = 5
    """Each side is timed once in each, every other round backwards."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: Natural = 0
    """Of random weights, random heads and random tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.model) == bool(self.shape):
            raise ValueError(
                f"expected a model's folder or --shape, one of the two, but got {self.model!r} "
                f"and {self.shape!r}"
            )
        if self.shape and self.removed:
            raise ValueError(
                f"{self.removed} is the same model with fewer heads, but --shape has random weights"
            )
        if self.shape and self.shape not in SHAPES:
            raise ValueError(
                f"there is no shape {self.shape!r}; the shapes are {', '.join(SHAPES)}"
            )
        if not self.removed and not self.shares:
            raise ValueError("--shares is empty: expected shares of the heads that are removed")


class Side(NamedTuple):
    """One of the models that are compared."""

    task: Any
    params: Params

    def about(self, whole: int) -> dict[str, Any]:
        """How many heads it has of `whole`, and how large it is."""
        left = int(self.task.present_AH.sum())
        return {
            "heads": left,
            "heads_removed": whole - left,
            "share_removed": (whole - left) / whole,
            "heads_per_row": self.task.config.heads_per_row,
            "parameters": costs.parameters(self.params),
            "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(self.params)),
        }


def sides_of(setting: Setting) -> dict[str, Side]:
    """The original first, then the others by name, on the first device."""
    if setting.shape:
        task = task_of(dataclasses.replace(SHAPES[setting.shape], dtype=setting.dtype))
        original = Side(task, jax.jit(task.init)(jax.random.key(setting.seed)))
    else:
        original = _loaded(setting.model, setting.dtype)
    sides = {ORIGINAL: original}
    if setting.removed:
        sides["removed"] = other = _loaded(setting.removed, setting.dtype)
        _check_same(original.task, other.task, setting)
    else:
        order = random_order(original.task.present_AH, setting.seed)
        for share in sorted(set(setting.shares)):
            mask_AH = without_share(original.task.present_AH, order, share, setting.multiple)
            config, params = remove_heads(original.task.config, original.params, mask_AH)
            sides[f"{100 * share:.4g} %"] = Side(task_of(config), jax.device_put(params))
    return sides


def _loaded(folder: str, dtype: str) -> Side:
    model = load_model(folder, Options(dtype=dtype))
    return Side(model.task, jax.device_put(model.params))


def _check_same(original: Any, other: Any, setting: Setting) -> None:
    whole: Any = original.config
    differ = "they differ in more than their heads"
    if (
        type(original) is type(other)
        and dataclasses.replace(other.config, kept=whole.kept) == whole
    ):
        if not (other.present_AH & ~original.present_AH).any():
            return
        differ = "it has heads that the other has not"
    raise ValueError(f"{setting.removed} is not {setting.model} with fewer heads: {differ}")


def random_order(present_AH: np.ndarray, seed: int) -> Order:
    """All heads in a random order; any number of the first of it is a sample without
    replacement."""
    heads = living_heads(present_AH)
    return [heads[place] for place in np.random.default_rng(seed).permutation(len(heads))]


def without_share(
    present_AH: np.ndarray, order: Order, share: float, multiple: int = 1
) -> np.ndarray:
    """The mask `[A, H]` without the first of an order: a share of all heads, as their number
    rounded down."""
    heads = alone(int(present_AH.sum()), present_AH, present_AH.astype(int))
    (count,) = removal_counts(int(heads.whole), [share])
    return solve(
        order, present_AH, {"heads": heads}, "heads", heads.whole - count, multiple=multiple
    ).mask_AH


def random_batch(task: Any, examples: int, length: int, seed: int) -> dict[str, np.ndarray]:
    """Random tokens without padding, of a pair on both sides; ValueError for more positions than
    the model has."""
    config = task.config
    room = config.room
    if room is not None and length > room:
        raise ValueError(f"--length is {length}, but the model has {room} positions")
    random, batch = np.random.default_rng(seed), {}
    for name, shape in task.batch_shapes(examples, length).items():
        if len(shape.shape) == 2 and "types" not in name:
            batch[name] = random.integers(0, config.vocabulary, shape.shape, np.int32)
        elif "length" in name:
            batch[name] = np.full(shape.shape, length, np.int32)
        else:
            batch[name] = np.full(shape.shape, name == "weight_B", shape.dtype)
    return batch


def fixed_length(beam: int, length: int) -> Decoding:
    """A search in which every translation has as many tokens as its source, EOS counted: random
    weights never end alike."""
    return Decoding(beam=beam, max_ratio=1.0, max_extra=-1, min_length=length - 1)


def translate(decoding: Decoding, task: Any, params: Params, batch: Batch) -> Any:
    """The translations of a batch with all heads that the model has."""
    return task.translate(params, batch, gates(task.present_AH, task.present_AH), decoding)


def modes_of(task: Any, setting: Setting, length: int) -> dict[str, Callable[..., Any]]:
    """What is timed, by name: functions of a task, its parameters and a batch."""
    modes: dict[str, Callable[..., Any]] = {FORWARD: costs.forward}
    if family_of(task.config).translates:
        modes |= {
            f"beam {beam}": functools.partial(translate, fixed_length(beam, length))
            for beam in setting.beam
        }
    return modes


# --- timing --------------------------------------------------------------------------------------


def rows_of(sides: Mapping[str, Side], setting: Setting) -> Iterator[dict[str, Any]]:
    """A row for each length, batch, mode and side, as speed.json has them."""
    task = sides[ORIGINAL].task
    whole = int(task.present_AH.sum())
    abouts = {name: side.about(whole) for name, side in sides.items()}
    for length, examples in itertools.product(setting.length, setting.batch):
        batch = jax.device_put(random_batch(task, examples, length, setting.seed))
        flops: dict[str, float] = {}
        for mode, of in modes_of(task, setting, length).items():
            log.info(
                "%s, %d x %d tokens: compiling %d programs", mode, examples, length, len(sides)
            )
            programs = {
                name: costs.compiled(functools.partial(of, side.task), side.params, batch)
                for name, side in sides.items()
            }
            flops = flops or {name: program.sizes.flops for name, program in programs.items()}
            calls = {
                name: functools.partial(programs[name].run, side.params, batch)
                for name, side in sides.items()
            }
            times = alternate(calls, setting.rounds, LEAST)
            tokens = length if family_of(task.config).translates else 0
            for name, program in programs.items():
                ratio = ratio_of(times[ORIGINAL], times[name], setting.seed)
                bound = flops[ORIGINAL] / flops[name] if mode == FORWARD else None
                yield (
                    {"mode": mode, "batch": examples, "length": length, "side": name}
                    | abouts[name]
                    | rates_of(times[name], examples, tokens)
                    | {"ratio": ratio, "flops_share": flops[name] / flops[ORIGINAL], "bound": bound}
                    | {
                        "gain_reached": (ratio["median"] - 1) / (bound - 1)
                        if bound and bound > 1
                        else None
                    }
                    | {"flops": program.sizes.flops if mode == FORWARD else None}
                    | {
                        "temp_bytes": program.sizes.temp_bytes,
                        "program_bytes": program.sizes.program_bytes,
                    }
                )


# --- what is kept --------------------------------------------------------------------------------


def speed(setting: Setting, out: Path, *, force: bool = False) -> list[dict[str, Any]]:
    """Times everything and writes `out`/speed.json; its rows, see `rows_of`.

    ValueError for what does not fit together, and if there is something in `out` (unless `force`).
    """
    check_free(out, force=force)
    sides = sides_of(setting)
    rows: list[dict[str, Any]] = []
    with made_folder(out):
        for row in rows_of(sides, setting):
            rows.append(row)
            write_json(out / "speed.json", about(setting, sides) | {"rows": rows})
            sign(out)
    return rows


def about(setting: Setting, sides: Mapping[str, Side]) -> dict[str, Any]:
    """What was timed, where, and with what; of paths in the command only the last part is kept."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return {
        "command": " ".join(["hp-jax", *words]),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "setting": dataclasses.asdict(setting)
        | {name: Path(getattr(setting, name)).name for name in ("model", "removed")},
        "original": dataclasses.asdict(sides[ORIGINAL].task.config),
        "tokens": "random, without padding; a translation has as many as its source",
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


ORIGINAL = "original"
"""The side that the others are compared with."""


FORWARD = "forward"
"""The mode that has a FLOP bound."""
