"""A model with its tokenizer or codec, from a folder of hp_jax or of another library; and back into a folder of hp_jax."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
from tokenizers import Tokenizer

from hp_jax.checkpoint import is_model, load_params, save_model
from hp_jax.config import BertConfig, Seq2SeqConfig
from hp_jax.data.codec import Codec, load_codec
from hp_jax.data.tokenizer import load_tokenizer, save_tokenizer
from hp_jax.files import check_free, read_json
from hp_jax.models.classification import Classification
from hp_jax.models.translation import Translation
from hp_jax.task import Params
from hp_jax.weights.fairseq import load_fairseq
from hp_jax.weights.files import find_folder
from hp_jax.weights.hf_bert import load_hf_bert
from hp_jax.weights.hf_marian import load_hf_marian
from hp_jax.weights.marian import load_marian

Config = TypeVar("Config", BertConfig, Seq2SeqConfig)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that can read text, without data."""

    config: BertConfig | Seq2SeqConfig
    params: Params
    text: Tokenizer | Codec
    """A classifier's tokenizer, a translation model's codec."""

    @property
    def task(self) -> Classification | Translation:
        """What can be computed with it."""
        return Classification(self.config) if isinstance(self.config, BertConfig) else Translation(self.config)

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """A model folder of hp_jax, config.json with `about` last."""
        if isinstance(self.text, Tokenizer):
            save_tokenizer(folder, self.text)
        else:
            self.text.save(folder)
        save_model(folder, dataclasses.asdict(self.config), self.params, about=about)


def load_model(model: str, *, dtype: str = "float32", attention: str = "xla") -> Model:
    """Any trained model: a folder of hp_jax, or of another library that is supported, or a name on the Hugging Face hub."""
    folder = find_folder(model)
    raw = read_json(folder / "config.json") if (folder / "config.json").is_file() else {"model_type": "marian"}
    translates = "target_vocab" in raw.get("config", {}) if is_model(folder) else raw.get("model_type") == "marian"
    if translates:
        return Model(*load_translator(model, dtype=dtype, attention=attention))
    return Model(*load_classifier(model, labels=(), seed=0, fresh=False, dtype=dtype, attention=attention))


def load_classifier(
    model: str, *, labels: Sequence[str], seed: int, fresh: bool, dtype: str = "float32", attention: str = "xla"
) -> tuple[BertConfig, Params, Tokenizer]:
    """Config, parameters and tokenizer of `model`.

    A Hugging Face model without a classifier gets a fresh one for `labels` (from `seed`) if `fresh`, and is refused if not.
    ValueError if the model's labels are not `labels`, those of the data; (): any will do.
    """
    folder = find_folder(model)
    if not is_model(folder):
        key = jax.random.key(seed)
        config, params = load_hf_bert(folder, labels=labels, key=key, fresh=fresh, dtype=dtype, attention=attention)
        return config, params, load_tokenizer(folder)
    described = read_json(folder / "config.json")
    config = _config(BertConfig, described, folder, dtype=dtype, attention=attention)
    if labels and set(config.labels) != set(labels):
        raise ValueError(f"{folder} has the labels {config.labels}, but the data has {tuple(labels)}")
    abstract = jax.eval_shape(Classification(config).init, jax.random.key(0))
    return config, load_params(folder, described, abstract), load_tokenizer(folder)


def load_translator(model: str, *, dtype: str = "float32", attention: str = "xla") -> tuple[Seq2SeqConfig, Params, Codec]:
    """Config, parameters and codec of `model`: a folder of hp_jax, of Hugging Face's Marian, of Marian or of fairseq."""
    folder = find_folder(model)
    if is_model(folder):
        described = read_json(folder / "config.json")
        config = _config(Seq2SeqConfig, described, folder, dtype=dtype, attention=attention)
        abstract = jax.eval_shape(Translation(config).init, jax.random.key(0))
        return config, load_params(folder, described, abstract), load_codec(folder)
    if (folder / "config.json").is_file():
        return load_hf_marian(folder, dtype=dtype, attention=attention)
    if list(folder.glob("*.pt")):
        return load_fairseq(folder, dtype=dtype, attention=attention)
    if list(folder.glob("*.npz")) + list(folder.glob("*.bin")):
        return load_marian(folder, dtype=dtype, attention=attention)
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise FileNotFoundError(
        f"{folder} has no translation model: expected a config.json (hp_jax, Hugging Face), a .pt file (fairseq), or a .npz or "
        f".bin file (Marian), but found {found}"
    )


def _config(kind: type[Config], described: dict[str, Any], folder: Path, **compute: str) -> Config:
    """The model's config as its config.json has it, lists as tuples, for another computation."""
    try:
        saved = described["config"].items()
        raw: dict[str, Any] = {name: _as_tuple(value) for name, value in saved}
        return kind(**raw | compute)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = {BertConfig: "classifier", Seq2SeqConfig: "translation model"}[kind]
        raise ValueError(f"{folder}/config.json does not describe a {what}: {error}") from error


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def convert(model: str, folder: Path, *, force: bool = False) -> None:
    """A model of another library as a model folder of hp_jax; ValueError if there is something already, unless `force`."""
    check_free(folder, force=force)
    load_model(model).save(folder, {"converted from": model})
