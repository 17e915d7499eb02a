"""Tiny models with their text sides, whole and without heads, for the tests of export."""

import dataclasses
import json

import jax
import numpy as np
import sentencepiece
from data_tokenizers import write_byte_level, write_word_pieces
from tiny import random_params, with_config
from tiny_marian import VARIANTS, make_tensors, make_vocabulary, write_npz
from tiny_translation import CONFIG, make_batch

from hp_jax import heads
from hp_jax.formats.model import Model, load_model
from hp_jax.models.translation import Translation
from hp_jax.removal import remove_heads
from hp_jax.text.fairseq import Fairseq
from hp_jax.text.huggingface import load_tokenizer
from hp_jax.text.marian import Marian

FAMILIES = {
    "bert": {"family": "bert"},
    "roberta": {
        "family": "roberta",
        "pad": 1,
        "types": 1,
        "epsilon": 1e-5,
        "activation": "gelu_new",
    },
    "distilbert": {"family": "distilbert", "types": 0, "epsilon": 1e-12},
}
LINES = ["the cat and the dog run", "a man is in a red car", "big birds fly"]


def without(model, mask_AH):
    """The model without the heads that are off."""
    return Model(*remove_heads(model.config, model.params, mask_AH), model.text)


def two_masks(present_AH):
    """Heads of all rows but one, which is empty; and fewer of them."""
    first_AH, second_AH = (
        np.asarray(heads.random_off(jax.random.key(4), present_AH, n, 1)[0]).copy() for n in (3, 6)
    )
    first_AH[1] = False
    return first_AH, first_AH & second_AH


def classifier(family, folder):
    """A classifier of three layers; its tokenizer is made in `folder`."""
    tokenizer = load_tokenizer(
        (write_byte_level if family == "roberta" else write_word_pieces)(folder)
    )
    task = with_config(layers=3, positions=40, vocab=tokenizer.get_vocab_size(), **FAMILIES[family])
    return Model(task.config, random_params(task), tokenizer)


def hf_marian(separate):
    """A model as Hugging Face's Marian has them, whose translations end early; two vocabularies if
    `separate`."""
    spm = make_vocabulary()
    pieces = sentencepiece.SentencePieceProcessor(model_proto=spm)
    names = [pieces.id_to_piece(i) for i in range(len(pieces))]
    source = json.dumps({name: i for i, name in enumerate([*names, "<pad>"])}).encode()
    target = (
        json.dumps(
            {name: i for i, name in enumerate([*names[:2], *names[:1:-1], "<pad>"])}
        ).encode()
        if separate
        else source
    )
    pad = len(names)
    special = {
        "source_vocab": pad + 1,
        "target_vocab": pad + 1,
        "eos": 0,
        "pad": pad,
        "start": pad,
        "never": (pad,),
    }
    other = {
        "share_source": not separate,
        "activation": "relu" if separate else "swish",
        "output_bias": True,
    }
    config = dataclasses.replace(CONFIG, **special, **other)
    params = random_params(Translation(config), seed=3)
    params["output_bias"][0] += 4
    return Model(config, params, Marian(spm, spm, source, target))


def marian(variant, folder):
    """A model of Marian's own file in `folder`."""
    folder.mkdir()
    (folder / "vocab.spm").write_bytes(make_vocabulary())
    write_npz(folder / "model.npz", make_tensors(VARIANTS[variant]), VARIANTS[variant])
    return load_model(str(folder))


def fairseq_text(config):
    """Letters, at the end of a word and before it, as dictionaries of the model's sizes."""
    letters = [f"{letter}{joined} 1\n" for joined in ("", "@@") for letter in "abcdefghijklm"]
    source, target = (
        "".join(letters[: size - 4]).encode() for size in (config.source_vocab, config.target_vocab)
    )
    return Fairseq("de", "en", b"#version: 0.2\nx y\n", source, target)


def batch_of_lines(model):
    """LINES as sources and, in another order, as targets."""
    sources, targets = model.text.encode_source(LINES), model.text.encode_target(LINES[::-1])
    return make_batch(
        sources, targets, pad=model.config.pad, width=max(map(len, [*sources, *targets]))
    )
