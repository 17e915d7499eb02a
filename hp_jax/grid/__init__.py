"""Many masks on one data set: what each example gives under each mask.

`plan` finds what masks have in common, `evaluate` computes one chunk of masks a device on one
batch, `chunks` asks the compiler how many masks fit together, and `whole` goes through a whole
grid, in memory or into a store.
"""

from hp_jax.grid.whole import Grid, evaluate_grid

__all__ = ["Grid", "evaluate_grid"]
