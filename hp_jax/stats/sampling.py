"""What a grid that measures some of the examples says about all of them.

A prediction stands for each example under each mask.  Those of the highest risk are measured
whatever happens (inclusion probability 1), and of the others, the audit, the first ones of a random
order.  An estimate is the difference estimator (Särndal, Swensson and Wretman 1992; prediction-
powered inference, Angelopoulos et al. 2023): all predictions, and how far they were from what was
measured.  Its interval is a confidence sequence, valid whatever the predictions are worth and
whenever one stops.  For M masks together give `alpha / M` (Bonferroni).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hp_jax.metrics import LabelMetric
from hp_jax.stats.sequences import bounded_mean, net_changes


class Sample(NamedTuple):
    """Which of the N examples are measured."""

    certain: np.ndarray
    """Indices of those that are measured whatever happens, in the order in which they are."""
    audit: np.ndarray
    """Indices of all others in random order, of which the first `drawn` are measured next."""
    drawn: int

    @property
    def measured(self) -> np.ndarray:
        """Indices of all measured examples, in the order in which they are measured."""
        return np.concatenate([self.certain, self.audit[: self.drawn]])


def riskiest(risk_N: np.ndarray, certain: int, drawn: int, *, seed: int = 0) -> Sample:
    """The `certain` examples of the largest risk, equal ones by their index, and an audit of the
    others in the order of the seed; with a larger `drawn` the sample goes on, it does not change.

    ValueError if there are not as many examples.
    """
    if not (certain >= 0 and drawn >= 0 and certain + drawn <= len(risk_N)):
        raise ValueError(
            f"expected at most the {len(risk_N)} examples that there are, but found {certain} of "
            f"high risk and {drawn} of the audit"
        )
    order = np.argsort(-risk_N, kind="stable")
    audit = np.random.default_rng(seed).permutation(np.sort(order[certain:]))
    return Sample(order[:certain], audit, drawn)


class Estimate(NamedTuple):
    """A value of each mask, and the interval that holds the value of all examples, `[M]` each."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def estimated_share(
    predicted_MN: np.ndarray, measured_MB: np.ndarray, sample: Sample, *, alpha: float = 0.05
) -> Estimate:
    """The mean over all N examples of counts such as right or wrong, of which each prediction is
    exact or one off (`net_changes`): accuracy, or where both are less the full model's, its change.

    predicted_MN: of all examples; measured_MB: of `sample.measured`, in that order.  ValueError for
    other shapes, or where a prediction is off by anything else.
    """
    predicted_MN = np.asarray(predicted_MN).astype(np.int64)
    return _parts_of(_net(predicted_MN, measured_MB, sample, alpha), predicted_MN.shape[1])


def estimated_mean(
    predicted_MN: np.ndarray,
    measured_MB: np.ndarray,
    sample: Sample,
    reach: float,
    *,
    alpha: float = 0.05,
) -> Estimate:
    """The mean over all N examples of real values, of which each prediction is off by at most
    `reach` (`bounded_mean`): of losses that are clipped to 0 ... `reach`, or of differences of
    right answers between two masks of which neither is known, with a reach of 2.

    predicted_MN, measured_MB: as in `estimated_share`.  A reach must be known, not seen: the
    interval cannot be narrower than about 4 times the reach divided by the examples drawn.
    ValueError for other shapes, or where a prediction of the audit is off by more.
    """
    predicted_MN = np.asarray(predicted_MN, np.float64)
    known_M, error_MB = _errors(predicted_MN, measured_MB, sample)
    size = len(sample.audit)
    low_M, high_M = bounded_mean(error_MB, size, -reach, reach, alpha=alpha) if size else (0, 0)
    net_M = error_MB.mean(1) if sample.drawn else np.zeros(len(error_MB))
    sums = Estimate(*(known_M + size * side_M for side_M in (net_M, low_M, high_M)))
    return _parts_of(sums, predicted_MN.shape[1])


def _errors(
    predicted_MN: np.ndarray, measured_MB: np.ndarray, sample: Sample
) -> tuple[np.ndarray, np.ndarray]:
    """The sum over all examples, each as the prediction says but the certain ones as measured,
    `[M]`, and how far predictions of the audit are off, measured - predicted, `[M, drawn]`."""
    expected = (len(predicted_MN), len(sample.measured))
    examples = len(sample.certain) + len(sample.audit)
    if measured_MB.shape != expected or predicted_MN.shape[1] != examples:
        raise ValueError(
            f"expected predictions of {examples} examples and {expected} measured values (masks, "
            f"examples), but found {predicted_MN.shape} and {measured_MB.shape}"
        )
    error_MB = measured_MB - predicted_MN[:, sample.measured]
    certain = len(sample.certain)
    return predicted_MN.sum(1) + error_MB[:, :certain].sum(1), error_MB[:, certain:]


def _net(
    predicted_MN: np.ndarray, measured_MB: np.ndarray, sample: Sample, alpha: float
) -> Estimate:
    """The sum over all examples of `estimated_share`'s values."""
    known_M, error_MB = _errors(predicted_MN, np.asarray(measured_MB).astype(np.int64), sample)
    if (np.abs(error_MB) > 1).any():
        raise ValueError(
            "expected predictions that are exact or one off, but found one that is "
            f"{np.abs(error_MB).max()} off"
        )
    up_M, down_M = (error_MB == 1).sum(1), (error_MB == -1).sum(1)
    size = len(sample.audit)
    low_M, high_M = net_changes(up_M, down_M, sample.drawn, size, alpha=alpha)
    net_M = np.clip((up_M - down_M) * (size / max(sample.drawn, 1)), low_M, high_M)
    return Estimate(known_M + net_M, known_M + low_M, known_M + high_M)


def _parts_of(sums: Estimate, examples: int) -> Estimate:
    return Estimate(*(np.asarray(sum_M) / examples for sum_M in sums))


def decided(low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
    """What intervals of how much worse masks are say of a margin: `harm` where even the lower end
    is the margin or more, `no harm` where the upper end is less, else `undecided`."""
    return np.select([low >= margin, high < margin], ["harm", "no harm"], "undecided")


# --- metrics of the confusion matrix ------------------------------------------------------------


def estimated_labels(
    metric: LabelMetric,
    label_N: np.ndarray,
    predicted_MN: np.ndarray,
    measured_MB: np.ndarray,
    sample: Sample,
    *,
    alpha: float = 0.05,
) -> Estimate:
    """Accuracy, F1 or Matthews correlation of classes `predicted_MN` where measured they are
    `measured_MB`, both as in `estimated_share`, and the labels `label_N` are known.

    Accuracy is a share.  Of the others the counts that decide are bounded together (union bound),
    and the interval is from the least to the largest metric that they allow.
    """
    if metric.name == "accuracy":
        label_B = label_N[sample.measured]
        return estimated_share(predicted_MN == label_N, measured_MB == label_B, sample, alpha=alpha)
    if metric.name == "matthews" and metric.classes > 2:
        return _matthews(metric, label_N, predicted_MN, measured_MB, sample, alpha)
    positive_N, is_MN = label_N == metric.positive, predicted_MN == metric.positive
    found_MB = measured_MB == metric.positive
    hits = _net_among(positive_N, is_MN, found_MB, sample, alpha / 2)
    alarms = _net_among(~positive_N, is_MN, found_MB, sample, alpha / 2)
    counts = int(positive_N.sum()), int((~positive_N).sum())
    # Both metrics rise with hits and fall with false alarms, so their extremes are at corners.
    return Estimate(
        _two_by_two(metric, hits.value, alarms.value, *counts),
        _two_by_two(metric, hits.low, alarms.high, *counts),
        _two_by_two(metric, hits.high, alarms.low, *counts),
    )


def _net_among(
    among_N: np.ndarray,
    predicted_MN: np.ndarray,
    measured_MB: np.ndarray,
    sample: Sample,
    alpha: float,
) -> Estimate:
    """`_net` of some of the examples, of which the order is as random as that of all; the sums are
    at most what can be."""
    place_N = np.cumsum(among_N) - 1
    drawn = int(among_N[sample.audit[: sample.drawn]].sum())
    some = Sample(
        place_N[sample.certain[among_N[sample.certain]]],
        place_N[sample.audit[among_N[sample.audit]]],
        drawn,
    )
    return _net(
        predicted_MN[:, among_N].astype(np.int64),
        measured_MB[:, among_N[sample.measured]],
        some,
        alpha,
    )


def _two_by_two(
    metric: LabelMetric, hits_M: np.ndarray, alarms_M: np.ndarray, positive: int, negative: int
) -> np.ndarray:
    cells = np.stack([negative - alarms_M, alarms_M, positive - hits_M, hits_M], -1)
    return LabelMetric(metric.name, 2).score(cells)


def _matthews(
    metric: LabelMetric,
    label_N: np.ndarray,
    predicted_MN: np.ndarray,
    measured_MB: np.ndarray,
    sample: Sample,
    alpha: float,
) -> Estimate:
    """Of more than two classes: from the number of right answers and how often each class is
    predicted (`from_confusion`), each within its interval, and the latter N together."""
    part, classes, examples = alpha / (metric.classes + 1), range(metric.classes), len(label_N)
    label_C = np.bincount(label_N, minlength=metric.classes).astype(np.float64)
    label_B = label_N[sample.measured]
    right = _net(predicted_MN == label_N, measured_MB == label_B, sample, part)
    of_classes = [_net(predicted_MN == c, measured_MB == c, sample, part) for c in classes]
    value_MC, low_MC, high_MC = (np.stack(side, 1) for side in zip(*of_classes, strict=True))

    def largest(weight_MC: np.ndarray) -> np.ndarray:
        return _largest_sum(weight_MC, low_MC, high_MC, examples)

    by_label_MC = np.broadcast_to(label_C, low_MC.shape)
    square_M = (value_MC**2).sum(1)
    # p ** 2 <= (low + high) p - low * high where p is within low ... high; and N / C each is least.
    most_M = largest(low_MC + high_MC) - (low_MC * high_MC).sum(1)
    least_M = np.maximum((low_MC**2).sum(1), examples**2 / metric.classes)

    def score(
        covariance_M: np.ndarray, if_above_M: np.ndarray, if_below_M: np.ndarray
    ) -> np.ndarray:
        predicted_M = examples**2 - np.where(covariance_M >= 0, if_above_M, if_below_M)
        spread_M = np.sqrt(np.maximum(predicted_M, 0) * (examples**2 - (label_C**2).sum()))
        limit_M = np.sign(covariance_M)
        found = np.divide(covariance_M, spread_M, out=limit_M, where=spread_M > 0)
        return np.clip(found, -1, 1)

    low_M = score(examples * right.low - largest(by_label_MC), least_M, most_M)
    high_M = score(examples * right.high + largest(-by_label_MC), most_M, least_M)
    value_M = score(examples * right.value - value_MC @ label_C, square_M, square_M)
    return Estimate(np.clip(value_M, low_M, high_M), low_M, high_M)


def _largest_sum(
    weight_MC: np.ndarray, low_MC: np.ndarray, high_MC: np.ndarray, total: int
) -> np.ndarray:
    """The largest sum of weight * count, `[M]`, of counts from low to high that are `total`
    together: the largest weights get what is left."""
    order = np.argsort(-weight_MC, 1)
    weight_MC, low_MC, high_MC = (
        np.take_along_axis(of_MC, order, 1) for of_MC in (weight_MC, low_MC, high_MC)
    )
    room_MC = high_MC - low_MC
    taken_MC = np.cumsum(room_MC, 1) - room_MC
    left_M = total - low_MC.sum(1)
    given_MC = np.clip(left_M[:, None] - taken_MC, 0, room_MC)
    return np.asarray((weight_MC * (low_MC + given_MC)).sum(1))
