"""How a model is read from a folder, whichever library wrote it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh

Supported = Mapping[str, tuple[Any, ...]]
"""The values of a setting that make a model that hp_jax has; the first is what it is where the file
has none."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What a reader is told besides where the model is."""

    dtype: str = "float32"
    """Of the computation: float32 or bfloat16."""
    kernel: str = "xla"
    """Of attention: xla or cudnn."""
    labels: tuple[str, ...] = ()
    """Those of the data, which a classifier's must be; (): any will do."""
    fresh: Callable[[], tuple[str, ...]] | None = None
    """A model without a classifier gets a new one for these labels; None: it is refused."""
    seed: int = 0
    """Of the new classifier."""
    mesh: Mesh | None = None
    """The devices among which parameters are split, each as it is read; None: they are whole on
    the first device."""


def check_supported(settings: Mapping[str, Any], supported: Supported, where: object) -> None:
    """ValueError names a setting that makes another function of the model."""
    for name, values in supported.items():
        value = values[0] if settings.get(name) is None else settings[name]
        if value not in values:
            raise ValueError(
                f"{where}: {name} is {value!r}, which makes another model; supported is "
                f"{' or '.join(map(repr, values))}"
            )
