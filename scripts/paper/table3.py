"""Table 3: the change of the metric with the best single head of each layer of a classifier.

The heads are chosen and measured on the same split, as the paper first did: too good to be true.

python scripts/paper/table3.py CONFIG [flags]
"""

from common import prepared, show

from hp_jax.experiment import ablation
from hp_jax.report.comparison import compare
from hp_jax.report.tables import best_per_row, listing

setup = prepared("table3")
config = setup.config
comparison = compare(ablation(setup, "one_on", config.ablation.splits[0]))
caption = f"Chosen and measured {comparison.where}; {comparison.stars}."
show(listing(comparison, "table3", best_per_row(comparison), caption))
