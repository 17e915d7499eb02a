"""The TPU compiler takes every step on a 4 x 4 slice of v5e, without a TPU: libtpu compiles for a
named topology."""

import dataclasses
import functools
import math
import os
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("libtpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # other processes may be compiling

from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from tiny import with_config
from tiny_translation import CONFIG

from hp_jax import heads
from hp_jax.architecture import DecoderConfig, Decoding
from hp_jax.config import FINE_TUNING
from hp_jax.grid import chunks
from hp_jax.grid.chunks import compiled_grid, masks_that_fit, needed_bytes, program_bytes
from hp_jax.importance import MeanGradient, importance_sums
from hp_jax.models.language import LanguageModel
from hp_jax.models.translation import Translation
from hp_jax.sharding import BOTH, device_mesh, params_specs
from hp_jax.train import State, optimizer, train_step

COST = runpy.run_path(str(pathlib.Path(__file__).parents[1] / "scripts" / "cost.py"))
TILES = runpy.run_path(str(pathlib.Path(__file__).parents[1] / "scripts" / "tiles.py"))
collectives = COST["collectives"]

# Both have lost heads, one a whole row of them.
BERT = with_config(
    width=128, ffn=256, dtype="bfloat16", dropout=0.1, attention_dropout=0.1, kept=((), (0, 1, 3))
)
SIZES = {
    "encoder_layers": 1,
    "decoder_layers": 1,
    "width": 64,
    "source_vocab": 256,
    "target_vocab": 256,
    "kept": ((0, 2, 3), (), (1, 2)),
}
TRANSLATION = Translation(
    dataclasses.replace(CONFIG, **SIZES, dtype="bfloat16"),
    Decoding(beam=2, max_ratio=1.0, max_extra=2),
)
MESHES = [1, 4, 16]


@functools.cache
def slice_of_16(mask):
    """The mesh of 16 chips, `mask` of them along that axis."""
    return device_mesh(
        topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4").devices, mask=mask
    )


@pytest.fixture(autouse=True)
def as_in_production():
    """The compiler optimizes as it does outside the tests."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def placed(tree, *axes, mask=4):
    sharding = NamedSharding(slice_of_16(mask), PartitionSpec(*axes))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype, sharding=sharding), tree
    )


def shapes(task, examples=16, length=8):
    """Parameters and a batch."""
    return jax.eval_shape(task.init, jax.random.key(0)), task.batch_shapes(examples, length)


# --- parameters split over chips ---------------------------------------------------------------

LLAMA = LanguageModel(
    DecoderConfig(
        family="llama",
        vocab=512,
        layers=2,
        width=256,
        ffn=512,
        heads=16,
        key_heads=4,
        head_width=32,
        positions=64,
        dtype="bfloat16",
        kept=((0, 1, 2, 5), tuple(range(16))),
    )
)


@pytest.mark.parametrize("tensor", [4, 16])
def test_a_model_is_split_over_chips(tensor):
    """Importance and a grid compile with parameters split, and each chip holds but its part of
    those that divide."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4")
    mesh = device_mesh(topology.devices, tensor=tensor)
    params, batch = shapes(LLAMA, length=32)
    whole, split = (
        chunks.program_bytes(LLAMA, params, batch, one, 4) for one in (slice_of_16(1), mesh)
    )
    assert split < whole
    specs = params_specs(params, mesh)

    def on(leaf, *axes):
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype, sharding=sharding)

    placed_params = jax.tree.map(lambda leaf, spec: on(leaf, *spec), params, specs)
    placed_batch = {name: on(leaf, BOTH) for name, leaf in batch.items()}
    compiled = importance_sums.lower(
        LLAMA, placed_params, placed_batch, on(LLAMA.present_AH), estimator=MeanGradient()
    ).compile()
    assert "all-reduce" in collectives(compiled)
    assert compiled.memory_analysis().argument_size_in_bytes < 4 * sum(
        math.prod(leaf.shape) for leaf in jax.tree.leaves(params)
    )


# --- collectives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", MESHES)
def test_a_grid_needs_no_collectives(mask):
    assert collectives(compiled_grid(BERT, *shapes(BERT), slice_of_16(mask), 3)) == set()


@pytest.mark.parametrize(("mask", "alike"), [(1, False), (4, False), (4, True), (16, False)])
def test_a_grid_with_beam_search_needs_none_either(mask, alike):
    """Each chip's search ends by itself."""
    compiled = compiled_grid(TRANSLATION, *shapes(TRANSLATION), slice_of_16(mask), 2, alike=alike)
    assert collectives(compiled) == set()
    assert "while" in compiled.as_text()


@pytest.mark.parametrize(
    ("task", "per"),
    [(BERT, "token"), (BERT, "example"), (BERT, "batch"), (TRANSLATION, "token")],
    ids=["token", "example", "batch", "translation"],
)
def test_importance_is_summed_over_the_chips_and_moves_nothing_else(task, per):
    params, batch = shapes(task)
    arguments = placed(params), placed(batch, BOTH), placed(task.present_AH)
    assert collectives(
        importance_sums.lower(task, *arguments, estimator=MeanGradient(per)).compile()
    ) == {"all-reduce"}


@pytest.mark.parametrize("task", [BERT, TRANSLATION], ids=["classification", "translation"])
def test_training_sums_gradients_and_donates_its_state(task):
    recipe, (params, batch) = FINE_TUNING, shapes(task)

    def start(params):
        return State(
            params, optimizer(recipe, 100).init(params), jnp.zeros((), jnp.int32), jnp.zeros(())
        )

    state = placed(jax.eval_shape(start, params))
    key = placed(jax.eval_shape(functools.partial(jax.random.key, 0)))
    arguments = state, placed(batch, BOTH), placed(task.present_AH), key
    compiled = train_step.lower(*arguments, task=task, recipe=recipe, steps=100).compile()
    assert collectives(compiled) == {"all-reduce"}
    found = compiled.memory_analysis()
    assert found.alias_size_in_bytes > 0.9 * found.output_size_in_bytes


# --- memory --------------------------------------------------------------------------------------


WIDE = with_config(width=128, heads=1, ffn=256, dtype="bfloat16")


def test_the_chunk_that_is_chosen_fits_and_twice_the_chunk_does_not():
    """States [64, 16, 128] of 256 KiB, old and new ones: 512 MiB for 1024 masks, which would be too
    much."""
    grid, limit = (WIDE, *shapes(WIDE, examples=16 * 64, length=16), slice_of_16(1)), 400 * 2**20
    chosen = masks_that_fit(*grid, limit, most=1024)
    assert 512 < chosen < 1024
    assert program_bytes(*grid, chosen) <= limit < program_bytes(*grid, 2 * chosen)


def test_the_compiler_refuses_what_a_chip_cannot_hold():
    """65536 of these states would be 16 gigabytes."""
    grid = WIDE, *shapes(WIDE, examples=16 * 64, length=16), slice_of_16(1)
    assert program_bytes(*grid, 2**16) == math.inf


@pytest.mark.skipif(
    os.environ.get("HP_JAX_SLOW") != "1", reason="takes minutes; HP_JAX_SLOW=1 runs it"
)
def test_bert_base_fits_a_chip():
    """Every head off, 256 examples a chip of 128 tokens, in bfloat16: more than half of the 145
    masks at once."""
    task = with_config(
        layers=12, heads=12, width=768, ffn=3072, vocab=30522, positions=512, dtype="bfloat16"
    )
    grid = task, *shapes(task, examples=16 * 256, length=128), slice_of_16(1)
    chosen = masks_that_fit(*grid, chunks.SHARE * 16e9, most=145)
    compiled = compiled_grid(*grid, chosen)
    print(f"{chosen} masks: {needed_bytes(compiled) / 2**30:.2f} GiB")
    assert chosen > 72
    assert needed_bytes(compiled) <= chunks.SHARE * 16e9
    assert collectives(compiled) == set()


# --- the command that prints the table -----------------------------------------------------------


def test_the_table_of_costs(capsys):
    shape = {"layers": 2, "heads": 4, "width": 64, "ffn": 128}
    COST["main"](COST["Cost"](topology="v5e:16x16", batch=256, length=8, dtype="bfloat16", **shape))
    lines = capsys.readouterr().out.splitlines()
    shape = {"mask": 8, "data": 32, "tensor": 1}
    assert lines[0] == f"256 x TPU v5 lite; grid: {shape}; 256 examples of 8 tokens"
    found = {line[:22].strip(): line.split("  ")[-1] for line in lines[3:]}
    steps = {
        "forward": "none",
        "importance": "all-reduce",
        "training step": "all-reduce",
        "grid, 2 masks": "none",
    }
    assert {name: found[name] for name in steps} == steps


def test_fewer_heads_cost_a_tpu_less(capsys):
    """The other table: a line for each number of heads, with the compiler's cycles and FLOPs."""
    TILES["main"](TILES["Tiles"](batch=8, length=128, width=256, heads=4))
    lines = capsys.readouterr().out.splitlines()[3:]
    cycles, flops = np.array([line.split()[1:3] for line in lines], float).T
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert (np.diff(flops) > 0).all()
    assert 0 < cycles[0] < cycles[-1]


def test_xla_counts_what_the_plans_do_not_run():
    """The count of a chunk is that of its parts: with one chunk, 1 look and 1 layer of the first
    row's mask, and so on."""
    deep, masks_MAH = with_config(layers=4), heads.one_off(heads.all_on(4, 4))
    params, batch = shapes(deep, examples=8)
    work = COST["grid_work"](deep, params, batch, masks_MAH, 16)
    assert (work.masks, work.chunks, work.layers) == (16, 1, 5 + 9 + 13)
    alone = COST["grid_work"](deep, params, batch, masks_MAH, 1)
    assert (alone.chunks, alone.layers) == (16, 16 * 3)
    loss = (
        jax.jit(deep.loss)
        .lower(params, batch, heads.gates(masks_MAH[0], deep.present_AH))
        .cost_analysis()["flops"]
    )
    assert work.flops < 0.8 * alone.flops
    assert alone.flops == pytest.approx(16 * loss, rel=0.1)
