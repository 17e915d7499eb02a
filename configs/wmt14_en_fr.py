"""WMT'14, English to French: the paper's Tables 1, 2 and 5, and Figures 1, 2, 3 and 4, by the
Transformer-big of Ott et al. (2018), 6 + 6 layers of 16 heads.

curl https://dl.fbaipublicfiles.com/fairseq/models/wmt14.en-fr.joined-dict.transformer.tar.bz2 \\
  | tar xj
hp-jax convert wmt14.en-fr.joined-dict.transformer models/wmt14.en-fr
hp-jax reproduce wmt14_en_fr --model models/wmt14.en-fr

`convert` needs PyTorch. In the text.json that it writes, "clean": true adds the recipe's
punctuation normalisation, and "tokenized": true keeps tokens (for --tokenize none). sacreBLEU
fetches the test sets from statmt.org and github.com/pmichel31415/mtnt into ~/.sacrebleu; on a
machine without a network put a copy there, or name its folder in $SACREBLEU.

As in the paper importance is computed on newstest2009 to 2012 (11,020 sentences), BLEU is of
newstest2013 (3,000) with beam 5, heads are also measured on newstest2014 (3,003: Table 5) and on
MTNT (Figure 2), and the steps of curves are rounded up. The oracle order is chosen on newstest2014;
the paper chose it where it was measured.

Needs 0.9 GB for the weights and as much for the model that is made of them, 2 GB for results, 8 GB
of memory, and the 16 GB of each chip, by which masks at once are chosen. Work, an estimate: 4.5e17
FLOP, most of it 578 masks of 7,000 sentences at 0.1 TFLOP each (2 FLOP for each of the decoder's
146 million weights, times 5 beams and about 60 positions). On one v5e-8 that is an hour and a half
at 5 % of its 8 x 197 TFLOP/s, as beam search waits for memory. Not run here.
"""

from hp_jax.architecture import Decoding
from hp_jax.config import Ablation, Importance, Paper, ParallelData, Pruning, TranslationExperiment

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
    importance=Importance(split="wmt09+wmt10+wmt11+wmt12"),
    ablation=Ablation(splits=("wmt13", "wmt14/full", "mtnt1.1/test")),
    pruning=Pruning(
        per=("example", "batch"),
        select="wmt14/full",
        test="wmt13",
        shares=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        rounding="ceil",
        rows=("all", "enc", "dec", "cross"),
    ),
    paper=Paper(setting="wmt"),
)
