"""Tiny language models of every architecture as GGUF files, which the library gguf writes: its
methods name the settings, and llama.cpp's conversion the order of rotated numbers."""

import functools

import jax
import numpy as np
from gguf import GGUFWriter, RopeScalingType
from gguf.constants import GGMLQuantizationType, GGUFValueType
from gguf.quants import quantize

from hp_jax.architecture import DecoderConfig
from hp_jax.models.decoder import Decoder
from hp_jax.models.language import LanguageModel

VOCAB = 40
TOKENS = [
    "<unk>",
    "<s>",
    "</s>",
    *(chr(ord("a") + i) for i in range(VOCAB - 5)),
    "ab",
    "abc",
]
SIZES = {
    "vocab": VOCAB,
    "layers": 2,
    "width": 32,
    "ffn": 64,
    "heads": 4,
    "key_heads": 2,
    "head_width": 8,
    "positions": 24,
    "epsilon": 1e-5,
    "eos": (2,),
}
GEMMA = {
    "head_width": 16,
    "norm_outputs": True,
    "activation": "gelu_new",
    "embedding_scale": 32**0.5,
    "epsilon": 1e-6,
}
CONFIGS = {
    "llama": {"family": "llama", "rotary_base": 1e5},
    "qwen2": {
        "family": "qwen2",
        "rotary_base": 1e6,
        "tied": False,
        "biases": ("query", "key", "value"),
        "epsilon": 1e-6,
    },
    "qwen3": {"family": "qwen3", "rotary_base": 1e6, "norm_queries": True, "head_width": 16},
    "gpt2": {
        "family": "gpt2",
        "key_heads": 4,
        "norm": "layer",
        "biases": ("query", "key", "value", "out"),
        "ffn_bias": True,
        "gated": False,
        "activation": "gelu_new",
        "rotary_base": 0.0,
    },
    "gemma2": GEMMA
    | {
        "family": "gemma2",
        "local": (0,),
        "window": 5,
        "attention_softcap": 50.0,
        "logit_softcap": 30.0,
    },
    "gemma3": GEMMA
    | {
        "family": "gemma3_text",
        "layers": 7,
        "norm_queries": True,
        "rotary_base": 1e6,
        "rotary_factors": (8.0,) * 8,
        "local": (0, 1, 2, 3, 4, 6),
        "window": 5,
        "local_base": 1e4,
    },
}
"""By architecture."""
LLAMA3 = CONFIGS["llama"] | {"rotary_factors": (1.0, 1.0, 2.5, 8.0)}
"""With the factors of Llama 3."""
BIASED = CONFIGS["llama"] | {"biases": ("query", "key", "value", "out"), "ffn_bias": True}


def make_config(architecture="llama", **changes):
    """A tiny config."""
    return DecoderConfig(**SIZES | CONFIGS[architecture] | changes)


@functools.cache
def make_params(config, seed=0):
    """Random parameters, norms around 1."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(LanguageModel(config).init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (random.normal(0, 0.3, leaf.shape) + (path[-1].key == "scale")).astype(
            np.float32
        ),
        shapes,
    )


def logits(config, params, tokens_BT):
    """Of a model with all its heads."""
    return np.array(Decoder(config).apply({"params": params}, tokens_BT, [1.0] * config.layers))


def permute(weights, heads):
    """As llama.cpp's conversion does it with the queries and keys of Llama."""
    rows = weights.shape[0] // heads // 2
    return weights.reshape(heads, 2, rows, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def make_tensors(architecture, config, params):
    """By GGUF's names, outputs first."""
    tensors = {"token_embd.weight": params["word"]["embedding"]}

    def add(name, module):
        for leaf, value in module.items():
            tensors[f"{name}.{'bias' if leaf == 'bias' else 'weight'}"] = value

    if "position" in params:
        tensors["position_embd.weight"] = params["position"]["embedding"]
    add("output_norm", params["norm"])
    if "output" in params:
        tensors["output.weight"] = params["output"]["kernel"].T
    if config.rotary_factors and architecture == "llama":
        tensors["rope_freqs.weight"] = np.array(config.rotary_factors, np.float32)
    for i in range(config.layers):
        layer, blk = params[f"layer_{i}"], f"blk.{i}"
        for ours, name in {
            "attention_norm": "attn_norm",
            "ffn_norm": "ffn_norm",
            "attention_out_norm": "post_attention_norm",
            "ffn_out_norm": "post_ffw_norm",
            "query_norm": "attn_q_norm",
            "key_norm": "attn_k_norm",
        }.items():
            if ours in layer:
                add(f"{blk}.{name}", layer[ours])
        for ours, name in {"inner": "ffn_up", "gate": "ffn_gate", "outer": "ffn_down"}.items():
            if ours in layer["ffn"]:
                module = layer["ffn"][ours]
                add(f"{blk}.{name}", module | {"kernel": module["kernel"].T})
        parts = {}
        for ours, letter in {"query": "q", "key": "k", "value": "v"}.items():
            module = layer["attention"][ours]
            rows = {"weight": module["kernel"].reshape(config.width, -1).T}
            if "bias" in module:
                rows["bias"] = module["bias"].reshape(-1)
            if architecture == "llama" and letter in "qk":
                heads = config.heads if letter == "q" else config.key_heads
                rows = {leaf: permute(value, heads) for leaf, value in rows.items()}
            parts[letter] = rows
        if architecture == "gpt2":
            parts = {
                "qkv": {
                    leaf: np.concatenate([parts[letter][leaf] for letter in "qkv"])
                    for leaf in ("weight", "bias")
                }
            }
        for letter, rows in parts.items():
            tensors |= {f"{blk}.attn_{letter}.{leaf}": value for leaf, value in rows.items()}
        out = layer["attention"]["out"]
        kernel = out["kernel"].reshape(-1, config.width).T
        add(f"{blk}.attn_output", out | {"kernel": kernel})
    return tensors


def write_gguf(
    path,
    architecture,
    config,
    params,
    *,
    kind=GGMLQuantizationType.F32,
    vocabulary=None,
    changes=None,
    tensors=None,
):
    """Writes a file.

    kind: of matrices. vocabulary: its settings, by default a small one of SentencePiece's.
    changes: settings to set, or with None to leave out.  tensors: the same of tensors.
    """
    writer = GGUFWriter(path, architecture)
    writer.add_type("model")
    writer.add_name("tiny")
    writer.add_quantization_version(2)
    writer.add_context_length(config.positions)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(config.epsilon)
    else:
        writer.add_layer_norm_rms_eps(config.epsilon)
        writer.add_head_count_kv(config.key_heads)
        writer.add_rope_freq_base(config.rotary_base)
    if config.head_width != config.width // config.heads:
        writer.add_key_length(config.head_width)
        writer.add_value_length(config.head_width)
    if architecture == "llama":
        writer.add_rope_dimension_count(config.head_width)
        writer.add_vocab_size(config.vocab)
    if config.window:
        writer.add_sliding_window(config.window)
    if config.attention_softcap:
        writer.add_attn_logit_softcapping(config.attention_softcap)
        writer.add_final_logit_softcapping(config.logit_softcap)
    if architecture == "gemma3":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rotary_factors[0])
    if vocabulary is None:
        vocabulary = {
            "model": "llama",
            "pre": "default",
            "tokens": TOKENS,
            "scores": [-float(i) for i in range(len(TOKENS))],
            "token_type": [2, 3, 3] + [1] * (len(TOKENS) - 3),
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
    settings = {f"tokenizer.ggml.{name}": value for name, value in vocabulary.items()}
    for name, value in (settings | (changes or {})).items():
        for shard in writer.kv_data:
            shard.pop(name, None)
        if isinstance(value, list | tuple):
            writer.add_array(name, value)
        elif value is not None:
            kinds = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING"}
            writer.add_key_value(name, value, GGUFValueType[kinds[type(value)]])
    made = make_tensors(architecture, config, params) | (tensors or {})
    for name, value in made.items():
        if value is None:
            continue
        if isinstance(value, tuple):  # bytes of that type
            writer.add_tensor(name, value[0], raw_dtype=value[1])
            continue
        value = np.ascontiguousarray(value, np.float32)
        own = kind if value.ndim > 1 else GGMLQuantizationType.F32
        writer.add_tensor(name, quantize(value, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
