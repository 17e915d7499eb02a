"""Frozen hyper-parameters of models and experiments; no masks, meshes or functions, and no side
effects."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hp_jax.architecture import Decoding, Seq2SeqConfig
from hp_jax.config_data import ChoiceData, Data, DocumentData, ParallelData
from hp_jax.orders import Order
from hp_jax.typed import Amount, Checked, Count, Counts, Dropout, Natural, Share, check_place

Reduction = Literal["token", "example", "batch"]
Measure = Literal["abs", "signed", "squared"]
MaskSet = Literal[
    "one_off",
    "one_on",
    "groups_off",
    "group_on",
    "pairs",
    "rows_off",
    "random",
    "prefixes",
    "file",
]
PaperSetting = Literal["", "wmt", "mnli", "sst2", "cola", "mrpc", "iwslt"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Checked, section="train"):
    """How the model is trained.

    What depends on the kind of model has no default: begin with a recipe, FINE_TUNING or
    FROM_SCRATCH, and `dataclasses.replace` what is different.
    """

    split: str = "train"
    """The split that is trained on."""
    evaluate: str = "validation"
    """The split on which the model is evaluated after each epoch."""
    epochs: Count
    """Passes over the training split."""
    batch: Count
    """Examples in a batch of training."""
    batch_tokens: Natural
    """Tokens in a batch of training (of pairs: of each side), padding included, in place of a
    number of examples; 0: `batch` counts."""
    learning_rate: Amount
    """The highest learning rate of AdamW, which the warm-up ends with."""
    schedule: Literal["linear", "inverse_sqrt"]
    """What the learning rate does after the warm-up: fall linearly to 0 at the last step, or with
    the inverse square root of the step."""
    warmup: Amount
    """The length of the warm-up, in which the learning rate rises linearly from 0: a share of all
    steps, or a number of steps if it is 1 or more."""
    betas: tuple[Dropout, Dropout]
    """The decay of AdamW's running means a step: of the gradient, and of its square."""
    weight_decay: Amount
    """AdamW's weight decay, of all parameters but biases and LayerNorm; 0: none."""
    clip: Amount
    """The largest norm of the whole gradient, to which larger ones are scaled down; 0: gradients
    are left as they are."""
    label_smoothing: Dropout
    """The share of the training target that is spread evenly over all classes or tokens; 0: none
    of it."""
    save_every: Count = 500
    """Steps between the checkpoints from which an interrupted training goes on; one is also
    written after each epoch."""
    keep_epochs: bool = False
    """Keep the model of every epoch, in the folder `epochs` of `out`."""
    final: Literal["last", "best", "average"] = "last"
    """The model to end with: that of the last epoch, that of the epoch with the best metric, or the
    mean of the last `average` epochs (the latter two need `keep_epochs`)."""
    average: Count = 5
    """Epochs, the last ones, whose models are averaged if `final` says so."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.final != "last" and not self.keep_epochs:
            raise ValueError(
                f"train.final is {self.final!r}, which needs the models of all epochs: set "
                "train.keep_epochs"
            )


FINE_TUNING = Train(
    epochs=3,
    batch=32,
    batch_tokens=0,
    learning_rate=2e-5,
    schedule="linear",
    warmup=0.1,
    betas=(0.9, 0.999),
    weight_decay=0.01,
    clip=1.0,
    label_smoothing=0.0,
)
"""The paper's recipe for fine-tuning a pretrained BERT."""

FROM_SCRATCH = Train(
    epochs=20,
    batch=32,
    batch_tokens=4096,
    learning_rate=5e-4,
    schedule="inverse_sqrt",
    warmup=4000,
    betas=(0.9, 0.98),
    weight_decay=1e-4,
    clip=0.0,
    label_smoothing=0.1,
)
"""A recipe for a translation model that is trained from nothing."""


@dataclasses.dataclass(frozen=True)
class Importance(Checked, section="importance"):
    """Head importance: the gradient of the loss with respect to the gates."""

    split: str = "train[:5000]"
    """The split on which importance is computed, for the pruning orders too."""
    per: Reduction = "token"
    """What the measure is taken of before it is summed: the gradient of each token, of each
    example, or of each batch."""
    measure: Measure = "abs"
    """The measure of a gradient: its absolute value, itself with its sign, or its square."""
    norm: Amount = 2.0
    """The order of the norm by which the scores of each row are divided; 0: they are left as they
    are."""
    keep_gradients: bool = False
    """Also keep every example's gradient in every gate, an array [examples, rows, heads]."""


@dataclasses.dataclass(frozen=True)
class RandomSets(Checked, section="ablation.random"):
    """Random subsets of the heads removed."""

    shares: tuple[Share, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """The shares of all heads that are removed, each rounded down to a number of heads."""
    count: Count = 10
    """How many subsets there are of each share."""
    seed: Natural = 0
    """The seed that decides which heads are in the subsets."""


@dataclasses.dataclass(frozen=True)
class Ablation(Checked, section="ablation"):
    """Metric and loss under each mask of some sets of masks."""

    splits: tuple[str, ...] = ("validation",)
    """The splits on which every mask is measured, each a grid of its own."""
    sets: tuple[MaskSet, ...] = ("one_off", "one_on")
    """The sets of masks: each head off; all heads of a row off but one; each group of query heads
    that share keys and values off; all groups of a row off but one; each pair of heads off; each
    row off; random subsets off; more and more heads of an order off; the masks of a file."""
    rows: tuple[str, ...] = ()
    """The only rows whose heads are removed, by name or type of attention, such as enc, dec, cross
    or cross.0; none: all rows."""
    random: RandomSets = RandomSets()
    """What the set `random` is made of."""
    order: str = "importance"
    """The order in which the set `prefixes` removes heads: `importance` for that of one-shot
    pruning, or a file: heads in the order in which they go, such as cross.0.3, or .npy of scores
    [rows, heads], the lowest first."""
    masks: str = ""
    """The file of the set `file`: .npy [masks, rows, heads], 1 where a head stays; or text, a line
    a mask with the heads removed, such as enc.0.1,7 cross.1.2 (or -)."""
    precision: Amount = 0.0
    """Half the width of the 95 % interval at which a mask's change of the metric is known well
    enough, in points: only so many examples are measured, those at risk and a random audit of the
    others, and the linear map stands for the rest; 0: all are measured, or `decide` says when it is
    enough.  For accuracy, F1 and Matthews correlation."""
    decide: Amount = 0.0
    """How much worse the metric may be, in points: examples are measured until each mask is decided
    to be that much worse or not, with 95 % for all of them together; 0: all are measured, or
    `precision` says when it is enough."""
    masks_at_once: Natural = 0
    """Masks that a device evaluates together, which share what they have in common and are kept in
    one file; 0: as many as fit its memory."""
    mask_devices: Natural = 0
    """Devices among which masks are split, while the others split the examples of each batch; 0: as
    many as there is work for."""
    part: tuple[Count, Count] = (1, 1)
    """This job's part of each set, as I N: the I-th of N parts; jobs with the other parts may run
    at the same time, with the same `out`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part[0] > self.part[1]:
            raise ValueError(
                f"ablation.part is {self.part}, but (i, n) with 1 <= i <= n was expected"
            )


@dataclasses.dataclass(frozen=True)
class Pruning(Checked, section="pruning"):
    """Iterative removal of the least important heads.

    Three splits with three jobs: gradients are taken on `importance.split`, some orders measure
    masks on `select`, and the curves are measured on `test`.
    """

    select: str = "validation[:50%]"
    """The split on which the oracle order measures what is lost without each head, and the verified
    order without each that is proposed, and the Shapley order under random masks."""
    oracle: Literal["metric", "loss"] = "metric"
    """What the oracle order measures without each head: the metric, or the loss."""
    test: str = "validation[50%:]"
    """The split on which the curves are measured."""
    orders: tuple[Order, ...] = ("one_shot", "re_estimated", "oracle")
    """The orders in which heads are removed: by importance with all heads, by importance computed
    anew after each step, and by what is lost without each head, which are the paper's; or greedily,
    by the loss that is predicted without each head beside those that are gone: by the linear map,
    by its gradient with the Fisher or the Gauss-Newton matrix of all pairs of heads, or by the
    linear map with the best proposals verified by measuring them; or by Shapley values of the
    loss."""
    linear: Literal["loss", "divergence"] = "loss"
    """What the linear order keeps low: the loss, or the divergence (KL) of a classifier from the
    full model, for which labels do not matter."""
    label_draws: Count = 4
    """How often the model draws the label of each token where the gauss_newton order is of a task
    of tokens, translation or language modelling; each takes a backward pass."""
    proposals: Count = 8
    """Heads that the linear map proposes, and that the verified order measures, each time one
    goes."""
    permutations: Count = 4
    """Random orders of all heads, each with its reverse, of which Shapley values are made; each
    takes two masks a head.  With a `precision` the most that are drawn."""
    precision: Amount = 0.0
    """Half the width of the 95 % interval at which a head's Shapley value is known well enough, in
    nats: orders are drawn, five or more, until each head's is; 0: `permutations` are drawn."""
    shares: tuple[Share, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """The steps of a curve, as shares of the heads removed."""
    rounding: Literal["floor", "ceil"] = "floor"
    """How shares become numbers of heads: rounded down, as in the authors' BERT script, or up, as
    in their translation script."""
    heads: tuple[Natural, ...] = ()
    """The steps of a curve, as numbers of heads removed, in place of `shares`; none: `shares`
    count."""
    floor: Natural = 0
    """Heads that each row keeps at least."""
    unit: Literal["head", "group"] = "head"
    """What goes as one: a head, or all query heads that share keys and values, scored by the sum of
    their scores, or by what is lost (in the greedy orders: by the loss that is predicted or
    measured) without the whole group: oracle, linear, fisher, gauss_newton, verified."""
    tolerance: Dropout = 0.01
    """The share of the full model's metric that may be lost where orders are compared by how many
    heads can go."""
    rows: tuple[str, ...] = ("all",)
    """From which heads is removed: `all`, or those of one type of attention (`enc`, `dec`,
    `cross`); each has its own curves (Figure 4)."""
    per: tuple[Reduction, ...] = ()
    """Other values of `importance.per`, each of which has curves of its own in the orders of
    importance, from all heads; none: that of `importance.per` alone."""
    calibrate: Natural = 0
    """Examples of `importance.split` on which a scale is fitted for every head that is left, for
    another curve (whole batches of `train.batch`, which the seed chooses); 0: no such curve."""
    repair: Natural = 0
    """Examples of `importance.split`, chosen in the same way, on which each row's output projection
    is fitted anew by least squares, without labels, for another curve; 0: no such curve."""
    rescale: Natural = 0
    """Examples of `importance.split`, chosen in the same way, on which a scale of every head that
    is left and each row's bias are fitted by least squares, without labels, for another curve; 0:
    no such curve."""
    retrain_steps: Natural = 0
    """Steps of training after each step of pruning, heads fixed, on `train.split` in the batches of
    `train`, for another curve; 0: no such curve."""
    retrain_rate: Amount = 5e-5
    """The highest learning rate of those steps of training: up from 0 in a tenth of them, then down
    to 0; `train` has the rest of the recipe."""


@dataclasses.dataclass(frozen=True)
class Paper(Checked, section="paper"):
    """What `hp-jax reproduce` needs to know besides."""

    setting: PaperSetting = ""
    """The setting of the paper's that this is, whose published values stand beside what is measured
    here; empty: none of them."""
    epochs: tuple[Count, ...] = ()
    """The epochs whose models are pruned, of those that `train.keep_epochs` kept (Figure 5); none:
    all of them."""
    batch: Counts = (1, 4, 16, 64)
    """Examples in a batch when the model without half of its heads is timed (Table 4)."""
    seeds: tuple[Natural, ...] = ()
    """Other seeds with which a model is trained and pruned too, each in a folder of `seeds` in
    `out`; the report then has the spread over seeds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(Checked):
    """One model on one task: what to train, score, ablate and prune.  Use one of its kinds,
    below."""

    about: ClassVar[str]
    """The task, in words."""
    model: str = ""
    """The folder of a model of hp_jax, Hugging Face, fairseq or Marian, or a name on the
    Hugging Face hub; once `out` has a trained model, that one is used."""
    out: str = "runs/experiment"
    """The folder for everything that is made; what is already finished there is not done again."""
    seed: Natural = 0
    """The seed of new weights, of the order of examples in training, and of dropout."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The type of number that the model computes with; parameters, softmax and loss are in float32
    all the same."""
    kernel: Literal["xla", "cudnn"] = "xla"
    """The kernel of attention; cudnn needs an NVIDIA GPU and bfloat16."""
    tensor_devices: Count = 1
    """Devices among which the parameters of a model are split that does not fit one, while the
    others have masks or examples of their own; a model that is trained is whole on each."""
    margin: Amount = 0.0
    """How much worse the metric may be and still count as no harm when the report says how many
    heads can go, in the unit in which it writes changes; 0: 0.5 points of accuracy, F1, Matthews
    correlation, token accuracy or exact, 0.2 of BLEU or chrF, 0.01 nats, or 0.05 of perplexity."""
    train: Train
    """How the model is trained."""
    importance: Importance = Importance()
    """Where and how head importance is computed: the gradient of the loss with respect to the
    gates."""
    ablation: Ablation = Ablation()
    """Which masks the model is measured under, and on what."""
    pruning: Pruning = Pruning()
    """In which orders heads are removed step by step, and where the curves are measured."""
    paper: Paper = Paper()
    """The paper's tables and figures."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_place(self.out)

    @property
    def patched(self) -> bool:
        """Whether a head that is off has another context, and so is not gone."""
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationExperiment(Experiment):
    """Text classification by a BERT-type model."""

    about: ClassVar = "classification"
    data: Data = Data()
    """Where labelled text comes from and how it is batched."""
    train: Train = FINE_TUNING
    """How the model is fine-tuned; the defaults are the paper's recipe for BERT."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslationExperiment(Experiment):
    """Translation by an encoder-decoder model; without a `model`, one of the given `architecture`
    is trained."""

    about: ClassVar = "translation"
    data: ParallelData = ParallelData()
    """Where sentence pairs come from and how they are batched."""
    metric: Literal["bleu", "chrf", "token_accuracy", "loss", "perplexity"] = "bleu"
    """What masks are compared by: BLEU or chrF of translations, or, without decoding, the share of
    tokens predicted right after the right ones, the mean loss, or perplexity."""
    tokenize: str = ""
    """The name of sacreBLEU's tokenizer; empty: the one that it chooses for the target language,
    zh, ja-mecab, ko-mecab or 13a; `none` for text that is tokenized already."""
    decoding: Decoding = Decoding()
    """How translations are searched: beam search as in fairseq."""
    architecture: Seq2SeqConfig = Seq2SeqConfig()
    """The model that is trained from nothing where no `model` is given."""
    vocabulary: Count = 8000
    """Pieces of the SentencePiece vocabulary, of both languages together, of a model that is
    trained from nothing."""
    train: Train = FROM_SCRATCH
    """How a model is trained from nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModelExperiment(Experiment):
    """Language modelling by a decoder-only model."""

    about: ClassVar = "language modelling"
    data: DocumentData = DocumentData()
    """Where documents come from and how they are batched."""
    metric: Literal[
        "perplexity",
        "token_loss",
        "bits_per_byte",
        "word_perplexity",
        "token_accuracy",
        "exact",
        "target_perplexity",
    ] = "perplexity"
    """What masks are compared by: perplexity by token, its logarithm (the mean loss of a token),
    bits a byte or perplexity by word, which compare models with other vocabularies, or the share of
    tokens predicted right after the right ones; the share of documents of which all are; or with
    the layout of LAMBADA the perplexity of the last word, whatever its tokens."""
    train: Train = FINE_TUNING
    """How the model is trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric == "target_perplexity" and self.data.layout != "lambada":
            raise ValueError(
                "metric is 'target_perplexity', the exponential of a whole target's loss, but "
                f"data.layout is {self.data.layout!r}: expected the layout 'lambada'"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultipleChoiceExperiment(Experiment):
    """Multiple choice by a decoder-only model."""

    about: ClassVar = "multiple choice"
    data: ChoiceData = ChoiceData()
    """Where items come from and how they are batched."""
    metric: Literal["accuracy", "loss", "logit_difference"] = "accuracy"
    """What masks are compared by: the share of items of which the right choice is the likeliest,
    the mean loss of the right choice, or by how many nats its log-likelihood is above that of the
    best other choice, on average."""
    train: Train = FINE_TUNING
    """How the model is trained on."""

    @property
    def patched(self) -> bool:
        """Whether its context is the counterfactual's."""
        return self.data.removed == "counterfactual"


KINDS_OF_EXPERIMENT = (
    ClassificationExperiment,
    TranslationExperiment,
    LanguageModelExperiment,
    MultipleChoiceExperiment,
)
"""All of them."""
