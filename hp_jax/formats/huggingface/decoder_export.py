"""Decoder-only language models as Hugging Face folders, which `from_pretrained` loads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from hp_jax.architecture import DecoderConfig, Decoding, present_mask
from hp_jax.formats.huggingface import decoder, decoder_config
from hp_jax.formats.reading import Options
from hp_jax.formats.slots import collect
from hp_jax.formats.writing import check_held, write_tensors
from hp_jax.removal import pad_heads, remove_heads
from hp_jax.storage.files import write_json
from hp_jax.task import Params
from hp_jax.text.huggingface import plain_settings, save_tokenizer

CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}


def save_hf_decoder(
    folder: Path,
    config: DecoderConfig,
    params: Params,
    tokenizer: Tokenizer,
    decoding: Decoding | None = None,
) -> None:
    """config.json, generation_config.json, model.safetensors, tokenizer.json and
    tokenizer_config.json, as transformers 4 and 5 read them.

    All layers have as many heads of keys and values there as the one that has most, with as many
    query heads each; what a layer lacks is filled with zeros.  (GPT-2 has a head for every 1/H of
    its width, so there zeros stand where heads were removed.)  Heads have new numbers, in the same
    order.  ValueError, before anything is written, for a model that its family in transformers
    cannot be.
    """
    config, params = (pad_heads if config.family == "gpt2" else _levelled)(config, params)
    config = _spelled_out(config)
    raw = json.loads(json.dumps(_settings(config, tokenizer)))
    check_held(
        config,
        lambda: decoder_config.read_config(raw, Options(config.dtype, config.kernel), Path()),
        f"a Hugging Face {CLASSES[config.family]}",
        unused=() if config.local else ("window",),
    )
    tensors: dict[str, np.ndarray] = {}
    for some, transposed in decoder.slots(config):
        tensors |= collect(params, some, transposed=transposed)
    save_tokenizer(folder, tokenizer)
    write_json(folder / "tokenizer_config.json", _tokenizer_settings(config, tokenizer))
    ends = {name: raw[name] for name in ("bos_token_id", "eos_token_id")}
    write_json(folder / "generation_config.json", ends)
    write_tensors(folder / "model.safetensors", _named(tensors, config), format="pt")
    write_json(folder / "config.json", raw)


def _levelled(config: DecoderConfig, params: Params) -> tuple[DecoderConfig, Params]:
    """The same function with as few heads of zeros as make all layers and groups alike."""
    size = config.heads // config.key_heads
    heads_LGS = present_mask(config).reshape(config.layers, config.key_heads, size)
    groups_LG: np.ndarray = np.any(heads_LGS, axis=-1)
    count, most = max(1, groups_LG.sum(-1).max()), max(1, heads_LGS.sum(-1).max())
    used = _first_places(groups_LG, count)[..., None] & _first_places(heads_LGS, most)
    config, params = remove_heads(*pad_heads(config, params), used.reshape(config.layers, -1))
    heads, key_heads = int(count * most), int(count)
    return dataclasses.replace(config, heads=heads, key_heads=key_heads, kept=()), params


def _first_places(there: np.ndarray, count: int) -> np.ndarray:
    """`count` places along the last axis: those that are there, then the first of the others."""
    rank = np.argsort(np.argsort(~there, axis=-1, kind="stable"), axis=-1)
    return rank < count


def _spelled_out(config: DecoderConfig) -> DecoderConfig:
    """The same model, with what config.json of its family always says."""
    if config.family.startswith("gemma") and not config.query_scale:
        config = dataclasses.replace(config, query_scale=config.head_width)
    plain = not config.rotary_factors and config.rotary_scale == 1
    if config.family == "gemma3_text" and not config.local_base and plain:
        config = dataclasses.replace(config, local_base=config.rotary_base)
    return config


def _named(tensors: dict[str, np.ndarray], config: DecoderConfig) -> dict[str, np.ndarray]:
    """The tensors as they are in the file."""
    if decoder_config.is_scaled(config):
        tensors = {
            name: tensor - 1 if name.endswith("norm.weight") else tensor
            for name, tensor in tensors.items()
        }
    prefix = "model"
    if config.family == "gpt2":
        prefix = "transformer"
        for i in range(config.layers):
            for leaf in ("weight", "bias"):
                fused = f"h.{i}.attn.c_attn"
                parts = [
                    tensors.pop(f"{fused}.{part}.{leaf}") for part in decoder_config.ATTENTION[:3]
                ]
                tensors[f"{fused}.{leaf}"] = np.concatenate(parts, -1)
    return {
        name if name.startswith("lm_head.") else f"{prefix}.{name}": tensor
        for name, tensor in tensors.items()
    }


def _settings(config: DecoderConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json."""
    shared = {
        "model_type": config.family,
        "architectures": [CLASSES[config.family]],
        "vocab_size": config.vocab,
        "tie_word_embeddings": config.tied,
        "bos_token_id": _first(tokenizer),
        "eos_token_id": list(config.eos) if len(config.eos) > 1 else next(iter(config.eos), None),
        "pad_token_id": None,
    }
    if config.family == "gpt2":
        return shared | {
            "n_positions": config.positions,
            "n_embd": config.width,
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_inner": config.ffn,
            "activation_function": config.activation,
            "layer_norm_epsilon": config.epsilon,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        }
    return shared | {
        "max_position_embeddings": config.positions,
        "hidden_size": config.width,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_heads,
        "head_dim": config.head_width,
        "rms_norm_eps": config.epsilon,
        "attention_dropout": 0.0,
        "rope_theta": config.rotary_base,
        "rope_scaling": _rope_scaling(config),
        **_own_settings(config),
    }


def _own_settings(config: DecoderConfig) -> dict[str, Any]:
    """What a family has besides."""
    attention_bias = len(config.biases) == len(decoder_config.ATTENTION)
    types = [
        "sliding_attention" if i in config.local else "full_attention" for i in range(config.layers)
    ]
    if config.family.startswith("gemma"):
        gelu = {"gelu_new": "gelu_pytorch_tanh"}
        base = {"rope_local_base_freq": config.local_base} if config.local_base else {}
        return base | {
            "hidden_activation": gelu.get(config.activation, config.activation),
            "attention_bias": attention_bias,
            "query_pre_attn_scalar": _whole(config.query_scale),
            "attn_logit_softcapping": config.attention_softcap or None,
            "final_logit_softcapping": config.logit_softcap or None,
            "sliding_window": config.window or config.positions,
            "layer_types": types,
        }
    settings: dict[str, Any] = {"hidden_act": config.activation}
    if config.family == "llama":
        return settings | {"attention_bias": attention_bias, "mlp_bias": config.ffn_bias}
    if config.family == "mistral":
        return settings | {"sliding_window": config.window if config.local else None}
    if config.family == "qwen3":
        settings |= {"attention_bias": attention_bias}
    return settings | {
        "use_sliding_window": bool(config.local),
        "sliding_window": config.window if config.local else None,
        "max_window_layers": config.layers,
        "layer_types": types,
    }


def _whole(number: float) -> int | float:
    """An integer where it is one, as transformers 5 wants it."""
    return int(number) if number == int(number) else number


def _rope_scaling(config: DecoderConfig) -> dict[str, Any] | None:
    """Factors that are all the same are linear; others are those of longrope, for short and long
    texts alike."""
    factors, scale = config.rotary_factors, config.rotary_scale
    if not factors and scale == 1:
        return None
    if len({*factors}) == 1 and scale == 1:
        return {"rope_type": "linear", "factor": factors[0]}
    factors = factors or (1.0,) * (config.head_width // 2)
    return {
        "rope_type": "longrope",
        "short_factor": factors,
        "long_factor": factors,
        "factor": 1.0,
        "attention_factor": scale,
        "original_max_position_embeddings": config.positions,
    }


def _first(tokenizer: Tokenizer) -> int | None:
    """The token that the tokenizer puts before every text, if there is one."""
    made = tokenizer.encode("a")
    return made.ids[0] if any(made.special_tokens_mask[:1]) else None


def _tokenizer_settings(config: DecoderConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer_config.json."""
    ids = {"bos": _first(tokenizer), "eos": next(iter(config.eos), None)}
    special = {
        role: None if token is None else tokenizer.id_to_token(token) for role, token in ids.items()
    }
    return plain_settings(tokenizer, config.positions, special, ["input_ids", "attention_mask"])
