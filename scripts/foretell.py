"""How well each estimator foretells what was measured without each head.

    python scripts/foretell.py CONFIG [flags, as for `hp-jax ablate`]

Needs the grid `one_off` of the config's first split of the ablations.  Every estimator is computed
on that split, and on `importance.split`; a line each: correlations over heads, with 95 % intervals,
of its score with the measured rise of the mean loss of an example.  Scores are not divided by the
norms of rows.  The linear map's is the predicted rise of the mean loss.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hp_jax.cli.command import ConfiguredCommand
from hp_jax.cli.parsing import parse_configured
from hp_jax.config_files import load_config
from hp_jax.experiment import Setup, load
from hp_jax.experiment.grids import ablation_folder
from hp_jax.importance import Estimator, MeanGradient, SignedCurvature, head_importance
from hp_jax.linear import linear_map
from hp_jax.metrics import MeanLoss, scores
from hp_jax.report.tables import correlations
from hp_jax.storage.store import open_store

ESTIMATORS: dict[str, Estimator] = {
    "|gradient|, per token (the paper's)": MeanGradient("token", "abs"),
    "|gradient|, per example": MeanGradient("example", "abs"),
    "gradient squared, per example": MeanGradient("example", "squared"),
    "signed gradient": SignedCurvature(0.0),
    "signed gradient with curvature (1/2)": SignedCurvature(0.5),
}


def scored(setup: Setup, split: str) -> Iterator[tuple[str, np.ndarray]]:
    """Each estimator's scores `[A, H]` on a split."""
    batches, present_AH = setup.batches(split), setup.present_AH
    for name, estimator in ESTIMATORS.items():
        yield (
            name,
            head_importance(
                setup.task, setup.params, batches, present_AH, estimator=estimator, mesh=setup.mesh
            ),
        )
    found = linear_map(setup.task, setup.params, batches, present_AH, mesh=setup.mesh)
    yield "linear map", found.without(present_AH)


def main() -> None:
    """Prints a line an estimator and split."""
    words = sys.argv[1:]
    if not words or words[0].startswith("-"):
        sys.exit(f"expected a config before all flags: python {sys.argv[0]} CONFIG [flags]")
    name = Path(sys.argv[0]).stem
    config = parse_configured(ConfiguredCommand, name, words, load_config(words[0]))[1]
    setup, split = load(config), config.ablation.splits[0]
    grid = open_store(f"{config.out}/{ablation_folder(split, 'one_off')}")
    values = {array: grid.read(array) for array in grid.manifest["arrays"]}
    loss_M = scores(MeanLoss(), values)
    rise_M = loss_M[1:] - loss_M[0]
    print(f"{grid.path}: {len(rise_M)} heads, {values['loss'].shape[1]} examples or windows")
    for of in dict.fromkeys((split, config.importance.split)):
        for estimator, score_AH in scored(setup, of):
            found = correlations(score_AH[setup.present_AH], rise_M)
            cells = [
                f"{kind} {found[kind]:+.2f} ({found[f'{kind}_low']:+.2f} to "
                f"{found[f'{kind}_high']:+.2f})"
                for kind in ("spearman", "pearson")
            ]
            print(f"{of} | {estimator} | {' | '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
