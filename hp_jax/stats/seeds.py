"""Several models, such as seeds of one training, on the same examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hp_jax.stats.bootstrap import Differences


def over_seeds(models: Sequence[Differences], seed: int = 0) -> Differences:
    """The mean difference over J models, such as seeds of training, and its hierarchical bootstrap:
    in each resample J models are drawn with replacement, and examples, the same for all models,
    which they were all measured on (crossed: Owen and Eckles 2012).

    models: each one's `differences`, with the same examples, count and seed.  Of J models drawn
    with replacement the mean varies (J - 1) / J times as much as it should; that is made good.
    Even so intervals of few models, below about eight, are too narrow, as normal ones are beside
    Student's.  What comes out is tested and drawn as any `Differences`, with `bootstrap_of`,
    `bands`, `area_between`, `non_inferior`.  ValueError for fewer than two models, or if their
    shapes differ.
    """
    shapes = [found.resampled_MR.shape for found in models]
    if len(models) < 2 or len(set(shapes)) > 1:
        raise ValueError(
            "a bootstrap over models needs two or more with the same masks and resamples, but "
            f"found {len(models)} of shapes {shapes} (masks, resamples)"
        )
    count, size = len(models), shapes[0][1]
    draws_RJ = np.random.default_rng(seed + 1).multinomial(
        count, np.full(count, 1 / count), size=size
    )
    share_RJ = 1 / count + np.sqrt(count / (count - 1)) * (draws_RJ - 1) / count
    resampled_MR = sum(
        share_R * found.resampled_MR for share_R, found in zip(share_RJ.T, models, strict=True)
    )
    measured_M = np.mean([found.measured_M for found in models], axis=0)
    return Differences(measured_M, np.asarray(resampled_MR))
