"""Every mask of some sets of masks on every example of a split."""

from __future__ import annotations

import itertools
import logging

from hp_jax.experiment.grids import (
    GridRequest,
    ablation_folder,
    fill,
    mask_set,
    scope_of,
    warn_of_overlap,
)
from hp_jax.experiment.setup import Setup

log = logging.getLogger("hp_jax")


def ablate(setup: Setup) -> None:
    """Evaluates every mask of `config.ablation.sets` on each of `config.ablation.splits` into
    out/ablation; mask 0 is the full model."""
    config = setup.config
    settings, scope_AH = config.ablation, scope_of(setup, config.ablation.rows)
    masks = {name: mask_set(setup, name, scope_AH) for name in settings.sets}
    for split, (name, masks_MAH) in itertools.product(settings.splits, masks.items()):
        splits = {"test": split}
        if name == "prefixes" and settings.order == "importance":
            splits = {"score": config.importance.split} | splits
            warn_of_overlap(setup, splits)
        folder = ablation_folder(split, name, settings.rows)
        request = GridRequest(folder, name, masks_MAH, splits, part=settings.part)
        store = fill(setup, request)
        missing = int((~store.done()).sum())
        if missing:
            log.info(
                "part %d of %d of %s is done; %d masks are left to the other parts",
                *settings.part,
                store.path,
                missing,
            )
