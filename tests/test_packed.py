"""Documents packed into full windows, as language models are trained."""

import dataclasses
import itertools

import numpy as np
import pytest
from by_hand import log_likelihood, run
from hypothesis import given
from hypothesis import strategies as st
from tiny import config_file
from tiny_language import tokenizer, write_documents, write_language_model

from hp_jax import heads
from hp_jax.architecture import present_mask
from hp_jax.cli import main
from hp_jax.config import Ablation, DocumentData, LanguageModelExperiment
from hp_jax.data.documents import Documents
from hp_jax.experiment import load
from hp_jax.metrics import metric_of, scores, statistics_of
from hp_jax.storage.store import open_store
from hp_jax.text.windows import pack_documents

END = 7
"""The token between documents."""


def stream(texts):
    """All ids with the special token between documents."""
    return [token for text in texts for token in (*tokenizer().encode(text).ids, END)][:-1]


@given(
    st.lists(st.text("the an\u00e9 \n", min_size=1, max_size=20), min_size=2, max_size=5),
    st.integers(3, 9),
    st.integers(0, 2),
)
def test_all_tokens_are_in_one_stream(texts, room, stride):
    place_N = np.arange(len(texts))
    documents = Documents(text=tuple(texts), files={"x": "x"}, line_N=place_N + 1, origin_N=place_N)
    found = pack_documents(tokenizer(), documents, room, stride, separator=END)
    ids, predicted = stream(texts), 1
    for window, given_ in zip(found.tokens, found.given_N, strict=True):
        predicted += len(window) - given_
        assert window.tolist() == ids[predicted - len(window) : predicted]
    assert predicted == len(ids)
    assert (found.length_N == min(room, len(ids))).all()
    assert found.origin_N.tolist() == list(range(len(found)))
    first = tokenizer().encode(texts[0]).offsets[0][1]
    rest = [texts[0][first:], *texts[1:]]
    assert found.bytes_N.sum() == sum(len(text.encode()) for text in rest)
    words = sum(len(text.split()) for text in texts) - bool(texts[0][:first].strip())
    assert found.words_N.sum() == words


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    write_language_model(folder / "model", eos=(END, 9))
    write_documents(folder / "text", validation=16)
    return LanguageModelExperiment(
        model=str(folder / "model"),
        out=str(folder / "out"),
        data=DocumentData(path=str(folder / "text"), packed=True, max_length=16, buckets=(16,)),
        ablation=Ablation(sets=("one_off",)),
    )


def test_statistics_are_of_windows(config, tmp_path, capsys):
    """Losses from each window alone, by hand."""
    setup = load(config)
    ids = stream(setup.text("validation").text)
    present_AH = present_mask(setup.model.config)
    masks_MAH = np.concatenate([present_AH[None], heads.one_off(present_AH)])[:3]
    ends = [*range(16, len(ids), 15), len(ids)]
    windows = [
        (ids[end - 16 : end], 16 - (end - before)) for before, end in itertools.pairwise([1, *ends])
    ]
    assert windows[-1][1] > 1  # the last sees more
    model = setup.model.config, setup.model.params
    expected_MN = [
        [
            -log_likelihood(run(*model, window, mask_AH)[0], window, before)
            for window, before in windows
        ]
        for mask_AH in masks_MAH
    ]
    path = str(config_file(tmp_path, config))
    assert main(["ablate", path, "--quiet"]) == 0
    assert f"on validation ({len(windows)} windows)" in capsys.readouterr().out
    store = open_store(f"{config.out}/ablation/validation/one_off")
    np.testing.assert_allclose(store.read("loss")[:3], expected_MN, rtol=1e-4)
    values = {name: store.read(name) for name in store.manifest["arrays"]}
    perplexity = metric_of({"metric": "perplexity"})
    assert statistics_of(perplexity, values).shape[1] == len(windows)
    found = scores(perplexity, values)[0]
    np.testing.assert_allclose(found, np.exp(np.sum(expected_MN[0]) / (len(ids) - 1)), rtol=1e-4)


def test_a_part_of_a_split_is_packed_for_itself(config):
    """Whatever was read before."""
    one, other = load(config), load(config)
    one.examples("validation")
    some = one.text("validation[:50%]").text
    for setup in (one, other):
        found = setup.examples("validation[:50%]")
        ids = [
            found.tokens[0][:1],
            *(t[g:] for t, g in zip(found.tokens, found.given_N, strict=True)),
        ]
        assert np.concatenate(ids).tolist() == stream(some)


def test_the_token_between_documents(config, tmp_path):
    named = dataclasses.replace(config.data, separator="t")
    setup = load(dataclasses.replace(config, data=named))
    assert setup.corpus.separator == tokenizer().token_to_id("t")
    unknown = dataclasses.replace(config.data, separator="<end>")
    with pytest.raises(ValueError, match=r"data.separator is '<end>', but the model has no such"):
        load(dataclasses.replace(config, data=unknown))
    write_language_model(tmp_path / "endless")
    with pytest.raises(ValueError, match=r"the model names none: name one with --data.separator"):
        load(dataclasses.replace(config, model=str(tmp_path / "endless")))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"packed": True, "layout": "lambada"}, "data.packed is True, but with data.layout"),
        ({"separator": "x"}, "data.separator is 'x', .* but data.packed is False"),
    ],
)
def test_settings_that_do_not_fit(settings, said):
    with pytest.raises(ValueError, match=said):
        DocumentData(**settings)
