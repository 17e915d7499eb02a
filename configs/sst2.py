"""SST-2: fine-tune, score, ablate and prune.

hp-jax run sst2 --model MODEL_FOLDER --data.path SST2_FOLDER

From MiniLM (6 layers, 12 heads, width 384): accuracy 0.897 on the development set, in 46 minutes on
two busy CPU cores.
"""

from dataclasses import replace

from hp_jax.config import FINE_TUNING, ClassificationExperiment, Data

config = ClassificationExperiment(
    out="runs/sst2",
    data=Data(task="sst2"),
    train=replace(FINE_TUNING, epochs=1, learning_rate=5e-5),
)
