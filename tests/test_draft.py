"""Grids of greedy translations: a draft that is checked in one pass, and a search of the rest, give
what a search under each mask alone gives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import random_params
from tiny_translation import TASK, make_batch, sentences, some_masks

from hp_jax import heads
from hp_jax.architecture import Decoding
from hp_jax.grid.whole import evaluate_grid
from hp_jax.models.decode import leads
from hp_jax.models.translation import Translation

SOURCES = sentences(7, 20, eos=2, first=4, longest=9, seed=0)
BATCH = make_batch(SOURCES, SOURCES, pad=1, width=9)
BATCH["weight_B"][6] = 0  # padding


def test_a_token_leads_only_by_more_than_rounding_and_among_those_allowed():
    logits_KV = jnp.array([[9.0, 9.0, 1.0], [9.0, 9.00001, 1.0], [9.0, 9.1, 1.0], [9.0, 9.1, 1.0]])
    allowed_KV = jnp.array([[True] * 3] * 3 + [[True, False, True]])
    found = {own: leads(logits_KV, jnp.full(4, own), allowed_KV).tolist() for own in (0, 1)}
    assert found == {0: [False, False, False, True], 1: [False, False, True, True]}


@pytest.mark.parametrize(
    ("changes", "decoding"),
    [
        ({}, Decoding(beam=1, min_length=3, max_ratio=1.0, max_extra=0)),
        (
            {
                "norm": "pre",
                "never": (1, 3, 4),
                "kept": tuple(tuple(range(n % 3, 4)) for n in range(6)),
            },
            Decoding(beam=1, max_ratio=0.5, max_extra=2),
        ),
        ({"decoder": "ssru", "start": -1, "output_bias": True}, Decoding(beam=1)),
    ],
)
def test_a_grid_translates_as_each_mask_alone(changes, decoding):
    task = Translation(dataclasses.replace(TASK.config, **changes), decoding)
    masks_MAH = np.concatenate([some_masks(task), heads.one_off(task.present_AH)])
    params = random_params(task, scale=0.3)

    def kept(params, mask_AH):
        gates = heads.gates(mask_AH, task.present_AH)
        return task.translate(params, BATCH, gates, decoding).token_RWT[:, 0]

    alone = jax.jit(kept)
    alone_MBT = np.stack([alone(params, mask_AH) for mask_AH in masks_MAH])
    width = alone_MBT.shape[-1]
    values = evaluate_grid(task, params, [BATCH], masks_MAH, chunk=len(masks_MAH))
    found_MBT = values["translation"]
    real = np.flatnonzero(BATCH["weight_B"])
    assert found_MBT.shape[-1] == width
    np.testing.assert_array_equal(found_MBT, alone_MBT[:, real])
    changed_MB = (alone_MBT[1:] != alone_MBT[:1]).any(2)[:, real]
    assert 0.05 < changed_MB.mean() < 0.95
