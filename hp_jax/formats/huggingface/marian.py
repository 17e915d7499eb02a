"""Hugging Face's Marian folders (config.json, weights, SentencePiece models and vocab.json) as
config, parameters and codec."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import Activation, Seq2SeqConfig
from hp_jax.formats.reading import Options, Supported, check_supported
from hp_jax.formats.seq2seq_names import fill
from hp_jax.formats.slots import Tensors
from hp_jax.formats.tensors import read_tensors
from hp_jax.models.seq2seq import sinusoids
from hp_jax.task import Params
from hp_jax.text.codec import Codec
from hp_jax.text.marian import read_marian
from hp_jax.typed import Count, Dropout, Layers, Natural, decode, located

POSITIONS = r"(encoder|decoder)\.embed_positions\.weight"
"""Old files hold the sinusoids too."""

SUPPORTED: Supported = {
    "model_type": ("marian",),
    "add_final_layer_norm": (False,),
    "normalize_before": (False,),
    "normalize_embedding": (False,),
    "static_position_embeddings": (True,),
    "is_encoder_decoder": (True,),
    "is_decoder": (False,),
    "auto_map": (None,),
    "quantization_config": (None,),
}
"""What else in config.json makes another model.  Nothing but this and the fields below is read by
transformers' Marian when it computes logits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Marian:
    """What config.json says of the model."""

    vocab_size: Count
    decoder_vocab_size: Count | None = None
    eos_token_id: Natural
    pad_token_id: Natural
    decoder_start_token_id: Natural
    encoder_layers: Layers
    decoder_layers: Layers
    encoder_attention_heads: Count
    decoder_attention_heads: Count
    d_model: Count
    encoder_ffn_dim: Count
    decoder_ffn_dim: Count
    activation_function: Activation
    scale_embedding: bool
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    dropout: Dropout = 0.1
    attention_dropout: Dropout = 0.0


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

    where = f"{folder}/config.json"
    check_supported(raw, SUPPORTED, where)
    said = decode(_Marian, raw, where)
    with located(where):
        return Seq2SeqConfig(
            source_vocab=said.vocab_size,
            target_vocab=said.decoder_vocab_size or said.vocab_size,
            eos=said.eos_token_id,
            pad=said.pad_token_id,
            start=said.decoder_start_token_id,
            never=(said.pad_token_id,),
            encoder_layers=said.encoder_layers,
            decoder_layers=said.decoder_layers,
            encoder_heads=said.encoder_attention_heads,
            decoder_heads=said.decoder_attention_heads,
            cross_heads=said.decoder_attention_heads,
            width=said.d_model,
            encoder_ffn=said.encoder_ffn_dim,
            decoder_ffn=said.decoder_ffn_dim,
            activation=said.activation_function,
            scale_embeddings=said.scale_embedding,
            share_source=said.share_encoder_decoder_embeddings,
            share_output=said.tie_word_embeddings,
            output_bias=True,
            dropout=said.dropout,
            attention_dropout=said.attention_dropout,
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
