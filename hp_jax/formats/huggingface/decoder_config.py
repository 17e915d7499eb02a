"""What config.json of a decoder-only language model of Hugging Face says, family by family, as a
`DecoderConfig`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hp_jax.architecture import Activation, DecoderConfig
from hp_jax.formats.huggingface import rotary
from hp_jax.formats.reading import Options, Supported, check_supported
from hp_jax.storage.files import read_json
from hp_jax.typed import Amount, Count, Layers, Natural, Positive, decode, located

log = logging.getLogger("hp_jax")

_Act = Activation | Literal["gelu_pytorch_tanh"]
Ids = Natural | tuple[Natural, ...] | None
ATTENTION: tuple[Literal["query", "key", "value", "out"], ...] = ("query", "key", "value", "out")
"""The projections of attention."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Gpt2:
    """What config.json of GPT-2 says, with transformers' defaults."""

    vocab_size: Count = 50257
    n_positions: Count = 1024
    n_embd: Count = 768
    n_layer: Layers = 12
    n_head: Count = 12
    n_inner: Count | None = None
    activation_function: _Act = "gelu_new"
    layer_norm_epsilon: Amount = 1e-5
    tie_word_embeddings: bool = True
    eos_token_id: Ids = 50256

    def settings(self) -> dict[str, Any]:
        """The same by our names; eos apart."""
        return {
            "vocab": self.vocab_size,
            "positions": self.n_positions,
            "layers": self.n_layer,
            "width": self.n_embd,
            "ffn": self.n_inner or 4 * self.n_embd,
            "heads": self.n_head,
            "key_heads": self.n_head,
            "head_width": self.n_embd // self.n_head,
            "norm": "layer",
            "epsilon": self.layer_norm_epsilon,
            "biases": ATTENTION,
            "ffn_bias": True,
            "gated": False,
            "activation": _activation(self.activation_function),
            "rotary_base": 0.0,
            "tied": self.tie_word_embeddings,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Llama:
    """What config.json of all the others says, as far as a family reads it."""

    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Layers
    num_attention_heads: Count
    num_key_value_heads: Count | None
    head_dim: Count | None
    max_position_embeddings: Count
    rms_norm_eps: Amount
    tie_word_embeddings: bool
    eos_token_id: Ids
    hidden_act: _Act = "silu"
    hidden_activation: _Act | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    use_sliding_window: bool = True
    sliding_window: Count | None = None
    layer_types: tuple[Literal["full_attention", "sliding_attention"], ...] | None = None
    max_window_layers: Natural = 0
    sliding_window_pattern: Count | None = None
    query_pre_attn_scalar: Positive | None = None
    attn_logit_softcapping: Positive | None = None
    final_logit_softcapping: Positive | None = None

    def settings(self) -> dict[str, Any]:
        """The same by our names; positions and eos apart."""
        local = self._local()
        return {
            "vocab": self.vocab_size,
            "positions": self.max_position_embeddings,
            "layers": self.num_hidden_layers,
            "width": self.hidden_size,
            "ffn": self.intermediate_size,
            "heads": self.num_attention_heads,
            "key_heads": self.num_key_value_heads or self.num_attention_heads,
            "head_width": self.head_width,
            "epsilon": self.rms_norm_eps,
            "biases": ATTENTION if self.attention_bias else (),
            "ffn_bias": self.mlp_bias,
            "activation": _activation(self.hidden_activation or self.hidden_act),
            "local": local,
            "window": (self.sliding_window or 0) if local else 0,
            "query_scale": self.query_pre_attn_scalar or 0.0,
            "attention_softcap": self.attn_logit_softcapping or 0.0,
            "logit_softcap": self.final_logit_softcapping or 0.0,
            "tied": self.tie_word_embeddings,
        }

    @property
    def head_width(self) -> int:
        """K."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def _local(self) -> tuple[int, ...]:
        """The layers with a window."""
        layers, types = range(self.num_hidden_layers), self.layer_types
        if types is not None:
            if len(types) != len(layers):
                raise ValueError(
                    f"layer_types has {len(types)} layers, but num_hidden_layers is {len(layers)}"
                )
            return tuple(i for i in layers if types[i] == "sliding_attention")
        if not self.use_sliding_window or self.sliding_window is None:
            return ()
        full = self.sliding_window_pattern
        return tuple(
            i for i in layers if i >= self.max_window_layers and not (full and (i + 1) % full == 0)
        )


def _activation(name: str) -> str:
    return "gelu_new" if name == "gelu_pytorch_tanh" else name


@dataclasses.dataclass(frozen=True)
class _Family:
    """What a model_type has of its own."""

    reads: Mapping[str, Any]
    """What transformers reads of config.json to compute logits, besides `rotary`'s, and its values
    where the file says nothing."""
    implied: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The same of what it does not read there."""
    supported: Supported = dataclasses.field(default_factory=dict)
    base: float = 10000.0
    """Its `rope_theta`."""
    local_base: float = 0.0
    """The base of layers with a window, if it is another one."""
    scaled: bool = False
    """Gemma: embeddings are scaled, outputs of sublayers are normalised, and norms multiply by 1 +
    their weight."""


def _sizes(**changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "head_dim": None,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
    } | changes


_QWEN = _sizes(
    vocab_size=151936,
    intermediate_size=22016,
    num_key_value_heads=32,
    max_position_embeddings=32768,
    eos_token_id=None,
    hidden_act="silu",
    use_sliding_window=False,
    sliding_window=4096,
    layer_types=None,
    max_window_layers=28,
)
_GEMMA = _sizes(
    vocab_size=256000,
    hidden_size=2304,
    intermediate_size=9216,
    num_hidden_layers=26,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=256,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
    eos_token_id=1,
    hidden_activation="gelu_pytorch_tanh",
    attention_bias=False,
    sliding_window=4096,
    layer_types=None,
    query_pre_attn_scalar=256,
    final_logit_softcapping=None,
)
_FORWARD = {"use_bidirectional_attention": (False,)}
_FAMILIES = {
    "llama": _Family(_sizes(hidden_act="silu", attention_bias=False, mlp_bias=False)),
    "mistral": _Family(
        _sizes(
            intermediate_size=14336,
            num_key_value_heads=8,
            max_position_embeddings=131072,
            hidden_act="silu",
            sliding_window=4096,
        ),
        supported={"layer_types": (None,)},
    ),
    "qwen2": _Family(_QWEN),
    "qwen3": _Family(_QWEN | {"head_dim": 128, "attention_bias": False}),
    "gemma2": _Family(
        _GEMMA | {"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
        {"sliding_window_pattern": 2},
        _FORWARD,
        scaled=True,
    ),
    "gemma3_text": _Family(
        _GEMMA
        | {
            "vocab_size": 262208,
            "max_position_embeddings": 131072,
            "sliding_window_pattern": 6,
        },
        supported=_FORWARD | {"attn_logit_softcapping": (None,)},
        base=1_000_000.0,
        local_base=10000.0,
        scaled=True,
    ),
}
_SUPPORTED: Supported = {
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "partial_rotary_factor": (1.0,),
    "pruned_heads": ({},),
    "auto_map": (None,),
    "quantization_config": (None,),
}
"""What else in config.json makes another function, in all families."""
_GPT2: Supported = {
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
}
_INERT = (
    *("architectures", "model_type", "transformers_version", "_name_or_path", "name_or_path"),
    *("dtype", "torch_dtype", "use_bfloat16", "use_cache", "cache_implementation", "n_ctx"),
    *("initializer_range", "attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"),
    *("pretraining_tp", "bos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id"),
    *("attn_implementation", "_attn_implementation", "gradient_checkpointing", "tokenizer_class"),
    *("output_attentions", "output_hidden_states", "return_dict", "torchscript", "is_decoder"),
    *("id2label", "label2id", "task_specific_params", "chunk_size_feed_forward"),
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
    *("summary_first_dropout", "hidden_act", "hidden_activation", "_sliding_window_pattern"),
    *("finetuning_task", "problem_type", "prefix", "tie_encoder_decoder", "_commit_hash"),
)
"""What transformers reads of config.json and does not compute logits with."""
MODEL_TYPES = ("gpt2", *_FAMILIES, "gemma3")
"""The `model_type`s that are read; the last has its model of text in `text_config`."""


def read_config(raw: Mapping[str, Any], options: Options, folder: Path) -> DecoderConfig:
    """The config that config.json describes; ValueError names what is not supported there."""
    where = f"{folder}/config.json"
    kind = raw.get("model_type")
    if kind not in MODEL_TYPES:
        raise ValueError(
            f"{where} says model_type {kind!r}; supported are {', '.join(MODEL_TYPES)}"
        )
    if kind == "gemma3":
        raw, where = _of_text(raw, where), f"{where}: text_config"
        kind = "gemma3_text"
    _check_architecture(raw, where)
    check_supported(raw, _SUPPORTED, where)
    settings, eos, names = (_gpt2 if kind == "gpt2" else _llama)(raw, kind, where)
    unread = sorted({*raw} - {*names, *_SUPPORTED, *_INERT})
    if unread:
        log.info("%s: transformers' %s does not read %s", where, kind, ", ".join(unread))
    settings["eos"] = _eos(eos, settings["vocab"], where)
    with located(where):
        return DecoderConfig(family=kind, dtype=options.dtype, kernel=options.kernel, **settings)  # type: ignore[arg-type]


def _gpt2(raw: Mapping[str, Any], kind: str, where: str) -> tuple[dict[str, Any], Ids, set[str]]:
    """Our settings, eos apart, and the names of those that are read."""
    aliases = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }
    check_supported(raw, _GPT2, where)
    said = decode(_Gpt2, {aliases.get(name, name): value for name, value in raw.items()}, where)
    names = {field.name for field in dataclasses.fields(said)}
    return said.settings(), said.eos_token_id, names | {*aliases, *_GPT2}


def _llama(raw: Mapping[str, Any], kind: str, where: str) -> tuple[dict[str, Any], Ids, set[str]]:
    family = _FAMILIES[kind]
    check_supported(raw, family.supported, where)
    known = {name: raw.get(name, usual) for name, usual in family.reads.items()}
    said = decode(_Llama, {**family.implied, **known}, where)
    with located(where):
        settings = said.settings()
    sizes = said.head_width, said.max_position_embeddings, where
    local_base = family.local_base
    if local_base:
        turned, local_base = rotary.rotary_by_layer(raw, family.base, local_base, *sizes)
    else:
        turned = rotary.rotary(raw, family.base, *sizes)
    settings |= {
        "rotary_base": turned.base,
        "rotary_factors": turned.factors,
        "rotary_scale": turned.scale,
        "local_base": local_base,
        "norm_queries": kind in ("qwen3", "gemma3_text"),
        "norm_outputs": family.scaled,
        "embedding_scale": said.hidden_size**0.5 if family.scaled else 1.0,
    }
    if kind == "qwen2":
        settings["biases"] = ATTENTION[:3]
    names = {*family.reads, *family.supported, *rotary.NAMES, "rope_local_base_freq"}
    return settings, said.eos_token_id, names


def _of_text(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """config.json of the model of text in one that sees pictures too."""
    check_supported(raw, _SUPPORTED, where)
    text = decode(dict[str, Any], raw.get("text_config") or {}, f"{where}: text_config")
    check_supported(text, {"final_logit_softcapping": (None,)}, f"{where}: text_config")
    whole = {"eos_token_id": None, "tie_word_embeddings": True}
    whole = {name: raw.get(name, usual) for name, usual in whole.items()}
    return text | whole | {"architectures": raw.get("architectures")}


def _check_architecture(raw: Mapping[str, Any], where: str) -> None:
    """ValueError if config.json names a model with another head."""
    known = ("ForCausalLM", "ForConditionalGeneration", "Model")
    for name in decode(tuple[str, ...], raw.get("architectures") or (), f"{where}: architectures"):
        if not name.endswith(known):
            raise ValueError(
                f"{where} says that this is a {name}; expected is a language model, "
                f"...{' or ...'.join(known)}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Generation:
    """What is read of generation_config.json."""

    eos_token_id: Ids = None


def with_ends(raw: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """config.json with what generation_config.json says of the end of a text."""
    file = folder / "generation_config.json"
    found = read_json(file, _Generation).eos_token_id if file.is_file() else None
    return raw if found is None else {**raw, "eos_token_id": found}


def _eos(said: Ids, vocab: int, where: str) -> tuple[int, ...]:
    """The tokens that end a text, as far as the vocabulary has them."""
    ids = (said,) if isinstance(said, int) else said or ()
    beyond = [token for token in ids if token >= vocab]
    if beyond:
        log.info("%s: eos_token_id %s is beyond the vocabulary of %d", where, beyond, vocab)
    return tuple(token for token in ids if token < vocab)


def is_scaled(config: DecoderConfig) -> bool:
    """Whether norms of its family multiply by 1 + their weight."""
    return config.family in _FAMILIES and _FAMILIES[config.family].scaled
