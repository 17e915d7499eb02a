"""SST-2: fine-tune, score, ablate and prune.

hp-jax reproduce sst2 --model MODEL_FOLDER --data.path SST2_FOLDER

From MiniLM (6 layers, 12 heads, width 384): accuracy 0.897 on the development set, after 22 minutes
of fine-tuning on two busy CPU cores.

Heads are chosen, and the oracle order is, on examples of the training set, as in the paper's Table
6.  Importance is computed on a sample for two CPU cores; `bert_sst2` has the paper's setting.
"""

from dataclasses import replace

from hp_jax.config import FINE_TUNING, Ablation, ClassificationExperiment, Data, Importance, Pruning

config = ClassificationExperiment(
    out="runs/sst2",
    data=Data(task="sst2"),
    train=replace(FINE_TUNING, epochs=1, learning_rate=5e-5),
    importance=Importance(split="train[:1000]"),
    ablation=Ablation(splits=("validation", "train[:1000]")),
    pruning=Pruning(per=("example", "batch"), select="train[:1000]", test="validation"),
)
