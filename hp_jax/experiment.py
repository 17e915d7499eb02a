"""The steps of an experiment, each keeping its results in the experiment's folder.

    out/model/                      the trained model                (train, in hp_jax.fitting)
    out/vocabulary/                 of a new translation model
    out/train/                      the last training states
    out/epochs/NN/                  the model of each epoch, on request
    out/importance/                 sums of head importance          (importance)
    out/importance_gradients/       each example's gate gradients, on request
    out/ablation/SET/               every mask on every example      (ablate)
    out/pruning/ORDER/ranking/      scores and masks of each step    (prune)
    out/pruning/ORDER/test/         the curve's masks on every test example
    out/pruning/ORDER/RECOVERY/     on request, for `calibrate` and `retrain`: a test, and a ranking if it is another one
    out/pruning/ORDER/RECOVERY/models/NN/   the recovered model without NN heads
    out/pruning/oracle/select/      the ablations behind the oracle order, if out/ablation has them on another split

With pruning restricted to one type of attention, ORDER is the order's name and the type's, such as `one_shot.cross`.

All but models and training states are stores (`hp_jax.store`). A step that is finished is not done again; one that was
interrupted goes on; one whose input has changed is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax import fingerprint, heads
from hp_jax.config import Experiment
from hp_jax.corpus import Encoded
from hp_jax.data.text import overlap
from hp_jax.files import local_folder
from hp_jax.fitting import Recovery
from hp_jax.grid import fill_grid
from hp_jax.importance import Sums, example_gradients, head_importance, normalize_rows, sum_importance
from hp_jax.memory import chunk_size
from hp_jax.progress import track
from hp_jax.pruning import oracle_scores, prune
from hp_jax.sets import masks_of
from hp_jax.sharding import agreed, device_mesh, wait_for_all
from hp_jax.store import Items, Store
from hp_jax.subject import Subject, load, results
from hp_jax.task import Batch, Params

log = logging.getLogger("hp_jax")

PART = 32
"""Batches of importance that are saved together."""


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
    todo = np.flatnonzero(~agreed(store.done())).tolist()
    for part in track(todo, "importance", total=len(starts), done=len(starts) - len(todo), unit=f"x {PART} batches"):
        some = scored[starts[part] : starts[part] + PART]
        sums = sum_importance(subject.task, subject.params, some, subject.full_AH, per=settings.per, kind=settings.kind)
        _write(store, part, {"total": np.asarray(sums.total_AH)[None], "count": np.asarray(sums.count_A)[None]})
    if settings.keep_gradients:
        _keep_gradients(subject, examples, scored)
    values = store.read_items()
    return _normalized(subject, Sums(values["total"].sum(0), values["count"].sum(0)).score_AH, subject.full_AH)


def _importance_inputs(subject: Subject, examples: Encoded) -> dict[str, str]:
    """Hashes of what the sums depend on; the batching decides which examples a stored part holds."""
    settings, data = subject.config.importance, subject.corpus.data
    return {
        "data": examples.fingerprint(),
        "settings": fingerprint.of_json([settings.per, settings.kind]),
        "batching": fingerprint.of_json([data.batch, data.batch_tokens, data.buckets]),
    }


def _normalized(subject: Subject, score_AH: np.ndarray, mask_AH: jax.Array) -> np.ndarray:
    order = subject.config.importance.order
    return normalize_rows(score_AH, mask_AH, order=order) if order else score_AH


def _keep_gradients(subject: Subject, examples: Encoded, scored: Sequence[Batch]) -> None:
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
    if not agreed(store.done()).all():
        _write(store, 0, {"gradient": example_gradients(subject.task, subject.params, scored, subject.full_AH)})


def _write(store: Store, start: int, values: Mapping[str, np.ndarray]) -> None:
    """Of several processes, which all have the values, the first writes them."""
    if jax.process_index() == 0:
        store.write(start, values)
    wait_for_all(store.path)


# --- ablation and pruning --------------------------------------------------------------------------------------------------


def ablate(config: Experiment) -> None:
    """Evaluates every mask of `config.ablation.sets` on `config.ablation.split` into out/ablation; mask 0 is the full model."""
    subject, settings = load(config), config.ablation
    part_AH = _part(subject, settings.attention)
    for name, masks_MAH in {name: _masks(subject, name, part_AH) for name in settings.sets}.items():
        splits = {"test": settings.split}
        if name == "prefixes" and settings.order == "importance":
            splits = {"score": config.importance.split} | splits
            _warn_of_overlap(subject, splits)
        store = _grid(subject, f"ablation/{name}", name, masks_MAH, splits, "test", part=settings.part)
        missing = int((~store.done()).sum())
        if missing:
            log.info("part %d of %d of %s is done; %d masks are left to the other parts", *settings.part, store.path, missing)


def _part(subject: Subject, names: Sequence[str]) -> jax.Array:
    """The heads `[A, H]` of the rows, or types of attention, with these names; all for none."""
    rows = subject.task.rows
    unknown = [name for name in names if name not in rows and name not in {row.split(".")[0] for row in rows}]
    if unknown:
        raise ValueError(f"the model has no attention {unknown[0]!r}; its rows are {', '.join(rows)}")
    chosen_A = np.array([not names or row in names or row.split(".")[0] in names for row in rows])
    return subject.full_AH & jnp.asarray(chosen_A)[:, None]


def _masks(subject: Subject, name: str, part_AH: jax.Array) -> np.ndarray:
    """The full mask, and then those of a set that is about the heads of `part_AH` alone."""
    settings, rows = subject.config.ablation, subject.task.rows
    return masks_of(name, settings, subject.full_AH, part_AH, rows, lambda: _importance(subject))


def prune_orders(config: Experiment) -> None:
    """Prunes in every order of `config.pruning.orders`, from each part of the heads in `config.pruning.attention`, and measures
    each curve on `config.pruning.test`, into out/pruning; and each once more with every recovery that is asked for."""
    subject, settings = load(config), config.pruning
    kinds: dict[Literal["calibrate", "retrain"], int] = {"calibrate": settings.calibrate, "retrain": settings.retrain_steps}
    if any(kinds.values()):
        local_folder(config.out)  # for the recovered models
    splits = {"score": config.importance.split, "select": settings.select, "test": settings.test}
    _warn_of_overlap(subject, splits | ({"retrain": config.train.split} if settings.retrain_steps else {}))
    for order, attention in itertools.product(settings.orders, settings.attention):
        part_AH = _part(subject, () if attention == "all" else (attention,))
        counts = list(settings.heads) or heads.removal_counts(
            len(heads.living_heads(part_AH)), settings.shares, rounding=settings.rounding
        )
        counts = counts if counts[0] == 0 else [0, *counts]  # the full model, with which every mask is compared
        where = f"pruning/{order}" if attention == "all" else f"pruning/{order}.{attention}"
        score_fn, splits, inputs = _order(subject, order)
        masks_MAH = _ranking(subject, where, score_fn, part_AH, counts, splits, inputs)
        _grid(subject, f"{where}/test", "pruning", masks_MAH, splits | {"test": settings.test}, "test")
        for kind in (kind for kind, amount in kinds.items() if amount):
            recovery = Recovery(kind, subject, f"{where}/{kind}")
            told, own_MAH = splits | {kind: recovery.split}, masks_MAH
            if kind == "retrain" and order == "re_estimated":  # each step's scores are those of the model that was retrained
                score_fn, _, inputs = _order(subject, order, recovery.model)
                own_MAH = _ranking(subject, recovery.where, score_fn, part_AH, counts, told, inputs | recovery.inputs)
            told |= {"test": settings.test}
            _grid(subject, f"{recovery.where}/test", "pruning", own_MAH, told, "test", recovery=recovery)


def _order(
    subject: Subject, order: str, model: Callable[[np.ndarray], Params] | None = None
) -> tuple[Callable[[jax.Array], np.ndarray], dict[str, str], dict[str, str]]:
    """An order's score function, the splits that it looks at, and hashes of what it depends on.

    model: the parameters of which the re-estimated order asks at a mask; default: the subject's.
    """
    settings = subject.config.importance
    if order == "oracle":
        splits = {"select": subject.config.pruning.select}
        ablation = subject.config.ablation
        same = splits["select"] == ablation.split and not ablation.attention
        where = "ablation/one_off" if same else "pruning/oracle/select"
        store = _grid(subject, where, "one_off", _masks(subject, "one_off", subject.full_AH), splits, "select")
        values = {name: store.read(name) for name in store.manifest["arrays"]}
        worth_M = -values["loss"].sum(1, dtype=np.float64)
        if subject.config.pruning.oracle == "metric":
            worth_M = subject.metric.score(subject.metric.statistics(values).sum(-2, dtype=np.int64))
        score_AH = oracle_scores(worth_M[1:], worth_M[0], subject.full_AH)
        return lambda mask_AH: score_AH, splits, {"scores": fingerprint.of_arrays(score_AH)}
    splits = {"score": settings.split}
    if order == "one_shot":
        score_AH = _importance(subject)
        return lambda mask_AH: score_AH, splits, {"scores": fingerprint.of_arrays(score_AH)}
    examples = subject.examples(settings.split)
    scored = subject.batches(examples)

    def re_estimate(mask_AH: jax.Array) -> np.ndarray:
        params = model(np.asarray(mask_AH)) if model else subject.params
        score_AH = head_importance(subject.task, params, scored, mask_AH, per=settings.per, kind=settings.kind)
        return _normalized(subject, score_AH, mask_AH)

    return re_estimate, splits, _importance_inputs(subject, examples) | {"norm": str(settings.order)}


def _ranking(
    subject: Subject,
    where: str,
    score_fn: Callable[[jax.Array], np.ndarray],
    part_AH: jax.Array,
    counts: Sequence[int],
    splits: dict[str, str],
    inputs: dict[str, str],
) -> np.ndarray:
    """The masks of all steps, in which only heads of `part_AH` go; each step's scores and starting mask are kept."""
    steps = sum(later > earlier for earlier, later in itertools.pairwise([0, *counts]))
    shape = (steps, *subject.full_AH.shape)
    floor, others_AH = subject.config.pruning.floor, subject.full_AH & ~part_AH
    store = results(
        subject,
        f"{where}/ranking",
        "ranking",
        splits=splits,
        inputs=inputs | {"steps": fingerprint.of_json([list(counts), floor]), "part": fingerprint.of_arrays(part_AH)},
        fixed={"removed": (("mask",), np.array(counts, np.int32))},
        items={name: Items(("step", "row", "head"), shape, dtype) for name, dtype in (("score", "float64"), ("mask", "bool"))},
        chunk=1,
    )
    place = iter(track(range(steps), where, total=steps, unit="steps"))

    def remembered(part_AH: jax.Array) -> np.ndarray:
        step, mask_AH = next(place), part_AH | others_AH
        if not agreed(store.done())[step]:
            score_AH = np.asarray(score_fn(mask_AH), np.float64)
            _write(store, step, {"score": score_AH[None], "mask": np.asarray(mask_AH)[None]})
        return store.read("score")[step]

    return np.asarray(prune(remembered, part_AH, counts, floor=floor) | others_AH[None])


def _grid(
    subject: Subject,
    where: str,
    kind: str,
    masks_MAH: np.ndarray,
    splits: dict[str, str],
    job: str,
    *,
    part: tuple[int, int] = (1, 1),
    recovery: Recovery | None = None,
) -> Store:
    """A store of kind `grid`: values of every mask (or a part of them) on every example of `splits[job]`.

    recovery: each mask has a model of its own, which is made, one after another, before the mask is evaluated.
    """
    settings, examples = subject.config.ablation, subject.examples(splits[job])
    scored, finish = subject.batches(examples), subject.corpus.finish(examples)
    fixed, items = subject.corpus.kept(examples, len(masks_MAH))
    store = results(
        subject,
        where,
        "grid",
        splits=splits,
        inputs={
            "data": examples.fingerprint(),
            "masks": fingerprint.of_arrays(masks_MAH),
            "evaluation": fingerprint.of_json([dataclasses.asdict(subject.task), subject.corpus.about()]),
            **(recovery.inputs if recovery else {}),
        },
        fixed={"masks": (("mask", "row", "head"), np.asarray(masks_MAH)), **fixed},
        items=items,
        chunk=1
        if recovery
        else lambda: settings.masks_at_once or chunk_size(subject.task, subject.params, scored, len(masks_MAH)),
        masks=kind,
    )
    mesh = device_mesh(mask=settings.mask_devices) if settings.mask_devices else None
    fill = functools.partial(fill_grid, subject.task, mesh=mesh, finish=finish, label=where)
    if recovery is None:
        fill(subject.params, scored, masks_MAH, store, part=part)
    elif not agreed(store.done()).all():
        for place, mask_AH in enumerate(masks_MAH, 1):
            fill(recovery.model(mask_AH), scored, masks_MAH, store, part=(place, len(masks_MAH)))
    return store


def _warn_of_overlap(subject: Subject, splits: dict[str, str]) -> None:
    """Says so if the test split shares examples with another one."""
    read = {job: subject.corpus.read(split) for job, split in splits.items()}
    for job in splits:
        shared = overlap(read[job], read["test"])
        if job != "test" and shared:
            log.warning("%d examples of the %s split %s are in the test split %s too", shared, job, splits[job], splits["test"])
