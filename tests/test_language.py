"""Decoder-only language models: their task, their windows, and their metrics."""

import dataclasses
import runpy

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from tiny import ONE_DEVICE, random_params
from tiny_language import CONFIG, KINDS, TASK, batched, of_kind, tokenizer, windows

from hp_jax import heads
from hp_jax.architecture import Decoding, present_mask
from hp_jax.data.documents import Documents
from hp_jax.formats import stablehlo
from hp_jax.generation import generate
from hp_jax.grid import evaluate_grid
from hp_jax.importance import example_gradients, head_importance
from hp_jax.least_squares import repair
from hp_jax.metrics import metric_of, scores, statistics_of
from hp_jax.models.choices import MultipleChoice
from hp_jax.models.decoder import Decoder
from hp_jax.models.language import LanguageModel
from hp_jax.removal import pad_heads, remove_heads
from hp_jax.shrink import costs
from hp_jax.text.windows import encode_documents

PARAMS = random_params(TASK, scale=0.3)
DATA = windows()
FULL = present_mask(CONFIG)
RAGGED = np.array([[1, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
"""An uneven group, a whole group off, and a row without heads."""


LENGTH = 12
RUN = jax.jit(LanguageModel.logits, static_argnums=0)


def logits(task, params, tokens, mask_AH):
    """Those of a text alone; what comes after it is not seen (see below)."""
    gates = heads.gates(mask_AH, task.present_AH)
    filled = np.pad(np.array([tokens]), ((0, 0), (0, LENGTH - len(tokens))))
    return np.asarray(RUN(task, params, filled, gates))[0, : len(tokens)]


def by_hand(task, params, data, mask_AH):
    """Loss and right tokens of each window, from the logits of that window alone."""
    found = []
    for ids, given_ in zip(data.tokens, data.given_N, strict=True):
        log_TV = np.asarray(jax.nn.log_softmax(logits(task, params, ids[:-1], mask_AH)))
        gold_T = ids[given_:]
        log_TV = log_TV[given_ - 1 :]
        right = (log_TV.argmax(1) == gold_T).sum()
        found.append((-log_TV[np.arange(len(gold_T)), gold_T].sum(), right))
    return map(np.array, zip(*found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_grid_gives_what_each_window_has_alone(kind):
    """Of every mask, whatever the batch: padding, other windows and shared states change
    nothing."""
    task = of_kind(kind)
    params, masks_MAH = random_params(task, scale=0.3), np.stack([FULL, RAGGED, ~RAGGED])
    values = evaluate_grid(task, params, batched(DATA), masks_MAH)
    for mask_AH, loss_N, correct_N in zip(
        masks_MAH, values["loss"], values["correct"], strict=True
    ):
        expected_loss_N, expected_correct_N = by_hand(task, params, DATA, mask_AH)
        np.testing.assert_allclose(loss_N, expected_loss_N, rtol=2e-5, atol=1e-5)
        np.testing.assert_array_equal(correct_N, expected_correct_N)


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_the_loss_is_the_grid_s(kind):
    task = of_kind(kind)
    params = random_params(task, scale=0.3)
    values = evaluate_grid(task, params, batched(DATA), RAGGED[None])
    for batch in batched(DATA):
        loss_B = task.loss(params, batch, heads.gates(RAGGED, FULL))
        real_B = batch["weight_B"] > 0
        expected_B = values["loss"][0, batch["index_B"][real_B]]
        np.testing.assert_allclose(loss_B[real_B], expected_B, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_sees_only_those_before_it(kind):
    task = of_kind(kind)
    params, ids = random_params(task, scale=0.3), np.arange(10)
    changed = ids.copy()
    changed[6:] = 30
    before, after = (logits(task, params, tokens, FULL) for tokens in (ids, changed))
    np.testing.assert_allclose(before[:6], after[:6], atol=1e-5)
    assert np.abs(before[6:] - after[6:]).max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_removed_is_masked(kind):
    """Uneven groups, and a row without a head; and back, with zeros."""
    task = of_kind(kind)
    params = random_params(task, scale=0.3)
    config, smaller = remove_heads(task.config, params, RAGGED)
    removed = LanguageModel(config)
    assert jax.tree.map(np.shape, smaller) == jax.tree.map(
        np.shape, jax.eval_shape(removed.init, jax.random.key(0))
    )
    ids = np.arange(11)
    expected = logits(task, params, ids, RAGGED)
    np.testing.assert_allclose(logits(removed, smaller, ids, RAGGED), expected, atol=1e-5)
    padded_config, padded = pad_heads(config, smaller)
    whole = LanguageModel(padded_config)
    np.testing.assert_allclose(logits(whole, padded, ids, FULL), expected, atol=1e-5)


def test_importance_is_that_of_finite_differences():
    """Signed gradients of each example, all positions of a gate moved together."""
    found_NAH = example_gradients(TASK, PARAMS, batched(DATA), FULL)
    step = 1 / 64
    for row, head in ((0, 0), (1, 3), (2, 2)):
        moved = np.zeros(FULL.shape, np.float32)
        moved[row, head] = step
        losses = []
        for sign in (1, -1):
            gates = list(np.ones(FULL.shape, np.float32) + sign * moved)
            loss_N = np.zeros(len(DATA))
            for batch in batched(DATA):
                real_B = batch["weight_B"] > 0
                loss_B = np.asarray(TASK.loss(PARAMS, batch, gates))
                loss_N[batch["index_B"][real_B]] = loss_B[real_B]
            losses.append(loss_N)
        expected_N = (losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose(found_NAH[:, row, head], expected_N, atol=3e-3, rtol=1e-2)


def test_devices_make_no_difference():
    masks_MAH = heads.one_off(FULL)
    one = evaluate_grid(TASK, PARAMS, batched(DATA), masks_MAH, mesh=ONE_DEVICE)
    all_ = evaluate_grid(TASK, PARAMS, batched(DATA), masks_MAH)
    np.testing.assert_allclose(one["loss"], all_["loss"], rtol=1e-5, atol=1e-5)
    few, many = (
        head_importance(TASK, PARAMS, batched(DATA, size=8), FULL, mesh=mesh)
        for mesh in (ONE_DEVICE, None)
    )
    np.testing.assert_allclose(few, many, rtol=1e-4, atol=1e-6)


def test_smoothing_and_the_number_of_tokens():
    batch = batched(DATA)[0]
    gates = heads.gates(FULL, FULL)
    key = jax.random.key(0)
    loss_B, count_B = TASK.training_loss(PARAMS, batch, gates, dropout=key, smoothing=0.0)
    np.testing.assert_allclose(loss_B, TASK.loss(PARAMS, batch, gates), rtol=1e-6)
    np.testing.assert_array_equal(count_B, batch["length_B"] - batch["given_B"])
    smooth_B, _ = TASK.training_loss(PARAMS, batch, gates, dropout=key, smoothing=0.1)
    for n, (tokens, length, given_) in enumerate(
        zip(batch["tokens_BT"], batch["length_B"], batch["given_B"], strict=True)
    ):
        log_TV = np.asarray(jax.nn.log_softmax(logits(TASK, PARAMS, tokens[: length - 1], FULL)))
        gold_TV = 0.9 * np.eye(CONFIG.vocab)[tokens[given_:length]] + 0.1 / CONFIG.vocab
        expected = -(gold_TV * log_TV[given_ - 1 :]).sum()
        np.testing.assert_allclose(smooth_B[n], expected, rtol=1e-4)


def test_repair_and_what_cannot_be_repaired():
    found = repair(TASK, PARAMS, batched(DATA), RAGGED)
    assert (found.after_A <= found.before_A * (1 + 1e-6)).all()
    assert (found.after_A[:2] < found.before_A[:2]).all()  # the last row has nothing to repair
    gemma = of_kind("gemma")
    with pytest.raises(ValueError, match=r"row dec\.0 gives is normalised before it is added"):
        repair(gemma, random_params(gemma), batched(DATA), RAGGED)


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_an_exported_program_gives_the_logits(tmp_path, kind):
    """Of texts of any length, with heads removed."""
    task = of_kind(kind)
    config, params = remove_heads(task.config, random_params(task, scale=0.3), RAGGED)
    stablehlo.save_program(tmp_path, params, stablehlo.language_model(config, Decoding(), 0))
    served = runpy.run_path(str(tmp_path / "serve.py"))["model"]
    for length in (5, 9):
        (found_BTV,) = served(np.arange(2 * length, dtype=np.int32).reshape(2, length))
        expected = logits(LanguageModel(config), params, np.arange(length), RAGGED)
        np.testing.assert_allclose(found_BTV[0], expected, atol=1e-5)


# --- windows -------------------------------------------------------------------------------------

TEXTS = st.lists(st.text("the an\u00e9 \n", max_size=40), min_size=1, max_size=4)


def documents(texts):
    place_N = np.arange(len(texts))
    return Documents(
        text=tuple(texts), files={"test": "file"}, line_N=place_N + 1, origin_N=place_N
    )


@given(TEXTS, st.integers(3, 9), st.integers(0, 2))
def test_every_token_but_the_first_is_predicted_once(texts, room, stride):
    texts = ["the", *texts]  # one document of two tokens at least
    made = encode_documents(tokenizer(), documents(["an the", *texts]), room, stride)
    for place, text in enumerate(["an the", *texts]):
        own = np.flatnonzero(made.origin_N == place)
        ids = tokenizer().encode(text).ids
        told = [made.tokens[n][made.given_N[n] :] for n in own]
        assert np.concatenate([ids[:1], *told]).tolist() == ids if len(ids) > 1 else not told
        for n in own:
            assert len(made.tokens[n]) <= room
            start = "".join(map(chr, made.tokens[n]))
            assert start in "".join(map(chr, ids))  # what is given comes before it
        if len(ids) > 1:
            first = tokenizer().encode(text).offsets[0][1]
            assert made.bytes_N[own].sum() == len(text[first:].encode())
            starts = [0, *(i + 1 for i, char in enumerate(text) if char.isspace())]
            words = [i for i in starts if i >= first and text[i : i + 1].strip()]
            assert made.words_N[own].sum() == len(words)


def test_a_longer_stride_gives_less_context():
    text = documents(["the an the an the an"])
    few = encode_documents(tokenizer(), text, 6, 1)
    assert few.given_N[1:].min() == 5
    assert encode_documents(tokenizer(), text, 6).given_N.tolist() == [1, 3]  # the last has room


@pytest.mark.parametrize(
    ("texts", "room", "stride", "said"),
    [
        (["the"], 8, 0, "expected a document of two tokens"),
        (["the an"], 1, 0, "max_length is 1 and stride is 0"),
        (["the an"], 4, 4, "max_length is 4 and stride is 4"),
    ],
)
def test_what_cannot_be_read_is_said(texts, room, stride, said):
    with pytest.raises(ValueError, match=said):
        encode_documents(tokenizer(), documents(texts), room, stride)


# --- metrics -------------------------------------------------------------------------------------


def test_metrics_are_of_documents():
    """Windows of one document count as one; sums are those of all windows."""
    random = np.random.default_rng(0)
    origin_N = np.array([0, 0, 1, 3, 3, 3])
    loss_MN = random.random((2, 6))
    counts = {name: random.integers(1, 9, 6) for name in ("tokens", "words", "bytes")}
    values = {"loss": loss_MN, "origin": origin_N, **counts}
    total_M = loss_MN.sum(1)
    expected = {
        "loss": total_M / 3,
        "token_loss": total_M / counts["tokens"].sum(),
        "perplexity": np.exp(total_M / counts["tokens"].sum()),
        "word_perplexity": np.exp(total_M / counts["words"].sum()),
        "bits_per_byte": total_M / np.log(2) / counts["bytes"].sum(),
    }
    for name, expected_M in expected.items():
        metric = metric_of({"metric": name})
        np.testing.assert_allclose(scores(metric, values), expected_M)
        statistics_MNS = statistics_of(metric, values)
        assert statistics_MNS.shape == (2, 3, 2)
        np.testing.assert_allclose(metric.score(statistics_MNS.sum(1)), expected_M)
        np.testing.assert_allclose(statistics_MNS[:, 0, 0], loss_MN[:, :2].sum(1))


# --- configs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key_heads": 3}, "4 heads of row dec.0 do not share 3 key/value heads evenly"),
        ({"head_width": 5}, "heads of 5 numbers cannot be rotated in pairs"),
        ({"rotary_factors": (1.0, 2.0)}, "there are 2 rotary_factors, but 3 are expected"),
        ({"local": (0,)}, "there is no window"),
        ({"local": (3,), "window": 2}, "layer 3 is local, but the model has 3 layers"),
        ({"eos": (40,)}, "eos has the token 40, but the vocabulary has 40 tokens"),
    ],
)
def test_configs_that_cannot_be(changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(CONFIG, **changes)


def of_one_token(vocab):
    """FLOPs of a pass over a text, and over an item with two choices, by their tokens."""
    config = dataclasses.replace(CONFIG, vocab=vocab, positions=256)
    found = []
    for task, texts in ((LanguageModel(config), 1), (MultipleChoice(config, 2), 2)):
        shapes = jax.eval_shape(task.init, jax.random.key(0))
        flops = costs.forward_flops(task, shapes, task.batch_shapes(1, 193))
        found.append(flops / (192 * texts))
    return np.array(found)


def test_what_a_pass_costs_has_the_logits_of_every_token():
    """A longer vocabulary costs a column of the output layer a word, and a little for the loss."""
    of_word = (of_one_token(4000) - of_one_token(40)) / 3960
    layer = 2 * CONFIG.width
    assert (of_word >= layer).all()
    assert (of_word <= layer + 12).all()


# --- generation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_generation_is_the_likeliest_token_after_each(kind):
    """As from the logits of the whole text so far, of prompts of different lengths together, with
    heads off; positions beyond a window too."""
    task = of_kind(kind)
    params, prompts = random_params(task, scale=0.3), [np.arange(3), np.arange(7, 12)]
    steps = list(generate(task, params, prompts, RAGGED, tokens=5))
    assert np.shape(steps) == (5, 2)
    for text, prompt in enumerate(prompts):
        ids = list(prompt)
        for token_B in steps:
            assert token_B[text] == logits(task, params, np.array(ids), RAGGED)[-1].argmax()
            ids.append(int(token_B[text]))


def test_a_text_ends_with_its_last_token():
    first = int(next(iter(generate(TASK, PARAMS, [np.arange(4)], FULL, tokens=1)))[0])
    ending = LanguageModel(dataclasses.replace(CONFIG, eos=(first,)))
    prompts = [np.arange(4), np.arange(2)]
    steps = np.array(list(generate(ending, PARAMS, prompts, FULL, tokens=4)))
    assert steps[0, 0] == first
    assert (steps[1:, 0] == -1).all()


def test_drawn_tokens_have_their_probabilities():
    """Of the nucleus alone: the likeliest tokens until their probability reaches top_p."""
    prompts = [np.arange(4)] * 4000
    (token_B,) = generate(TASK, PARAMS, prompts, FULL, tokens=1, temperature=1.5, top_p=0.5)
    odds_V = scipy.special.softmax(logits(TASK, PARAMS, np.arange(4), FULL)[-1].astype(float) / 1.5)
    order_V = np.argsort(-odds_V)
    nucleus = order_V[: np.searchsorted(np.cumsum(odds_V[order_V]), 0.5) + 1]
    found, count = np.unique(token_B, return_counts=True)
    assert set(found) <= set(nucleus)
    expected = odds_V[nucleus] / odds_V[nucleus].sum()
    seen = dict(zip(found, count, strict=True))
    drawn = np.array([seen.get(token, 0) for token in nucleus])
    assert scipy.stats.chisquare(drawn, expected * 4000).pvalue > 1e-4


@pytest.mark.parametrize(
    ("prompts", "settings", "said"),
    [
        ([], {}, "at least one token"),
        ([np.arange(0)], {}, "at least one token"),
        ([np.arange(60)], {}, "60 tokens and 5 more do not fit the model's 64 positions"),
        ([np.arange(3), np.array([4, 40])], {}, "the token 40, but the model has 40 tokens"),
        ([np.array([-1])], {}, "the token -1"),
        ([np.arange(3)], {"top_p": 0.0}, "0 < top_p <= 1"),
        ([np.arange(3)], {"temperature": float("nan")}, "a temperature of at least 0"),
    ],
)
def test_what_cannot_be_gone_on_with(prompts, settings, said):
    with pytest.raises(ValueError, match=said):
        generate(TASK, PARAMS, prompts, FULL, tokens=5, **settings)


@pytest.mark.parametrize("left_AH", [FULL, RAGGED])
def test_the_cache_s_price_is_what_its_arrays_have(left_AH):
    """Before heads are removed and after it; a layer with a window needs no more."""
    config, params = remove_heads(CONFIG, PARAMS, left_AH)

    def read(tokens_BT):
        gates = heads.gates(left_AH, present_mask(config))
        _, past = Decoder(config).apply({"params": params}, tokens_BT, gates, 20, method="read")
        return past

    held = jax.tree.leaves(jax.eval_shape(read, np.zeros((1, 7), np.int32)))
    expected = sum(leaf.size * leaf.dtype.itemsize for leaf in held)
    whole = costs.measures(TASK, PARAMS, 20)["cache"]
    assert whole.of(left_AH) == expected
    assert costs.measures(LanguageModel(config), params, 20)["cache"].whole == expected
    local = dataclasses.replace(CONFIG, local=(0, 2), window=5)
    assert costs.measures(LanguageModel(local), PARAMS, 20)["cache"].whole == whole.whole / 2
