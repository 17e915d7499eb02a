"""How often the intervals of a sampled grid hold, and how wide they are, by examples drawn.

    python scripts/coverage.py

Populations as grids have them: 15 % of the examples are measured whatever happens, and of the
others nearly all predictions are exact (accuracy), or nearly right (loss).  "held" is the share of
random orders in which the interval held at this and all earlier looks, "1.96 s" the share in which
mean +- 1.96 standard errors holds at this one.  Half-widths are of the mean of all examples, in
points of accuracy or in nats.  It takes seconds.
"""

import numpy as np

from hp_jax import stats

CERTAIN = 0.15
LOOKS = (50, 100, 200, 400, 700, 1000, 1500, 2000, 3000, 4500, 6000)
SETS = 872, 9815
"""Examples of SST-2's validation set, and of MNLI's."""


def orders(random, size, changes, count):
    """When each of so many changes is drawn, `[count, changes]`."""
    return np.array([random.choice(size, changes, replace=False) for _ in range(count)])


def net_interval(up_R, down_R, drawn, size, alpha=0.05):
    """`net_changes`, once for all orders that are alike."""
    pairs, same_R = np.unique(np.stack([up_R, down_R]), axis=1, return_inverse=True)
    low, high = stats.net_changes(*pairs, drawn, size, alpha=alpha)
    return low[same_R.ravel()], high[same_R.ravel()]


def line(examples, population, drawn, held, naive, width):
    print(f"| {examples:,} | {population} | {drawn:,} | {held:.3f} | {naive:.3f} | {width:.3g} |")


def accuracy(random, examples, plus, minus, count=4000):
    size = examples - int(CERTAIN * examples)
    place = orders(random, size, plus + minus, count)
    held_R, net = np.ones(count, bool), plus - minus
    for drawn in [look for look in LOOKS if look < size]:
        up_R, down_R = (place[:, :plus] < drawn).sum(1), (place[:, plus:] < drawn).sum(1)
        low, high = net_interval(up_R, down_R, drawn, size)
        held_R &= (low <= net) & (net <= high)
        mean_R = (up_R - down_R) / drawn
        error_R = np.sqrt(((up_R + down_R) / drawn - mean_R**2) / (drawn - 1))
        naive = (np.abs(mean_R - net / size) <= 1.96 * error_R).mean()
        width = 100 * (high - low).mean() / 2 / examples
        line(examples, f"{plus} +1, {minus} -1", drawn, held_R.mean(), naive, width)


def loss(random, examples, reach=1.0, count=300):
    size = examples - int(CERTAIN * examples)
    values = np.clip(0.01 * random.standard_t(2, size), -reach, reach)
    shuffled = random.permuted(np.tile(values, (count, 1)), axis=1)
    held_R = np.ones(count, bool)
    for drawn in [look for look in LOOKS if look < size]:
        some = shuffled[:, :drawn]
        low, high = stats.bounded_mean(some, size, -reach, reach)
        held_R &= (low <= values.mean()) & (values.mean() <= high)
        error_R = some.std(1, ddof=1) / np.sqrt(drawn)
        naive = (np.abs(some.mean(1) - values.mean()) <= 1.96 * error_R).mean()
        width = (high - low).mean() / 2 * size / examples
        name = f"loss, reach {reach:g}, s {values.std():.3f}"
        line(examples, name, drawn, held_R.mean(), naive, width)


def needed(random, examples, changes, alpha, masks=72, precision=0.005):
    """Examples of the audit until the half-width is at most the precision: of the masks' median,
    and of the last."""
    size = examples - int(CERTAIN * examples)
    plus = changes // 2
    place = orders(random, size, changes, masks)
    first = np.full(masks, size)
    for drawn in range(50, size, 50):
        up, down = (place[:, :plus] < drawn).sum(1), (place[:, plus:] < drawn).sum(1)
        low, high = net_interval(up, down, drawn, size, alpha)
        narrow = (high - low) / 2 <= precision * examples
        first = np.where(narrow, np.minimum(first, drawn), first)
        if narrow.all():
            break
    return int(np.median(first)), int(first.max())


def main():
    random = np.random.default_rng(0)
    print("| examples | audit | drawn | held | 1.96 s | half-width |\n|---|---|---|---|---|---|")
    for examples in SETS:
        few = round(0.001 * examples)
        for plus, minus in ((0, 0), (few, few), (0, 2 * few)):
            accuracy(random, examples, plus, minus)
        for reach in (1.0, 0.25):
            loss(random, examples, reach)
    print("\n| examples | changes in the audit | alpha | drawn, median mask | drawn, last mask |")
    print("|---|---|---|---|---|")
    for examples in SETS:
        for changes in (0, round(0.0005 * examples), round(0.002 * examples)):
            for alpha in (0.05, 0.05 / 72):
                middle, last = needed(random, examples, changes, alpha)
                print(f"| {examples:,} | {changes} | {alpha:.2g} | {middle:,} | {last:,} |")


if __name__ == "__main__":
    main()
