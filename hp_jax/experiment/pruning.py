"""Pruning in every order, and the curve of each."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import numpy as np

from hp_jax import heads
from hp_jax.config import Experiment
from hp_jax.experiment.grids import _grid, _masks, _part, _warn_of_overlap
from hp_jax.experiment.recovery import Recovery
from hp_jax.experiment.results import _write, results
from hp_jax.experiment.scoring import _importance, _importance_inputs, _normalized
from hp_jax.experiment.setup import Setup, load
from hp_jax.importance import head_importance
from hp_jax.metrics import MeanLoss, scores, worth
from hp_jax.progress import track
from hp_jax.pruning import oracle_scores, prune
from hp_jax.sharding import agreed
from hp_jax.storage import fingerprint
from hp_jax.storage.files import local_folder
from hp_jax.storage.store import Items
from hp_jax.task import Params

log = logging.getLogger("hp_jax")


def prune_orders(config: Experiment) -> None:
    """Prunes in every order of `config.pruning.orders`, from each part of the heads in
    `config.pruning.rows`, and measures each curve on `config.pruning.test`, into out/pruning;
    and each once more with every recovery that is asked for."""
    setup, settings = load(config), config.pruning
    kinds: dict[Literal["calibrate", "retrain"], int] = {
        "calibrate": settings.calibrate,
        "retrain": settings.retrain_steps,
    }
    if any(kinds.values()):
        local_folder(config.out)  # for the recovered models
    splits = {"score": config.importance.split, "select": settings.select, "test": settings.test}
    _warn_of_overlap(
        setup, splits | ({"retrain": config.train.split} if settings.retrain_steps else {})
    )
    for order, rows in itertools.product(settings.orders, settings.rows):
        scope_AH = _part(setup, () if rows == "all" else (rows,))
        counts = list(settings.heads) or heads.removal_counts(
            len(heads.living_heads(scope_AH)), settings.shares, rounding=settings.rounding
        )
        counts = (
            counts if counts[0] == 0 else [0, *counts]
        )  # the full model, with which every mask is compared
        where = f"pruning/{order}" if rows == "all" else f"pruning/{order}.{rows}"
        score_fn, splits, inputs = _order(setup, order)
        masks_MAH = _ranking(setup, where, score_fn, scope_AH, counts, splits, inputs)
        _grid(
            setup, f"{where}/test", "pruning", masks_MAH, splits | {"test": settings.test}, "test"
        )
        for kind in (kind for kind, amount in kinds.items() if amount):
            recovery = Recovery(kind, setup, f"{where}/{kind}")
            told, own_MAH = splits | {kind: recovery.split}, masks_MAH
            if (
                kind == "retrain" and order == "re_estimated"
            ):  # each step's scores are those of the model that was retrained
                score_fn, _, inputs = _order(setup, order, recovery.model)
                own_MAH = _ranking(
                    setup,
                    recovery.where,
                    score_fn,
                    scope_AH,
                    counts,
                    told,
                    inputs | recovery.inputs,
                )
            told |= {"test": settings.test}
            _grid(
                setup, f"{recovery.where}/test", "pruning", own_MAH, told, "test", recovery=recovery
            )


def _order(
    setup: Setup, order: str, model: Callable[[np.ndarray], Params] | None = None
) -> tuple[Callable[[jax.Array], np.ndarray], dict[str, str], dict[str, str]]:
    """An order's score function, the splits that it looks at, and hashes of what it depends on.

    model: the parameters of which the re-estimated order asks at a mask; default: the setup's.
    """
    settings = setup.config.importance
    if order == "oracle":
        splits = {"select": setup.config.pruning.select}
        ablation = setup.config.ablation
        same = splits["select"] == ablation.split and not ablation.rows
        where = "ablation/one_off" if same else "pruning/oracle/select"
        store = _grid(
            setup, where, "one_off", _masks(setup, "one_off", setup.present_AH), splits, "select"
        )
        values = {name: store.read(name) for name in store.manifest["arrays"]}
        metric = MeanLoss() if setup.config.pruning.oracle == "loss" else setup.metric
        worth_M = worth(metric, scores(metric, values))
        score_AH = oracle_scores(worth_M[1:], worth_M[0], setup.present_AH)
        return lambda mask_AH: score_AH, splits, {"scores": fingerprint.of_arrays(score_AH)}
    splits = {"score": settings.split}
    if order == "one_shot":
        score_AH = _importance(setup)
        return lambda mask_AH: score_AH, splits, {"scores": fingerprint.of_arrays(score_AH)}
    examples = setup.examples(settings.split)
    scored = setup.batches(examples)

    def re_estimate(mask_AH: jax.Array) -> np.ndarray:
        params = model(np.asarray(mask_AH)) if model else setup.params
        score_AH = head_importance(
            setup.task, params, scored, mask_AH, per=settings.per, measure=settings.measure
        )
        return _normalized(setup, score_AH, mask_AH)

    return re_estimate, splits, _importance_inputs(setup, examples) | {"norm": str(settings.norm)}


def _ranking(
    setup: Setup,
    where: str,
    score_fn: Callable[[jax.Array], np.ndarray],
    scope_AH: jax.Array,
    counts: Sequence[int],
    splits: dict[str, str],
    inputs: dict[str, str],
) -> np.ndarray:
    """The masks of all steps, in which only heads of `scope_AH` go; each step's scores and starting
    mask are kept."""
    steps = sum(later > earlier for earlier, later in itertools.pairwise([0, *counts]))
    shape = (steps, *setup.present_AH.shape)
    floor, others_AH = setup.config.pruning.floor, setup.present_AH & ~scope_AH
    store = results(
        setup,
        f"{where}/ranking",
        "ranking",
        splits=splits,
        inputs=inputs
        | {
            "steps": fingerprint.of_json([list(counts), floor]),
            "part": fingerprint.of_arrays(scope_AH),
        },
        fixed={"removed": (("mask",), np.array(counts, np.int32))},
        items={
            name: Items(("step", "row", "head"), shape, dtype)
            for name, dtype in (("score", "float64"), ("mask", "bool"))
        },
        chunk=1,
    )
    place = iter(track(range(steps), where, total=steps, unit="steps"))

    def remembered(scope_AH: jax.Array) -> np.ndarray:
        step, mask_AH = next(place), scope_AH | others_AH
        if not agreed(store.done())[step]:
            score_AH = np.asarray(score_fn(mask_AH), np.float64)
            _write(store, step, {"score": score_AH[None], "mask": np.asarray(mask_AH)[None]})
        return store.read("score")[step]

    return np.asarray(prune(remembered, scope_AH, counts, floor=floor) | others_AH[None])
