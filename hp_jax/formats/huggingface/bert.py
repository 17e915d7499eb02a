"""Hugging Face BERT, RoBERTa and DistilBERT folders (config.json + model.safetensors) as hp_jax
configs and parameters."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from tokenizers import Tokenizer

from hp_jax.architecture import BertConfig
from hp_jax.formats.reading import Options
from hp_jax.formats.slots import Slot, assign, check_rest
from hp_jax.formats.tensors import read_tensors
from hp_jax.models.classification import Classification
from hp_jax.models.layers import ACTIVATIONS
from hp_jax.task import Params
from hp_jax.text.tokenizer import load_tokenizer

log = logging.getLogger("hp_jax")

IGNORED = (
    r"embeddings\.(position_ids|token_type_ids)",
    r"(cls|lm_head|vocab_\w+|qa_outputs|generator_\w+)\..*",
    r"pooler\..*",  # a pooler that the classifier does not use: RoBERTa's
)
"""Tensors (without model prefix) that a classifier has no use for."""


VARIANTS = {
    "bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
    "distilbert": "distilbert",
}
"""`BertConfig.family` by Hugging Face's model_type."""


def read(
    folder: Path, raw: Mapping[str, Any], options: Options
) -> tuple[BertConfig, Params, Tokenizer]:
    """A classifier with its tokenizer; see `load_hf_bert` and `load_tokenizer`."""
    config, params = load_hf_bert(folder, raw, options)
    return config, params, load_tokenizer(folder)


def load_hf_bert(
    folder: Path, raw: Mapping[str, Any], options: Options
) -> tuple[BertConfig, Params]:
    """A classifier from a Hugging Face folder, of which `raw` is config.json; float32 parameters.

    If the file has no classifier, one for `options.labels` is initialised if that is wanted, and a
    warning says so. If it has one, its label names are those of config.json, or `labels` where that
    only says LABEL_0, LABEL_1, ... Heads that config.json calls `pruned_heads` are not in the file,
    and the others keep their numbers. ValueError names a tensor that is missing, misshaped or
    unknown; ignored tensors are named in the log.
    """
    labels = options.labels
    tensors = {_plain_name(name): (name, tensor) for name, tensor in read_tensors(folder).items()}
    family = variant_of(raw, folder)
    trained = _slot_names(family)["classifier"] + ".weight" in tensors
    chosen = labels_of(raw, labels, folder) if trained else tuple(labels)
    if not trained and not options.fresh:
        raise ValueError(
            f"{folder} has no trained classifier ({_slot_names(family)['classifier']}.weight): "
            "fine-tune it first"
        )
    if not chosen:
        raise ValueError(
            f"{folder} has no classifier, so the labels of a fresh one are needed, but none were "
            "given"
        )
    config = read_config(raw, family, chosen, options.dtype, options.kernel, folder)
    wanted, init = list(slots(config)), Classification(config).init
    absent = [
        slot
        for slot in wanted
        if slot.path[0] in ("pool", "classifier") and slot.name not in tensors
    ]
    key = jax.random.key(options.seed)
    params = init(key) if absent else jax.eval_shape(init, key)
    assign(
        params,
        [slot for slot in wanted if slot not in absent],
        tensors,
        folder,
        settings="config.json",
    )
    if absent:
        log.warning(
            "%s has no %s: initialised afresh", folder, ", ".join(slot.name for slot in absent)
        )
    check_rest(tensors, IGNORED, f"a {config.family} of {config.layers} layers", folder)
    return config, params


def _plain_name(name: str) -> str:
    """A tensor's name without the model prefix, and with today's LayerNorm names."""
    name = re.sub(r"^(bert|roberta|distilbert)\.", "", name)
    return re.sub(
        r"LayerNorm\.gamma$",
        "LayerNorm.weight",
        re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name),
    )


def variant_of(raw: Mapping[str, Any], folder: Path) -> str:
    """`BertConfig.family` of config.json; ValueError for another architecture."""
    kind = raw.get("model_type", "bert")
    if kind not in VARIANTS:
        raise ValueError(
            f"{folder}/config.json says model_type {kind!r}; supported are {', '.join(VARIANTS)}"
        )
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"{folder}/config.json says position_embedding_type "
            f"{raw['position_embedding_type']!r}, not absolute"
        )
    return VARIANTS[kind]


def labels_of(raw: Mapping[str, Any], labels: Sequence[str], folder: Path) -> tuple[str, ...]:
    """The trained classifier's label names."""
    names = raw.get("id2label") or {str(i): f"LABEL_{i}" for i in range(raw.get("num_labels", 2))}
    return match_labels(tuple(str(names[i]) for i in sorted(names, key=int)), labels, folder)


def with_labels(config: BertConfig, options: Options, folder: Path) -> BertConfig:
    """The config with its labels in the data's spelling; ValueError if they are not the data's."""
    labels = match_labels(config.labels, options.labels, folder)
    return dataclasses.replace(config, labels=labels)


def match_labels(own: tuple[str, ...], labels: Sequence[str], folder: Path) -> tuple[str, ...]:
    """A trained classifier's labels in the spelling of the data's `labels` (if there are any),
    which replace LABEL_0, ...

    ValueError if they are not the same labels.
    """
    if labels and len(labels) != len(own):
        raise ValueError(
            f"{folder} classifies into {len(own)} labels {own}, but the data has {len(labels)}: "
            f"{tuple(labels)}"
        )
    if labels and all(re.fullmatch(r"LABEL_\d+", name) for name in own):
        return tuple(labels)
    if labels and {name.lower() for name in own} != {name.lower() for name in labels}:
        raise ValueError(f"{folder} has the labels {own}, but the data has {tuple(labels)}")
    by_lower = {name.lower(): name for name in labels}
    return tuple(by_lower.get(name.lower(), name) for name in own)


def read_config(
    raw: Mapping[str, Any],
    family: str,
    labels: tuple[str, ...],
    dtype: str,
    kernel: str,
    folder: Path,
) -> BertConfig:
    """The config of a classifier that config.json describes; ValueError names what is missing there
    or not supported."""
    distil = family == "distilbert"

    def get(bert_name: str, distil_name: str) -> Any:
        name = distil_name if distil else bert_name
        if name not in raw:
            raise ValueError(f"{folder}/config.json has no {name}")
        return raw[name]

    activation = raw.get("activation" if distil else "hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{folder}/config.json has the activation {activation!r}; supported are "
            f"{', '.join(ACTIVATIONS)}"
        )
    dropout = raw.get("dropout" if distil else "hidden_dropout_prob", 0.1)
    layers, heads = get("num_hidden_layers", "n_layers"), get("num_attention_heads", "n_heads")
    return BertConfig(
        family=family,  # type: ignore[arg-type]
        labels=labels,
        vocab=get("vocab_size", "vocab_size"),
        positions=get("max_position_embeddings", "max_position_embeddings"),
        types=0 if distil else raw.get("type_vocab_size", 2),
        layers=layers,
        heads=heads,
        kept=_kept(raw.get("pruned_heads") or {}, layers, heads, folder),
        width=get("hidden_size", "dim"),
        ffn=get("intermediate_size", "hidden_dim"),
        pad=raw.get("pad_token_id", 1 if family == "roberta" else 0),
        activation=activation,
        epsilon=1e-12 if distil else raw.get("layer_norm_eps", 1e-12),
        dropout=dropout,
        attention_dropout=raw.get(
            "attention_dropout" if distil else "attention_probs_dropout_prob", 0.1
        ),
        classifier_dropout=raw.get("seq_classif_dropout", 0.2)
        if distil
        else _first(raw.get("classifier_dropout"), dropout),
        dtype=dtype,  # type: ignore[arg-type]
        kernel=kernel,  # type: ignore[arg-type]
    )


def _kept(
    pruned: dict[str, list[int]], layers: int, heads: int, folder: Path
) -> tuple[tuple[int, ...], ...]:
    """The heads that are left in each layer; () if none is `pruned`."""
    for layer, gone in pruned.items():
        if (
            layer not in map(str, range(layers))
            or not isinstance(gone, list)
            or not set(gone) <= set(range(heads))
        ):
            raise ValueError(
                f"{folder}/config.json has pruned_heads {gone} of layer {layer}, but {layers} "
                f"layers of {heads} heads"
            )
    kept = (
        tuple(head for head in range(heads) if head not in pruned.get(str(layer), ()))
        for layer in range(layers)
    )
    return tuple(kept) if any(pruned.values()) else ()


def _first(value: float | None, default: float) -> float:
    return default if value is None else value


def _slot_names(family: str) -> dict[str, str]:
    """hp_jax module (below the layer, for those of a layer) -> Hugging Face module."""
    if family == "distilbert":
        return {
            "attention/query": "attention.q_lin",
            "attention/key": "attention.k_lin",
            "attention/value": "attention.v_lin",
            "attention/out": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "ffn/inner": "ffn.lin1",
            "ffn/outer": "ffn.lin2",
            "ffn_norm": "output_layer_norm",
            "layer": "transformer.layer",
            "pool": "pre_classifier",
            "classifier": "classifier",
        }
    return {
        "attention/query": "attention.self.query",
        "attention/key": "attention.self.key",
        "attention/value": "attention.self.value",
        "attention/out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "ffn/inner": "intermediate.dense",
        "ffn/outer": "output.dense",
        "ffn_norm": "output.LayerNorm",
        "layer": "encoder.layer",
        "pool": "classifier.dense" if family == "roberta" else "pooler.dense",
        "classifier": "classifier.out_proj" if family == "roberta" else "classifier",
    }


def slots(config: BertConfig) -> Iterator[Slot]:
    """Every parameter of the model with its place in the file; of attention, those of the heads
    that are left."""
    names, width, ffn = _slot_names(config.family), config.width, config.ffn

    def dense(path: tuple[str, ...], name: str, outputs: int, inputs: int) -> Iterator[Slot]:
        yield Slot((*path, "kernel"), f"{name}.weight", (outputs, inputs))
        yield Slot((*path, "bias"), f"{name}.bias", (outputs,))

    def norm(path: tuple[str, ...], name: str) -> Iterator[Slot]:
        yield Slot((*path, "scale"), f"{name}.weight", (width,))
        yield Slot((*path, "bias"), f"{name}.bias", (width,))

    tables = {
        "word": ("word_embeddings", config.vocab),
        "position": ("position_embeddings", config.positions),
    }
    if config.types:
        tables["type"] = ("token_type_embeddings", config.types)
    for table, (name, size) in tables.items():
        yield Slot(("embeddings", table, "embedding"), f"embeddings.{name}.weight", (size, width))
    yield from norm(("embeddings", "norm"), "embeddings.LayerNorm")
    head_width = config.modules["enc.0"].head_width
    for i, heads in enumerate(config.heads_per_row.values()):
        layer, prefix = f"layer_{i}", f"{names['layer']}.{i}"
        for part in ("query", "key", "value") if heads else ():
            yield from dense(
                (layer, "attention", part),
                f"{prefix}.{names['attention/' + part]}",
                heads * head_width,
                width,
            )
        out = dense(
            (layer, "attention", "out"),
            f"{prefix}.{names['attention/out']}",
            width,
            heads * head_width,
        )
        yield from (slot for slot in out if heads or slot.path[-1] == "bias")
        yield from norm((layer, "attention_norm"), f"{prefix}.{names['attention_norm']}")
        yield from dense((layer, "ffn", "inner"), f"{prefix}.{names['ffn/inner']}", ffn, width)
        yield from dense((layer, "ffn", "outer"), f"{prefix}.{names['ffn/outer']}", width, ffn)
        yield from norm((layer, "ffn_norm"), f"{prefix}.{names['ffn_norm']}")
    yield from dense(("pool",), names["pool"], width, width)
    yield from dense(("classifier",), names["classifier"], len(config.labels), width)
