"""Hugging Face's Marian folders (config.json, weights, SentencePiece models and vocab.json) as
config, parameters and codec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import Seq2SeqConfig
from hp_jax.formats.reading import Options
from hp_jax.formats.seq2seq_names import fill
from hp_jax.formats.slots import Tensors
from hp_jax.formats.tensors import read_tensors
from hp_jax.models.layers import ACTIVATIONS
from hp_jax.models.seq2seq import sinusoids
from hp_jax.task import Params
from hp_jax.text.codec import Codec
from hp_jax.text.marian import read_marian

POSITIONS = r"(encoder|decoder)\.embed_positions\.weight"
"""Old files hold the sinusoids too."""

_FIXED = {
    "model_type": "marian",
    "add_final_layer_norm": False,
    "normalize_before": False,
    "normalize_embedding": False,
    "static_position_embeddings": True,
}
"""Settings for which only one value is supported; where they are absent they have it."""


def read(
    folder: Path, raw: Mapping[str, Any], options: Options
) -> tuple[Seq2SeqConfig, Params, Codec]:
    """A translation model such as those of opus-mt.

    FileNotFoundError or ValueError names the file that is missing or does not fit the others; see
    `load_hf_marian_model`.
    """
    config, params = load_hf_marian_model(folder, raw, options)
    return config, params, read_marian(folder)


def load_hf_marian_model(
    folder: Path, raw: Mapping[str, Any], options: Options
) -> tuple[Seq2SeqConfig, Params]:
    """The model alone, of which `raw` is config.json; float32 parameters.

    ValueError names a setting that is not supported, or a tensor that is missing, misshaped or
    unknown.
    """
    config = read_config(raw, folder, options.dtype, options.kernel)
    tensors = {_name(name): (name, tensor) for name, tensor in read_tensors(folder).items()}
    _check_positions(tensors, config, folder)
    return config, fill(config, tensors, folder, settings="config.json", ignored=(POSITIONS,))


def _name(name: str) -> str:
    return name.removeprefix("model.")


def read_config(raw: Mapping[str, Any], folder: Path, dtype: str, kernel: str) -> Seq2SeqConfig:
    """The config that config.json describes; ValueError names what is missing there or not
    supported."""

    def get(name: str) -> Any:
        if raw.get(name) is None:
            raise ValueError(f"{folder}/config.json has no {name}")
        return raw[name]

    for name, value in _FIXED.items():
        if raw.get(name, value) != value:
            raise ValueError(
                f"{folder}/config.json: {name} is {raw[name]!r}; supported is {value!r}"
            )
    activation = get("activation_function")
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{folder}/config.json has the activation {activation!r}; supported are "
            f"{', '.join(ACTIVATIONS)}"
        )
    return Seq2SeqConfig(
        source_vocab=get("vocab_size"),
        target_vocab=raw.get("decoder_vocab_size") or get("vocab_size"),
        eos=get("eos_token_id"),
        pad=get("pad_token_id"),
        start=get("decoder_start_token_id"),
        never=(get("pad_token_id"),),
        encoder_layers=get("encoder_layers"),
        decoder_layers=get("decoder_layers"),
        encoder_heads=get("encoder_attention_heads"),
        decoder_heads=get("decoder_attention_heads"),
        cross_heads=get("decoder_attention_heads"),
        width=get("d_model"),
        encoder_ffn=get("encoder_ffn_dim"),
        decoder_ffn=get("decoder_ffn_dim"),
        activation=activation,
        scale_embeddings=get("scale_embedding"),
        share_source=raw.get("share_encoder_decoder_embeddings", True),
        share_output=raw.get("tie_word_embeddings", True),
        output_bias=True,
        dropout=raw.get("dropout", 0.1),
        attention_dropout=raw.get("attention_dropout", 0.0),
        dtype=dtype,  # type: ignore[arg-type]
        kernel=kernel,  # type: ignore[arg-type]
    )


def _check_positions(tensors: Tensors, config: Seq2SeqConfig, folder: Path) -> None:
    """ValueError where the file holds other positions than the sinusoids that are computed here."""
    for side in ("encoder", "decoder"):
        name, tensor = tensors.get(
            f"{side}.embed_positions.weight", ("", np.zeros((0, config.width)))
        )
        expected = sinusoids(jnp.arange(len(tensor)), config.width, half=False)
        if tensor.shape != expected.shape or not np.allclose(tensor, expected, atol=2e-3):
            raise ValueError(f"{folder}: {name} holds other positions than Marian's sinusoids")
