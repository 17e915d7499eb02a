"""The same experiment with other seeds of its training."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from hp_jax.config import Experiment
from hp_jax.experiment.pruning import prune_orders
from hp_jax.experiment.setup import Setup, model_of, trained_from
from hp_jax.experiment.training import train_model
from hp_jax.storage.checkpoint import is_model

log = logging.getLogger("hp_jax")


def prune_seeds(setup: Setup) -> None:
    """Trains and prunes a model with each seed of `config.paper.seeds`, in a folder of
    out/seeds."""
    config = setup.config
    for seed in config.paper.seeds:
        if seed == config.seed:
            continue
        log.info("--- seed %d", seed)
        out, origin = f"{config.out.rstrip('/')}/seeds/{seed}", trained_from(config)
        pruning = dataclasses.replace(config.pruning, rows=("all",), per=())
        other = dataclasses.replace(config, seed=seed, out=out, model=origin, pruning=pruning)
        prune_orders(train_model(other))


def check_seeds(config: Experiment) -> None:
    """ValueError for other seeds of a model that was not trained in this experiment."""
    if config.paper.seeds and not is_model(Path(config.out) / "model"):
        raise ValueError(
            f"paper.seeds asks for models of other seeds, but {model_of(config)} was not trained "
            "in this experiment: leave paper.seeds out, or give --model a model to train"
        )
