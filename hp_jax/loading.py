"""A classifier with its tokenizer, from an hp_jax model folder, a Hugging Face folder or a hub name; and back into a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from tokenizers import Tokenizer

from hp_jax.checkpoint import is_model, load_params, save_model
from hp_jax.config import BertConfig
from hp_jax.data.tokenizer import load_tokenizer
from hp_jax.files import read_json
from hp_jax.models.classification import Classification
from hp_jax.task import Params
from hp_jax.weights.files import find_folder
from hp_jax.weights.hf_bert import load_hf_bert


def load_classifier(
    model: str, *, labels: Sequence[str], seed: int, fresh: bool, dtype: str = "float32", attention: str = "xla"
) -> tuple[BertConfig, Params, Tokenizer]:
    """Config, parameters and tokenizer of `model`.

    A Hugging Face model without a classifier gets a fresh one for `labels` (from `seed`) if `fresh`, and is refused if not.
    ValueError if the model's labels are not those of the data.
    """
    folder = find_folder(model)
    if not is_model(folder):
        key = jax.random.key(seed)
        config, params = load_hf_bert(folder, labels=labels, key=key, fresh=fresh, dtype=dtype, attention=attention)
        return config, params, load_tokenizer(folder)
    described = read_json(folder / "config.json")
    try:
        raw = described["config"] | {"labels": tuple(described["config"]["labels"]), "dtype": dtype, "attention": attention}
        config = BertConfig(**raw)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder}/config.json does not describe a classifier: {error}") from error
    if set(config.labels) != set(labels):
        raise ValueError(f"{folder} has the labels {config.labels}, but the data has {tuple(labels)}")
    abstract = jax.eval_shape(Classification(config).init, jax.random.key(0))
    return config, load_params(folder, described, abstract), load_tokenizer(folder)


def save_classifier(folder: Path, config: BertConfig, params: Params, tokenizer: Tokenizer, about: dict[str, Any]) -> None:
    """An hp_jax model folder: `params/`, `tokenizer.json` and, last, `config.json` with `about`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_model(folder, dataclasses.asdict(config), params, about=about)
