"""Table 2: the change of the metric with the best single head of each row of a translation model.

The heads are chosen and measured on the same split, as the paper first did: too good to be true.

python scripts/paper/table2.py CONFIG [flags]
"""

from common import prepared, show

from hp_jax.experiment import ablation
from hp_jax.report.comparison import compare
from hp_jax.report.tables import layer_table, listing

setup = prepared("table2")
config = setup.config
comparison = compare(ablation(setup, "one_on", config.ablation.splits[0]))
caption = f"Chosen and measured {comparison.where}; {comparison.stars}."
show(listing(comparison, "table2", layer_table(comparison), caption))
