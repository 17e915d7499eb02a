"""Grids of masks in the experiment's folder."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.data.splits import overlap
from hp_jax.experiment.mask_sets import masks_of
from hp_jax.experiment.recovery import Recovery
from hp_jax.experiment.results import results
from hp_jax.experiment.scoring import _importance
from hp_jax.experiment.setup import Setup
from hp_jax.grid.chunks import chunk_size
from hp_jax.grid.evaluate import fill_grid
from hp_jax.sharding import agreed, device_mesh
from hp_jax.storage import fingerprint
from hp_jax.storage.store import Store

log = logging.getLogger("hp_jax")


def _part(setup: Setup, names: Sequence[str]) -> jax.Array:
    """The heads `[A, H]` of the rows, or types of attention, with these names; all for none."""
    rows = setup.task.rows
    unknown = [
        name
        for name in names
        if name not in rows and name not in {row.split(".")[0] for row in rows}
    ]
    if unknown:
        raise ValueError(
            f"the model has no attention {unknown[0]!r}; its rows are {', '.join(rows)}"
        )
    chosen_A = np.array([not names or row in names or row.split(".")[0] in names for row in rows])
    return setup.present_AH & jnp.asarray(chosen_A)[:, None]


def _masks(setup: Setup, name: str, scope_AH: jax.Array) -> np.ndarray:
    """The full mask, and then those of a set that is about the heads of `scope_AH` alone."""
    settings, rows = setup.config.ablation, setup.task.rows
    return masks_of(name, settings, setup.present_AH, scope_AH, rows, lambda: _importance(setup))


def _grid(
    setup: Setup,
    where: str,
    kind: str,
    masks_MAH: np.ndarray,
    splits: dict[str, str],
    job: str,
    *,
    part: tuple[int, int] = (1, 1),
    recovery: Recovery | None = None,
) -> Store:
    """A store of kind `grid`: values of every mask (or a part of them) on every example of
    `splits[job]`.

    recovery: each mask has a model of its own, which is made, one after another, before the mask is
    evaluated.
    """
    settings, examples = setup.config.ablation, setup.examples(splits[job])
    scored, postprocess = setup.batches(examples), setup.corpus.postprocess(examples)
    fixed, items = setup.corpus.kept(examples, len(masks_MAH))
    store = results(
        setup,
        where,
        "grid",
        splits=splits,
        inputs={
            "data": examples.fingerprint(),
            "masks": fingerprint.of_arrays(masks_MAH),
            "evaluation": fingerprint.of_json(
                [dataclasses.asdict(setup.task), setup.corpus.about()]
            ),
            **(recovery.inputs if recovery else {}),
        },
        fixed={"masks": (("mask", "row", "head"), np.asarray(masks_MAH)), **fixed},
        items=items,
        chunk=1
        if recovery
        else lambda: (
            settings.masks_at_once or chunk_size(setup.task, setup.params, scored, len(masks_MAH))
        ),
        masks=kind,
    )
    mesh = device_mesh(mask=settings.mask_devices) if settings.mask_devices else None
    fill = functools.partial(fill_grid, setup.task, mesh=mesh, postprocess=postprocess, label=where)
    if recovery is None:
        fill(setup.params, scored, masks_MAH, store, part=part)
    elif not agreed(store.done()).all():
        for place, mask_AH in enumerate(masks_MAH, 1):
            fill(recovery.model(mask_AH), scored, masks_MAH, store, part=(place, len(masks_MAH)))
    return store


def _warn_of_overlap(setup: Setup, splits: dict[str, str]) -> None:
    """Says so if the test split shares examples with another one."""
    read = {job: setup.corpus.read(split) for job, split in splits.items()}
    for job in splits:
        shared = overlap(read[job], read["test"])
        if job != "test" and shared:
            log.warning(
                "%d examples of the %s split %s are in the test split %s too",
                shared,
                job,
                splits[job],
                splits["test"],
            )
