"""What the processes of tests/test_kill.py do."""

import os
import time

import jax
import numpy as np

from hp_jax.grid.whole import Grid, evaluate_grid
from hp_jax.storage.store import create_store
from hp_jax.storage.zarr import Items

CHUNK, MASKS, EXAMPLES = 2, 120, 13
SECONDS = 0.02
"""What a chunk takes at least."""


def create(folder, masks=MASKS, chunk=CHUNK):
    axes = ("mask", "example")
    items = {
        "loss": Items(axes, (masks, EXAMPLES), "float32"),
        "prediction": Items(axes, (masks, EXAMPLES), "int32"),
    }
    fixed = {"label": (("example",), np.arange(EXAMPLES))}
    return create_store(
        folder, "grid", fingerprint={"data": "1"}, about={}, fixed=fixed, items=items, chunk=chunk
    )


def fill(folder, begun):
    """Fills the store, and adds a byte to FOLDER.log for every chunk; tells `begun` when everything
    is compiled."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", str(folder.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    from tiny import ONE_DEVICE, TASK, batched, examples, random_params

    log = os.open(f"{folder}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    masks_MAH = (np.arange(MASKS)[:, None, None] >> np.arange(8).reshape(2, 4)) % 2 == 1
    params, batches = random_params(), batched(examples(EXAMPLES), size=EXAMPLES, buckets=(16,))

    def postprocess(batch, values):
        os.write(log, b".")
        time.sleep(SECONDS)
        return {name: values[name] for name in ("loss", "prediction")}

    evaluate_grid(TASK, params, batches, masks_MAH[:CHUNK], chunk=CHUNK, mesh=ONE_DEVICE)
    begun.send_bytes(b"begun")
    Grid(TASK, params, batches, masks_MAH, postprocess, ONE_DEVICE).fill(create(folder))


def values(masks):
    """Something else for every item and example."""
    each = np.arange(masks * EXAMPLES).reshape(masks, EXAMPLES)
    return {"loss": each.astype(np.float32) + 0.5, "prediction": each.astype(np.int32)}


def every_second_chunk(folders, first, masks, barrier):
    """Creates each store at the same moment as the other job, which wants another chunk, and writes
    every second chunk."""
    for folder in folders:
        barrier.wait()
        store = create(folder, masks, chunk=CHUNK + first)
        for start in range(first * store.chunk, masks, 2 * store.chunk):
            store.write(
                start,
                {name: value[start : start + store.chunk] for name, value in values(masks).items()},
            )
