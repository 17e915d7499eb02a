"""A grid is many plain evaluations with less work, whatever the masks, the model and the mesh; and
pruning follows it."""

import dataclasses
import functools
import itertools
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import FULL, ONE_DEVICE, TASK, batched, examples, random_params, with_config
from tiny_translation import CONFIG, before_eos, make_batch, sentences, translate

from hp_jax import heads
from hp_jax.architecture import Decoding
from hp_jax.grid import whole as whole_grids
from hp_jax.grid.plan import plan
from hp_jax.grid.whole import Grid, evaluate_grid, grid_mesh
from hp_jax.importance import head_importance, normalize_rows
from hp_jax.models.classification import Classification
from hp_jax.models.translation import Translation
from hp_jax.pruning import oracle_scores, prune
from hp_jax.sharding import device_mesh
from hp_jax.storage.store import create_store
from hp_jax.storage.zarr import Items

COST = runpy.run_path(str(pathlib.Path(__file__).parent.parent / "scripts" / "cost.py"))
PARAMS = random_params()
DATA = examples()
BATCHES = batched(DATA, size=6)
MASKS = np.concatenate([FULL[None], heads.one_off(FULL)])
GRID = Grid(TASK, PARAMS, BATCHES, MASKS, mesh=ONE_DEVICE)

DEEP = with_config(layers=4)
DEEP_FULL = heads.all_on(4, 4)
DEEP_PARAMS = random_params(DEEP)
SETS = {
    "one_off": heads.one_off(DEEP_FULL),
    "one_on": heads.one_on(DEEP_FULL),
    "pairs": heads.pairs(DEEP_FULL)[::3],
    "rows_off": heads.rows_off(DEEP_FULL),
    "random": heads.random_off(jax.random.key(0), DEEP_FULL, 6, 7),
    "pruning": prune(lambda mask_AH: np.arange(16).reshape(4, 4) * 7 % 16, DEEP_FULL, range(17)),
    "the same twice": jnp.stack([DEEP_FULL, heads.one_off(DEEP_FULL)[9]] * 2),
}


@functools.partial(jax.jit, static_argnames="task")
def one_pass(task, params, batch, mask_AH):
    gates = heads.gates(mask_AH, task.present_AH)
    logits_BC = task.logits(params, batch, gates)
    confidence_B = jnp.exp(logits_BC).max(-1) / jnp.exp(logits_BC).sum(-1)
    return task.loss(params, batch, gates), jnp.argmax(logits_BC, -1), confidence_B


def plain_loop(task, params, batches, masks_MAH):
    """One forward pass a mask and batch, put in order by hand: `{name: [M, N]}`."""
    count = int(sum(batch["weight_B"].sum() for batch in batches))
    names = ("loss", "prediction", "confidence")
    values = {name: np.zeros((len(masks_MAH), count)) for name in names}
    for (m, mask_AH), batch in itertools.product(enumerate(masks_MAH), batches):
        found = jax.device_get(one_pass(task, params, batch, mask_AH))
        for b in np.flatnonzero(batch["weight_B"]):
            for name, value_B in zip(names, found, strict=True):
                values[name][m, batch["index_B"][b]] = value_B[b]
    return values


def same(found, expected):
    np.testing.assert_allclose(found["loss"], expected["loss"], atol=1e-5)
    np.testing.assert_array_equal(found["prediction"], expected["prediction"])
    np.testing.assert_allclose(found["confidence"], expected["confidence"], atol=1e-5)


@pytest.mark.parametrize("name", SETS)
def test_equals_the_plain_loop_for_every_set_of_masks(name):
    """13 examples in batches of 6, and chunks that do not divide the masks: nothing divides
    evenly."""
    expected = plain_loop(DEEP, DEEP_PARAMS, BATCHES, SETS[name])
    same(evaluate_grid(DEEP, DEEP_PARAMS, BATCHES, SETS[name], chunk=9, mesh=ONE_DEVICE), expected)
    assert name == "the same twice" or np.ptp(expected["loss"], axis=0).min() > 1e-3


def test_bfloat16_equals_the_plain_loop_in_bfloat16():
    """But for the last digits that a program that fuses more does not round."""
    narrow = dataclasses.replace(DEEP, config=dataclasses.replace(DEEP.config, dtype="bfloat16"))
    masks_MAH = SETS["one_off"]
    expected = plain_loop(narrow, DEEP_PARAMS, BATCHES, masks_MAH)["loss"]
    found = evaluate_grid(narrow, DEEP_PARAMS, BATCHES, masks_MAH, chunk=9, mesh=ONE_DEVICE)["loss"]
    np.testing.assert_allclose(found, expected, atol=0.02)
    wide = plain_loop(DEEP, DEEP_PARAMS, BATCHES, masks_MAH)["loss"]
    assert np.abs(found - expected).mean() < 0.5 * np.abs(found - wide).mean()


@pytest.mark.parametrize(
    ("devices", "mask"), [(1, 1), (2, 1), (2, 2), (8, 1), (8, 2), (8, 4), (8, 8)]
)
def test_the_same_on_every_mesh(devices, mask):
    mesh = device_mesh(jax.devices()[:devices], mask=mask)
    same(
        evaluate_grid(TASK, PARAMS, BATCHES, MASKS, chunk=2, mesh=mesh),
        plain_loop(TASK, PARAMS, BATCHES, MASKS),
    )


def test_devices_go_to_the_masks_first():
    assert [dict(grid_mesh(chunks).shape) for chunks in (1, 3, 8, 100)] == [
        {"mask": 1, "data": 8, "tensor": 1},
        {"mask": 2, "data": 4, "tensor": 1},
        {"mask": 8, "data": 1, "tensor": 1},
        {"mask": 8, "data": 1, "tensor": 1},
    ]
    assert [dict(grid_mesh(chunks, 4).shape) for chunks in (1, 3)] == [
        {"mask": 1, "data": 2, "tensor": 4},
        {"mask": 2, "data": 1, "tensor": 4},
    ]
    with pytest.raises(ValueError, match="8 devices cannot be split into 3"):
        device_mesh(mask=3)


SOURCES = sentences(13, 20, eos=2, first=4, longest=9, seed=0)
TARGETS = sentences(13, 20, eos=2, first=4, longest=9, seed=1)
PAIRS = [
    make_batch(SOURCES[:6], TARGETS[:6], pad=1, width=10),
    make_batch(SOURCES[6:], TARGETS[6:], pad=1, width=10)
    | {"index_B": np.arange(6, 13, dtype=np.int32)},
]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"norm": "pre"}, id="pre-norm"),
        pytest.param({"decoder": "ssru"}, id="SSRU", marks=pytest.mark.slow),
    ],
)
def test_translations_are_those_of_each_mask_alone(changes):
    """Encoder masks do not share the memory, decoder and cross masks do; both kinds are in these
    chunks."""
    task = Translation(dataclasses.replace(CONFIG, **changes), Decoding(beam=2))
    params, present_AH = random_params(task), task.present_AH
    masks_MAH = np.concatenate([present_AH[None], heads.one_off(present_AH)[::2]])
    mesh = device_mesh(jax.devices()[:4], mask=2)
    found = evaluate_grid(task, params, PAIRS, masks_MAH, chunk=4, mesh=mesh)
    loss = jax.jit(
        lambda batch, mask_AH: task.loss(params, batch, heads.gates(mask_AH, task.present_AH))
    )
    for m, batch in itertools.product(range(len(masks_MAH)), PAIRS):
        np.testing.assert_allclose(
            found["loss"][m, batch["index_B"]], loss(batch, masks_MAH[m]), rtol=1e-5
        )
        expected = [
            best[0][0] for best in translate(task, params, batch, masks_MAH[m], task.decoding)
        ]
        assert [before_eos(ids, 2) for ids in found["translation"][m, batch["index_B"]]] == expected
    assert len({found["translation"][m].tobytes() for m in range(len(masks_MAH))}) > 8


# --- less work -----------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=12),
    st.integers(0, 4),
)
def test_a_plan_has_each_beginning_once_and_leads_every_mask_to_its_own(rows_MA, stages):
    masks_MAH = (np.array(rows_MA)[..., None] >> np.arange(2)) % 2 == 1
    made = plan(masks_MAH, stages)
    of_beginning = {0: ()}
    for row in range(stages):
        assert made.count_A[row] == len(of_beginning)
        of_beginning = {
            child: (*beginning, tuple(masks_MAH[made.mask_AG[row, child], row]))
            for parent, beginning in of_beginning.items()
            for child in range(made.first_AP[row, parent], made.first_AP[row, parent + 1])
        }
        assert sorted(of_beginning) == list(range(len(of_beginning)))
        assert len(set(of_beginning.values())) == len(of_beginning)
    for mask_AH, last in zip(masks_MAH, made.last_G, strict=True):
        assert of_beginning[last] == tuple(tuple(mask_H) for mask_H in mask_AH[:stages])


@dataclasses.dataclass(frozen=True)
class Counted(Classification):
    """Tells of every stage that is really run."""

    def context(self, params, row, batch, state):
        jax.debug.callback(lambda: RUN.append(("context", row)))
        return super().context(params, row, batch, state)

    def apply_row(self, params, row, batch, state, context, gate):
        jax.debug.callback(lambda: RUN.append(("apply_row", row)))
        return super().apply_row(params, row, batch, state, context, gate)


RUN = []


def test_nothing_is_computed_twice():
    """17 masks of 4 rows of 4 heads: 1 + 4 r looks and 1 + 4 (r + 1) layers in row r, where 17
    would be run one by one."""
    RUN.clear()
    masks_MAH = np.concatenate([DEEP_FULL[None], SETS["one_off"]])
    evaluate_grid(
        Counted(DEEP.config),
        DEEP_PARAMS,
        batched(DATA, size=13),
        masks_MAH,
        chunk=17,
        mesh=ONE_DEVICE,
    )
    jax.effects_barrier()
    assert [RUN.count(("context", row)) for row in range(3)] == [1, 5, 9]
    assert [RUN.count(("apply_row", row)) for row in range(3)] == [5, 9, 13]


def test_half_the_work_at_bert_bases_shape():
    """XLA's FLOPs of each part, as often as the plans of 2 chunks of 73 masks run it, against 145
    forward passes."""
    task, mask_AH = with_config(layers=12, heads=12, width=768, ffn=3072), heads.all_on(12, 12)
    params, batch = jax.eval_shape(task.init, jax.random.key(0)), task.batch_shapes(8, 128)
    work = COST["grid_work"](task, params, batch, COST["one_off"](task), 73)
    forward = (
        jax.jit(functools.partial(COST["forward"], task))
        .lower(params, batch, mask_AH)
        .cost_analysis()["flops"]
    )
    assert (work.masks, work.chunks) == (145, 2)
    assert 0.4 * 145 * forward <= work.flops <= 0.5 * 145 * forward


# --- never twice ---------------------------------------------------------------------------------


def grid_store(path, chunk=4):
    axes = ("mask", "example")
    types = {"loss": "float32", "prediction": "int32", "confidence": "float32"}
    items = {name: Items(axes, (9, 13), dtype) for name, dtype in types.items()}
    return create_store(
        path, "grid", fingerprint={"data": "1"}, about={}, fixed={}, items=items, chunk=chunk
    )


def test_continues_where_it_was_interrupted_and_repeats_nothing(tmp_path, monkeypatch):
    whole = evaluate_grid(TASK, PARAMS, BATCHES, MASKS, chunk=4, mesh=ONE_DEVICE)
    evaluated = []
    real = whole_grids.evaluate_masks

    def interrupted_after(calls):
        def wrapper(*args, **kwargs):
            if len(evaluated) == calls:
                raise KeyboardInterrupt
            evaluated.append(1)
            return real(*args, **kwargs)

        return wrapper

    store = grid_store(tmp_path / "grid")
    monkeypatch.setattr(whole_grids, "evaluate_masks", interrupted_after(len(BATCHES) + 1))
    with pytest.raises(KeyboardInterrupt):
        GRID.fill(store)
    assert store.done().tolist() == [True] * 4 + [False] * 5
    evaluated.clear()
    monkeypatch.setattr(whole_grids, "evaluate_masks", interrupted_after(-1))
    GRID.fill(grid_store(tmp_path / "grid"))
    assert len(evaluated) == 2 * len(BATCHES)
    for name, value in whole.items():
        np.testing.assert_array_equal(store.read_items()[name], value)
    evaluated.clear()
    GRID.fill(store)
    assert not evaluated


def test_several_jobs_fill_one_grid(tmp_path):
    whole = evaluate_grid(TASK, PARAMS, BATCHES, MASKS, chunk=2, mesh=ONE_DEVICE)
    store = grid_store(tmp_path / "grid", chunk=2)
    GRID.fill(store, part=(2, 3))
    assert np.flatnonzero(store.done()).tolist() == [2, 3, 8]
    for part in ((1, 3), (3, 3)):
        GRID.fill(grid_store(tmp_path / "grid"), part=part)
    for name, value in whole.items():
        np.testing.assert_array_equal(store.read_items()[name], value)


def test_a_wrong_mask_is_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 2\), but the model has shape \(2, 4\)"):
        evaluate_grid(TASK, PARAMS, BATCHES, np.ones((3, 4, 2)), chunk=1)


# --- pruning -------------------------------------------------------------------------------------


def test_one_shot_removes_in_the_order_of_the_scores():
    score_AH = np.array([[3.0, 1.0, 7.0, 5.0], [8.0, 2.0, 6.0, 4.0]])
    masks_MAH = prune(lambda mask_AH: score_AH, FULL, [0, 1, 3, 8])
    np.testing.assert_array_equal(masks_MAH.sum((1, 2)), [8, 7, 5, 0])
    assert not masks_MAH[1][0, 1]
    np.testing.assert_array_equal(masks_MAH[2], score_AH > 3)
    masks_MAH = prune(lambda mask_AH: score_AH, FULL, [6], floor=2)
    np.testing.assert_array_equal(masks_MAH[0], [[0, 0, 1, 1], [1, 0, 1, 0]])


def test_re_estimated_scores_see_the_mask_and_dead_heads_never_return():
    """Trap 6: at a pruned mask the dead heads' gradients are large here, and still they stay
    dead."""
    seen = []

    def score(mask_AH):
        seen.append(np.asarray(mask_AH))
        return normalize_rows(
            head_importance(TASK, PARAMS, BATCHES, mask_AH, mesh=ONE_DEVICE), mask_AH
        )

    masks_MAH = np.asarray(prune(score, FULL, [0, 2, 4, 6]))
    assert len(seen) == 3
    for before, after in itertools.pairwise(masks_MAH):
        assert not (after & ~before).any()
    for mask_AH, asked in zip(masks_MAH[:-1], seen, strict=True):
        np.testing.assert_array_equal(mask_AH, asked)


def test_scores_that_are_not_finite_and_impossible_counts_are_named():
    score_AH = np.ones((2, 4))
    score_AH[1, 2] = np.nan
    with pytest.raises(ValueError, match="the score of head 2 in row 1 is nan"):
        prune(lambda mask_AH: score_AH, FULL, [1])
    with pytest.raises(ValueError, match="cannot remove 9 heads: 8 are alive"):
        prune(lambda mask_AH: score_AH, FULL, [9])
    with pytest.raises(ValueError, match=r"must not fall, but got \[3, 2\]"):
        prune(lambda mask_AH: score_AH, FULL, [3, 2])


def test_oracle_scores_are_the_metrics_losses():
    mask_AH = np.array([[1, 0, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(
        oracle_scores([0.8, 0.5, 0.95], 0.9, mask_AH), [[0.1, 0, 0.4, 0], [0, 0, 0, -0.05]]
    )
    with pytest.raises(ValueError, match="3 heads are alive, but 1 ablations"):
        oracle_scores([0.8], 0.9, mask_AH)
