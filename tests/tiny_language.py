"""A tiny decoder-only model with grouped key/value heads, its tokenizer, and documents."""

import dataclasses
import json

import numpy as np
from tiny import random_params
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from hp_jax.architecture import DecoderConfig
from hp_jax.data.batching import batches
from hp_jax.formats.model import Model
from hp_jax.models.language import LanguageModel
from hp_jax.text.windows import Windows

CONFIG = DecoderConfig(
    family="llama",
    vocab=40,
    layers=3,
    width=16,
    ffn=24,
    heads=4,
    key_heads=2,
    head_width=6,
    positions=64,
)
TASK = LanguageModel(CONFIG)
KINDS = {
    "llama": {},
    "multi-query": {"key_heads": 1},
    "gpt2": {
        "key_heads": 4,
        "norm": "layer",
        "biases": ("query", "key", "value", "out"),
        "ffn_bias": True,
        "gated": False,
        "activation": "gelu_new",
        "rotary_base": 0.0,
    },
    "gemma": {
        "norm_outputs": True,
        "norm_queries": True,
        "local": (0, 2),
        "window": 3,
        "local_base": 100.0,
        "query_scale": 5.0,
        "attention_softcap": 2.0,
        "logit_softcap": 3.0,
        "embedding_scale": 4.0,
        "tied": False,
    },
    "scaled": {"rotary_factors": (1.0, 2.0, 4.0), "rotary_scale": 1.1, "biases": ("query",)},
}
"""What differs from CONFIG in models of all sorts."""


def of_kind(kind):
    return LanguageModel(dataclasses.replace(CONFIG, **KINDS[kind]))


def windows(count=9, seed=0, longest=12, vocab=CONFIG.vocab):
    """Random windows of mixed length, of which some are of one document."""
    random = np.random.default_rng(seed)
    tokens = tuple(
        random.integers(0, vocab, random.integers(2, longest + 1)).astype(np.int32)
        for _ in range(count)
    )
    given_N = np.array([random.integers(1, len(ids)) for ids in tokens], np.int32)
    count_N = np.array([len(ids) for ids in tokens], np.int32) - given_N
    return Windows("tiny", tokens, given_N, count_N, 3 * count_N, np.arange(count) // 2)


def batched(data, size=4, buckets=(8, 12)):
    return batches(data, size=size, buckets=buckets)


def tokenizer():
    """Bytes, and a few pairs of them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("a", "n"), ("\u0120", "the")]
    words = [*alphabet, *(first + second for first, second in merges)]
    made = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


WORDS = ("the", "an", "then", "at", "ant")


def write_language_model(folder, **changes):
    """A model folder of hp_jax, of CONFIG with the tokenizer's vocabulary."""
    own = tokenizer()
    config = dataclasses.replace(CONFIG, vocab=own.get_vocab_size(), positions=128, **changes)
    Model(config, random_params(LanguageModel(config), scale=0.3), own).save(folder, {})


def write_documents(folder, **counts):
    """A text file a split, of so many documents."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for split, count in counts.items():
        lines = [" ".join(random.choice(WORDS, random.integers(2, 14))) for _ in range(count)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")


def write_last_words(path, count):
    """Texts of a few words that end with one of two."""
    random = np.random.default_rng(0)
    texts = [
        " ".join([*random.choice(WORDS, random.integers(1, 6)), "an" if n % 6 == 5 else "the"])
        for n in range(count)
    ]
    path.write_text("\n".join(json.dumps({"text": text, "domain": None}) for text in texts) + "\n")


def write_patching(path, count):
    """Items of two choices; contexts and counterfactuals are the same words in any order."""
    random = np.random.default_rng(0)
    words = ["an", "at", "to"]
    items = [
        {
            "context": " ".join(random.permutation(words)),
            "counterfactual": " ".join(random.permutation(words)),
            "choices": ["the", "at"],
            "label": int(random.integers(2)),
        }
        for _ in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, items)) + "\n")


def write_items(path, count):
    """Items of two or three choices, of which one item has three."""
    random = np.random.default_rng(0)
    items = [
        {
            "context": " ".join(random.choice(WORDS, 3)),
            "choices": WORDS[: random.integers(2, 4) if n else 3],
            "label": int(random.integers(2)),
        }
        for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, items)) + "\n")
