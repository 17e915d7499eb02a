"""Translation models as fairseq's archives: model.pt, bpecodes and two dictionaries."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np

from hp_jax.architecture import Decoding, Seq2SeqConfig
from hp_jax.formats.fairseq import read
from hp_jax.formats.seq2seq_names import slots, unused
from hp_jax.formats.slots import collect, named
from hp_jax.formats.writing import check_held, text_of
from hp_jax.removal import pad_heads
from hp_jax.storage.files import write_whole
from hp_jax.task import Params
from hp_jax.text.codec import Codec
from hp_jax.text.fairseq import Fairseq

log = logging.getLogger("hp_jax")

_ACTIVATIONS = {ours: theirs for theirs, ours in reversed(read.ACTIVATIONS.items())}
_OF_TEXT = {
    "clean": False,
    "dash_splits": True,
    "escape": True,
    "lowercase": False,
    "tokenized": False,
}


def save_fairseq(
    folder: Path, config: Seq2SeqConfig, params: Params, codec: Codec, decoding: Decoding
) -> None:
    """model.pt, bpecodes, dict.<source>.txt and dict.<target>.txt, for fairseq 0.10 or newer.

    The .pt holds tensors and plain containers alone, so that today's PyTorch, which refuses to
    unpickle more, loads it. Heads of zeros stand where heads were removed, so it has the size that
    the model had first: in fairseq a head's width is the model's, divided by the number of heads.

    ValueError, before anything is written, for a model that fairseq does not have; ImportError
    without PyTorch.
    """
    what, path = "fairseq", Path("model.pt")
    config, params = pad_heads(config, params)
    text = text_of(codec, Fairseq, what)
    arrays = collect(params, slots(config))
    target = arrays["decoder.embed_tokens.weight"]
    if config.share_source:
        arrays["encoder.embed_tokens.weight"] = target
    cfg = _settings(config, text, decoding)
    known = named(arrays)
    settings = cfg["task"] | cfg["model"]
    check_held(
        config,
        lambda: read.read_config(settings, known, path, config.dtype, config.kernel),
        what,
        unused=unused(config),
    )
    try:
        import torch
    except ImportError as error:
        raise ImportError("writing a model of fairseq needs PyTorch: pip install torch") from error
    if config.share_output:
        arrays["decoder.output_projection.weight"] = target
    for side in ("encoder", "decoder"):
        arrays[f"{side}.version"] = np.full(
            1, 3, np.float32
        )  # of the names; 1 has no LayerNorm after the last layer
        if config.positions != "learned":
            arrays[f"{side}.embed_positions._float_tensor"] = np.zeros(1, np.float32)
    tensors: dict[int, Any] = {}
    model = {
        name: tensors.setdefault(id(array), torch.tensor(array)) for name, array in arrays.items()
    }
    history = [
        {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}
    ]
    content = io.BytesIO()
    extra = {"train_iterator": {"epoch": 1}}
    torch.save(
        {
            "args": None,
            "cfg": cfg,
            "model": model,
            "optimizer_history": history,
            "extra_state": extra,
        },
        content,
    )
    lost = [
        f"{name}={getattr(text, name)}"
        for name, value in _OF_TEXT.items()
        if getattr(text, name) != value
    ]
    if lost:
        log.warning(
            "fairseq's files do not say how text is prepared (%s): do that before fairseq reads it",
            ", ".join(lost),
        )
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "bpecodes": text.codes,
        f"dict.{text.source}.txt": text.source_dict,
        f"dict.{text.target}.txt": text.target_dict,
    }
    for name, data in files.items():
        write_whole(folder / name, data)
    write_whole(folder / path, content.getvalue())


def _settings(config: Seq2SeqConfig, text: Fairseq, decoding: Decoding) -> dict[str, Any]:
    """fairseq's `cfg`; it takes its own defaults for what is not there."""
    learned = config.positions == "learned"
    positions = config.max_positions - 2 if learned else 1024
    share = config.share_source and config.share_output
    model = {
        "_name": "transformer",
        "activation_fn": _ACTIVATIONS.get(config.activation, config.activation),
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "max_source_positions": positions,
        "max_target_positions": positions,
        "decoder_input_dim": config.width,
        "decoder_output_dim": config.width,
        "no_scale_embedding": not config.scale_embeddings,
        "share_all_embeddings": share,
        "share_decoder_input_output_embed": config.share_output,
    }
    sides = {
        "encoder": (config.encoder_layers, config.encoder_heads, config.encoder_ffn),
        "decoder": (config.decoder_layers, config.decoder_heads, config.decoder_ffn),
    }
    for side, (layers, heads, ffn) in sides.items():
        model |= {
            f"{side}_embed_dim": config.width,
            f"{side}_ffn_embed_dim": ffn,
            f"{side}_layers": layers,
            f"{side}_attention_heads": heads,
            f"{side}_normalize_before": config.norm == "pre",
            f"{side}_learned_pos": learned,
        }
    limits = {
        "max_len_a": decoding.max_ratio,
        "max_len_b": decoding.max_extra,
        "min_len": decoding.min_length,
    }
    search = {
        "_name": None,
        "beam": decoding.beam,
        "lenpen": decoding.length_penalty,
        "nbest": 1,
        "replace_unk": None,
        "print_alignment": None,
    }
    languages = {"source_lang": text.source, "target_lang": text.target}
    return {
        "model": model,
        "task": {"_name": "translation", "data": ".", **languages},
        "generation": search | limits,
        "tokenizer": None if text.tokenized else {"_name": "moses", **languages},
        "bpe": {"_name": "subword_nmt", "bpe_codes": "bpecodes", "bpe_separator": "@@"},
        "dataset": {"max_tokens": None, "batch_size": None},
    }
