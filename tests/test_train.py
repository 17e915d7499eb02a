"""Training learns, is deterministic, and continues after an interruption as if there had been
none."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from tiny import BUCKETS, FULL, ONE_DEVICE, examples, random_params, with_config

import hp_jax.train
from hp_jax.config import FINE_TUNING
from hp_jax.data.batching import batches
from hp_jax.sharding import device_mesh
from hp_jax.train import Run, decayed, optimizer, train

TASK = with_config(dropout=0.1, attention_dropout=0.1, classifier_dropout=0.1)
PARAMS = random_params(scale=0.2)
DATA = examples(count=20)
RECIPE = dataclasses.replace(FINE_TUNING, epochs=3, batch=4, learning_rate=1e-2, save_every=2)


def epoch_batches(epoch):
    return batches(DATA, size=4, buckets=BUCKETS, shuffle=np.random.default_rng([0, epoch]))


def run(folder, *, seed=0, mesh=ONE_DEVICE, inputs=(("data", "1"),)):
    judge = jax.jit(lambda params: params["classifier"]["bias"].sum())
    whole = Run(
        TASK,
        epoch_batches,
        lambda epoch, params: {"bias": float(judge(params))},
        RECIPE,
        mask_AH=FULL,
        seed=seed,
        mesh=mesh,
        folder=folder,
        inputs=dict(inputs),
    )
    return train(whole, PARAMS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"))


def test_it_learns_and_keeps_a_line_an_epoch(undisturbed):
    params, history = undisturbed
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert history[-1]["training loss"] < history[0]["training loss"]
    assert history[-1]["bias"] == pytest.approx(float(params["classifier"]["bias"].sum()))


@pytest.mark.parametrize("after", [1, 5, 8, 15])
def test_an_interrupted_run_gives_the_same_result_bit_for_bit(
    tmp_path, monkeypatch, undisturbed, after
):
    """Interrupted before the first checkpoint, in an epoch, between epochs and at the very end."""
    calls = []
    place = hp_jax.train.place_batch

    def interrupted(batch, mesh):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return place(batch, mesh)

    monkeypatch.setattr(hp_jax.train, "place_batch", interrupted)
    if after < 15:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run")
        calls.clear()
        monkeypatch.setattr(
            hp_jax.train, "place_batch", lambda batch, mesh: calls.append(1) or place(batch, mesh)
        )
    else:
        run(tmp_path / "run")
        calls.clear()
    params, history = run(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, params, undisturbed[0])
    assert history == undisturbed[1]
    # 15 steps in all; what the last checkpoint (every 2 steps, and each epoch of 5) had was not
    # done again.
    assert len(calls) == 15 - {1: 0, 5: 5, 8: 8, 15: 15}[after]


def test_a_loss_that_is_no_number_ends_training_and_is_not_saved(
    tmp_path, monkeypatch, undisturbed
):
    place, calls = hp_jax.train.place_batch, []

    def poisoned(batch, mesh):
        calls.append(1)
        weight_B = batch["weight_B"] * (np.nan if len(calls) == 7 else 1)
        return place(batch | {"weight_B": weight_B}, mesh)

    monkeypatch.setattr(hp_jax.train, "place_batch", poisoned)
    with pytest.raises(
        ValueError, match=r"losses of epoch 2 is nan after step 8 of 15: this state"
    ):
        run(tmp_path)
    monkeypatch.undo()
    params, history = run(tmp_path)  # from step 6
    assert history == undisturbed[1]
    jax.tree.map(np.testing.assert_array_equal, params, undisturbed[0])


def test_another_runs_states_are_refused(tmp_path):
    run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds another training run \(different data\)"):
        run(tmp_path / "run", inputs=(("data", "2"),))


def test_seeds_differ_and_devices_do_not(tmp_path, undisturbed):
    one, _ = undisturbed
    many, _ = run(tmp_path / "many", mesh=device_mesh(jax.devices()[:4]))
    other, _ = run(tmp_path / "other", seed=1)

    def distance(a, b):
        return max(
            jax.tree.leaves(
                jax.tree.map(lambda x, y: np.abs(np.asarray(x) - np.asarray(y)).max(), a, b)
            )
        )

    # Adam turns the rounding of a tiny gradient into a step of some size; dropout turns it into
    # another run.
    assert distance(one, many) < 0.1 * distance(one, other)


def test_weight_decay_spares_biases_and_layernorm_and_the_rate_warms_up_and_decays():
    spared = {name for name, on in zip(*_named(decayed(PARAMS)), strict=True) if not on}
    assert spared == {
        name for name in _named(PARAMS)[0] if name.endswith(("['bias']", "['scale']"))
    }
    zero = jax.tree.map(np.zeros_like, PARAMS)
    recipe = dataclasses.replace(FINE_TUNING, learning_rate=1.0, warmup=0.1, weight_decay=0.5)
    transform = optimizer(recipe, 20)
    state = transform.init(PARAMS)
    update = jax.jit(transform.update)
    rates = []
    for _ in range(20):
        updates, state = update(zero, state, PARAMS)
        rates.append(
            float(
                -optax.tree_utils.tree_sum(updates["pool"]["kernel"])
                / PARAMS["pool"]["kernel"].sum()
                / 0.5
            )
        )
        assert not np.abs(updates["pool"]["bias"]).any()
    np.testing.assert_allclose(rates[:3], [0.0, 0.5, 1.0], atol=1e-4)
    np.testing.assert_allclose(rates[3:], [1 - k / 18 for k in range(1, 18)], atol=1e-4)


def _named(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path) for path, _ in leaves], [leaf for _, leaf in leaves]


@pytest.mark.parametrize(("warmup", "steps"), [(4, 100), (0.25, 16)])
def test_the_inverse_square_root_schedule(warmup, steps):
    """Adam's step on a constant gradient is the learning rate itself."""
    recipe = dataclasses.replace(
        FINE_TUNING,
        learning_rate=0.5,
        schedule="inverse_sqrt",
        warmup=warmup,
        weight_decay=0.0,
        clip=0.0,
    )
    params = {"bias": np.zeros(1, np.float32)}
    adam = optimizer(recipe, steps)
    update = jax.jit(adam.update)
    state, found = adam.init(params), []
    for _ in range(12):
        change, state = update({"bias": np.ones(1, np.float32)}, state, params)
        found.append(-float(change["bias"][0]))
    expected = [0.5 * min(step / 4, (4 / max(step, 1)) ** 0.5) for step in range(12)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
