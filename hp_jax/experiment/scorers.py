"""What each order of pruning goes by: scores of the heads of a mask."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from hp_jax import heads
from hp_jax.experiment.grids import GridRequest, ablation_folder, fill, losses_of, mask_set
from hp_jax.experiment.scoring import estimator_of, importance, importance_inputs
from hp_jax.experiment.setup import Setup
from hp_jax.experiment.shapley import half_of_values, shapley_values
from hp_jax.importance import head_importance, normalize_rows
from hp_jax.linear import is_classifier, is_of_tokens, linear_map
from hp_jax.metrics import MeanLoss, scores, worth
from hp_jax.orders import Order
from hp_jax.pruning import greedy_scores, oracle_scores, verified
from hp_jax.quadratic import fisher, gauss_newton
from hp_jax.storage import fingerprint
from hp_jax.task import Params

Model = Callable[[np.ndarray], Params]
"""The parameters that a mask's model has."""
Without = Callable[[np.ndarray], np.ndarray]
"""What the loss is without each head of a mask `[A, H]`, or what it is up to a constant."""


class Schedule(NamedTuple):
    """Which heads may go, and how many are gone at each point of a curve."""

    scope_AH: np.ndarray
    counts: list[int]
    floor: int
    """Heads that each row keeps at least."""
    unit: int = 1
    """Heads that go as one."""

    @property
    def steps(self) -> int:
        """In how many steps heads go."""
        return sum(later > earlier for earlier, later in itertools.pairwise(self.counts))

    def next(self, mask_AH: np.ndarray) -> int:
        """How many heads go in the step that starts from a mask."""
        gone = int((self.scope_AH & ~mask_AH).sum())
        return min((count for count in self.counts if count > gone), default=gone) - gone


class Passes(NamedTuple):
    """How often an example goes through the whole model to make an order, its curve not counted; of
    masks that share work each counts in full."""

    forward: int = 0
    backward: int = 0
    """Back to the gates, of one output or of the loss."""
    translated: int = 0
    """Translations that are searched."""


class Scorer(NamedTuple):
    """What an order goes by."""

    score: Callable[[np.ndarray], np.ndarray]
    """Scores `[A, H]` of the heads of a mask."""
    splits: dict[str, str]
    """Those that it looks at, by job."""
    inputs: dict[str, str]
    """Hashes of what it depends on."""
    asks: bool
    """Whether it asks the model at every mask, or has the same scores for all."""
    passes: Passes
    """What it costs, of all steps together."""
    about: Mapping[str, Any] = MappingProxyType({})
    """What else its ranking says."""


def lacks(setup: Setup, order: Order) -> str:
    """Why a task cannot have an order, in words; empty if it can."""
    settings = setup.config.pruning
    if is_classifier(setup.task):
        return ""
    if order == "linear" and settings.linear == "divergence":
        return (
            "pruning.linear is divergence, which is that of a classifier's labels, but this is no "
            "classifier: choose loss"
        )
    return ""


def scorer_of(
    setup: Setup,
    order: Order,
    schedule: Schedule,
    *,
    model: Model | None = None,
    folder: str = "importance",
) -> Scorer:
    """What an order goes by.

    model: the parameters of which orders that ask at every mask ask there; default: the setup's.
    folder: where the one-shot order's importance is kept.
    """
    if order == "one_shot":
        split = setup.config.importance.split
        count = len(setup.examples(split))
        return _fixed(importance(setup, folder), {"score": split}, Passes(count, count))
    if order == "shapley":
        return _shapley(setup)
    if order == "oracle":
        split = setup.config.pruning.select
        count = (int(setup.present_AH.sum()) + 1) * len(setup.examples(split))
        translated = count if setup.metric.of_translations else 0
        return _fixed(_oracle(setup), {"select": split}, Passes(count, translated=translated))
    asked = model or (lambda mask_AH: setup.params)
    if order == "re_estimated":
        return _re_estimated(setup, schedule, asked)
    return _greedy(setup, order, schedule, asked)


def _fixed(score_AH: np.ndarray, splits: dict[str, str], passes: Passes) -> Scorer:
    """The same scores whatever the mask."""
    inputs = {"scores": fingerprint.of_arrays(score_AH)}
    return Scorer(lambda mask_AH: score_AH, splits, inputs, asks=False, passes=passes)


def _oracle(setup: Setup) -> np.ndarray:
    """What is lost without each head alone on `config.pruning.select`."""
    settings, ablation = setup.config.pruning, setup.config.ablation
    shared = settings.select in ablation.splits and not ablation.rows
    name = "groups_off" if settings.unit == "group" else "one_off"
    request = GridRequest(
        ablation_folder(settings.select, name) if shared else "pruning/oracle/select",
        name,
        mask_set(setup, name, setup.present_AH),
        {"test": settings.select},
    )
    store = fill(setup, request)
    values = {name: store.read(name) for name in store.manifest["arrays"]}
    metric = MeanLoss() if settings.oracle == "loss" else setup.metric
    worth_M, present_AH = worth(metric, scores(metric, values)), setup.present_AH
    if name == "one_off":
        return oracle_scores(worth_M[1:], worth_M[0], present_AH)
    gone_MAH = present_AH & (values["masks"][1:] == 0)
    lost_M = (worth_M[0] - worth_M[1:]) / gone_MAH.sum((1, 2))  # each head has its share
    return np.einsum("m,mah->ah", lost_M, gone_MAH)


def _shapley(setup: Setup) -> Scorer:
    """By the Shapley values of the loss."""
    split, found = setup.config.pruning.select, shapley_values(setup)
    masks = 2 * int(setup.present_AH.sum()) * found.draws
    scorer = _fixed(found.value_AH, {"select": split}, Passes(masks * len(setup.examples(split))))
    within = {"within": found.reach()} if np.isfinite(found.reach()) else {}
    return scorer._replace(about={"draws": found.draws} | within)


def half_scorer(setup: Setup, half: int) -> Scorer | None:
    """The Shapley order's, of half 0 or 1 of the examples and draws that are there; None if one of
    them is empty."""
    value_AH = half_of_values(setup, half)
    if value_AH is None:
        return None
    return _fixed(value_AH, {"select": setup.config.pruning.select}, Passes())


def _re_estimated(setup: Setup, schedule: Schedule, model: Model) -> Scorer:
    settings = setup.config.importance
    examples = setup.examples(settings.split)
    scored, estimator = setup.batches_of(examples), estimator_of(setup)

    def score(mask_AH: np.ndarray) -> np.ndarray:
        score_AH = head_importance(
            setup.task, model(mask_AH), scored, mask_AH, estimator=estimator, mesh=setup.mesh
        )
        return normalize_rows(score_AH, mask_AH, norm=settings.norm)

    inputs = importance_inputs(setup, examples) | {"norm": str(settings.norm)}
    count = schedule.steps * len(examples)
    return Scorer(score, {"score": settings.split}, inputs, asks=True, passes=Passes(count, count))


# --- greedy orders -------------------------------------------------------------------------------


def _greedy(setup: Setup, order: Order, schedule: Schedule, model: Model) -> Scorer:
    """The orders in which the next head, or group, to go is the one without which a prediction of
    the loss is least, given those that are gone; it is made of the linear map at the mask of each
    step.  All of it is about groups `[A, G]`, which may be of one head."""
    settings, split = setup.config.pruning, setup.config.importance.split
    examples = setup.examples(split)
    batches, (scope_AH, counts, floor, unit) = setup.batches_of(examples), schedule
    sizes = setup.groups if settings.unit == "group" else [1] * len(scope_AH)
    scope_AG, floor = heads.sum_groups(scope_AH, sizes), floor // unit
    splits, inputs = {"score": split}, {"data": examples.fingerprint()}
    target_NC, judge = None, None
    outputs = len(setup.corpus.labels) - 1 if is_classifier(setup.task) else 1
    maps, measured = schedule.steps, 0
    draws = settings.label_draws if order == "gauss_newton" and is_of_tokens(setup.task) else 0
    if order == "linear":
        inputs["settings"] = fingerprint.of_json([settings.linear])
    if draws:
        inputs["settings"] = fingerprint.of_json([draws, setup.config.seed])
    if order == "linear" and settings.linear == "divergence":
        full = linear_map(setup.task, setup.params, batches, setup.present_AH, mesh=setup.mesh)
        target_NC, maps = full.probabilities(), maps + 1
    if order == "verified":
        chosen = setup.examples(settings.select)
        splits["select"], judge = settings.select, losses_of(setup, chosen)
        inputs |= {"select": chosen.fingerprint()}
        inputs |= {"settings": fingerprint.of_json([settings.proposals])}
        living = int(scope_AG.sum())
        masks = sum(min(settings.proposals, living - gone) for gone in range(counts[-1] // unit))
        measured = masks * len(chosen)

    def score(mask_AH: np.ndarray) -> np.ndarray:
        params, others_AH = model(mask_AH), mask_AH & ~scope_AH
        mask_AG = heads.sum_groups(mask_AH, sizes)
        others_AG, may_AG = mask_AG & ~scope_AG, mask_AG & scope_AG
        found = linear_map(
            setup.task,
            params,
            batches,
            mask_AH,
            draws=draws,
            seed=setup.config.seed,
            mesh=setup.mesh,
        ).by_group(sizes)
        predict: Without = (
            fisher(found).without
            if order == "fisher"
            else gauss_newton(found).without
            if order == "gauss_newton"
            else lambda left_AG: found.without(left_AG, target_NC)
        )

        def predicted(left_AG: np.ndarray) -> np.ndarray:
            return predict(left_AG | others_AG)

        def measure(masks_MAG: np.ndarray) -> np.ndarray:
            masks_MAH = mask_AH & heads.spread_groups(masks_MAG, sizes, mask_AH.shape[1])
            assert judge is not None
            return judge(params, masks_MAH | others_AH).mean(1, dtype=np.float64)

        checked = verified(predicted, measure, settings.proposals, floor=floor)
        last = may_AG.sum() - schedule.next(mask_AH) // unit if judge else may_AG.sum()
        score_AG = greedy_scores(
            lambda left_AG: (checked if left_AG.sum() > last else predicted)(left_AG),
            may_AG,
            floor=floor,
        )
        return heads.spread_groups(score_AG, sizes, mask_AH.shape[1])

    mapped = maps * len(examples)
    passes = Passes(mapped + measured, mapped * (outputs + draws))
    return Scorer(score, splits, inputs, asks=True, passes=passes)
