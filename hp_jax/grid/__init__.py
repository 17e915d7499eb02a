"""Many masks on one data set: what each example gives under each mask, with as little work as
possible."""

from hp_jax.grid.evaluate import evaluate_grid, fill_grid

__all__ = ["evaluate_grid", "fill_grid"]
