"""Hugging Face folders of decoder-only language models (config.json, model.safetensors and a
tokenizer): GPT-2, Llama, Mistral, Qwen2, Qwen3, Gemma 2 and 3, as hp_jax configs and parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from hp_jax.architecture import DecoderConfig
from hp_jax.formats.huggingface.decoder_config import (
    ATTENTION,
    is_scaled,
    read_config,
    with_ends,
)
from hp_jax.formats.reading import Options
from hp_jax.formats.slots import (
    Slot,
    Tensors,
    assign,
    check_layers,
    check_rest,
    check_values,
    renamed,
    take,
    unite,
)
from hp_jax.formats.tensors import read_tensors
from hp_jax.models.language import LanguageModel
from hp_jax.task import Params
from hp_jax.text.huggingface import load_decoder_tokenizer, without_beyond

_PREFIX = re.compile(r"^(module\.|_orig_mod\.|model\.|language_model\.|transformer\.)+")
"""What models and wrappers put before names."""
IGNORED = (
    r"h\.\d+\.attn\.(bias|masked_bias)",  # GPT-2's triangle
    r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
    r"(vision_tower|multi_modal_projector)\..*",  # of models that see pictures too
)
"""Tensors (without prefix) that a language model has no use for."""


def read(
    folder: Path, raw: Mapping[str, Any], options: Options
) -> tuple[DecoderConfig, Params, Tokenizer]:
    """A language model with its tokenizer; see `load_hf_decoder` and
    `load_decoder_tokenizer`."""
    config, params = load_hf_decoder(folder, raw, options)
    return config, params, without_beyond(load_decoder_tokenizer(folder), config.vocab, folder)


# --- tensors -------------------------------------------------------------------------------------


def load_hf_decoder(
    folder: Path, raw: Mapping[str, Any], options: Options
) -> tuple[DecoderConfig, Params]:
    """The model alone, of which `raw` is config.json; float32 parameters.

    ValueError names a setting that is not supported, or a tensor that is missing, misshaped,
    unknown or not of finite numbers; ignored tensors are named in the log.
    """
    config = read_config(with_ends(raw, folder), options, folder)
    tensors = renamed(read_tensors(folder), lambda name: _PREFIX.sub("", name), folder)
    layer = "h" if config.family == "gpt2" else "layers"
    check_layers(tensors, rf"{layer}\.(\d+)\.", config.layers, folder, "config.json")
    if config.tied:
        word = "wte.weight" if config.family == "gpt2" else "embed_tokens.weight"
        unite(tensors, (word, "lm_head.weight"), folder)
    if config.family == "gpt2":
        _split(tensors, config, folder)
    if is_scaled(config):
        _add_one(tensors, folder)
    params = jax.eval_shape(LanguageModel(config).init, jax.random.key(0))
    for some, transposed in slots(config):
        assign(
            params,
            some,
            tensors,
            folder,
            settings="config.json",
            transposed=transposed,
            mesh=options.mesh,
        )
    check_rest(tensors, IGNORED, f"a {config.family} of {config.layers} layers", folder)
    return config, params


def _split(tensors: Tensors, config: DecoderConfig, folder: Path) -> None:
    """GPT-2's queries, keys and values, which are one tensor, by names of their own."""
    for i in range(config.layers):
        for leaf, shape in (
            ("weight", (config.width, 3 * config.width)),
            ("bias", (3 * config.width,)),
        ):
            fused = f"h.{i}.attn.c_attn"
            name, tensor = take(tensors, Slot((), f"{fused}.{leaf}", shape), folder, "config.json")
            for part, piece in zip(ATTENTION, np.split(tensor, 3, -1), strict=False):
                tensors[f"{fused}.{part}.{leaf}"] = name, piece


def _add_one(tensors: Tensors, folder: Path) -> None:
    for short, (name, tensor) in tensors.items():
        if short.endswith("norm.weight"):
            check_values(name, tensor, folder)
            tensors[short] = name, tensor.astype(np.float32) + 1


_GPT2_NAMES = {
    "attention/query": "attn.c_attn.query",
    "attention/key": "attn.c_attn.key",
    "attention/value": "attn.c_attn.value",
    "attention/out": "attn.c_proj",
    "attention_norm": "ln_1",
    "ffn_norm": "ln_2",
    "ffn/inner": "mlp.c_fc",
    "ffn/outer": "mlp.c_proj",
}
_NAMES = {
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/out": "self_attn.o_proj",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn/inner": "mlp.up_proj",
    "ffn/gate": "mlp.gate_proj",
    "ffn/outer": "mlp.down_proj",
}
_SCALED_NAMES = _NAMES | {
    "attention_out_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_out_norm": "post_feedforward_layernorm",
}
"""hp_jax module below a layer -> Hugging Face's."""


def slots(config: DecoderConfig) -> Iterator[tuple[Sequence[Slot], bool]]:
    """Every parameter of a model with all its heads, with its place in the file (GPT-2's queries,
    keys and values apart), and whether kernels are `[outputs, inputs]` there."""
    gpt2 = config.family == "gpt2"
    word, position, last = ("wte", "wpe", "ln_f") if gpt2 else ("embed_tokens", "", "norm")
    width = config.width
    output = Slot(("output", "kernel"), "lm_head.weight", (config.vocab, width))
    found = [Slot(("word", "embedding"), f"{word}.weight", (config.vocab, width))]
    if not config.rotary_base:
        found += [Slot(("position", "embedding"), f"{position}.weight", (config.positions, width))]
    for i in range(config.layers):
        found += _layer(config, (f"layer_{i}",), f"{'h' if gpt2 else 'layers'}.{i}")
    found += _norm(config, ("norm",), last, width)
    yield found, not gpt2
    yield ([] if config.tied else [output]), True


def _layer(config: DecoderConfig, path: tuple[str, ...], prefix: str) -> Iterator[Slot]:
    names = _GPT2_NAMES if config.family == "gpt2" else _NAMES
    names = _SCALED_NAMES if is_scaled(config) else names
    width, ffn = config.width, config.ffn
    queries, keys = (heads * config.head_width for heads in (config.heads, config.key_heads))
    dense = {
        "attention/query": (queries, width),
        "attention/key": (keys, width),
        "attention/value": (keys, width),
        "attention/out": (width, queries),
        "ffn/inner": (ffn, width),
        "ffn/gate": (ffn, width),
        "ffn/outer": (width, ffn),
    }
    for name, shape in dense.items():
        module, _, part = name.partition("/")
        if part == "gate" and not config.gated:
            continue
        at, where = (*path, module, part), f"{prefix}.{names[name]}"
        kernel = shape[::-1] if config.family == "gpt2" else shape
        yield Slot((*at, "kernel"), f"{where}.weight", kernel)
        if part in config.biases or (module == "ffn" and config.ffn_bias):
            yield Slot((*at, "bias"), f"{where}.bias", shape[:1])
    norms = {"attention_norm": width, "ffn_norm": width}
    if config.norm_outputs:
        norms |= {"attention_out_norm": width, "ffn_out_norm": width}
    if config.norm_queries:
        norms |= {"query_norm": config.head_width, "key_norm": config.head_width}
    for name, size in norms.items():
        yield from _norm(config, (*path, name), f"{prefix}.{names[name]}", size)


def _norm(config: DecoderConfig, path: tuple[str, ...], name: str, size: int) -> Iterator[Slot]:
    yield Slot((*path, "scale"), f"{name}.weight", (size,))
    if config.norm == "layer":
        yield Slot((*path, "bias"), f"{name}.bias", (size,))
