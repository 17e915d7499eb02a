"""Text of your own in one file, and a classifier that is trained: score on one half, ablate and
prune on the other.

hp-jax ablate own_data --model MODEL_FOLDER --data.path FILE

FILE is .tsv, .csv or .jsonl with a column of text and one of labels; --data.text, --data.label and
--data.labels name what is not found.
"""

from hp_jax.config import Ablation, ClassificationExperiment, Data, Importance, Pruning

config = ClassificationExperiment(
    out="runs/own_data",
    data=Data(task="own"),
    importance=Importance(split="validation[:50%]"),
    ablation=Ablation(splits=("validation[50%:]",)),
    pruning=Pruning(select="validation[:50%]", test="validation[50%:]"),
)
