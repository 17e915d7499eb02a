"""Metrics as sums: each example's sufficient statistics, and the metric of their sum.

So the metric of any sample of the examples, and with it every bootstrap, comes from what a store
holds.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np

Values = Mapping[str, np.ndarray]
"""What is stored of each example under each mask `{name: [M, N, ...]}`, and what is so of the
example itself `{name: [N]}`."""


MetricName = Literal[
    "accuracy",
    "f1",
    "matthews",
    "loss",
    "logit_difference",
    "token_accuracy",
    "token_loss",
    "perplexity",
    "word_perplexity",
    "bits_per_byte",
    "exact",
    "target_perplexity",
    "bleu",
    "chrf",
]
"""All that there are, in configs and in stores; `metric_of` has them."""

Score = TypeVar("Score", float, np.ndarray)


class Metric(Protocol):
    """A metric of a set of examples."""

    @property
    def name(self) -> str:
        """The metric's name in a config."""

    @property
    def larger_is_better(self) -> bool:
        """Whether a larger metric is that of a better model; else a smaller one is."""

    @property
    def sums(self) -> type[np.int64] | type[np.float64]:
        """The type in which statistics are summed: counts exactly, real numbers in float64."""

    @property
    def of_translations(self) -> bool:
        """Whether it is one of translations, which a model has to make; else of its loss and its
        predictions."""

    def statistics(self, values: Values) -> np.ndarray:
        """The sufficient statistics of each example, `[M, N, S]`."""

    def score(self, sums: np.ndarray) -> np.ndarray:
        """The metric `[...]` of statistics summed over examples, `[..., S]`."""


@dataclasses.dataclass(frozen=True)
class LabelMetric:
    """`accuracy`, `f1` or `matthews` of values `prediction` and `label`; statistics are cells of
    the confusion matrix."""

    name: str
    classes: int
    positive: int = 1
    """The class that F1 is about."""
    larger_is_better: ClassVar = True
    sums: ClassVar = np.int64
    of_translations: ClassVar = False

    def statistics(self, values: Values) -> np.ndarray:
        """One-hot cells (label, prediction), `[M, N, C * C]`."""
        return confusion(values["label"], values["prediction"], self.classes)

    def score(self, sums: np.ndarray) -> np.ndarray:
        """0 to 1, Matthews' correlation -1 to 1."""
        return from_confusion(sums, self.name, positive=self.positive)


@dataclasses.dataclass(frozen=True)
class TokenAccuracy:
    """Share of target tokens that are predicted right given those before them, of values `correct`
    and `tokens`."""

    name: ClassVar = "token_accuracy"
    larger_is_better: ClassVar = True
    sums: ClassVar = np.int64
    of_translations: ClassVar = False

    def statistics(self, values: Values) -> np.ndarray:
        """Right tokens and all tokens, `[M, N, 2]`."""
        return np.stack(np.broadcast_arrays(values["correct"], values["tokens"]), -1)

    def score(self, sums: np.ndarray) -> np.ndarray:
        """0 to 1."""
        return _ratio(sums)


@dataclasses.dataclass(frozen=True)
class MeanLoss:
    """Mean loss of an example in nats, of the value `loss`, or its exponential; of a document in
    several windows, their sum."""

    name: str = "loss"
    unit: Literal["nats", "perplexity"] = "nats"
    """Perplexity is the exponential of nats."""
    larger_is_better: ClassVar = False
    sums: ClassVar = np.float64
    of_translations: ClassVar = False

    def statistics(self, values: Values) -> np.ndarray:
        """Loss in nats and 1, or the window's share of its document, `[M, N, 2]`."""
        loss_MN = values["loss"]
        _, of_N, count = np.unique(
            values.get("origin", np.arange(loss_MN.shape[-1])),
            return_inverse=True,
            return_counts=True,
        )
        return np.stack(np.broadcast_arrays(loss_MN, 1 / count[of_N]), -1)

    def score(self, sums: np.ndarray) -> np.ndarray:
        """Nats an example; perplexity 1, or more."""
        return np.exp(_ratio(sums)) if self.unit == "perplexity" else _ratio(sums)


@dataclasses.dataclass(frozen=True)
class Exact:
    """Share of documents of which every predicted token is the likeliest given those before it, of
    values `correct` and `tokens`."""

    name: ClassVar = "exact"
    larger_is_better: ClassVar = True
    sums: ClassVar = np.int64
    of_translations: ClassVar = False

    def statistics(self, values: Values) -> np.ndarray:
        """Whether the document is right, and 1, both 0 in its windows after the first,
        `[M, N, 2]`."""
        wrong_MN = values["tokens"] - values["correct"]
        _, first_N = np.unique(
            values.get("origin", np.arange(wrong_MN.shape[-1])), return_index=True
        )
        statistics_MNS = np.zeros((*wrong_MN.shape, 2), np.int64)
        statistics_MNS[:, first_N, 0] = np.add.reduceat(wrong_MN, first_N, axis=1) == 0
        statistics_MNS[:, first_N, 1] = 1
        return statistics_MNS

    def score(self, sums: np.ndarray) -> np.ndarray:
        """0 to 1."""
        return _ratio(sums)


@dataclasses.dataclass(frozen=True)
class LogitDifference:
    """Mean over items of the right choice's log-likelihood less the best other choice's, in nats,
    of the value of this name."""

    name: ClassVar = "logit_difference"
    larger_is_better: ClassVar = True
    sums: ClassVar = np.float64
    of_translations: ClassVar = False

    def statistics(self, values: Values) -> np.ndarray:
        """The difference in nats, and 1, `[M, N, 2]`."""
        return np.stack(np.broadcast_arrays(values[self.name], 1.0), -1)

    def score(self, sums: np.ndarray) -> np.ndarray:
        """Nats an item; below 0 where the right choice is not the likeliest."""
        return _ratio(sums)


@dataclasses.dataclass(frozen=True)
class LossRate:
    """Loss by tokens, words or bytes, both summed over examples, of the value `loss` and that of
    their number: perplexity and its kin."""

    name: str
    per: Literal["tokens", "words", "bytes"]
    unit: Literal["nats", "bits", "perplexity"]
    """Perplexity is the exponential of nats."""
    larger_is_better: ClassVar = False
    sums: ClassVar = np.float64
    of_translations: ClassVar = False

    def statistics(self, values: Values) -> np.ndarray:
        """Loss in nats, and the number, `[M, N, 2]`."""
        return np.stack(np.broadcast_arrays(values["loss"], values[self.per]), -1)

    def score(self, sums: np.ndarray) -> np.ndarray:
        """0, or more; perplexity 1, or more."""
        rate = _ratio(sums)
        return {"nats": rate, "bits": rate / np.log(2), "perplexity": np.exp(rate)}[self.unit]


@dataclasses.dataclass(frozen=True)
class CorpusMetric:
    """Corpus BLEU or chrF by sacreBLEU, of the counts that are stored under the metric's name."""

    text: TextMetric
    larger_is_better: ClassVar = True
    sums: ClassVar = np.int64
    of_translations: ClassVar = True

    @property
    def name(self) -> str:
        """`bleu` or `chrf`."""
        return self.text.name

    def statistics(self, values: Values) -> np.ndarray:
        """n-gram counts, `[M, N, S]`."""
        return values[self.name]

    def score(self, sums: np.ndarray) -> np.ndarray:
        """0 to 100."""
        return self.text.score(sums)


_PLAIN: tuple[Metric, ...] = (
    TokenAccuracy(),
    MeanLoss(),
    MeanLoss("target_perplexity", "perplexity"),
    Exact(),
    LogitDifference(),
    LossRate("token_loss", "tokens", "nats"),
    LossRate("perplexity", "tokens", "perplexity"),
    LossRate("word_perplexity", "words", "perplexity"),
    LossRate("bits_per_byte", "bytes", "bits"),
)
"""Those of which the name says everything."""


def metric_of(manifest: Mapping[str, Any]) -> Metric:
    """The metric that a store's manifest names: `metric`, and for some `labels` and `positive`, or
    `tokenize`."""
    for metric in _PLAIN:
        if manifest["metric"] == metric.name:
            return metric
    if manifest["metric"] in ("bleu", "chrf"):
        return CorpusMetric(TextMetric(manifest["metric"], manifest["tokenize"]))
    return LabelMetric(manifest["metric"], len(manifest["labels"]), manifest["positive"])


def totals(metric: Metric, statistics: np.ndarray) -> np.ndarray:
    """Statistics `[..., N, S]` summed over examples, `[..., S]`, in the metric's type."""
    return statistics.sum(-2, dtype=metric.sums)


def statistics_of(metric: Metric, values: Values) -> np.ndarray:
    """The sufficient statistics `[M, N, S]` of what is drawn and judged as one: each example, or,
    where several are of one document (of the same `origin`), each document, in their order."""
    statistics_MNS = metric.statistics(values)
    _, first_N = np.unique(values.get("origin", ()), return_index=True)
    if len(first_N) in (0, statistics_MNS.shape[1]):
        return statistics_MNS
    return np.add.reduceat(statistics_MNS, first_N, axis=1, dtype=metric.sums)


def scores(metric: Metric, values: Values) -> np.ndarray:
    """The metric of all examples under each mask, `[M]`."""
    return metric.score(totals(metric, metric.statistics(values)))


def worth(metric: Metric, score: Score) -> Score:
    """Scores, or differences of scores, so that larger is better whatever the metric."""
    return score if metric.larger_is_better else -score


BINS = 10
"""Of confidence, equally wide, in the calibration error."""


def calibration_error(confidence_MN: np.ndarray, right_MN: np.ndarray) -> np.ndarray:
    """The expected calibration error of a classifier under each mask `[M]`, 0 to 1 (Guo et al.
    2017, eq. 3): how far accuracy is from confidence in each bin, (0, 0.1], ..., weighted by the
    bin's examples."""
    masks, examples = confidence_MN.shape
    bin_MN = np.clip(np.ceil(confidence_MN * BINS).astype(int) - 1, 0, BINS - 1)
    place_MN = bin_MN + BINS * np.arange(masks)[:, None]
    gaps = np.bincount(
        place_MN.ravel(), (confidence_MN - right_MN).ravel().astype(np.float64), masks * BINS
    )
    error_M: np.ndarray = np.abs(gaps.reshape(masks, BINS)).sum(1) / examples
    return error_M


def confusion(label_N: np.ndarray, prediction_N: np.ndarray, classes: int) -> np.ndarray:
    """Each example's one-hot cell (label, prediction) of the confusion matrix: `[..., N, C * C]`,
    uint8."""
    return np.eye(classes * classes, dtype=np.uint8)[label_N * classes + prediction_N]


def from_confusion(cells: np.ndarray, metric: str, *, positive: int = 1) -> np.ndarray:
    """`accuracy`, `f1` (of the class `positive`) or `matthews` (multi-class) from summed cells
    `[..., C * C]`.

    A metric with a zero denominator (no examples of a class, one class predicted throughout) is 0,
    as in scikit-learn.
    """
    classes = int(np.sqrt(cells.shape[-1]))
    table = np.asarray(cells, np.float64).reshape(*cells.shape[:-1], classes, classes)
    correct, total = np.trace(table, axis1=-2, axis2=-1), table.sum((-2, -1))
    label, predicted = table.sum(-1), table.sum(-2)
    if metric == "accuracy":
        return _divide(correct, total)
    if metric == "f1":
        return _divide(
            2 * table[..., positive, positive], label[..., positive] + predicted[..., positive]
        )
    if metric == "matthews":
        covariance = correct * total - (label * predicted).sum(-1)
        spread = (total**2 - (predicted**2).sum(-1)) * (total**2 - (label**2).sum(-1))
        return _divide(covariance, np.sqrt(spread))
    raise ValueError(f"there is no metric {metric!r}; the metrics are accuracy, f1 and matthews")


def _ratio(sums: np.ndarray) -> np.ndarray:
    """The first of two sums `[..., 2]` by the second."""
    return _divide(*np.moveaxis(np.asarray(sums, np.float64), -1, 0))


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


@dataclasses.dataclass(frozen=True)
class TextMetric:
    """Corpus BLEU (Papineni et al. 2002) or chrF (Popović 2015) with sacrebleu's defaults, in
    0..100."""

    name: Literal["bleu", "chrf"] = "bleu"
    tokenize: str = "13a"
    """sacrebleu's tokenizer for BLEU: 13a, intl, zh, char, none, ... (see `tokenizer_of`); chrF has
    none."""

    def statistics(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Each sentence's sufficient statistics `[N, S]`, int32: S is 10 for BLEU, 18 for chrF.

        The references' n-grams are counted once for the metric and the last 64 sets of references.
        ValueError if there is not one reference for each hypothesis.
        """
        if len(hypotheses) != len(references):
            raise ValueError(
                f"expected a reference for each hypothesis, but there are {len(references)} for "
                f"{len(hypotheses)}"
            )
        if not references:
            return np.zeros((0, len(self.statistics([""], [""])[0])), np.int32)
        metric = _metric(self.name, self.tokenize, tuple(references))
        return np.array(metric._extract_corpus_statistics(hypotheses, None), np.int32)

    def score(self, sums: np.ndarray) -> np.ndarray:
        """The corpus score of summed statistics `[..., S]`: float64 `[...]`, sacrebleu's but for
        rounding errors."""
        counts = np.rint(sums).astype(np.float64)
        return _bleu(counts) if self.name == "bleu" else _chrf(counts)

    def signature(self) -> str:
        """What sacrebleu asks to have reported with a score, its version included."""
        return _metric(self.name, self.tokenize, ("",)).get_signature().format()


def _bleu(counts: np.ndarray) -> np.ndarray:
    """Corpus BLEU of sacrebleu's counts `[..., 10]`: both lengths, then right n-grams and all of
    each order; n-grams without a match are smoothed as in NIST's mteval (Chen and Cherry 2014,
    method 3)."""
    length, reference = counts[..., 0], counts[..., 1]
    right, total = counts[..., 2:6], counts[..., 6:10]
    halved = np.exp2(np.cumsum(right == 0, -1))
    precision = _divide(np.where(right == 0, 100 / halved, 100 * right), total)
    scored = np.asarray(right.any(-1) & (total > 0).all(-1) & (length > 0))
    mean = np.log(precision, out=np.zeros_like(precision), where=scored[..., None]).mean(-1)
    brevity = np.exp(np.minimum(0.0, 1 - _divide(reference, length)))
    return np.where(scored, brevity * np.exp(mean), 0.0)


def _chrf(counts: np.ndarray) -> np.ndarray:
    """Corpus chrF2 of sacrebleu's counts `[..., 18]`: n-grams of the translation, of the reference
    and of both, of each order that both have."""
    said, reference, both = np.moveaxis(counts.reshape(*counts.shape[:-1], 6, 3), -1, 0)
    known = (said > 0) & (reference > 0)
    orders = known.sum(-1).astype(np.float64)
    precision, recall = (
        _divide(np.where(known, _divide(both, of), 0.0).sum(-1), orders) for of in (said, reference)
    )
    return 100 * _divide(5 * precision * recall, 4 * precision + recall)


_BEST = {"zh": "zh", "cmn": "zh", "zho": "zh"}
_BEST |= {"ja": "ja-mecab", "jpn": "ja-mecab", "ko": "ko-mecab", "kor": "ko-mecab"}
"""sacreBLEU's own choice for a target language; 13a for all others."""


def tokenizer_of(name: str, language: str) -> str:
    """sacreBLEU's tokenizer `name`, or if that is empty the one that it chooses for a target
    `language`, such as `zh` or `zh-CN`."""
    return name or _BEST.get(re.split("[-_]", language.lower())[0], "13a")


@functools.lru_cache(maxsize=64)
def _metric(name: str, tokenize: str, references: tuple[str, ...]) -> Any:
    """sacrebleu's metric with its counts of the references' n-grams."""
    from sacrebleu.metrics import BLEU, CHRF

    if name == "chrf":
        return CHRF(references=[references])
    if tokenize not in BLEU.TOKENIZERS:
        raise ValueError(
            f"sacrebleu has no tokenizer {tokenize!r}; it has {', '.join(sorted(BLEU.TOKENIZERS))}"
        )
    try:  # force: no advice on each of many hypothesis sets
        return BLEU(tokenize=tokenize, references=[references], force=True)
    except (Exception, SystemExit) as error:
        raise RuntimeError(
            f"sacrebleu's tokenizer {tokenize!r} needs a package or a file that is not here "
            f"({' '.join(str(error).split())[:120]}): install it (pip install 'sacrebleu[ja,ko]'), "
            "or choose another, such as --tokenize char"
        ) from error
