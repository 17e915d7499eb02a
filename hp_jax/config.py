"""Frozen hyper-parameters of models and experiments; no masks, meshes or functions, and no side
effects."""

from __future__ import annotations

import dataclasses
from typing import Literal

from hp_jax.architecture import Decoding, Seq2SeqConfig

Reduction = Literal["token", "example", "batch"]
Measure = Literal["abs", "signed", "squared"]
Order = Literal["one_shot", "re_estimated", "oracle"]
MaskSet = Literal["one_off", "one_on", "pairs", "rows_off", "random", "prefixes", "file"]


@dataclasses.dataclass(frozen=True)
class Data:
    """Where labelled text comes from and how it is batched."""

    task: str = "sst2"
    """A GLUE task (sst2, cola, mrpc, mnli, rte, qnli, qqp, wnli), or any name for data of your own
    with `text` and `labels`."""
    path: str = ""
    """A folder with the task's files, or a prepared tensorflow-datasets folder (or the data_dir to
    prepare one in)."""
    format: Literal["files", "tfds"] = "files"
    files: tuple[tuple[str, str], ...] = ()
    """(split, file name) pairs; default: the names under which the task is distributed."""
    text: tuple[str, ...] = ()
    """The one or two text columns; default: the task's."""
    label: str = ""
    """The label column; default: the task's."""
    labels: tuple[str, ...] = ()
    """The label names in order; default: the task's."""
    metric: Literal["", "accuracy", "f1", "matthews", "loss"] = ""
    """Default: the task's own."""
    max_length: int = 128
    """Tokens an example, specials included; longer pairs lose tokens of the longer text first."""
    buckets: tuple[int, ...] = (16, 32, 48, 64, 96, 128)
    """Padded lengths."""
    batch: int = 64
    """Examples a batch when nothing is trained."""
    batch_tokens: int = 0
    """If positive, as many examples a batch as make so many tokens with padding, in place of
    `batch`."""


@dataclasses.dataclass(frozen=True)
class ParallelData:
    """Where sentence pairs come from and how they are batched."""

    source: str = "de"
    """Language code of the source."""
    target: str = "en"
    """Language code of the target."""
    path: str = ""
    """A folder with the files of the pair, or a prepared tensorflow-datasets folder (or a data_dir
    that has one)."""
    format: Literal["files", "tfds", "sacrebleu"] = "files"
    """With sacrebleu the name of a split is that of a test set, such as wmt14/full or mtnt2019, and
    `path` is not read."""
    files: tuple[tuple[str, str, str], ...] = ()
    """(split, source file, target file), or the same .tsv file twice; default: <split>.<language>,
    else <split>.tsv."""
    name: str = ""
    """The name in tensorflow-datasets, such as ted_hrlr_translate/pt_to_en; otherwise any, default
    <source>-<target>."""
    max_length: int = 128
    """Tokens a side, the end of the sentence included."""
    buckets: tuple[int, ...] = (8, 12, 16, 24, 32, 48, 64, 96, 128)
    """Padded lengths, one for both sides."""
    batch: int = 64
    """Pairs a batch when nothing is trained."""
    batch_tokens: int = 0
    """If positive, as many pairs a batch as make so many tokens a side with padding, in place of
    `batch`."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Training; the defaults are the paper's recipe for fine-tuning BERT."""

    split: str = "train"
    evaluate: str = "validation"
    epochs: int = 3
    batch: int = 32
    """Examples a batch."""
    batch_tokens: int = 0
    """If positive, as many examples a batch as make so many tokens (of a pair: a side) with
    padding, in place of `batch`."""
    learning_rate: float = 2e-5
    """The highest."""
    schedule: Literal["linear", "inverse_sqrt"] = "linear"
    """After the warm-up: to 0 at the last step, or with the inverse square root of the step."""
    warmup: float = 0.1
    """Linear warm-up from 0: a share of all steps, or a number of steps if it is 1 or more."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of Adam."""
    weight_decay: float = 0.01
    """Not for biases and LayerNorm."""
    clip: float = 1.0
    """Global gradient norm; 0: not clipped."""
    label_smoothing: float = 0.0
    save_every: int = 500
    """Steps between checkpoints; one is also written after each epoch."""
    keep_epochs: bool = False
    """Keep the model of every epoch, in out/epochs."""
    final: Literal["last", "best", "average"] = "last"
    """Which model to end with: of the last epoch, of the one with the best metric, or the mean of
    the last `average` epochs."""
    average: int = 5

    def __post_init__(self) -> None:
        if self.final != "last" and not self.keep_epochs:
            raise ValueError(
                f"train.final is {self.final!r}, which needs the models of all epochs: set "
                "train.keep_epochs"
            )


@dataclasses.dataclass(frozen=True)
class Importance:
    """Head importance: the gradient of the loss with respect to the gates."""

    split: str = "train[:5000]"
    """Where importance is computed, for the pruning orders too."""
    per: Reduction = "token"
    """What the absolute value or square is taken of."""
    measure: Measure = "abs"
    norm: float = 2.0
    """Order of the norm by which each row's scores are divided; 0 leaves them as they are."""
    keep_gradients: bool = False
    """Also keep the gate gradients of every example [N, A, H]."""


@dataclasses.dataclass(frozen=True)
class RandomSets:
    """Random subsets of the heads removed."""

    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Shares of the heads removed, as numbers of heads rounded down."""
    count: int = 10
    """Subsets of each share."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(
                f"the number of random subsets of each share is {self.count}, but at least 1 was "
                "expected"
            )


@dataclasses.dataclass(frozen=True)
class Ablation:
    """Metric and loss under each mask of some sets of masks."""

    split: str = "validation"
    sets: tuple[MaskSet, ...] = ("one_off", "one_on")
    """Off: each head; all but it in its row; pairs; rows; random subsets; more and more heads of an
    order; what a file says."""
    rows: tuple[str, ...] = ()
    """Only heads of these rows or types of attention, such as `enc`, `dec`, `cross` or `cross.0`;
    default: all."""
    random: RandomSets = RandomSets()
    """What the set `random` is made of."""
    order: str = "importance"
    """In which the set `prefixes` removes heads: that of one-shot pruning, or a file with a head a
    line, such as cross.0.3."""
    masks: str = ""
    """Of the set `file`: .npy, booleans [M, A, H]; or text, a line a mask with what is off, such as
    E:1:3 A:2:1,4 (or -)."""
    masks_at_once: int = 0
    """Masks evaluated together on one device, which share what they have in common, and kept in one
    file; 0: as many as fit."""
    mask_devices: int = 0
    """Devices among which masks are split; the others split the examples of each batch.  0: as many
    as there is work for."""
    part: tuple[int, int] = (1, 1)
    """(i, n): this job does the i-th of n parts of each set; the others may run at the same time,
    in the same `out`."""

    def __post_init__(self) -> None:
        if not 1 <= self.part[0] <= self.part[1]:
            raise ValueError(
                f"ablation.part is {self.part}, but (i, n) with 1 <= i <= n was expected"
            )


@dataclasses.dataclass(frozen=True)
class Pruning:
    """Iterative removal of the least important heads.

    Three splits with three jobs: importance is computed on `importance.split`, the oracle order is
    chosen on `select`, and the curves are measured on `test`.
    """

    select: str = "validation[:50%]"
    """Where the oracle order measures what is lost without each head."""
    oracle: Literal["metric", "loss"] = "metric"
    """What it measures."""
    test: str = "validation[50%:]"
    """Where the curves are measured."""
    orders: tuple[Order, ...] = ("one_shot", "re_estimated", "oracle")
    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Shares of the heads removed."""
    rounding: Literal["floor", "ceil"] = "floor"
    """How shares become numbers of heads: the authors' BERT script rounds down, their translation
    script up."""
    heads: tuple[int, ...] = ()
    """Numbers of heads removed; replaces `shares`."""
    floor: int = 0
    """Heads that each row keeps."""
    rows: tuple[str, ...] = ("all",)
    """From which heads: `all`, or one type of attention (`enc`, `dec`, `cross`); each has its own
    curves (Figure 4)."""
    calibrate: int = 0
    """If positive, each curve is also measured with a scale on every head that is left, fitted on
    so many examples of `importance.split` (whole batches of `train.batch`, which the seed
    chooses)."""
    retrain_steps: int = 0
    """If positive, each curve is also measured with so many steps of training after each step of
    pruning, heads fixed, on `train.split` in `train`'s batches."""
    retrain_rate: float = 5e-5
    """The highest learning rate of these steps: up from 0 in a tenth of them, then down to 0;
    `train` has the rest."""

    def __post_init__(self) -> None:
        for name, count in (("calibrate", self.calibrate), ("retrain_steps", self.retrain_steps)):
            if count < 0:
                raise ValueError(
                    f"pruning.{name} is {count}, but 0 or a positive number was expected"
                )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One model on one task: what to train, score, ablate and prune.  Use one of its two kinds,
    below."""

    model: str = ""
    """A folder of hp_jax or of another library (see the README), or a name on the Hugging Face
    hub."""
    out: str = "runs/experiment"
    """Folder for everything that is made; what is already finished there is not done again."""
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    kernel: Literal["xla", "cudnn"] = "xla"
    """Attention kernel; cudnn needs an NVIDIA GPU and bfloat16."""
    train: Train = Train()
    importance: Importance = Importance()
    ablation: Ablation = Ablation()
    pruning: Pruning = Pruning()


@dataclasses.dataclass(frozen=True)
class ClassificationExperiment(Experiment):
    """Text classification by a BERT-type model."""

    data: Data = Data()


@dataclasses.dataclass(frozen=True)
class TranslationExperiment(Experiment):
    """Translation by an encoder-decoder model; without a `model`, one of the given `architecture`
    is trained."""

    data: ParallelData = ParallelData()
    metric: Literal["bleu", "chrf", "token_accuracy", "loss", "perplexity"] = "bleu"
    """What masks are judged by; token accuracy (of each token given the right ones before it) needs
    no decoding."""
    tokenize: str = "13a"
    """sacreBLEU's tokenizer; `none` for text that is tokenized already."""
    decoding: Decoding = Decoding()
    architecture: Seq2SeqConfig = Seq2SeqConfig()
    """Of a model that is trained from nothing."""
    vocabulary: int = 8000
    """Its SentencePiece vocabulary, of both languages together."""
    train: Train = Train(
        epochs=20,
        batch_tokens=4096,
        learning_rate=5e-4,
        schedule="inverse_sqrt",
        warmup=4000,
        betas=(0.9, 0.98),
        weight_decay=1e-4,
        clip=0.0,
        label_smoothing=0.1,
    )
