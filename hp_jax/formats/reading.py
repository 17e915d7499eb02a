"""How a model is read from a folder, whichever library wrote it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

Supported = Mapping[str, tuple[Any, ...]]
"""The values of a setting that make a model that hp_jax has; the first is what it is where the file
has none."""


class UntrainedError(ValueError):
    """A model that is pretrained, but not trained for anything that can be measured."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What a reader is told besides where the model is."""

    dtype: str = "float32"
    """Of the computation: float32 or bfloat16."""
    kernel: str = "xla"
    """Of attention: xla or cudnn."""
    labels: tuple[str, ...] = ()
    """Those of the data, which a classifier's must be; (): any will do."""
    fresh: tuple[str, ...] = ()
    """The labels of a new classifier, for a model that has none; (): such a model is refused."""
    seed: int = 0
    """Of the new classifier."""


def check_supported(settings: Mapping[str, Any], supported: Supported, where: object) -> None:
    """ValueError names a setting that makes another function of the model."""
    for name, values in supported.items():
        value = values[0] if settings.get(name) is None else settings[name]
        if value not in values:
            raise ValueError(
                f"{where}: {name} is {value!r}, which makes another model; supported is "
                f"{' or '.join(map(repr, values))}"
            )
