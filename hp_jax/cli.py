"""The command `hp-jax`: one sub-command a step, configured by a file and by flags for every field."""

from __future__ import annotations

import argparse
import logging
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro

from hp_jax.config import Experiment

log = logging.getLogger("hp_jax")


def _finetune(config: Experiment) -> None:
    from hp_jax import experiment

    experiment.finetune(config)


def _importance(config: Experiment) -> None:
    from hp_jax import experiment

    experiment.importance(config)


def _ablate(config: Experiment) -> None:
    from hp_jax import experiment

    experiment.ablate(config)


def _prune(config: Experiment) -> None:
    from hp_jax import experiment

    experiment.prune_orders(config)


STEPS: dict[str, tuple[str, Callable[[Experiment], None]]] = {
    "finetune": ("fine-tune a pretrained model", _finetune),
    "importance": ("score every head by the gradient of the loss in its gate", _importance),
    "ablate": ("measure the model without each head, and with each head alone in its row", _ablate),
    "prune": ("remove the least important heads step by step and measure the curve", _prune),
}


def _report(folder: str) -> None:
    from hp_jax.report.page import write_report

    print(write_report(Path(folder)))


def load_config(path: str) -> Experiment:
    """The `config` that the Python file `path` defines."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"the config file {path} does not exist")
    config = runpy.run_path(path).get("config")
    if not isinstance(config, Experiment):
        raise ValueError(f"{path} defines config = {config!r:.60}, but an hp_jax.config.Experiment was expected")
    return config


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hp-jax",
        description="Find out which attention heads a Transformer needs, prove it, and remove the others.",
        epilog="hp-jax COMMAND --help shows every field of the config with its default.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    everything = {"run": "all four steps and the report"} | {name: text for name, (text, _) in STEPS.items()}
    for name, text in everything.items():
        command = commands.add_parser(name, help=text, add_help=False)
        command.add_argument("config", nargs="?", help="a Python file that defines `config` (see configs/)")
    report = commands.add_parser("report", help="one HTML page, pictures and tables from a folder of results")
    report.add_argument("folder", help="the experiment's out folder")
    return parser


def _run(arguments: Sequence[str]) -> None:
    words, rest = _parser().parse_known_args(arguments)
    if words.command == "report":
        if rest:
            raise ValueError(f"hp-jax report takes one folder, but also got {' '.join(rest)}")
        return _report(words.folder)
    default = load_config(words.config) if words.config else Experiment()
    text = "all four steps and the report" if words.command == "run" else STEPS[words.command][0]
    config = tyro.cli(Experiment, prog=f"hp-jax {words.command} [CONFIG.py]", description=text, default=default, args=rest)
    for name in STEPS if words.command == "run" else [words.command]:
        log.info("--- %s", name)
        STEPS[name][1](config)
    if words.command == "run":
        _report(config.out)
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Bad input gives one sentence on stderr and status 1 (HP_JAX_DEBUG=1 shows where it came from), an interrupt 130.
    """
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    log.setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs the traceback of an error and then raises it, too
    try:
        _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("hp-jax: interrupted; what was finished is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get("HP_JAX_DEBUG"):
            raise
        print(f"hp-jax: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
