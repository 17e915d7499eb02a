"""What the manifests of importance, grids and rankings say beside what every store's does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from hp_jax.storage.store import Store
from hp_jax.typed import Amount, Natural, Number, decode


class _Importance(TypedDict):
    norm: Number
    per: str
    measure: str


class _Scoring(TypedDict):
    importance: _Importance


class _Common(TypedDict):
    rows: tuple[str, ...]
    heads: tuple[tuple[int, ...], ...]
    splits: dict[str, str]


class _Scored(_Common):
    experiment: _Scoring


_Passed = Annotated[int, Meta(ge=0)]


class _Passes(TypedDict):
    forward: _Passed
    backward: _Passed
    translated: _Passed


class _Ranked(_Common):
    passes: NotRequired[_Passes]
    draws: NotRequired[Natural]
    within: NotRequired[Amount]


class _Asked(TypedDict):
    splits: NotRequired[tuple[str, ...]]
    rows: NotRequired[tuple[str, ...]]


class _Judged(TypedDict):
    margin: NotRequired[Amount]
    ablation: NotRequired[_Asked]


class _Measured(_Common):
    metric: str
    experiment: NotRequired[_Judged]


class _Labelled(_Measured):
    labels: tuple[str, ...]
    positive: Natural


class _Translated(_Measured):
    tokenize: str


_NEEDED: Mapping[str, Any] = {
    "accuracy": _Labelled,
    "f1": _Labelled,
    "matthews": _Labelled,
    "bleu": _Translated,
    "chrf": _Translated,
}
"""What a report needs of a grid, by its metric."""


_KINDS: Mapping[str, Any] = {
    "estimate": _Labelled,
    "grid": _Measured,
    "importance": _Scored,
    "linear": _Common,
    "ranking": _Ranked,
}


def check_kind(store: Store) -> None:
    """ValueError if a manifest lacks what a report, or an order of heads, needs of such results."""
    manifest, where = store.manifest, f"{store.path}/manifest.json"
    kind: Any = _KINDS.get(manifest["kind"])
    if kind is None:
        return
    decode(kind, manifest, where)
    if kind is _Measured:
        decode(_NEEDED.get(manifest["metric"], _Measured), manifest, where)
    if len(manifest["heads"]) != len(manifest["rows"]):
        raise ValueError(
            f"{where}: heads: expected {len(manifest['rows'])} rows, but found "
            f"{len(manifest['heads'])}"
        )
    if manifest.get("positive", 0) >= len(manifest.get("labels", ())) > 0:
        raise ValueError(f"{where}: positive: expected one of {len(manifest['labels'])} labels")
