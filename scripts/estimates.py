"""How often estimates hold, and how many examples they take, on a real grid.

    python scripts/estimates.py runs/mnli --split "validation_matched[:2000]" --precision 0.5 1 2

Needs the exact grid (`hp-jax ablate`) and the linear map (`hp-jax linear`) of a classifier on a
split.  Nothing is computed by a model: for many seeds of the audit's order the examples are taken
from the exact grid, round by round, until every mask is known to the precision.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from hp_jax.data.splits import folder_name
from hp_jax.estimates import ALPHA, changes
from hp_jax.experiment.estimates import CERTAIN, LEAST, ROUND
from hp_jax.linear import stored_map
from hp_jax.metrics import metric_of, scores
from hp_jax.report.scale import SCALES
from hp_jax.stats.sampling import riskiest
from hp_jax.storage.store import open_store


def main() -> None:
    """Prints a line a precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="the experiment's folder")
    parser.add_argument("--split", required=True)
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
    metric = metric_of(grid.manifest)
    exact_M = scores(metric, values)
    exact_M = exact_M - exact_M[0]
    predicted_MN = linear.values(masks_MAH)["prediction"]
    predicted_MN[0] = values["prediction"][0]
    examples, masks = len(values["label"]), len(masks_MAH) - 1
    print(f"{given.out}, {given.split}: {examples} examples, {masks} masks, {metric.name}")
    print("precision (points) | examples measured (%), median | each mask holds (%) | all hold (%)")
    risk_N = linear.risk(masks_MAH[1:])
    for precision in given.precision:
        used, each, together = [], [], []
        for seed in range(given.seeds):
            sample = riskiest(risk_N, math.ceil(CERTAIN * examples), 0, seed=seed)
            order_N = np.concatenate([sample.certain, sample.audit])
            arrays = {
                "label": values["label"],
                "predicted": predicted_MN,
                "certain": sample.certain,
                "audit": sample.audit,
                "prediction": values["prediction"][:, order_N].T,
            }
            size, count = max(LEAST, math.ceil(ROUND * examples)), 0
            open_M = np.arange(masks + 1) > 0
            measured_NM = np.zeros((examples, masks + 1), bool)
            while count < examples and open_M.any():
                measured_NM[count : count + size, open_M] = True
                count = min(examples, count + size)
                known = changes(arrays | {"measured": measured_NM}, metric)
                wide_M = (known.high - known.low) / 2 > precision / SCALES[metric.name].factor
                open_M &= wide_M
            right_M = (known.low - 1e-9 <= exact_M) & (exact_M <= known.high + 1e-9)
            bonferroni = changes(arrays | {"measured": measured_NM}, metric, alpha=ALPHA / masks)
            all_M = (bonferroni.low - 1e-9 <= exact_M) & (exact_M <= bonferroni.high + 1e-9)
            used.append(measured_NM[:, 1:].mean())
            each.append(right_M[1:].mean())
            together.append(all_M[1:].all())
        cells = (100 * np.median(used), 100 * np.mean(each), 100 * np.mean(together))
        print(f"{precision:g} | " + " | ".join(f"{cell:.1f}" for cell in cells))


if __name__ == "__main__":
    main()
