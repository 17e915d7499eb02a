"""Figure 2: what removing each head does on one split against what it does on another.

python scripts/paper/figure2.py CONFIG [flags]
"""

from common import prepared, save

from hp_jax.experiment import ablation
from hp_jax.report.comparison import compare
from hp_jax.report.pictures.plots import scatter
from hp_jax.stats import pearson, spearman

setup = prepared("figure2")
config = setup.config
one, other = (compare(ablation(setup, "one_off", split)) for split in config.ablation.splits[:2])
names = [f"{of.drop_word} of {of.scale.name} {of.where}" for of in (one, other)]
x, y = one.drop_M[1:], other.drop_M[1:]
for name, found in (("Pearson r", pearson(x, y)), ("Spearman rho", spearman(x, y))):
    print(
        f"{name} {found.r:.3f}, 95 % interval {found.low:.3f} to {found.high:.3f}, {len(x)} heads"
    )
save(scatter(x, {names[1]: y}, [f"Pearson r = {pearson(x, y).r:.2f}"], one.names, names[0]), config)
