"""How the report writes a metric and its changes, and when it calls one significant."""

from __future__ import annotations

from typing import NamedTuple

SIGNIFICANT = 0.01
"""The paper's level."""
ONE_SIDED = 0.025
"""The level of a claim of no harm: that of one end of an interval of 95 %."""
POWER = 0.8
"""With which the least effect that data show is found."""


class Scale(NamedTuple):
    """A metric's name, and the unit of its changes."""

    name: str
    """In sentences."""
    factor: float = 1.0
    """So many units of a change in one unit of the metric."""
    unit: str = "points"
    decimals: int = 2
    """Of a change."""
    margin: float = 0.5
    """How much worse still counts as no harm, in `unit`, where the experiment says nothing else."""

    def signed(self, change: float) -> str:
        """A change as people read it, with its sign; 0 has none."""
        return f"{change or 0.0:{'+' if change else ''}.{self.decimals}f}"


SCALES = {
    "accuracy": Scale("accuracy", 100),
    "f1": Scale("F1", 100),
    "matthews": Scale("Matthews correlation", 100),
    "token_accuracy": Scale("token accuracy", 100),
    "bleu": Scale("BLEU", margin=0.2),
    "chrf": Scale("chrF", margin=0.2),
    "loss": Scale("mean loss", unit="nats", decimals=3, margin=0.01),
    "logit_difference": Scale("logit difference", unit="nats", decimals=3, margin=0.01),
    "perplexity": Scale("perplexity", margin=0.05),
    "token_loss": Scale("mean loss of a token", unit="nats", decimals=4, margin=0.01),
    "word_perplexity": Scale("perplexity by word", margin=0.1),
    "exact": Scale("documents predicted exactly", 100),
    "target_perplexity": Scale("perplexity of the target", margin=0.05),
    "bits_per_byte": Scale("bits a byte", unit="bits", decimals=4, margin=0.005),
}
"""By the metric's name in a config."""
