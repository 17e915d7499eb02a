"""The number of masks that a device evaluates together: as many as fit, found by asking the
compiler, in equal chunks."""

import itertools
import math

import jax
import numpy as np
import pytest
from tiny import FULL, ONE_DEVICE, TASK, batched, examples, random_params

from hp_jax.grid import chunks
from hp_jax.grid.chunks import (
    chunk_size,
    compiled_grid,
    masks_that_fit,
    needed_bytes,
    program_bytes,
)
from hp_jax.sharding import device_mesh

PARAMS = random_params()
BATCH = batched(examples(count=16), size=16, buckets=(16,))[0]


@pytest.fixture(scope="module")
def bytes_of():
    """What the compiler says of 1, 2, 8 and 16 masks."""
    return {masks: program_bytes(TASK, PARAMS, BATCH, ONE_DEVICE, masks) for masks in (1, 2, 8, 16)}


def test_arguments_results_and_the_states_of_all_masks_are_counted(bytes_of):
    """A mask costs at least the state that it is evaluated from: `[B, T, D]` in float32."""
    for few, more in itertools.pairwise(bytes_of):
        assert bytes_of[more] - bytes_of[few] >= (more - few) * 16 * 16 * 16 * 4
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((PARAMS, BATCH)))
    assert bytes_of[1] > held
    compiled = compiled_grid(TASK, PARAMS, BATCH, ONE_DEVICE, 2)
    assert needed_bytes(compiled) > held + compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("masks", [1, 2, 8])
def test_what_is_chosen_fits_and_hardly_more_would(bytes_of, masks):
    for limit in (bytes_of[masks], bytes_of[masks] * 1.2):
        found = masks_that_fit(TASK, PARAMS, BATCH, ONE_DEVICE, limit, most=16)
        needs = program_bytes(TASK, PARAMS, BATCH, ONE_DEVICE, found)
        assert needs <= limit
        assert (
            needs >= chunks.ENOUGH * limit
            or program_bytes(TASK, PARAMS, BATCH, ONE_DEVICE, found + 1) > limit
        )
    assert masks_that_fit(TASK, PARAMS, BATCH, ONE_DEVICE, 2**30, most=16) == 16


CURVES = {
    "a straight line": lambda masks: 100 + 10 * masks,
    "nothing at first, as on a TPU": lambda masks: 100 + 10 * max(0, masks - 12),
    "less and less": lambda masks: 60 + 40 * math.sqrt(masks),
    "refused from 30 on": lambda masks: 100 + 10 * masks if masks < 30 else math.inf,
    "refused from 4 on": lambda masks: 100 + 10 * masks if masks < 4 else math.inf,
}


@pytest.mark.parametrize("limit", [120, 300, 500])
@pytest.mark.parametrize("name", CURVES)
def test_however_memory_grows(monkeypatch, name, limit):
    """Within the limit, near it, and with few compilations."""
    asked = []
    monkeypatch.setattr(
        chunks,
        "program_bytes",
        lambda *arguments: asked.append(arguments[-1]) or CURVES[name](arguments[-1]),
    )
    found = masks_that_fit(TASK, PARAMS, BATCH, ONE_DEVICE, limit)
    largest = max(masks for masks in range(1, chunks.MOST + 1) if CURVES[name](masks) <= limit)
    assert found == largest or chunks.ENOUGH * limit <= CURVES[name](found) <= limit
    assert len(asked) <= 9


def test_a_model_that_does_not_fit_is_named():
    with pytest.raises(
        RuntimeError,
        match=r"needs 0\.\d MiB for one mask on 16 examples, but may use 0\.0 MiB: .*data\.batch",
    ):
        masks_that_fit(TASK, PARAMS, BATCH, ONE_DEVICE, 1000)
    with pytest.raises(RuntimeError, match="for one mask on 4 examples"):
        masks_that_fit(TASK, PARAMS, BATCH, device_mesh(jax.devices()[:4]), 1000, most=1)


def test_a_compiler_that_refuses_says_that_it_is_too_much(monkeypatch):
    def refuse(*arguments):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(chunks, "compiled_grid", refuse)
    message = "RESOURCE_EXHAUSTED: Ran out of memory on HBM"
    assert program_bytes(TASK, PARAMS, BATCH, ONE_DEVICE, 4) == math.inf
    with pytest.raises(RuntimeError, match="needs more memory than there is for one mask"):
        masks_that_fit(TASK, PARAMS, BATCH, ONE_DEVICE, 1000)
    message = "INTERNAL: another error"
    with pytest.raises(RuntimeError, match="another error"):
        program_bytes(TASK, PARAMS, BATCH, ONE_DEVICE, 4)


@pytest.mark.parametrize(
    ("masks", "fit", "chunk"),
    [(1, 96, 1), (9, 96, 2), (73, 96, 10), (73, 6, 5), (145, 7, 7), (145, 12, 10), (1000, 96, 63)],
)
def test_chunks_are_equal_and_there_is_one_for_each_device(monkeypatch, masks, fit, chunk):
    """On 8 devices; 73 masks of which 6 fit together take two rounds, of chunks of 5."""
    monkeypatch.setattr(chunks, "masks_that_fit", lambda *arguments, most: min(most, fit))
    assert chunk_size(TASK, PARAMS, [BATCH], masks) == chunk
    assert chunk <= fit
    rounds = math.ceil(masks / chunk / 8)
    assert rounds == math.ceil(masks / fit / 8) or masks < 8


def test_the_largest_batch_decides(monkeypatch):
    seen = []
    monkeypatch.setattr(
        chunks, "masks_that_fit", lambda *arguments, most: seen.append(arguments[2]) or most
    )
    small, large = (
        batched(examples(count=4), size=4, buckets=(8, 16)),
        batched(examples(count=16), size=16, buckets=(16,)),
    )
    chunk_size(TASK, PARAMS, [*small, *large, *small], len(np.asarray(FULL).ravel()))
    assert seen[0] is large[0]


def test_on_large_data_a_chunk_has_fewer_masks(monkeypatch):
    assert chunk_size(TASK, PARAMS, [BATCH] * 3, 64) == 8
    monkeypatch.setattr(chunks, "PASSES", 4 * 3 * 16)
    assert chunk_size(TASK, PARAMS, [BATCH] * 3, 64) == 4
