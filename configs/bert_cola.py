"""CoLA by BERT-base: the paper's Figure 6 (Matthews correlation), and its Tables 3 and 6 in kind.

hf download nyu-mll/glue --repo-type dataset --include 'cola/*' --local-dir glue
hp-jax reproduce bert_cola --model google-bert/bert-base-uncased --data.path glue

Files: huggingface.co/datasets/nyu-mll/glue (parquet; GLUE's own .tsv files serve as well) and
huggingface.co/google-bert/bert-base-uncased, which is fine-tuned by the paper's recipe: learning
rate 2e-5, 3 epochs, batches of 32, at most 128 word pieces. A model that is fine-tuned already is
taken as it is; this one needs PyTorch to be read:

hp-jax reproduce bert_cola --model textattack/bert-base-uncased-CoLA --data.path glue

As in the paper importance is computed on all of the training set (8,551 sentences), and the curves
are measured on the development set (1,043, in and out of domain together). Heads are chosen, and
the oracle order is, on 5,000 random sentences of the training set, as in Table 6.

Needs 0.4 MB of data, 3 GB of disk below runs/bert_cola, 3 GB of memory, and some of the 16 GB of
each chip. Work, an estimate: 3e15 FLOP, which is 0.16 GFLOP a token forward (scripts/cost.py) at 16
tokens a sentence, 3 times that for training, 2 for importance, half for each ablated head. On one
v5e-8 that is 10 seconds at 20 % of its 8 x 197 TFLOP/s (in bfloat16, in which a TPU multiplies
float32), and compiling takes longer than that. Not run here.
"""

from hp_jax.config import Ablation, ClassificationExperiment, Data, Importance, Paper, Pruning

config = ClassificationExperiment(
    out="runs/bert_cola",
    data=Data(task="cola"),
    importance=Importance(split="train"),
    ablation=Ablation(splits=("validation", "train[:5000]")),
    pruning=Pruning(
        per=("example", "batch"), select="train[:5000]", test="validation", rounding="floor"
    ),
    paper=Paper(setting="cola"),
)
