"""An experiment, loaded: a model with everything needed to feed it and to compare its masks."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh

from hp_jax.architecture import DecoderConfig
from hp_jax.config import (
    ClassificationExperiment,
    Experiment,
    LanguageModelExperiment,
    MultipleChoiceExperiment,
    TranslationExperiment,
)
from hp_jax.data import choices, glue
from hp_jax.data.batching import batches
from hp_jax.data.labelled import labels_in
from hp_jax.data.parallel import read_parallel
from hp_jax.data.splits import parse_split, read_split, rows_of
from hp_jax.experiment.corpus import (
    ChoiceCorpus,
    Corpus,
    DocumentCorpus,
    Encoded,
    LabelledCorpus,
    ParallelCorpus,
    Text,
)
from hp_jax.formats.families import family_named, family_of, task_of
from hp_jax.formats.model import Model, load_model
from hp_jax.formats.reading import Options
from hp_jax.grid import Grid
from hp_jax.grid.whole import Postprocess, as_they_are
from hp_jax.metrics import Metric, metric_of, tokenizer_of
from hp_jax.sharding import device_mesh, wait_for_all
from hp_jax.storage.checkpoint import is_model
from hp_jax.storage.files import local, local_folder, read_json
from hp_jax.storage.zarr import reach
from hp_jax.task import Array, Batch, Params
from hp_jax.text.codec import Codec
from hp_jax.text.loading import load_codec
from hp_jax.text.sentencepiece import SentencePiece
from hp_jax.text.vocabulary import train_sentencepiece

log = logging.getLogger("hp_jax")


@dataclasses.dataclass(frozen=True)
class Setup:
    """A loaded experiment.

    What it has read and encoded it keeps: every split is read and encoded once.
    """

    config: Experiment
    model: Model
    corpus: Corpus
    untrained: bool = False
    """Whether some of the model is new."""
    part: tuple[int, int] = (1, 1)
    """(i, n): each n-th example of every split, from the i-th on."""
    _texts: dict[str, Text] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    _encoded: dict[tuple[str, bool], Encoded] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    @functools.cached_property
    def task(self) -> Any:
        """The model with its loss, and how the experiment evaluates it."""
        return self.corpus.task(self.model.config)

    @property
    def params(self) -> Params:
        """The model's parameters."""
        return self.model.params

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the mask's rows."""
        return self.task.rows

    @property
    def present_AH(self) -> np.ndarray:
        """All heads that the model has, as a mask."""
        return self.task.present_AH

    @property
    def mesh(self) -> Mesh:
        """All devices, as many along `tensor` as the config says."""
        return device_mesh(tensor=self.config.tensor_devices)

    def grid(
        self,
        batches: Sequence[Batch],
        masks_MAH: Array,
        *,
        label: str,
        postprocess: Postprocess = as_they_are,
        task: Any = None,
        params: Params = None,
        mask: int = 0,
    ) -> Grid:
        """A grid of masks, with parameters split as the settings have them; default: of the
        experiment's own task and parameters.

        mask: devices among which masks are split; 0: as the grid needs it.
        """
        tensor = self.config.tensor_devices
        return Grid(
            task or self.task,
            self.params if params is None else params,
            batches,
            masks_MAH,
            postprocess,
            device_mesh(mask=mask, tensor=tensor) if mask else None,
            label=label,
            tensor=tensor,
        )

    @property
    def groups(self) -> list[int]:
        """Of each row, how many query heads share keys and values."""
        return [module.group for module in self.model.config.modules.values()]

    @functools.cached_property
    def metric(self) -> Metric:
        """What masks are compared by."""
        return metric_of(self.corpus.about())

    def text(self, split: str) -> Text:
        """The text of a split or a slice of it, such as `train[:5000]`."""

        def whole(name: str) -> Text:
            if name not in self._texts:
                text = self.corpus.read(name)
                self._texts.update({name: text, text.split: text})  # a split may have two names
            return self._texts[name]

        return read_split(split, whole)

    def examples(self, split: str, *, training: bool = False) -> Encoded:
        """The encoded examples of a split, those of `part`; see `Corpus.encode` for `training`."""
        whole, (first, step) = self._all_examples(split, training), self.part
        return whole if step == 1 else rows_of(whole, np.arange(first - 1, len(whole), step))

    def _all_examples(self, split: str, training: bool) -> Encoded:
        text, training = self.text(split), training and self.corpus.leaves_out
        encoded, whole = self._encoded, (text.split, training)
        if whole in encoded and self.corpus.apart:
            kept = np.isin(encoded[whole].origin_N, text.origin_N)
            return encoded[whole] if kept.all() else rows_of(encoded[whole], np.flatnonzero(kept))
        key = whole if len(text) == len(self.text(text.split)) else (split, training)
        if key not in encoded:
            encoded[key] = self.corpus.encode(text, training=training)
        return encoded[key]

    def batches(self, split: str) -> Sequence[Batch]:
        """Evaluation batches of a split."""
        return self.batches_of(self.examples(split))

    def batches_of(self, examples: Encoded) -> Sequence[Batch]:
        """Evaluation batches of encoded examples."""
        data = self.corpus.data
        size = 0 if data.batch_tokens else data.batch
        return batches(examples, size=size, tokens=data.batch_tokens, buckets=data.buckets)

    def training_batches(self, examples: Encoded, epoch: int) -> Sequence[Batch]:
        """Batches of one epoch in random order, which the seed and the epoch decide."""
        recipe, shuffle = self.config.train, np.random.default_rng([self.config.seed, epoch])
        size, buckets = 0 if recipe.batch_tokens else recipe.batch, self.corpus.data.buckets
        return batches(
            examples, size=size, tokens=recipe.batch_tokens, buckets=buckets, shuffle=shuffle
        )

    def with_params(self, params: Params) -> Setup:
        """The same with other parameters."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, params=params))

    def having(self, **changes: Any) -> Setup:
        """The same model and text with other values in some fields of the config."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, **changes))

    @property
    def options(self) -> Options:
        """How this experiment reads models."""
        return options_of(self.config, self.corpus.labels)


def load(config: Experiment) -> Setup:
    """The experiment with the model that was trained in it, or with `config.model` if none was."""
    reach(config.out)
    check_named(config)
    model = model_of(config)
    log.info("the model is %s", model)
    return load_setup(config, model)


def check_removes(config: Experiment) -> None:
    """ValueError where a head that is off is not gone from the model."""
    if config.patched:
        raise ValueError(
            "data.removed is 'counterfactual', so a head that is off still has a context, and no "
            "smaller or trained model is like that: train and prune with data.removed 'zero'; "
            "hp-jax importance, ablate and linear work with this (--ablation.sets prefixes takes "
            "more and more heads of an order off)"
        )


def model_of(config: Experiment) -> str:
    """The model that was trained in the experiment, or `config.model`; FileNotFoundError for
    neither."""
    trained = Path(config.out) / "model"
    if is_model(trained):
        return str(trained)
    if not config.model:
        raise FileNotFoundError(
            f"there is no model yet: {trained} is not there, and no --model was given"
        )
    return config.model


def trained_from(config: Experiment) -> str:
    """`config.model`, or, if that is not named, the model from which out/model was trained; empty
    for nothing."""
    if config.model or not is_model(Path(config.out) / "model"):
        return config.model
    made = read_json(Path(config.out) / "model" / "config.json", _Made).experiment
    return made.model if made else ""


def check_named(config: Experiment) -> None:
    """ValueError if out/model was trained from another model than the one that is named now."""
    trained = Path(config.out) / "model"
    if not config.model or not is_model(trained):
        return
    made = read_json(trained / "config.json", _Made).experiment
    names = {config.model, str(Path(config.model).expanduser().resolve())}
    if made and not names & {made.model, str(Path(made.model).resolve()), str(trained.resolve())}:
        raise ValueError(
            f"{trained} was trained from {made.model or 'nothing'}, but --model names "
            f"{config.model}: give another --out, or leave --model out to go on with {trained}"
        )


@dataclasses.dataclass(frozen=True)
class _Origin:
    """The experiment that a model was trained in."""

    model: str


@dataclasses.dataclass(frozen=True)
class _Made:
    """What config.json of a trained model says of its origin."""

    experiment: _Origin | None = None


def load_setup(config: Experiment, model: str, *, fresh: bool = False) -> Setup:
    """The experiment with `model`.  ValueError if they do not fit.

    fresh: before training; a classifier is made where there is none, and a whole translation model
    if `model` is empty.
    """
    if type(config) not in LOADERS:
        kinds = " or a ".join(kind.__name__ for kind in LOADERS)
        raise TypeError(f"expected a {kinds}, but got {type(config).__name__}")
    given: Any = config
    local(given.data.path, "data.path")
    local(config.ablation.masks, "ablation.masks")
    local(config.ablation.order, "ablation.order")
    setup = LOADERS[type(config)](config, model, fresh)
    room, longest = setup.model.config.room, setup.corpus.data.max_length
    if room is not None and longest > room:
        raise ValueError(f"max_length is {longest}, but {model} has {room} positions")
    return setup


def options_of(
    config: Experiment,
    labels: tuple[str, ...] = (),
    *,
    fresh: Callable[[], tuple[str, ...]] | None = None,
) -> Options:
    """How an experiment reads models."""
    tensor = config.tensor_devices
    mesh = device_mesh(tensor=tensor) if tensor > 1 else None
    return Options(config.dtype, config.kernel, labels, fresh, config.seed, mesh)


def _classifier(config: ClassificationExperiment, name: str, fresh: bool) -> Setup:
    data, family = config.data, family_named("classifier")
    labels = glue.spec(data).labels
    asked = []

    def new() -> tuple[str, ...]:
        asked.append(name)
        return labels or labels_in(data, config.train.split)

    options = options_of(config, labels, fresh=new if fresh else None)
    model = load_model(name, options, family=family)
    own: Any = model.config
    if not labels:
        data = dataclasses.replace(data, labels=own.labels)
        log.info("the labels are %s, in the order of the model's outputs", ", ".join(own.labels))
    corpus = LabelledCorpus(data, model.text, own.labels, own.types)
    return Setup(config, model, corpus, untrained=bool(asked))


def _translator(config: TranslationExperiment, name: str, fresh: bool) -> Setup:
    untrained = fresh and not name
    if not untrained:
        family = family_of(config.architecture)
        model = load_model(name, options_of(config), family=family)
    else:
        model = _new_translator(config)
    tokenize = tokenizer_of(config.tokenize, config.data.target)
    corpus = ParallelCorpus(config.data, model.text, config.metric, tokenize, config.decoding)
    corpus.about()  # a tokenizer that is not here is said before anything is computed
    return Setup(config, model, corpus, untrained=untrained)


def _new_translator(config: TranslationExperiment) -> Model:
    """A model of the given architecture with fresh parameters, for the vocabulary of its text."""
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
    return Model(own, jax.jit(task_of(own).init)(jax.random.key(config.seed)), codec)


def _language_model(config: LanguageModelExperiment, name: str, fresh: bool) -> Setup:
    model = load_model(name, options_of(config), family=family_named("language model"))
    separator = _separator(config, model) if config.data.packed else None
    corpus = DocumentCorpus(config.data, model.text, config.metric, separator)
    return Setup(config, model, corpus)


def _separator(config: LanguageModelExperiment, model: Model) -> int:
    """The token between packed documents; ValueError if there is none."""
    own, name = cast(DecoderConfig, model.config).eos, config.data.separator
    if not name and not own:
        raise ValueError(
            "data.packed puts the model's end-of-text token between documents, but the model names "
            "none: name one with --data.separator, such as '<|endoftext|>'"
        )
    found = model.text.token_to_id(name) if name else own[0]
    if found is None:
        raise ValueError(f"data.separator is {name!r}, but the model has no such token")
    return int(found)


def _chooser(config: MultipleChoiceExperiment, name: str, fresh: bool) -> Setup:
    model = load_model(name, options_of(config), family=family_named("language model"))
    most = config.data.choices
    if not most:
        parts = parse_split(config.ablation.splits[0])
        most = max(
            len(item)
            for part in parts
            for item in choices.read_whole(config.data, part.name).choices
        )
    return Setup(config, model, ChoiceCorpus(config.data, model.text, config.metric, most))


LOADERS: dict[type[Experiment], Callable[[Any, str, bool], Setup]] = {
    ClassificationExperiment: _classifier,
    TranslationExperiment: _translator,
    LanguageModelExperiment: _language_model,
    MultipleChoiceExperiment: _chooser,
}
"""How each kind of experiment is loaded."""


def vocabulary(config: TranslationExperiment) -> Codec:
    """The SentencePiece vocabulary of a new model, in out/vocabulary; trained on the training split
    if it is not there."""
    folder = local_folder(config.out) / "vocabulary"
    if jax.process_index() == 0 and not (folder / "text.json").is_file():
        text = read_parallel(config.data, config.train.split)
        log.info("training a vocabulary of %d on %d pairs", config.vocabulary, len(text))
        pieces = train_sentencepiece([*text.source, *text.target], config.vocabulary)
        SentencePiece(pieces).save(folder)
    wait_for_all(str(folder))
    return load_codec(folder)
