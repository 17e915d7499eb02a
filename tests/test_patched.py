"""Heads patched with the contexts of a counterfactual: the task, its data and the commands."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import scipy.special
from by_hand import log_likelihood, run
from tiny import ONE_DEVICE, config_file, random_params
from tiny_language import CONFIG, tokenizer, write_language_model, write_patching

from hp_jax import heads
from hp_jax.architecture import present_mask
from hp_jax.cli import main
from hp_jax.config import (
    Ablation,
    ChoiceData,
    Importance,
    MultipleChoiceExperiment,
)
from hp_jax.data import choices
from hp_jax.data.batching import batches
from hp_jax.experiment import ablate, load
from hp_jax.grid import evaluate_grid
from hp_jax.importance import example_gradients, gate_gradients
from hp_jax.linear import linear_map
from hp_jax.models.choices import MultipleChoice
from hp_jax.models.language import LanguageModel
from hp_jax.models.patched import Patched
from hp_jax.storage.store import open_store
from hp_jax.text.choices import EncodedItems, encode_items

FULL = present_mask(CONFIG)
SOME = np.array([[1, 1, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0]], bool)
MASKS = np.concatenate([FULL[None], heads.one_off(FULL), [SOME, ~SOME, ~FULL]])
WHOLE = MultipleChoice(CONFIG, 3)
TASK = Patched(WHOLE)
PARAMS = random_params(LanguageModel(CONFIG), scale=0.3)


def encoded(count=5, seed=0):
    """Random items of two or three choices, and random tokens before the same choices."""
    random = np.random.default_rng(seed)
    tokens, others, given, size = [], [], [], []
    for _ in range(count):
        own = random.integers(2, 4)
        ids = [
            random.integers(0, CONFIG.vocab, random.integers(4, 9)).astype(np.int32)
            for _ in range(own)
        ]
        before = [int(random.integers(2, len(one))) for one in ids]
        tokens.append(tuple(ids))
        others.append(
            tuple(
                np.concatenate([random.integers(0, CONFIG.vocab, n), one[n:]]).astype(np.int32)
                for one, n in zip(ids, before, strict=True)
            )
        )
        given.append(tuple(before))
        size.append(tuple(random.uniform(1, 3, own)))
    label_N = np.array([random.integers(len(own)) for own in tokens], np.int32)
    columns = tuple(tokens), tuple(given), tuple(size), 3, label_N, np.arange(count)
    return EncodedItems("x", *columns, tuple(others))


DATA = encoded()


def logits(gate_AH, n):
    """Of an item's choices, each run alone, with contexts replaced by those of a run of the
    counterfactual."""
    found = []
    for ids, other, before, size in zip(
        DATA.tokens[n], DATA.counterfactual[n], DATA.given[n], DATA.size[n], strict=True
    ):
        _, contexts = run(CONFIG, PARAMS, other, FULL)
        log_TV, _ = run(CONFIG, PARAMS, ids, gate_AH, contexts)
        found.append(log_likelihood(log_TV, ids, before) / size)
    return np.array(found)


def loss(gate_AH, n):
    return -scipy.special.log_softmax(logits(gate_AH, n))[DATA.label_N[n]]


def batched(size=4):
    return batches(DATA, size=size, buckets=(24,))


def gradient(of, row, head, step=1e-5):
    """Central differences in a gate at 1, in float64."""
    moved = np.zeros(FULL.shape)
    moved[row, head] = step
    return (of(FULL + moved) - of(FULL - moved)) / (2 * step)


def test_the_reference_is_the_model():
    """Without patches, and with heads gone."""
    ids = np.arange(9)
    for mask_AH in (FULL, SOME):
        log_TV, _ = run(CONFIG, PARAMS, ids, mask_AH)
        found = LanguageModel(CONFIG).logits(PARAMS, ids[None], heads.gates(mask_AH, FULL))[0]
        np.testing.assert_allclose(jax.nn.log_softmax(found), log_TV, atol=1e-4)


def test_a_grid_is_real_patching():
    """Each head off alone, some, the others, and all: by running the counterfactual, keeping its
    contexts, and running the item with them."""
    values = evaluate_grid(TASK, PARAMS, batched(), MASKS)
    for m, mask_AH in enumerate(MASKS):
        for n in range(len(DATA)):
            expected = logits(mask_AH, n)
            assert values["prediction"][m, n] == expected.argmax()
            np.testing.assert_allclose(values["loss"][m, n], loss(mask_AH, n), rtol=1e-4, atol=1e-5)
            odds = scipy.special.softmax(expected).max()
            np.testing.assert_allclose(values["confidence"][m, n], odds, rtol=1e-4)
            others = np.delete(expected, DATA.label_N[n])
            difference = expected[DATA.label_N[n]] - others.max()
            found = values["logit_difference"][m, n]
            np.testing.assert_allclose(found, difference, rtol=1e-4, atol=1e-5)


def test_with_all_heads_on_it_is_the_model_and_otherwise_not_the_one_without_heads():
    masks_MAH = np.stack([FULL, SOME])
    patched, removed = (evaluate_grid(of, PARAMS, batched(), masks_MAH) for of in (TASK, WHOLE))
    np.testing.assert_allclose(patched["loss"][0], removed["loss"][0], rtol=1e-5, atol=1e-6)
    assert np.abs(patched["loss"][1] - removed["loss"][1]).min() > 1e-4


def test_a_counterfactual_that_is_the_text_itself_changes_nothing():
    same = dataclasses.replace(DATA, counterfactual=DATA.tokens)
    values = evaluate_grid(TASK, PARAMS, batches(same, size=4, buckets=(24,)), MASKS)
    for loss_N in values["loss"]:
        np.testing.assert_allclose(loss_N, values["loss"][0], rtol=1e-4, atol=1e-5)


def test_devices_and_batches_make_no_difference():
    one = evaluate_grid(TASK, PARAMS, batched(2), MASKS, mesh=ONE_DEVICE)
    all_ = evaluate_grid(TASK, PARAMS, batched(5), MASKS)
    np.testing.assert_allclose(one["loss"], all_["loss"], rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_finite_differences():
    found_NAH = example_gradients(TASK, PARAMS, batched(), FULL)
    for n in range(len(DATA)):
        for row, head in np.argwhere(FULL):
            expected = gradient(lambda gate_AH, n=n: loss(gate_AH, n), row, head)
            np.testing.assert_allclose(found_NAH[n, row, head], expected, rtol=1e-3, atol=1e-5)


def test_the_gradient_is_attribution_patching():
    """At each position the difference of the contexts times the loss's gradient in the context,
    which comes from another program: the model without patches, a little added to its contexts."""
    (batch,) = batched(5)
    found = gate_gradients(TASK, PARAMS, batch, FULL)
    other = {**batch, "tokens_BT": batch["counterfactual_BT"]}

    def of_contexts(batch, added):
        state, seen = WHOLE.start(PARAMS, batch), []
        for row, more in enumerate(added):
            seen.append(WHOLE.context(PARAMS, row, batch, state))
            ones = np.ones(CONFIG.heads, np.float32)
            state = WHOLE.apply_row(PARAMS, row, batch, state, seen[-1] + more, ones)
        logits_BC = WHOLE.logits_of(PARAMS, batch, state)
        right_B = np.arange(len(logits_BC)), batch["label_B"]
        return -jax.nn.log_softmax(logits_BC)[right_B].sum(), seen

    shape = jax.eval_shape(lambda: WHOLE.context(PARAMS, 0, batch, WHOLE.start(PARAMS, batch)))
    nothing = [np.zeros(shape.shape, np.float32)] * CONFIG.layers
    slopes, own = jax.grad(of_contexts, argnums=1, has_aux=True)(batch, nothing)
    _, counterfactual = of_contexts(other, nothing)
    for row in range(CONFIG.layers):
        expected_BTH = ((own[row] - counterfactual[row]) * slopes[row]).sum(-1)
        np.testing.assert_allclose(found[row], expected_BTH, rtol=1e-3, atol=1e-5)
        assert np.abs(expected_BTH).max() > 1e-3


def test_the_linear_map_is_of_log_odds():
    found = linear_map(TASK, PARAMS, batched(), FULL)
    for n in range(len(DATA)):
        others = len(DATA.tokens[n]) - 1

        def odds(gate_AH, n=n):
            own = logits(gate_AH, n)
            return own[1:] - own[0]

        np.testing.assert_allclose(found.output_NO[n, :others], odds(FULL), rtol=1e-4, atol=1e-4)
        for row, head in ((0, 0), (1, 3), (2, 1)):
            slope_O = found.slope_NOAH[n, :others, row, head]
            np.testing.assert_allclose(slope_O, gradient(odds, row, head), rtol=1e-3, atol=1e-4)


# --- items ---------------------------------------------------------------------------------------

ITEM = {"context": "at an", "counterfactual": "an at", "choices": ["at", "the"], "label": 1}
COUNTERFACTUAL = {"removed": "counterfactual", "max_length": 32, "buckets": (32,)}


def read(folder, *records, **settings):
    path = folder / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, records)) + "\n")
    return choices.read(ChoiceData(path=str(path), **(COUNTERFACTUAL | settings)), "validation")


def test_items_have_a_counterfactual(tmp_path):
    found = read(tmp_path, ITEM)
    assert found.counterfactuals == ((("an at", " at"), ("an at", " the")),)
    assert read(tmp_path, ITEM, removed="zero").counterfactuals is None
    own = tokenizer()
    encoded = encode_items(own, found, 32, prefix="", by_length=False)
    for tokens, counterfactual, choice in zip(
        encoded.tokens[0], encoded.counterfactual[0], ITEM["choices"], strict=True
    ):
        assert tokens.tolist() == own.encode(f"at an {choice}").ids
        assert counterfactual.tolist() == own.encode(f"an at {choice}").ids
    cut = encode_items(own, found, 4, prefix="", by_length=False)
    assert cut.counterfactual[0][0].tolist() == encoded.counterfactual[0][0][-4:].tolist()
    assert cut.fingerprint() != encoded.fingerprint()
    other = dataclasses.replace(encoded, counterfactual=encoded.tokens)
    assert other.fingerprint() != encoded.fingerprint()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"counterfactual": None}, "x.jsonl:2: expected an item.*counterfactual is None, but a"),
        ({"counterfactual": 5}, "x.jsonl:2: expected an item.*counterfactual is 5, but a text"),
    ],
)
def test_items_without_one(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        read(tmp_path, ITEM, ITEM | change)
    with pytest.raises(ValueError, match=r"x.jsonl:1: expected an item.*'counterfactual'"):
        read(tmp_path, {name: ITEM[name] for name in ("context", "choices", "label")})


def test_a_counterfactual_has_as_many_tokens(tmp_path):
    found = read(tmp_path, ITEM, ITEM | {"counterfactual": "an at the"})
    own = tokenizer()
    before, after = (len(own.encode(text).ids) for text in ("at an", "at an at"))
    said = (
        f"x.jsonl:2: with the choice ' at' the context has {before} tokens of {after}, but the "
        f"counterfactual {before + 1} of {after + 1}: expected as many, position by position"
    )
    with pytest.raises(ValueError, match=said):
        encode_items(own, found, 32, prefix="", by_length=False)


def test_only_own_items_can_have_one():
    with pytest.raises(ValueError, match=r"data.removed is 'counterfactual'.*layout 'own'"):
        ChoiceData(layout="blimp", removed="counterfactual")


# --- the commands --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patched")
    write_language_model(folder / "model")
    write_patching(folder / "items.jsonl", 12)
    return MultipleChoiceExperiment(
        model=str(folder / "model"),
        out=str(folder / "out"),
        data=ChoiceData(path=str(folder / "items.jsonl"), **COUNTERFACTUAL),
        metric="logit_difference",
        importance=Importance(split="validation", per="example", measure="signed", norm=0),
        ablation=Ablation(sets=("one_off", "one_on", "prefixes")),
    )


def test_from_items_to_report(config, tmp_path, capsys):
    path = str(config_file(tmp_path, config))
    assert main(["importance", path, "--quiet"]) == 0
    assert f"next: hp-jax ablate {path}" in capsys.readouterr().out
    assert main(["ablate", path, "--quiet"]) == 0
    assert main(["linear", path, "--quiet"]) == 0
    assert main(["evaluate", path, "--without", "dec.0.1", "--quiet"]) == 0
    page = (tmp_path / config.out / "report/index.html").read_text()
    assert "A head that is off is patched, not removed" in page
    assert "be patched: logit difference is" in page
    for words in ("can go", "shown to do no harm", "can be removed", "What the paper claims"):
        assert words not in page
    assert isinstance(load(config).task, Patched)
    store = open_store(f"{config.out}/ablation/validation/one_off")
    assert store.manifest["removed"] == "counterfactual"
    zero = dataclasses.replace(config, data=dataclasses.replace(config.data, removed="zero"))
    with pytest.raises(ValueError, match="different data"):
        ablate(load(zero))


@pytest.mark.parametrize("command", ["run", "train", "prune", "compare", "reproduce"])
def test_nothing_is_removed_or_trained(config, tmp_path, capsys, command):
    own = dataclasses.replace(config, out=str(tmp_path / "out"))
    assert main([command, str(config_file(tmp_path, own)), "--quiet"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "a head that is off still has a context" in said
    assert not (tmp_path / "out").exists()


def test_no_model_is_made_smaller_by_it(config, tmp_path, capsys):
    assert main(["importance", str(config_file(tmp_path, config)), "--quiet"]) == 0
    order = f"{config.out}/importance"
    words = ["remove", config.model, str(tmp_path / "small"), "--order", order, "--keep", "heads"]
    assert main([*words, "0.5", "--quiet"]) == 1
    assert "does not say which can be removed" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()
