"""Translation models as Hugging Face's Marian folders, which `from_pretrained` and `generate`
take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hp_jax.architecture import Decoding, Seq2SeqConfig
from hp_jax.formats.huggingface import marian
from hp_jax.formats.seq2seq_names import slots, unused
from hp_jax.formats.slots import collect
from hp_jax.formats.writing import check_held, text_of, write_tensors
from hp_jax.removal import pad_heads
from hp_jax.storage.files import write_json, write_whole
from hp_jax.task import Params
from hp_jax.text.codec import Codec
from hp_jax.text.marian import Marian

MAX_LENGTH = 512
"""Tokens that a source, and a translation by `generate`, has at most; as models of this kind have
it."""


def save_hf_marian(
    folder: Path, config: Seq2SeqConfig, params: Params, codec: Codec, decoding: Decoding
) -> None:
    """config.json, generation_config.json, model.safetensors and the files of MarianTokenizer.

    Heads of zeros stand where heads were removed, so it has the size that the model had first:
    transformers has no Marian model with fewer heads of the same width.  ValueError, before
    anything is written, for a model that Hugging Face's Marian cannot be, such as one of Marian's
    own files, or that has another text side.
    """
    what = "Hugging Face's Marian"
    config, params = pad_heads(config, params)
    raw = _settings(config)
    check_held(
        config,
        lambda: marian.read_config(raw, Path(), config.dtype, config.kernel),
        what,
        unused=unused(config),
    )
    text = text_of(codec, Marian, what)
    separate = text.target_pieces != text.source_pieces
    files = {
        "source.spm": text.source_model,
        "target.spm": text.target_model,
        "vocab.json": text.source_pieces,
    }
    tensors = {
        _name(name, config): tensor for name, tensor in collect(params, slots(config)).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        files | ({"target_vocab.json": text.target_pieces} if separate else {})
    ).items():
        write_whole(folder / name, content)
    write_json(folder / "tokenizer_config.json", _tokenizer_settings(text, separate))
    write_json(folder / "generation_config.json", _generation_settings(config, decoding))
    write_tensors(folder / "model.safetensors", tensors, format="pt")
    write_json(folder / "config.json", raw)


def _name(name: str, config: Seq2SeqConfig) -> str:
    if name == "decoder.embed_tokens.weight" and config.share_source:
        return "model.shared.weight"
    if name == "decoder.output_projection.weight":
        return "lm_head.weight"
    return name if name == "final_logits_bias" else f"model.{name}"


def _settings(config: Seq2SeqConfig) -> dict[str, Any]:
    """config.json; decoding apart."""
    return {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "is_encoder_decoder": True,
        "vocab_size": config.source_vocab,
        "decoder_vocab_size": config.target_vocab,
        "eos_token_id": config.eos,
        "pad_token_id": config.pad,
        "decoder_start_token_id": config.start,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "num_hidden_layers": config.encoder_layers,
        "encoder_attention_heads": config.encoder_heads,
        "decoder_attention_heads": config.decoder_heads,
        "d_model": config.width,
        "encoder_ffn_dim": config.encoder_ffn,
        "decoder_ffn_dim": config.decoder_ffn,
        "activation_function": config.activation,
        "scale_embedding": config.scale_embeddings,
        "share_encoder_decoder_embeddings": config.share_source,
        "tie_word_embeddings": config.share_output,
        "max_position_embeddings": MAX_LENGTH,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": 0.0,
    }


def _generation_settings(config: Seq2SeqConfig, decoding: Decoding) -> dict[str, Any]:
    """generation_config.json: the same search, as far as transformers has it (its limit of the
    length is not relative)."""
    search = {
        "num_beams": decoding.beam,
        "length_penalty": decoding.length_penalty,
        "early_stopping": True,
    }
    return {
        "eos_token_id": config.eos,
        "forced_eos_token_id": config.eos,
        "pad_token_id": config.pad,
        "decoder_start_token_id": config.start,
        "bad_words_ids": [[token] for token in config.never],
        "max_length": MAX_LENGTH,
        "min_new_tokens": decoding.min_length,
    } | (search if decoding.beam > 1 else {})


def _tokenizer_settings(text: Marian, separate: bool) -> dict[str, Any]:
    return {
        "tokenizer_class": "MarianTokenizer",
        "separate_vocabs": separate,
        "model_max_length": MAX_LENGTH,
        "clean_up_tokenization_spaces": text.clean_up,
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
