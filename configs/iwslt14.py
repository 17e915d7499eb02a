"""IWSLT'14, German to English: the paper's model exactly (6 + 6 pre-norm layers, 8 heads, width
512, unshared embeddings).

hp-jax run iwslt14 --data.path IWSLT14_FOLDER

IWSLT14_FOLDER has train, valid and test as fairseq's prepare-iwslt14.sh leaves them before BPE
(lower-cased Moses tokens), so BLEU is counted on tokens.  The models of all epochs are kept, for
Figure 5.  For one accelerator; not run here.
"""

from dataclasses import replace

from hp_jax.architecture import Decoding, Seq2SeqConfig
from hp_jax.config import (
    FROM_SCRATCH,
    Ablation,
    Importance,
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
    ablation=Ablation(splits=("valid",)),
    pruning=Pruning(select="valid", test="test", rows=("all", "enc", "dec", "cross")),
)
