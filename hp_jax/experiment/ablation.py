"""Every mask of some sets of masks on every example of a split."""

from __future__ import annotations

import dataclasses
import itertools
import logging

import numpy as np

from hp_jax.config import MaskSet
from hp_jax.experiment.estimates import estimate
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
    out/ablation, or, with a precision, as many examples as it takes into out/estimates; mask 0 is
    the full model."""
    settings = setup.config.ablation
    masks = {name: _masks(setup, name) for name in settings.sets}  # before anything is measured
    for split, (name, masks_MAH) in itertools.product(settings.splits, masks.items()):
        request = _request(setup, name, masks_MAH, split)
        if settings.precision or settings.decide:
            folder = request.folder.replace("ablation", "estimates", 1)
            estimate(setup, dataclasses.replace(request, folder=folder))
            continue
        store = fill(setup, request)
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
    return fill(setup, _request(setup, name, _masks(setup, name), split))


def _masks(setup: Setup, name: MaskSet) -> np.ndarray:
    return mask_set(setup, name, scope_of(setup, setup.config.ablation.rows))


def _request(setup: Setup, name: MaskSet, masks_MAH: np.ndarray, split: str) -> GridRequest:
    config = setup.config
    settings, splits = config.ablation, {"test": split}
    if name == "prefixes" and settings.order == "importance":
        splits = {"score": config.importance.split} | splits
        warn_of_overlap(setup, splits)
    folder = ablation_folder(split, name, settings.rows)
    return GridRequest(folder, name, masks_MAH, splits, part=settings.part)
