"""Marian's own folders (a .npz or .bin file and a SentencePiece vocabulary) as config, parameters
and codec."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import msgspec

from hp_jax.architecture import Seq2SeqConfig
from hp_jax.formats.marian.file import SETTINGS, read_marian
from hp_jax.formats.reading import Options, Supported, check_supported
from hp_jax.formats.slots import Slot, assign, check_layers, check_rest, named
from hp_jax.models.translation import Translation
from hp_jax.storage.files import read_bytes
from hp_jax.task import Params
from hp_jax.text.codec import Codec
from hp_jax.text.sentencepiece import read_sentencepiece
from hp_jax.typed import Count, Layers, Natural, decode, located

log = logging.getLogger("hp_jax")

SUPPORTED: Supported = {
    "type": ("transformer",),
    "transformer-ffn-depth": (2,),
    "transformer-decoder-ffn-depth": (0, 2),
    "transformer-decoder-autoreg": ("self-attention", "rnn"),
    "transformer-postprocess-emb": ("d", ""),
    "transformer-train-position-embeddings": (False,),
    "transformer-disable-position-embeddings": (False,),
    "transformer-no-projection": (False,),
    "transformer-no-bias": (False,),
    "transformer-no-affine": (False,),
    "transformer-tied-layers": ([],),
    "transformer-pool": (False,),
    "right-left": (False,),
    "input-types": ([],),
    "ulr": (False,),
    "lemma-dim-emb": (0,),
    "output-approx-knn": ([],),
}
"""The settings' supported values; the first is Marian's own where the file has none."""

SUPPORTED_RNN: Supported = {
    "dec-cell": ("ssru",),
    "layer-normalization": (False,),
    "transformer-rnn-projection": (False,),
}
"""The same for a decoder with `transformer-decoder-autoreg: rnn`."""

NORMS = {("", "dan", ""): "post", ("n", "da", "n"): "pre"}
"""transformer-preprocess, -postprocess and -postprocess-top -> where LayerNorm stands."""

_ENDS = {
    "source_embedding": "encoder_Wemb",
    "target_embedding": "decoder_Wemb",
    "output": "decoder_ff_logit_out_W",
    "output_bias": "decoder_ff_logit_out_b",
}
_SUBLAYERS = {"attention": "self", "mixer": "self", "cross": "context", "ffn": "ffn"}
_PARTS = {
    "query": "q",
    "key": "k",
    "value": "v",
    "out": "o",
    "forget": "f",
    "inner": "1",
    "outer": "2",
}


def load_marian(folder: Path, options: Options = Options()) -> tuple[Seq2SeqConfig, Params, Codec]:
    """A translation model of Marian's, its float32 parameters (int8 ones are multiplied out) and
    its vocabulary.

    FileNotFoundError or ValueError names the file that is missing or broken, the setting that is
    not supported, or the tensor that is missing, misshaped or unknown.  A model with
    `transformer-preprocess: n` may not work, see the warning in the log.
    """
    file, codec = _model_file(folder), _codec(folder)
    tensors, settings = read_marian(file)
    config = read_config(settings, codec, options.dtype, options.kernel, file)
    for stack, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        check_layers(tensors, rf"{stack}_l(\d+)_", layers, file, f"{SETTINGS} of the {stack}")
    params = _shapes(config)
    if "decoder_ff_logit_out_Wt" in tensors:  # transposed in all but old versions
        tensors["decoder_ff_logit_out_W"] = tensors.pop("decoder_ff_logit_out_Wt").T
    rest = named(tensors)
    assign(params, slots(config), rest, file, settings=SETTINGS, transposed=False)
    model = (
        f"a Transformer of {config.encoder_layers} encoder and {config.decoder_layers} decoder "
        "layers"
    )
    check_rest(rest, (), model, file)
    return config, params, codec


def _model_file(folder: Path) -> Path:
    if (
        folder / "model.npz"
    ).is_file():  # training leaves the optimizer's state and other versions of the model beside it
        return folder / "model.npz"
    found = sorted(folder.glob("*.npz")) + sorted(folder.glob("model*.bin"))
    if not found:
        raise FileNotFoundError(
            f"{folder} has no model of Marian: expected a file *.npz or model*.bin"
        )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ValueError(
            f"{folder} has {len(found)} models, {names}: expected one, so keep the others elsewhere"
        )
    return found[0]


def _codec(folder: Path) -> Codec:
    found = sorted(folder.glob("*.spm"))
    if not found:
        raise FileNotFoundError(f"{folder} has no vocabulary: expected a SentencePiece model *.spm")
    if len({read_bytes(file) for file in found}) > 1:
        names = ", ".join(file.name for file in found)
        raise ValueError(
            f"{folder} has different vocabularies, {names}: expected one for both languages"
        )
    return read_sentencepiece(found[0])


class _Settings(msgspec.Struct, rename="kebab", frozen=True, kw_only=True):
    """What the settings say of sizes and of what has several supported values."""

    dim_vocabs: tuple[Count, Count]
    dim_emb: Count
    enc_depth: Layers
    dec_depth: Layers
    transformer_heads: Count
    transformer_dim_ffn: Count
    transformer_decoder_dim_ffn: Natural = 0
    transformer_ffn_activation: Literal["swish", "relu"]
    transformer_decoder_autoreg: str = "self-attention"
    transformer_preprocess: str = ""
    transformer_postprocess: str = "dan"
    transformer_postprocess_top: str = ""
    tied_embeddings: bool = False
    tied_embeddings_all: bool = False
    tied_embeddings_src: bool = False
    output_omit_bias: bool = False
    version: str = "an unknown version"


def read_config(
    settings: dict[str, Any], codec: Codec, dtype: str, kernel: str, file: Path
) -> Seq2SeqConfig:
    """The config that `settings` describe; ValueError names the one that is missing or not
    supported."""
    where = f"{file}: {SETTINGS}"
    said = decode(_Settings, settings, where)
    check_supported(settings, SUPPORTED, where)
    recurrent = said.transformer_decoder_autoreg == "rnn"
    if recurrent:
        check_supported(settings, SUPPORTED_RNN, where)
    if said.dim_vocabs != (codec.source_vocab, codec.target_vocab):
        raise ValueError(
            f"{file} has vocabularies of {list(said.dim_vocabs)}, but the *.spm beside it is of "
            f"{codec.source_vocab}"
        )
    heads, every = said.transformer_heads, said.tied_embeddings_all
    with located(where):
        return Seq2SeqConfig(
            source_vocab=codec.source_vocab,
            target_vocab=codec.target_vocab,
            eos=codec.eos,
            pad=codec.pad,
            start=-1,
            never=(codec.unk,),
            encoder_layers=said.enc_depth,
            decoder_layers=said.dec_depth,
            encoder_heads=heads,
            decoder_heads=heads,
            cross_heads=heads,
            width=said.dim_emb,
            encoder_ffn=said.transformer_dim_ffn,
            decoder_ffn=said.transformer_decoder_dim_ffn or said.transformer_dim_ffn,
            norm=_norm(said, file),  # type: ignore[arg-type]
            activation=said.transformer_ffn_activation,
            decoder="ssru" if recurrent else "attention",
            positions="sinusoid_half",
            first_position=0,
            scale_embeddings=True,
            share_source=said.tied_embeddings_src or every,
            share_output=said.tied_embeddings or every,
            output_bias=not said.output_omit_bias,
            epsilon=1e-9,
            dtype=dtype,  # type: ignore[arg-type]
            kernel=kernel,  # type: ignore[arg-type]
        )


def _norm(said: _Settings, file: Path) -> str:
    found = (
        said.transformer_preprocess,
        said.transformer_postprocess,
        said.transformer_postprocess_top,
    )
    if found not in NORMS:
        supported = " or ".join(map(repr, NORMS))
        raise ValueError(
            f"transformer-preprocess, -postprocess and -postprocess-top are {found!r}; "
            f"supported is {supported}"
        )
    if NORMS[found] == "pre":
        log.warning(
            "%s has LayerNorm before each sublayer and is of Marian %s: if that is one of the "
            "versions that did not normalise "
            "the keys and values of self-attention (marian-dev issue 699), the model does not "
            "work here",
            file,
            said.version,
        )
    return NORMS[found]


def slots(config: Seq2SeqConfig) -> Iterator[Slot]:
    """Every parameter of the model with its place in the file, where kernels are `[inputs,
    outputs]` and vectors are rows."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(_shapes(config)):
        path = tuple(key.key for key in keys)
        yield Slot(path, _name(path, config), _shape(path, leaf.shape))


def _shapes(config: Seq2SeqConfig) -> Params:
    return jax.eval_shape(Translation(config).init, jax.random.key(0))


def _name(path: tuple[str, ...], config: Seq2SeqConfig) -> str:
    """Marian's name, such as `encoder_l1_self_Wq` or `decoder_l2_ffn_ffn_ln_scale`."""
    top, leaf = path[0], path[-1]
    if top in _ENDS:
        return "Wemb" if leaf == "embedding" and config.share_source else _ENDS[top]
    stack, layer = top.split("_")
    if layer == "norm":
        return f"{stack}_top_ln_{leaf}"
    sublayer, is_norm = path[1].removesuffix("_norm"), path[1].endswith("_norm")
    recurrent = sublayer == "mixer" and config.decoder == "ssru"
    prefix = f"{stack}_l{int(layer) + 1}_{'rnn' if recurrent else _SUBLAYERS[sublayer]}"
    if not is_norm:
        part = "" if recurrent and path[2] == "value" else _PARTS[path[2]]
        return f"{prefix}_{'W' if leaf == 'kernel' else 'b'}{part}"
    post = config.norm == "post"
    if sublayer == "ffn" or (recurrent and post):
        prefix += "_ffn"
    elif not recurrent:
        prefix += "_Wo"
    return f"{prefix}_ln_{leaf}" + ("" if post else "_pre")


def _shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in the file; here kernels of attention are `[D, H, K]`, of its output `[H, K,
    D]`."""
    if path[-1] == "embedding":
        return shape
    if path[-1] != "kernel":
        return (1, math.prod(shape))
    inputs = len(shape) - 1 if path[-2] == "out" else 1
    return (math.prod(shape[:inputs]), math.prod(shape[inputs:]))
