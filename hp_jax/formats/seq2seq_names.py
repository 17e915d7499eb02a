"""Parameters of encoder-decoders from fairseq's and Hugging Face's files, which name nearly all
modules alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np

from hp_jax.architecture import Seq2SeqConfig
from hp_jax.formats.slots import Slot, Tensors, assign, check_layers, check_rest, unite
from hp_jax.models.translation import Translation
from hp_jax.task import Params

_NAMES = {
    "attention": "self_attn",
    "attention_norm": "self_attn_layer_norm",
    "mixer": "self_attn",
    "mixer_norm": "self_attn_layer_norm",
    "cross": "encoder_attn",
    "cross_norm": "encoder_attn_layer_norm",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "out": "out_proj",
    "ffn": "",
    "inner": "fc1",
    "outer": "fc2",
    "ffn_norm": "final_layer_norm",
    "source_embedding": "encoder.embed_tokens",
    "target_embedding": "decoder.embed_tokens",
    "source_position": "encoder.embed_positions",
    "target_position": "decoder.embed_positions",
    "encoder_norm": "encoder.layer_norm",
    "decoder_norm": "decoder.layer_norm",
    "output": "decoder.output_projection",
    "output_bias": "final_logits_bias",
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
}
"""Each part of a parameter's path here -> that in the files; layers apart."""


def slots(config: Seq2SeqConfig) -> Iterator[Slot]:
    """Every parameter of the model with its place in the file."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(_shapes(config)):
        parts = tuple(entry.key for entry in path)
        yield Slot(parts, ".".join(filter(None, map(_name, parts))), _shape(parts, leaf.shape))


def fill(
    config: Seq2SeqConfig, tensors: Tensors, file: Path, *, settings: str, ignored: Iterable[str]
) -> Params:
    """Float32 parameters from the tensors of `file`; each is used or, if one of the patterns
    `ignored` fits, named in the log.

    Embeddings that are one here may be in the file under several names.  ValueError names a tensor
    that is missing, misshaped or unknown, or two that should be equal; `settings` is where the
    file's shapes are said.
    """
    source, target = ["encoder.embed_tokens.weight"], ["decoder.embed_tokens.weight"]
    output = ["decoder.output_projection.weight", "decoder.embed_out", "lm_head.weight"]
    if config.share_source:
        target += [*source, "shared.weight"]
    if config.share_output:
        target += output
    else:
        unite(tensors, output, file)
    unite(tensors, target, file)
    for stack, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        pattern = rf"{stack}\.layers\.(\d+)\."
        check_layers(tensors, pattern, layers, file, f"{settings} of the {stack}")
    params = _shapes(config)
    assign(params, slots(config), tensors, file, settings=settings)
    model = (
        f"a Transformer of {config.encoder_layers} encoder and {config.decoder_layers} decoder "
        "layers"
    )
    check_rest(tensors, ignored, model, file)
    return params


def unused(config: Seq2SeqConfig) -> tuple[str, ...]:
    """Settings on which the model does not depend."""
    return () if config.positions == "learned" else ("max_positions",)


def _shapes(config: Seq2SeqConfig) -> Params:
    return jax.eval_shape(Translation(config).init, jax.random.key(0))


def _name(part: str) -> str:
    layer = re.fullmatch(r"(encoder|decoder)_(\d+)", part)
    return f"{layer[1]}.layers.{layer[2]}" if layer else _NAMES[part]


def _shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in the file; here kernels are `[D, H, K]`, of an attention's output `[H, K, D]`."""
    *_, module, leaf = ("", *path)
    if leaf == "output_bias":
        return (1, *shape)
    if leaf == "kernel":
        inputs = len(shape) - 1 if module == "out" else 1
        return (int(np.prod(shape[inputs:])), int(np.prod(shape[:inputs])))
    return (int(np.prod(shape)),) if leaf == "bias" else shape
