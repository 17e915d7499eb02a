"""WMT'14, English to French: the paper's Transformer-big of Ott et al. (2018), 6 + 6 layers of 16
heads.

hp-jax convert FAIRSEQ_FOLDER models/wmt14.en-fr
hp-jax ablate wmt14_en_fr --model models/wmt14.en-fr
hp-jax prune wmt14_en_fr --model models/wmt14.en-fr
hp-jax report runs/wmt14_en_fr

FAIRSEQ_FOLDER is the unpacked archive of wmt14.en-fr.joined-dict.transformer; in the text.json that
`convert` writes, "clean": true adds the recipe's punctuation normalisation, and "tokenized": true
keeps tokens (for --tokenize none). sacreBLEU fetches the test sets.  As in the paper BLEU is of
newstest2013 with beam 5 (newstest2014 for the curves); importance is computed on newstest2012, of
the paper's 2009 to 2012.  Not run here: it takes an accelerator and a network.
"""

from hp_jax.architecture import Decoding
from hp_jax.config import Ablation, Importance, ParallelData, Pruning, TranslationExperiment

config = TranslationExperiment(
    out="runs/wmt14_en_fr",
    dtype="bfloat16",
    data=ParallelData(
        format="sacrebleu",
        source="en",
        target="fr",
        max_length=256,
        buckets=(16, 32, 48, 64, 96, 128, 256),
        batch=128,
    ),
    decoding=Decoding(beam=5, max_ratio=0.0, max_extra=200),
    importance=Importance(split="wmt12"),
    ablation=Ablation(splits=("wmt13",)),
    pruning=Pruning(
        select="wmt13", test="wmt14/full", rounding="ceil", rows=("all", "enc", "dec", "cross")
    ),
)
