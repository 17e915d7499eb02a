"""Pruning in every order, and the curve of each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import get_args

import numpy as np

from hp_jax import heads
from hp_jax.config import Reduction
from hp_jax.experiment.grids import GridRequest, fill, scope_of, warn_of_overlap
from hp_jax.experiment.recovery import Method, Recovery
from hp_jax.experiment.results import Results, open_results, write
from hp_jax.experiment.scorers import Schedule, Scorer, lacks, scorer_of
from hp_jax.experiment.setup import Setup, check_removes
from hp_jax.orders import OF_IMPORTANCE, Order
from hp_jax.progress import track
from hp_jax.pruning import prune
from hp_jax.sharding import agreed
from hp_jax.storage import fingerprint
from hp_jax.storage.files import local_folder
from hp_jax.storage.store import Store
from hp_jax.storage.zarr import Items


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
        if per != scored.per and order in OF_IMPORTANCE:
            other = setup.having(importance=dataclasses.replace(scored, per=per))
            Curve(other, order, per=per).follow()


def _methods(setup: Setup) -> list[Method]:
    """The recoveries that are asked for."""
    settings = setup.config.pruning
    amounts: dict[Method, int] = {
        "calibrate": settings.calibrate,
        "repair": settings.repair,
        "rescale": settings.rescale,
        "retrain": settings.retrain_steps,
    }
    return [method for method in get_args(Method) if amounts[method]]


def _check(setup: Setup) -> None:
    """Before anything is computed: whether the task can have the orders, a place for recovered
    models, and a word about splits that share examples."""
    config, methods = setup.config, _methods(setup)
    check_removes(config)
    _unit(setup)
    for order in config.pruning.orders:
        if words := lacks(setup, order):
            raise ValueError(words)
    if methods:
        local_folder(config.out)
    splits = {"score": config.importance.split, "select": config.pruning.select}
    splits |= {"retrain": config.train.split} if "retrain" in methods else {}
    warn_of_overlap(setup, splits | {"test": config.pruning.test})


def _unit(setup: Setup) -> int:
    """How many heads go as one.  ValueError where that is not one number for all that may go."""
    settings = setup.config.pruning
    if settings.unit == "head":
        return 1
    sizes = {
        int((group_AH & setup.present_AH).sum())
        for group_AH in setup.present_AH & ~heads.groups_off(setup.present_AH, setup.groups)
    }
    if len(sizes) > 1:
        raise ValueError(
            "pruning.unit is group: expected groups of one size, but the model has groups of "
            f"{' and '.join(map(str, sorted(sizes)))} heads"
        )
    size = sizes.pop()
    named = [("pruning.floor", settings.floor)] + [("pruning.heads", n) for n in settings.heads]
    for name, number in named:
        if number % size:
            raise ValueError(
                f"pruning.unit is group: expected whole groups of {size} heads, but {name} has "
                f"{number}"
            )
    return size


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
        return scorer_of(self.setup, self.order, self.schedule, folder=folder)

    def follow(self) -> Store:
        """Ranks the heads and measures the curve: the grid of all its points."""
        scorer = self.scorer
        return self.measure(self.folder, self.rank(self.folder, scorer), scorer.splits)

    @property
    def schedule(self) -> Schedule:
        """The heads that may go, and how many are gone at each point; 0 first, the full model, with
        which every mask is compared."""
        settings = self.setup.config.pruning
        scope_AH = scope_of(self.setup, () if self.rows == "all" else (self.rows,))
        living, size = len(heads.living_heads(scope_AH)), _unit(self.setup)
        counts = list(settings.heads) or [
            size * units
            for units in heads.removal_counts(
                living // size, settings.shares, rounding=settings.rounding
            )
        ]
        counts = counts if counts[0] == 0 else [0, *counts]
        return Schedule(scope_AH, counts, settings.floor, size)

    def rank(
        self, folder: str, scorer: Scorer, more: Mapping[str, str] | None = None
    ) -> np.ndarray:
        """The masks of all points `[M, A, H]`; each step's scores and the mask that it starts from
        are kept.

        more: hashes of what the scores depend on besides the scorer's own.
        """
        setup, (scope_AH, counts, floor, _) = self.setup, self.schedule
        steps = self.schedule.steps
        shape, axes = (steps, *setup.present_AH.shape), ("step", "row", "head")
        others_AH = setup.present_AH & ~scope_AH
        inputs = {
            "steps": fingerprint.of_json([counts, floor]),
            **({"unit": "group"} if setup.config.pruning.unit == "group" else {}),
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
            about={"passes": scorer.passes._asdict(), **scorer.about},
        )
        store = open_results(setup, results)
        numbers = iter(track(range(steps), folder, total=steps, unit="steps"))

        def remembered(left_AH: np.ndarray) -> np.ndarray:
            step, mask_AH = next(numbers), left_AH | others_AH
            if not agreed(store.done())[step]:
                score_AH = np.asarray(scorer.score(mask_AH), np.float64)
                if setup.config.pruning.unit == "group":
                    score_AH = heads.by_group(score_AH, mask_AH, setup.groups)
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
        """Measures the curve of recovered models; where an order asks at every step, it asks the
        retrained models, and is another one."""
        recovery = Recovery(method, self.setup, f"{self.folder}/{method}")
        splits = scorer.splits | {method: recovery.split}
        if method == "retrain" and scorer.asks:
            own = scorer_of(self.setup, self.order, self.schedule, model=recovery.model)
            own = own._replace(splits=splits)
            masks_MAH = self.rank(recovery.where, own, recovery.inputs)
        self.measure(recovery.where, masks_MAH, splits, recovery)
