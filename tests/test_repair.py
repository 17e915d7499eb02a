"""Repair by least squares: what NumPy finds with every input written out, what a lost head can be
made of, and what is in the model without it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_removal import FAMILIES, PAIRS, quick, removed
from tiny import FULL, TASK, batched, examples, random_params

from hp_jax.heads import gates
from hp_jax.least_squares import obs_scores, repair
from hp_jax.models.translation import Translation
from hp_jax.removal import replace

KINDS = quick("bert", "pre-norm", of=("bert", "pre-norm", "post-norm", "ssru"))


BATCHES = batched(examples(), buckets=(16,))
"""Of one shape, so that each program is compiled once."""


def data(task):
    return PAIRS if isinstance(task, Translation) else BATCHES


def some_off(task):
    """A mask with heads off in every row, and all of one row."""
    mask_AH = task.present_AH & (np.random.default_rng(3).random(task.present_AH.shape) < 0.6)
    mask_AH[-2] = False
    return mask_AH


def leaf_at(tree, path):
    return functools.reduce(lambda tree, name: tree[name], path, tree)


def out_of(task, params, row):
    """A row's output projection `[P, D]`, its bias last."""
    out = leaf_at(params, task.config.modules[task.rows[row]].path)["out"]
    kernel = np.reshape(out.get("kernel", ()), (-1, out["bias"].shape[-1]))
    return np.concatenate([kernel, out["bias"][None]]).astype(np.float64)


@functools.partial(jax.jit, static_argnames="task")
def chain(task, params, batch, mask_AH):
    """Of each row the gated contexts and what its output is added to, and the last state."""
    at, state, rows = gates(mask_AH, task.present_AH), task.start(params, batch), []
    for row in range(len(task.rows)):
        context = task.context(params, row, batch, state)
        gated = jnp.einsum("BTHK,H->BTHK", context, at[row])
        rows.append((gated, task.residual(params, row, batch, state)))
        state = task.apply_row(params, row, batch, state, context, at[row])
    return rows, state


def explicit(task, params, row, mask_AH, batches):
    """Inputs `[n, P]` of the row and the residual stream after it `[n, D]`, one line for each real
    position."""
    inputs, streams = [], []
    for batch in batches:
        gated, residual = map(np.asarray, chain(task, params, batch, mask_AH)[0][row])
        real_BT = np.asarray(task.queries(batch)[row]) > 0
        x = gated.reshape(*real_BT.shape, -1)[real_BT]
        x = np.concatenate([x, np.ones((len(x), 1))], 1).astype(np.float64)
        inputs.append(x)
        streams.append(residual[real_BT] + x @ out_of(task, params, row))
    return np.concatenate(inputs), np.concatenate(streams)


@functools.partial(jax.jit, static_argnames="task")
def loss(task, params, batch, mask_AH):
    return task.loss(params, batch, gates(mask_AH, task.present_AH))


def close(found, expected, tolerance=1e-4):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance),
        found,
        expected,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_chain_of_all_rows_is_the_model(kind):
    """From the state after the last row follows the model's loss."""
    task = FAMILIES[kind]
    params, batch, mask_AH = random_params(task), data(task)[0], some_off(task)
    rows, state = chain(task, params, batch, mask_AH)
    queries = task.queries(batch)
    for (gated, residual), real_BT, mask_H in zip(rows, queries, task.present_AH, strict=True):
        assert gated.shape[:3] == (*real_BT.shape, mask_H.sum())
        assert residual.shape[:2] == real_BT.shape

    @jax.jit
    def read(params, batch, state):
        if not isinstance(task, Translation):
            return task._apply(params, "readout", state), batch["label_B"], 1
        logits_BTV = task._apply(params, "readout", state.target_BTD)
        return logits_BTV, batch["target_BT"], np.asarray(queries[-1])

    logits, gold, real = map(np.asarray, read(params, batch, state))
    log = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), gold[..., None], -1)[..., 0]
    found_B = -(log * real).reshape(len(log), -1).sum(1)
    real_B = batch["weight_B"] > 0
    expected_B = loss(task, params, batch, mask_AH)
    np.testing.assert_allclose(found_B[real_B], expected_B[real_B], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fit", ["weights", "bias"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_the_least_squares_of_what_is_missing(kind, fit):
    task, ridge, weights = FAMILIES[kind], 0.1, fit == "weights"
    params, mask_AH, batches = random_params(task), some_off(task), data(task)
    found = repair(task, params, batches, mask_AH, ridge=ridge, fit=fit)
    current = params
    for row, name in enumerate(task.rows):
        x, pruned = explicit(task, current, row, mask_AH, batches)
        _, full = explicit(task, params, row, task.present_AH, batches)
        living_h = mask_AH[row][task.present_AH[row]]
        width = task.config.modules[name].head_width
        kept = np.append(np.repeat(living_h & weights, width), True)
        missing = full - pruned
        # the ridge as more examples: the bias has none
        more = np.eye(kept.sum())[:-1] * np.sqrt(
            ridge * (x[:, :-1] ** 2)[:, np.repeat(living_h, width)].sum(0).mean()
            if kept.sum() > 1
            else 0
        )
        fitted = np.linalg.lstsq(
            np.concatenate([x[:, kept], more]),
            np.concatenate([missing, np.zeros((len(more), missing.shape[1]))]),
            rcond=None,
        )[0]
        expected = out_of(task, params, row)
        expected[kept] += fitted
        expected[:-1] *= np.repeat(living_h, width)[:, None]
        np.testing.assert_allclose(out_of(task, found.params, row), expected, rtol=2e-3, atol=2e-3)
        total = ((full - full.mean(0)) ** 2).sum()
        assert found.before_A[row] == pytest.approx((missing**2).sum() / total, rel=1e-3, abs=1e-6)
        left = ((missing - x[:, kept] @ fitted) ** 2).sum()
        assert found.after_A[row] == pytest.approx(left / total, rel=1e-3, abs=1e-6)
        out = (*task.config.modules[name].path, "out")
        current = replace(current, out, lambda _, out=out: leaf_at(found.params, out))


@pytest.mark.parametrize("fit", ["scales", "scales_alone"])
@pytest.mark.parametrize("kind", KINDS)
def test_scales_are_the_least_squares_of_what_heads_write(kind, fit):
    """With every head's part of the output written out, an unknown for each, and one for each
    number of the bias."""
    task, ridge = FAMILIES[kind], 0.1
    params, mask_AH, batches = random_params(task), some_off(task), data(task)
    found = repair(task, params, batches, mask_AH, ridge=ridge, fit=fit)
    current = params
    for row, name in enumerate(task.rows):
        x, pruned = explicit(task, current, row, mask_AH, batches)
        _, full = explicit(task, params, row, task.present_AH, batches)
        missing, own = full - pruned, out_of(task, params, row)
        living = np.flatnonzero(mask_AH[row][task.present_AH[row]])
        width, size = task.config.modules[name].head_width, missing.shape[1]
        parts = [slice(head * width, (head + 1) * width) for head in living]
        written = [(x[:, part] @ own[part]).ravel() for part in parts]
        columns = np.stack(written, 1) if written else np.zeros((missing.size, 0))
        more = np.eye(len(parts)) * np.sqrt(ridge * (columns**2).sum(0).mean() if written else 0)
        if fit == "scales":
            columns = np.concatenate([columns, np.tile(np.eye(size), (len(x), 1))], 1)
            more = np.pad(more, ((0, 0), (0, size)))
        fitted = np.linalg.lstsq(
            np.concatenate([columns, more]),
            np.concatenate([missing.ravel(), np.zeros(len(more))]),
            rcond=None,
        )[0]
        expected = np.zeros_like(own)
        for part, scale in zip(parts, fitted, strict=False):
            expected[part] = own[part] * (1 + scale)
        expected[-1] = own[-1] + (fitted[len(parts) :] if fit == "scales" else 0)
        np.testing.assert_allclose(out_of(task, found.params, row), expected, rtol=2e-3, atol=2e-3)
        total = ((full - full.mean(0)) ** 2).sum()
        left = ((missing.ravel() - columns @ fitted) ** 2).sum()
        assert found.after_A[row] == pytest.approx(left / total, rel=1e-3, abs=1e-6)
        assert found.after_A[row] <= found.before_A[row] + 1e-6
        out = (*task.config.modules[name].path, "out")
        current = replace(current, out, lambda _, out=out: leaf_at(found.params, out))
    assert (found.after_A < 0.99 * found.before_A).any()


@pytest.mark.parametrize("kind", KINDS)
def test_repaired_is_removed_and_nothing_else_has_changed(kind):
    """The weights of heads that are off are 0, so their gates do not matter."""
    task = FAMILIES[kind]
    params, mask_AH, batch = random_params(task), some_off(task), data(task)[0]
    found = repair(task, params, data(task), mask_AH).params
    masked_B = loss(task, found, batch, mask_AH)
    np.testing.assert_allclose(loss(task, found, batch, task.present_AH), masked_B, rtol=1e-6)
    small, fewer = removed(task, found, mask_AH)
    np.testing.assert_allclose(loss(small, fewer, batch, mask_AH), masked_B, rtol=1e-5, atol=1e-5)
    assert not np.allclose(masked_B, loss(task, params, batch, mask_AH))
    outs = {(*one.path, "out") for one in task.config.modules.values()}
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        names = tuple(part.key for part in path)
        if names[:-1] not in outs:
            np.testing.assert_array_equal(leaf, leaf_at(params, names))


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_is_off_nothing_changes(kind):
    task = FAMILIES[kind]
    params = random_params(task)
    found = repair(task, params, data(task), task.present_AH)
    close(found.params, params)
    assert (found.before_A < 1e-8).all()


def test_a_head_that_others_make_up_is_restored():
    """Head 2's values are a linear function of head 0's with its attention: lambda near 0 gives the
    row its output again, bias included."""
    attention = TASK.config.modules["enc.0"].path
    params = random_params()

    for name in ("query", "key", "value"):
        for leaf in ("kernel", "bias"):
            copied = np.array(leaf_at(params, (*attention, name, leaf)))
            copied[..., 2, :] = copied[..., 0, :] * (-2 if name == "value" else 1)
            if (name, leaf) == ("value", "bias"):
                copied[2] += 0.7
            params = replace(params, (*attention, name, leaf), lambda _, copied=copied: copied)
    mask_AH = np.array(FULL)
    mask_AH[0, 2] = False
    found = repair(TASK, params, data(TASK), mask_AH, ridge=1e-7)
    assert found.before_A[0] > 1e-3
    assert found.after_A[0] < 1e-6 * found.before_A[0]
    losses = [loss(TASK, of, data(TASK)[0], FULL) for of in (params, found.params)]
    np.testing.assert_allclose(*losses, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_of_one_row_the_bias_alone_is_the_fill_by_the_mean(kind):
    """Of the heads removed, in the full model."""
    task = FAMILIES[kind]
    params, row = random_params(task), len(task.rows) - 1
    mask_AH = np.array(task.present_AH)
    mask_AH[row, :2] = False
    found = repair(task, params, data(task), mask_AH, fit="bias").params
    x, _ = explicit(task, params, row, task.present_AH, data(task))
    off_P = np.append(
        np.repeat(
            ~mask_AH[row][task.present_AH[row]], task.config.modules[task.rows[row]].head_width
        ),
        False,
    )
    fill_D = x.mean(0)[off_P] @ out_of(task, params, row)[off_P]
    bias_D = out_of(task, params, row)[-1]
    np.testing.assert_allclose(out_of(task, found, row)[-1], bias_D + fill_D, rtol=1e-4, atol=1e-5)


def left_over(x, weights, gone, ridge):
    """What the best repair leaves of a row's output, with its penalty, by least squares with the
    ridge as more examples."""
    more = np.eye(x.shape[1])[:-1] * np.sqrt(ridge * (x[:, :-1] ** 2).sum(0).mean())
    whole = np.concatenate([x, more])
    fitted = np.linalg.lstsq(whole[:, ~gone], whole @ weights, rcond=None)[0]
    return ((whole @ weights - whole[:, ~gone] @ fitted) ** 2).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_obs_scores_are_what_the_best_repair_leaves(kind):
    """Row by row, the head that goes is the one without which least is left."""
    check_obs(FAMILIES[kind], random_params(FAMILIES[kind]))


def test_obs_scores_of_a_model_that_has_lost_heads():
    """One row has a head left, the other none."""
    check_obs(*removed(TASK, random_params(), np.eye(4, dtype=bool)[[1]] & [[True], [False]]))


def check_obs(task, params):
    ridge, present_AH = 0.05, task.present_AH
    score_AH = obs_scores(task, params, data(task), ridge=ridge)
    for row, name in enumerate(task.rows):
        x, stream = explicit(task, params, row, present_AH, data(task))
        weights, width = out_of(task, params, row), task.config.modules[name].head_width
        numbers = np.flatnonzero(present_AH[row])
        left = list(range(len(numbers)))
        gone, total = np.zeros(len(weights), bool), ((stream - stream.mean(0)) ** 2).sum()
        while left:
            tried = {}
            for head in left:
                without = gone.copy()
                without[head * width : (head + 1) * width] = True
                tried[head] = left_over(x, weights, without, ridge), without
            head = min(tried, key=lambda head: tried[head][0])
            least, gone = tried[head]
            assert score_AH[row, numbers[head]] == pytest.approx(least / total, rel=1e-3)
            left.remove(head)
    assert not score_AH[~present_AH].any()


def test_padding_does_not_count():
    """Longer batches, of other sizes, and examples of weight 0 give the same model."""
    params, mask_AH = random_params(), some_off(TASK)
    expected = repair(TASK, params, data(TASK), mask_AH).params
    found = repair(TASK, params, batched(examples(), size=15, buckets=(20,)), mask_AH).params
    close(found, expected)


def test_what_cannot_be_repaired_is_refused():
    params, batches = random_params(), batched(examples(count=4))
    with pytest.raises(ValueError, match="the ridge is 0, but a positive number was expected"):
        repair(TASK, params, batches, FULL, ridge=0)
    with pytest.raises(ValueError, match="the ridge is -1, but"):
        obs_scores(TASK, params, batches, ridge=-1)
    with pytest.raises(ValueError, match=r"has shape \(3, 4\), but the model has shape \(2, 4\)"):
        repair(TASK, params, batches, np.ones((3, 4)))
    with pytest.raises(
        ValueError, match=r"the output of row enc\.1 is the same at all 1 positions"
    ):
        repair(TASK, params, batched(examples(count=1)), FULL)
    bad = replace(params, ("layer_1", "attention", "value", "bias"), lambda bias: bias * np.nan)
    with pytest.raises(ValueError, match=r"the output of row enc\.1 are not finite"):
        repair(TASK, bad, batches, FULL)
