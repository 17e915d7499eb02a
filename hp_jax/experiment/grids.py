"""Grids of masks in the experiment's folder."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.stats

from hp_jax import heads
from hp_jax.data.splits import folder_name, overlap
from hp_jax.experiment.corpus import Encoded
from hp_jax.experiment.mask_sets import masks_of
from hp_jax.experiment.recovery import Recovery
from hp_jax.experiment.results import Results, open_results
from hp_jax.experiment.scoring import importance
from hp_jax.experiment.setup import Setup
from hp_jax.sharding import agreed
from hp_jax.storage import fingerprint
from hp_jax.storage.store import Store
from hp_jax.task import Params

log = logging.getLogger("hp_jax")

UNLIKELY = 1e-3
"""How seldom guessing is as often wrong as a model whose labels may be in another order."""


@dataclasses.dataclass(frozen=True)
class GridRequest:
    """Every mask (or a part of them) on every example of a split, to be kept below the experiment's
    folder."""

    folder: str
    masks: str
    """The name of the set of masks."""
    masks_MAH: np.ndarray
    splits: Mapping[str, str]
    """Which split had which job; `test` is measured on."""
    part: tuple[int, int] = (1, 1)
    """(i, n): each n-th chunk, from the i-th on."""
    recovery: Recovery | None = None
    """Each mask has a model of its own, which is made, one after another, before the mask is
    evaluated."""


def ablation_folder(split: str, masks: str, rows: Sequence[str] = ()) -> str:
    """The place, below the experiment's folder, of a set of masks on a split; `rows` as in the
    settings of ablations."""
    return f"ablation/{folder_name(split)}/{masks}" + f".{'+'.join(rows)}" * bool(rows)


def fill(setup: Setup, request: GridRequest) -> Store:
    """The store of a grid, filled as far as the request goes; what is there is not done again."""
    settings, masks_MAH = setup.config.ablation, request.masks_MAH
    examples = setup.examples(request.splits["test"])
    grid = setup.grid(
        setup.batches_of(examples),
        masks_MAH,
        label=request.folder,
        postprocess=setup.corpus.postprocess(examples),
        mask=settings.mask_devices,
    )
    fixed, items = setup.corpus.kept(examples, len(masks_MAH))
    recovery = request.recovery
    results = Results(
        folder=request.folder,
        kind="grid",
        splits=request.splits,
        inputs={
            **grid_inputs(setup, examples, masks_MAH),
            **(recovery.inputs if recovery else {}),
        },
        fixed={"masks": (("mask", "row", "head"), masks_MAH), **fixed},
        items=items,
        chunk=1 if recovery else lambda: settings.masks_at_once or grid.chunk(),
        masks=request.masks,
    )
    store = open_results(setup, results)
    if recovery is None:
        grid.fill(store, part=request.part)
    elif not agreed(store.done()).all():
        for number, mask_AH in enumerate(masks_MAH, 1):
            own = dataclasses.replace(grid, params=recovery.model(mask_AH))
            own.fill(store, part=(number, len(masks_MAH)))
    _warn_below_chance(setup, store, request)
    return store


def grid_inputs(setup: Setup, examples: Encoded, masks_MAH: np.ndarray) -> dict[str, str]:
    """Hashes of what the values of masks on examples depend on, besides the model and the code."""
    evaluation = [dataclasses.asdict(setup.task), setup.corpus.about()]
    return {
        "data": examples.fingerprint(),
        "masks": fingerprint.of_arrays(masks_MAH),
        "evaluation": fingerprint.of_json(evaluation),
    }


def _warn_below_chance(setup: Setup, store: Store, request: GridRequest) -> None:
    """Says so if mask 0, the full model, is wrong more often than chance explains."""
    classes = len(setup.corpus.labels)
    if not classes or not store.done()[0]:
        return
    right_N = store.read("prediction")[0] == store.read("label")
    if scipy.stats.binom.cdf(right_N.sum(), len(right_N), 1 / classes) < UNLIKELY:
        log.warning(
            "the full model is right on only %.1f %% of %s, less than chance (%.1f %%): are its "
            "outputs in another order than %s? --data.labels names them in theirs",
            100 * right_N.mean(),
            request.splits["test"],
            100 / classes,
            ", ".join(setup.corpus.labels),
        )


def scope_of(setup: Setup, names: Sequence[str]) -> np.ndarray:
    """The heads `[A, H]` of the rows, or types of attention, with these names; all for none."""
    rows = setup.rows
    unknown = [name for name in names if not heads.rows_named(rows, [name]).any()]
    if unknown:
        raise ValueError(
            f"the model has no attention {unknown[0]!r}; its rows are {', '.join(rows)}"
        )
    return setup.present_AH & (heads.rows_named(rows, names)[:, None] if names else True)


def mask_set(setup: Setup, name: str, scope_AH: np.ndarray) -> np.ndarray:
    """The full mask, and then those of a set that is about the heads of `scope_AH` alone."""
    return masks_of(
        name,
        setup.config.ablation,
        setup.present_AH,
        scope_AH,
        setup.rows,
        lambda: importance(setup),
        setup.groups,
    )


def warn_of_overlap(setup: Setup, splits: Mapping[str, str]) -> None:
    """Says so if the test split shares examples with another one."""
    for job, split in splits.items():
        if job == "test":
            continue
        shared = overlap(setup.text(split), setup.text(splits["test"]))
        if shared:
            log.warning(
                "%d examples of the %s split %s are in the test split %s too",
                shared,
                job,
                split,
                splits["test"],
            )


def losses_of(setup: Setup, examples: Encoded) -> Callable[[Params, np.ndarray], np.ndarray]:
    """The loss of each of some examples of a model under each mask `[M, N]`, without translating
    them."""
    batches = setup.batches_of(examples)
    task = setup.corpus.by_loss().task(setup.model.config)
    chunk = setup.config.ablation.masks_at_once or None

    def losses(params: Params, masks_MAH: np.ndarray) -> np.ndarray:
        grid = setup.grid(batches, masks_MAH, label="masks of the order", task=task, params=params)
        loss_MN: np.ndarray = grid.evaluate(chunk)["loss"]
        return loss_MN

    return losses
