"""MRPC: F1 of paraphrases, judged on the corpus's own test set.

hp-jax reproduce mrpc --model MODEL_FOLDER --data.path MRPC_FOLDER

Heads are chosen, and the oracle order is, on examples of the training set, as in the paper's Table
6.  Importance is computed on a sample for two CPU cores; `bert_mrpc` has the paper's setting.
"""

from dataclasses import replace

from hp_jax.config import (
    FINE_TUNING,
    Ablation,
    ClassificationExperiment,
    Data,
    Importance,
    Paper,
    Pruning,
)

config = ClassificationExperiment(
    out="runs/mrpc",
    data=Data(task="mrpc"),
    train=replace(FINE_TUNING, epochs=3, learning_rate=5e-5, evaluate="test"),
    importance=Importance(split="train[:500]"),
    ablation=Ablation(splits=("test", "train[:1000]")),
    pruning=Pruning(per=("example", "batch"), select="train[:1000]", test="test"),
    paper=Paper(seeds=(1, 2)),
)
