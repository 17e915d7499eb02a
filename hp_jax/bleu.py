"""BLEU and chrF as sacrebleu has them, from statistics of each sentence that are summed and scored at the end."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class TextMetric:
    """Corpus BLEU (Papineni et al. 2002) or chrF (Popović 2015) with sacrebleu's defaults, in 0..100."""

    name: Literal["bleu", "chrf"] = "bleu"
    tokenize: str = "13a"
    """sacrebleu's tokenizer for BLEU: 13a, intl, zh, char, none, ...; chrF has none."""

    def statistics(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Each sentence's sufficient statistics `[N, S]`, int32: S is 10 for BLEU, 18 for chrF.

        The references' n-grams are counted once for the metric and the last 64 sets of references.  ValueError if there is not
        one reference for each hypothesis.
        """
        if len(hypotheses) != len(references):
            raise ValueError(f"expected a reference for each hypothesis, but there are {len(references)} for {len(hypotheses)}")
        if not references:
            return np.zeros((0, len(self.statistics([""], [""])[0])), np.int32)
        metric = _metric(self.name, self.tokenize, tuple(references))
        return np.array(metric._extract_corpus_statistics(hypotheses, None), np.int32)

    def score(self, sums: np.ndarray) -> np.ndarray:
        """The corpus score of summed statistics `[..., S]`: float64 `[...]`, to the last digit sacrebleu's."""
        metric = _metric(self.name, self.tokenize, ("",))
        rows = np.rint(sums).astype(np.int64).reshape(-1, sums.shape[-1]).tolist()
        scores = [metric._compute_score_from_stats(row).score for row in rows]
        return np.array(scores, np.float64).reshape(sums.shape[:-1])

    def signature(self) -> str:
        """What sacrebleu asks to have reported with a score, its version included."""
        return _metric(self.name, self.tokenize, ("",)).get_signature().format()


@functools.lru_cache(maxsize=64)
def _metric(name: str, tokenize: str, references: tuple[str, ...]) -> Any:
    """sacrebleu's metric with its counts of the references' n-grams."""
    from sacrebleu.metrics import BLEU, CHRF

    if name == "chrf":
        return CHRF(references=[references])
    if tokenize not in BLEU.TOKENIZERS:
        raise ValueError(f"sacrebleu has no tokenizer {tokenize!r}; it has {', '.join(sorted(BLEU.TOKENIZERS))}")
    return BLEU(tokenize=tokenize, references=[references], force=True)  # no advice on each of many hypothesis sets
