"""What a sample says: confidence sequences by brute force, estimates by their coverage."""

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from hp_jax import metrics, stats
from hp_jax.stats.sequences import PRIOR

# --- changes, of which nearly all are 0 ----------------------------------------------------------


def prior_of(up, down, count):
    """Of so many +1 and -1 of `count`, by the beta-binomial distributions."""
    changes = up + down
    sides = scipy.stats.betabinom.pmf(up, changes, 0.5, 0.5)
    return sum(
        weight * (scipy.stats.betabinom.pmf(changes, count, a, b) * sides if a else changes == 0)
        for weight, a, b in PRIOR
    )


def net_by_brute_force(up, down, drawn, size, alpha):
    """All pairs of counts whose prior is less than 1 / alpha times their posterior."""
    pairs = np.array([(u, d) for u in range(size + 1) for d in range(size + 1 - u)])
    prior = np.array([prior_of(u, d, size) for u, d in pairs])
    likelihood = scipy.stats.multivariate_hypergeom.pmf(
        [up, down, drawn - up - down],
        np.column_stack([pairs, size - pairs.sum(1)]),
        np.full(len(pairs), drawn),
    )
    posterior = prior * likelihood / (prior * likelihood).sum()
    left = pairs[(posterior > 0) & (prior < posterior / alpha)]
    net = left[:, 0] - left[:, 1]
    return net.min(), net.max()


def test_net_changes_are_what_the_prior_posterior_ratio_leaves():
    wider = 0
    for drawn, up, down in [(4, 0, 0), (9, 1, 0), (9, 2, 3), (13, 0, 4), (13, 6, 5), (18, 1, 1)]:
        low, high = stats.net_changes(up, down, drawn, 18, alpha=0.2)
        least, most = net_by_brute_force(up, down, drawn, 18, 0.2)
        # Counts are real numbers on the way, so that an end may be one further out.
        assert least - 1 <= low <= least
        assert most <= high <= most + 1
        wider += (high - most) + (least - low)
    assert wider <= 3


def prefixes(population):
    """All orders of it."""
    return np.array(list(itertools.permutations(population)))


@pytest.mark.parametrize(
    "population", [(1, 0, 0, 0, 0, 0), (1, -1, 0, 0, 0, 0), (1, 1, 1, -1, 1, 0)]
)
def test_in_all_orders_together_the_truth_is_excluded_at_most_that_often(population):
    orders, outside = prefixes(population), 0
    excluded = np.zeros(len(orders), bool)
    for drawn in range(7):
        up, down = (orders[:, :drawn] == 1).sum(1), (orders[:, :drawn] == -1).sum(1)
        low, high = stats.net_changes(up, down, drawn, 6, alpha=0.6)
        excluded |= (low > sum(population)) | (high < sum(population))
        outside += ((low > -6) | (high < 6)).sum()
    assert excluded.mean() <= 0.6
    assert outside  # it says something


@pytest.mark.parametrize(("plus", "minus"), [(0, 0), (1, 0), (2, 1), (12, 8)])
def test_net_changes_hold_at_all_times_together(plus, minus):
    """Of 1,000 values; who stops when the truth is excluded finds that in at most 5 % of orders."""
    random, size, orders = np.random.default_rng(plus), 1000, 2000
    place = np.array([random.permutation(size)[: plus + minus] for _ in range(orders)])
    wrong = np.zeros(orders, bool)
    table = np.indices((plus + 1, minus + 1))
    for drawn in [*range(5, 100, 7), *range(100, 1001, 50)]:
        some = np.where(table.sum(0) <= drawn, table, 0)
        low, high = stats.net_changes(*some, drawn, size)
        seen = (place[:, :plus] < drawn).sum(1), (place[:, plus:] < drawn).sum(1)
        wrong |= (low[seen] > plus - minus) | (high[seen] < plus - minus)
    assert wrong.mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / orders)


def test_without_a_change_the_bound_is_three_to_four_over_the_number_drawn():
    for drawn, size in ((100, 8000), (600, 8000), (300, 741), (2000, 8000)):
        low, high = stats.net_changes(0, 0, drawn, size)
        assert low == -high
        assert 3 * (1 - drawn / size) <= high * drawn / size <= 4
    assert high < stats.net_changes(0, 0, drawn, size, alpha=0.05 / 72)[1]


@pytest.mark.parametrize("seen", [0, 1, 4])
def test_net_changes_are_between_exact_intervals_of_one_look(seen):
    """Clopper and Pearson's for a finite population: at a lower level inside, at a much higher one
    outside."""
    drawn, size = 300, 2000
    counts = np.arange(seen, size - drawn + seen + 1)
    few = scipy.stats.hypergeom.cdf(seen, size, counts, drawn)
    many = scipy.stats.hypergeom.sf(seen - 1, size, counts, drawn)
    low, high = stats.net_changes(seen, 0, drawn, size)
    inner, outer = (counts[np.minimum(few, many) > level / 2] for level in (0.1, 0.05 / 80))
    assert low <= inner.min()
    assert inner.max() <= high <= outer.max()


# --- real values within bounds -------------------------------------------------------------------


def winnings_by_hand(values, size, mean, bet):
    """What one bet against a mean that is too small has become, value by value."""
    wealth, before = 1.0, 0.0
    for place, value in enumerate(values):
        left = (size * mean - before) / (size - place)
        centre = min(before / (place + 1), 0)
        wealth *= np.exp(bet * (centre - left)) * (1 + bet * (value - centre))
        before += value
    return wealth


def test_the_mean_is_where_the_bets_written_down_have_won_enough():
    random, size = np.random.default_rng(0), 40
    values = random.uniform(-0.3, 1, 25)
    low, high = stats.bounded_mean(values[None], size, -1, 1, alpha=0.2)
    bets = np.geomspace(np.sqrt(2 * np.log(10) / size), 0.99, 4)
    weights = 0.6 / 4 + 0.4 * (np.arange(4) == 3)
    for end, sign in ((low[0], 1), (high[0], -1)):
        won = [winnings_by_hand(sign * values, size, sign * end, bet) for bet in bets]
        assert weights @ won == pytest.approx(10, rel=1e-6)
    scaled = stats.bounded_mean(3 + 2 * values[None], size, 1, 5, alpha=0.2)
    np.testing.assert_allclose(scaled, [3 + 2 * low, 3 + 2 * high])


@pytest.mark.parametrize(
    "population", [(1, -1, 0.9, -1, -1, -1), (0, 0.1, 0, 0.2, 0, -0.1), (1, 1, 1, 1, -1, 1)]
)
def test_in_all_orders_together_the_mean_is_excluded_at_most_that_often(population):
    orders = prefixes(population)
    excluded, outside = np.zeros(len(orders), bool), 0
    for drawn in range(7):
        low, high = stats.bounded_mean(orders[:, :drawn], 6, -1, 1, alpha=0.8)
        excluded |= (low > np.mean(population) + 1e-12) | (high < np.mean(population) - 1e-12)
        certain = (orders[:, :drawn].sum(1) - (6 - drawn)) / 6
        outside += (low > certain + 1e-9).sum()
    assert excluded.mean() <= 0.8
    assert outside  # it says more than what is certain


@pytest.mark.parametrize("kind", ["rare", "heavy"])
def test_the_mean_of_losses_holds_at_all_times_together_where_students_does_not(kind):
    random, size, orders = np.random.default_rng(1), 1000, 500
    if kind == "rare":
        population = random.normal(0, 0.002, size)
        population[:6] = 1
    else:
        population = np.clip(0.02 * random.standard_t(1.2, size) ** 2, -1, 1)
    values = random.permuted(np.tile(population, (orders, 1)), axis=1)
    wrong, naive = np.zeros(orders, bool), np.zeros(orders, bool)
    for drawn in (10, 20, 40, 80, 160, 320, 640):
        some = values[:, :drawn]
        low, high = stats.bounded_mean(some, size, -1, 1)
        wrong |= (low > population.mean()) | (high < population.mean())
        reach = 1.96 * some.std(1, ddof=1) / np.sqrt(drawn)
        naive |= np.abs(some.mean(1) - population.mean()) > reach
    assert wrong.mean() <= 0.05
    assert naive.mean() > 0.2


def test_sequences_are_exact_at_the_end_and_trivial_at_the_beginning():
    values = np.random.default_rng(2).normal(size=(5, 30)).clip(-1, 2)
    low, high = stats.bounded_mean(values, 30, -1, 2)
    np.testing.assert_allclose(low, values.mean(1))
    np.testing.assert_array_equal(low, high)
    np.testing.assert_allclose(stats.bounded_mean(values[:, :0], 30, -1, 2), [[-1] * 5, [2] * 5])
    assert stats.net_changes(4, 9, 30, 30) == (-5, -5)
    assert stats.net_changes(0, 0, 0, 30) == (-30, 30)
    with pytest.raises(ValueError, match="from -1 to 1, but found 30 from -1 to 2"):
        stats.bounded_mean(values.round(), 30, -1, 1)
    with pytest.raises(ValueError, match="together at most the 3 drawn of 9, but found up to 4"):
        stats.net_changes([0, 2], [1, 2], 3, 9)


# --- estimates -----------------------------------------------------------------------------------


def material(classes, masks=300, examples=400):
    """Labels, predicted and true classes, and a sample of which the certain part has most of what
    differs.  The audit's examples of a label change places, mask by mask, so that each mask has a
    random order of its own."""
    random = np.random.default_rng(0)
    label_N = random.integers(0, classes, examples)
    sample = stats.riskiest(random.random(examples), 80, 0)
    certain_N = np.isin(np.arange(examples), sample.certain)
    other = (label_N + random.integers(1, classes, examples)) % classes
    predicted_N = np.where(random.random(examples) < 0.15, other, label_N)
    moved_N = random.random(examples) < np.where(certain_N, 0.2, 0.015)
    true_N = np.where(moved_N, (predicted_N + 1) % classes, predicted_N)
    place_MN = np.tile(np.arange(examples), (masks, 1))
    for label in range(classes):
        some = np.flatnonzero((label_N == label) & ~certain_N)
        place_MN[:, some] = random.permuted(place_MN[:, some], axis=1)
    return label_N, predicted_N[place_MN], true_N[place_MN], sample


def test_the_riskiest_are_measured_and_the_audit_goes_on():
    risk_N = np.array([0.5, 3, 1, 3, 0, 2.0])
    sample = stats.riskiest(risk_N, 3, 1, seed=4)
    assert sample.certain.tolist() == [1, 3, 5]
    assert sorted(sample.audit) == [0, 2, 4]
    longer = stats.riskiest(risk_N, 3, 3, seed=4)
    assert longer.measured[:4].tolist() == sample.measured.tolist()
    firsts = [stats.riskiest(risk_N, 3, 1, seed=seed).audit[0] for seed in range(600)]
    assert min(np.bincount(firsts)[[0, 2, 4]]) > 150


def right(estimate, label_N, predicted_MN, true_MN, base=0):
    """A function from a sample to its estimate of right answers, and the truth."""
    f_MN, y_MN = ((of_MN == label_N) - base for of_MN in (predicted_MN, true_MN))
    return lambda sample: estimate(f_MN, y_MN[:, sample.measured], sample), y_MN.mean(1)


def of_cells(metric, label_N, predicted_MN, true_MN):
    """The same for a metric of labels."""
    cells = metrics.confusion(label_N, true_MN, metric.classes).sum(1, dtype=np.int64)
    return lambda sample: stats.estimated_labels(
        metric, label_N, predicted_MN, true_MN[:, sample.measured], sample
    ), metric.score(cells)


def case(kind):
    """What is estimated, how, and the sample without an audit."""
    label_N, *both, sample = material(3 if kind == "matthews of 3" else 2)
    metric = metrics.LabelMetric(kind.split()[0], 3 if kind == "matthews of 3" else 2)
    if kind == "change":
        found = right(stats.estimated_share, label_N, *both, base=label_N % 2)
    elif kind == "mean":
        found = right(lambda *given: stats.estimated_mean(*given, 1), label_N, *both)
    else:
        found = of_cells(metric, label_N, *both)
    return *found, sample


KINDS = ("accuracy", "change", "mean", "f1", "matthews", "matthews of 3")


@pytest.mark.parametrize("kind", KINDS)
def test_estimates_hold_the_value_of_all_examples_at_every_stop(kind):
    """And ends with the truth."""
    estimate, truth_M, sample = case(kind)
    widths, held_M = [], np.ones(len(truth_M), bool)
    for drawn in (20, 60, 120, 200, 320):
        now = estimate(sample._replace(drawn=drawn))
        assert ((now.low <= now.value) & (now.value <= now.high)).all()
        held_M &= (now.low <= truth_M + 1e-9) & (truth_M <= now.high + 1e-9)
        widths.append(np.mean(now.high - now.low))
    np.testing.assert_allclose(now.value, truth_M)
    np.testing.assert_allclose(now.high, now.low, atol=1e-12)
    assert held_M.mean() >= 0.95
    assert widths[2] < 0.7 * widths[0]


def test_an_audit_without_surprise_proves_as_much_as_its_size():
    """And as little: 200 of 8,343 do not show half a point, 700 do."""
    sample = stats.riskiest(np.zeros(9815), 1472, 200)
    right_MN = np.ones((1, 9815), bool)
    few = stats.estimated_share(right_MN, right_MN[:, sample.measured], sample)
    sample = sample._replace(drawn=700)
    many = stats.estimated_share(right_MN, right_MN[:, sample.measured], sample)
    assert few.value == many.value == 1
    assert few.low < 0.99
    assert 0.995 < many.low < 1 < many.high


@pytest.mark.parametrize("name", ["f1", "matthews"])
@pytest.mark.parametrize("classes", [2, 3])
def test_no_completion_of_the_audit_within_the_counts_leaves_the_interval(name, classes):
    """Whatever unmeasured answers do, as many as `net_changes` allows."""
    label_N, predicted_MN, true_MN, sample = material(classes, masks=1)
    sample = sample._replace(drawn=150)
    true_MN[:, sample.audit] = predicted_MN[:, sample.audit]
    metric, random = metrics.LabelMetric(name, classes), np.random.default_rng(3)
    found = stats.estimated_labels(
        metric, label_N, predicted_MN, true_MN[:, sample.measured], sample
    )
    rest, scores = sample.audit[150:], []
    many = stats.net_changes(0, 0, 150, len(sample.audit), alpha=0.05 / (classes + 1))[1]
    for _ in range(400):
        could = true_MN.copy()
        moved = random.permutation(rest)[: random.integers(0, many + 1)]
        if random.random() < 0.5:  # all of one kind
            could[0, moved] = random.integers(classes)
        else:
            could[0, moved] = random.integers(0, classes, len(moved))
        cells = metrics.confusion(label_N, could, classes).sum(1, dtype=np.int64)
        scores.append(metric.score(cells)[0])
    assert found.low <= min(scores) < max(scores) <= found.high
    assert found.high - found.low < 4 * np.ptp(scores)


def test_a_mask_is_decided_when_its_interval_is_beyond_the_margin():
    low, high = np.array([-0.1, 0.2, 0.1, -0.3, 0.0]), np.array([0.1, 0.4, 0.3, 0.05, 0.2])
    assert stats.decided(low, high, 0.1).tolist() == [
        "undecided",
        "harm",
        "harm",
        "no harm",
        "undecided",
    ]


def test_what_does_not_fit_is_said():
    sample = stats.riskiest(np.zeros(6), 2, 2)
    f_MN, y_MB = np.zeros((3, 6), int), np.zeros((3, 4), int)
    with pytest.raises(ValueError, match=r"of 6 examples and \(3, 4\) measured values"):
        stats.estimated_share(f_MN, y_MB[:, :3], sample)
    with pytest.raises(ValueError, match="exact or one off, but found one that is 2 off"):
        stats.estimated_share(f_MN, y_MB - 2, sample)
    with pytest.raises(ValueError, match="from -1 to 1, but found 2 from 3 to 3"):
        stats.estimated_mean(f_MN, y_MB + 3, sample, 1.0)
    with pytest.raises(ValueError, match="at most the 6 examples that there are, but found 4"):
        stats.riskiest(np.zeros(6), 4, 3)


# --- draws without bounds ------------------------------------------------------------------------


def bayes_factor(t, draws):
    """Of a mean that is N(0, 1) standard deviations off, against none, by the noncentral t."""
    found, _ = scipy.integrate.quad(
        lambda off: (
            scipy.stats.nct.pdf(t, draws - 1, off * np.sqrt(draws)) * scipy.stats.norm.pdf(off)
        ),
        *(-12, 12),
        points=[t / np.sqrt(draws)],
        limit=400,
    )
    return found / scipy.stats.t.pdf(t, draws - 1)


@pytest.mark.parametrize("draws", [5, 8, 60])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_reach_is_where_the_bayes_factor_is_large_enough(draws, alpha):
    found = stats.normal_reach(draws, alpha=alpha)
    assert bayes_factor(found, draws) == pytest.approx(1 / alpha, rel=1e-6)


def test_the_reach_of_few_draws_is_infinite_and_then_falls():
    assert [np.isfinite(stats.normal_reach(draws)) for draws in (0, 1, 4, 5)] == [0, 0, 0, 1]
    assert stats.normal_reach(6) < stats.normal_reach(5)


def test_the_reach_holds_at_all_times_together_where_students_does_not():
    """Of 300 normal draws, looked at from the second on."""
    draw_RN = np.random.default_rng(0).normal(size=(2000, 300))
    count = np.arange(2, 301)
    mean_RN = (draw_RN.cumsum(1) / np.arange(1, 301))[:, 1:]
    square_RN = (draw_RN**2).cumsum(1)[:, 1:] - count * mean_RN**2
    off_RN = np.abs(mean_RN) / np.sqrt(square_RN / (count - 1) / count)
    reach_N = np.array([stats.normal_reach(int(draws)) for draws in count])
    assert 0.01 < (off_RN > reach_N).any(1).mean() <= 0.05
    assert (off_RN > scipy.stats.t.ppf(0.975, count - 1)).any(1).mean() > 0.3
