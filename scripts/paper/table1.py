"""Table 1: the change of the metric without each head, removed alone.

python scripts/paper/table1.py CONFIG [flags]
"""

from common import prepared, show

from hp_jax.experiment import ablation
from hp_jax.report.comparison import compare
from hp_jax.report.tables import grid_table, listing

setup = prepared("table1")
config = setup.config
grid = ablation(setup, "one_off", config.ablation.splits[0])  # every mask on every example
comparison = compare(grid)  # each mask with the full model, on the same examples
caption = f"Change of {comparison.scale.name} {comparison.where}; {comparison.stars}."
show(listing(comparison, "table1", grid_table(comparison), caption))
