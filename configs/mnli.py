"""MNLI: accuracy on samples of the matched development set.

hp-jax reproduce mnli --model MODEL_FOLDER --data.path MNLI_FOLDER

Heads are chosen, and the oracle order is, on examples of the training set, as in the paper's Table
6.  The splits are sized for two CPU cores; `bert_mnli` has the paper's setting.
"""

from dataclasses import replace

from hp_jax.config import FINE_TUNING, Ablation, ClassificationExperiment, Data, Importance, Pruning

config = ClassificationExperiment(
    out="runs/mnli",
    data=Data(task="mnli"),
    train=replace(FINE_TUNING, epochs=1, learning_rate=5e-5, evaluate="validation_matched[:2000]"),
    importance=Importance(split="train[:500]"),
    ablation=Ablation(splits=("validation_matched[:2000]", "train[:1000]")),
    pruning=Pruning(
        per=("example", "batch"), select="train[:1000]", test="validation_matched[:2000]"
    ),
)
