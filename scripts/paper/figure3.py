"""Figure 3: the metric as heads are removed, in the order of importance and in the oracle order.

python scripts/paper/figure3.py CONFIG [flags]
"""

from common import prepared, save

from hp_jax.experiment import Curve
from hp_jax.report.comparison import compare
from hp_jax.report.pictures.plots import curves
from hp_jax.report.tables import curve_table

setup = prepared("figure3")
config = setup.config
measured = {order: compare(Curve(setup, order).follow()) for order in config.pruning.orders}
first = next(iter(measured.values()))
lines = {order: curve_table(comparison) for order, comparison in measured.items()}
save(
    curves({"": lines}, float(first.metric_M[0]), first.constant, first.scale, len(first.heads)),
    config,
)
