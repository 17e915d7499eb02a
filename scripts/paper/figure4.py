"""Figure 4: the metric as heads of one type of attention alone are removed.

python scripts/paper/figure4.py CONFIG [flags]
"""

from common import prepared, save

from hp_jax.experiment import Curve
from hp_jax.report.comparison import compare
from hp_jax.report.pictures.plots import curves
from hp_jax.report.row_types import by_type
from hp_jax.report.tables import curve_table

setup = prepared("figure4")
config = setup.config
panels = {}
for order in config.pruning.orders:
    measured = {rows: compare(Curve(setup, order, rows).follow()) for rows in by_type(setup.rows)}
    panels[order] = {rows: curve_table(comparison) for rows, comparison in measured.items()}
first = next(iter(measured.values()))
save(curves(panels, float(first.metric_M[0]), first.constant, first.scale), config)
