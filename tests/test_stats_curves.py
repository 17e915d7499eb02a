"""Curves, several models, ranks and reliability: coverage by simulation, and invariance."""

import numpy as np
import pytest

from hp_jax import metrics, stats

LOSS = metrics.MeanLoss()


def differences_of(change_MN, **settings):
    """Of losses that differ by so much."""
    loss_MN = np.concatenate([np.zeros((1, change_MN.shape[1])), change_MN])
    statistics = LOSS.statistics({"loss": loss_MN})
    return stats.differences(statistics[1:], statistics[0], LOSS, **settings)


def curves(random, points, examples):
    """Changes of losses that grow along a curve, each point's correlated with those before."""
    steps = random.normal(size=(points, examples)) / 2
    return 0.1 * np.arange(points)[:, None] + np.cumsum(steps, 0)


def test_bands_hold_whole_curves_and_intervals_do_not():
    random, whole, pointwise = np.random.default_rng(0), 0, 0
    truth = 0.1 * np.arange(6)
    for _ in range(200):
        curve = differences_of(curves(random, 6, 80), count=300)
        low, high = stats.bands(curve)
        whole += ((low <= truth) & (truth <= high)).all()
        low, high = stats.percentile(curve.resampled_MR)
        pointwise += ((low <= truth) & (truth <= high)).all()
    assert 181 <= whole <= 199
    assert pointwise < 180


def test_bands_are_as_wide_as_intervals_of_one_point_and_wider_of_many():
    random = np.random.default_rng(1)
    change_MN = random.normal(size=(8, 100))
    many, one = (differences_of(some, count=2000) for some in (change_MN, change_MN[:1]))
    reach = [np.subtract(*stats.bands(curve)[::-1])[0] for curve in (one, many)]
    normal = 2 * 1.96 * one.resampled_MR[0].std()
    assert reach[0] == pytest.approx(normal, rel=0.06)
    assert 1.2 < reach[1] / reach[0] < 1.6  # the normal quantile of 8 independent ones is 2.73
    repeated = differences_of(np.repeat(change_MN[:1], 5, 0), count=2000)
    np.testing.assert_allclose(stats.bands(repeated)[0], stats.bands(one)[0][0])
    still = differences_of(np.concatenate([change_MN[:1], np.zeros((1, 100))]), count=99)
    low, high = stats.bands(still)
    assert low[1] == high[1] == 0
    assert low[0] < 0 < high[0]


SHARE_M = np.array([0.0, 10, 40, 100])


def test_the_area_is_the_trapezoids_and_its_interval_that_of_the_curves_mean_difference():
    random = np.random.default_rng(2)
    one_MN, other_MN = random.normal(size=(2, 4, 60)) + np.arange(4)[:, None] / 4
    one, other = (differences_of(some, count=800) for some in (one_MN, other_MN))
    found = stats.area_between(one, other, SHARE_M)
    mean_N = np.trapezoid(one_MN - other_MN, SHARE_M, axis=0) / 100
    alone = differences_of(mean_N[None], count=800)
    expected = stats.bootstrap_of(alone)
    assert found == pytest.approx([part[0] for part in expected[:4]])
    turned = stats.area_between(other, one, SHARE_M)
    assert (turned.value, turned.low, turned.high) == pytest.approx(
        (-found.value, -found.high, -found.low)
    )
    shifted = stats.area_between(one, other, SHARE_M / 100 + 3)
    assert shifted == pytest.approx(found)
    assert stats.area_between(one, one, SHARE_M) == (0, 0, 0, 1)


def test_areas_of_curves_that_do_not_fit_are_refused():
    one = differences_of(np.zeros((4, 10)), count=20)
    other = differences_of(np.zeros((3, 10)), count=20)
    with pytest.raises(ValueError, match=r"4 points, and curves of shape \(4, 20\) and \(3, 20\)"):
        stats.area_between(one, other, SHARE_M)
    with pytest.raises(ValueError, match="rising order, but found"):
        stats.area_between(one, one, SHARE_M[::-1])


def test_areas_cover_as_often_as_they_say():
    random, hits = np.random.default_rng(3), 0
    for _ in range(200):
        one, other = (
            differences_of(curves(random, 4, 60) + shift, count=300) for shift in (0, 0.2)
        )
        found = stats.area_between(one, other, SHARE_M)
        hits += found.low <= -0.2 <= found.high
    assert 180 <= hits <= 199


# --- several models ------------------------------------------------------------------------------


def test_the_bootstrap_over_models_has_both_variances():
    """The mean over J models of effects that vary with variance v between models, measured with the
    same noise of variance w over N examples: v / J + w / N."""
    random = np.random.default_rng(4)
    effects_J, shared_N = random.normal(size=12), 6 * random.normal(size=144)
    models = [differences_of((effect + shared_N)[None], count=4000) for effect in effects_J]
    found = stats.over_seeds(models)
    assert found.measured_M[0] == pytest.approx(effects_J.mean() + shared_N.mean())
    expected = effects_J.var(ddof=1) / 12 + shared_N.var() / 144
    assert found.resampled_MR.var() == pytest.approx(expected, rel=0.08)
    alike = stats.over_seeds([models[0]] * 3)
    np.testing.assert_allclose(alike.resampled_MR, models[0].resampled_MR)


def test_intervals_over_models_cover_as_often_as_they_say_of_ten_models():
    random, hits = np.random.default_rng(5), 0
    for _ in range(200):
        shared_N = random.normal(size=40)
        models = [
            differences_of(
                (0.3 * random.normal() + shared_N + random.normal(size=40))[None], count=200
            )
            for _ in range(10)
        ]
        low, high = stats.percentile(stats.over_seeds(models).resampled_MR)
        hits += low[0] <= 0 <= high[0]
    assert 178 <= hits <= 199


def test_models_that_do_not_fit_are_refused():
    one = differences_of(np.zeros((4, 10)), count=20)
    with pytest.raises(ValueError, match=r"two or more .* found 1 of shapes \[\(4, 20\)\]"):
        stats.over_seeds([one])
    with pytest.raises(ValueError, match=r"found 2 of shapes"):
        stats.over_seeds([one, differences_of(np.zeros((4, 10)), count=30)])


# --- ranks and reliability -----------------------------------------------------------------------


def test_intervals_of_ranks():
    random = np.random.default_rng(6)
    middle = np.array([3.0, 0, 0, 0, -3])
    found = differences_of(middle[:, None] + random.normal(size=(5, 100)), count=500)
    low, high = stats.rank_interval(found)
    assert (low[0], high[0], low[4], high[4]) == (1, 1, 5, 5)
    assert low[1:4].min() == 2
    assert high[1:4].max() == 4
    # Written down, in a case without ties.
    ranks_RM = np.array([[1 + sum(row > value) for value in row] for row in found.resampled_MR.T])
    for mask in range(5):
        ordered = sorted(ranks_RM[:, mask])
        assert (low[mask], high[mask]) == (ordered[12], ordered[487])
    # Increasing functions change no rank; what is alike has every rank of its group.
    stretched = stats.Differences(found.measured_M, np.exp(found.resampled_MR))
    np.testing.assert_array_equal(stats.rank_interval(stretched), (low, high))
    alike = differences_of(np.zeros((4, 10)), count=50)
    np.testing.assert_array_equal(stats.rank_interval(alike), ([1] * 4, [4] * 4))


def test_reliability_of_a_score_is_what_the_model_of_it_says():
    """Scores of variance v measured with noise of variance w a part, over P parts: v / (v + w /
    P)."""
    random = np.random.default_rng(7)
    truth, noise = random.normal(size=400), 3.0
    parts = {
        "total": (truth + noise * random.normal(size=(24, 400))).reshape(24, 20, 20),
        "count": np.ones((24, 20)),
    }

    def score(sums):
        return sums["total"] / sums["count"][:, None]

    expected = truth.var() / (truth.var() + noise**2 / 24)
    assert stats.score_reliability(parts, score) == pytest.approx(expected, abs=0.03)
    one = {name: sums[:1] for name, sums in parts.items()}
    assert np.isnan(stats.score_reliability(one, score))
    same = {name: np.repeat(sums[:1], 6, 0) for name, sums in parts.items()}
    assert stats.score_reliability(same, score, count=3) == pytest.approx(1)
