"""Table 6: the best single heads of a classifier, chosen on examples of training and measured on
others.

The last split of `ablation.splits` chooses, the first measures.

python scripts/paper/table6.py CONFIG [flags]
"""

from common import prepared, show

from hp_jax.experiment import ablation
from hp_jax.report.comparison import compare
from hp_jax.report.tables import best_per_row, listing

setup = prepared("table6")
config = setup.config
tested, chosen = (
    compare(ablation(setup, "one_on", split))
    for split in (config.ablation.splits[0], config.ablation.splits[-1])
)
caption = f"Chosen {chosen.where}, measured {tested.where}; {tested.stars}."
show(listing(tested, "table6", best_per_row(tested, chosen), caption))
