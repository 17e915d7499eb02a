"""Figure 5: the curve of the model after each epoch of a training, all of which were kept.

python scripts/paper/figure5.py CONFIG [flags]
"""

from common import prepared, save

from hp_jax.experiment import Curve
from hp_jax.experiment.training import as_saved, kept_epochs
from hp_jax.report.comparison import compare
from hp_jax.report.pictures.epochs import epochs
from hp_jax.report.tables import curve_table

setup = prepared("figure5")
config = setup.config
measured = {}
for epoch, folder in kept_epochs(config).items():
    if epoch in (config.paper.epochs or [epoch]):
        model = as_saved(setup, folder).having(out=str(folder))  # its results are beside it
        measured[epoch] = compare(Curve(model, "one_shot").follow())
first = next(iter(measured.values()))
save(
    epochs({epoch: curve_table(one) for epoch, one in measured.items()}, first.scale),
    config,
)
