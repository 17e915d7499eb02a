"""The same classifier in transformers and here, and the same batches for both."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import torch
import transformers
from material import LABELS, SHAPES, Text

from hp_jax.data.batching import Batch
from hp_jax.formats.huggingface.bert import load_hf_bert
from hp_jax.formats.reading import Options
from hp_jax.models.classification import Classification
from hp_jax.storage.files import read_json
from hp_jax.task import Params
from hp_jax.text.huggingface import load_tokenizer

Inputs = dict[str, torch.Tensor]


class Pair(NamedTuple):
    """One set of weights on both sides."""

    theirs: transformers.PreTrainedModel
    task: Classification
    params: Params


def prepare() -> None:
    """Both sides get all cores, and float32 arithmetic on any device."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    jax.config.update("jax_default_matmul_precision", "highest")
    transformers.logging.set_verbosity_error()


def torch_device() -> torch.device:
    """The kind of device that JAX has."""
    return torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")


def draw(model: torch.nn.Module, seed: int, width: int, *, but: Sequence[str] = ()) -> None:
    """Random weights large enough that every head matters, but for parameters whose name has one of
    the words."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not any(word in name for word in but):
                norm = "norm.weight" in name.lower()
                parameter.normal_(float(norm), 0.1 if norm or parameter.ndim == 1 else width**-0.5)


def load_pair(text: Text) -> Pair:
    """The classifier that `text` asks for. Attention is eager: transformers' other kernels have no
    head masks."""
    names = {
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: i for i, label in enumerate(LABELS)},
    }
    options = names | {"attn_implementation": "eager"}
    torch.manual_seed(text.seed)
    if text.shape == "own":
        model = transformers.BertForSequenceClassification.from_pretrained(text.model, **options)
        model.classifier.weight.data.normal_(0, model.config.hidden_size**-0.5)
    else:
        layers, heads, width = SHAPES[text.shape]
        options |= {"vocab_size": load_tokenizer(text.model).get_vocab_size()}
        sizes = {
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "hidden_size": width,
            "intermediate_size": 4 * width,
        }
        model = transformers.BertForSequenceClassification(
            transformers.BertConfig(**sizes, **options)
        )
        draw(model, text.seed, width)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        raw = read_json(Path(folder) / "config.json")
        config, params = load_hf_bert(Path(folder), raw, Options(labels=LABELS))
    return Pair(model.eval().to(torch_device()), Classification(config), jax.device_put(params))


def inputs(batch: Batch) -> Inputs:
    """A batch for transformers, without the rows of padding."""
    real = np.flatnonzero(batch["weight_B"])
    attend_BT = np.arange(batch["tokens_BT"].shape[1]) < batch["length_B"][:, None]
    arrays = {
        "input_ids": batch["tokens_BT"],
        "token_type_ids": batch["types_BT"],
        "attention_mask": attend_BT,
        "labels": batch["label_B"],
    }
    return {
        name: torch.tensor(array[real]).long().to(torch_device()) for name, array in arrays.items()
    }
