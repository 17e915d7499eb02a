"""Translation models in Marian's own form: model.npz (float32) and vocab.spm."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from hp_jax.architecture import Decoding, Seq2SeqConfig
from hp_jax.formats.marian import read
from hp_jax.formats.marian.file import SETTINGS
from hp_jax.formats.seq2seq_names import unused
from hp_jax.formats.slots import collect
from hp_jax.formats.writing import check_held, text_of
from hp_jax.removal import pad_heads
from hp_jax.storage.files import write_whole
from hp_jax.task import Params
from hp_jax.text.codec import Codec
from hp_jax.text.sentencepiece import SentencePiece


def save_marian(
    folder: Path, config: Seq2SeqConfig, params: Params, codec: Codec, decoding: Decoding
) -> None:
    """model.npz and vocab.spm, for `marian-decoder -m model.npz -v vocab.spm vocab.spm`.

    Heads of zeros stand where heads were removed, so it has the size that the model had first: in
    Marian a head's width is the model's, divided by the number of heads.  ValueError, before
    anything is written, for a model that Marian does not have.
    """
    what = "Marian"
    config, params = pad_heads(config, params)
    text = text_of(codec, SentencePiece, what)
    settings = _settings(config)
    path = Path("model.npz")
    check_held(
        config,
        lambda: read.read_config(settings, text, config.dtype, config.kernel, path),
        what,
        unused=unused(config),
    )
    tensors = collect(params, read.slots(config), transposed=False)
    if not config.share_output:
        tensors["decoder_ff_logit_out_Wt"] = np.ascontiguousarray(
            tensors.pop("decoder_ff_logit_out_W").T
        )
    tensors[SETTINGS] = np.frombuffer(yaml.safe_dump(settings).encode() + b"\0", np.int8)
    content = io.BytesIO()
    np.savez(content, **tensors)  # type: ignore[arg-type]  # no tensor is called allow_pickle
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "vocab.spm", text.model)
    write_whole(folder / path, content.getvalue())


def _settings(config: Seq2SeqConfig) -> dict[str, Any]:
    """What Marian writes into the file; whatever has but one supported value has that."""
    fixed = {name: values[0] for name, values in {**read.SUPPORTED, **read.SUPPORTED_RNN}.items()}
    preprocess, postprocess, top = next(
        names for names, norm in read.NORMS.items() if norm == config.norm
    )
    return fixed | {
        # Marian's default, which other readers of its files ask for
        "transformer-guided-alignment-layer": "last",
        "dim-vocabs": [config.source_vocab, config.target_vocab],
        "dim-emb": config.width,
        "enc-depth": config.encoder_layers,
        "dec-depth": config.decoder_layers,
        "transformer-heads": config.encoder_heads,
        "transformer-dim-ffn": config.encoder_ffn,
        "transformer-decoder-dim-ffn": config.decoder_ffn,
        "transformer-ffn-activation": config.activation,
        "transformer-decoder-autoreg": "rnn" if config.decoder == "ssru" else "self-attention",
        "transformer-preprocess": preprocess,
        "transformer-postprocess": postprocess,
        "transformer-postprocess-top": top,
        "tied-embeddings-all": config.share_source and config.share_output,
        "tied-embeddings": config.share_output and not config.share_source,
        "tied-embeddings-src": config.share_source and not config.share_output,
        "output-omit-bias": not config.output_bias,
    }
