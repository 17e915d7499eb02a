"""The linear map of an experiment's model on each split of its ablations."""

from __future__ import annotations

import jax

from hp_jax.data.splits import folder_name
from hp_jax.experiment.results import Results, open_results, write
from hp_jax.experiment.setup import Setup
from hp_jax.linear import LinearMap, linear_map, map_batch, stored_map
from hp_jax.sharding import agreed
from hp_jax.storage.zarr import Items

AXES = {"output": ("example", "output"), "slope": ("example", "output", "row", "head")}


def map_splits(setup: Setup) -> None:
    """The linear map, at all heads, of every example of `config.ablation.splits`, kept in
    out/linear."""
    for split in setup.config.ablation.splits:
        mapped(setup, split)


def mapped(setup: Setup, split: str) -> LinearMap:
    """The linear map of a split; what is there is not done again."""
    examples = setup.examples(split)
    batches = setup.batches_of(examples)
    shapes = jax.eval_shape(
        lambda params, batch: map_batch(setup.task, params, batch, setup.present_AH),
        setup.params,
        batches[0],
    )
    count = len(examples)
    fixed, _ = setup.corpus.kept(examples, 1)
    results = Results(
        folder=f"linear/{folder_name(split)}",
        kind="linear",
        splits={"test": split},
        inputs={"data": examples.fingerprint()},
        fixed=fixed,
        items={
            name: Items(AXES[name], (count, *array.shape[1:]), "float32")
            for name, array in shapes.items()
        },
        chunk=count,
    )
    store = open_results(setup, results)
    if not agreed(store.done()).all():
        found = linear_map(setup.task, setup.params, batches, setup.present_AH, mesh=setup.mesh)
        write(store, 0, {"output": found.output_NO, "slope": found.slope_NOAH})
    arrays = {name: store.read(name) for name in store.manifest["arrays"]}
    return stored_map(arrays, setup.present_AH)
