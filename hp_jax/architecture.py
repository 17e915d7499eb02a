"""Models: which attention heads they have and where; hyper-parameters alone, no arrays and no
functions of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from msgspec import Meta

from hp_jax.typed import Amount, Checked, Count, Dropout, Layers, Natural, Positive

Activation = Literal["gelu", "gelu_new", "relu", "silu", "swish", "tanh"]
"""Of feed-forward layers, by Hugging Face's names."""


class AttentionModule(NamedTuple):
    """One row of the head mask: an attention module as it was before any head was removed."""

    path: tuple[str, ...]
    """Where its parameters are."""
    width: int
    """D, of what it reads and writes."""
    heads: int
    """H, query heads: the columns of the mask."""
    head_width: int
    """K."""
    key_heads: int
    """Of keys and values; each serves heads / key_heads successive query heads, its group."""
    biases: tuple[str, ...] = ("query", "key", "value", "out")
    """The projections that have one."""
    added: bool = True
    """Whether the output is added to the residual stream as it is; else it is normalised before."""

    @property
    def group(self) -> int:
        """Query heads that share keys and values: 1 in multi-head attention."""
        return self.heads // self.key_heads

    def serving(self, heads: Sequence[int]) -> tuple[int, ...]:
        """The key/value heads that serve some query heads, in order."""
        return tuple(sorted({head // self.group for head in heads}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Checked):
    """What the config of every model says: which attention heads it has, and how it computes.

    Heads keep their numbers in all the model's life, when others are removed too.
    """

    kept: tuple[tuple[Natural, ...], ...] = ()
    """The numbers of the heads that each row of the head mask has left, counted before any was
    removed; none: all rows have all heads."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The type of number that the model computes with; in an experiment its own `dtype` counts."""
    kernel: Literal["xla", "cudnn"] = "xla"
    """The kernel of attention; in an experiment its own `kernel` counts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for row, module in self.modules.items():
            if module.heads < 1 or module.head_width < 1:
                raise ValueError(
                    f"a width of {module.width} does not divide into {module.heads} heads"
                )
            if module.key_heads < 1 or module.heads % module.key_heads:
                raise ValueError(
                    f"{module.heads} heads of row {row} do not share {module.key_heads} key/value "
                    "heads evenly"
                )
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
    def modules(self) -> dict[str, AttentionModule]:
        """The head mask's rows in reading order."""
        raise NotImplementedError

    @property
    def rows(self) -> dict[str, int]:
        """The head mask's rows in reading order, with the numbers of heads that they had at
        first."""
        return {row: module.heads for row, module in self.modules.items()}

    @property
    def vocabulary(self) -> int:
        """The least number of token ids that any of its inputs has."""
        raise NotImplementedError

    @property
    def room(self) -> int | None:
        """The most tokens of an input; None: as many as one likes."""
        raise NotImplementedError

    def tokens(self, row: str, length: int, target: int) -> tuple[int, int]:
        """Queries and keys of a row for one example of `length` tokens (a pair: and `target`)."""
        raise NotImplementedError

    def cached(self, row: str, length: int, target: int) -> int:
        """Tokens of such an example whose keys and values in a row are needed for the next one."""
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
class BertConfig(ModelConfig):
    """A BERT-type classifier: BERT, RoBERTa and DistilBERT differ only in what is said here."""

    family: Literal["bert", "roberta", "distilbert"]
    labels: Annotated[tuple[str, ...], Meta(min_length=1)]
    vocab: Count
    positions: Count
    types: Natural
    layers: Layers
    heads: Count
    width: Count
    ffn: Count
    pad: Natural = 0
    activation: Activation = "gelu"
    epsilon: Amount = 1e-12
    dropout: Dropout = 0.1
    attention_dropout: Dropout = 0.1
    classifier_dropout: Dropout = 0.1
    head_width: Natural = 0
    """K, the width of one head; 0: the model's width divided by the number of heads."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pad >= self.vocab:
            raise ValueError(f"pad is {self.pad}, but the vocabulary has {self.vocab} tokens")
        if self.room < 1:
            raise ValueError(
                f"there are {self.positions} positions, but the first token's is "
                f"{self.first_position}"
            )
        known = [label.casefold() for label in self.labels]
        twice = [label for label in self.labels if known.count(label.casefold()) > 1]
        if twice:
            raise ValueError(f"expected each label once, but got {', '.join(map(repr, twice))}")

    @property
    def modules(self) -> dict[str, AttentionModule]:
        """`enc.0`, `enc.1`, ..."""
        head_width = self.head_width or _share(self.width, self.heads)
        return {
            f"enc.{i}": AttentionModule(
                (f"layer_{i}", "attention"), self.width, self.heads, head_width, self.heads
            )
            for i in range(self.layers)
        }

    @property
    def vocabulary(self) -> int:
        """Token ids."""
        return self.vocab

    @property
    def room(self) -> int:
        """The most tokens, special ones included."""
        return self.positions - self.first_position

    def tokens(self, row: str, length: int, target: int) -> tuple[int, int]:
        """All tokens look at all; in the last row [CLS] alone does."""
        last = row == f"enc.{self.layers - 1}"
        return (1 if last else length), length

    def cached(self, row: str, length: int, target: int) -> int:
        """None: nothing is generated."""
        return 0

    @property
    def first_position(self) -> int:
        """The position of the first token: RoBERTa's positions start after the padding index."""
        return self.pad + 1 if self.family == "roberta" else 0


@dataclasses.dataclass(frozen=True)
class Seq2SeqConfig(ModelConfig, section="architecture"):
    """An encoder-decoder Transformer: those of fairseq, Marian and Hugging Face's Marian differ
    only in what is said here.

    Rows of its head mask are `enc.i`, then `dec.i` and `cross.i` in turn; with an SSRU decoder
    there are no `dec` rows. Where the attention types have different numbers of heads, the mask is
    as wide as the widest, and heads that a row does not have are off from the start.
    """

    source_vocab: Natural = 0
    """Symbols of the source vocabulary; 0 in an experiment that trains a new model, where the
    vocabulary decides this and all the other token ids."""
    target_vocab: Natural = 0
    """Symbols of the target vocabulary; 0: as with `source_vocab`, the vocabulary decides."""
    eos: Natural = 0
    """The token id of the end of a sentence."""
    pad: Natural = 0
    """The token id of padding."""
    start: Annotated[int, Meta(ge=-1)] = -1
    """The token id of the decoder's first input; -1: a zero embedding, as in Marian."""
    never: tuple[Natural, ...] = ()
    """The token ids that decoding does not produce; none: it may produce all."""
    encoder_layers: Layers = 6
    """Layers of the encoder."""
    decoder_layers: Layers = 6
    """Layers of the decoder."""
    encoder_heads: Count = 8
    """Heads in each self-attention of the encoder."""
    decoder_heads: Count = 8
    """Heads in each self-attention of the decoder."""
    cross_heads: Count = 8
    """Heads in each cross-attention of the decoder."""
    width: Count = 512
    """Numbers in each token's state, in the whole model."""
    encoder_ffn: Count = 2048
    """Hidden units of each feed-forward layer of the encoder."""
    decoder_ffn: Count = 2048
    """Hidden units of each feed-forward layer of the decoder."""
    norm: Literal["post", "pre"] = "post"
    """Where LayerNorm stands: after each sub-layer, or before it, with one more at the end of each
    stack."""
    activation: Activation = "relu"
    """The activation of the feed-forward layers."""
    decoder: Literal["attention", "ssru"] = "attention"
    """What mixes target positions: self-attention, or the simpler simple recurrent unit of Kim et
    al. (2019)."""
    positions: Literal["sinusoid", "sinusoid_half", "learned"] = "sinusoid"
    """How positions are embedded: sinusoids with frequencies 10000^(-2j / width), as in the
    Transformer paper, or 10000^(-j / (width / 2 - 1)), as in fairseq; or a learned embedding."""
    first_position: Natural = 0
    """The position of the first token; fairseq's is the padding id + 1."""
    max_positions: Count = 1024
    """Learned positions of each side, those before `first_position` included."""
    scale_embeddings: bool = True
    """Multiply embeddings by the square root of the width."""
    share_source: bool = True
    """Use one embedding for source and target."""
    share_output: bool = True
    """Use the target embedding as the output projection."""
    output_bias: bool = False
    """Add a bias to the output projection."""
    epsilon: Amount = 1e-5
    """What LayerNorm adds to the variance."""
    dropout: Dropout = 0.1
    """The share of the states that dropout sets to 0 in training."""
    attention_dropout: Dropout = 0.0
    """The share of the attention weights that dropout sets to 0 in training."""
    head_width: Natural = 0
    """K, the width of one head; 0: the model's width divided by the type's number of heads."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.share_source and self.source_vocab != self.target_vocab:
            raise ValueError(
                f"one embedding cannot serve {self.source_vocab} source and {self.target_vocab} "
                "target symbols"
            )
        for name, ids, size in (
            ("eos", (self.eos,), self.vocabulary),
            ("pad", (self.pad,), self.vocabulary),
            ("start", (self.start,), self.target_vocab),
            ("never", self.never, self.target_vocab),
        ):
            if max((*ids, -1)) >= size > 0:
                raise ValueError(
                    f"{name} has the token {max(ids)}, but the vocabulary has {size} tokens"
                )
        if self.room is not None and self.room < 1:
            raise ValueError(
                f"there are {self.max_positions} positions, but the first token's is "
                f"{self.first_position}"
            )

    @property
    def modules(self) -> dict[str, AttentionModule]:
        """`enc.0`, ..., then `dec.0`, `cross.0`, `dec.1`, ..."""

        def module(path: str, heads: int) -> AttentionModule:
            head_width = self.head_width or _share(self.width, heads)
            return AttentionModule(tuple(path.split()), self.width, heads, head_width, heads)

        made = {
            f"enc.{i}": module(f"encoder_{i} attention", self.encoder_heads)
            for i in range(self.encoder_layers)
        }
        for i in range(self.decoder_layers):
            if self.decoder == "attention":
                made[f"dec.{i}"] = module(f"decoder_{i} mixer", self.decoder_heads)
            made[f"cross.{i}"] = module(f"decoder_{i} cross", self.cross_heads)
        return made

    @property
    def vocabulary(self) -> int:
        """Token ids that both sides have."""
        return min(self.source_vocab, self.target_vocab)

    @property
    def room(self) -> int | None:
        """The most tokens a side, where positions are learned."""
        return self.max_positions - self.first_position if self.positions == "learned" else None

    def tokens(self, row: str, length: int, target: int) -> tuple[int, int]:
        """Of the source, the target, or the one over the other."""
        kind = row.partition(".")[0]
        return (length if kind == "enc" else target), (target if kind == "dec" else length)

    def cached(self, row: str, length: int, target: int) -> int:
        """Of the decoder's own tokens, or of the source that it looks at."""
        return 0 if row.startswith("enc.") else self.tokens(row, length, target)[1]


@dataclasses.dataclass(frozen=True)
class DecoderConfig(ModelConfig):
    """A decoder-only language model: GPT-2, Llama, Mistral, Qwen and Gemma differ only in what is
    said here.

    Its layers are pre-norm.  Query heads are the columns of its mask; each head of keys and values
    serves `heads / key_heads` successive ones, its group.
    """

    family: Literal["gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"]
    """Hugging Face's `model_type`, as which the model is exported; it decides no number."""
    vocab: Count
    layers: Layers
    width: Count
    ffn: Count
    heads: Count
    """Query heads of each layer."""
    key_heads: Count
    """Heads of keys and values of each layer."""
    head_width: Count
    """K."""
    positions: Count
    """The most tokens that the model was made for."""
    norm: Literal["layer", "rms"] = "rms"
    """LayerNorm, or the same without mean and bias."""
    epsilon: Amount = 1e-5
    """What a norm adds to the variance or mean square."""
    norm_outputs: bool = False
    """Whether what attention and feed-forward layers give is normalised too before it is added."""
    norm_queries: bool = False
    """Whether each head's queries and keys are normalised, before they are rotated."""
    biases: tuple[Literal["query", "key", "value", "out"], ...] = ()
    """The projections of attention that have one."""
    ffn_bias: bool = False
    gated: bool = True
    """Whether the feed-forward layer's hidden units are multiplied by gates of their own."""
    activation: Activation = "silu"
    rotary_base: Amount = 10000.0
    """Positions rotate the numbers j and j + K / 2 of queries and keys by the angle position *
    base^(-2j / K) / factor_j; 0: positions are embeddings that are learned."""
    rotary_factors: tuple[Positive, ...] = ()
    """K / 2 factors, by which models are made to read longer texts; none: all are 1."""
    rotary_scale: Positive = 1.0
    """What rotated queries and keys are multiplied by."""
    local: tuple[Natural, ...] = ()
    """The layers in which a token sees only the last `window` tokens, itself included."""
    window: Natural = 0
    local_base: Amount = 0.0
    """`rotary_base` of those layers, which then have no factors and no scale; 0: as in the
    others."""
    query_scale: Amount = 0.0
    """Scores of attention are divided by the square root of this; 0: of K."""
    attention_softcap: Amount = 0.0
    """Scores of attention are kept below this, as softcap * tanh(score / softcap); 0: they are
    not."""
    logit_softcap: Amount = 0.0
    """The same of the logits."""
    embedding_scale: Positive = 1.0
    """What embeddings are multiplied by."""
    tied: bool = True
    """Whether the embedding is the output projection too."""
    eos: tuple[Natural, ...] = ()
    """The tokens with which a text ends."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rotary_base and self.head_width % 2:
            raise ValueError(f"heads of {self.head_width} numbers cannot be rotated in pairs")
        if len(self.rotary_factors) not in (0, self.head_width // 2):
            raise ValueError(
                f"there are {len(self.rotary_factors)} rotary_factors, but {self.head_width // 2} "
                f"are expected of heads of {self.head_width} numbers"
            )
        if self.local and not self.window:
            raise ValueError(f"the layers {self.local} are local, but there is no window")
        if max((*self.local, -1)) >= self.layers:
            raise ValueError(
                f"layer {max(self.local)} is local, but the model has {self.layers} layers"
            )
        if max((*self.eos, -1)) >= self.vocab:
            raise ValueError(
                f"eos has the token {max(self.eos)}, but the vocabulary has {self.vocab} tokens"
            )

    @property
    def modules(self) -> dict[str, AttentionModule]:
        """`dec.0`, `dec.1`, ..."""
        return {
            f"dec.{i}": AttentionModule(
                (f"layer_{i}", "attention"),
                self.width,
                self.heads,
                self.head_width,
                self.key_heads,
                self.biases,
                added=not self.norm_outputs,
            )
            for i in range(self.layers)
        }

    @property
    def vocabulary(self) -> int:
        """Token ids."""
        return self.vocab

    @property
    def room(self) -> int:
        """The most tokens."""
        return self.positions

    def tokens(self, row: str, length: int, target: int) -> tuple[int, int]:
        """Of all tokens but the last, from which nothing is predicted."""
        return length - 1, length - 1

    def cached(self, row: str, length: int, target: int) -> int:
        """All, or those of the window."""
        local = int(row.removeprefix("dec.")) in self.local
        return min(length, self.window) if local else length


@dataclasses.dataclass(frozen=True)
class Decoding(Checked, section="decoding"):
    """Beam search as in fairseq."""

    beam: Count = 5
    """Hypotheses that are kept at each step; 1: greedy search."""
    length_penalty: Amount = 1.0
    """The exponent in log-probability / length^exponent, EOS counted, by which hypotheses are
    compared; 0: by log-probability alone."""
    max_ratio: Amount = 2.0
    """The most tokens of a translation for each token of its source, EOS counted; `max_extra` are
    added."""
    max_extra: Annotated[int, Meta(ge=-1)] = 10
    """The tokens that a translation may have beyond `max_ratio` times its source's; its EOS comes
    on top."""
    min_length: Natural = 1
    """The fewest tokens before EOS."""


def present_mask(config: ModelConfig) -> np.ndarray:
    """All heads that a model has, as a mask `[A, H]`; a constant, so a NumPy array."""
    numbers_H = np.arange(max(config.rows.values()))
    return np.array([np.isin(numbers_H, kept) for kept in config.kept_heads.values()])


def _share(width: int, heads: int) -> int:
    """The width of each head, 0 if they cannot have the same."""
    return 0 if heads < 1 or width % heads else width // heads
