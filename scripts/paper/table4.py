"""Table 4: how many more examples a second the model takes without half of its heads.

The least important heads are really removed; both models are timed in turns.

python scripts/paper/table4.py CONFIG [flags]
"""

import json
from pathlib import Path

from common import prepared

from hp_jax.paper import NEEDS
from hp_jax.report.sections.speed import tables

setup = prepared("table4")
NEEDS["table4"].measure(setup)
found = json.loads((Path(setup.config.out) / "speed" / "speed.json").read_text())
print("\n".join(tables(found["rows"], found["device"])))
