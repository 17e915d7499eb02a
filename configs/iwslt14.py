"""IWSLT'14, German to English: the paper's Figures 5 and 6, by its model exactly (6 + 6 pre-norm
layers, 8 heads, width 512, unshared embeddings), trained from nothing.

bash prepare-iwslt14.sh
hp-jax reproduce iwslt14 --data.path iwslt14.tokenized.de-en/tmp

prepare-iwslt14.sh is in examples/translation of github.com/facebookresearch/fairseq; it fetches
dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz, and its folder tmp has train, valid and test
(160,239, 7,283 and 6,750 pairs) as lower-cased Moses tokens before BPE, so BLEU is counted on
tokens (--tokenize none). 10,000 pieces of SentencePiece, of both languages together, stand in for
the paper's BPE. As in the paper importance is computed on all of the training set, and BLEU is of
valid; the models of all epochs are kept, for Figure 5. The oracle order is chosen on test; the
paper chose it where it was measured.

Needs 0.1 GB of data, 15 GB of disk for the models of 50 epochs (0.2 GB each) and results, 4 GB of
memory, and a few of the 16 GB of each chip. Work, an estimate: 1.8e17 FLOP, a third of it training
(2.3 GFLOP a pair forward, 2 FLOP a weight and token of 32, times 3), a third single heads (290
masks of 14,033 sentences at 15 GFLOP), the rest importance and curves. On one v5e-8 that is 40
minutes at 5 % of its 8 x 197 TFLOP/s: batches of 4,000 tokens are small for it. Not run here.
"""

from dataclasses import replace

from hp_jax.architecture import Decoding, Seq2SeqConfig
from hp_jax.config import (
    FROM_SCRATCH,
    Ablation,
    Importance,
    Paper,
    ParallelData,
    Pruning,
    TranslationExperiment,
)

config = TranslationExperiment(
    out="runs/iwslt14",
    data=ParallelData(
        source="de", target="en", max_length=176, buckets=(16, 24, 32, 48, 64, 96, 176)
    ),
    tokenize="none",
    vocabulary=10000,
    architecture=Seq2SeqConfig(
        encoder_layers=6,
        decoder_layers=6,
        encoder_heads=8,
        decoder_heads=8,
        cross_heads=8,
        width=512,
        encoder_ffn=1024,
        decoder_ffn=1024,
        norm="pre",
        positions="sinusoid_half",
        share_source=False,
        share_output=False,
        dropout=0.3,
        attention_dropout=0.1,
    ),
    train=replace(
        FROM_SCRATCH,
        evaluate="valid",
        epochs=50,
        batch_tokens=4000,
        keep_epochs=True,
        final="best",
    ),
    decoding=Decoding(beam=5),
    importance=Importance(split="train"),
    ablation=Ablation(splits=("valid", "test")),
    pruning=Pruning(
        per=("example", "batch"),
        select="test",
        test="valid",
        shares=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        rounding="ceil",
        rows=("all", "enc", "dec", "cross"),
    ),
    paper=Paper(setting="iwslt", epochs=(1, 2, 3, 5, 10, 20, 30, 40)),
)
