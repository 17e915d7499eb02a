"""fairseq's translation models: a .pt file, BPE codes and two dictionaries as an hp_jax config,
parameters and codec."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hp_jax.architecture import Activation, Seq2SeqConfig
from hp_jax.formats.reading import Options
from hp_jax.formats.seq2seq_names import fill
from hp_jax.formats.slots import Tensors
from hp_jax.formats.tensors import load_torch, to_numpy
from hp_jax.storage.files import check_file
from hp_jax.task import Params
from hp_jax.text.codec import Codec
from hp_jax.text.fairseq import read_fairseq
from hp_jax.typed import Count, Dropout, Layers, decode, located

MODELS = ("model.pt", "checkpoint_best.pt", "checkpoint_last.pt")
CODES = ("bpecodes", "bpe.codes", "code")
IGNORED = (
    r"(encoder|decoder)\.version",
    r"(encoder|decoder)\.embed_positions\.(_float_tensor|weights)",
)
"""Buffers that hold nothing that was trained."""

ACTIVATIONS: dict[str, Activation] = {
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
    "relu": "relu",
    "gelu": "gelu",
    "tanh": "tanh",
    "swish": "swish",
}
_NORMS = {
    "encoder": ("self_attn_layer_norm", "final_layer_norm"),
    "decoder": ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
}
"""Today's names of the old `layer_norms.0`, `layer_norms.1`, ..."""
_UNSUPPORTED = (
    "adaptive_input",
    "adaptive_softmax_cutoff",
    "base_layers",
    "char_inputs",
    "character_embeddings",
    "cross_self_attention",
    "decoder_layers_to_keep",
    "encoder_layers_to_keep",
    "layernorm_embedding",
    "merge_src_tgt_embed",
    "no_cross_attention",
    "no_decoder_final_norm",
    "no_token_positional_embeddings",
)
"""Settings that, where they are on, make another architecture."""
_ALIKE = (
    ("encoder_embed_dim", "decoder_embed_dim"),
    ("decoder_embed_dim", "decoder_input_dim"),
    ("decoder_embed_dim", "decoder_output_dim"),
    ("encoder_normalize_before", "decoder_normalize_before"),
    ("encoder_learned_pos", "decoder_learned_pos"),
)
"""Settings that are two in fairseq and one here; the second may be absent."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Languages:
    """What the settings say of the text."""

    source_lang: str
    target_lang: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    """What the settings say of the model; None as if they did not say it."""

    encoder_layers: Layers
    decoder_layers: Layers
    encoder_attention_heads: Count
    decoder_attention_heads: Count
    encoder_embed_dim: Count
    encoder_ffn_embed_dim: Count
    decoder_ffn_embed_dim: Count
    encoder_normalize_before: bool
    encoder_learned_pos: bool
    max_source_positions: Count | None = None
    activation_fn: Literal["relu", "gelu", "gelu_accurate", "gelu_fast", "tanh", "swish"] | None = (
        None
    )
    no_scale_embedding: bool | None = None
    share_all_embeddings: bool | None = None
    share_decoder_input_output_embed: bool | None = None
    dropout: Dropout = 0.1
    attention_dropout: Dropout = 0.0


def load_fairseq(folder: Path, options: Options = Options()) -> tuple[Seq2SeqConfig, Params, Codec]:
    """An unpacked archive: one of MODELS or a single other .pt file, one of CODES,
    dict.<source>.txt and dict.<target>.txt.

    FileNotFoundError or ValueError names the file that is missing, ambiguous or does not fit the
    others; see `load_fairseq_model` for the model file.
    """
    path = _find(folder, MODELS, "*.pt", "model")
    settings, tensors = _read(path)
    config, params = _convert(settings, tensors, path, options)
    said = decode(_Languages, settings, f"{path}: its settings")
    codes = _find(folder, CODES, "*codes*", "BPE codes").name
    codec = read_fairseq(folder, said.source_lang, said.target_lang, codes=codes)
    return config, params, codec


def load_fairseq_model(path: Path, options: Options = Options()) -> tuple[Seq2SeqConfig, Params]:
    """The model of a .pt file, with the tensor names of any version of fairseq; float32 parameters.

    The file is read by PyTorch with `weights_only=True` and may hold no class but
    argparse.Namespace. ValueError names what the architecture has that is not supported, or a
    tensor that is missing, misshaped or unknown. What acts in training alone, such as dropout of
    layers or of activations, is not kept.
    """
    return _convert(*_read(path), path, options)


def _find(folder: Path, names: tuple[str, ...], pattern: str, what: str) -> Path:
    """The first of `names` that is in the folder, else the only file of the pattern."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob(pattern))
    if len(others) != 1:
        found = ", ".join(path.name for path in others) or "none"
        raise FileNotFoundError(
            f"{folder}: expected the {what} as {', '.join(names)} or one {pattern}, but found "
            f"{found}"
        )
    return others[0]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The settings of the model and its task, and all tensors."""
    check_file(path)
    try:
        content = load_torch(path, [argparse.Namespace])
    except ValueError as error:
        raise ValueError(
            f"{error}; if you trust the file, load it with fairseq and torch.save a dict of its "
            "`model` and, as `cfg`, "
            "omegaconf.OmegaConf.to_container(cfg, resolve=True)"
        ) from error
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise ValueError(
            f"{path}: expected a fairseq checkpoint with args (or cfg) and model, but it has no "
            "model"
        )
    if content.get("args") is not None:
        settings = _plain(content["args"], path)
    else:
        cfg = _plain(content.get("cfg"), path)
        settings = _plain(cfg.get("task"), path) | _plain(cfg.get("model"), path)
    if not settings:
        raise ValueError(
            f"{path}: expected a fairseq checkpoint with args (or cfg) and model, but it has "
            "neither args nor cfg"
        )
    return settings, to_numpy(content["model"])


def _plain(settings: Any, path: Path) -> dict[str, Any]:
    found = vars(settings) if isinstance(settings, argparse.Namespace) else settings or {}
    return decode(dict[str, Any], found, f"{path}: its settings")


def _convert(
    settings: dict[str, Any], tensors: dict[str, np.ndarray], path: Path, options: Options
) -> tuple[Seq2SeqConfig, Params]:
    known = _todays_names(tensors)
    config = read_config(settings, known, path, options.dtype, options.kernel)
    return config, fill(config, known, path, settings="its settings", ignored=IGNORED)


def _check_supported(settings: dict[str, Any], path: Path) -> None:
    arch, task = settings.get("arch") or settings.get("_name"), settings.get("task")
    if not str(arch).startswith("transformer") or "multi" in str(task):
        raise ValueError(
            f"{path}: expected a bilingual Transformer, but it has arch = {arch!r} and task = "
            f"{task!r}"
        )
    for name in _UNSUPPORTED:
        if settings.get(name):
            raise ValueError(
                f"{path}: the model has {name} = {settings[name]!r}, which is not supported"
            )
    positions = (
        (("max_source_positions", "max_target_positions"),)
        if settings.get("encoder_learned_pos")
        else ()
    )
    for one, other in _ALIKE + positions:
        if settings.get(one) != settings.get(other, settings.get(one)):
            raise ValueError(
                f"{path}: {one} is {settings.get(one)!r}, but {other} is {settings[other]!r}; "
                "they should be equal"
            )


def _todays_names(tensors: Mapping[str, np.ndarray]) -> Tensors:
    """The tensors under the names of fairseq since 2019, fused projections split into query, key
    and value."""
    known: Tensors = {}
    for name, tensor in tensors.items():
        norm = re.fullmatch(r"(encoder|decoder)(\.layers\.\d+)\.layer_norms\.(\d)(\.\w+)", name)
        fused = re.fullmatch(r"(.+\.)in_proj_(weight|bias)", name)
        if norm and int(norm[3]) < len(_NORMS[norm[1]]):
            known[f"{norm[1]}{norm[2]}.{_NORMS[norm[1]][int(norm[3])]}{norm[4]}"] = name, tensor
        elif fused:
            third = -(-len(tensor) // 3)
            for i, part in enumerate("qkv"):
                known[f"{fused[1]}{part}_proj.{fused[2]}"] = (
                    f"{name} ({part})",
                    tensor[i * third : (i + 1) * third],
                )
        else:
            known[name] = name, tensor
    return known


def read_config(
    settings: dict[str, Any], known: Tensors, path: Path, dtype: str, kernel: str
) -> Seq2SeqConfig:
    """The config that `settings` and the embeddings' sizes describe; ValueError names what is
    missing or not supported."""
    _check_supported(settings, path)
    said = decode(_Settings, settings, f"{path}: its settings")

    def symbols(side: str) -> int:
        name = f"{side}.embed_tokens.weight"
        if name not in known:
            raise ValueError(f"{path} has no tensor {name}")
        return len(known[name][1])

    learned, share = bool(said.encoder_learned_pos), bool(said.share_all_embeddings)
    with located(f"{path}: its settings"):
        return Seq2SeqConfig(
            source_vocab=symbols("encoder"),
            target_vocab=symbols("decoder"),
            eos=2,
            pad=1,
            start=2,
            never=(1,),
            encoder_layers=said.encoder_layers,
            decoder_layers=said.decoder_layers,
            encoder_heads=said.encoder_attention_heads,
            decoder_heads=said.decoder_attention_heads,
            cross_heads=said.decoder_attention_heads,
            width=said.encoder_embed_dim,
            encoder_ffn=said.encoder_ffn_embed_dim,
            decoder_ffn=said.decoder_ffn_embed_dim,
            norm="pre" if said.encoder_normalize_before else "post",
            activation=ACTIVATIONS[said.activation_fn or "relu"],
            positions="learned" if learned else "sinusoid_half",
            first_position=2,
            max_positions=(said.max_source_positions or 1024) + 2 if learned else 1024,
            scale_embeddings=not said.no_scale_embedding,
            share_source=share,
            share_output=share or bool(said.share_decoder_input_output_embed),
            dropout=said.dropout,
            attention_dropout=said.attention_dropout,
            dtype=dtype,  # type: ignore[arg-type]
            kernel=kernel,  # type: ignore[arg-type]
        )
