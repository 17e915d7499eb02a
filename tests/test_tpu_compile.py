"""The TPU compiler takes every step on a 4 x 4 slice of v5e, without a TPU: libtpu compiles for a named topology."""

import dataclasses
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
from tiny_translation import CONFIG, make_batch, sentences

from hp_jax import heads
from hp_jax.config import Decoding, Train
from hp_jax.data.batching import batches
from hp_jax.grid import evaluate_masks
from hp_jax.importance import importance_sums
from hp_jax.models.translation import Translation
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


def test_translation_is_scored_and_searched_too(mesh):
    """Importance only sums; a grid with beam search compiles (its loop ends when all chips' sentences have)."""
    config = dataclasses.replace(CONFIG, width=128, encoder_ffn=256, decoder_ffn=256, target_vocab=256, source_vocab=256)
    task = Translation(dataclasses.replace(config, dtype="bfloat16"), Decoding(beam=4))
    ids = sentences(64, 256, eos=2, first=4, longest=12, seed=0)
    batch = placed(make_batch(ids, ids, pad=1, width=16), mesh, "data")
    params = placed(jax.eval_shape(task.init, jax.random.key(0)), mesh)
    full_AH = heads.all_on(len(task.rows), task.heads)
    scoring = importance_sums.lower(task, params, batch, placed(full_AH, mesh), per="token", kind="abs").compile()
    assert collectives(scoring) == {"all-reduce"}
    masks_MAH = placed(heads.one_off(full_AH)[:4], mesh)
    assert evaluate_masks.lower(task, params, batch, masks_MAH).compile().memory_analysis().temp_size_in_bytes > 0
