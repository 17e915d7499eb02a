"""How often estimates hold, and how many examples they take, on a real grid.

    python scripts/estimates.py runs/mnli --split "validation_matched[:2000]" --precision 0.5 1 2

Needs the exact grid (`hp-jax ablate`) and the linear map (`hp-jax linear`) of a classifier on a
split.  Nothing is computed by a model: for many seeds of the audit's order the examples are taken
from the exact grid, round by round, until every mask is known to the precision.
"""

from __future__ import annotations

import argparse

import numpy as np

from hp_jax.data.splits import folder_name
from hp_jax.estimates import ALPHA, Changes, changes, ordered, undecided
from hp_jax.linear import stored_map
from hp_jax.metrics import metric_of, scores
from hp_jax.report.scale import SCALES
from hp_jax.storage.store import open_store


def main() -> None:
    """Prints a line a precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="the experiment's folder")
    parser.add_argument("--split", required=True)
    parser.add_argument("--metric", default="", help="another than the grid's, such as accuracy")
    parser.add_argument("--set", default="one_off")
    parser.add_argument("--precision", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--seeds", type=int, default=100)
    given = parser.parse_args()
    place = folder_name(given.split)
    grid = open_store(f"{given.out}/ablation/{place}/{given.set}")
    kept = open_store(f"{given.out}/linear/{place}")
    values = {name: grid.read(name) for name in ("label", "prediction", "masks")}
    masks_MAH = values["masks"] != 0
    linear = stored_map({n: kept.read(n) for n in kept.manifest["arrays"]}, masks_MAH[0])
    metric = metric_of(grid.manifest | ({"metric": given.metric} if given.metric else {}))
    exact_M = scores(metric, values)
    exact_M = exact_M - exact_M[0]
    predicted_MN = linear.values(masks_MAH)["prediction"]
    predicted_MN[0] = values["prediction"][0]
    examples, masks = len(values["label"]), len(masks_MAH) - 1
    print(f"{given.out}, {given.split}: {examples} examples, {masks} masks, {metric.name}")
    print("precision (points) | examples measured (%), median | each mask holds (%) | all hold (%)")
    for precision in given.precision:
        used, each, together = [], [], []
        for seed in range(given.seeds):
            sample, size = ordered(linear, masks_MAH[1:], seed=seed)
            order_N = np.concatenate([sample.certain, sample.audit])
            arrays = {
                "label": values["label"],
                "predicted": predicted_MN,
                "certain": sample.certain,
                "audit": sample.audit,
                "prediction": values["prediction"][:, order_N].T,
                "measured": np.zeros((examples, masks + 1), bool),
            }
            for start in range(0, examples, size):
                own = precision / SCALES[metric.name].factor
                open_M = undecided(arrays, metric, precision=own, decide=0.0)
                arrays["measured"][start : start + size, open_M] = True
            used.append(arrays["measured"][:, 1:].mean())
            each.append(_holds(changes(arrays, metric), exact_M).mean())
            together.append(_holds(changes(arrays, metric, alpha=ALPHA / masks), exact_M).all())
        cells = (100 * np.median(used), 100 * np.mean(each), 100 * np.mean(together))
        print(f"{precision:g} | " + " | ".join(f"{cell:.1f}" for cell in cells))


def _holds(known: Changes, exact_M: np.ndarray) -> np.ndarray:
    """Of each mask that lacks a head."""
    return ((known.low - 1e-9 <= exact_M) & (exact_M <= known.high + 1e-9))[1:]


if __name__ == "__main__":
    main()
