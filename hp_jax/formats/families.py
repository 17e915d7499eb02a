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

from hp_jax.architecture import BertConfig, Heads, Seq2SeqConfig
from hp_jax.formats import stablehlo
from hp_jax.formats.fairseq.read import load_fairseq
from hp_jax.formats.fairseq.write import save_fairseq
from hp_jax.formats.huggingface import bert, marian
from hp_jax.formats.huggingface.bert_export import save_hf_bert
from hp_jax.formats.huggingface.marian_export import save_hf_marian
from hp_jax.formats.marian.read import load_marian
from hp_jax.formats.marian.write import save_marian
from hp_jax.formats.reading import Options
from hp_jax.models.classification import Classification
from hp_jax.models.translation import Translation
from hp_jax.text.loading import load_codec
from hp_jax.text.tokenizer import load_tokenizer, save_tokenizer

Raw = Mapping[str, Any]
"""A folder's config.json; {} if there is none."""
Parts = tuple[Any, Any, Any]
"""Config, parameters and text side."""


class Reader(NamedTuple):
    """Another library's folders."""

    what: str
    """What they are recognised by, for messages."""
    knows: Callable[[Path, Raw], bool]
    read: Callable[[Path, Raw, Options], Parts]


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of model; its config says where its attention modules are and what heads cost."""

    name: str
    config: type[Heads]
    task: Callable[[Any], Any]
    """What can be computed with a model of such a config; its `batch_shapes` is an example."""
    load_text: Callable[[Path], Any]
    save_text: Callable[[Path, Any], None]
    readers: tuple[Reader, ...]
    writers: Mapping[str, Callable[..., None]]
    """By format: (folder, config, params, text, decoding)."""
    program: Callable[..., stablehlo.Program]
    """(config, decoding, source length): what an exported program computes."""
    translates: bool = False
    """Whether its task has `translate`."""


def _of_type(*names: str) -> Callable[[Path, Raw], bool]:
    return lambda folder, raw: raw.get("model_type", "bert") in names if raw else False


def _with_file(*patterns: str) -> Callable[[Path, Raw], bool]:
    return lambda folder, raw: not raw and any(list(folder.glob(one)) for one in patterns)


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
        readers=(Reader(", ".join(bert.FAMILIES), _of_type(*bert.FAMILIES), bert.read),),
        writers={"hf": save_hf_bert, "hf-ragged": partial(save_hf_bert, ragged=True)},
        program=stablehlo.classifier,
    ),
    Family(
        "translation model",
        Seq2SeqConfig,
        Translation,
        load_codec,
        lambda folder, codec: codec.save(folder),
        readers=(
            Reader("marian", _of_type("marian"), marian.read),
            Reader("a .pt (fairseq)", _with_file("*.pt"), _alone(load_fairseq)),
            Reader(
                "a .npz or .bin file (Marian)", _with_file("*.npz", "*.bin"), _alone(load_marian)
            ),
        ),
        writers={"hf": save_hf_marian, "fairseq": save_fairseq, "marian": save_marian},
        program=stablehlo.translator,
        translates=True,
    ),
)


def family_of(config: Heads) -> Family:
    """The family of a config."""
    return next(family for family in FAMILIES if type(config) is family.config)


def family_with(settings: Mapping[str, Any]) -> Family:
    """The family of which these, from a file, are the config's settings: that which knows most of
    them."""
    return max(FAMILIES, key=lambda family: len(_fields(family) & set(settings)))


def _fields(family: Family) -> set[str]:
    return {field.name for field in dataclasses.fields(family.config)}


def task_of(config: Heads) -> Any:
    """What can be computed with a model of that config."""
    return family_of(config).task(config)
