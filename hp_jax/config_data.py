"""Frozen settings of data: where examples come from and how they are batched."""

from __future__ import annotations

import dataclasses
from typing import Literal

from hp_jax.typed import Checked, Count, Counts, Natural


@dataclasses.dataclass(frozen=True)
class Data(Checked, section="data"):
    """Where labelled text comes from and how it is batched."""

    task: str = "sst2"
    """The GLUE task (sst2, cola, mrpc, mnli, rte, qnli, qqp or wnli), or any name for data of your
    own."""
    path: str = ""
    """The folder with the task's files, or one that has it by the task's name, or one file (.tsv,
    .csv, .jsonl or .parquet), which is the split `validation`; or a prepared tensorflow-datasets
    folder (or the data_dir to prepare one in)."""
    format: Literal["files", "tfds"] = "files"
    """What is in `path`: the task's own files, or tensorflow-datasets."""
    files: tuple[tuple[str, str], ...] = ()
    """Pairs of a split and the name of its file in `path`; none: the names under which the task is
    distributed."""
    text: tuple[str, ...] = ()
    """The names of the one or two text columns; none: the task's, or of data of your own what is
    there of text, sentence, sentence1 and sentence2, premise and hypothesis, and the like."""
    label: str = ""
    """The name of the label column; empty: the task's, or of data of your own label or labels."""
    labels: tuple[str, ...] = ()
    """The names of the labels, in the order of the model's outputs; none: the task's, or of data
    of your own the trained model's (before training, those in the training split)."""
    metric: Literal["", "accuracy", "f1", "matthews", "loss"] = ""
    """What masks are compared by: accuracy, F1, Matthews correlation or the mean loss; empty: the
    task's own."""
    max_length: Count = 128
    """Most tokens of an example, special tokens included; of longer pairs the longer text loses
    its last tokens first."""
    buckets: Counts = (16, 32, 48, 64, 96, 128)
    """Lengths in tokens to which examples are padded, each to the least that it fits."""
    batch: Count = 64
    """Examples in a batch whenever nothing is trained."""
    batch_tokens: Natural = 0
    """Tokens in a batch, padding included, whenever nothing is trained, in place of a number of
    examples; 0: `batch` counts."""


@dataclasses.dataclass(frozen=True)
class DocumentData(Checked, section="data"):
    """Where documents come from and how they are batched."""

    path: str = ""
    """The folder with a file a split, or one file, which is the split `validation`: .txt, .tsv,
    .csv, .jsonl or .parquet."""
    files: tuple[tuple[str, str], ...] = ()
    """Pairs of a split and the name of its file in `path`; none: SPLIT.txt, SPLIT.jsonl, ..."""
    text: str = ""
    """The name of the column with the documents; empty: what is there of text, content, document
    and sentence."""
    documents: Literal["line", "paragraph", "file"] = "line"
    """What a document is in a file of text alone: a line, what stands between empty lines, or the
    whole file."""
    layout: Literal["documents", "lambada"] = "documents"
    """What is predicted: every token of a document but its first; or, as lm-evaluation-harness
    does in LAMBADA, its last word, with the space before it, given all before that."""
    packed: bool = False
    """Whether documents are packed: one after the other, with the model's end-of-text token between
    them, in full windows, as models are trained; statistics are then of windows."""
    separator: str = ""
    """The special token between packed documents, such as <|endoftext|>; empty: the first of those
    with which the model's texts end."""
    max_length: Count = 256
    """Most tokens of a window in which the model reads; longer documents are read in several."""
    stride: Natural = 0
    """Tokens of a document that each window after its first predicts, given those before them that
    it has room for; 0: as many as there is room for."""
    buckets: Counts = (16, 32, 64, 128, 256, 512, 1024)
    """Lengths in tokens to which windows are padded, each to the least that it fits."""
    batch: Count = 8
    """Windows in a batch whenever nothing is trained."""
    batch_tokens: Natural = 0
    """Tokens in a batch, padding included, whenever nothing is trained, in place of a number of
    windows; 0: `batch` counts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride and self.layout == "lambada":
            raise ValueError(
                f"data.stride is {self.stride}, but with data.layout 'lambada' each document has "
                "one window: expected 0"
            )
        if self.packed and self.layout == "lambada":
            raise ValueError(
                "data.packed is True, but with data.layout 'lambada' documents are read one by "
                "one: expected one of the two"
            )
        if self.separator and not self.packed:
            raise ValueError(
                f"data.separator is {self.separator!r}, which stands between packed documents, but "
                "data.packed is False"
            )


@dataclasses.dataclass(frozen=True)
class ChoiceData(Checked, section="data"):
    """Where items of multiple choice come from and how they are batched."""

    path: str = ""
    """The folder with a file a split, or one file, which is the split `validation`: .jsonl or
    .parquet."""
    files: tuple[tuple[str, str], ...] = ()
    """Pairs of a split and the name of its file in `path`; none: SPLIT.jsonl or SPLIT.parquet."""
    layout: Literal["own", "hellaswag", "arc", "piqa", "winogrande", "blimp"] = "own"
    """What an item looks like: of your own `context`, `choices` and `label` (counted from 0), or as
    the benchmark is distributed, with the words that lm-evaluation-harness puts around it."""
    normalize: Literal["none", "characters"] = "none"
    """What a choice's log-likelihood is divided by: nothing, or the number of its characters
    (`acc` and `acc_norm` of lm-evaluation-harness)."""
    removed: Literal["zero", "counterfactual"] = "zero"
    """What a head that is off has for a context: nothing, or what the full model's head has there
    where it reads the item's `counterfactual` in place of its `context`, of as many tokens
    (activation patching; importance is then attribution patching)."""
    choices: Natural = 0
    """The most choices of an item; 0: as many as an item has of the first split of the
    ablations."""
    prefix: str = ""
    """The special token before a choice with nothing before it, such as <|endoftext|>."""
    max_length: Count = 256
    """Most tokens of a choice with what is before it; of longer ones the first tokens are left
    out."""
    buckets: Counts = (16, 32, 64, 128, 256, 512, 1024, 2048)
    """Lengths in tokens to which items are padded, each to the least that it fits: what its choices
    share is read once, and then what each has of its own."""
    batch: Count = 8
    """Items in a batch whenever nothing is trained."""
    batch_tokens: Natural = 0
    """Tokens in a batch, padding included, whenever nothing is trained, in place of a number of
    items; 0: `batch` counts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.removed == "counterfactual" and self.layout != "own":
            raise ValueError(
                f"data.removed is {self.removed!r}, which needs items with a counterfactual, but "
                f"those of data.layout {self.layout!r} have none: expected the layout 'own'"
            )


@dataclasses.dataclass(frozen=True)
class ParallelData(Checked, section="data"):
    """Where sentence pairs come from and how they are batched."""

    source: str = "de"
    """The language code of the source."""
    target: str = "en"
    """The language code of the target."""
    path: str = ""
    """The folder with the files of the pair, or a prepared tensorflow-datasets folder (or a
    data_dir that has one)."""
    format: Literal["files", "tfds", "sacrebleu"] = "files"
    """Where the pairs are: files, tensorflow-datasets, or sacreBLEU, in which the name of a split
    is that of a test set, such as wmt14/full or mtnt2019, and `path` is not read."""
    files: tuple[tuple[str, str, str], ...] = ()
    """Triples of a split, its source file and its target file in `path`, or the same .tsv file
    twice; none: SPLIT.LANGUAGE, or else SPLIT.tsv."""
    name: str = ""
    """The name of the data in tensorflow-datasets, such as ted_hrlr_translate/pt_to_en; for other
    data any name; empty: SOURCE-TARGET."""
    max_length: Count = 128
    """Most tokens of a side of a pair, the end of the sentence included."""
    buckets: Counts = (8, 12, 16, 24, 32, 48, 64, 96, 128)
    """Lengths in tokens to which both sides of a pair are padded, each pair to the least that it
    fits."""
    batch: Count = 64
    """Pairs in a batch whenever nothing is trained."""
    batch_tokens: Natural = 0
    """Tokens a side in a batch, padding included, whenever nothing is trained, in place of a number
    of pairs; 0: `batch` counts."""
