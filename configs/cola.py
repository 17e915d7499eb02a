"""CoLA: Matthews correlation of acceptability judgements.

hp-jax reproduce cola --model MODEL_FOLDER --data.path COLA_FOLDER

From MiniLM (6 layers, 12 heads, width 384): Matthews 0.314 in domain.

Ablations are measured in and out of domain, and on examples of the training set, of which heads are
chosen, as in the paper's Table 6; so is the oracle order.  Importance is computed on a sample for
two CPU cores; `bert_cola` has the paper's setting.
"""

from dataclasses import replace

from hp_jax.config import FINE_TUNING, Ablation, ClassificationExperiment, Data, Importance, Pruning

config = ClassificationExperiment(
    out="runs/cola",
    data=Data(task="cola"),
    train=replace(FINE_TUNING, epochs=3, learning_rate=5e-5),
    importance=Importance(split="train[:1000]"),
    ablation=Ablation(splits=("validation", "validation_out_of_domain", "train[:1000]")),
    pruning=Pruning(per=("example", "batch"), select="train[:1000]", test="validation"),
)
