"""The data side of an experiment: its text, encoded for its model, and what is kept of each
example."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from tokenizers import Tokenizer

from hp_jax.architecture import BertConfig, DecoderConfig, Decoding, Seq2SeqConfig
from hp_jax.config import ChoiceData, Data, DocumentData, ParallelData
from hp_jax.data import choices, documents, glue, labelled
from hp_jax.data.choices import Items as ChoiceItems
from hp_jax.data.documents import Documents
from hp_jax.data.labelled import Labelled
from hp_jax.data.parallel import Parallel, read_whole
from hp_jax.grid.whole import Postprocess, as_they_are
from hp_jax.metrics import TextMetric, metric_of
from hp_jax.models.choices import MultipleChoice
from hp_jax.models.classification import Classification
from hp_jax.models.language import LanguageModel
from hp_jax.models.patched import Patched
from hp_jax.models.translation import Translation
from hp_jax.storage.zarr import Axes, Items
from hp_jax.task import Batch
from hp_jax.text.choices import EncodedItems, encode_items
from hp_jax.text.codec import Codec
from hp_jax.text.pairs import Pairs, encode_pairs
from hp_jax.text.tokenizer import Examples, encode
from hp_jax.text.windows import Windows, encode_documents, encode_last_words, pack_documents

Text = Labelled | Parallel | Documents | ChoiceItems
Encoded = Examples | Pairs | Windows | EncodedItems
Fixed = Mapping[str, tuple[Axes, np.ndarray]]


class Corpus(Protocol):
    """Labelled text, sentence pairs, documents or items, as a model reads them."""

    @property
    def data(self) -> Data | ParallelData | DocumentData | ChoiceData:
        """Where text comes from and how it is batched."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, if there are any."""

    @property
    def leaves_out(self) -> bool:
        """Whether examples that are too long are left out for training."""

    @property
    def apart(self) -> bool:
        """Whether each example is encoded for itself, so that those of a part of a split are among
        those of the whole."""

    def task(self, config: Any) -> Any:
        """A model of that config with its loss, and how it is evaluated."""

    def by_loss(self) -> Corpus:
        """The same, whose task gives the loss without translating."""

    def about(self) -> dict[str, Any]:
        """What a manifest says of the task and its metric; `metrics.metric_of` reads it."""

    def read(self, split: str) -> Text:
        """The text of a whole split."""

    def encode(self, text: Any, *, training: bool = False) -> Encoded:
        """Token ids; for training, examples that are too long are left out where cutting them would
        spoil them."""

    def kept(self, examples: Any, masks: int) -> tuple[Fixed, dict[str, Items]]:
        """Arrays of a grid's store: those of the examples, and those that are filled mask by
        mask."""

    def postprocess(self, examples: Any) -> Postprocess:
        """From a model's values to those that are kept."""


@dataclasses.dataclass(frozen=True)
class LabelledCorpus:
    """Text to classify."""

    data: Data
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    """The model's, in its order."""
    types: int
    """Token types that the model has."""
    leaves_out: ClassVar = False
    apart: ClassVar = True

    def task(self, config: BertConfig) -> Classification:
        """Cross-entropy with gold labels, and predicted labels."""
        return Classification(config)

    def by_loss(self) -> LabelledCorpus:
        """The same: a classifier's loss is there anyway."""
        return self

    def about(self) -> dict[str, Any]:
        """The task, its metric and labels."""
        spec = glue.spec(self.data)
        named = {"task": self.data.task, "metric": spec.metric, "labels": list(self.labels)}
        return named | {"positive": self.labels.index(spec.labels[1])}

    def read(self, split: str) -> Labelled:
        """The text of a whole split."""
        return labelled.read_whole(self.data, split)

    def encode(self, text: Labelled, *, training: bool = False) -> Examples:
        """Token ids, cut to the maximum length."""
        return encode(self.tokenizer, text, self.labels, self.data.max_length, types=self.types)

    def kept(self, examples: Examples, masks: int) -> tuple[Fixed, dict[str, Items]]:
        """Labels; loss, predicted label and the confidence in it under each mask."""
        return _of_labels(examples, masks)

    def postprocess(self, examples: Examples) -> Postprocess:
        """Everything is kept as it is."""
        return as_they_are


def _of_labels(examples: Examples | EncodedItems, masks: int) -> tuple[Fixed, dict[str, Items]]:
    """What is kept of examples that have a label."""
    axes, shape = ("mask", "example"), (masks, len(examples))
    types = {"loss": "float32", "prediction": "int32", "confidence": "float32"}
    items = {name: Items(axes, shape, dtype) for name, dtype in types.items()}
    fixed = {"label": examples.label_N, "origin": examples.origin_N}
    return {name: (("example",), array) for name, array in fixed.items()}, items


@dataclasses.dataclass(frozen=True)
class ParallelCorpus:
    """Sentence pairs to translate."""

    data: ParallelData
    codec: Codec
    metric: str
    tokenize: str
    decoding: Decoding
    """How translations are made, if the metric needs them."""
    labels: ClassVar = ()
    leaves_out: ClassVar = True
    apart: ClassVar = True

    def task(self, config: Seq2SeqConfig) -> Translation:
        """Cross-entropy under teacher forcing, and translations."""
        return Translation(config, self.decoding if self.translates else None)

    def by_loss(self) -> ParallelCorpus:
        """Judged by the loss, so that nothing is translated."""
        return dataclasses.replace(self, metric="loss")

    def about(self) -> dict[str, Any]:
        """The languages, the metric and, for those of text, sacreBLEU's signatures."""
        named = {
            "task": f"{self.data.source}-{self.data.target}",
            "metric": self.metric,
            "tokenize": self.tokenize,
        }
        return named | {
            "signatures": {metric.name: metric.signature() for metric in self._metrics()}
        }

    @property
    def translates(self) -> bool:
        """Whether the metric needs the model's translations."""
        return metric_of({"metric": self.metric, "tokenize": self.tokenize}).of_translations

    def _metrics(self) -> tuple[TextMetric, ...]:
        """What is counted of each translation; nothing if none is made."""
        return (TextMetric("bleu", self.tokenize), TextMetric("chrf")) if self.translates else ()

    def read(self, split: str) -> Parallel:
        """The text of a whole split."""
        return read_whole(self.data, split)

    def encode(self, text: Parallel, *, training: bool = False) -> Pairs:
        """Token ids; over-long pairs are left out of training, and cut otherwise."""
        return encode_pairs(self.codec, text, self.data.max_length, drop=training)

    def kept(self, examples: Pairs, masks: int) -> tuple[Fixed, dict[str, Items]]:
        """Numbers of target tokens; loss, right tokens and n-gram counts under each mask."""
        axes, shape = ("mask", "example"), (masks, len(examples))
        items = {"loss": Items(axes, shape, "float32"), "correct": Items(axes, shape, "int32")}
        for metric in self._metrics():
            counts = metric.statistics([""], [""]).shape[1]
            items[metric.name] = Items((*axes, "count"), (*shape, counts), "int32")
        tokens_N = np.array([len(target) for target in examples.target], np.int32)
        return {
            "tokens": (("example",), tokens_N),
            "origin": (("example",), examples.origin_N),
        }, items

    def postprocess(self, examples: Pairs) -> Postprocess:
        """Translations become text, and the n-grams that they share with their references are
        counted."""

        def counted(batch: Batch, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            kept = {name: values[name] for name in ("loss", "correct")}
            if self._metrics():
                references = [examples.reference[n] for n in batch["index_B"]]
                texts = [
                    [self.codec.decode(ids_T) for ids_T in ids_BT]
                    for ids_BT in values["translation"]
                ]
                for metric in self._metrics():
                    kept[metric.name] = np.stack(
                        [metric.statistics(text, references) for text in texts]
                    )
            return kept

        return counted


@dataclasses.dataclass(frozen=True)
class DocumentCorpus:
    """Documents to predict, token by token."""

    data: DocumentData
    tokenizer: Tokenizer
    metric: str
    separator: int | None = None
    """The token between documents that are packed; None: they are not."""
    labels: ClassVar = ()
    leaves_out: ClassVar = False

    @property
    def apart(self) -> bool:
        """Unless documents are packed."""
        return self.separator is None

    def task(self, config: DecoderConfig) -> LanguageModel:
        """Cross-entropy of each token given those before it."""
        return LanguageModel(config)

    def by_loss(self) -> DocumentCorpus:
        """The same: the loss is there anyway."""
        return self

    def about(self) -> dict[str, Any]:
        """The metric, and what an example is."""
        example = "document" if self.apart else "window"
        return {"task": "language modelling", "metric": self.metric, "example": example}

    def read(self, split: str) -> Documents:
        """The documents of a whole split."""
        return documents.read_whole(self.data, split)

    def encode(self, text: Documents, *, training: bool = False) -> Windows:
        """Token ids, in windows."""
        if self.data.layout == "lambada":
            return encode_last_words(self.tokenizer, text, self.data.max_length)
        room = self.data.max_length, self.data.stride
        if self.separator is not None:
            return pack_documents(self.tokenizer, text, *room, separator=self.separator)
        return encode_documents(self.tokenizer, text, *room)

    def kept(self, examples: Windows, masks: int) -> tuple[Fixed, dict[str, Items]]:
        """Numbers of tokens, words and bytes that are predicted, and the place of the document;
        loss and right tokens under each mask."""
        axes, shape = ("mask", "example"), (masks, len(examples))
        items = {"loss": Items(axes, shape, "float32"), "correct": Items(axes, shape, "int32")}
        fixed = {
            "tokens": (examples.length_N - examples.given_N).astype(np.int32),
            "words": examples.words_N,
            "bytes": examples.bytes_N,
            "origin": examples.origin_N,
        }
        return {name: (("example",), array) for name, array in fixed.items()}, items

    def postprocess(self, examples: Windows) -> Postprocess:
        """Everything is kept as it is."""
        return as_they_are


@dataclasses.dataclass(frozen=True)
class ChoiceCorpus:
    """Items of multiple choice."""

    data: ChoiceData
    tokenizer: Tokenizer
    metric: str
    choices: int
    """C, the most that an item has."""
    leaves_out: ClassVar = False
    apart: ClassVar = True

    @property
    def labels(self) -> tuple[str, ...]:
        """The numbers of the choices."""
        return tuple(map(str, range(self.choices)))

    def task(self, config: DecoderConfig) -> MultipleChoice | Patched:
        """Cross-entropy of the right choice, and the choice that is made; with heads removed, or
        patched."""
        task = MultipleChoice(config, self.choices)
        return Patched(task) if self.data.removed == "counterfactual" else task

    def by_loss(self) -> ChoiceCorpus:
        """The same: the loss is there anyway."""
        return self

    def about(self) -> dict[str, Any]:
        """The layout, its metric, what is there of a head that is off, and the numbers of the
        choices."""
        named = {"task": self.data.layout, "metric": self.metric, "example": "item"}
        named |= {"removed": self.data.removed}
        return named | {"labels": list(self.labels), "positive": 1}

    def read(self, split: str) -> ChoiceItems:
        """The items of a whole split."""
        return choices.read_whole(self.data, split)

    def encode(self, text: ChoiceItems, *, training: bool = False) -> EncodedItems:
        """Token ids of each choice after what is before it."""
        encoded = encode_items(
            self.tokenizer,
            text,
            self.data.max_length,
            prefix=self.data.prefix,
            by_length=self.data.normalize == "characters",
        )
        if encoded.choices > self.choices:
            raise ValueError(
                f"{text.file} has an item of {encoded.choices} choices, but {self.choices} are the "
                "most: say how many there are with --data.choices"
            )
        return dataclasses.replace(encoded, choices=self.choices)

    def kept(self, examples: EncodedItems, masks: int) -> tuple[Fixed, dict[str, Items]]:
        """Labels; loss, predicted choice, the confidence in it and the logit difference under each
        mask."""
        fixed, items = _of_labels(examples, masks)
        return fixed, items | {"logit_difference": items["loss"]}

    def postprocess(self, examples: EncodedItems) -> Postprocess:
        """Everything is kept as it is."""
        return as_they_are
