"""What an experiment is about: a model with its data, and where the results on it are kept."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.config import ClassificationExperiment, Experiment, TranslationExperiment
from hp_jax.data import glue
from hp_jax.data.batching import batches
from hp_jax.data.parallel import read_parallel
from hp_jax.experiment.corpus import Corpus, Encoded, LabelledCorpus, ParallelCorpus
from hp_jax.formats.model import load_classifier, load_translator
from hp_jax.metrics import Metric, metric_of
from hp_jax.models.classification import Classification
from hp_jax.models.translation import Translation
from hp_jax.sharding import wait_for_all
from hp_jax.storage import fingerprint
from hp_jax.storage.checkpoint import is_model
from hp_jax.storage.files import local_folder
from hp_jax.task import Batch, Params
from hp_jax.text.codec import Codec
from hp_jax.text.loading import load_codec
from hp_jax.text.sentencepiece import SentencePiece
from hp_jax.text.vocabulary import train_sentencepiece

log = logging.getLogger("hp_jax")


@dataclasses.dataclass(frozen=True)
class Setup:
    """A model with everything needed to feed it and to judge it."""

    config: Experiment
    task: Classification | Translation
    params: Params
    corpus: Corpus

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the parameters."""
        return fingerprint.of_arrays(self.params)

    @property
    def present_AH(self) -> jax.Array:
        """All heads that the model has."""
        return jnp.asarray(self.task.present_AH)

    @property
    def metric(self) -> Metric:
        """What masks are judged by."""
        return metric_of(self.corpus.about())

    def examples(self, split: str, *, training: bool = False) -> Encoded:
        """The encoded examples of one split."""
        return self.corpus.encode(self.corpus.read(split), training=training)

    def batches(self, examples: Encoded) -> Sequence[Batch]:
        """Evaluation batches."""
        data = self.corpus.data
        return batches(
            examples,
            size=0 if data.batch_tokens else data.batch,
            tokens=data.batch_tokens,
            buckets=data.buckets,
        )

    def training_batches(self, examples: Encoded, epoch: int) -> Sequence[Batch]:
        """Batches of one epoch in random order, which the seed and the epoch decide."""
        recipe, shuffle = self.config.train, np.random.default_rng([self.config.seed, epoch])
        size = 0 if recipe.batch_tokens else recipe.batch
        return batches(
            examples,
            size=size,
            tokens=recipe.batch_tokens,
            buckets=self.corpus.data.buckets,
            shuffle=shuffle,
        )


def load(config: Experiment) -> Setup:
    """The model that was trained in this experiment, or `config.model` if none was."""
    trained = Path(config.out) / "model"
    if not is_model(trained) and not config.model:
        raise FileNotFoundError(
            f"there is no model yet: {trained} is not there, and no --model was given"
        )
    model = str(trained) if is_model(trained) else config.model
    log.info("the model is %s", model)
    return load_setup(config, model)


def load_setup(config: Experiment, model: str, *, fresh: bool = False) -> Setup:
    """`model` for the experiment's task.  ValueError if they do not fit.

    fresh: before training; a classifier is made where there is none, and a whole translation model
    if `model` is empty.
    """
    if isinstance(config, ClassificationExperiment):
        return _classifier(config, model, fresh)
    if isinstance(config, TranslationExperiment):
        return _translator(config, model, fresh)
    raise TypeError(
        "expected a ClassificationExperiment or a TranslationExperiment, but got "
        f"{type(config).__name__}"
    )


def _classifier(config: ClassificationExperiment, model: str, fresh: bool) -> Setup:
    spec = glue.spec(config.data)
    compute: dict[str, Any] = {"dtype": config.dtype, "kernel": config.kernel}
    own, params, tokenizer = load_classifier(
        model, labels=spec.labels, seed=config.seed, fresh=fresh, **compute
    )
    room = own.positions - own.first_position
    if config.data.max_length > room:
        raise ValueError(
            f"max_length is {config.data.max_length}, but {model} has {room} positions"
        )
    return Setup(
        config,
        Classification(own),
        params,
        LabelledCorpus(config.data, tokenizer, own.labels, own.types),
    )


def _translator(config: TranslationExperiment, model: str, fresh: bool) -> Setup:
    compute: dict[str, Any] = {"dtype": config.dtype, "kernel": config.kernel}
    if model or not fresh:
        own, params, codec = load_translator(model, **compute)
    else:
        codec = vocabulary(config)
        own = dataclasses.replace(
            config.architecture,
            source_vocab=codec.source_vocab,
            target_vocab=codec.target_vocab,
            eos=codec.eos,
            pad=codec.pad,
            start=codec.eos,
            never=(codec.pad,),
            dtype=config.dtype,
            kernel=config.kernel,
        )
        params = jax.jit(Translation(own).init)(jax.random.key(config.seed))
    room = own.max_positions - own.first_position
    if own.positions == "learned" and config.data.max_length > room:
        raise ValueError(
            f"max_length is {config.data.max_length}, but {model} has {room} positions"
        )
    corpus = ParallelCorpus(config.data, codec, config.metric, config.tokenize)
    decoding = config.decoding if corpus.translates else None
    return Setup(config, Translation(own, decoding), params, corpus)


def vocabulary(config: TranslationExperiment) -> Codec:
    """The SentencePiece vocabulary of a new model, in out/vocabulary; trained on the training split
    if it is not there."""
    folder = local_folder(config.out) / "vocabulary"
    if jax.process_index() == 0 and not (folder / "text.json").is_file():
        text = read_parallel(config.data, config.train.split)
        log.info("training a vocabulary of %d on %d pairs", config.vocabulary, len(text))
        SentencePiece(train_sentencepiece([*text.source, *text.target], config.vocabulary)).save(
            folder
        )
    wait_for_all(str(folder))
    return load_codec(folder)
