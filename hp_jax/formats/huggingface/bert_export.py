"""BERT, RoBERTa and DistilBERT classifiers as Hugging Face folders, which `from_pretrained`
loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from hp_jax.architecture import BertConfig, Decoding, present_mask
from hp_jax.formats.huggingface import bert
from hp_jax.formats.reading import Options
from hp_jax.formats.slots import collect
from hp_jax.formats.writing import check_held, write_tensors
from hp_jax.removal import pad_heads, remove_heads
from hp_jax.storage.files import write_json
from hp_jax.task import Params
from hp_jax.text.huggingface import plain_settings, save_tokenizer

CLASSES = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}
_SPECIAL = {
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}


def save_hf_bert(
    folder: Path,
    config: BertConfig,
    params: Params,
    tokenizer: Tokenizer,
    decoding: Decoding,
    *,
    ragged: bool = False,
) -> None:
    """config.json, model.safetensors, tokenizer.json and tokenizer_config.json of a sequence
    classifier.

    ragged: the heads that were removed are `pruned_heads` in config.json and not in the file.
    transformers 4 loads that; version 5 has no pruned heads any more.  A layer without any head,
    which transformers cannot run, keeps head 0, of zeros.

    Otherwise heads of zeros stand where heads were removed: any version loads it, and it has the
    size that the model had first.  (No class of transformers can have fewer heads of the same
    width: a head's width is the model's, divided by the number of heads.)

    XLM-RoBERTa, which differs from RoBERTa in nothing but its tokenizer, becomes RoBERTa.
    ValueError, before anything is written, for a model that transformers does not have.
    """
    config, params = (_without_empty_rows if ragged else pad_heads)(config, params)
    raw = _settings(config)
    check_held(config, lambda: _read(raw, config), f"a Hugging Face {CLASSES[config.family]}")
    tensors = collect(params, bert.slots(config))
    own = ("classifier.", "pre_classifier.")
    named = {
        name if name.startswith(own) else f"{config.family}.{name}": tensor
        for name, tensor in tensors.items()
    }
    save_tokenizer(folder, tokenizer)
    write_json(folder / "tokenizer_config.json", _tokenizer_settings(config, tokenizer))
    write_tensors(folder / "model.safetensors", named, format="pt")
    write_json(folder / "config.json", raw)


def _without_empty_rows(config: BertConfig, params: Params) -> tuple[BertConfig, Params]:
    mask_AH = present_mask(config)
    mask_AH[~mask_AH.any(1), 0] = True
    return remove_heads(*pad_heads(config, params), mask_AH)


def _read(raw: dict[str, Any], config: BertConfig) -> BertConfig:
    """The config as it will be read again."""
    raw, folder = json.loads(json.dumps(raw)), Path()
    family, labels = bert.variant_of(raw, folder), bert.labels_of(raw, (), folder)
    return bert.read_config(raw, family, labels, Options(config.dtype, config.kernel), folder)


def _settings(config: BertConfig) -> dict[str, Any]:
    """config.json; what has a default in transformers that nothing here depends on is left out."""
    gone = {
        str(i): [h for h in range(config.heads) if h not in kept]
        for i, kept in enumerate(config.kept)
    }
    shared = {
        "model_type": config.family,
        "architectures": [f"{CLASSES[config.family]}ForSequenceClassification"],
        "id2label": {str(i): label for i, label in enumerate(config.labels)},
        "label2id": {label: i for i, label in enumerate(config.labels)},
        "vocab_size": config.vocab,
        "max_position_embeddings": config.positions,
        "pad_token_id": config.pad,
    } | (
        {"pruned_heads": {layer: heads for layer, heads in gone.items() if heads}}
        if config.kept
        else {}
    )
    if config.family == "distilbert":
        return shared | {
            "n_layers": config.layers,
            "n_heads": config.heads,
            "dim": config.width,
            "hidden_dim": config.ffn,
            "activation": config.activation,
            "dropout": config.dropout,
            "attention_dropout": config.attention_dropout,
            "seq_classif_dropout": config.classifier_dropout,
            "sinusoidal_pos_embds": False,
        }
    return shared | {
        "type_vocab_size": config.types,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "hidden_size": config.width,
        "intermediate_size": config.ffn,
        "hidden_act": config.activation,
        "layer_norm_eps": config.epsilon,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "classifier_dropout": config.classifier_dropout,
    }


def _tokenizer_settings(config: BertConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer_config.json."""
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    names = {"pad": (tokenizer.id_to_token(config.pad),), **_SPECIAL}
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    special = {
        kind: next((name for name in some if name in added), None) for kind, some in names.items()
    }
    length = config.positions - config.first_position
    given = inputs if config.types > 1 else [name for name in inputs if "type" not in name]
    return plain_settings(tokenizer, length, special, given)
