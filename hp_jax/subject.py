"""What an experiment is about: a trained model with its data, and where the results on it are kept."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import logging
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from hp_jax import fingerprint, heads
from hp_jax.checkpoint import is_model
from hp_jax.config import Experiment
from hp_jax.data import glue, source
from hp_jax.data.batching import batches
from hp_jax.data.tokenizer import Examples, encode
from hp_jax.loading import load_classifier
from hp_jax.models.classification import Classification
from hp_jax.store import Axes, Items, Store, create_store
from hp_jax.task import Batch, Params

log = logging.getLogger("hp_jax")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained model with everything needed to feed it."""

    config: Experiment
    task: Classification
    params: Params
    tokenizer: Tokenizer
    digest: str
    """Hash of the parameters."""

    @property
    def full_AH(self) -> jax.Array:
        """All heads that the model has."""
        return heads.all_on(len(self.task.heads), self.task.heads)

    def examples(self, split: str) -> Examples:
        """The encoded examples of one split."""
        model, data = self.task.config, self.config.data
        return encode(self.tokenizer, source.read(data, split), model.labels, data.max_length, types=model.types)

    def batches(self, examples: Examples) -> Sequence[Batch]:
        """Evaluation batches."""
        data = self.config.data
        size = 0 if data.batch_tokens else data.batch
        return batches(examples, size=size, tokens=data.batch_tokens, buckets=data.buckets)


def load_subject(config: Experiment, model: str, *, fresh: bool) -> Subject:
    """`model` for the experiment's task; `fresh` allows one without a classifier.  ValueError if they do not fit."""
    spec = glue.spec(config.data)
    model_config, params, tokenizer = load_classifier(
        model, labels=spec.labels, seed=config.seed, fresh=fresh, dtype=config.dtype, attention=config.attention
    )
    room = model_config.positions - model_config.first_position
    if config.data.max_length > room:
        raise ValueError(f"max_length is {config.data.max_length}, but {model} has {room} positions")
    positive = model_config.labels.index(spec.labels[1])
    return Subject(
        config, Classification(model_config, spec.metric, positive), params, tokenizer, fingerprint.of_arrays(params)
    )


def load(config: Experiment) -> Subject:
    """The experiment's fine-tuned model, or `config.model` if it was not fine-tuned here."""
    tuned = Path(config.out) / "model"
    model = str(tuned) if is_model(tuned) else config.model
    log.info("the model is %s", model)
    return load_subject(config, model, fresh=False)


def results(
    subject: Subject,
    where: str,
    kind: str,
    *,
    splits: dict[str, str],
    inputs: dict[str, str],
    fixed: Mapping[str, tuple[Axes, np.ndarray]],
    items: Mapping[str, Items],
    chunk: int,
    masks: str = "",
) -> Store:
    """The store out/`where`: new, or continued if the model, the code and the other `inputs` (hashes) are the same.

    splits: which split had which job; masks: the name of a grid's set of masks; the rest as in `create_store`.
    """
    about = provenance(subject.config) | {
        "task": subject.config.data.task,
        "metric": subject.task.metric,
        "positive": subject.task.positive,
        "labels": list(subject.task.config.labels),
        "rows": list(subject.task.rows),
        "heads": list(subject.task.heads),
        "splits": splits,
        "masks": masks,
    }
    model = {"model": subject.digest, "architecture": fingerprint.of_json(subject.task.config)}
    code = {"version of hp_jax": importlib.metadata.version("hp_jax")}
    path = Path(subject.config.out) / where
    return create_store(path, kind, fingerprint=model | code | inputs, about=about, fixed=fixed, items=items, chunk=chunk)


def provenance(config: Experiment) -> dict[str, Any]:
    """Config, versions, devices, seed, command and time of a computation."""
    packages = ("hp_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tokenizers", "numpy")
    return {
        "experiment": dataclasses.asdict(config),
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages},
        "devices": [device.device_kind for device in jax.devices()],
        "seed": config.seed,
        "command": sys.argv,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
