"""Confidence sequences: what the first examples of a random order say about all of them, at every
moment at once, so that one may look after each example and stop for any reason.

The population is finite and drawn without replacement, so that nothing is left to say once all of
it is seen.  Both sequences are test martingales by Ville's inequality (Waudby-Smith and Ramdas
2020, "Confidence sequences for sampling without replacement"): `net_changes` for values -1, 0, 1
of which nearly all are 0, `bounded_mean` for real values within known bounds.  Where draws are
independent and have no bounds, `normal_reach` takes the place of Student's factor.
"""

from __future__ import annotations

import numpy as np
import scipy.special

PRIOR = ((0.4, 0.0, 0.0), (0.2, 1.0, 1000.0), (0.2, 1.0, 100.0), (0.2, 1.0, 10.0))
"""Weights of what the share of changes may be, each with a and b of its beta distribution; the
first is 0, no changes at all.  It decides where the sequence is narrow; it holds wherever."""
TOP = 0.4
"""Weight of the largest bet, which is the best one where values hardly vary."""


def net_changes(
    up: np.ndarray, down: np.ndarray, drawn: int, size: int, *, alpha: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """From where to where the number of +1 less the number of -1 among `size` values is, `[...]`
    both, integers, if `up` and `down` of the first `drawn` in random order were +1 and -1 and the
    others 0.

    With probability 1 - `alpha` it holds at all numbers drawn together.  It is what the
    prior-posterior-ratio martingale (Waudby-Smith and Ramdas 2020, section 2) of both counts leaves
    of the difference: pairs of counts whose multivariate hypergeometric probability is at least
    `alpha` times what `PRIOR` expected.  With no change seen the bound is log(2.5 / alpha) / drawn
    of the values, or less where much of them is drawn.  ValueError for impossible counts.
    """
    up, down = np.broadcast_arrays(np.asarray(up, np.int64), np.asarray(down, np.int64))
    if not 0 <= drawn <= size or (np.minimum(up, down) < 0).any() or (up + down > drawn).any():
        raise ValueError(
            f"expected up and down, 0 or more, together at most the {drawn} drawn of {size}, but "
            f"found up to {(up + down).max(initial=0)}"
        )
    least = _expected(up, down, drawn) + np.log(alpha) - 1e-8  # for rounding errors
    most = _largest_net(np.stack([up, down]), np.stack([down, up]), drawn, size, least)
    return -most[1], most[0]


def _expected(up: np.ndarray, down: np.ndarray, drawn: int) -> np.ndarray:
    """Log of the probability of such counts under `PRIOR`; of changes each share of +1 has
    Jeffreys' prior."""
    changes, total = up + down, np.full(up.shape, -np.inf)
    sides = _choose(changes, up) + scipy.special.betaln(up + 0.5, down + 0.5) - np.log(np.pi)
    for weight, a, b in PRIOR:
        if a == 0:
            part = np.where(changes == 0, 0.0, -np.inf)
        else:
            part = scipy.special.betaln(changes + a, drawn - changes + b)
            part = part - scipy.special.betaln(a, b) + _choose(drawn, changes) + sides
        total = np.logaddexp(total, np.log(weight) + part)
    return total


def _largest_net(
    up: np.ndarray, down: np.ndarray, drawn: int, size: int, least: np.ndarray
) -> np.ndarray:
    """The largest net of which `_profile` is at least `least`, by halving: it is concave."""
    most = size - drawn + up - down
    low, high = ((up - down) * size) // max(drawn, 1), most  # where the probability is largest
    while (low < high).any():
        middle = (low + high + 1) // 2
        inside = _profile(middle, up, down, drawn, size) >= least
        low, high = np.where(inside, middle, low), np.where(inside, high, middle - 1)
    return low


def _profile(
    net: np.ndarray, up: np.ndarray, down: np.ndarray, drawn: int, size: int
) -> np.ndarray:
    """Log of the largest probability of what was drawn if there are `net` more +1 than -1, or a
    little more.

    Over the number of -1 as if it were real: the log of a binomial coefficient is concave in what
    is chosen from, so that the sign of the slope says on which side the maximum is, and the slope
    how much higher it can be.
    """
    same = drawn - up - down
    low = np.maximum(down, up - net).astype(np.float64)
    high = np.maximum(low, (size - same - net) / 2)
    for _ in range(20):
        minus = (low + high) / 2
        slope = _slope(minus + net, up) + _slope(minus, down)
        slope -= 2 * _slope(size - net - 2 * minus, same)
        reach = (high - low) / 2
        low, high = np.where(slope > 0, minus, low), np.where(slope > 0, high, minus)
    found = _choose(minus + net, up) + _choose(minus, down)
    found += _choose(size - net - 2 * minus, same) - _choose(size, drawn)
    return np.asarray(found + np.abs(slope) * reach)


def _choose(of: np.ndarray | int, some: np.ndarray | int) -> np.ndarray:
    """Log of the binomial coefficient."""
    gammaln, left = scipy.special.gammaln, np.maximum(np.subtract(of, some), 0)
    return np.asarray(gammaln(np.add(of, 1)) - gammaln(np.add(some, 1)) - gammaln(left + 1))


def _slope(of: np.ndarray, some: np.ndarray) -> np.ndarray:
    """How `_choose` grows with what is chosen from."""
    digamma, left = scipy.special.digamma, np.maximum(of - some, 0)
    return np.asarray(digamma(of + 1) - digamma(left + 1))


def bounded_mean(
    values_MN: np.ndarray, size: int, low: float, high: float, *, alpha: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """From where to where the mean of `size` values is, `[M]` both, of which `values_MN` `[M, N]`
    were drawn first in random order, all of them from `low` to `high`.

    With probability 1 - `alpha` it holds at all numbers drawn together.  By betting (Waudby-Smith
    and Ramdas 2020, section 3, and 2024) with a mixture of bets instead of one that is tuned, each
    around the running mean, which makes the evidence exponential in the mean: it is found without
    going through the values again.  About (high - low) / 2 * log(2.5 * 2 / alpha) / N where values
    hardly vary, and where they do 1.3 to 1.6 times Student's interval once N is large.  ValueError
    if a value is out of bounds.
    """
    values_MN = np.asarray(values_MN, np.float64)
    drawn, middle, reach = values_MN.shape[1], (low + high) / 2, (high - low) / 2
    if drawn > size or not ((values_MN >= low) & (values_MN <= high)).all():
        raise ValueError(
            f"expected at most {size} values from {low:g} to {high:g}, but found {drawn} from "
            f"{values_MN.min(initial=np.inf):g} to {values_MN.max(initial=-np.inf):g}"
        )
    centred_MN = (values_MN - middle) / reach
    seen_M, left = centred_MN.sum(1), size - drawn
    certain_low_M, certain_high_M = (seen_M - left) / size, (seen_M + left) / size
    low_M = np.clip(_least_mean(centred_MN, size, alpha / 2), certain_low_M, certain_high_M)
    high_M = np.clip(-_least_mean(-centred_MN, size, alpha / 2), certain_low_M, certain_high_M)
    return middle + reach * low_M, middle + reach * high_M


def _least_mean(values_MN: np.ndarray, size: int, alpha: float) -> np.ndarray:
    """The largest mean that is rejected as too small at `alpha`, of values from -1 to 1.

    Each bet b wins, of the value x_t, exp(b (c_t - m_t)) (1 + b (x_t - c_t)): at most 1 on average,
    since exp(-y) (1 + y) <= 1, for any c_t <= 0 known before, where m_t, the mean of what is left
    before x_t, is (size * mean - sum of x_1 ... x_t-1) / (size - t + 1).
    """
    masks, drawn = values_MN.shape
    if drawn == 0:
        return np.full(masks, -1.0)
    left_N = size - np.arange(drawn)
    before_MN = np.cumsum(values_MN, 1) - values_MN
    centre_MN = np.minimum(before_MN / (np.arange(drawn) + 1), 0)
    offset_M, weight = (centre_MN + before_MN / left_N).sum(1), (size / left_N).sum()
    smallest = min(0.5, float(np.sqrt(2 * np.log(1 / alpha) / size)))
    bets = np.geomspace(smallest, 0.99, max(4, int(np.ceil(3 * np.log(1 / smallest)))))
    share = np.full(len(bets), (1 - TOP) / len(bets))
    share[-1] += TOP
    won_MB = _winnings(values_MN - centre_MN, bets) + bets * offset_M[:, None]
    # log(sum of share * exp(won - bet * weight * mean)) falls with the mean; where is it log(1/a)?
    needed = np.log(1 / alpha)
    low_M = ((won_MB - needed + np.log(share)) / (bets * weight)).max(1)
    high_M = ((won_MB - needed) / (bets * weight)).max(1)
    for _ in range(50):
        mean_M = (low_M + high_M) / 2
        log_MB = won_MB - bets * weight * mean_M[:, None]
        rejected = scipy.special.logsumexp(log_MB, axis=1, b=share) >= needed
        low_M, high_M = np.where(rejected, mean_M, low_M), np.where(rejected, high_M, mean_M)
    return low_M


BLOCK = 64
"""Factors from 0.01 to 3 that are multiplied before a logarithm is taken."""


def _winnings(values_MN: np.ndarray, bets: np.ndarray) -> np.ndarray:
    """The sum of log(1 + bet * value) for each bet, `[M, bets]`."""
    masks, drawn = values_MN.shape
    padded = np.pad(values_MN, ((0, 0), (0, -drawn % BLOCK))).reshape(masks, BLOCK, -1)
    return np.array(  # mask by mask, which stays in a processor's cache
        [[np.log((1 + bet * some).prod(0)).sum() for bet in bets] for some in padded]
    ).reshape(masks, len(bets))


def normal_reach(draws: int, *, alpha: float = 0.05) -> float:
    """How many standard errors the mean of independent draws may be off, at all numbers of draws
    together; infinite for few (fewer than 5 where `alpha` is 0.05).

    Exact for normal draws of unknown variance: with probability 1 - `alpha` no mean of two or more
    draws is ever further off.  For others it is an approximation, which is good once their means
    are nearly normal.  It is where the Bayes factor of a mean that is N(0, 1) standard deviations
    off (a t-test with a unit-information prior) comes to 1 / `alpha`: under the right Haar prior of
    the variance a test martingale (Lai 1976; Wang and Ramdas 2024, "Anytime-valid t-tests and
    confidence sequences for Gaussian means with unknown variance").  1.6 to 1.8 times Student's
    from 30 to 1,000 draws.
    """
    if draws < 2:
        return float("inf")
    ratio = ((draws + 1) / alpha**2) ** (1 / draws)
    if ratio >= draws + 1:
        return float("inf")
    return float(np.sqrt((draws - 1) * (ratio - 1) / (1 - ratio / (draws + 1))))
