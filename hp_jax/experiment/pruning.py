"""Pruning in every order, and the curve of each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple, get_args

import numpy as np

from hp_jax import heads
from hp_jax.config import Order, Reduction
from hp_jax.experiment.grids import (
    GridRequest,
    ablation_folder,
    fill,
    mask_set,
    scope_of,
    warn_of_overlap,
)
from hp_jax.experiment.recovery import Method, Recovery
from hp_jax.experiment.results import Results, open_results, write
from hp_jax.experiment.scoring import estimator_of, importance, importance_inputs
from hp_jax.experiment.setup import Setup
from hp_jax.importance import head_importance, normalize_rows
from hp_jax.metrics import MeanLoss, scores, worth
from hp_jax.progress import track
from hp_jax.pruning import oracle_scores, prune
from hp_jax.sharding import agreed
from hp_jax.storage import fingerprint
from hp_jax.storage.files import local_folder
from hp_jax.storage.store import Store
from hp_jax.storage.zarr import Items
from hp_jax.task import Params


def prune_orders(setup: Setup) -> None:
    """Prunes in every order of `config.pruning.orders`, from each scope of `config.pruning.rows`,
    and measures each curve on `config.pruning.test`, into out/pruning; each once more with every
    recovery that is asked for, and those of importance with each of `config.pruning.per`."""
    settings = setup.config.pruning
    _check(setup)
    for order, rows in itertools.product(settings.orders, settings.rows):
        curve = Curve(setup, order, rows)
        scorer = curve.scorer
        masks_MAH = curve.rank(curve.folder, scorer)
        curve.measure(curve.folder, masks_MAH, scorer.splits)
        for method in _methods(setup):
            curve.recover(method, masks_MAH, scorer)
    scored = setup.config.importance
    for per, order in itertools.product(settings.per, settings.orders):
        if per != scored.per and order != "oracle":
            other = setup.having(importance=dataclasses.replace(scored, per=per))
            Curve(other, order, per=per).follow()


def _methods(setup: Setup) -> list[Method]:
    """The recoveries that are asked for."""
    settings = setup.config.pruning
    amounts: dict[Method, int] = {
        "calibrate": settings.calibrate,
        "repair": settings.repair,
        "retrain": settings.retrain_steps,
    }
    return [method for method in get_args(Method) if amounts[method]]


def _check(setup: Setup) -> None:
    """Before anything is computed: a place for recovered models, and a word about splits that share
    examples."""
    config, methods = setup.config, _methods(setup)
    if methods:
        local_folder(config.out)
    splits = {"score": config.importance.split, "select": config.pruning.select}
    splits |= {"retrain": config.train.split} if "retrain" in methods else {}
    warn_of_overlap(setup, splits | {"test": config.pruning.test})


# --- scores --------------------------------------------------------------------------------------


class Scorer(NamedTuple):
    """What an order goes by."""

    score: Callable[[np.ndarray], np.ndarray]
    """Scores `[A, H]` of the heads of a mask."""
    splits: dict[str, str]
    """Those that it looks at, by job."""
    inputs: dict[str, str]
    """Hashes of what it depends on."""


def scorer_of(
    setup: Setup,
    order: Order,
    *,
    model: Callable[[np.ndarray], Params] | None = None,
    folder: str = "importance",
) -> Scorer:
    """What an order goes by.

    model: the parameters of which the re-estimated order asks at a mask; default: the setup's.
    folder: where the one-shot order's importance is kept.
    """
    if order == "oracle":
        return _fixed(_oracle(setup), {"select": setup.config.pruning.select})
    splits = {"score": setup.config.importance.split}
    if order == "one_shot":
        return _fixed(importance(setup, folder), splits)
    examples = setup.examples(splits["score"])
    scored, estimator = setup.batches_of(examples), estimator_of(setup)
    norm = setup.config.importance.norm

    def re_estimate(mask_AH: np.ndarray) -> np.ndarray:
        params = model(mask_AH) if model else setup.params
        score_AH = head_importance(setup.task, params, scored, mask_AH, estimator=estimator)
        return normalize_rows(score_AH, mask_AH, norm=norm)

    inputs = importance_inputs(setup, examples) | {"norm": str(norm)}
    return Scorer(re_estimate, splits, inputs)


def _fixed(score_AH: np.ndarray, splits: dict[str, str]) -> Scorer:
    """The same scores whatever the mask."""
    return Scorer(lambda mask_AH: score_AH, splits, {"scores": fingerprint.of_arrays(score_AH)})


def _oracle(setup: Setup) -> np.ndarray:
    """What is lost without each head alone on `config.pruning.select`."""
    settings, ablation = setup.config.pruning, setup.config.ablation
    shared = settings.select in ablation.splits and not ablation.rows
    request = GridRequest(
        ablation_folder(settings.select, "one_off") if shared else "pruning/oracle/select",
        "one_off",
        mask_set(setup, "one_off", setup.present_AH),
        {"test": settings.select},
    )
    store = fill(setup, request)
    values = {name: store.read(name) for name in store.manifest["arrays"]}
    metric = MeanLoss() if settings.oracle == "loss" else setup.metric
    worth_M = worth(metric, scores(metric, values))
    return oracle_scores(worth_M[1:], worth_M[0], setup.present_AH)


# --- curves --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Curve:
    """One order in which heads go, from all rows or from those of one type of attention."""

    setup: Setup
    order: Order
    rows: str = "all"
    """`all`, or a type of attention or a row."""
    per: Reduction | None = None
    """The reduction of importance, where it is one of `config.pruning.per`."""

    @property
    def folder(self) -> str:
        """Where it is kept, below the experiment's folder."""
        own = f"-{self.per}" if self.per else ""
        return f"pruning/{self.order}{own}" + f".{self.rows}" * (self.rows != "all")

    @property
    def scorer(self) -> Scorer:
        """What the order goes by."""
        folder = f"pruning/importance-{self.per}" if self.per else "importance"
        return scorer_of(self.setup, self.order, folder=folder)

    def follow(self) -> Store:
        """Ranks the heads and measures the curve: the grid of all its points."""
        scorer = self.scorer
        return self.measure(self.folder, self.rank(self.folder, scorer), scorer.splits)

    @property
    def scope_AH(self) -> np.ndarray:
        """The heads that may go."""
        return scope_of(self.setup, () if self.rows == "all" else (self.rows,))

    @property
    def counts(self) -> list[int]:
        """How many heads are gone at each point; 0 first, the full model, with which every mask is
        compared."""
        settings = self.setup.config.pruning
        living = len(heads.living_heads(self.scope_AH))
        counts = list(settings.heads) or heads.removal_counts(
            living, settings.shares, rounding=settings.rounding
        )
        return counts if counts[0] == 0 else [0, *counts]

    def rank(
        self, folder: str, scorer: Scorer, more: Mapping[str, str] | None = None
    ) -> np.ndarray:
        """The masks of all points `[M, A, H]`; each step's scores and the mask that it starts from
        are kept.

        more: hashes of what the scores depend on besides the scorer's own.
        """
        setup, scope_AH, counts = self.setup, self.scope_AH, self.counts
        steps = sum(later > earlier for earlier, later in itertools.pairwise(counts))
        shape, axes = (steps, *setup.present_AH.shape), ("step", "row", "head")
        floor, others_AH = setup.config.pruning.floor, setup.present_AH & ~scope_AH
        inputs = {
            "steps": fingerprint.of_json([counts, floor]),
            "part": fingerprint.of_arrays(scope_AH),
        }
        results = Results(
            folder=f"{folder}/ranking",
            kind="ranking",
            splits=scorer.splits,
            inputs=scorer.inputs | inputs | dict(more or {}),
            fixed={"removed": (("mask",), np.array(counts, np.int32))},
            items={"score": Items(axes, shape, "float64"), "mask": Items(axes, shape, "bool")},
            chunk=1,
        )
        store = open_results(setup, results)
        numbers = iter(track(range(steps), folder, total=steps, unit="steps"))

        def remembered(left_AH: np.ndarray) -> np.ndarray:
            step, mask_AH = next(numbers), left_AH | others_AH
            if not agreed(store.done())[step]:
                score_AH = np.asarray(scorer.score(mask_AH), np.float64)
                write(store, step, {"score": score_AH[None], "mask": mask_AH[None]})
            return store.read("score")[step]

        return prune(remembered, scope_AH, counts, floor=floor) | others_AH[None]

    def measure(
        self,
        folder: str,
        masks_MAH: np.ndarray,
        splits: Mapping[str, str],
        recovery: Recovery | None = None,
    ) -> Store:
        """Evaluates the masks on `config.pruning.test`; `splits` were looked at before."""
        splits = dict(splits) | {"test": self.setup.config.pruning.test}
        request = GridRequest(f"{folder}/test", "pruning", masks_MAH, splits, recovery=recovery)
        return fill(self.setup, request)

    def recover(self, method: Method, masks_MAH: np.ndarray, scorer: Scorer) -> None:
        """Measures the curve of recovered models; where these decide the re-estimated order, it is
        another one."""
        recovery = Recovery(method, self.setup, f"{self.folder}/{method}")
        splits = scorer.splits | {method: recovery.split}
        if method == "retrain" and self.order == "re_estimated":
            own = scorer_of(self.setup, self.order, model=recovery.model)
            own = own._replace(splits=splits)
            masks_MAH = self.rank(recovery.where, own, recovery.inputs)
        self.measure(recovery.where, masks_MAH, splits, recovery)
