"""The command `hp-jax`: one sub-command a step, configured by a file and by flags for every
field."""

from __future__ import annotations

import argparse
import logging
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro

from hp_jax.cli import folders
from hp_jax.config import ClassificationExperiment, Experiment, TranslationExperiment

log = logging.getLogger("hp_jax")

KINDS: dict[str, type[Experiment]] = {
    "classification": ClassificationExperiment,
    "translation": TranslationExperiment,
}
Words = argparse.Namespace
EXPECTED = (ValueError, OSError, ImportError, RuntimeError)
"""What bad input, and whatever else is not a mistake in hp_jax, raises."""


def load_config(name: str) -> Experiment:
    """The `config` that the Python file `name` defines, or the defaults of one of the two kinds of
    experiment."""
    if name in KINDS:
        return KINDS[name]()
    if not Path(name).is_file():
        raise FileNotFoundError(f"the config file {name} does not exist")
    config = runpy.run_path(name).get("config")
    if not isinstance(config, ClassificationExperiment | TranslationExperiment):
        kinds = " or ".join(kind.__name__ for kind in KINDS.values())
        raise ValueError(f"{name} defines config = {config!r:.60}, but a {kinds} was expected")
    return config


# --- commands that take a config -----------------------------------------------------------------


def _train(config: Experiment, words: Words) -> None:
    from hp_jax import experiment

    experiment.train_model(config)


def _importance(config: Experiment, words: Words) -> None:
    from hp_jax import experiment

    experiment.importance(experiment.load(config))


def _ablate(config: Experiment, words: Words) -> None:
    from hp_jax import experiment

    experiment.ablate(experiment.load(config))


def _prune(config: Experiment, words: Words) -> None:
    from hp_jax import experiment

    experiment.prune_orders(experiment.load(config))


STEPS: dict[str, tuple[str, Callable[[Experiment, Words], None]]] = {
    "train": ("fine-tune a pretrained model, or train a new translation model", _train),
    "importance": ("score every head by the gradient of the loss in its gate", _importance),
    "ablate": (
        "measure the model under every mask of a grid: without each head, with random subsets, "
        "your own",
        _ablate,
    ),
    "prune": ("remove the least important heads step by step and measure the curve", _prune),
}


def _run(config: Experiment, words: Words) -> None:
    for name, (_, step) in STEPS.items():
        log.info("--- %s", name)
        step(config, words)
    if not words.multihost or _is_first():
        folders.report(argparse.Namespace(folder=config.out))


def _translate(config: Experiment, words: Words) -> None:
    from hp_jax import experiment, heads
    from hp_jax.experiment import translation

    if not isinstance(config, TranslationExperiment):
        raise ValueError(
            f"only a translation model translates, but {words.config} is about classification"
        )
    own = experiment.load(config)
    mask_AH = heads.remove(own.present_AH, heads.parse_descriptor(words.without), own.task.rows)
    lines = sys.stdin.read().removesuffix("\n").split("\n")
    for line in translation.as_lines(translation.translate(own, lines, mask_AH), words.nbest):
        print(line)


def _vocabulary(config: Experiment, words: Words) -> None:
    from hp_jax.experiment import setup

    if not isinstance(config, TranslationExperiment):
        raise ValueError(
            f"only a new translation model needs a vocabulary, but {words.config} is about "
            "classification"
        )
    codec = setup.vocabulary(config)
    log.info("%s has %d pieces", Path(config.out) / "vocabulary", codec.source_vocab)


SHARED = STEPS | {"run": ("all four steps and the report", _run)}
"""The commands that many processes can work on together."""
CONFIGURED = SHARED | {
    "translate": ("translate the lines of standard input", _translate),
    "vocabulary": ("make the vocabulary of a new translation model", _vocabulary),
}


def _demo(words: Words) -> None:
    from hp_jax import demo

    config = demo.config(words.out)
    for name, (_, step) in STEPS.items():
        if name != "train":
            step(config, words)
    print("\n".join(demo.findings(Path(words.out))))
    folders.report(argparse.Namespace(folder=words.out))


# --- the command ---------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hp-jax",
        description=(
            "Find out which attention heads a Transformer needs, prove it, and remove the others."
        ),
        epilog="hp-jax COMMAND CONFIG --help shows every field of the config with its default.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="which heads a real translation model needs, in about two minutes"
    )
    demo.add_argument(
        "--out", default="runs/demo", help="folder for the results (default: %(default)s)"
    )
    demo.set_defaults(call=_demo)
    for name, (text, step) in CONFIGURED.items():
        command = commands.add_parser(name, help=text, add_help=False)
        command.add_argument(
            "config",
            help=f"a Python file that defines `config` (see configs/), or {' or '.join(KINDS)}",
        )
        command.set_defaults(step=step, multihost=False)
        if name in SHARED:
            many = "this is one of many processes, each with this command"
            command.add_argument("--multihost", action="store_true", help=many)
        if name == "translate":
            command.add_argument(
                "--without",
                default="",
                help="heads to remove, such as 'E:1:3 A:2:1,4' (see the README)",
            )
            command.add_argument(
                "--nbest",
                type=int,
                default=0,
                help="print so many translations of each line, with scores",
            )
    folders.add_commands(commands)
    return parser


def _dispatch(arguments: Sequence[str]) -> None:
    words, rest = _parser().parse_known_args(arguments)
    if "config" not in words:
        if rest:
            raise ValueError(f"hp-jax {words.command} does not understand {' '.join(rest)}")
        words.call(words)
        return
    default = load_config(words.config)
    prog, text = f"hp-jax {words.command} {words.config}", CONFIGURED[words.command][0]
    config = tyro.cli(type(default), prog=prog, description=text, default=default, args=rest)
    run: Callable[[Experiment, Words], None] = _as_one_of_many if words.multihost else words.step
    run(config, words)


def _as_one_of_many(config: Experiment, words: Words) -> None:
    """Runs a step, of which the first process speaks for all; the others tell only of what went
    wrong."""
    import jax

    from hp_jax.sharding import join_hosts, leave_hosts

    join_hosts()
    if not _is_first():
        log.setLevel(logging.ERROR)
    try:
        words.step(config, words)
    except BaseException as error:
        status = _tell(error, f" in process {jax.process_index()} of {jax.process_count()}")
        if re.match("[A-Z_]+: ", str(error)):  # a status of XLA, in an exception of whatever type
            print(
                "hp-jax: if another process has ended, see there why; all started again go on "
                "from here",
                file=sys.stderr,
            )
        leave_hosts(status)


def _is_first() -> bool:
    import jax

    return jax.process_index() == 0


def _tell(error: BaseException, where: str = "") -> int:
    """Says what went wrong, in one sentence unless it should not happen at all; the exit status."""
    if isinstance(error, KeyboardInterrupt):
        print(
            "hp-jax: interrupted; what was finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    if not isinstance(error, EXPECTED) or os.environ.get("HP_JAX_DEBUG"):
        traceback.print_exception(error)
    print(f"hp-jax: error{where}: {error}", file=sys.stderr)
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Bad input gives one sentence on stderr and status 1 (HP_JAX_DEBUG=1 shows where it came from),
    an interrupt 130.
    """
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    log.setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(
        logging.CRITICAL
    )  # Orbax logs the traceback of an error and then raises it, too
    try:
        _dispatch(sys.argv[1:] if arguments is None else arguments)
    except (KeyboardInterrupt, *EXPECTED) as error:
        if os.environ.get("HP_JAX_DEBUG"):
            raise
        return _tell(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
