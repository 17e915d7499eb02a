"""The names of the orders in which heads are removed, which settings, commands and reports use."""

from __future__ import annotations

from typing import Literal

Order = Literal[
    "one_shot",
    "re_estimated",
    "oracle",
    "linear",
    "fisher",
    "gauss_newton",
    "verified",
    "shapley",
]
"""As they are shown."""
OF_IMPORTANCE: tuple[Order, ...] = ("one_shot", "re_estimated")
"""The paper's orders by importance, with which others are compared."""
