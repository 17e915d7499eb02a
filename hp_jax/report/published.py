"""What the paper published: Michel, Levy and Neubig (2019), arXiv 1905.10650 v3.

Layers count from 0 as everywhere in hp_jax; the paper counts them from 1.  Changes are in BLEU or
in points of accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hp_jax.config import PaperSetting
from hp_jax.exhibits import Exhibit

BOOTSTRAP = "paired bootstrap, one-sided, 1,000 resamples of half of the sentences (compare-mt)"
T_TEST = "t-test, most likely unpaired"


class Setting(NamedTuple):
    """A model of the paper's, and how it was judged."""

    model: str
    layers: Mapping[str, int]
    """Rows of each type of attention."""
    heads: int
    """Of each row."""
    data: str
    metric: str
    """Its name in a config."""
    test: str = "none"


def _bert(task: str, metric: str, test: str = "none") -> Setting:
    return Setting("BERT-base, fine-tuned", {"enc": 12}, 12, task, metric, test)


SETTINGS: Mapping[PaperSetting, Setting] = {
    "wmt": Setting(
        "Transformer-big of Ott et al. (2018)",
        {"enc": 6, "dec": 6, "cross": 6},
        16,
        "WMT'14 English-French",
        "bleu",
        BOOTSTRAP,
    ),
    "mnli": _bert("MNLI", "accuracy", T_TEST),
    "sst2": _bert("SST-2", "accuracy"),
    "cola": _bert("CoLA", "matthews"),
    "mrpc": _bert("MRPC", "f1"),
    "iwslt": Setting(
        "6 + 6 pre-norm layers, width 512",
        {"enc": 6, "dec": 6, "cross": 6},
        8,
        "IWSLT'14 German-English",
        "bleu",
    ),
}
"""By the name in `paper.setting`."""


class Finding(NamedTuple):
    """What the paper says in a table or figure."""

    split: str
    """On which it was measured."""
    words: str
    """The result in short."""
    chosen: str = ""
    """On which split what is measured was chosen, if on another one."""
    test: str = ""
    """How it was tested, if not as the setting says."""
    metric: str = ""
    """What was measured, if not the setting's metric."""


SPLITS: Mapping[str, str] = {
    "wmt13": "newstest2013",
    "wmt14/full": "newstest2014",
    "wmt09+wmt10+wmt11+wmt12": "newstest2009 to 2012",
    "mtnt1.1/test": "MTNT",
    "validation": "development set",
    "validation_matched": "MNLI matched",
    "validation_mismatched": "MNLI mismatched",
    "train": "all of training",
    "train[:5000]": "5,000 random examples of training",
    "valid": "IWSLT valid",
}
"""What the paper's splits are called below, by their names here."""


_VALIDATION, _OF_R = "development set", "that r is 0"
FINDINGS: Mapping[Exhibit, Mapping[PaperSetting, Finding]] = {
    "figure1": {
        "wmt": Finding("newstest2013", "BLEU about 35.5 to 36.3, around 36.05"),
        "mnli": Finding("MNLI matched", "accuracy about 0.824 to 0.838, around 0.834"),
    },
    "table1": {
        "wmt": Finding(
            "newstest2013", "8 of 96 encoder heads change BLEU significantly, 4 for the worse"
        )
    },
    "table2": {
        "wmt": Finding("newstest2013", "4 of 18 rows lose significantly with their best head")
    },
    "table3": {"mnli": Finding("MNLI matched", "no row loses significantly with its best head")},
    "figure2": {
        "wmt": Finding("MTNT", "Pearson r = 0.56, p < 0.01", "newstest2013", _OF_R),
        "mnli": Finding("MNLI mismatched", "Pearson r = 0.68, p < 0.01", "MNLI matched", _OF_R),
    },
    "figure3": {
        "wmt": Finding(
            "newstest2013", "no noticeable loss up to 20 % of the heads", "newstest2009 to 2012"
        ),
        "mnli": Finding(
            "MNLI matched", "no noticeable loss up to 40 % of the heads", "all of training"
        ),
    },
    "figure6": {
        "sst2": Finding(_VALIDATION, "up to 60 % of the heads", "all of training"),
        "cola": Finding(_VALIDATION, "up to 50 % of the heads", "all of training"),
        "mrpc": Finding(_VALIDATION, "up to 50 % of the heads", "all of training"),
        "iwslt": Finding("IWSLT valid", "up to about 20 % of the heads", "all of training"),
    },
    "table4": {
        "mnli": Finding(
            "GTX 1080 Ti",
            "17.5 % more in batches of 16 and 64",
            test="none",
            metric="examples a second",
        )
    },
    "figure4": {
        "wmt": Finding(
            "newstest2013",
            "cross-attention collapses beyond 60 % of its heads; the encoder's or the decoder's "
            "self-attention alone keeps about 30 BLEU with 20 %",
            "newstest2009 to 2012",
        )
    },
    "figure5": {
        "iwslt": Finding(
            "IWSLT valid",
            "in epochs 1 and 2 BLEU falls in line with the heads removed; from epoch 10 on up to "
            "40 % can go at 85 to 90 % of it",
            "all of training",
        )
    },
    "table5": {"wmt": Finding("newstest2014", "9 of 18 rows lose significantly", "newstest2013")},
    "table6": {
        "mnli": Finding(
            "MNLI matched", "at most 0.96 points lost", "5,000 random examples of training"
        )
    },
}
"""By table or figure, and by setting."""

TABLE_1 = (
    ".03 .07 .05 -.06 .03 -.53* .09 -.33* .06 .03 .11 .04 .01 -.04 .04 .00",
    ".01 .04 .10 .20* .06 .03 .00 .09 .10 .04 .15* .03 .05 .04 .14 .04",
    ".05 -.01 .08 .09 .11 .02 .03 .03 -.00 .13 .09 .09 -.11 .24* .07 -.04",
    "-.02 .03 .13 .06 -.05 .13 .14 .05 .02 .14 .05 .06 .03 -.06 -.10 -.06",
    "-.31* -.11 -.04 .12 .10 .02 .09 .08 .04 .21* -.02 .02 -.03 -.04 .07 -.02",
    ".06 .07 -.31* .15 -.19 .15 .11 .05 .01 -.08 .06 .01 .01 .02 .07 .05",
)
"""The change of BLEU without each head of encoder self-attention, a line a layer; * p < 0.01."""
BEST_HEADS: Mapping[Exhibit, Mapping[str, str]] = {
    "table2": {
        "enc": "-1.31* -.16 .12 -.15 .02 -.36*",
        "cross": ".24* .06 .05 -.24 -1.55* -13.56*",
        "dec": "-.03 .12 .18 .17 -.04 .24",
    },
    "table5": {
        "enc": "-1.96* -.57* -.45* -.30 -.32 -.67*",
        "cross": ".02 .09 -.42* -.60* -2.75* -18.89*",
        "dec": ".03 -.13 .00 -.31 -.66* -.03",
    },
    "table3": {"enc": "-.01 .10 -.14 -.53 -.29 -.52 .05 -.72 -.96 .07 -.19 -.12"},
    "table6": {"enc": "-.01 -.02 -.26 -.53 -.29 -.52 .05 -.72 -.96 .07 -.19 -.15"},
}
"""The change with the best single head of each row, by type, a layer a word."""
TABLE_4 = {1: (17.0, 17.3), 4: (67.3, 69.1), 16: (114.0, 134.0), 64: (124.7, 146.6)}
"""Examples a second of the original and of the model without half of its heads, by batch."""
FIGURE_5 = {1: 3.0, 2: 6.2, 3: 18.1, 5: 26.9, 10: 30.6, 20: 34.5, 30: 34.7, 40: 34.9}
"""BLEU with all heads, by epoch."""


def value(word: str) -> tuple[float, str]:
    """A number of the tables above, and its mark of significance."""
    return float(word.rstrip("*")), "*" * word.endswith("*")
