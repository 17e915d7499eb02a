"""Figure 6: the curves of several experiments, a panel each, from what `hp-jax prune` measured.

python scripts/paper/figure6.py runs/sst2 runs/cola runs/mrpc
"""

import sys
from pathlib import Path

from hp_jax.report.pictures.plots import curves
from hp_jax.report.pictures.style import to_png
from hp_jax.report.results import stores_below
from hp_jax.report.sections.pruning import ALL, full_metric, read_curves
from hp_jax.report.tables import curve_table
from hp_jax.storage.files import write_whole

for folder in map(Path, sys.argv[1:] or sys.exit("expected the folders of experiments")):
    found = {
        order: scopes[ALL]
        for order, scopes in read_curves(stores_below(folder)).items()
        if ALL in scopes
    }
    if not found:
        sys.exit(f"{folder} has no pruning curves: hp-jax prune makes them")
    first = next(iter(found.values()))
    lines = {order: curve_table(comparison) for order, comparison in found.items()}
    figure = curves({folder.name: lines}, full_metric(first), first.constant, first.scale)
    path = folder / "figure6.png"
    write_whole(path, to_png(figure))
    print(path)
