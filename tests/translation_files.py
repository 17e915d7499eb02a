"""Tiny translation models' files, as Hugging Face and fairseq write them, and what a test changes
in them."""

import argparse
import json

import numpy as np
from safetensors.numpy import load_file, save_file

V, D, F, LAYERS = 12, 8, 10, 2
SETTINGS = {
    "model_type": "marian",
    "vocab_size": V,
    "d_model": D,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": F,
    "decoder_ffn_dim": F,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": V - 1,
    "eos_token_id": 0,
    "decoder_start_token_id": V - 1,
}
ARGS = {
    "arch": "transformer_iwslt_de_en",
    "task": "translation",
    "source_lang": "de",
    "target_lang": "en",
    "encoder_embed_dim": D,
    "decoder_embed_dim": D,
    "encoder_ffn_embed_dim": F,
    "decoder_ffn_embed_dim": F,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_learned_pos": False,
    "decoder_learned_pos": False,
    "encoder_normalize_before": False,
    "decoder_normalize_before": False,
    "share_all_embeddings": True,
    "adaptive_softmax_cutoff": None,
    "encoder_layerdrop": 0.1,
}
ATTENTION = {"q_proj": (D, D), "k_proj": (D, D), "v_proj": (D, D), "out_proj": (D, D)}


def layers():
    """Random tensors of the layers, as fairseq and Hugging Face name them today."""
    random = np.random.default_rng(0)
    tensors = {}

    def dense(name, shape):
        tensors[f"{name}.weight"] = random.normal(size=shape).astype(np.float32)
        tensors[f"{name}.bias"] = random.normal(size=shape[:1]).astype(np.float32)

    for side, attentions in (
        ("encoder", ["self_attn"]),
        ("decoder", ["self_attn", "encoder_attn"]),
    ):
        for layer in (f"{side}.layers.{i}" for i in range(LAYERS)):
            for name in attentions:
                for part, shape in ATTENTION.items():
                    dense(f"{layer}.{name}.{part}", shape)
                dense(f"{layer}.{name}_layer_norm", (D,))
            dense(f"{layer}.fc1", (F, D))
            dense(f"{layer}.fc2", (D, F))
            dense(f"{layer}.final_layer_norm", (D,))
    return tensors


EMBEDDING = np.random.default_rng(1).normal(size=(V, D)).astype(np.float32)


def write_marian(folder):
    """A folder in Hugging Face's form; returns a function that changes its tensors and settings."""
    tensors = {f"model.{name}": tensor for name, tensor in layers().items()}
    tensors |= {"model.shared.weight": EMBEDDING, "final_logits_bias": np.ones((1, V), np.float32)}
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    save_file(tensors, folder / "model.safetensors")

    def change(more=(), without=(), **settings):
        tensors = load_file(folder / "model.safetensors") | dict(more)
        save_file(
            {name: tensor for name, tensor in tensors.items() if name not in without},
            folder / "model.safetensors",
        )
        (folder / "config.json").write_text(json.dumps(SETTINGS | settings))

    return change


def write_fairseq(path):
    """A .pt file in fairseq's form; returns a function that writes it again with other tensors and
    settings."""
    import torch

    def change(more=(), without=(), cfg=None, **settings):
        tensors = (
            layers()
            | {"encoder.embed_tokens.weight": EMBEDDING, "decoder.embed_tokens.weight": EMBEDDING}
            | dict(more)
        )
        model = {
            name: torch.tensor(tensor) for name, tensor in tensors.items() if name not in without
        }
        where = (
            {"args": argparse.Namespace(**ARGS | settings)}
            if cfg is None
            else {"args": None, "cfg": cfg}
        )
        torch.save(where | {"model": model, "extra_state": {"epoch": 1}}, path)

    change()
    return change


def write_parallel(folder, **counts):
    """Sentences of letters, translated letter by letter into words."""
    words = dict(
        zip("abcdefgh", ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen"], strict=True)
    )
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for split, count in counts.items():
        lines = [random.choice(list(words), random.integers(2, 6)) for _ in range(count)]
        (folder / f"{split}.xx").write_text("".join(" ".join(line) + "\n" for line in lines))
        (folder / f"{split}.yy").write_text(
            "".join(" ".join(words[c] for c in line) + "\n" for line in lines)
        )
