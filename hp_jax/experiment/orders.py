"""All orders of one model beside each other: their curves, and how far two halves of the examples
agree on what each goes by."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import get_args

from hp_jax.config import Experiment
from hp_jax.experiment.pruning import Curve, prune_orders
from hp_jax.experiment.scorers import half_scorer, lacks
from hp_jax.experiment.seeds import check_seeds, prune_seeds
from hp_jax.experiment.setup import Setup, check_removes
from hp_jax.experiment.training import train_if_needed
from hp_jax.orders import OF_IMPORTANCE, Order

HALVED: tuple[Order, ...] = ("one_shot", "linear", "fisher", "gauss_newton", "verified", "shapley")
"""The orders whose first scores are made again of either half of the examples.  Those of
`re_estimated` are `one_shot`'s, and those of `oracle` are in its grid, example by example."""


def compare_orders(experiment: Experiment, orders: Sequence[Order] = ()) -> None:
    """Trains the model unless it is trained, and prunes it in the orders of importance and in
    `orders`, by default in all that the task can have, as `prune_orders` does; the same of the
    seeds of `config.paper.seeds`.

    ValueError, before anything but the training is done, for an order that the task cannot have,
    or if curves have one point.
    """
    check_removes(experiment)
    setup = train_if_needed(experiment)
    check_seeds(setup.config)
    can = [order for order in get_args(Order) if not lacks(setup, order)]
    chosen = tuple(dict.fromkeys((*OF_IMPORTANCE, *(orders or can))))
    settings = dataclasses.replace(setup.config.pruning, orders=chosen)
    setup = setup.having(pruning=settings)
    for rows in settings.rows:
        counts = Curve(setup, "one_shot", rows).schedule.counts
        if not counts[-1]:
            raise ValueError(
                f"no head goes at any point of the curves ({', '.join(map(str, counts))} heads "
                "removed), so there is nothing to compare: choose other pruning.shares or "
                "pruning.heads"
            )
    prune_orders(setup)
    _score_halves(setup)
    prune_seeds(setup)


def _score_halves(setup: Setup) -> None:
    """The scores of the first step of each order, from either half of the examples that it looks
    at, every other one, into out/halves; Shapley values from either half of the draws too."""
    config = setup.config
    for half in (1, 2):
        own = dataclasses.replace(setup, part=(half, 2)).having(
            out=f"{config.out.rstrip('/')}/halves/{half}",
            importance=dataclasses.replace(config.importance, keep_gradients=False),
        )
        for order, rows in itertools.product(config.pruning.orders, config.pruning.rows):
            if order not in HALVED:
                continue
            counts = Curve(setup, order, rows).schedule.counts
            first = next(count for count in counts if count)
            settings = dataclasses.replace(config.pruning, heads=(first,))
            curve = Curve(own.having(pruning=settings), order, rows)
            scorer = half_scorer(setup, half - 1) if order == "shapley" else curve.scorer
            if scorer:
                curve.rank(curve.folder, scorer)
