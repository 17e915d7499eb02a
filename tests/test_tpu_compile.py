"""The TPU compiler takes every step on a 4 x 4 slice of v5e, without a TPU: libtpu compiles for a named topology."""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("libtpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tiny import examples, with_config

from hp_jax import heads
from hp_jax.config import Train
from hp_jax.data.batching import batches
from hp_jax.grid import evaluate_masks
from hp_jax.importance import importance_sums
from hp_jax.train import State, optimizer, train_step

TASK = with_config(width=128, ffn=256, dtype="bfloat16", dropout=0.1, attention_dropout=0.1)
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@pytest.fixture(scope="module")
def mesh():
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4")
    return Mesh(np.array(topology.devices), ("data",), axis_types=(AxisType.Auto,))


def placed(tree, mesh, *axes):
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype, sharding=sharding), tree)


@pytest.fixture(scope="module")
def arguments(mesh):
    """Parameters, a batch of 64 and a mask, as shapes with shardings."""
    batch = batches(examples(count=64), size=64, buckets=(16,))[0]
    params = jax.eval_shape(TASK.init, jax.random.key(0))
    return placed(params, mesh), placed(batch, mesh, "data"), placed(heads.all_on(2, 4), mesh)


def collectives(compiled):
    text = compiled.as_text()
    return {name for name in COLLECTIVES if re.search(rf"\b{name}(-start)?\(", text)}


@pytest.mark.parametrize("per", ["token", "example", "batch"])
def test_importance_is_summed_over_the_chips_and_moves_nothing_else(arguments, per):
    params, batch, mask_AH = arguments
    compiled = importance_sums.lower(TASK, params, batch, mask_AH, per=per, kind="abs").compile()
    assert collectives(compiled) == {"all-reduce"}


def test_a_grid_needs_no_collectives(arguments, mesh):
    params, batch, _ = arguments
    masks_MAH = placed(heads.one_off(heads.all_on(2, 4)), mesh)
    assert collectives(evaluate_masks.lower(TASK, params, batch, masks_MAH).compile()) == set()


def test_training_sums_gradients_and_donates_its_state(arguments, mesh):
    params, batch, mask_AH = arguments
    recipe = Train()

    def start(params):
        return State(params, optimizer(recipe, 100).init(params), jnp.zeros((), jnp.int32), jnp.zeros(()))

    state = placed(jax.eval_shape(start, params), mesh)
    key = placed(jax.eval_shape(functools.partial(jax.random.key, 0)), mesh)
    compiled = train_step.lower(state, batch, mask_AH, key, task=TASK, recipe=recipe, steps=100).compile()
    assert collectives(compiled) == {"all-reduce"}
    assert compiled.memory_analysis().alias_size_in_bytes > 0.9 * compiled.memory_analysis().output_size_in_bytes
