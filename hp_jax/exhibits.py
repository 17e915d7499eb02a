"""The names of the paper's tables and figures, which commands, scripts and reports use."""

from __future__ import annotations

from typing import Literal

Exhibit = Literal[
    "figure1",
    "table1",
    "table2",
    "table3",
    "figure2",
    "figure3",
    "table4",
    "figure4",
    "figure5",
    "table5",
    "table6",
    "figure6",
]
"""In the paper's order."""
