"""The columns of data of one's own, found by the names that they usually have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

log = logging.getLogger("hp_jax")

Columns = Sequence[Sequence[str]]
"""Some columns, each by the names that it may have."""
FindColumns = Callable[[Sequence[str], str], Columns]
"""From the columns that are there, and where, to those that are wanted."""

TEXT = (
    ("text",),
    ("sentence",),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)
LABEL = ("label", "labels")


def find_columns(
    text: Columns, label: Sequence[str], there: Sequence[str], where: str
) -> list[Sequence[str]]:
    """The text columns and, last, that of the label: those that are asked for, else the only ones
    among `there` with names that such columns usually have.

    ValueError names the flags, if there are none or several.
    """
    found_text, found_label = [name for names in text for name in names], list(label)
    if not text:
        known = [names for names in TEXT if set(names) <= set(there)]
        inside = [a for a in known if any(set(a) < set(b) for b in known)]
        found_text = _only([names for names in known if names not in inside], "text", there, where)
    if not label:
        found_label = _only([(name,) for name in LABEL if name in there], "label", there, where)
    if not (text and label):
        names = " and ".join(map(repr, found_text)), " or ".join(map(repr, found_label))
        log.info("%s: the text is %s, the label is %s", where, *names)
    return [*(text or [(name,) for name in found_text]), found_label]


def _only(
    found: Sequence[tuple[str, ...]], what: str, there: Sequence[str], where: str
) -> list[str]:
    if len(found) == 1:
        return list(found[0])
    either = f" ({' or '.join('+'.join(names) for names in found)}?)" if found else ""
    raise ValueError(
        f"{where}: cannot tell which column has the {what}{either}: name it with --data.{what}; "
        f"the columns are {', '.join(there)}"
    )
