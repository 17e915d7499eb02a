"""Every mask of some sets of masks on every example of a split."""

from __future__ import annotations

import itertools
import logging

from hp_jax.config import MaskSet
from hp_jax.experiment.grids import (
    GridRequest,
    ablation_folder,
    fill,
    mask_set,
    scope_of,
    warn_of_overlap,
)
from hp_jax.experiment.setup import Setup
from hp_jax.storage.store import Store

log = logging.getLogger("hp_jax")


def ablate(setup: Setup) -> None:
    """Evaluates every mask of `config.ablation.sets` on each of `config.ablation.splits` into
    out/ablation; mask 0 is the full model."""
    settings = setup.config.ablation
    for split, name in itertools.product(settings.splits, settings.sets):
        store = ablation(setup, name, split)
        missing = int((~store.done()).sum())
        if missing:
            log.info(
                "part %d of %d of %s is done; %d masks are left to the other parts",
                *settings.part,
                store.path,
                missing,
            )


def ablation(setup: Setup, name: MaskSet, split: str) -> Store:
    """The grid of a set of masks on a split, in out/ablation; what is there is not done again."""
    config = setup.config
    settings, splits = config.ablation, {"test": split}
    masks_MAH = mask_set(setup, name, scope_of(setup, settings.rows))
    if name == "prefixes" and settings.order == "importance":
        splits = {"score": config.importance.split} | splits
        warn_of_overlap(setup, splits)
    folder = ablation_folder(split, name, settings.rows)
    return fill(setup, GridRequest(folder, name, masks_MAH, splits, part=settings.part))
