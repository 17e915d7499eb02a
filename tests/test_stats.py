"""Metrics against their definitions, and tests of differences against scipy."""

import numpy as np
import pytest
import scipy.stats
import statsmodels.stats.multitest

from hp_jax import metrics, stats

RANDOM = np.random.default_rng(0)
LABEL = RANDOM.integers(0, 3, 60)
PREDICTION = np.where(RANDOM.random(60) < 0.6, LABEL, RANDOM.integers(0, 3, 60))


def cells(label=LABEL, prediction=PREDICTION, classes=3):
    return metrics.confusion(label, prediction, classes).sum(0, dtype=np.int64)


def test_metrics_are_their_definitions():
    assert metrics.from_confusion(cells(), "accuracy") == pytest.approx(
        np.mean(LABEL == PREDICTION)
    )
    hits = np.sum((LABEL == 2) & (PREDICTION == 2))
    precision, recall = hits / np.sum(PREDICTION == 2), hits / np.sum(LABEL == 2)
    expected = 2 * precision * recall / (precision + recall)
    assert metrics.from_confusion(cells(), "f1", positive=2) == pytest.approx(expected)
    binary = LABEL > 0, PREDICTION > 0
    two = cells(*(side.astype(int) for side in binary), classes=2)
    assert metrics.from_confusion(two, "matthews") == pytest.approx(np.corrcoef(*binary)[0, 1])
    # Multi-class: the correlation of the one-hot vectors, centred per class (Gorodkin 2004).
    label, guess = (np.eye(3)[side] - np.eye(3)[side].mean(0) for side in (LABEL, PREDICTION))
    expected = np.sum(label * guess) / np.sqrt(np.sum(label**2) * np.sum(guess**2))
    assert metrics.from_confusion(cells(), "matthews") == pytest.approx(expected)


def test_undefined_metrics_are_zero_and_unknown_ones_an_error():
    one_class = cells(prediction=np.zeros(60, int))
    assert metrics.from_confusion(one_class, "matthews") == 0
    assert metrics.from_confusion(one_class, "f1", positive=1) == 0
    with pytest.raises(ValueError, match="no metric 'bleu'"):
        metrics.from_confusion(one_class, "bleu")


def accuracy(classes):
    return metrics.LabelMetric("accuracy", classes)


def test_the_bootstrap_interval_agrees_with_scipys():
    other = np.where(RANDOM.random(60) < 0.3, RANDOM.integers(0, 3, 60), PREDICTION)
    statistics = metrics.confusion(LABEL, np.stack([other, PREDICTION]), 3)
    found = stats.paired_bootstrap(
        statistics, metrics.confusion(LABEL, PREDICTION, 3), accuracy(3), count=8000
    )
    change_N = (other == LABEL).astype(float) - (PREDICTION == LABEL)
    expected = scipy.stats.bootstrap(
        (change_N,), np.mean, n_resamples=8000, method="percentile", rng=1
    ).confidence_interval
    assert found.difference[0] == pytest.approx(change_N.mean())
    assert found.low[0] == pytest.approx(expected.low, abs=0.02)
    assert found.high[0] == pytest.approx(expected.high, abs=0.02)
    assert found.low[0] < found.difference[0] < found.high[0]
    # The base against itself: no difference, and no evidence of one.
    assert (found.difference[1], found.low[1], found.high[1], found.p[1]) == (0, 0, 0, 1)


def test_bootstrap_p_values_are_right_under_the_null_and_small_under_a_real_difference():
    base = metrics.confusion(np.zeros(400, int), (RANDOM.random(400) < 0.2).astype(int), 2)
    null = metrics.confusion(np.zeros(400, int), (RANDOM.random((200, 400)) < 0.2).astype(int), 2)
    p = stats.paired_bootstrap(null - 0, base, accuracy(2), count=500).p
    # Independent draws around one fixed base scatter more than the base alone, but stay far from
    # always significant.
    assert np.mean(p < 0.01) < 0.12
    worse = metrics.confusion(np.zeros(400, int), (RANDOM.random((1, 400)) < 0.4).astype(int), 2)
    assert stats.paired_bootstrap(worse, base, accuracy(2), count=500).p[0] == pytest.approx(
        2 / 501
    )


def test_mcnemar_equals_the_exact_binomial_test():
    base_N = RANDOM.random(100) < 0.8
    correct_MN = np.stack(
        [base_N, ~base_N, RANDOM.random(100) < 0.6, base_N ^ (RANDOM.random(100) < 0.1)]
    )
    for correct_N, p in zip(correct_MN, stats.mcnemar(correct_MN, base_N), strict=True):
        lost, won = np.sum(base_N & ~correct_N), np.sum(~base_N & correct_N)
        expected = scipy.stats.binomtest(int(lost), int(lost + won)).pvalue if lost + won else 1.0
        assert p == pytest.approx(expected)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"shape \(5, 4\), but the base has \(6, 4\)"):
        stats.paired_bootstrap(np.zeros((2, 5, 4)), np.zeros((6, 4)), accuracy(2))


TOKENS_N = RANDOM.integers(3, 30, 60).astype(np.int32)
LOSS_MN = (RANDOM.random((3, 60)) * TOKENS_N * [[1], [1.2], [0.8]]).astype(np.float32)
REAL = {
    "loss": lambda loss_N, tokens_N: loss_N.mean(),
    "perplexity": lambda loss_N, tokens_N: np.exp(loss_N.sum() / tokens_N.sum()),
}
"""Metrics of real numbers, of which less is better, as one would write them down."""


@pytest.mark.parametrize("name", REAL)
def test_metrics_of_real_numbers_are_their_definitions(name):
    metric = metrics.metric_of({"metric": name})
    found_M = metrics.scores(metric, {"loss": LOSS_MN, "tokens": TOKENS_N})
    expected_M = [REAL[name](loss_N.astype(np.float64), TOKENS_N) for loss_N in LOSS_MN]
    np.testing.assert_allclose(found_M, expected_M, rtol=1e-12)
    # The second model is the worst and the third the best.
    assert np.argsort(metrics.worth(metric, found_M)).tolist() == [1, 0, 2]
    assert not metric.of_translations


def test_sums_have_the_metrics_type():
    many_NS = 2**53 + np.array([[1, 0], [0, 1], [0, 0]])
    counts_S = metrics.totals(metrics.TokenAccuracy(), many_NS)
    assert (counts_S.dtype, counts_S.tolist()) == (np.int64, [3 * 2**53 + 1] * 2)
    cells_S = metrics.totals(accuracy(2), np.ones((300, 4), np.uint8))
    assert cells_S.tolist() == [300] * 4
    small_NS = np.full((2**20, 1), 0.1, np.float32)  # in float32 the sum is off by 1 in 10,000
    (loss,) = metrics.totals(metrics.MeanLoss(), small_NS)
    assert loss == pytest.approx(2**20 * float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize("name", REAL)
def test_bootstraps_of_real_numbers_are_those_of_resampled_examples(name):
    metric, values = metrics.metric_of({"metric": name}), {"loss": LOSS_MN, "tokens": TOKENS_N}
    statistics_MNS = metric.statistics(values)
    found = stats.paired_bootstrap(statistics_MNS[1:], statistics_MNS[0], metric, count=200, seed=3)
    for m, loss_N in enumerate(LOSS_MN[1:].astype(np.float64)):
        base_N, differences = LOSS_MN[0].astype(np.float64), []
        for draw_N in stats.resamples(60, 200, 3).astype(int):
            drawn_N = np.repeat(np.arange(60), draw_N)
            assert len(drawn_N) == 60
            other, base = (REAL[name](x_N[drawn_N], TOKENS_N[drawn_N]) for x_N in (loss_N, base_N))
            differences.append(other - base)
        whole = REAL[name](loss_N, TOKENS_N) - REAL[name](base_N, TOKENS_N)
        assert found.difference[m] == pytest.approx(whole)
        low, high = np.quantile(differences, [0.025, 0.975])
        assert (found.low[m], found.high[m]) == (pytest.approx(low), pytest.approx(high))
        tail = min(np.sum(np.less_equal(differences, 0)), np.sum(np.greater_equal(differences, 0)))
        assert found.p[m] == pytest.approx(min(1, 2 * (tail + 1) / 201))
    assert found.difference[0] > 0 > found.difference[1]


# --- correlations --------------------------------------------------------------------------------


def test_pearsons_interval_is_scipys():
    x, y = RANDOM.normal(size=(2, 30))
    found, expected = stats.pearson(x, x + y), scipy.stats.pearsonr(x, x + y)
    assert (found.r, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_spearmans_interval_covers_as_often_as_it_says():
    """Of a bivariate normal with correlation r Spearman's is 6 / pi asin(r / 2)."""
    random, r, hits = np.random.default_rng(1), 0.6, 0
    truth = 6 / np.pi * np.arcsin(r / 2)
    for _ in range(1000):
        x, noise = random.normal(size=(2, 50))
        found = stats.spearman(x, r * x + np.sqrt(1 - r**2) * noise)
        hits += found.low <= truth <= found.high
    assert 925 <= hits <= 975


@pytest.mark.parametrize("side", [np.ones(5), np.array([1.0, 2, np.nan, 3, 4])])
def test_no_correlation_where_a_side_does_not_vary_or_is_not_there(side):
    for measure in (stats.pearson, stats.spearman):
        assert np.isnan(measure(side, np.arange(5.0))).all()
        assert measure(np.arange(9.0), 2 * np.arange(9.0))[:3] == pytest.approx((1, 1, 1))


def test_split_half_reliability_is_what_the_model_of_it_says():
    """Effects of variance 1 measured with noise of variance v over all examples: 1 / (1 + v)."""
    random = np.random.default_rng(2)
    effects_M, noise = random.normal(size=400), 20.0
    loss_MN = 5 + effects_M[:, None] + noise * random.normal(size=(400, 400))
    metric = metrics.MeanLoss()
    statistics_MNS = np.stack([loss_MN, np.ones_like(loss_MN)], -1)
    base_NS = np.stack([np.full(400, 5.0), np.ones(400)], -1)
    found = stats.split_half(statistics_MNS, base_NS, metric, count=20)
    spread = effects_M.var()
    assert found == pytest.approx(spread / (spread + noise**2 / 400), abs=0.06)
    statistics_MNS[..., 0] = 5 + effects_M[:, None]
    assert stats.split_half(statistics_MNS, base_NS, metric, count=2) == pytest.approx(1)


# --- many tests ----------------------------------------------------------------------------------


def test_holm_is_statsmodels():
    p_M = RANDOM.random(40) ** 4
    expected = statsmodels.stats.multitest.multipletests(p_M, method="holm")[1]
    np.testing.assert_allclose(stats.holm(p_M), expected)
    assert stats.holm(np.zeros(0)).shape == (0,)


def test_max_t_is_the_algorithm_written_down():
    """Westfall and Young 1993, algorithm 4.1, in loops."""
    random = np.random.default_rng(4)
    difference_M = np.array([0.0, 2.5, -1.0, 0.4])
    difference_MR = difference_M[:, None] + random.normal(size=(4, 200)) * [[1], [1], [0.4], [1]]
    spread_M = difference_MR.std(1)
    t_M = abs(difference_M / spread_M)
    order, wanted, before = np.argsort(-t_M), np.ones(4), 0.0
    for rank, mask in enumerate(order):
        hits = 0
        for r in range(200):
            null = [abs(difference_MR[m, r] - difference_M[m]) / spread_M[m] for m in order[rank:]]
            hits += max(null) >= t_M[mask]
        before = max(before, (1 + hits) / 201)
        wanted[mask] = before
    np.testing.assert_allclose(stats.max_t(stats.Differences(difference_M, difference_MR)), wanted)


def test_masks_that_are_alike_count_as_one_and_those_that_change_nothing_as_none():
    random = np.random.default_rng(5)
    change_R = 1.0 + 0.5 * random.normal(size=999)
    one = stats.max_t(stats.Differences(np.array([1.0]), change_R[None]))
    many = stats.max_t(
        stats.Differences(np.array([1.0] * 50 + [0]), np.stack([change_R] * 50 + [change_R * 0]))
    )
    np.testing.assert_allclose(many[:50], one[0])
    assert many[50] == 1


def test_no_more_than_the_level_of_families_without_an_effect_have_a_finding():
    """40 masks that differ from the base by noise alone: with each p by itself most families have
    one below 0.05."""
    random = np.random.default_rng(6)
    found, alone, metric = [], [], metrics.MeanLoss()
    for _ in range(200):
        loss_MN = random.normal(size=(41, 80))
        values = stats.paired_bootstrap(
            metric.statistics({"loss": loss_MN[1:]}),
            metric.statistics({"loss": loss_MN[:1]})[0],
            metric,
            count=400,
        )
        found.append(values.adjusted.min() < 0.05)
        alone.append(values.p.min() < 0.05)
    assert 1 <= sum(found) <= 20
    assert sum(alone) > 100


def test_blocks_of_resamples_and_of_masks_do_not_change_a_number(monkeypatch):
    loss_MN = RANDOM.normal(size=(9, 30))
    metric = metrics.MeanLoss()
    statistics_MNS = metric.statistics({"loss": loss_MN})
    whole = stats.paired_bootstrap(statistics_MNS, statistics_MNS[0], metric, count=50)
    monkeypatch.setattr(stats.bootstrap, "BLOCK", 7)
    monkeypatch.setattr(stats.bootstrap, "COLUMNS", 5)
    parts = stats.paired_bootstrap(statistics_MNS, statistics_MNS[0], metric, count=50)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
