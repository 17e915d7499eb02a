"""Models: which attention heads they have and where; hyper-parameters alone, no arrays and no
functions of them."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heads:
    """Which attention heads a model has, in all its life: heads keep their numbers when others are
    removed."""

    kept: tuple[tuple[int, ...], ...] = ()
    """The numbers of the heads that each row of the head mask has left, counted before any was
    removed; none: all rows have all heads."""

    def __post_init__(self) -> None:
        rows = self.rows
        if self.kept and len(self.kept) != len(rows):
            raise ValueError(
                f"kept heads are given for {len(self.kept)} rows, but the model has {len(rows)}"
            )
        for kept, (row, count) in zip(self.kept, rows.items(), strict=False):
            if list(kept) != sorted(set(kept) & set(range(count))):
                raise ValueError(
                    f"row {row} keeps the heads {kept}, but expected are some of 0 to "
                    f"{count - 1}, in order, once each"
                )

    @property
    def rows(self) -> dict[str, int]:
        """The head mask's rows in reading order, with the numbers of heads that they had at
        first."""
        raise NotImplementedError

    @property
    def kept_heads(self) -> dict[str, tuple[int, ...]]:
        """The numbers of the heads that each row has."""
        rows = self.rows
        return dict(
            zip(rows, self.kept or (tuple(range(count)) for count in rows.values()), strict=True)
        )

    @property
    def heads_per_row(self) -> dict[str, int]:
        """How many heads each row has."""
        return {row: len(kept) for row, kept in self.kept_heads.items()}


@dataclasses.dataclass(frozen=True)
class BertConfig(Heads):
    """A BERT-type classifier: BERT, RoBERTa and DistilBERT differ only in what is said here."""

    family: Literal["bert", "roberta", "distilbert"]
    labels: tuple[str, ...]
    vocab: int
    positions: int
    types: int
    layers: int
    heads: int
    width: int
    ffn: int
    pad: int = 0
    activation: str = "gelu"
    epsilon: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float = 0.1
    dtype: Literal["float32", "bfloat16"] = "float32"
    kernel: Literal["xla", "cudnn"] = "xla"

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")
        super().__post_init__()

    @property
    def rows(self) -> dict[str, int]:
        """`enc.0`, `enc.1`, ...: the head mask's rows, with the numbers of heads that they had at
        first."""
        return {f"enc.{layer}": self.heads for layer in range(self.layers)}

    @property
    def head_width(self) -> int:
        """K, the width of one head."""
        return self.width // self.heads

    @property
    def first_position(self) -> int:
        """The position of the first token: RoBERTa's positions start after the padding index."""
        return self.pad + 1 if self.family == "roberta" else 0


@dataclasses.dataclass(frozen=True)
class Seq2SeqConfig(Heads):
    """An encoder-decoder Transformer: those of fairseq, Marian and Hugging Face's Marian differ
    only in what is said here.

    Rows of its head mask are `enc.i`, then `dec.i` and `cross.i` in turn; with an SSRU decoder
    there are no `dec` rows. Where the attention types have different numbers of heads, the mask is
    as wide as the widest, and heads that a row does not have are off from the start.
    """

    source_vocab: int = 0
    """Symbols of the source vocabulary; 0 in an experiment that trains a new model, where the
    vocabulary decides this and all the other token ids."""
    target_vocab: int = 0
    """Symbols of the target vocabulary; 0: as with `source_vocab`, the vocabulary decides."""
    eos: int = 0
    """The token id of the end of a sentence."""
    pad: int = 0
    """The token id of padding."""
    start: int = -1
    """The token id of the decoder's first input; -1: a zero embedding, as in Marian."""
    never: tuple[int, ...] = ()
    """The token ids that decoding does not produce; none: it may produce all."""
    encoder_layers: int = 6
    """Layers of the encoder."""
    decoder_layers: int = 6
    """Layers of the decoder."""
    encoder_heads: int = 8
    """Heads in each self-attention of the encoder."""
    decoder_heads: int = 8
    """Heads in each self-attention of the decoder."""
    cross_heads: int = 8
    """Heads in each cross-attention of the decoder."""
    width: int = 512
    """Numbers in each token's state, in the whole model."""
    encoder_ffn: int = 2048
    """Hidden units of each feed-forward layer of the encoder."""
    decoder_ffn: int = 2048
    """Hidden units of each feed-forward layer of the decoder."""
    norm: Literal["post", "pre"] = "post"
    """Where LayerNorm stands: after each sub-layer, or before it, with one more at the end of each
    stack."""
    activation: str = "relu"
    """The activation of the feed-forward layers."""
    decoder: Literal["attention", "ssru"] = "attention"
    """What mixes target positions: self-attention, or the simpler simple recurrent unit of Kim et
    al. (2019)."""
    positions: Literal["sinusoid", "sinusoid_half", "learned"] = "sinusoid"
    """How positions are told: sinusoids with frequencies 10000^(-2j / width), as in the Transformer
    paper, or 10000^(-j / (width / 2 - 1)), as in fairseq; or a learned embedding."""
    first_position: int = 0
    """The position of the first token; fairseq's is the padding id + 1."""
    max_positions: int = 1024
    """Learned positions of each side, those before `first_position` included."""
    scale_embeddings: bool = True
    """Multiply embeddings by the square root of the width."""
    share_source: bool = True
    """Use one embedding for source and target."""
    share_output: bool = True
    """Use the target embedding as the output projection."""
    output_bias: bool = False
    """Add a bias to the output projection."""
    epsilon: float = 1e-5
    """What LayerNorm adds to the variance."""
    dropout: float = 0.1
    """The share of the states that dropout sets to 0 in training."""
    attention_dropout: float = 0.0
    """The share of the attention weights that dropout sets to 0 in training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The type of number that the model computes with; in an experiment its own `dtype` counts."""
    kernel: Literal["xla", "cudnn"] = "xla"
    """The kernel of attention; in an experiment its own `kernel` counts."""

    def __post_init__(self) -> None:
        for heads in (self.encoder_heads, self.decoder_heads, self.cross_heads):
            if heads < 1 or self.width % heads:
                raise ValueError(f"a width of {self.width} does not divide into {heads} heads")
        if self.share_source and self.source_vocab != self.target_vocab:
            raise ValueError(
                f"one embedding cannot serve {self.source_vocab} source and {self.target_vocab} "
                "target symbols"
            )
        super().__post_init__()

    @property
    def rows(self) -> dict[str, int]:
        """The head mask's rows in reading order, with the numbers of heads that they had at
        first."""
        rows = {f"enc.{layer}": self.encoder_heads for layer in range(self.encoder_layers)}
        for layer in range(self.decoder_layers):
            if self.decoder == "attention":
                rows[f"dec.{layer}"] = self.decoder_heads
            rows[f"cross.{layer}"] = self.cross_heads
        return rows


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Beam search as in fairseq."""

    beam: int = 5
    """Hypotheses that are kept at each step; 1: greedy search."""
    length_penalty: float = 1.0
    """The exponent in log-probability / length^exponent, EOS counted, by which hypotheses are
    compared; 0: by log-probability alone."""
    max_ratio: float = 2.0
    """The most tokens of a translation for each token of its source, EOS counted; `max_extra` are
    added."""
    max_extra: int = 10
    """The tokens that a translation may have beyond `max_ratio` times its source's; its EOS comes
    on top."""
    min_length: int = 1
    """The fewest tokens before EOS."""


def present_mask(config: Heads) -> np.ndarray:
    """All heads that a model has, as a mask `[A, H]`; a constant, so a NumPy array."""
    numbers_H = np.arange(max(config.rows.values()))
    return np.array([np.isin(numbers_H, kept) for kept in config.kept_heads.values()])


_MODULES = {
    BertConfig: {"enc": "layer_{} attention"},
    Seq2SeqConfig: {
        "enc": "encoder_{} attention",
        "dec": "decoder_{} mixer",
        "cross": "decoder_{} cross",
    },
}


def attention_path(config: BertConfig | Seq2SeqConfig, row: str) -> tuple[str, ...]:
    """Where the parameters of a row's attention module are."""
    kind, _, layer = row.partition(".")
    return tuple(_MODULES[type(config)][kind].format(layer).split())
