"""The paper's tables and figures about a model of one's own: what each needs, measured.

The paper is Michel, Levy and Neubig (2019), "Are Sixteen Heads Really Better than One?".  What is
measured is kept in the experiment's folder as the single steps keep it, and shared: a grid that two
figures need is there once.  `hp_jax.report` shows all of it, in the paper's order.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from hp_jax.config import Experiment, MaskSet
from hp_jax.exhibits import Exhibit
from hp_jax.experiment import Setup, ablate, importance, prune_orders, train_if_needed
from hp_jax.experiment.seeds import check_seeds, prune_seeds
from hp_jax.experiment.setup import check_removes, model_of
from hp_jax.experiment.training import as_saved, kept_epochs
from hp_jax.shrink import speed
from hp_jax.shrink.remove import Budget, remove
from hp_jax.storage.checkpoint import is_model
from hp_jax.storage.files import local_folder, new_folder

log = logging.getLogger("hp_jax")


class Needs(NamedTuple):
    """What is measured for a table or figure of the paper's."""

    measure: Callable[[Setup], None]
    """Measures it, as far as it is not there."""
    lacks: Callable[[Setup], str] = lambda setup: ""
    """What an experiment lacks for it, and what to do; empty if nothing."""


def reproduce(experiment: Experiment, only: Sequence[Exhibit] = ()) -> None:
    """Trains the model unless it is trained, and measures what the paper's tables and figures need,
    or those of `only`, into the experiment's folder; and the same of other seeds.

    What an experiment lacks is said and left out, but is a ValueError for those of `only`, before
    anything but the training is done; so is a split that is not there.
    """
    check_removes(experiment)
    setup = train_if_needed(experiment)
    config = setup.config
    check_seeds(config)
    if config.ablation.precision or config.ablation.decide:
        raise ValueError(
            "ablation.precision and ablation.decide are for hp-jax ablate: the paper's tables and "
            "figures need every example measured, so leave them out"
        )
    for split in (*config.ablation.splits, config.pruning.select, config.pruning.test):
        setup.text(split)
    missing = {name: NEEDS[name].lacks(setup) for name in only or NEEDS}
    for name, words in missing.items():
        if words and only:
            raise ValueError(f"{name} cannot be made: {words}")
        if words:
            log.info("%s is left out: %s", name, words)
    for name, words in missing.items():
        if not words:
            log.info("--- %s", name)
            NEEDS[name].measure(setup)
    if not only:
        prune_seeds(setup)


# --- what each needs -----------------------------------------------------------------------------


def _grids(name: MaskSet, *, several: bool = False) -> Needs:
    """A set of masks on the first split of `config.ablation`, or on all of `several`."""

    def measure(setup: Setup) -> None:
        settings = setup.config.ablation
        splits = settings.splits if several else settings.splits[:1]
        ablate(setup.having(ablation=dataclasses.replace(settings, splits=splits, sets=(name,))))

    def lacks(setup: Setup) -> str:
        found = setup.config.ablation.splits
        if several and len(found) < 2:
            return f"it compares two splits, but ablation.splits has only {', '.join(found)}"
        return ""

    return Needs(measure, lacks)


def _orders(setup: Setup) -> None:
    """All orders, from all heads."""
    prune_orders(setup.having(pruning=dataclasses.replace(setup.config.pruning, rows=("all",))))


def _types(setup: Setup) -> None:
    """All orders, from the heads of one type at a time."""
    settings = setup.config.pruning
    prune_orders(setup.having(pruning=dataclasses.replace(settings, rows=_types_of(setup), per=())))


def _types_of(setup: Setup) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.partition(".")[0] for row in setup.rows))


def _lacks_types(setup: Setup) -> str:
    found = _types_of(setup)
    if len(found) > 1:
        return ""
    return f"it compares types of attention, but the model has only {', '.join(found)}"


def _epochs(setup: Setup) -> None:
    """The curve of importance of the model of each epoch, in the folder of that model."""
    settings = setup.config.pruning
    plain = dataclasses.replace(
        settings,
        orders=("one_shot",),
        rows=("all",),
        per=(),
        calibrate=0,
        repair=0,
        rescale=0,
        retrain_steps=0,
    )
    for epoch, folder in _chosen_epochs(setup).items():
        log.info("epoch %d", epoch)
        prune_orders(as_saved(setup, folder).having(out=str(folder), pruning=plain))


def _chosen_epochs(setup: Setup) -> dict[int, Path]:
    kept, wanted = kept_epochs(setup.config), setup.config.paper.epochs
    return {epoch: kept[epoch] for epoch in wanted or kept if epoch in kept}


def _lacks_epochs(setup: Setup) -> str:
    kept, wanted = kept_epochs(setup.config), setup.config.paper.epochs
    if not kept:
        return (
            f"there are no models of epochs in {setup.config.out}/epochs: train with "
            "--train.keep-epochs"
        )
    gone = [str(epoch) for epoch in wanted if epoch not in kept]
    if gone:
        return (
            f"paper.epochs names {', '.join(gone)}, but {setup.config.out}/epochs has "
            f"{', '.join(map(str, kept))}"
        )
    return ""


SHARE, LENGTH = 0.5, 128
"""Of the heads, removed from the model that Table 4 times; and the tokens of an example there, or
as many as the model has positions for."""


def _speed(setup: Setup) -> None:
    """The model beside itself without the least important half of its heads, in out/speed."""
    out, config = local_folder(setup.config.out), setup.config
    half, folder = out / "half", out / "speed"
    importance(setup)
    if not is_model(half):
        order = Budget(str(out / "importance"), "heads", 1 - SHARE)
        remove(model_of(config), half, budget=order, force=True)
    if not (folder / "speed.json").is_file():
        room = setup.model.config.room
        setting = speed.Setting(
            model=model_of(config),
            removed=str(half),
            batch=config.paper.batch,
            length=(LENGTH if room is None else min(LENGTH, room),),
            beam=(1,),
            dtype=config.dtype,
        )
        with new_folder(folder, force=True) as new:  # all of it, or nothing
            speed.speed(setting, new)


def _lacks_speed(setup: Setup) -> str:
    count, heads = jax.process_count(), int(setup.present_AH.sum())
    if count > 1:
        return f"one process times it, but there are {count}: use hp-jax speed"
    return "the model has one head, of which no half can go" if heads < 2 else ""


NEEDS: Mapping[Exhibit, Needs] = {
    "figure1": _grids("one_off"),
    "table1": _grids("one_off"),
    "table2": _grids("one_on"),
    "table3": _grids("one_on"),
    "figure2": _grids("one_off", several=True),
    "figure3": Needs(_orders),
    "table4": Needs(_speed, _lacks_speed),
    "figure4": Needs(_types, _lacks_types),
    "figure5": Needs(_epochs, _lacks_epochs),
    "table5": _grids("one_on", several=True),
    "table6": _grids("one_on", several=True),
    "figure6": Needs(_orders),
}
"""All tables and figures.  What the paper shows twice, of translation and of classification, is one
thing here: Tables 2 and 3, Tables 5 and 6, Figures 3 and 6."""
