"""The commands that take a config: the steps of an experiment, and translation."""

from __future__ import annotations

import dataclasses
import logging
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from hp_jax.cli.command import Answer, ConfiguredCommand, Flag, say, standard_input
from hp_jax.exhibits import Exhibit
from hp_jax.orders import Order

if TYPE_CHECKING:
    from hp_jax.config import Experiment, TranslationExperiment
    from hp_jax.experiment import Setup

log = logging.getLogger("hp_jax")

StepName = Literal["train", "importance", "ablate", "prune"]
STEPS: tuple[StepName, ...] = get_args(StepName)
"""The steps of an experiment, in their order."""


def take_steps(
    experiment: Experiment, names: Sequence[StepName], *, if_needed: bool = False
) -> None:
    """Takes some steps of an experiment, one after the other; the model and each split are read
    once.

    if_needed: a model that is trained already is not trained.
    """
    from hp_jax.experiment import (
        ablate,
        check_removes,
        importance,
        load,
        prune_orders,
        train_if_needed,
        train_model,
    )

    take: dict[str, Callable[[Setup], Any]] = {
        "importance": importance,
        "ablate": ablate,
        "prune": prune_orders,
    }
    if "prune" in names:
        check_removes(experiment)
    setup = None
    for name in names:
        if len(names) > 1:
            log.info("--- %s", name)
        if name == "train":
            setup = (train_if_needed if if_needed else train_model)(experiment)
        else:
            setup = setup or load(experiment)
            take[name](setup)


FOLDERS: dict[StepName, tuple[str, ...]] = {
    "train": (),
    "importance": ("importance", "importance_gradients"),
    "ablate": ("ablation", "estimates"),
    "prune": ("pruning",),
}
"""The folders, below an experiment's `out`, that have the stores of each step."""


def results_of(out: str, names: Sequence[StepName]) -> dict[str, Any]:
    """Where the results of some steps are: the model's folder if one of them is training, and the
    folders of all stores."""
    from hp_jax.storage.store import find_folders

    folders = [f"{out.rstrip('/')}/{folder}" for name in names for folder in FOLDERS[name]]
    model = {"model": f"{out.rstrip('/')}/model"} if "train" in names else {}
    stores = [path for folder in folders for path in find_folders(folder)]
    return {"out": out, **model, "stores": stores}


def found_by(out: str, name: StepName) -> list[str]:
    """What a step found, in a line or two."""
    from hp_jax.report import summary
    from hp_jax.storage.store import find_stores

    out = out.rstrip("/")
    if name == "train":
        return summary.training(out)
    if name == "importance":
        return summary.importance(out)
    stores = [store for store in find_stores(f"{out}/{FOLDERS[name][0]}") if store.done().all()]
    if name == "ablate":
        lines = [line for store in stores for line in summary.ablation(store.path)]
        estimates = [s for s in find_stores(f"{out}/estimates") if s.done().any()]
        return lines + [summary.estimate(store) for store in estimates]
    return summary.curves({store.path.removeprefix(f"{out}/"): store for store in stores})


def next_command(config: str, experiment: Experiment, name: StepName) -> str:
    """What one would type after a step: the next one, or the report."""
    heads = "ablate" if experiment.patched else "prune"
    after = {"train": "importance", "importance": heads}.get(name)
    if after:
        return f"{shlex.join(['hp-jax', after, config])}, with the same flags"
    return shlex.join(["hp-jax", "report", experiment.out])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step(ConfiguredCommand, Answer):
    """A step of an experiment, on which many processes can work together."""

    names: ClassVar[tuple[StepName, ...]] = ()
    """The steps that it takes."""

    multihost: Flag = False
    """This is one of many processes, each of which was started with this command."""

    def run(self, experiment: Experiment) -> None:
        """Takes the steps; the first process says what was found, and where the results are."""
        names = self.chosen or self.names
        take_steps(experiment, names, if_needed=not self.chosen)
        if self.multihost and not is_first():
            return
        self.conclude(experiment, names)

    @property
    def chosen(self) -> Sequence[StepName]:
        """The steps that were asked for by name."""
        return self.names

    def conclude(self, experiment: Experiment, names: Sequence[StepName]) -> None:
        """Says what was found, where the results are, and what one would type next."""
        if self.json:
            self.answer(results_of(experiment.out, names), "")
            return
        lines = found_by(experiment.out, names[-1])
        say("\n".join([*lines, f"next: {next_command(self.config, experiment, names[-1])}"]))


def is_first() -> bool:
    """Whether this is the first of all processes."""
    import jax

    return jax.process_index() == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Step):
    """Fine-tune a pretrained model, or train a new translation model."""

    names: ClassVar = ("train",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importance(Step):
    """Score every head by the gradient of the loss in its gate."""

    names: ClassVar = ("importance",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablate(Step):
    """Measure the model under every mask of a grid: without each head, with random subsets, with
    masks of your own."""

    names: ClassVar = ("ablate",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prune(Step):
    """Remove the least important heads step by step, and measure the curve."""

    names: ClassVar = ("prune",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Step):
    """Take all steps (train, unless the model is trained; importance, ablate, prune), and write
    the report."""

    names: ClassVar = STEPS

    steps: tuple[StepName, ...] = ()
    """The only steps that are taken, in this order; empty: all four, but a model that is trained
    already is not trained."""

    @property
    def chosen(self) -> Sequence[StepName]:
        """Those of `steps`."""
        return self.steps

    def conclude(self, experiment: Experiment, names: Sequence[StepName]) -> None:
        """Writes the report, says what was found and where it is."""
        page = write_report(experiment.out)
        if self.json:
            self.answer(results_of(experiment.out, names) | {"report": page}, page)
            return
        say("\n".join(line for name in names for line in found_by(experiment.out, name)))
        say(page)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Step):
    """Predict what any heads' removal does from one pass: the derivatives of every example's output
    in all gates; the report has the predictions beside what grids measured."""

    def run(self, experiment: Experiment) -> None:
        """Maps each split of the ablations, and writes the report."""
        from hp_jax.experiment import load, map_splits

        map_splits(load(experiment))
        if self.multihost and not is_first():
            return
        page = write_report(experiment.out)
        self.answer({"out": experiment.out, "report": page}, page)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(Step):
    """Make the paper's tables and figures of a model: train it unless it is trained, measure what
    each needs, and write one report in the paper's order."""

    names: ClassVar = STEPS

    only: tuple[Exhibit, ...] = ()
    """The only tables and figures that are measured; empty: all for which the experiment has what
    they need."""

    def run(self, experiment: Experiment) -> None:
        """Measures them, writes the report, says what was found and where it is."""
        from hp_jax import paper

        paper.reproduce(experiment, self.only)
        if self.multihost and not is_first():
            return
        page = write_report(experiment.out)
        self.answer({"out": experiment.out, "report": page}, page)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare(Step):
    """Compare orders of pruning: train the model unless it is trained, prune it in each order,
    measured on held-out data, and write the report, which has them beside the paper's orders, with
    what each costs and how reliable it is."""

    orders: tuple[Order, ...] = ()
    """The orders that are compared with one-shot and re-estimated importance; empty: all that the
    task can have."""

    def run(self, experiment: Experiment) -> None:
        """Prunes in all orders, writes the report, says how they compare and where it is."""
        from hp_jax.experiment import compare_orders

        compare_orders(experiment, self.orders)
        if self.multihost and not is_first():
            return
        page = write_report(experiment.out)
        lines = [] if self.json else found_by(experiment.out, "prune")
        self.answer({"out": experiment.out, "report": page}, "\n".join([*lines, page]))


def write_report(out: str) -> str:
    """Writes the page of an experiment's results; its path."""
    from hp_jax.report.page import write_report
    from hp_jax.storage.files import local_folder

    return str(write_report(local_folder(out)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(ConfiguredCommand, Answer):
    """Measure a model on a split, with any heads off: metric and loss with their intervals, and a
    classifier's calibration."""

    split: str = ""
    """The split; empty: the first of the config's ablations."""
    without: str = ""
    """The heads that are off, as reports name them, such as 'enc.0.1-3,7 cross.1.2'; empty:
    none."""

    def run(self, experiment: Experiment) -> None:
        """Prints what was measured."""
        from hp_jax import heads
        from hp_jax.descriptors import parse_descriptor
        from hp_jax.experiment import evaluation, load

        setup = load(experiment)
        off = parse_descriptor(self.without, setup.rows)
        mask_AH = heads.remove(setup.present_AH, off, setup.rows)
        split = self.split or experiment.ablation.splits[0]
        found = evaluation.evaluate(setup, split, mask_AH)
        self.answer(found, "\n".join(_as_lines(found)))


def _as_lines(found: dict[str, Any]) -> list[str]:
    """A line a number, with its interval."""
    lines = [
        f"{found['split']}: {found['examples']} {found['example']}s, "
        f"{found['heads off']} of {found['heads']} heads off"
    ]
    for name, value in found.items():
        if isinstance(value, dict):
            low, high = f"{value['low']:.4g}", f"{value['high']:.4g}"
            lines.append(f"{name} {value['value']:.4g} (95 % interval {low} to {high})")
        elif name == "calibration error":
            lines.append(f"{name} {value:.4g} (expected, 10 bins)")
    return lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translate(ConfiguredCommand):
    """Translate the lines of standard input, with any heads removed."""

    without: str = ""
    """The heads to remove, as reports name them, counted from 0, such as 'enc.0.1-3,7 cross.1.2';
    or in the authors' notation, counted from 1, such as 'E:1:3 A:2:1,4'; empty: none."""
    nbest: int = 0
    """Translations that are printed of each line, with their scores; 0: the best one alone."""

    def run(self, experiment: Experiment) -> None:
        """Prints a line for each line, or `nbest` lines."""
        from hp_jax import heads
        from hp_jax.descriptors import parse_descriptor
        from hp_jax.experiment import load, translation

        config = about_translation(experiment, self.config)
        if not 0 <= self.nbest <= config.decoding.beam:
            raise ValueError(
                f"--nbest is {self.nbest}, but the beam has {config.decoding.beam} hypotheses: "
                "give a number from 0 to that, or a larger --decoding.beam"
            )
        setup = load(config)
        off = parse_descriptor(self.without, setup.rows)
        mask_AH = heads.remove(setup.present_AH, off, setup.rows)
        lines = standard_input().removesuffix("\n").split("\n")
        found = translation.translate(setup, lines, mask_AH)
        for line in translation.as_lines(found, self.nbest):
            say(line)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary(ConfiguredCommand):
    """Make the SentencePiece vocabulary of a new translation model."""

    def run(self, experiment: Experiment) -> None:
        """Trains it, unless it is there, and says how large it is."""
        from hp_jax.experiment import setup

        codec = setup.vocabulary(about_translation(experiment, self.config))
        folder = Path(experiment.out) / "vocabulary"
        say(f"{folder}: {codec.source_vocab} pieces")


def about_translation(experiment: Experiment, name: str) -> TranslationExperiment:
    """The experiment, if it is about translation; ValueError if the config `name` is not."""
    from hp_jax.config import TranslationExperiment

    if not isinstance(experiment, TranslationExperiment):
        raise ValueError(
            f"this command is for translation models, but {name} is about {experiment.about}"
        )
    return experiment
