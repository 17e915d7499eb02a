"""LAMBADA: the last word of a text, encoded, scored and judged as lm-evaluation-harness does."""

import dataclasses
import logging

import numpy as np
import pytest
from by_hand import run
from hypothesis import given
from hypothesis import strategies as st
from tiny import config_file, random_params
from tiny_language import CONFIG, WORDS, tokenizer, write_last_words

from hp_jax import heads
from hp_jax.architecture import present_mask
from hp_jax.cli import main
from hp_jax.config import Ablation, DocumentData, LanguageModelExperiment
from hp_jax.data.documents import Documents
from hp_jax.experiment import load
from hp_jax.formats.model import Model
from hp_jax.metrics import metric_of, scores, statistics_of
from hp_jax.models.language import LanguageModel
from hp_jax.storage.store import open_store
from hp_jax.text.windows import encode_last_words


def documents(*texts):
    place_N = np.arange(len(texts))
    return Documents(text=texts, files={"x": "x"}, line_N=place_N + 1, origin_N=place_N)


def harness(text):
    """What lm-evaluation-harness makes of a document: the ids of the context and of the target."""
    context, target = " ".join(text.split(" ")[:-1]), " " + text.split(" ")[-1]
    spaces = len(context) - len(context.rstrip())
    if spaces > 0:
        target, context = context[-spaces:] + target, context[:-spaces]
    whole, before = (tokenizer().encode(part).ids for part in (context + target, context))
    return whole[: len(before)], whole[len(before) :]


@given(st.lists(st.sampled_from((*WORDS, "é", "", "the\n")), min_size=1, max_size=6))
def test_the_last_word_is_what_the_harness_predicts(words):
    text = " ".join(["an", *words, "then"])
    found = encode_last_words(tokenizer(), documents("the at", text), 64)
    context, target = harness(text)
    assert found.tokens[1].tolist() == context + target
    assert found.given_N[1] == len(context)
    assert found.words_N[1] == 1
    assert found.bytes_N[1] == 5
    assert found.origin_N.tolist() == [0, 1]


def test_long_ones_lose_their_first_tokens(caplog):
    text = "an at an the"
    ids = tokenizer().encode(text).ids
    with caplog.at_level(logging.WARNING, "hp_jax"):
        found = encode_last_words(tokenizer(), documents(text, "the the"), 3)
    assert found.tokens[0].tolist() == ids[-3:]
    assert found.given_N.tolist() == [2, 1]
    assert "x: documents whose first tokens are left out: 1" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the", "x:2: expected a text, a space and its last word, but found 'the'"),
        ("the an ", "x:2: expected a text, a space and its last word, but found 'the an '"),
        (" the", "x:2: expected a text, a space and its last word, but found ' the'"),
        ("the \n", r"x:2: expected a text, a space and its last word, but found 'the \\n'"),
        ("the atatat", "x:2: the last word 'atatat' has 7 tokens, but max_length is 4"),
    ],
)
def test_texts_without_a_last_word(text, said):
    with pytest.raises(ValueError, match=said):
        encode_last_words(tokenizer(), documents("the an", text), 4)


def test_exact_is_of_whole_documents():
    """All of whose windows are right."""
    values = {
        "correct": np.array([[1, 2, 3, 0, 1], [1, 2, 2, 1, 1]]),
        "tokens": np.array([1, 2, 3, 1, 1]),
        "origin": np.array([0, 2, 2, 5, 5]),
    }
    metric = metric_of({"metric": "exact"})
    np.testing.assert_array_equal(scores(metric, values), [2 / 3, 2 / 3])
    statistics_MNS = statistics_of(metric, values)
    np.testing.assert_array_equal(statistics_MNS[..., 0], [[1, 1, 0], [1, 0, 1]])
    assert (statistics_MNS[..., 1] == 1).all()
    assert metric.larger_is_better


# --- the commands --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A model that often goes on with ` the`, and texts that end with it."""
    folder = tmp_path_factory.mktemp("lambada")
    own = tokenizer()
    model = dataclasses.replace(CONFIG, vocab=own.get_vocab_size(), positions=64)
    params = random_params(LanguageModel(model), scale=0.3)
    params["word"]["embedding"][own.token_to_id("\u0120the")] *= 3
    Model(model, params, own).save(folder / "model", {})
    write_last_words(folder / "lambada.jsonl", 13)
    return LanguageModelExperiment(
        model=str(folder / "model"),
        out=str(folder / "out"),
        data=DocumentData(
            path=str(folder / "lambada.jsonl"), layout="lambada", max_length=32, buckets=(32,)
        ),
        metric="exact",
        ablation=Ablation(sets=("one_off",)),
    )


def by_loop(setup, mask_AH):
    """Accuracy and perplexity as the harness computes them, a document at a time."""
    model, right, likelihood = setup.model, [], []
    for text in setup.text("validation").text:
        context, target = harness(text)
        log_TV, _ = run(model.config, model.params, context + target[:-1], mask_AH)
        log_TV = log_TV[len(context) - 1 :]
        right.append(log_TV.argmax(-1).tolist() == target)
        likelihood.append(sum(log_V[token] for log_V, token in zip(log_TV, target, strict=True)))
    return np.mean(right), np.exp(-np.mean(likelihood))


def test_accuracy_and_perplexity_are_the_harness_s(config, tmp_path, capsys):
    setup = load(config)
    present_AH = present_mask(setup.model.config)
    masks_MAH = np.concatenate([present_AH[None], heads.one_off(present_AH)])
    expected_M = np.array([by_loop(setup, mask_AH) for mask_AH in masks_MAH])
    assert 0 < expected_M[0, 0] < 1
    assert len(set(expected_M[:, 0])) > 1
    path = str(config_file(tmp_path, config))
    assert main(["ablate", path, "--quiet"]) == 0
    store = open_store(f"{config.out}/ablation/validation/one_off")
    np.testing.assert_array_equal(store.read("masks"), masks_MAH)
    values = {name: store.read(name) for name in store.manifest["arrays"]}
    for name, expected in zip(("exact", "target_perplexity"), expected_M.T, strict=True):
        np.testing.assert_allclose(scores(metric_of({"metric": name}), values), expected, rtol=1e-4)
    capsys.readouterr()
    assert main(["evaluate", path, "--metric", "target_perplexity", "--quiet"]) == 0
    assert f"target_perplexity {expected_M[0, 1]:.4g} (95 %" in capsys.readouterr().out
    assert main(["report", config.out, "--quiet"]) == 0
    page = (tmp_path / config.out / "report/index.html").read_text()
    assert "documents predicted exactly" in page
    assert "on validation (13 documents)" in page


def test_settings_that_do_not_fit():
    with pytest.raises(ValueError, match=r"data.stride is 2, but with data.layout 'lambada'"):
        DocumentData(layout="lambada", stride=2)
    with pytest.raises(ValueError, match=r"metric is 'target_perplexity'.*layout 'lambada'"):
        LanguageModelExperiment(metric="target_perplexity")
