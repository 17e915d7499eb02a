"""Tiny models and data on which the properties are tested."""

import dataclasses
import json

import jax
import numpy as np
from safetensors.numpy import save_file

from hp_jax import heads
from hp_jax.architecture import BertConfig
from hp_jax.data.batching import batches
from hp_jax.formats.families import family_of
from hp_jax.formats.huggingface import bert
from hp_jax.formats.huggingface.bert import slots
from hp_jax.formats.model import load_model
from hp_jax.formats.reading import Options
from hp_jax.models.classification import Classification
from hp_jax.sharding import device_mesh
from hp_jax.storage.files import read_json
from hp_jax.text.tokenizer import Examples

CONFIG = BertConfig(
    family="bert",
    labels=("a", "b", "c"),
    vocab=50,
    positions=24,
    types=2,
    layers=2,
    heads=4,
    width=16,
    ffn=24,
    epsilon=1e-6,
)
TASK = Classification(CONFIG)
FULL = heads.all_on(2, 4)
ONE_DEVICE = device_mesh(jax.devices()[:1])
BUCKETS = (8, 16)


def random_params(task=TASK, seed=0, scale=0.4):
    """Parameters large enough that every head matters, biases and LayerNorm included."""
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        value = random.normal(size=leaf.shape) * scale
        return (value + (path[-1].key == "scale")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def examples(count=13, seed=1, longest=14, classes=3, vocab=50):
    """Random token sequences of mixed length with random labels."""
    random = np.random.default_rng(seed)
    tokens = tuple(
        random.integers(1, vocab, random.integers(3, longest + 1)).astype(np.int32)
        for _ in range(count)
    )
    types = tuple((np.arange(len(ids)) >= len(ids) // 2).astype(np.int32) for ids in tokens)
    label_N = random.integers(0, classes, count).astype(np.int32)
    return Examples("tiny", "train", tokens, types, label_N, np.arange(count))


def batched(data, size=4, buckets=BUCKETS):
    return batches(data, size=size, buckets=buckets)


def with_config(**changes):
    return Classification(dataclasses.replace(CONFIG, **changes))


WORDS = (
    "good",
    "great",
    "fine",
    "bad",
    "awful",
    "poor",
    "the",
    "film",
    "is",
    "was",
    "a",
    "very",
    "##ly",
    ".",
)


def write_hf_folder(folder, *, head=False, **changes):
    """A random BertModel in Hugging Face's form whose vocabulary is WORDS; returns its config."""
    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    settings = {
        "labels": ("negative", "positive"),
        "vocab": len(vocabulary),
        "positions": 32,
    } | changes
    config = dataclasses.replace(CONFIG, **settings)
    raw = {
        "model_type": "bert",
        "vocab_size": config.vocab,
        "max_position_embeddings": config.positions,
        "type_vocab_size": config.types,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "hidden_size": config.width,
        "intermediate_size": config.ffn,
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    random = np.random.default_rng(0)
    tensors = {}
    for slot in slots(config):
        if head or slot.path[0] != "classifier":
            tensors[f"bert.{slot.name}"] = (
                random.normal(size=slot.shape) * 0.15 + (slot.path[-1] == "scale")
            ).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    return config


def write_sst2(folder, *, train=192, validation=24):
    """SST-2's files, with sentences whose label is the tone of one word."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, count in (("train.tsv", train), ("dev.tsv", validation)):
        lines = ["sentence\tlabel"]
        for _ in range(count):
            label = int(random.integers(2))
            tone = WORDS[int(random.integers(3)) + 3 * (1 - label)]
            words = [
                "the",
                "film",
                "is",
                *(["very"] * int(random.integers(4))),
                tone,
                *(["."] * int(random.integers(2))),
            ]
            lines.append(f"{' '.join(words)} \t{label}")
        (folder / name).write_text("\n".join(lines) + "\n")


def config_file(tmp_path, config):
    """A config file as a user writes it; its path."""
    path = tmp_path / "tiny.py"
    path.write_text(f"from hp_jax.config import *\nconfig = {config!r}\n")
    return str(path)


def load_hf_bert(folder, labels=(), *, fresh=True):
    """A Hugging Face folder's config and parameters, whether it has a tokenizer or not."""
    options = Options(labels=tuple(labels), fresh=(lambda: tuple(labels)) if fresh else None)
    return bert.load_hf_bert(folder, read_json(folder / "config.json"), options)


def load_classifier(name, labels):
    """Config, parameters and tokenizer of a trained classifier for these labels."""
    model = load_model(str(name), Options(labels=tuple(labels)), family=family_of(CONFIG))
    return model.config, model.params, model.text
