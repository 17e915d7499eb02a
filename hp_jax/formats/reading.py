"""How a model is read from a folder, whichever library wrote it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Options:
    """What a reader is told besides where the model is."""

    dtype: str = "float32"
    """Of the computation: float32 or bfloat16."""
    kernel: str = "xla"
    """Of attention: xla or cudnn."""
    labels: tuple[str, ...] = ()
    """Those of the data, which a classifier's must be; (): any will do."""
    fresh: bool = False
    """A model without a classifier gets a new one for `labels`; otherwise it is refused."""
    seed: int = 0
    """Of the new classifier."""
