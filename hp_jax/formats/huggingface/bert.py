"""Hugging Face BERT, RoBERTa and DistilBERT folders (config.json + model.safetensors) as hp_jax
configs and parameters."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
from tokenizers import Tokenizer

from hp_jax.architecture import Activation, BertConfig
from hp_jax.formats.reading import Options, Supported, check_supported
from hp_jax.formats.slots import (
    Slot,
    Tensors,
    assign,
    check_layers,
    check_rest,
    renamed,
)
from hp_jax.formats.tensors import read_tensors
from hp_jax.models.classification import Classification
from hp_jax.task import Params
from hp_jax.text.huggingface import load_tokenizer
from hp_jax.typed import Amount, Count, Dropout, Layers, Natural, decode, located

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Labels:
    """What config.json says of the classes."""

    id2label: dict[str, str] | None = None
    num_labels: Count | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bert:
    """What config.json of BERT and RoBERTa says of the encoder."""

    ALIASES: ClassVar[Mapping[str, str]] = {}
    vocab_size: Count
    max_position_embeddings: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Layers
    num_attention_heads: Count
    type_vocab_size: Natural = 2
    pad_token_id: Natural | None = None
    hidden_act: Activation = "gelu"
    layer_norm_eps: Amount = 1e-12
    hidden_dropout_prob: Dropout = 0.1
    attention_probs_dropout_prob: Dropout = 0.1
    classifier_dropout: Dropout | None = None
    pruned_heads: dict[str, tuple[Natural, ...]] | None = None

    def settings(self) -> dict[str, Any]:
        """The same by our names."""
        dropout = self.hidden_dropout_prob
        return {
            "vocab": self.vocab_size,
            "positions": self.max_position_embeddings,
            "types": self.type_vocab_size,
            "layers": self.num_hidden_layers,
            "heads": self.num_attention_heads,
            "width": self.hidden_size,
            "ffn": self.intermediate_size,
            "activation": self.hidden_act,
            "epsilon": self.layer_norm_eps,
            "dropout": dropout,
            "attention_dropout": self.attention_probs_dropout_prob,
            "classifier_dropout": _first(self.classifier_dropout, dropout),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _DistilBert:
    """The same of DistilBERT."""

    ALIASES: ClassVar[Mapping[str, str]] = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
    }
    """Other names of settings."""
    vocab_size: Count
    max_position_embeddings: Count
    dim: Count
    hidden_dim: Count
    n_layers: Layers
    n_heads: Count
    pad_token_id: Natural | None = None
    activation: Activation = "gelu"
    dropout: Dropout = 0.1
    attention_dropout: Dropout = 0.1
    seq_classif_dropout: Dropout = 0.2
    pruned_heads: dict[str, tuple[Natural, ...]] | None = None

    def settings(self) -> dict[str, Any]:
        """The same by our names."""
        return {
            "vocab": self.vocab_size,
            "positions": self.max_position_embeddings,
            "types": 0,
            "layers": self.n_layers,
            "heads": self.n_heads,
            "width": self.dim,
            "ffn": self.hidden_dim,
            "activation": self.activation,
            "epsilon": 1e-12,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "classifier_dropout": self.seq_classif_dropout,
        }


SUPPORTED: Supported = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "problem_type": ("single_label_classification",),
    "auto_map": (None,),
    "quantization_config": (None,),
}
"""What else in config.json makes another function.  Nothing but this and the fields above is used
by transformers' models of these families when they compute logits."""
INERT = (
    *("architectures", "model_type", "label2id", "initializer_range", "sinusoidal_pos_embds"),
    *("chunk_size_feed_forward", "gradient_checkpointing", "attn_implementation", "use_cache"),
    *("output_attentions", "output_hidden_states", "return_dict", "torchscript", "qa_dropout"),
    *("dtype", "torch_dtype", "use_bfloat16", "tf_legacy_loss", "tie_word_embeddings"),
    *("tie_encoder_decoder", "cross_attention_hidden_size", "transformers_version", "prefix"),
    *("_name_or_path", "name_or_path", "_commit_hash", "finetuning_task", "tokenizer_class"),
    *("task_specific_params", "bos_token_id", "eos_token_id", "sep_token_id"),
    *("decoder_start_token_id", "attention_dropout", "classifier_dropout"),
)
"""What transformers reads of config.json and does not compute logits with."""
HEADS = ("SequenceClassification", "Model")
"""What a trained classifier is called in `architectures`, after the family's name and `For`."""
BASES = (*HEADS, "MaskedLM", "PreTraining", "NextSentencePrediction", "QuestionAnswering")
"""The same of what a new classifier can be put on."""


def load_hf_bert(
    folder: Path, raw: Mapping[str, Any], options: Options
) -> tuple[BertConfig, Params]:
    """A classifier from a Hugging Face folder, of which `raw` is config.json; float32 parameters.

    If the file has no classifier, one for `options.fresh()` is initialised if there is that, and a
    warning says so. If it has one, its label names are those of config.json, or `labels` where that
    only says LABEL_0, LABEL_1, ... Heads that config.json calls `pruned_heads` are not in the file,
    and the others keep their numbers. ValueError names a setting that is not supported, a tensor
    that is missing, misshaped, unknown or not of finite numbers; ignored tensors are named in the
    log.
    """
    family = variant_of(raw, folder)
    names = _slot_names(family)
    tensors = renamed(read_tensors(folder), _short, folder)
    _check_prefix(tensors, folder)
    trained = names["classifier"] + ".weight" in tensors
    _check_architecture(raw, HEADS if trained else BASES, folder)
    if not trained and options.fresh is None:
        raise ValueError(
            f"{folder} has no trained classifier ({names['classifier']}.weight): fine-tune it first"
        )
    trained_labels = functools.partial(labels_of, raw, options.labels, folder)
    chosen = (options.fresh if options.fresh and not trained else trained_labels)()
    if trained and len(chosen) == 1:
        raise ValueError(
            f"{folder} has one output, which is a number and not a class: expected a classifier "
            "of 2 labels or more"
        )
    config = read_config(raw, family, chosen, options, folder)
    check_layers(tensors, rf"{names['layer']}\.(\d+)\.", config.layers, folder, "config.json")
    init, key = Classification(config).init, jax.random.key(options.seed)
    params = jax.eval_shape(init, key)
    new = () if trained else ("pool", "classifier")
    assign(
        params,
        (slot for slot in slots(config) if slot.path[0] not in new or slot.name in tensors),
        tensors,
        folder,
        settings="config.json",
    )
    check_rest(tensors, IGNORED, f"a {config.family} of {config.layers} layers", folder)
    return config, _with_new(params, functools.partial(init, key), folder)


def _with_new(params: dict[str, Any], init: Callable[[], Params], folder: Path) -> Params:
    """The parameters, of which those that nothing was read for are new."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    absent = [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, leaf in leaves
        if isinstance(leaf, jax.ShapeDtypeStruct)
    ]
    if not absent:
        return params
    log.warning("%s has no %s: initialised afresh", folder, ", ".join(absent))
    return jax.tree.map(
        lambda read, new: new if isinstance(read, jax.ShapeDtypeStruct) else read, params, init()
    )


def _short(name: str) -> str:
    """A tensor's name without prefixes, and with today's LayerNorm names."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", _PREFIX.sub("", name))
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)


_PREFIX = re.compile(r"^(module\.|_orig_mod\.|model\.)*((bert|roberta|distilbert)\.)?")
"""What wrappers of data parallelism, compilation and trainers put before names, and the model's."""


def _check_prefix(tensors: Tensors, folder: Path) -> None:
    """ValueError if the word embedding, which each of these models has, is called otherwise."""
    word = "embeddings.word_embeddings.weight"
    if word not in tensors:
        like = next((name for name in tensors if name.endswith(word)), "")
        found = (
            f"{like}: take {like.removesuffix(word)!r} off the names" if like else "none like it"
        )
        raise ValueError(f"{folder}: expected the tensor {word}, but found {found}")


def _check_architecture(raw: Mapping[str, Any], heads: Sequence[str], folder: Path) -> None:
    """ValueError if config.json names a model with another head than one of `heads`."""
    where = f"{folder}/config.json"
    for name in decode(tuple[str, ...], raw.get("architectures") or (), f"{where}: architectures"):
        kind = re.sub(r"^[A-Za-z]*?(For(?=[A-Z])|(?=Model$))", "", name)
        if kind not in heads:
            raise ValueError(
                f"{where} says that this is a {name}; expected is a sentence classifier, "
                f"...For{' or ...'.join(heads)}"
            )


def variant_of(raw: Mapping[str, Any], folder: Path) -> str:
    """`BertConfig.family` of config.json; ValueError for another architecture or a setting that
    makes another function."""
    kind = raw.get("model_type", "bert")
    if kind not in VARIANTS:
        raise ValueError(
            f"{folder}/config.json says model_type {kind!r}; supported are {', '.join(VARIANTS)}"
        )
    check_supported(raw, SUPPORTED, f"{folder}/config.json")
    return VARIANTS[kind]


def labels_of(raw: Mapping[str, Any], labels: Sequence[str], folder: Path) -> tuple[str, ...]:
    """The trained classifier's label names."""
    where = f"{folder}/config.json"
    said = decode(_Labels, raw, where)
    names = said.id2label or {str(i): f"LABEL_{i}" for i in range(said.num_labels or 2)}
    if {*names} != {*map(str, range(len(names)))}:
        raise ValueError(
            f"{where}: id2label: expected the numbers 0 to {len(names) - 1}, but found "
            f"{', '.join(names)}"
        )
    return match_labels(tuple(names[str(i)] for i in range(len(names))), labels, folder)


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
        log.info(
            "%s does not name its labels (%s): its outputs are taken as %s, in this order "
            "(--data.labels gives another one)",
            folder,
            ", ".join(own),
            ", ".join(labels),
        )
        return tuple(labels)
    if labels and {name.lower() for name in own} != {name.lower() for name in labels}:
        raise ValueError(f"{folder} has the labels {own}, but the data has {tuple(labels)}")
    by_lower = {name.lower(): name for name in labels}
    return tuple(by_lower.get(name.lower(), name) for name in own)


def read_config(
    raw: Mapping[str, Any],
    family: str,
    labels: tuple[str, ...],
    options: Options,
    folder: Path,
) -> BertConfig:
    """The config of a classifier that config.json describes; ValueError names what is missing there
    or not supported."""
    where = f"{folder}/config.json"
    kind: Any = _DistilBert if family == "distilbert" else _Bert
    for alias, name in kind.ALIASES.items():
        if raw.get(name, raw.get(alias)) != raw.get(alias, raw.get(name)):
            raise ValueError(
                f"{where}: {name} is {raw[name]!r}, but {alias}, which means the same, is "
                f"{raw[alias]!r}"
            )
        raw = {name: raw[alias], **raw} if alias in raw else raw
    said = decode(kind, raw, where)
    fields = {field.name for one in (kind, _Labels) for field in dataclasses.fields(one)}
    unknown = sorted({*raw} - fields - {*SUPPORTED, *INERT, *kind.ALIASES})
    if unknown:
        log.info("%s: transformers' %s does not read %s", where, family, ", ".join(unknown))
    settings = said.settings()
    with located(where):
        config = BertConfig(
            family=family,  # type: ignore[arg-type]
            labels=labels,
            pad=_first(said.pad_token_id, 1 if family == "roberta" else 0),
            dtype=options.dtype,  # type: ignore[arg-type]
            kernel=options.kernel,  # type: ignore[arg-type]
            **settings,
        )
    return dataclasses.replace(config, kept=_kept(said.pruned_heads or {}, config, where))


def _kept(
    pruned: Mapping[str, Sequence[int]], config: BertConfig, where: str
) -> tuple[tuple[int, ...], ...]:
    """The heads that are left in each layer; () if none is `pruned`."""
    for layer, gone in pruned.items():
        if layer not in map(str, range(config.layers)) or max(gone, default=0) >= config.heads:
            raise ValueError(
                f"{where} has pruned_heads {list(gone)} of layer {layer}, but {config.layers} "
                f"layers of {config.heads} heads"
            )
    kept = (
        tuple(head for head in range(config.heads) if head not in pruned.get(str(layer), ()))
        for layer in range(config.layers)
    )
    return tuple(kept) if any(pruned.values()) else ()


def _first(value: Any, default: Any) -> Any:
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
