"""How time grows with masks, with data and with processes that are pinned to a core each."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np
from material import BUCKETS, LABELS, SHAPES, Text, in_buckets, lengths, read_examples, sizes
from timing import Ratio, Side, compare

from hp_jax.architecture import BertConfig
from hp_jax.data.batching import Batch
from hp_jax.formats.model import load_model
from hp_jax.formats.reading import Options
from hp_jax.grid.whole import evaluate_grid
from hp_jax.models.classification import Classification
from hp_jax.task import Params
from hp_jax.text.huggingface import load_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling(Text):
    """How time grows with masks, with data and with processes that are pinned to a core each."""

    shape: Literal["own", "tiny", "mini", "small", "medium", "base"] = "mini"
    examples: int = 64
    masks: tuple[int, ...] = (8, 32, 128, 512)
    """Numbers of masks, the smallest first; multiples of the chunk."""
    times: tuple[int, ...] = (2, 4, 8)
    """How many times the examples, under the smallest number of masks."""
    shared: int = 64
    """Masks that one pinned process does, or two share."""
    chunk: int = 8
    """Masks evaluated at once."""


class Work(NamedTuple):
    """A model and the masks."""

    task: Classification
    params: Params
    masks_MAH: np.ndarray


def make_work(setting: Scaling) -> Work:
    """The model, and masks of which every four in turn are without one head and without a quarter,
    half and three quarters."""
    if setting.shape == "own":
        options = Options(labels=LABELS, fresh=True, seed=setting.seed)
        model = load_model(str(setting.model), options)
        config, params = model.config, model.params
    else:
        layers, count, width = SHAPES[setting.shape]
        shape = {"layers": layers, "heads": count, "width": width, "ffn": 4 * width}
        vocab = load_tokenizer(setting.model).get_vocab_size()
        config = BertConfig("bert", LABELS, vocab=vocab, positions=BUCKETS[-1], types=2, **shape)
        params = jax.jit(Classification(config).init)(jax.random.key(setting.seed))
    task = Classification(config)
    present_AH, total = task.present_AH, int(task.present_AH.sum())
    random, most = np.random.default_rng(setting.seed), max(*setting.masks, setting.shared)
    order_MN = random.permuted(np.tile(np.arange(total), (most, 1)), axis=1)
    off_M = np.resize((1, total // 4, total // 2, 3 * total // 4), most)
    return Work(task, params, (order_MN >= off_M[:, None]).reshape(most, *present_AH.shape))


def evaluate(work: Work, batches: Sequence[Batch], start: int, stop: int, chunk: int) -> None:
    """Some of the masks on some of the data."""
    evaluate_grid(work.task, work.params, batches, work.masks_MAH[start:stop], chunk=chunk)


# --- pinned processes ----------------------------------------------------------------------------


def serve(setting: Scaling) -> None:
    """A pinned process: evaluates masks START to STOP for each line `START STOP` on standard input,
    and says when it has."""
    work, batches = (
        make_work(setting),
        in_buckets(read_examples(setting, setting.examples), setting.batch),
    )
    for line in sys.stdin:
        start, stop = map(int, line.split())
        evaluate(work, batches, start, stop, setting.chunk)
        print("done", flush=True)


@contextlib.contextmanager
def pinned(setting: Scaling, cores: Sequence[int]) -> Iterator[list[subprocess.Popen[str]]]:
    """A process on each core; they have it to themselves from their start, so that JAX starts one
    thread."""
    before, raw = os.sched_getaffinity(0), json.dumps(dataclasses.asdict(setting), default=str)
    started = []
    for core in cores:
        os.sched_setaffinity(0, {core})  # a process inherits the cores of the thread that starts it
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, __file__, raw], **pipes))
        os.sched_setaffinity(0, before)
    try:
        yield started
    finally:
        for process in started:
            process.communicate()


def share_out(processes: Sequence[subprocess.Popen[str]], masks: int) -> None:
    """Equal parts of the masks to the processes; returns when all are done."""
    bounds = np.linspace(0, masks, len(processes) + 1).astype(int).tolist()
    for process, start, stop in zip(processes, bounds, bounds[1:], strict=False):
        process.stdin.write(f"{start} {stop}\n")
        process.stdin.flush()
    for process in processes:
        if process.stdout.readline() != "done\n":
            raise SystemExit("a pinned process failed; see above")


# --- the command ---------------------------------------------------------------------------------


def main(setting: Scaling) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("two processes need two cores, but only one is available")
    work, few = make_work(setting), setting.masks[0]
    examples = {
        times: read_examples(setting, times * setting.examples) for times in (1, *setting.times)
    }
    data = {times: in_buckets(some, setting.batch) for times, some in examples.items()}
    sides = {}
    for masks, times in [
        *((masks, 1) for masks in setting.masks),
        *((few, times) for times in setting.times),
    ]:
        run = functools.partial(evaluate, work, data[times], 0, masks, setting.chunk)
        sides[f"{masks} masks, {times} x data"] = Side(run, masks * times)
    first, *others = sides
    with pinned(setting, cores) as processes:
        for count in (1, 2):
            run = functools.partial(share_out, processes[:count], setting.shared)
            sides[f"{setting.shared} masks, pinned processes: {count}"] = Side(run, setting.shared)
        one, two = list(sides)[-2:]
        ratios = [*(Ratio(name, first) for name in others), Ratio(one, two, ">= 1.8")]
        unit = f"one mask on {setting.examples} examples"
        compare(
            setting,
            unit,
            sides,
            ratios,
            {"model": sizes(work.task.config), "lengths": lengths(examples[1])},
        )


if __name__ == "__main__":
    serve(Scaling(**json.loads(sys.argv[1])))
