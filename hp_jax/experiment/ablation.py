"""Every mask of some sets of masks on every example of a split."""

from __future__ import annotations

import logging

from hp_jax.config import Experiment
from hp_jax.experiment.grids import _grid, _masks, _part, _warn_of_overlap
from hp_jax.experiment.setup import load

log = logging.getLogger("hp_jax")


def ablate(config: Experiment) -> None:
    """Evaluates every mask of `config.ablation.sets` on `config.ablation.split` into out/ablation;
    mask 0 is the full model."""
    setup, settings = load(config), config.ablation
    scope_AH = _part(setup, settings.rows)
    for name, masks_MAH in {name: _masks(setup, name, scope_AH) for name in settings.sets}.items():
        splits = {"test": settings.split}
        if name == "prefixes" and settings.order == "importance":
            splits = {"score": config.importance.split} | splits
            _warn_of_overlap(setup, splits)
        store = _grid(
            setup, f"ablation/{name}", name, masks_MAH, splits, "test", part=settings.part
        )
        missing = int((~store.done()).sum())
        if missing:
            log.info(
                "part %d of %d of %s is done; %d masks are left to the other parts",
                *settings.part,
                store.path,
                missing,
            )
