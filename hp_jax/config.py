"""Frozen hyper-parameters of models and experiments; no masks, meshes or functions, and no side effects."""

from __future__ import annotations

import dataclasses
from typing import Literal

Reduction = Literal["token", "example", "batch"]
Kind = Literal["abs", "signed", "squared"]
Order = Literal["one_shot", "re_estimated", "oracle"]
MaskSet = Literal["one_off", "one_on", "pairs"]


@dataclasses.dataclass(frozen=True)
class BertConfig:
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
    attention: Literal["xla", "cudnn"] = "xla"

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")

    @property
    def head_width(self) -> int:
        """K, the width of one head."""
        return self.width // self.heads

    @property
    def first_position(self) -> int:
        """The position of the first token: RoBERTa's positions start after the padding index."""
        return self.pad + 1 if self.family == "roberta" else 0


@dataclasses.dataclass(frozen=True)
class Data:
    """Where labelled text comes from and how it is batched."""

    task: str = "sst2"
    """A GLUE task (sst2, cola, mrpc, mnli, rte, qnli, qqp, wnli), or any name for data of your own with `text` and `labels`."""
    path: str = ""
    """A folder with the task's files, or a prepared tensorflow-datasets folder (or the data_dir to prepare one in)."""
    source: Literal["files", "tfds"] = "files"
    files: tuple[tuple[str, str], ...] = ()
    """(split, file name) pairs; default: the names under which the task is distributed."""
    text: tuple[str, ...] = ()
    """The one or two text columns; default: the task's."""
    label: str = ""
    """The label column; default: the task's."""
    labels: tuple[str, ...] = ()
    """The label names in order; default: the task's."""
    metric: Literal["", "accuracy", "f1", "matthews"] = ""
    """Default: the task's own."""
    max_length: int = 128
    """Tokens an example, specials included; longer pairs lose tokens of the longer text first."""
    buckets: tuple[int, ...] = (16, 32, 48, 64, 96, 128)
    """Padded lengths."""
    batch: int = 64
    """Examples a batch when nothing is trained."""
    batch_tokens: int = 0
    """If positive, as many examples a batch as make so many tokens with padding, in place of `batch`."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Fine-tuning; the defaults are the paper's recipe."""

    split: str = "train"
    evaluate: str = "validation"
    epochs: int = 3
    batch: int = 32
    learning_rate: float = 2e-5
    warmup: float = 0.1
    """Share of all steps with a linear warm-up; a linear decay to 0 follows."""
    weight_decay: float = 0.01
    """Not for biases and LayerNorm."""
    clip: float = 1.0
    """Global gradient norm."""
    save_every: int = 500
    """Steps between checkpoints; one is also written after each epoch."""


@dataclasses.dataclass(frozen=True)
class Importance:
    """Head importance: the gradient of the loss with respect to the gates."""

    split: str = "train[:5000]"
    """Where importance is computed, for the pruning orders too."""
    per: Reduction = "token"
    """What the absolute value or square is taken of."""
    kind: Kind = "abs"
    order: float = 2.0
    """Order of the norm by which each row's scores are divided; 0 leaves them as they are."""
    keep_gradients: bool = False
    """Also keep the gate gradients of every example [N, A, H]."""


@dataclasses.dataclass(frozen=True)
class Ablation:
    """Metric and loss under each mask of some sets of masks."""

    split: str = "validation"
    sets: tuple[MaskSet, ...] = ("one_off", "one_on")
    masks_at_once: int = 4
    """Masks evaluated together (vmapped) on one device."""


@dataclasses.dataclass(frozen=True)
class Pruning:
    """Iterative removal of the least important heads.

    Three splits with three jobs: importance is computed on `importance.split`, the oracle order is chosen on `select`, and
    the curves are measured on `test`.
    """

    select: str = "validation[:50%]"
    """Where the oracle order measures what the metric loses without each head."""
    test: str = "validation[50%:]"
    """Where the curves are measured."""
    orders: tuple[Order, ...] = ("one_shot", "re_estimated", "oracle")
    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Shares of all heads removed, read as the paper's scripts round them (down)."""
    heads: tuple[int, ...] = ()
    """Numbers of heads removed; replaces `shares`."""
    floor: int = 0
    """Heads that each row keeps."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One model on one task: what to train, score, ablate and prune."""

    model: str = ""
    """A Hugging Face folder or hub name, or an hp_jax checkpoint folder."""
    out: str = "runs/experiment"
    """Folder for everything that is made; what is already finished there is not done again."""
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["xla", "cudnn"] = "xla"
    """Attention kernel; cudnn needs an NVIDIA GPU and bfloat16."""
    data: Data = Data()
    train: Train = Train()
    importance: Importance = Importance()
    ablation: Ablation = Ablation()
    pruning: Pruning = Pruning()
