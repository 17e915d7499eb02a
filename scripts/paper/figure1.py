"""Figure 1: how the metric is spread over the models that lack one head.

python scripts/paper/figure1.py CONFIG [flags]
"""

from common import prepared, save

from hp_jax.experiment import ablation
from hp_jax.report.comparison import compare
from hp_jax.report.pictures.plots import histogram

setup = prepared("figure1")
config = setup.config
comparison = compare(ablation(setup, "one_off", config.ablation.splits[0]))
full, *metrics = comparison.metric_M
step = 1 / comparison.examples if setup.metric.name == "accuracy" else 0.0
save(histogram(comparison.metric_M[1:], full, comparison.scale.name, step), config)
