"""BLEU and chrF from summed statistics are sacrebleu's own corpus scores, to the last digit."""

import sys

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from hp_jax.metrics import TextMetric, tokenizer_of
from hp_jax.stats import resamples


@pytest.mark.parametrize("language", ["zh", "ja", "ko", "de", "en", "zh-CN", "ja_JP"])
def test_the_tokenizer_is_the_one_that_sacrebleu_chooses(language):
    wanted = BLEU._TOKENIZER_MAP.get(language[:2], "13a")
    assert tokenizer_of("", language) == wanted
    assert tokenizer_of("char", language) == "char"


def test_chinese_is_not_one_word():
    line = "我们明天去北京看朋友。"
    other = "我们明天去上海看朋友。"
    zh = TextMetric("bleu", tokenizer_of("", "zh"))
    score = zh.score(zh.statistics([line], [other]).sum(0))
    assert score == BLEU(trg_lang="zh").corpus_score([line], [[other]]).score > 50


def test_a_tokenizer_that_is_not_here_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "MeCab", None)
    with pytest.raises(RuntimeError, match=r"'ja-mecab' needs a package .* --tokenize") as caught:
        TextMetric("bleu", "ja-mecab").signature()
    assert "\n" not in str(caught.value)


METRICS = {
    TextMetric(): lambda: BLEU(),
    TextMetric("bleu", "none"): lambda: BLEU(tokenize="none"),
    TextMetric("bleu", "intl"): lambda: BLEU(tokenize="intl"),
    TextMetric("bleu", "char"): lambda: BLEU(tokenize="char"),
    TextMetric("bleu", "zh"): lambda: BLEU(tokenize="zh"),
    TextMetric("chrf"): lambda: CHRF(),
}
SENTENCES = st.lists(
    st.sampled_from(("the", "a", "cat's", "sat,", "3.5", "mat.", "天气", "É", "<b>", " .")),
    max_size=9,
).map(" ".join)
CORPORA = st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=8)


@pytest.mark.parametrize("metric", METRICS, ids=str)
@settings(max_examples=25)
@given(CORPORA, st.integers(0, 99))
def test_corpora_and_their_resamples_have_sacrebleus_score(metric, corpus, seed):
    hypotheses, references = zip(*corpus, strict=True)
    statistics_NS = metric.statistics(hypotheses, references)
    assert statistics_NS.dtype == np.int32
    expected = METRICS[metric]().corpus_score(hypotheses, [references]).score
    assert metric.score(statistics_NS.sum(0)) == pytest.approx(expected, rel=1e-12)
    draws_RN = resamples(len(corpus), 3, seed)
    wanted = []
    for draw_N in draws_RN.astype(int):
        drawn = [
            list(np.repeat(np.array(side, object), draw_N)) for side in (hypotheses, references)
        ]
        wanted.append(METRICS[metric]().corpus_score(drawn[0], [drawn[1]]).score)
    found = metric.score(draws_RN @ statistics_NS.astype(np.float32))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("metric", METRICS, ids=str)
def test_the_best_and_the_worst(metric):
    references = ["The cat sat on the mat today.", "A dog, too, was seen there."]
    assert metric.score(metric.statistics(references, references).sum(0)) == pytest.approx(100)
    assert metric.score(metric.statistics(["", ""], references).sum(0)) == 0


def test_scores_have_the_shape_of_the_sums():
    metric = TextMetric("chrf")
    statistics_NS = metric.statistics(["a b", "c d", "", "e"], ["a b", "c x", "y", "e"])
    assert metric.score(statistics_NS.reshape(2, 2, -1)).shape == (2, 2)
    assert metric.score(statistics_NS[0]).shape == ()
    assert metric.statistics([], []).shape == (0, statistics_NS.shape[1])


def test_sets_of_references_do_not_mix():
    hypotheses = ["a b c d", "e f g h"]
    sets = [["a b c d", "e f g h"], ["a b c x", "e f g h"], ["e f g h", "a b c d"]] * 2
    for references in sets:
        found = TextMetric().statistics(hypotheses, references)
        np.testing.assert_array_equal(
            found, BLEU()._extract_corpus_statistics(hypotheses, [references])
        )


@pytest.mark.parametrize("metric", METRICS, ids=str)
def test_signatures_are_sacrebleus(metric):
    reference = METRICS[metric]()
    reference.corpus_score(["a"], [["b"]])
    assert metric.signature() == str(reference.get_signature())
    assert f"version:{sacrebleu.__version__}" in metric.signature()


def test_faults_are_named():
    with pytest.raises(ValueError, match="there are 1 for 2"):
        TextMetric().statistics(["a", "b"], ["a"])
    with pytest.raises(ValueError, match=r"no tokenizer 'moses'; it has .*13a.*zh"):
        TextMetric(tokenize="moses").statistics(["a"], ["a"])
