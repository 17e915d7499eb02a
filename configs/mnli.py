"""MNLI: accuracy on samples of the matched development set.

hp-jax run mnli --model MODEL_FOLDER --data.path MNLI_FOLDER

The splits are sized for two CPU cores; the paper scores all of `train` and judges all of
`validation_matched`.
"""

from dataclasses import replace

from hp_jax.config import FINE_TUNING, Ablation, ClassificationExperiment, Data, Importance, Pruning

config = ClassificationExperiment(
    out="runs/mnli",
    data=Data(task="mnli"),
    train=replace(
        FINE_TUNING, epochs=1, learning_rate=5e-5, evaluate="validation_matched[300:1300]"
    ),
    importance=Importance(split="train[:500]"),
    ablation=Ablation(splits=("validation_matched[:300]",), sets=("one_off",)),
    pruning=Pruning(select="validation_matched[:300]", test="validation_matched[300:1300]"),
)
