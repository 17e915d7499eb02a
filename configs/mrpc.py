"""MRPC: F1 of paraphrases, judged on the corpus's own test set.

hp-jax run mrpc --model MODEL_FOLDER --data.path MRPC_FOLDER

The splits are sized for two CPU cores; an accelerator takes all of `train` and `test` in its
stride.
"""

from dataclasses import replace

from hp_jax.config import FINE_TUNING, Ablation, ClassificationExperiment, Data, Importance, Pruning

config = ClassificationExperiment(
    out="runs/mrpc",
    data=Data(task="mrpc"),
    train=replace(FINE_TUNING, epochs=3, learning_rate=5e-5, evaluate="test"),
    importance=Importance(split="train[:500]"),
    ablation=Ablation(splits=("test[:300]",), sets=("one_off",)),
    pruning=Pruning(select="test[:300]", test="test[300:1300]"),
)
