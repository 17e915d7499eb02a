"""The families of models, a line each: everything that differs between them is reached from here.

To add a family: its config in `hp_jax.architecture`, one file with the model and its task in
`hp_jax.models`, a reader (and what writers there are) in `hp_jax.formats`, and a line here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hp_jax.architecture import BertConfig, DecoderConfig, ModelConfig, Seq2SeqConfig
from hp_jax.formats import stablehlo
from hp_jax.formats.fairseq.read import load_fairseq
from hp_jax.formats.fairseq.write import save_fairseq
from hp_jax.formats.gguf.read import load_gguf
from hp_jax.formats.huggingface import bert, decoder, decoder_config, marian
from hp_jax.formats.huggingface.bert_export import save_hf_bert
from hp_jax.formats.huggingface.decoder_export import save_hf_decoder
from hp_jax.formats.huggingface.marian_export import save_hf_marian
from hp_jax.formats.marian.read import load_marian
from hp_jax.formats.marian.write import save_marian
from hp_jax.formats.reading import Options
from hp_jax.models.classification import Classification
from hp_jax.models.language import LanguageModel
from hp_jax.models.translation import Translation
from hp_jax.task import ModelTask
from hp_jax.text.codec import check_codec
from hp_jax.text.huggingface import (
    check_ids,
    check_tokens,
    load_decoder_tokenizer,
    load_tokenizer,
    save_tokenizer,
)
from hp_jax.text.loading import load_codec

Raw = Mapping[str, Any]
"""A folder's config.json; {} if there is none."""
Parts = tuple[Any, Any, Any]
"""Config, parameters and text side."""


class Reader(NamedTuple):
    """Another library's folders: what they are recognised by, and how they are read."""

    read: Callable[[Path, Raw, Options], Parts]
    model_types: tuple[str, ...] = ()
    """In config.json, of Hugging Face."""
    files: tuple[str, ...] = ()
    """Patterns of file names, of a folder without config.json."""
    library: str = "Hugging Face"

    def knows(self, folder: Path, raw: Raw) -> bool:
        """Whether this is such a folder; config.json that names no model_type is BERT's."""
        if raw:
            return raw.get("model_type", "bert") in self.model_types
        return any(path for one in self.files for path in folder.glob(one))


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of model; its config says where its attention modules are and what heads cost."""

    name: str
    config: type[ModelConfig]
    task: Callable[[Any], ModelTask]
    """What can be computed with a model of such a config."""
    load_text: Callable[[Path], Any]
    save_text: Callable[[Path, Any], None]
    check_text: Callable[[Any, Any, Path], object]
    """(text, config, folder): ValueError if the text side has token ids that the model has not."""
    readers: tuple[Reader, ...]
    writers: Mapping[str, Callable[..., None]]
    """By format: (folder, config, params, text, decoding)."""
    program: Callable[..., stablehlo.Program] | None = None
    """(config, decoding, source length): what an exported program computes; None: there is none."""
    translates: bool = False
    """Whether its task has `translate`."""
    fit: Callable[[Any, Options, Path], Any] = lambda config, options, folder: config
    """(config, options, folder): the config of a model of hp_jax as the options want it."""


def _alone(load: Callable[[Path, Options], Parts]) -> Callable[[Path, Raw, Options], Parts]:
    """A reader of folders that have no config.json."""
    return lambda folder, raw, options: load(folder, options)


FAMILIES = (
    Family(
        "classifier",
        BertConfig,
        Classification,
        load_tokenizer,
        save_tokenizer,
        check_tokens,
        readers=(Reader(bert.read, tuple(bert.VARIANTS)),),
        writers={"hf": save_hf_bert, "hf-ragged": partial(save_hf_bert, ragged=True)},
        program=stablehlo.classifier,
        fit=bert.with_labels,
    ),
    Family(
        "translation model",
        Seq2SeqConfig,
        Translation,
        load_codec,
        lambda folder, codec: codec.save(folder),
        check_codec,
        readers=(
            Reader(marian.read, ("marian",)),
            Reader(_alone(load_fairseq), files=("*.pt",), library="fairseq"),
            Reader(_alone(load_marian), files=("*.npz", "*.bin"), library="Marian"),
        ),
        writers={"hf": save_hf_marian, "fairseq": save_fairseq, "marian": save_marian},
        program=stablehlo.translator,
        translates=True,
    ),
    Family(
        "language model",
        DecoderConfig,
        LanguageModel,
        load_decoder_tokenizer,
        save_tokenizer,
        check_ids,
        readers=(
            Reader(decoder.read, decoder_config.MODEL_TYPES),
            Reader(_alone(load_gguf), files=("*.gguf",), library="llama.cpp"),
        ),
        writers={"hf": save_hf_decoder},
        program=stablehlo.language_model,
    ),
)


def family_of(config: ModelConfig) -> Family:
    """The family of a config."""
    return next(family for family in FAMILIES if type(config) is family.config)


def family_named(name: str) -> Family:
    """The family of that name; ValueError if there is none."""
    for family in FAMILIES:
        if family.name == name:
            return family
    names = ", ".join(family.name for family in FAMILIES)
    raise ValueError(f"there is no family {name!r}; the families are {names}")


def family_with(settings: Mapping[str, Any]) -> Family:
    """The family whose config these settings are best, of a file that does not name one."""

    def fit(family: Family) -> tuple[int, int]:
        names = {field.name for field in dataclasses.fields(family.config)}
        return len(names & set(settings)), -len(names - set(settings))

    return max(FAMILIES, key=fit)


def task_of(config: ModelConfig) -> ModelTask:
    """What can be computed with a model of that config."""
    return family_of(config).task(config)
