"""Models that know nothing of hp_jax: a Linen and an NNX one, known by functions of their
gates."""

import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tiny import ONE_DEVICE

import hp_jax
from hp_jax.grid import Grid

HEADS, WIDTH, CLASSES, LAYERS = 4, 16, 3, 2
MASK = hp_jax.all_on(LAYERS, HEADS)


class LinenModel(nn.Module):
    """Two layers of attention over numbers; gates multiply each head's context."""

    @nn.compact
    def __call__(self, x_BTD, gates):
        for layer in range(LAYERS):
            project = [
                nn.DenseGeneral((HEADS, WIDTH // HEADS), name=f"{name}_{layer}") for name in "qkv"
            ]
            context_BTHK = jax.nn.dot_product_attention(*(part(x_BTD) for part in project))
            context_BTHK = context_BTHK * gates[layer][..., None]
            x_BTD = x_BTD + nn.DenseGeneral(WIDTH, axis=(-2, -1), name=f"o_{layer}")(context_BTHK)
        return nn.Dense(CLASSES)(x_BTD.mean(1))


class NnxModel(nnx.Module):
    """One layer of the same with a residual connection."""

    def __init__(self, rngs):
        self.inner = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.outer = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.readout = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x_BTD, gate):
        parts = jnp.split(self.inner(x_BTD), 3, axis=-1)
        q, k, v = (part.reshape(*x_BTD.shape[:2], HEADS, -1) for part in parts)
        context_BTHK = jax.nn.dot_product_attention(q, k, v) * gate[..., None]
        return self.readout((x_BTD + self.outer(context_BTHK.reshape(x_BTD.shape))).mean(1))


def linen_loss(params, batch, gates):
    logits_BC = LinenModel().apply({"params": params}, batch["x"], gates)
    return optax.softmax_cross_entropy_with_integer_labels(logits_BC, batch["y"])


def linen_values(params, batch, gates):
    logits_BC = LinenModel().apply({"params": params}, batch["x"], gates)
    loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BC, batch["y"])
    return {"loss": loss_B, "right": jnp.argmax(logits_BC, -1) == batch["y"]}


def everywhere(batch):
    return (jnp.ones(batch["x"].shape[:2]) * batch["weight_B"][:, None],) * LAYERS


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    return {
        "x": random.normal(size=(21, 5, WIDTH)).astype(np.float32),
        "y": random.integers(0, CLASSES, 21).astype(np.int32),
    }


@pytest.fixture(scope="module")
def batches(data):
    return hp_jax.make_batches(data, size=8)


@pytest.fixture(scope="module")
def params():
    one = jnp.zeros((1, 5, WIDTH)), [jnp.ones((1, 1, HEADS))] * LAYERS
    return LinenModel().init(jax.random.key(1), *one)["params"]


def plain(params, data, mask_AH):
    """The loss of every example, by the function alone."""
    gates = [jnp.asarray(mask_H, jnp.float32)[None, None] for mask_H in mask_AH]
    return np.asarray(linen_loss(params, data, gates))


def test_a_function_and_a_mask_are_enough(data, batches, params):
    task = hp_jax.as_task(linen_loss, MASK)
    masks_MAH = hp_jax.one_off(MASK)
    loss_MN = hp_jax.evaluate_grid(task, params, batches, masks_MAH, chunk=3)["loss"]
    expected = np.stack([plain(params, data, mask_AH) for mask_AH in masks_MAH])
    np.testing.assert_allclose(loss_MN, expected, rtol=1e-5, atol=1e-6)

    estimator = hp_jax.MeanGradient(per="example", measure="signed")
    score_AH = hp_jax.head_importance(
        task, params, batches, MASK, estimator=estimator, mesh=ONE_DEVICE
    )
    gates = jnp.ones((LAYERS, 1, 1, HEADS))
    gradient_AH = jax.grad(lambda gates: jnp.mean(linen_loss(params, data, gates)))(gates)[:, 0, 0]
    np.testing.assert_allclose(score_AH, gradient_AH, rtol=1e-4, atol=1e-6)

    pruned_MAH = hp_jax.prune(lambda mask_AH: score_AH, MASK, [0, 3, 6])
    assert pruned_MAH.sum((1, 2)).tolist() == [8, 5, 2]
    base_N = plain(params, data, MASK)
    metric = hp_jax.metrics.MeanLoss()
    statistics = metric.statistics({"loss": np.concatenate([base_N[None], loss_MN])})
    found = hp_jax.paired_bootstrap(statistics[1:], statistics[0], metric)
    np.testing.assert_allclose(found.difference, loss_MN.mean(1) - base_N.mean(), atol=1e-5)


def test_by_default_as_many_masks_as_fit_are_taken_together(batches, params):
    task = hp_jax.as_task(linen_loss, MASK)
    masks_MAH = hp_jax.one_off(MASK)
    np.testing.assert_allclose(
        hp_jax.evaluate_grid(task, params, batches, masks_MAH)["loss"],
        hp_jax.evaluate_grid(task, params, batches, masks_MAH, chunk=8, mesh=ONE_DEVICE)["loss"],
        rtol=1e-6,
    )


def test_query_positions_give_scores_by_token(batches, params):
    task = hp_jax.as_task(linen_loss, MASK, queries=everywhere)
    scores = {
        per: hp_jax.head_importance(
            task, params, batches, MASK, estimator=hp_jax.MeanGradient(per), mesh=ONE_DEVICE
        )
        for per in ("token", "example")
    }
    assert (5 * scores["token"] >= scores["example"] - 1e-6).all()  # the triangle inequality
    assert not np.allclose(5 * scores["token"], scores["example"], rtol=0.05)


def test_without_them_a_score_by_token_is_refused(batches, params):
    task = hp_jax.as_task(linen_loss, MASK)
    with pytest.raises(ValueError, match="does not say its query positions"):
        hp_jax.head_importance(task, params, batches, MASK)


def test_a_grid_keeps_what_it_is_told_to(data, batches, params):
    task = hp_jax.as_task(linen_loss, MASK, values=linen_values)
    values = Grid(task, params, batches, hp_jax.rows_off(MASK), mesh=ONE_DEVICE).evaluate(chunk=2)
    gates = [jnp.zeros((1, 1, HEADS)), jnp.ones((1, 1, HEADS))]
    expected = linen_values(params, data, gates)
    np.testing.assert_array_equal(values["right"][0], expected["right"])
    np.testing.assert_allclose(values["loss"][0], expected["loss"], rtol=1e-5, atol=1e-6)


def test_an_nnx_model(data, batches):
    graph, state = nnx.split(NnxModel(nnx.Rngs(0)))

    def loss(state, batch, gates):
        logits_BC = nnx.merge(graph, state)(batch["x"], gates[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits_BC, batch["y"])

    mask_AH = hp_jax.all_on(1, HEADS)
    task = hp_jax.as_task(loss, mask_AH, rows=("attention",))
    masks_MAH = np.concatenate([hp_jax.one_off(mask_AH), hp_jax.rows_off(mask_AH)])
    found = hp_jax.evaluate_grid(task, state, batches, masks_MAH, chunk=5)["loss"]
    for mask_AH, loss_N in zip(masks_MAH, found, strict=True):
        expected = loss(state, data, [jnp.asarray(mask_AH, jnp.float32)[None]])
        np.testing.assert_allclose(loss_N, expected, rtol=1e-5, atol=1e-6)
    score_AH = hp_jax.head_importance(
        task,
        state,
        batches,
        hp_jax.all_on(1, HEADS),
        estimator=hp_jax.MeanGradient(per="example"),
        mesh=ONE_DEVICE,
    )
    assert (score_AH > 0).all()


def test_gates_between_on_and_off_have_gradients_but_are_no_mask(batches, params):
    task = hp_jax.as_task(linen_loss, MASK)
    half = np.full(MASK.shape, 0.5)
    estimator = hp_jax.MeanGradient(per="example")
    at_half = hp_jax.head_importance(
        task, params, batches, half, estimator=estimator, mesh=ONE_DEVICE
    )
    at_one = hp_jax.head_importance(
        task, params, batches, MASK, estimator=estimator, mesh=ONE_DEVICE
    )
    assert not np.allclose(at_half, at_one, rtol=0.01)
    with pytest.raises(ValueError, match=r"holds 0.5 at \(0, 0, 0\), but every value must be 0 or"):
        hp_jax.evaluate_grid(task, params, batches, half[None])


def test_what_does_not_fit_is_said_in_a_sentence(data, batches, params):
    with pytest.raises(ValueError, match="expected 2 different names, one for each row"):
        hp_jax.as_task(linen_loss, MASK, rows=("a",))
    with pytest.raises(ValueError, match="at least one head"):
        hp_jax.as_task(linen_loss, np.zeros((2, 4)))
    estimator = hp_jax.MeanGradient(per="example")
    mean = hp_jax.as_task(lambda *inputs: jnp.mean(linen_loss(*inputs)), MASK)
    with pytest.raises(ValueError, match=r"the loss has shape \(\), but one number for each"):
        hp_jax.head_importance(mean, params, batches, MASK, estimator=estimator)
    short = hp_jax.as_task(linen_loss, MASK, queries=lambda batch: everywhere(batch)[:1])
    with pytest.raises(ValueError, match="query positions of 1 rows, but the mask has 2 rows"):
        hp_jax.head_importance(short, params, batches, MASK)
    task = hp_jax.as_task(linen_loss, MASK)
    again = [batch | {"index_B": np.arange(8)} for batch in batches[:2]]
    with pytest.raises(ValueError, match=r"index_B must number the 16 examples .* 8 different"):
        hp_jax.evaluate_grid(task, params, again, MASK[None])
    with pytest.raises(ValueError, match="arrays of one length"):
        hp_jax.make_batches({"x": data["x"], "y": data["y"][:3]}, size=8)


def scored(task, params, batches, mask_AH=MASK):
    estimator = hp_jax.MeanGradient(per="example")
    return hp_jax.head_importance(
        task, params, batches, mask_AH, estimator=estimator, mesh=ONE_DEVICE
    )


def gridded(task, params, batches, mask_AH=MASK):
    return hp_jax.evaluate_grid(task, params, batches, mask_AH[None], chunk=1, mesh=ONE_DEVICE)


def changed(batches, number, **arrays):
    """The batches, with some arrays of one of them replaced; without those that are None."""
    made = [dict(batch) for batch in batches]
    made[number] = {k: v for k, v in (made[number] | arrays).items() if v is not None}
    return made


BAD_BATCHES = {
    r"weight_B of batch 1 is 0\.5 at 2, but 1 \(a real": lambda some: changed(
        some, 1, weight_B=np.array([1, 1, 0.5, 1, 1, 1, 1, 1])
    ),
    "weight_B of batch 0 is nan at 0": lambda some: changed(some, 0, weight_B=np.full(8, np.nan)),
    r"batch 1 has the arrays .* \(different: y\)": lambda some: changed(some, 1, y=None),
    r"batch 2 has the arrays .* \(different: z\)": lambda some: changed(some, 2, z=np.ones(8)),
    r"one length, that of the batch, but batch 1 has .*'y': \(7,\)": lambda some: changed(
        some, 1, y=np.zeros(7, np.int32)
    ),
    r"one length, that of the batch, but batch 0 has .*'y': \(\)": lambda some: changed(
        some, 0, y=np.int32(1)
    ),
    "one length, that of the batch, but batch 0 has": lambda some: [
        {name: array[:0] for name, array in some[0].items()}
    ],
    "batch 0 is 'x', but arrays by name were expected": lambda some: some[0],
    "at least one batch with an example": lambda some: [],
    "one batch with an example that is not padding": lambda some: changed(
        some[:1], 0, weight_B=np.zeros(8)
    ),
}


@pytest.mark.parametrize("use", [scored, gridded])
@pytest.mark.parametrize("message", BAD_BATCHES)
def test_batches_that_are_none_are_refused(message, use, batches, params):
    with pytest.raises(ValueError, match=message):
        use(hp_jax.as_task(linen_loss, MASK), params, BAD_BATCHES[message](batches))


@pytest.mark.parametrize(
    "index_B", [np.arange(8), np.arange(8, 16) + 100, np.full(8, 9), np.arange(8.0) + 8]
)
def test_places_in_the_data_set_are_once_each(index_B, batches, params):
    with pytest.raises(ValueError, match=r"index_B must (number the 21 examples|be integers)"):
        gridded(hp_jax.as_task(linen_loss, MASK), params, changed(batches, 1, index_B=index_B))


@pytest.mark.parametrize("use", [scored, gridded])
@pytest.mark.parametrize("shape", ["scalar", "column", "tokens"])
def test_a_loss_of_another_shape_is_refused(use, shape, batches, params):
    def loss(params, batch, gates):
        loss_B = linen_loss(params, batch, gates)
        return {
            "scalar": loss_B.mean(),
            "column": loss_B[:, None] if use is scored else loss_B[None],
            "tokens": jnp.tile(loss_B[None], (5, 1)),
        }[shape]

    with pytest.raises(ValueError, match=r"has shape \(.*\).* examples of the batch"):
        use(hp_jax.as_task(loss, MASK), params, batches)


class Plain:
    """A task by hand, without any check of its own."""

    rows = ("a", "b")
    present_AH = MASK
    loss = staticmethod(linen_loss)
    values = staticmethod(linen_values)

    def queries(self, batch):
        return everywhere(batch)[:1]


class Unhashable(Plain):
    __hash__ = None


class Narrow(Plain):
    rows = ("a",)


@pytest.mark.parametrize("use", [scored, gridded])
@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Unhashable(), "a task must be hashable, .* unhashable type: 'Unhashable'"),
        (Narrow(), r"1 rows \(a\), but its mask present_AH has shape \(2, 4\)"),
    ],
)
def test_a_task_that_is_none_is_refused(use, task, message, batches, params):
    with pytest.raises(ValueError, match=message):
        use(task, params, batches)


def test_what_a_task_by_hand_does_wrong_is_said_too(batches, params):
    with pytest.raises(ValueError, match="query positions of 1 rows, but the mask has 2 rows"):
        scored(Plain(), params, batches)
    bare = {name: batches[0][name] for name in ("x", "y")}
    with pytest.raises(ValueError, match=r"expected a batch with weight_B .* but it has x, y"):
        hp_jax.gate_gradients(hp_jax.as_task(linen_loss, MASK), params, bare, MASK)
    with pytest.raises(ValueError, match="a task must be hashable"):
        hp_jax.as_task([linen_loss], MASK)


@pytest.mark.parametrize("use", [scored, gridded])
@pytest.mark.parametrize("mask_AH", [np.ones((2, 5)), np.ones((3, 4)), np.ones(4)])
def test_gates_of_another_shape_are_refused(use, mask_AH, batches, params):
    with pytest.raises(ValueError, match=r"has shape .*, but the model has shape \(2, 4\)|is \(1"):
        use(hp_jax.as_task(linen_loss, MASK), params, batches, mask_AH)


def test_gates_that_the_model_ignores_are_noticed(batches, params, caplog):
    def deaf(params, batch, gates):
        return linen_loss(params, batch, [jnp.ones((1, 1, HEADS))] * LAYERS)

    with pytest.raises(ValueError, match="exactly 0, so the loss does not depend on the gates"):
        scored(hp_jax.as_task(deaf, MASK), params, batches)
    masks_MAH = hp_jax.rows_off(MASK)
    for loss, says in ((linen_loss, False), (deaf, True)):
        caplog.clear()
        hp_jax.evaluate_grid(
            hp_jax.as_task(loss, MASK), params, batches, masks_MAH, chunk=2, mesh=ONE_DEVICE
        )
        assert ("exactly the same under all 2 masks" in caplog.text) == says


def test_the_first_number_that_is_not_finite_is_told_with_its_place(batches, params):
    x_BTD = batches[1]["x"].copy()
    x_BTD[3] = np.nan
    broken, task = changed(batches, 1, x=x_BTD), hp_jax.as_task(linen_loss, MASK)
    says = r"gate of row\.0\.0 is nan for row 3 of batch 1, the example 11: expected finite"
    with pytest.raises(ValueError, match=says):
        scored(task, params, broken)
    with pytest.raises(ValueError, match=says):
        hp_jax.importance.example_gradients(task, params, broken, MASK, mesh=ONE_DEVICE)
    masks_MAH = np.concatenate([MASK[None], hp_jax.one_off(MASK)])

    def fragile(params, batch, gates):
        """Infinite without head 2 of row 1."""
        return linen_loss(params, batch, gates) / gates[1][..., 2].squeeze()

    for loss, some, place in (
        (
            linen_loss,
            broken,
            r"the loss of example 11 \(batch 1\) is nan under mask 0 \(",
        ),
        (fragile, batches, r"example 0 \(batch 0\) is inf under mask 7 \(without row\.1\.2\)"),
    ):
        with pytest.raises(ValueError, match=place):
            hp_jax.evaluate_grid(
                hp_jax.as_task(loss, MASK), params, some, masks_MAH, chunk=3, mesh=ONE_DEVICE
            )


def test_batches_may_lack_weights_and_places(data, batches, params):
    bare = [{name: array[i : i + 7] for name, array in data.items()} for i in (0, 7, 14)]
    task = hp_jax.as_task(linen_loss, MASK)
    np.testing.assert_allclose(
        hp_jax.evaluate_grid(task, params, bare, MASK[None], mesh=ONE_DEVICE, chunk=1)["loss"],
        hp_jax.evaluate_grid(task, params, batches, MASK[None], mesh=ONE_DEVICE, chunk=1)["loss"],
        rtol=1e-5,
    )


def test_equal_tasks_are_one_to_jax():
    first, second = hp_jax.as_task(linen_loss, MASK), hp_jax.as_task(linen_loss, MASK.copy())
    assert first == second
    assert hash(first) == hash(second)


# --- the public face -----------------------------------------------------------------------------


def test_every_public_name_is_there():
    assert set(hp_jax.__all__) == set(dir(hp_jax))
    for name in hp_jax.__all__:
        assert getattr(hp_jax, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'head_importence'"):
        _ = hp_jax.head_importence


def test_importing_costs_nothing_until_a_name_is_used():
    code = (
        "import sys, hp_jax; before = set(sys.modules); dir(hp_jax); "
        "assert not {'jax', 'numpy', 'flax'} & before, before; "
        "hp_jax.heads; assert 'jax' in sys.modules and 'flax' not in sys.modules; "
        "hp_jax.as_task; assert 'flax' not in sys.modules and 'optax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
