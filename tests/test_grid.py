"""A grid is many plain evaluations; it is resumed from its store and pruning follows it."""

import itertools

import jax
import numpy as np
import pytest
from tiny import FULL, ONE_DEVICE, TASK, batched, examples, random_params

from hp_jax import heads
from hp_jax.grid import evaluate_grid
from hp_jax.importance import head_importance, normalize_rows
from hp_jax.pruning import oracle_scores, prune
from hp_jax.sharding import data_mesh
from hp_jax.store import Items, create_store

PARAMS = random_params()
DATA = examples()
BATCHES = batched(DATA, size=6)
MASKS = np.concatenate([FULL[None], heads.one_off(FULL)])
PLAIN = jax.jit(
    lambda batch, mask_AH: TASK.evaluate(PARAMS, batch, [gate_H[None] for gate_H in heads.gates(mask_AH, TASK.heads)])
)


def plain_loop():
    """One forward pass a mask and batch, put in order by hand."""
    values = {"loss": np.zeros((9, 13), np.float32), "prediction": np.zeros((9, 13), np.int32)}
    for m, mask_AH in enumerate(MASKS):
        for batch in BATCHES:
            result = PLAIN(batch, mask_AH)
            for name in values:
                for b, index in enumerate(batch["index_B"]):
                    if batch["weight_B"][b]:
                        values[name][m, index] = result[name][0, b]
    return values


@pytest.mark.parametrize(("chunk", "devices"), [(4, 1), (9, 8)])
def test_equals_the_plain_loop_for_any_chunk_and_number_of_devices(chunk, devices):
    found = evaluate_grid(TASK, PARAMS, BATCHES, MASKS, chunk=chunk, mesh=data_mesh(jax.devices()[:devices]))
    expected = plain_loop()
    np.testing.assert_allclose(found["loss"], expected["loss"], atol=2e-5)
    np.testing.assert_array_equal(found["prediction"], expected["prediction"])
    assert np.ptp(found["loss"], axis=0).min() > 1e-3


def grid_store(path):
    axes = ("mask", "example")
    items = {"loss": Items(axes, (9, 13), "float32"), "prediction": Items(axes, (9, 13), "int32")}
    return create_store(path, "grid", fingerprint={"data": "1"}, about={}, fixed={}, items=items, chunk=4)


def test_continues_where_it_was_interrupted_and_repeats_nothing(tmp_path, monkeypatch):
    whole = evaluate_grid(TASK, PARAMS, BATCHES, MASKS, chunk=4, mesh=ONE_DEVICE)
    store = grid_store(tmp_path / "grid")
    import hp_jax.grid

    evaluated = []
    real = hp_jax.grid.evaluate_masks

    def interrupted_after(calls):
        def evaluate(task, params, batch, masks_MAH):
            if len(evaluated) == calls:
                raise KeyboardInterrupt
            evaluated.append(masks_MAH)
            return real(task, params, batch, masks_MAH)

        return evaluate

    monkeypatch.setattr(hp_jax.grid, "evaluate_masks", interrupted_after(len(BATCHES) + 1))
    with pytest.raises(KeyboardInterrupt):
        evaluate_grid(TASK, PARAMS, BATCHES, MASKS, chunk=4, mesh=ONE_DEVICE, store=store)
    assert store.done().tolist() == [True] * 4 + [False] * 5
    evaluated.clear()
    monkeypatch.setattr(hp_jax.grid, "evaluate_masks", interrupted_after(-1))
    found = evaluate_grid(TASK, PARAMS, BATCHES, MASKS, chunk=4, mesh=ONE_DEVICE, store=grid_store(tmp_path / "grid"))
    assert len(evaluated) == 2 * len(BATCHES)
    for name, value in whole.items():
        np.testing.assert_array_equal(found[name], value)
    evaluated.clear()
    evaluate_grid(TASK, PARAMS, BATCHES, MASKS, chunk=4, mesh=ONE_DEVICE, store=store)
    assert not evaluated


def test_a_wrong_mask_is_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 2\), but the model has shape \(2, 4\)"):
        evaluate_grid(TASK, PARAMS, BATCHES, np.ones((3, 4, 2)), chunk=1)


# --- pruning -------------------------------------------------------------------------------------------------------------


def test_one_shot_removes_in_the_order_of_the_scores():
    score_AH = np.array([[3.0, 1.0, 7.0, 5.0], [8.0, 2.0, 6.0, 4.0]])
    masks_MAH = prune(lambda mask_AH: score_AH, FULL, [0, 1, 3, 8])
    np.testing.assert_array_equal(masks_MAH.sum((1, 2)), [8, 7, 5, 0])
    assert not masks_MAH[1][0, 1]
    np.testing.assert_array_equal(masks_MAH[2], score_AH > 3)
    masks_MAH = prune(lambda mask_AH: score_AH, FULL, [6], floor=2)
    np.testing.assert_array_equal(masks_MAH[0], [[0, 0, 1, 1], [1, 0, 1, 0]])


def test_re_estimated_scores_see_the_mask_and_dead_heads_never_return():
    """Trap 6: at a pruned mask the dead heads' gradients are large here, and still they stay dead."""
    seen = []

    def score(mask_AH):
        seen.append(np.asarray(mask_AH))
        return normalize_rows(head_importance(TASK, PARAMS, BATCHES, mask_AH, mesh=ONE_DEVICE), mask_AH)

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
    np.testing.assert_allclose(oracle_scores([0.8, 0.5, 0.95], 0.9, mask_AH), [[0.1, 0, 0.4, 0], [0, 0, 0, -0.05]])
    with pytest.raises(ValueError, match="3 heads are alive, but 1 ablations"):
        oracle_scores([0.8], 0.9, mask_AH)
