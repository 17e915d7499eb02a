"""Tests, intervals and corrections of stored per-example values, of many masks at once.

`bootstrap` draws the resamples that masks share; `paired` tests each mask against the base, `harm`
whether it does no harm, `many` corrects for the number of tests; `agreement` has correlations,
reliability and ranks, `curves` bands and areas, `seeds` several models.  `sequences` and `sampling`
say what is known of all examples where a grid measures some.
"""

from hp_jax.stats.agreement import (
    Correlation,
    pearson,
    rank_interval,
    score_reliability,
    spearman,
    split_half,
)
from hp_jax.stats.bootstrap import (
    Differences,
    bootstrap_interval,
    differences,
    percentile,
    resamples,
    two_sided,
)
from hp_jax.stats.curves import Area, area_between, bands, mean_along
from hp_jax.stats.harm import (
    Claim,
    equivalent,
    equivalent_right,
    least_effect,
    non_inferior,
    non_inferior_right,
)
from hp_jax.stats.many import benjamini_hochberg, holm, max_t, step_down
from hp_jax.stats.paired import (
    Bootstrap,
    approximate_randomisation,
    bootstrap_of,
    centred_bootstrap,
    half_sample_bootstrap,
    mcnemar,
    paired_bootstrap,
    paired_t,
    unpaired_t,
)
from hp_jax.stats.sampling import (
    Estimate,
    Sample,
    decided,
    estimated_labels,
    estimated_mean,
    estimated_share,
    riskiest,
)
from hp_jax.stats.seeds import over_seeds
from hp_jax.stats.sequences import bounded_mean, net_changes, normal_reach

__all__ = [
    "Area",
    "Bootstrap",
    "Claim",
    "Correlation",
    "Differences",
    "Estimate",
    "Sample",
    "approximate_randomisation",
    "area_between",
    "bands",
    "benjamini_hochberg",
    "bootstrap_interval",
    "bootstrap_of",
    "bounded_mean",
    "centred_bootstrap",
    "decided",
    "differences",
    "equivalent",
    "equivalent_right",
    "estimated_labels",
    "estimated_mean",
    "estimated_share",
    "half_sample_bootstrap",
    "holm",
    "least_effect",
    "max_t",
    "mcnemar",
    "mean_along",
    "net_changes",
    "non_inferior",
    "non_inferior_right",
    "normal_reach",
    "over_seeds",
    "paired_bootstrap",
    "paired_t",
    "pearson",
    "percentile",
    "rank_interval",
    "resamples",
    "riskiest",
    "score_reliability",
    "spearman",
    "split_half",
    "step_down",
    "two_sided",
    "unpaired_t",
]
