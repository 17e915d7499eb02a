"""Table 5: the best single heads of a translation model, chosen on one split and measured on
another.

The first split of `ablation.splits` chooses, the second measures.

python scripts/paper/table5.py CONFIG [flags]
"""

from common import prepared, show

from hp_jax.experiment import ablation
from hp_jax.report.comparison import compare
from hp_jax.report.tables import layer_table, listing

setup = prepared("table5")
config = setup.config
chosen, tested = (compare(ablation(setup, "one_on", split)) for split in config.ablation.splits[:2])
caption = f"Chosen {chosen.where}, measured {tested.where}; {tested.stars}."
table = layer_table(tested, chosen)
show(listing(tested, "table5", table, caption))
