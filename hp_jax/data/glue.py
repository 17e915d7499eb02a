"""The GLUE classification tasks and the user's own: their columns, labels, metric and files."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

from hp_jax.config import Data


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """Which columns and labels a task has, and the files in which it is distributed."""

    text: tuple[tuple[str, ...], ...]
    """One or two columns, each with the names that it has in TFDS (first) and in files; none: they
    are looked for."""
    label: tuple[str, ...]
    """The same for the label."""
    labels: tuple[str, ...]
    """Names in the order of TFDS and of Hugging Face's `glue`; none: those of the model."""
    metric: Literal["accuracy", "f1", "matthews", "loss"] = "accuracy"
    files: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """File names of each split, the preferred one first."""
    header: tuple[str, ...] = ()
    """Column names, if files have none."""
    unlabelled: tuple[str, ...] = ("-1",)
    """What stands for a label where there is none; such examples are dropped."""
    drop_short: bool = False
    """Rows with too few fields are dropped, as in TFDS."""
    builder: str = ""
    """The name in tensorflow-datasets."""
    numbered: tuple[str, ...] = ()
    """What numbers stand for, where files have them in place of names; none: `labels`."""


_TRAIN_DEV: Mapping[str, tuple[str, ...]] = {"train": ("train.tsv",), "validation": ("dev.tsv",)}
_ENTAILMENT = ("entailment", "not_entailment")

TASKS: Mapping[str, TaskSpec] = {
    "sst2": TaskSpec((("sentence",),), ("label",), ("negative", "positive"), files=_TRAIN_DEV),
    "cola": TaskSpec(
        (("sentence",),),
        ("label", "is_acceptable"),
        ("unacceptable", "acceptable"),
        "matthews",
        files={
            "train": ("train.tsv", "in_domain_train.tsv"),
            "validation": ("dev.tsv", "in_domain_dev.tsv"),
            "validation_out_of_domain": ("out_of_domain_dev.tsv",),
        },
        header=("source", "label", "mark", "sentence"),
    ),
    "mrpc": TaskSpec(
        (("sentence1", "#1 String"), ("sentence2", "#2 String")),
        ("label", "Quality"),
        ("not_equivalent", "equivalent"),
        "f1",
        # GLUE's train.tsv is msr_paraphrase_train.txt without dev.tsv.
        files={
            "train": ("train.tsv", "msr_paraphrase_train.txt"),
            "validation": ("dev.tsv",),
            "test": ("msr_paraphrase_test.txt",),
        },
    ),
    "mnli": TaskSpec(
        (("premise", "sentence1"), ("hypothesis", "sentence2")),
        ("label", "gold_label"),
        ("entailment", "neutral", "contradiction"),
        files={
            "train": ("train.tsv",),
            "validation_matched": ("dev_matched.tsv",),
            "validation_mismatched": ("dev_mismatched.tsv",),
        },
        unlabelled=("-", "-1"),
    ),
    "rte": TaskSpec((("sentence1",), ("sentence2",)), ("label",), _ENTAILMENT, files=_TRAIN_DEV),
    "qnli": TaskSpec((("question",), ("sentence",)), ("label",), _ENTAILMENT, files=_TRAIN_DEV),
    "qqp": TaskSpec(
        (("question1",), ("question2",)),
        ("label", "is_duplicate"),
        ("not_duplicate", "duplicate"),
        "f1",
        files=_TRAIN_DEV,
        drop_short=True,
    ),
    "wnli": TaskSpec(
        (("sentence1",), ("sentence2",)),
        ("label",),
        ("not_entailment", "entailment"),
        files=_TRAIN_DEV,
    ),
}


def spec(data: Data) -> TaskSpec:
    """What `data` says of its task, over what GLUE says of it.

    ValueError for a GLUE task in another spelling, for more than two text columns and for labels
    that are not at least two different names.
    """
    if data.task in TASKS:
        base = dataclasses.replace(TASKS[data.task], builder=f"glue/{data.task}")
    elif (meant := re.sub(r"[^a-z0-9]", "", data.task.lower())) in TASKS:
        raise ValueError(f"there is no task {data.task!r} in GLUE: expected {meant!r}")
    else:
        base = TaskSpec((), (), (), unlabelled=(), builder=data.task)
    reordered = set(data.labels) == set(base.labels)
    own = dataclasses.replace(
        base,
        text=tuple((name,) for name in data.text) or base.text,
        label=(data.label,) if data.label else base.label,
        labels=data.labels or base.labels,
        numbered=base.labels if reordered else data.labels,
        metric=data.metric or base.metric,
        unlabelled=tuple(value for value in base.unlabelled if value not in data.labels),
    )
    if len(own.text) > 2:
        raise ValueError(
            f"the task {data.task!r} needs one or two text columns, but there are "
            f"{len(own.text)}: {data.text}"
        )
    different = {label.casefold() for label in own.labels}
    if len(own.labels) == 1 or len(different) < len(own.labels):
        raise ValueError(
            f"the task {data.task!r} needs at least two labels, all different (not by case alone), "
            f"but they are {own.labels}"
        )
    return own
