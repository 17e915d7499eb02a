"""What the scripts of the paper's tables and figures share: the words after their name, and where
their output goes."""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from hp_jax.cli.command import ConfiguredCommand
from hp_jax.cli.parsing import parse_configured
from hp_jax.config import Experiment
from hp_jax.config_files import load_config
from hp_jax.exhibits import Exhibit
from hp_jax.experiment import Setup, load
from hp_jax.paper import NEEDS
from hp_jax.report.html import Listing, as_text
from hp_jax.report.pictures.style import to_png
from hp_jax.storage.files import write_whole


def prepared(exhibit: Exhibit) -> Setup:
    """The experiment, loaded; one sentence if it lacks what a table or figure needs."""
    setup = load(experiment())
    if words := NEEDS[exhibit].lacks(setup):
        sys.exit(f"{exhibit} cannot be made: {words}")
    return setup


def experiment() -> Experiment:
    """The config that the first word names, with the flags after it, as for `hp-jax ablate`."""
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        sys.exit(f"expected a config before all flags: python {sys.argv[0]} CONFIG [flags]")
    words = sys.argv[1:]
    return parse_configured(
        ConfiguredCommand, Path(sys.argv[0]).stem, words, load_config(words[0])
    )[1]


def show(listing: Listing) -> None:
    """Prints a table."""
    print(as_text(listing))


def save(figure: Figure, config: Experiment) -> None:
    """Writes a picture into the experiment's folder, named after the script."""
    path = Path(config.out) / f"{Path(sys.argv[0]).stem}.png"
    write_whole(path, to_png(figure))
    print(path)
