"""Claims of no harm: what they promise, against definitions and by simulation."""

import itertools

import numpy as np
import pytest
import scipy.stats
import statsmodels.stats.multitest
import statsmodels.stats.power

from hp_jax import metrics, stats

LOSS = metrics.MeanLoss()


def differences_of(change_MN, **settings):
    """Of losses that differ by so much."""
    loss_MN = np.concatenate([np.zeros((1, change_MN.shape[1])), change_MN])
    statistics = LOSS.statistics({"loss": loss_MN})
    return stats.differences(statistics[1:], statistics[0], LOSS, **settings)


def noise(random, masks, examples):
    """Changes of losses that masks partly share."""
    return random.normal(size=(masks, examples)) + random.normal(size=examples)


def test_benjamini_hochberg_is_statsmodels():
    p_M = np.random.default_rng(0).random(40) ** 4
    expected = statsmodels.stats.multitest.multipletests(p_M, method="fdr_bh")[1]
    np.testing.assert_allclose(stats.benjamini_hochberg(p_M), expected)
    assert (stats.benjamini_hochberg(p_M) <= stats.holm(p_M) + 1e-12).all()
    assert stats.benjamini_hochberg(np.zeros(0)).shape == (0,)


def test_no_harm_is_where_the_interval_ends_before_the_margin():
    change = differences_of(noise(np.random.default_rng(1), 40, 60) * 0.6, count=999)
    for margin in (0.05, 0.2, 0.4):
        worse, free = stats.non_inferior(change, margin), stats.equivalent(change, margin)
        high = stats.percentile(change.resampled_MR)[1]
        assert ((worse.p <= 0.025) == (high < margin)).mean() > 0.97  # but for one resample
        hits = [
            [sum(value >= margin for value in row), sum(value <= -margin for value in row)]
            for row in change.resampled_MR
        ]
        np.testing.assert_allclose(worse.p, [(over + 1) / 1000 for over, _ in hits])
        np.testing.assert_allclose(free.p, [(max(both) + 1) / 1000 for both in hits])
        for claim in (worse, free):
            assert (claim.adjusted >= claim.p).all()
            assert (claim.adjusted <= 1).all()


def test_a_wider_margin_is_easier_and_a_shift_of_both_changes_nothing():
    change = differences_of(noise(np.random.default_rng(2), 10, 50), count=500)
    claims = [stats.non_inferior(change, margin) for margin in (0.0, 0.1, 0.3, 1.0)]
    for narrow, wide in itertools.pairwise(claims):
        assert (narrow.p >= wide.p).all()
        assert (narrow.adjusted >= wide.adjusted).all()
    shifted = stats.Differences(change.measured_M + 2, change.resampled_MR + 2)
    for one, other in zip(stats.non_inferior(shifted, 2.3), claims[2], strict=True):
        np.testing.assert_allclose(one, other)
    # The claim of equivalence is the harder of that and its mirror image.
    mirror = stats.non_inferior(stats.Differences(-change.measured_M, -change.resampled_MR), 0.3)
    np.testing.assert_allclose(stats.equivalent(change, 0.3).p, np.maximum(claims[2].p, mirror.p))


@pytest.mark.parametrize("claim", [stats.non_inferior, stats.equivalent])
def test_false_claims_of_no_harm_are_as_rare_as_they_say(claim):
    """20 masks that are worse by just the margin, 5 by much less: at most 5 % of families may have
    a claim about one of the 20."""
    random, false, alone, true = np.random.default_rng(3), 0, 0, 0
    for _ in range(150):
        change_MN = noise(random, 25, 80) * 0.5 + np.repeat([0.5, -0.1], [20, 5])[:, None]
        found = claim(differences_of(change_MN, count=199), 0.5)
        false += found.adjusted[:20].min() <= 0.05
        alone += found.p[:20].min() <= 0.05
        true += (found.adjusted[20:] <= 0.05).mean()
    assert false <= 14  # 7.5 expected, and 2.5 standard deviations
    assert alone > 40
    assert true > 110


def test_adjusted_claims_are_the_step_down_maxima_written_down():
    change = differences_of(noise(np.random.default_rng(4), 5, 40) * 0.3, count=200)
    spread_M = change.resampled_MR.std(1)
    for claim, side in ((stats.non_inferior, lambda x: -x), (stats.equivalent, np.abs)):
        found = claim(change, 0.3)
        size_M = np.abs(change.measured_M) if side is np.abs else change.measured_M
        t_M, wanted, before = (0.3 - size_M) / spread_M, np.ones(5), 0.0
        order = np.argsort(-t_M)
        for rank, mask in enumerate(order):
            hits = 0
            for r in range(200):
                errors = [
                    side((change.resampled_MR[m, r] - change.measured_M[m]) / spread_M[m])
                    for m in order[rank:]
                ]
                hits += max(errors) >= t_M[mask]
            before = max(before, (1 + hits) / 201)
            wanted[mask] = max(before, found.p[mask])
        np.testing.assert_allclose(found.adjusted, wanted)


def test_a_mask_that_changes_nothing_is_shown_to_do_no_harm_by_resamples():
    change = differences_of(np.zeros((2, 30)), count=99)
    for claim in (stats.non_inferior, stats.equivalent):
        np.testing.assert_allclose(claim(change, 0.1), 1 / 100)


# --- right or wrong ------------------------------------------------------------------------------


def changed(lost, won, count):
    """A mask that loses and wins so many of `count` answers, and its base."""
    base_N, correct_N = np.zeros(count, bool), np.zeros(count, bool)
    base_N[:lost], correct_N[lost : lost + won] = True, True
    return correct_N[None], base_N


def tango_by_search(lost, won, count, margin):
    """The score test with the nuisance parameter found by trying."""
    share = np.linspace(1e-9, (1 - margin) / 2 - 1e-9, 400_001)
    likelihood = (
        scipy.special.xlogy(lost, share + margin)
        + scipy.special.xlogy(won, share)
        + scipy.special.xlogy(count - lost - won, 1 - 2 * share - margin)
    )
    best = share[likelihood.argmax()]
    spread = np.sqrt(count * (2 * best + margin - margin**2))
    return scipy.stats.norm.cdf((lost - won - count * margin) / spread)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (3, 1), (1, 6), (10, 10), (40, 22)])
@pytest.mark.parametrize("margin", [0.005, 0.05])
def test_the_score_test_is_its_definition(lost, won, margin):
    found = stats.non_inferior_right(*changed(lost, won, 400), margin)
    assert found.p[0] == pytest.approx(tango_by_search(lost, won, 400, margin), abs=2e-4)
    both = max(tango_by_search(*sides, 400, margin) for sides in ((lost, won), (won, lost)))
    assert stats.equivalent_right(*changed(lost, won, 400), margin).p[0] == pytest.approx(
        both, abs=2e-4
    )


def test_the_score_test_of_its_authors_example():
    """Tango 1998: of 44 pairs one was lost, none won; by a margin of 0.1 z is 1.709."""
    p = stats.non_inferior_right(*changed(1, 0, 44), 0.1).p[0]
    assert scipy.stats.norm.isf(p) == pytest.approx(1.709, abs=5e-4)
    for margin in (0, 1, 2.0):
        with pytest.raises(ValueError, match=f"between 0 and 1, a share, but found {margin}"):
            stats.equivalent_right(*changed(1, 0, 44), margin)


def test_few_examples_without_a_change_show_nothing():
    """None of 200 changed: a loss of 0.5 points is found missing with probability 0.37."""
    assert stats.non_inferior_right(*changed(0, 0, 200), 0.005).p[0] > 0.1
    assert stats.non_inferior_right(*changed(0, 0, 2000), 0.005).p[0] < 0.001


def test_the_score_test_keeps_its_level_where_a_bootstrap_does_not():
    """Masks that really lose the margin, 1 point, of 150 answers, and win none."""
    random = np.random.default_rng(5)
    correct_MN, base_N = random.random((4000, 150)) >= 0.01, np.ones(150, bool)
    assert (stats.non_inferior_right(correct_MN, base_N, 0.01).p <= 0.05).mean() < 0.05
    metric = metrics.LabelMetric("accuracy", 2)
    cells = metrics.confusion(np.ones(150, int), np.stack([*correct_MN[:400], base_N]) * 1, 2)
    change = stats.differences(cells[:400], cells[400], metric, count=199)
    worse = stats.Differences(-change.measured_M, -change.resampled_MR)
    assert (stats.non_inferior(worse, 0.01).p <= 0.05).mean() > 0.15


# --- the least effect ----------------------------------------------------------------------------


def test_the_least_effect_is_the_one_that_statsmodels_finds_with_that_power():
    """Of many examples, where t and z are the same."""
    power = statsmodels.stats.power.TTestPower()
    for level, wanted in ((0.05, 0.8), (0.01 / 64, 0.8), (0.01, 0.9)):
        effect = power.solve_power(nobs=100_000, alpha=level, power=wanted)
        found = stats.least_effect(1 / np.sqrt(100_000), level=level, power=wanted)
        assert found == pytest.approx(effect, rel=1e-3)


def test_the_least_effect_is_found_that_often():
    random, examples = np.random.default_rng(6), 60
    least = float(stats.least_effect(1 / np.sqrt(examples)))
    change = differences_of(random.normal(size=(600, examples)) + least, count=400)
    share = (stats.two_sided(change.resampled_MR) < 0.05).mean()
    assert 0.74 < share < 0.88
