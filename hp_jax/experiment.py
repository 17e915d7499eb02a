"""The steps of an experiment on text classification, each keeping its results in the experiment's folder.

    out/model/                      the fine-tuned model             (finetune)
    out/train/                      its last training states
    out/importance/                 sums of head importance          (importance)
    out/importance_gradients/       each example's gate gradients, on request
    out/ablation/SET/               every mask on every example      (ablate)
    out/pruning/ORDER/ranking/      scores and masks of each step    (prune)
    out/pruning/ORDER/test/         the curve's masks on every test example
    out/pruning/oracle/select/      the ablations behind the oracle order, if out/ablation has them on another split

All but `model` and `train` are stores (`hp_jax.store`). A step that is finished is not done again; one that was interrupted
goes on; one whose input has changed is refused.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from hp_jax import fingerprint, heads
from hp_jax.checkpoint import is_model
from hp_jax.config import Experiment
from hp_jax.data import source
from hp_jax.data.batching import batches
from hp_jax.data.text import overlap
from hp_jax.data.tokenizer import Examples
from hp_jax.files import read_json
from hp_jax.grid import evaluate_grid
from hp_jax.importance import Sums, example_gradients, head_importance, normalize_rows, sum_importance
from hp_jax.loading import save_classifier
from hp_jax.models.classification import Classification
from hp_jax.progress import track
from hp_jax.pruning import oracle_scores, prune
from hp_jax.sharding import data_mesh
from hp_jax.store import Items
from hp_jax.subject import Subject, load, load_subject, provenance, results
from hp_jax.task import Batch, Params
from hp_jax.train import train

log = logging.getLogger("hp_jax")

SETS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "one_off": heads.one_off,
    "one_on": heads.one_on,
    "pairs": heads.pairs,
}
PART = 32
"""Batches of importance that are saved together."""


# --- fine-tuning -----------------------------------------------------------------------------------------------------------


def finetune(config: Experiment) -> None:
    """Fine-tunes `config.model` into out/model."""
    out, recipe = Path(config.out), config.train
    subject = load_subject(config, config.model, fresh=True)
    training, judging = subject.examples(recipe.split), subject.examples(recipe.evaluate)
    inputs = {
        "model": subject.digest,
        "data": training.fingerprint(),
        "evaluation data": judging.fingerprint(),
        "recipe": fingerprint.of_json(recipe),
        "seed": str(config.seed),
        "batching": fingerprint.of_json(config.data.buckets),
        "dtype": config.dtype,
    }
    if is_model(out / "model"):
        _check_same(read_json(out / "model" / "config.json").get("training", {}).get("inputs", {}), inputs, out / "model")
        log.info("%s is already fine-tuned", out / "model")
        return

    def epoch_batches(epoch: int) -> Sequence[Batch]:
        shuffle = np.random.default_rng([config.seed, epoch])
        return batches(training, size=recipe.batch, buckets=config.data.buckets, shuffle=shuffle)

    judged = subject.batches(judging)

    def evaluate(params: Params) -> dict[str, float]:
        values = evaluate_grid(subject.task, params, judged, subject.full_AH[None], chunk=1, label="evaluation")
        return _summary(subject.task, values, judging.label_N)

    params, history = train(
        subject.task,
        subject.params,
        epoch_batches,
        evaluate,
        recipe,
        mask_AH=subject.full_AH,
        seed=config.seed,
        mesh=data_mesh(),
        folder=out / "train",
        inputs=inputs,
    )
    about = provenance(config) | {"training": {"inputs": inputs, "history": history}}
    save_classifier(out / "model", subject.task.config, params, subject.tokenizer, about)


def _summary(task: Classification, values: dict[str, np.ndarray], label_N: np.ndarray) -> dict[str, float]:
    sums = task.statistics(values, label_N).sum(-2, dtype=np.int64)
    return {task.metric: float(task.score(sums)[0]), "evaluation loss": float(values["loss"].mean())}


def _check_same(found: dict[str, str], expected: dict[str, str], path: Path) -> None:
    differ = fingerprint.differing(found, expected)
    if differ:
        raise ValueError(f"{path} was made from other input (different {', '.join(differ)}); choose another --out or delete it")


# --- importance ------------------------------------------------------------------------------------------------------------


def importance(config: Experiment) -> np.ndarray:
    """Head importance `[A, H]` on `config.importance.split`, row-normalised as configured; kept in out/importance."""
    return _importance(load(config))


def _importance(subject: Subject) -> np.ndarray:
    settings = subject.config.importance
    examples = subject.examples(settings.split)
    scored = subject.batches(examples)
    starts = range(0, len(scored), PART)
    shape = (len(starts), *subject.full_AH.shape)
    store = results(
        subject,
        "importance",
        "importance",
        splits={"score": settings.split},
        inputs=_importance_inputs(subject, examples),
        fixed={"mask": (("row", "head"), np.asarray(subject.full_AH))},
        items={
            "total": Items(("part", "row", "head"), shape, "float64"),
            "count": Items(("part", "row"), shape[:2], "float64"),
        },
        chunk=1,
    )
    todo = [part for part in range(len(starts)) if not store.done()[part]]
    for part in track(todo, "importance", total=len(starts), done=len(starts) - len(todo), unit=f"x {PART} batches"):
        some = scored[starts[part] : starts[part] + PART]
        sums = sum_importance(subject.task, subject.params, some, subject.full_AH, per=settings.per, kind=settings.kind)
        store.write(part, {"total": np.asarray(sums.total_AH)[None], "count": np.asarray(sums.count_A)[None]})
    if settings.keep_gradients:
        _keep_gradients(subject, examples, scored)
    values = store.read_items()
    return _normalized(subject, Sums(values["total"].sum(0), values["count"].sum(0)).score_AH, subject.full_AH)


def _importance_inputs(subject: Subject, examples: Examples) -> dict[str, str]:
    """Hashes of what the sums depend on; the batching decides which examples a stored part holds."""
    settings, data = subject.config.importance, subject.config.data
    return {
        "data": examples.fingerprint(),
        "settings": fingerprint.of_json([settings.per, settings.kind]),
        "batching": fingerprint.of_json([data.batch, data.batch_tokens, data.buckets]),
    }


def _normalized(subject: Subject, score_AH: np.ndarray, mask_AH: jax.Array) -> np.ndarray:
    order = subject.config.importance.order
    return normalize_rows(score_AH, mask_AH, order=order) if order else score_AH


def _keep_gradients(subject: Subject, examples: Examples, scored: Sequence[Batch]) -> None:
    shape = (len(examples), *subject.full_AH.shape)
    store = results(
        subject,
        "importance_gradients",
        "gradients",
        splits={"score": subject.config.importance.split},
        inputs={"data": examples.fingerprint()},
        fixed={"origin": (("example",), examples.origin_N)},
        items={"gradient": Items(("example", "row", "head"), shape, "float32")},
        chunk=4096,
    )
    if not store.done().all():
        store.write(0, {"gradient": example_gradients(subject.task, subject.params, scored, subject.full_AH)})


# --- ablation and pruning --------------------------------------------------------------------------------------------------


def ablate(config: Experiment) -> None:
    """Evaluates every mask of `config.ablation.sets` on `config.ablation.split` into out/ablation; mask 0 is the full model."""
    subject = load(config)
    for name in config.ablation.sets:
        masks_MAH = np.concatenate([subject.full_AH[None], SETS[name](subject.full_AH)])
        _grid(subject, f"ablation/{name}", name, masks_MAH, {"test": config.ablation.split}, "test")


def prune_orders(config: Experiment) -> None:
    """Prunes in every order of `config.pruning.orders` and measures each curve on `config.pruning.test`, into out/pruning."""
    subject, settings = load(config), config.pruning
    total = len(heads.living_heads(subject.full_AH))
    counts = list(settings.heads) or heads.removal_counts(total, settings.shares)
    counts = counts if counts[0] == 0 else [0, *counts]  # the full model, with which every mask is compared
    _warn_of_overlap(subject, {"score": config.importance.split, "select": settings.select, "test": settings.test})
    for order in settings.orders:
        score_fn, splits, inputs = _order(subject, order)
        masks_MAH = _ranking(subject, order, score_fn, counts, splits, inputs)
        _grid(subject, f"pruning/{order}/test", "pruning", masks_MAH, splits | {"test": settings.test}, "test")


def _order(subject: Subject, order: str) -> tuple[Callable[[jax.Array], np.ndarray], dict[str, str], dict[str, str]]:
    """An order's score function, the splits that it looks at, and hashes of what it depends on."""
    settings = subject.config.importance
    if order == "oracle":
        splits = {"select": subject.config.pruning.select}
        same = splits["select"] == subject.config.ablation.split
        where = "ablation/one_off" if same else "pruning/oracle/select"
        masks_MAH = np.concatenate([subject.full_AH[None], heads.one_off(subject.full_AH)])
        values, label_N = _grid(subject, where, "one_off", masks_MAH, splits, "select")
        metric_M = subject.task.score(subject.task.statistics(values, label_N).sum(-2, dtype=np.int64))
        score_AH = oracle_scores(metric_M[1:], metric_M[0], subject.full_AH)
        return lambda mask_AH: score_AH, splits, {"scores": fingerprint.of_arrays(score_AH)}
    splits = {"score": settings.split}
    if order == "one_shot":
        score_AH = _importance(subject)
        return lambda mask_AH: score_AH, splits, {"scores": fingerprint.of_arrays(score_AH)}
    examples = subject.examples(settings.split)
    scored = subject.batches(examples)

    def re_estimate(mask_AH: jax.Array) -> np.ndarray:
        score_AH = head_importance(subject.task, subject.params, scored, mask_AH, per=settings.per, kind=settings.kind)
        return _normalized(subject, score_AH, mask_AH)

    return re_estimate, splits, _importance_inputs(subject, examples) | {"norm": str(settings.order)}


def _ranking(
    subject: Subject,
    order: str,
    score_fn: Callable[[jax.Array], np.ndarray],
    counts: Sequence[int],
    splits: dict[str, str],
    inputs: dict[str, str],
) -> np.ndarray:
    """The masks of all steps; each step's scores and starting mask are kept, and not computed again."""
    steps = sum(later > earlier for earlier, later in itertools.pairwise([0, *counts]))
    shape = (steps, *subject.full_AH.shape)
    floor = subject.config.pruning.floor
    store = results(
        subject,
        f"pruning/{order}/ranking",
        "ranking",
        splits=splits,
        inputs=inputs | {"steps": fingerprint.of_json([list(counts), floor])},
        fixed={"removed": (("mask",), np.array(counts, np.int32))},
        items={name: Items(("step", "row", "head"), shape, dtype) for name, dtype in (("score", "float64"), ("mask", "bool"))},
        chunk=1,
    )
    place = iter(track(range(steps), f"pruning, {order}", total=steps, unit="steps"))

    def remembered(mask_AH: jax.Array) -> np.ndarray:
        step = next(place)
        if not store.done()[step]:
            store.write(step, {"score": np.asarray(score_fn(mask_AH), np.float64)[None], "mask": np.asarray(mask_AH)[None]})
        return store.read("score")[step]

    return np.asarray(prune(remembered, subject.full_AH, counts, floor=floor))


def _grid(
    subject: Subject, where: str, kind: str, masks_MAH: np.ndarray, splits: dict[str, str], job: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Values of every mask on every example of `splits[job]`, and the labels, from or into a store of kind `grid`."""
    examples = subject.examples(splits[job])
    chunk = subject.config.ablation.masks_at_once
    shape = (len(masks_MAH), len(examples))
    axes = ("mask", "example")
    store = results(
        subject,
        where,
        "grid",
        splits=splits,
        inputs={"data": examples.fingerprint(), "masks": fingerprint.of_arrays(masks_MAH)},
        fixed={
            "masks": (("mask", "row", "head"), np.asarray(masks_MAH)),
            "label": (("example",), examples.label_N),
            "origin": (("example",), examples.origin_N),
        },
        items={"loss": Items(axes, shape, "float32"), "prediction": Items(axes, shape, "int32")},
        chunk=chunk,
        masks=kind,
    )
    scored = subject.batches(examples)
    values = evaluate_grid(subject.task, subject.params, scored, masks_MAH, chunk=chunk, store=store, label=where)
    return values, examples.label_N


def _warn_of_overlap(subject: Subject, splits: dict[str, str]) -> None:
    """Says so if the test split shares examples with another one."""
    read = {job: source.read(subject.config.data, split) for job, split in splits.items()}
    for job in splits:
        shared = overlap(read[job], read["test"])
        if job != "test" and shared:
            log.warning("%d examples of the %s split %s are in the test split %s too", shared, job, splits[job], splits["test"])
