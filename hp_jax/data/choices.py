"""Items of multiple choice: the user's own, and the layouts in which benchmarks are distributed."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hp_jax.config_data import ChoiceData
from hp_jax.data.parquet import read_records
from hp_jax.data.split_files import split_files
from hp_jax.data.splits import FromSplit, read_split
from hp_jax.data.tables import read_objects

Choices = tuple[tuple[str, str], ...]
"""Of each choice what is before it, and what is chosen, with the space between them."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Items(FromSplit):
    """N items."""

    choices: tuple[Choices, ...]
    counterfactuals: tuple[Choices, ...] | None = None
    """The same choices, each after the item's counterfactual; None: nothing asks for them."""
    label_N: np.ndarray
    """The place of the right choice; int32."""

    def __len__(self) -> int:
        return len(self.choices)


def read(data: ChoiceData, split: str) -> Items:
    """The items of a split such as `validation` or `validation[:500]`; see `splits.take`.

    FileNotFoundError or ValueError, with file and line, for whatever cannot be read.
    """
    return read_split(split, functools.partial(read_whole, data))


def read_whole(data: ChoiceData, name: str) -> Items:
    """The items of a whole split; see `read`."""
    files = split_files(data.path, data.files, name, ("jsonl", "parquet"), "items")
    path = files[0]
    records = read_records(files) if path.suffix == ".parquet" else read_objects(path)
    made, others, lines = [], [], []
    for line, record in records:
        where = f"{path}:{line}"
        try:
            choices, label = LAYOUTS[data.layout](record)
            if data.removed == "counterfactual":
                others.append(_own(record | {"context": _text(record, "counterfactual")})[0])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            found = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{where}: expected an item as {data.layout} has them, but found "
                f"{json.dumps(record, default=str):.80} ({found})"
            ) from error
        if len(choices) < 2 or not 0 <= label < len(choices):
            raise ValueError(
                f"{where}: expected at least two choices, and one of them as the label, but found "
                f"{len(choices)} and the label {label}"
            )
        if empty := [n for n, (_, choice) in enumerate(choices) if not choice.strip()]:
            raise ValueError(f"{where}: choice {empty[0]} is empty")
        made.append((choices, label))
        lines.append(line)
    if not made:
        raise ValueError(f"{path}: expected items, but there are none")
    return Items(
        choices=tuple(choices for choices, _ in made),
        counterfactuals=tuple(others) if data.removed == "counterfactual" else None,
        label_N=np.array([label for _, label in made], np.int32),
        files={name: str(path)},
        line_N=np.array(lines, np.int64),
        origin_N=np.arange(len(made)),
    )


# --- layouts -------------------------------------------------------------------------------------


def _own(record: Mapping[str, Any]) -> tuple[Choices, int]:
    """`context` (may be missing or null), `choices`, and `label`, counted from 0."""
    label = record["label"]
    if isinstance(label, bool) or not isinstance(label, int):
        raise ValueError(f"label is {label!r}, but a number from 0 was expected")
    context = "" if record.get("context") is None else _text(record, "context")
    return _after(context, record["choices"]), label


def _hellaswag(record: Mapping[str, Any]) -> tuple[Choices, int]:
    def clean(text: str) -> str:
        text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
        return text.replace("  ", " ")

    context = f"{_text(record, 'ctx_a')} {_text(record, 'ctx_b').capitalize()}"
    context = clean(f"{_text(record, 'activity_label')}: {context}")
    return _after(context, [clean(ending) for ending in record["endings"]]), int(record["label"])


def _arc(record: Mapping[str, Any]) -> tuple[Choices, int]:
    found = record.get("choices")
    if isinstance(record["question"], dict):  # the authors' own files
        record = {**record["question"], "answerKey": record["answerKey"]}
        found = {key: [one[key] for one in record["choices"]] for key in ("text", "label")}
    asked = _text(record, "stem" if "stem" in record else "question")
    if found is None:
        raise KeyError("choices")
    choices = _after(f"Question: {asked}\nAnswer:", found["text"])
    return choices, list(found["label"]).index(record["answerKey"])


def _piqa(record: Mapping[str, Any]) -> tuple[Choices, int]:
    context = f"Question: {_text(record, 'goal')}\nAnswer:"
    return _after(context, [record["sol1"], record["sol2"]]), int(record["label"])


def _winogrande(record: Mapping[str, Any]) -> tuple[Choices, int]:
    """What is after the blank is scored, after either option (partial evaluation)."""
    before, blank, after = _text(record, "sentence").partition("_")
    if not blank:
        raise ValueError("the sentence has no blank _")
    choices = tuple((before + record[name], f" {after.strip()}") for name in ("option1", "option2"))
    return choices, int(record["answer"]) - 1


def _blimp(record: Mapping[str, Any]) -> tuple[Choices, int]:
    return (("", _text(record, "sentence_good")), ("", _text(record, "sentence_bad"))), 0


def _text(record: Mapping[str, Any], name: str) -> str:
    if not isinstance(record[name], str):
        raise TypeError(f"{name} is {record[name]!r:.60}, but a text was expected")
    return str(record[name])


def _after(context: str, choices: list[str]) -> Choices:
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise TypeError(f"choices are {choices!r:.60}, but a list of texts was expected")
    space = " " if context and not context[-1].isspace() else ""
    return tuple((context, space + choice) for choice in choices)


LAYOUTS: Mapping[str, Callable[[Mapping[str, Any]], tuple[Choices, int]]] = {
    "own": _own,
    "hellaswag": _hellaswag,
    "arc": _arc,
    "piqa": _piqa,
    "winogrande": _winogrande,
    "blimp": _blimp,
}
"""From an object of a file to choices and the place of the right one, with the words that
lm-evaluation-harness puts around them."""
