"""A folder with a GGUF file as config, parameters and tokenizer.

What its settings and tensors mean, and what holds where it says nothing, is llama.cpp's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import msgspec
import numpy as np
from tokenizers import Tokenizer

from hp_jax.architecture import DecoderConfig
from hp_jax.formats.gguf.file import Gguf, read_gguf
from hp_jax.formats.reading import Options, Supported, check_supported
from hp_jax.formats.slots import Slot, assign, check_layers, check_rest, check_values
from hp_jax.models.language import LanguageModel
from hp_jax.task import Params
from hp_jax.text.gguf import ends, tokenizer_of
from hp_jax.typed import Amount, Count, Layers, Natural, decode, located


class _Architecture(NamedTuple):
    """What is fixed in an architecture, and what holds where a file does not say it."""

    family: Literal["gpt2", "llama", "qwen2", "qwen3", "gemma2", "gemma3_text"]
    interleaved: bool = False
    """Whether rotated pairs stand next to each other in its query and key projections."""
    activation: Literal["silu", "gelu_new"] = "silu"
    norm_queries: bool = False
    norm_outputs: bool = False
    period: int = 0
    """Of as many layers the last one sees all tokens; 0: every layer does."""
    window: int = 0
    local_base: float = 0.0
    softcaps: tuple[float, float] = (0.0, 0.0)
    """Of attention and of logits."""
    wide: int = 0
    """The number of layers of the model whose scores are scaled by width / heads."""


_GEMMA2 = _Architecture(
    "gemma2",
    activation="gelu_new",
    norm_outputs=True,
    period=2,
    window=4096,
    softcaps=(50.0, 30.0),
    wide=46,
)
ARCHITECTURES = {
    "llama": _Architecture("llama", interleaved=True),
    "qwen2": _Architecture("qwen2"),
    "qwen3": _Architecture("qwen3", norm_queries=True),
    "gpt2": _Architecture("gpt2", activation="gelu_new"),
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA2._replace(
        family="gemma3_text",
        norm_queries=True,
        period=6,
        window=0,
        local_base=10000.0,
        softcaps=(0.0, 0.0),
        wide=62,
    ),
}
"""By `general.architecture`."""

_GENERAL: Supported = {"general.type": ("model",), "general.quantization_version": (2,)}

SUPPORTED: Supported = {
    "rope.scaling.type": ("linear", "none"),
    "rope.scaling.attn_factor": (1.0,),
    "attention.causal": (True,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "pooling_type": (0,),
}
"""The settings' supported values, by their names without the architecture's; the first holds where
the file has none."""

SUPPORTED_PLAIN: Supported = {
    "attention.sliding_window": (0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
}
"""The same for models other than Gemma."""

_GEMMA_ONLY = {"attention.sliding_window_pattern", "rope.freq_base_swa"}
_WITHOUT_INFLUENCE = {
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "tensor_data_layout",
}
"""In a model of these architectures and types of scaling."""

_PARTS = {
    "word": "token_embd",
    "position": "position_embd",
    "norm": "output_norm",
    "output": "output",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "out": "attn_output",
    "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "attention_out_norm": "post_attention_norm",
    "ffn_out_norm": "post_ffw_norm",
    "query_norm": "attn_q_norm",
    "key_norm": "attn_k_norm",
    "inner": "ffn_up",
    "gate": "ffn_gate",
    "outer": "ffn_down",
}
_ROTARY = "rope_freqs.weight"
_METADATA = "its metadata"


def load_gguf(
    folder: Path, options: Options = Options()
) -> tuple[DecoderConfig, Params, Tokenizer]:
    """A language model of llama.cpp's, its float32 parameters and its tokenizer.

    Tensors are dequantised one after another, so that little more memory is taken than by what is
    returned.  FileNotFoundError or ValueError names the file that is missing or broken, the setting
    that is not supported, or the tensor that is missing, misshaped or unknown.
    """
    file = read_gguf(_model_file(folder))
    config = read_config(file, options)
    tokenizer = tokenizer_of(file.settings, file.path, config.vocab)
    params = jax.eval_shape(LanguageModel(config).init, jax.random.key(0))
    unread = dict(file.tensors)
    taken = {_ROTARY: config.family == "llama", "output.weight": config.tied}
    for name in taken:
        if taken[name]:
            unread.pop(name, None)
    for slot in list(slots(params)):
        source = slot.name
        if source not in file.tensors:
            source = re.sub(r"attn_[qkv]\.", "attn_qkv.", source)
        found = {}
        if source in file.tensors:
            found = {slot.name: (source, _part(file.read(source), slot, source, config))}
            unread.pop(source, None)
        assign(params, [slot], found, file.path, settings=_METADATA, mesh=options.mesh)
    model = f"a {config.family} of {config.layers} layers"
    check_rest({name: (name, np.empty(0)) for name in unread}, (), model, file.path)
    return config, params, tokenizer


def _model_file(folder: Path) -> Path:
    found = sorted(folder.glob("*.gguf"))
    if not found:
        raise FileNotFoundError(f"{folder} has no model of llama.cpp: expected a file *.gguf")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ValueError(
            f"{folder} has {len(found)} GGUF files, {names}: expected one, so keep others "
            "elsewhere, and join the parts of one with llama-gguf-split --merge"
        )
    return found[0]


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings say that has many values, by their names without the architecture's and
    with _ for a point."""

    block_count: Layers
    context_length: Count
    embedding_length: Count
    feed_forward_length: Count
    vocab_size: Count | None = None
    attention_head_count: Count
    attention_head_count_kv: Count | None = None
    attention_key_length: Count | None = None
    attention_value_length: Count | None = None
    attention_layer_norm_epsilon: Amount | None = None
    attention_layer_norm_rms_epsilon: Amount | None = None
    attention_scale: Amount = 0.0
    attention_sliding_window: Natural | None = None
    attention_sliding_window_pattern: Natural | tuple[bool, ...] | None = None
    attn_logit_softcapping: Amount | None = None
    final_logit_softcapping: Amount | None = None
    rope_freq_base: Amount = 10000.0
    rope_freq_base_swa: Amount | None = None
    rope_dimension_count: Count | None = None
    rope_scaling_factor: Amount | None = None
    rope_scale_linear: Amount = 1.0


def read_config(file: Gguf, options: Options = Options()) -> DecoderConfig:
    """The config that a file describes; ValueError names the setting that is missing or not
    supported."""
    architecture = file.settings.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"{file.path}: general.architecture is {architecture!r}; supported are "
            f"{', '.join(ARCHITECTURES)}"
        )
    kind, where = ARCHITECTURES[architecture], f"{file.path}: {architecture}"
    check_supported(file.settings, _GENERAL, file.path)
    prefix = f"{architecture}."
    settings = {
        name.removeprefix(prefix): value
        for name, value in file.settings.items()
        if name.startswith(prefix)
    }
    _check_settings(settings, kind, where)
    said = decode(_Settings, {_flat(name): value for name, value in settings.items()}, where)
    for name in ("token_embd.weight", *([_ROTARY] if _ROTARY in file.tensors else [])):
        if name not in file.tensors:
            raise ValueError(f"{file.path} has no tensor {name}")
    check_layers(file.tensors, r"blk\.(\d+)\.", said.block_count, file.path, "block_count")
    vocab, gpt2 = file.tensors["token_embd.weight"].shape[0], kind.family == "gpt2"
    width, heads, layers = said.embedding_length, said.attention_head_count, said.block_count
    head_width = said.attention_key_length or width // heads
    for name, value, expected in (
        ("vocab_size", said.vocab_size, vocab),
        ("attention.value_length", said.attention_value_length, head_width),
        ("rope.dimension_count", said.rope_dimension_count, head_width),
    ):
        if value not in (None, expected):
            raise ValueError(f"{where}.{name} is {value}, but {expected} was expected")
    norm = "layer_norm_epsilon" if gpt2 else "layer_norm_rms_epsilon"
    if f"attention.{norm}" not in settings:
        raise ValueError(f"{where}: expected a setting attention.{norm}, but there is none")
    projections = {"query": "q", "key": "k", "value": "v", "out": "output"}
    biases = tuple(name for name, part in projections.items() if _has_bias(file, part))
    scale = width // heads if layers == kind.wide else 0
    window = _given(said.attention_sliding_window, kind.window)
    with located(where):
        return DecoderConfig(
            family=kind.family,
            vocab=vocab,
            layers=layers,
            width=width,
            ffn=said.feed_forward_length,
            heads=heads,
            key_heads=said.attention_head_count_kv or heads,
            head_width=head_width,
            positions=said.context_length,
            norm="layer" if gpt2 else "rms",
            epsilon=settings[f"attention.{norm}"],
            norm_outputs=kind.norm_outputs,
            norm_queries=kind.norm_queries,
            biases=biases,  # type: ignore[arg-type]
            ffn_bias="blk.0.ffn_up.bias" in file.tensors,
            gated=not gpt2,
            activation=kind.activation,
            rotary_base=0.0 if gpt2 else said.rope_freq_base,
            rotary_factors=() if gpt2 else _factors(file, kind, said, head_width),
            local=_local(said, kind, where) if window else (),
            window=window,
            local_base=_given(said.rope_freq_base_swa, kind.local_base) if window else 0.0,
            query_scale=said.attention_scale**-2 if said.attention_scale else scale,
            attention_softcap=_given(said.attn_logit_softcapping, kind.softcaps[0]),
            logit_softcap=_given(said.final_logit_softcapping, kind.softcaps[1]),
            embedding_scale=math.sqrt(width) if kind.period else 1.0,
            tied=_tied(file),
            eos=ends(file.settings),
            dtype=options.dtype,  # type: ignore[arg-type]
            kernel=options.kernel,  # type: ignore[arg-type]
        )


def _check_settings(settings: dict[str, Any], kind: _Architecture, where: str) -> None:
    check_supported(settings, SUPPORTED, where)
    known = {field.name for field in msgspec.structs.fields(_Settings)}
    known |= {_flat(name) for name in (*SUPPORTED, *_WITHOUT_INFLUENCE)}
    if not kind.period:
        check_supported(settings, SUPPORTED_PLAIN, where)
        known -= {_flat(name) for name in _GEMMA_ONLY}
    for name in settings:
        if _flat(name) not in known:
            raise ValueError(
                f"{where}.{name} is a setting that is not known here: it may make another model"
            )


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def _has_bias(file: Gguf, part: str) -> bool:
    names = (f"attn_{part}", "attn_output" if part == "output" else "attn_qkv")
    return any(f"blk.0.{name}.bias" in file.tensors for name in names)


def _factors(
    file: Gguf, kind: _Architecture, said: _Settings, head_width: int
) -> tuple[float, ...]:
    """What divides the angles, of Llama 3's scaling and of the linear one."""
    prefix = file.settings["general.architecture"]
    linear = _given(said.rope_scaling_factor, said.rope_scale_linear) or 1.0
    if file.settings.get(f"{prefix}.rope.scaling.type") == "none":
        linear = 1.0
    scaled = kind.interleaved and _ROTARY in file.tensors
    if not scaled and linear == 1:
        return ()
    factor_J = file.read(_ROTARY) if scaled else np.ones(head_width // 2, np.float32)
    check_values(_ROTARY, factor_J, file.path)
    return tuple((factor_J.ravel() * np.float32(linear)).tolist())


def _local(said: _Settings, kind: _Architecture, where: str) -> tuple[int, ...]:
    pattern = _given(said.attention_sliding_window_pattern, kind.period)
    if isinstance(pattern, int):
        pattern = [not pattern or i % pattern < pattern - 1 for i in range(said.block_count)]
    if len(pattern) != said.block_count:
        raise ValueError(
            f"{where}.attention.sliding_window_pattern is of {len(pattern)} layers, but the model "
            f"has {said.block_count}"
        )
    return tuple(i for i, local in enumerate(pattern) if local)


def _tied(file: Gguf) -> bool:
    """Whether there is no output projection, or just a copy of the embedding, as GPT-2's files
    have it."""
    if "output.weight" not in file.tensors:
        return True
    return np.array_equal(file.stored("output.weight"), file.stored("token_embd.weight"))


def slots(params: Params) -> Iterator[Slot]:
    """Every parameter of the model with its place in a file, where kernels are `[outputs,
    inputs]`."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = tuple(key.key for key in keys)
        layer = f"blk.{path[0].removeprefix('layer_')}." if path[0].startswith("layer_") else ""
        ending = "bias" if path[-1] == "bias" else "weight"
        yield Slot(path, f"{layer}{_PARTS[path[-2]]}.{ending}", _shape(path, leaf.shape))


def _shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in the file; here kernels of attention are `[D, H, K]`, of its output `[H, K,
    D]`."""
    if path[-1] == "embedding":
        return shape
    if path[-1] != "kernel":
        return (math.prod(shape),)
    inputs = len(shape) - 1 if path[-2] == "out" else 1
    return (math.prod(shape[inputs:]), math.prod(shape[:inputs]))


def _part(tensor: np.ndarray, slot: Slot, source: str, config: DecoderConfig) -> np.ndarray:
    """What a slot takes of a tensor, in the order of numbers in which it is here."""
    projection = slot.path[-2]
    if source != slot.name:  # queries, keys and values in one
        ends_at = config.heads * config.head_width
        parts = np.split(tensor, [ends_at, ends_at + config.key_heads * config.head_width])
        tensor = parts[("query", "key", "value").index(projection)]
    if config.family != "llama" or projection not in ("query", "key"):
        return tensor
    if tensor.shape != slot.shape:
        return tensor  # which is then refused
    heads = config.heads if projection == "query" else config.key_heads
    pairs = tensor.reshape(heads, config.head_width // 2, 2, *tensor.shape[1:])
    return pairs.swapaxes(1, 2).reshape(tensor.shape)
