"""Tests of a mask against the base, against the tools that others use."""

import numpy as np
import pytest
import sacrebleu.significance
import scipy.stats
import statsmodels.stats.contingency_tables
from sacrebleu.metrics import BLEU

from hp_jax import metrics, stats

RANDOM = np.random.default_rng(0)
WORDS = list("abcdefghijklmnopqrs")


def sentences(base, changed):
    """A share of the base's sentences with two of their words exchanged."""
    made = []
    for sentence in base:
        words = sentence.split()
        if RANDOM.random() < changed:
            one, other = RANDOM.integers(0, len(words), 2)
            words[one], words[other] = words[other], words[one]
        made.append(" ".join(words))
    return made


REFERENCES = [" ".join(RANDOM.permutation(WORDS)[:12]) for _ in range(80)]
BASE = sentences(REFERENCES, 0.6)
SYSTEMS = [sentences(BASE, 0.05), *[sentences(REFERENCES, share) for share in (0.4, 0.5, 0.6, 0.8)]]
TEXT = metrics.TextMetric("bleu")
METRIC = metrics.CorpusMetric(TEXT)
BASE_NS = TEXT.statistics(BASE, REFERENCES)
STATISTICS_MNS = np.stack([TEXT.statistics(system, REFERENCES) for system in [*SYSTEMS, BASE]])
"""The last is the base."""


def sacrebleus(kind, count, seed):
    """sacreBLEU's p of each system but the base, by `_paired_ar_test` or `_paired_bs_test`."""
    metric = BLEU(references=[REFERENCES], force=True)
    base = metric._extract_corpus_statistics(BASE, None)
    about = {"BLEU": (base, sacrebleu.significance.Result(metric.corpus_score(BASE, None).score))}
    test = getattr(sacrebleu.significance, f"_paired_{kind}_test")
    return [
        test(about, "system", system, None, {"BLEU": metric}, count, seed=seed)[1]["BLEU"].p_value
        for system in SYSTEMS
    ]


def test_approximate_randomisation_is_sacrebleus():
    """With the same shuffles: ties, which are counted here only, are where fewest sentences
    differ."""
    count = 1500  # more than a block
    found = stats.approximate_randomisation(STATISTICS_MNS, BASE_NS, METRIC, count=count, seed=3)
    expected = sacrebleus("ar", count, 3)
    assert min(expected) < 0.05 < max(expected)
    np.testing.assert_allclose(found[1:5], expected[1:], atol=3 / count)
    assert found[0] >= expected[0] - 1e-12
    assert found[5] == 1


def test_the_centred_bootstrap_is_sacrebleus():
    count, seed = 300, 3
    drawn_RN = np.random.default_rng(seed).choice(80, size=(count, 80), replace=True)
    draws_RN = np.stack([np.bincount(drawn_N, minlength=80) for drawn_N in drawn_RN])
    score_MR = np.stack([METRIC.score(draws_RN @ statistics) for statistics in STATISTICS_MNS])
    score_M = METRIC.score(STATISTICS_MNS.sum(1))
    change = stats.Differences(score_M - score_M[5], score_MR - score_MR[5])
    found = stats.centred_bootstrap(change)
    np.testing.assert_allclose(found[:5], sacrebleus("bs", count, seed), atol=1.5 / count)
    assert found[5] == 1


def wins(scores_MR, base_R):
    """compare-mt's win shares, in loops."""
    better = [[mask > base for mask, base in zip(row, base_R, strict=True)] for row in scores_MR]
    worse = [[mask < base for mask, base in zip(row, base_R, strict=True)] for row in scores_MR]
    return [max(sum(one), sum(other)) for one, other in zip(better, worse, strict=True)]


def test_the_half_sample_bootstrap_is_compare_mts_algorithm():
    count = 200
    drawn_RN = stats.resamples(80, count, 5, size=40).astype(int)
    assert (drawn_RN.sum(1) == 40).all()
    scores = [
        [METRIC.score(statistics[np.repeat(np.arange(80), draws)].sum(0)) for draws in drawn_RN]
        for statistics in STATISTICS_MNS
    ]
    found = stats.half_sample_bootstrap(STATISTICS_MNS, BASE_NS, METRIC, count=count, seed=5)
    expected = [(count - won + 1) / (count + 1) for won in wins(scores, scores[5])]
    np.testing.assert_allclose(found, expected)
    assert found[5] == 1


class Sums:
    """A scorer of compare-mt that takes our statistics."""

    def cache_stats(self, reference, output, src=None):
        return [output]

    def score_cached_corpus(self, places, cached):
        return METRIC.score(cached[0][places].sum(0)), None


def test_the_half_sample_bootstrap_is_compare_mts_own():
    theirs = pytest.importorskip("compare_mt.sign_utils").eval_with_paired_bootstrap
    count, references = 2000, list(range(80))
    found = stats.half_sample_bootstrap(STATISTICS_MNS, BASE_NS, METRIC, count=count)
    np.random.seed(1)
    for statistics_NS, p in zip(STATISTICS_MNS, found, strict=True):
        win, _ = theirs(references, [statistics_NS, BASE_NS], references, Sums(), [(0, 1)], count)
        assert p == pytest.approx(1 - max(win[0][:2]), abs=0.035)


@pytest.mark.parametrize("test", [stats.approximate_randomisation, stats.half_sample_bootstrap])
def test_p_values_are_between_the_least_there_is_and_one_and_do_not_depend_on_the_others(test):
    together = test(STATISTICS_MNS, BASE_NS, METRIC, count=99)
    assert (together >= 1 / 100 - 1e-12).all()
    assert (together <= 1).all()
    for mask in range(6):
        alone = test(STATISTICS_MNS[mask : mask + 1], BASE_NS, METRIC, count=99)
        np.testing.assert_allclose(alone, together[mask])
    with pytest.raises(ValueError, match=r"shape \(80, 10\), but the base has \(79, 10\)"):
        test(STATISTICS_MNS, BASE_NS[1:], METRIC)


def test_randomisation_is_right_under_the_null_even_for_a_metric_of_few_values():
    """Masks and base are right on the same share of examples: p is below a level that often at
    most; ties left out, as sacreBLEU does, it would be far too small."""
    random = np.random.default_rng(1)
    right = random.random((401, 30)) < 0.5
    cells = metrics.confusion(np.ones(30, int), right.astype(int), 2)
    metric = metrics.LabelMetric("accuracy", 2)
    p = np.concatenate(
        [
            stats.approximate_randomisation(cells[m : m + 1], cells[m + 1], metric, count=199)
            for m in range(400)
        ]
    )
    for level in (0.05, 0.2):
        assert level / 3 < np.mean(p <= level) < level + 3 * np.sqrt(level / 400)
    one = np.stack([cells[0], cells[0]])
    one[0, 0] = one[0, 0][[1, 0, 3, 2]]  # one answer differs, so every shuffle is as far apart
    assert stats.approximate_randomisation(one[:1], one[1], metric, count=99) == 1


# --- right or wrong ------------------------------------------------------------------------------

BASE_N = RANDOM.random(100) < 0.8
FLIPPED_MN = RANDOM.random((6, 100)) < np.array([0.0, 0.02, 0.05, 0.1, 0.3, 1])[:, None]
CORRECT_MN = BASE_N ^ FLIPPED_MN


def table(correct_N):
    """Both right, base alone, mask alone, both wrong."""
    return [
        [np.sum(BASE_N & correct_N), np.sum(BASE_N & ~correct_N)],
        [np.sum(~BASE_N & correct_N), np.sum(~BASE_N & ~correct_N)],
    ]


def test_mcnemar_is_statsmodels():
    found = stats.mcnemar(CORRECT_MN, BASE_N)
    for correct_N, p in zip(CORRECT_MN[1:], found[1:], strict=True):
        theirs = statsmodels.stats.contingency_tables.mcnemar(table(correct_N), exact=True)
        assert p == pytest.approx(theirs.pvalue)
    assert found[0] == 1


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 7), (7, 1), (3, 3), (0, 5), (25, 2)])
def test_mid_p_takes_half_of_what_was_found_off_each_side(lost, won):
    """Fagerland et al. 2013; of their Table 1 (1 and 7 change sides) 0.0391."""
    base_N, correct_N = np.zeros(60, bool), np.zeros(60, bool)
    base_N[:lost], correct_N[lost : lost + won] = True, True
    n = lost + won
    probability = scipy.stats.binom.pmf(np.arange(n + 1), n, 0.5)
    less = min(lost, won)
    exact = min(1.0, 2 * probability[: less + 1].sum())
    half = probability[less] / 2
    expected = exact - (half if lost == won else 2 * half) if n else 1.0
    found = stats.mcnemar(correct_N[None], base_N, mid=True)[0]
    assert found == pytest.approx(expected)
    assert found <= stats.mcnemar(correct_N[None], base_N)[0] + 1e-12
    if n == 8:
        assert found == pytest.approx(0.0391, abs=5e-5)


def test_t_tests_are_scipys():
    for correct_MN, base_N in (
        (CORRECT_MN, BASE_N),
        (RANDOM.normal(size=(4, 30)), np.arange(30.0)),
    ):
        paired, unpaired = stats.paired_t(correct_MN, base_N), stats.unpaired_t(correct_MN, base_N)
        for m in range(len(correct_MN)):
            mask_N, value_N = correct_MN[m].astype(float), base_N.astype(float)
            assert unpaired[m] == pytest.approx(scipy.stats.ttest_ind(mask_N, value_N).pvalue)
            if (mask_N != value_N).any():
                assert paired[m] == pytest.approx(scipy.stats.ttest_rel(mask_N, value_N).pvalue)
            else:
                assert paired[m] == 1


def test_constant_values_have_a_p_and_the_papers_case_is_not_significant():
    ones = np.ones((1, 20))
    assert (stats.paired_t(ones, np.ones(20)), stats.unpaired_t(ones, np.ones(20))) == (1, 1)
    assert (stats.paired_t(ones, np.zeros(20)), stats.unpaired_t(ones, np.zeros(20))) == (0, 0)
    # A loss of 0.96 points of 83.4 % on 9,815 examples, half of whose answers change back.
    base_N, correct_N = np.zeros(9815, bool), np.zeros(9815, bool)
    base_N[:8186], correct_N[188:8280] = True, True
    assert 0.05 < stats.unpaired_t(correct_N[None], base_N)[0] < 0.1
    assert stats.paired_t(correct_N[None], base_N)[0] < 1e-6
