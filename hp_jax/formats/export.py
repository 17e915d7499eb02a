"""Models in the formats that other programs read, and as programs that need nothing but JAX."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tokenizers import Tokenizer

from hp_jax.architecture import BertConfig, Decoding
from hp_jax.formats.fairseq.write import save_fairseq
from hp_jax.formats.huggingface.bert_export import save_hf_bert
from hp_jax.formats.huggingface.marian_export import save_hf_marian
from hp_jax.formats.marian.write import save_marian
from hp_jax.formats.model import Model
from hp_jax.formats.safetensors import save_flat
from hp_jax.formats.stablehlo import _save_program
from hp_jax.storage.files import new_folder

FORMATS = {
    "hf": (
        "Hugging Face's, in the original size: zeros stand where heads were removed, any version "
        "loads it"
    ),
    "hf-ragged": (
        "Hugging Face's, smaller (pruned_heads); BERT, RoBERTa and DistilBERT, for transformers 4"
    ),
    "fairseq": "a translation model for fairseq, in the original size",
    "marian": "a translation model for Marian (.npz, float32), in the original size",
    "safetensors": "model.safetensors with a small config.json, smaller; hp_jax reads it too",
    "stablehlo": (
        "a program that needs no hp_jax, smaller (jax.export; CPU, CUDA and TPU), with a loader "
        "of ten lines"
    ),
}


def export(
    model: Model,
    folder: Path,
    to: str,
    *,
    decoding: Decoding | None = None,
    source_length: int = 64,
    force: bool = False,
) -> None:
    """Writes `model` to `folder` in one of FORMATS: whole, or, whatever goes wrong, not at all.

    decoding: how a translation program searches, and what the other formats suggest (None: as
    Decoding has it).
    source_length: tokens, EOS included, that the source of a translation program has room for.
    force: what is in the folder, if that is a model, is replaced once the new one is complete.

    ValueError for a folder that is not empty, and for a model that the format does not have.
    """
    if to not in FORMATS:
        raise ValueError(f"there is no format {to!r}; expected one of {', '.join(FORMATS)}")
    with new_folder(folder, force=force) as new:
        _write(model, new, to, decoding or Decoding(), source_length)


def _write(model: Model, folder: Path, to: str, decoding: Decoding, source_length: int) -> None:
    config, params, text = model.config, model.params, model.text
    if to == "safetensors":
        model.save_text(folder)
        save_flat(folder, dataclasses.asdict(config), params)
    elif to == "stablehlo":
        model.save_text(folder)
        _save_program(folder, model, decoding, source_length)
    elif isinstance(config, BertConfig):
        assert isinstance(text, Tokenizer)
        if to not in ("hf", "hf-ragged"):
            raise ValueError(f"{to} is for translation models, but this is a classifier")
        save_hf_bert(folder, config, params, text, ragged=to == "hf-ragged")
    else:
        assert not isinstance(text, Tokenizer)
        if to == "hf-ragged":
            raise ValueError(
                "transformers cannot load a Marian model with pruned heads; expected --to hf, "
                "which pads them"
            )
        if to == "marian":
            save_marian(folder, config, params, text)
        else:
            {"hf": save_hf_marian, "fairseq": save_fairseq}[to](
                folder, config, params, text, decoding
            )


# --- Programs ------------------------------------------------------------------------------------
