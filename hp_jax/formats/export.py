"""Models in the formats that other programs read, and as programs that need nothing but JAX."""

from __future__ import annotations

from pathlib import Path

from hp_jax.architecture import Decoding
from hp_jax.formats.model import Model
from hp_jax.formats.stablehlo import save_program
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
    force: what is in the folder, if hp_jax wrote all of it, is replaced once the new one is
        complete.

    ValueError for a folder that is not empty, and for a model that the format does not have.
    """
    if to not in FORMATS:
        raise ValueError(f"there is no format {to!r}; expected one of {', '.join(FORMATS)}")
    with new_folder(folder, force=force) as new:
        _write(model, new, to, decoding or Decoding(), source_length)


def _write(model: Model, folder: Path, to: str, decoding: Decoding, source_length: int) -> None:
    family = model.family
    if to == "safetensors":
        model.save(folder, {}, flat=True)
    elif to == "stablehlo" and family.program:
        family.save_text(folder, model.text)
        save_program(folder, model.params, family.program(model.config, decoding, source_length))
    elif to in family.writers:
        family.writers[to](folder, model.config, model.params, model.text, decoding)
    else:
        own = ", ".join([*family.writers, "safetensors", *["stablehlo"] * bool(family.program)])
        raise ValueError(f"there is no {to} of a {family.name}; its formats are {own}")
