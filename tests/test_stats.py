"""Metrics against their definitions, and tests of differences against scipy."""

import numpy as np
import pytest
import scipy.stats

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


def accuracy(sums):
    return metrics.from_confusion(sums, "accuracy")


def test_the_bootstrap_interval_agrees_with_scipys():
    other = np.where(RANDOM.random(60) < 0.3, RANDOM.integers(0, 3, 60), PREDICTION)
    statistics = metrics.confusion(LABEL, np.stack([other, PREDICTION]), 3)
    found = stats.paired_bootstrap(
        statistics, metrics.confusion(LABEL, PREDICTION, 3), accuracy, count=8000
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
    p = stats.paired_bootstrap(null - 0, base, accuracy, count=500).p
    # Independent draws around one fixed base scatter more than the base alone, but stay far from
    # always significant.
    assert np.mean(p < 0.01) < 0.12
    worse = metrics.confusion(np.zeros(400, int), (RANDOM.random((1, 400)) < 0.4).astype(int), 2)
    assert stats.paired_bootstrap(worse, base, accuracy, count=500).p[0] == pytest.approx(2 / 501)


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
        stats.paired_bootstrap(np.zeros((2, 5, 4)), np.zeros((6, 4)), accuracy)
