"""hp_jax: which attention heads a Transformer needs, and a smaller Transformer without the others.

`heads` has the mask algebra, `importance` the scores, `grid` the evaluation of many masks,
`pruning` the orders, `removal` smaller models, `stats` the tests; they know a model only as a
`task.Task`, which `as_task` makes of a plain function.  `experiment` puts them together for
classification and translation, `cli` is the command.  Shape letters are explained in `task`.

Importing this does nothing; a name is loaded when it is used.
"""

import importlib
from typing import Any

_MODULES = (
    "architecture",
    "attribution",
    "batches",
    "calibration",
    "config",
    "config_files",
    "descriptors",
    "estimates",
    "experiment",
    "function_task",
    "grid",
    "heads",
    "importance",
    "least_squares",
    "linear",
    "mask_files",
    "metrics",
    "progress",
    "pruning",
    "quadratic",
    "removal",
    "sharding",
    "stats",
    "task",
    "train",
)
_NAMES = {
    "all_on": "heads",
    "check_mask": "heads",
    "keep_top": "heads",
    "one_off": "heads",
    "one_on": "heads",
    "pairs": "heads",
    "random_off": "heads",
    "rows_off": "heads",
    "groups_off": "heads",
    "group_on": "heads",
    "MeanGradient": "importance",
    "gate_gradients": "importance",
    "head_importance": "importance",
    "normalize_rows": "importance",
    "SignedCurvature": "importance",
    "greedy_scores": "pruning",
    "prune": "pruning",
    "Grid": "grid",
    "evaluate_grid": "grid",
    "LinearMap": "linear",
    "linear_map": "linear",
    "Quadratic": "quadratic",
    "fisher": "quadratic",
    "gauss_newton": "quadratic",
    "pad_heads": "removal",
    "remove_heads": "removal",
    "calibrate": "calibration",
    "fold_scales": "calibration",
    "obs_scores": "least_squares",
    "repair": "least_squares",
    "mcnemar": "stats",
    "paired_bootstrap": "stats",
    "as_task": "function_task",
    "make_batches": "batches",
    "Model": "formats.model",
    "load_model": "formats.model",
    "load_config": "config_files",
    "load_experiment": "experiment",
    "open_store": "storage.store",
}
"""Public names, and where they stand."""
_OTHER_NAMES = {"load_experiment": "load"}
"""What they are called there, if that is not the same."""

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("hp_jax")
    if name in _MODULES:
        return importlib.import_module(f"hp_jax.{name}")
    if name in _NAMES:
        module = importlib.import_module(f"hp_jax.{_NAMES[name]}")
        return getattr(module, _OTHER_NAMES.get(name, name))
    raise AttributeError(f"module 'hp_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
