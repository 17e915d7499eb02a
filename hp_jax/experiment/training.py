"""Training an experiment's model."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from hp_jax.config import Experiment
from hp_jax.experiment.corpus import Encoded
from hp_jax.experiment.evaluation import measured
from hp_jax.experiment.results import check_same, provenance
from hp_jax.experiment.setup import Setup, check_named, check_removes, load_setup, trained_from
from hp_jax.metrics import MeanLoss, scores, worth
from hp_jax.sharding import device_mesh
from hp_jax.storage import fingerprint
from hp_jax.storage.checkpoint import is_model, load_params
from hp_jax.storage.files import local_folder, read_json
from hp_jax.storage.lock import alone
from hp_jax.task import Params
from hp_jax.train import Run, train

log = logging.getLogger("hp_jax")


def train_if_needed(config: Experiment) -> Setup:
    """The experiment with `config.model`, if that is trained for its task, or else as `train_model`
    gives it."""
    if not config.model or is_model(local_folder(config.out) / "model"):
        return train_model(config)
    setup = load_setup(config, config.model, fresh=True)
    if setup.untrained:
        return train_model(config, setup)
    log.info("%s is a trained model: it is not trained again", config.model)
    return setup


def train_model(config: Experiment, setup: Setup | None = None) -> Setup:
    """Trains or fine-tunes `config.model` (or a new translation model) into out/model; the
    experiment with that model, for the steps that follow.

    setup: the experiment as `load_setup` gives it, if it is loaded already.
    """
    check_removes(config)
    out, recipe = local_folder(config.out), config.train
    check_named(config)
    setup = setup or load_setup(config, trained_from(config), fresh=True)
    training = setup.examples(recipe.split, training=True)
    held_out = setup.examples(recipe.evaluate)
    inputs = {
        "model": setup.model.digest,
        "data": training.fingerprint(),
        "evaluation data": held_out.fingerprint(),
        "recipe": fingerprint.of_json(recipe),
        "seed": str(config.seed),
        "batching": fingerprint.of_json(setup.corpus.data.buckets),
        "dtype": config.dtype,
    }
    if is_model(out / "model"):
        described = read_json(out / "model" / "config.json")
        check_same(described.get("training", {}).get("inputs", {}), inputs, out / "model")
        log.info("%s is already trained", out / "model")
        return as_saved(setup, out / "model")
    measure = _measurement(setup, held_out)

    def evaluate(epoch: int, params: Params) -> dict[str, float]:
        if recipe.keep_epochs:
            _save(setup, out / "epochs" / f"{epoch:02d}", params, {"epoch": epoch})
        return measure(params)

    run = Run(
        setup.task,
        functools.partial(setup.training_batches, training),
        evaluate,
        recipe,
        mask_AH=setup.present_AH,
        seed=config.seed,
        mesh=device_mesh(),
        folder=out / "train",
        inputs=inputs,
    )
    with alone(out, "training"):
        params, history = train(run, setup.params)
        params = _final(setup, params, history)
        about = {"inputs": inputs, "history": history, "final": measure(params)}
        _save(setup, out / "model", params, {"training": about})
    return setup.with_params(jax.tree.map(np.asarray, params))


def _save(setup: Setup, folder: Path, params: Params, about: dict[str, object]) -> None:
    setup.with_params(params).model.save(folder, provenance(setup.config) | about)


def kept_epochs(config: Experiment) -> dict[int, Path]:
    """The folders of the models of the epochs that were kept, in their order."""
    found = sorted((Path(config.out) / "epochs").glob("[0-9]*"), key=lambda path: int(path.name))
    return {int(path.name): path for path in found if is_model(path)}


def as_saved(setup: Setup, folder: Path) -> Setup:
    """The setup with the parameters in a folder of the same model."""
    abstract = jax.eval_shape(lambda: setup.params)
    return setup.with_params(load_params(folder, read_json(folder / "config.json"), abstract))


def _measurement(setup: Setup, examples: Encoded) -> Callable[[Params], dict[str, float]]:
    """A function of parameters: the metric and the mean loss (nats an example) of the full model on
    `examples`."""

    def measure(params: Params) -> dict[str, float]:
        values = measured(setup.with_params(params), examples, setup.present_AH[None])
        return {
            setup.metric.name: float(scores(setup.metric, values)[0]),
            "evaluation loss": float(scores(MeanLoss(), values)[0]),
        }

    return measure


def _final(setup: Setup, last: Params, history: Sequence[dict[str, float]]) -> Params:
    """The parameters that `train.final` asks for."""
    recipe = setup.config.train
    if recipe.final == "last":
        return last
    chosen = range(max(1, recipe.epochs + 1 - recipe.average), recipe.epochs + 1)
    if recipe.final == "best":
        best = max(history, key=lambda line: worth(setup.metric, line[setup.metric.name]))
        chosen = range(int(best["epoch"]), int(best["epoch"]) + 1)
    log.info("the model is that of epoch %s", ", ".join(map(str, chosen)))
    folders = [Path(setup.config.out) / "epochs" / f"{epoch:02d}" for epoch in chosen]
    models = [as_saved(setup, folder).params for folder in folders]
    return jax.tree.map(lambda *parts: sum(parts) / len(parts), *models)
