"""SST-2: prune, and bring what is left back, by a scale on each head, by least squares or by a
short fine-tuning after each step.

hp-jax run sst2_recover --model MODEL_FOLDER --data.path SST2_FOLDER

With a model that is fine-tuned already, such as that of configs/sst2.py:

hp-jax prune sst2_recover --model runs/sst2/model --data.path SST2_FOLDER --seed 1 \\
  --out runs/sst2_recover_1
hp-jax report runs/sst2_recover_1

The seed decides which sentences are learned from, in which order, and the dropout.
"""

from dataclasses import replace

from hp_jax.config import FINE_TUNING, Ablation, ClassificationExperiment, Data, Pruning

config = ClassificationExperiment(
    out="runs/sst2_recover",
    data=Data(task="sst2"),
    train=replace(FINE_TUNING, epochs=1, learning_rate=5e-5),
    ablation=Ablation(sets=()),
    pruning=Pruning(
        orders=("one_shot",),
        shares=(0.0, 0.4, 0.6, 0.8, 0.9),
        # not looked at in this order: all of the development set can be measured on
        select="train[5000:6000]",
        test="validation",
        calibrate=256,
        repair=512,
        retrain_steps=40,
    ),
)
