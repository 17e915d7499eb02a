"""Classification metrics from confusion matrices: sums over examples that are divided once, at the end."""

from __future__ import annotations

import numpy as np


def confusion(label_N: np.ndarray, prediction_N: np.ndarray, classes: int) -> np.ndarray:
    """Each example's one-hot cell (label, prediction) of the confusion matrix: `[..., N, C * C]`, uint8."""
    return np.eye(classes * classes, dtype=np.uint8)[label_N * classes + prediction_N]


def from_confusion(cells: np.ndarray, metric: str, *, positive: int = 1) -> np.ndarray:
    """`accuracy`, `f1` (of the class `positive`) or `matthews` (multi-class) from summed cells `[..., C * C]`.

    A metric with a zero denominator (no examples of a class, one class predicted throughout) is 0, as in scikit-learn.
    """
    classes = int(np.sqrt(cells.shape[-1]))
    table = np.asarray(cells, np.float64).reshape(*cells.shape[:-1], classes, classes)
    correct, total = np.trace(table, axis1=-2, axis2=-1), table.sum((-2, -1))
    label, predicted = table.sum(-1), table.sum(-2)
    if metric == "accuracy":
        return _divide(correct, total)
    if metric == "f1":
        return _divide(2 * table[..., positive, positive], label[..., positive] + predicted[..., positive])
    if metric == "matthews":
        covariance = correct * total - (label * predicted).sum(-1)
        spread = (total**2 - (predicted**2).sum(-1)) * (total**2 - (label**2).sum(-1))
        return _divide(covariance, np.sqrt(spread))
    raise ValueError(f"there is no metric {metric!r}; the metrics are accuracy, f1 and matthews")


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
