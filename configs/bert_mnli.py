"""MNLI by BERT-base: the paper's Tables 3 and 6, and Figures 1, 2 and 3 for BERT (12 layers of 12
heads, accuracy).

hf download nyu-mll/glue --repo-type dataset --include 'mnli/*' --local-dir glue
hp-jax reproduce bert_mnli --model google-bert/bert-base-uncased --data.path glue

Files: huggingface.co/datasets/nyu-mll/glue (parquet; GLUE's own .tsv files serve as well) and
huggingface.co/google-bert/bert-base-uncased, which is fine-tuned by the paper's recipe: learning
rate 2e-5, 3 epochs, batches of 32, at most 128 word pieces. A model that is fine-tuned already is
taken as it is; this one needs PyTorch to be read:

hp-jax reproduce bert_mnli --model textattack/bert-base-uncased-MNLI --data.path glue \\
  --data.labels contradiction entailment neutral

As in the paper importance is computed on all of the training set (392,702 pairs), heads are ablated
on the matched development set (9,815), and on the mismatched one (9,832) as the other domain. The
best single head of each layer is also chosen on 5,000 random pairs of the training set and measured
on the matched set (Table 6). The oracle order, too, is chosen on those 5,000; the paper chose it
where it was measured.

Needs 60 MB of data, 3 GB of disk below runs/bert_mnli, 4 GB of memory, and some of the 16 GB of
each chip. Work, an estimate: 1.2e17 FLOP, which is 0.16 GFLOP a token forward (scripts/cost.py) at
46 tokens a pair, 3 times that for training, 2 for importance, half for each ablated head. On one
v5e-8 that is 6 minutes at 20 % of its 8 x 197 TFLOP/s (in bfloat16, in which a TPU multiplies
float32), and compiling takes longer than that. Not run here.
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
    out="runs/bert_mnli",
    data=Data(task="mnli"),
    train=replace(FINE_TUNING, evaluate="validation_matched"),
    importance=Importance(split="train"),
    ablation=Ablation(splits=("validation_matched", "validation_mismatched", "train[:5000]")),
    pruning=Pruning(
        per=("example", "batch"), select="train[:5000]", test="validation_matched", rounding="floor"
    ),
    paper=Paper(setting="mnli"),
)
