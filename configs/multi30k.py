"""Multi30k, German to English: train a narrow model of 6 + 6 layers with 8 heads from nothing,
score, ablate and prune.

hp-jax reproduce multi30k --data.path MULTI30K_FOLDER

Training takes an hour on one CPU core: BLEU 35.7 on the validation set. All of it takes two and a
half hours there.

Ablations are measured on half of test 2016, on the captions of MSCOCO (another domain, as in
Figure 2), and on half of the validation set, of which heads are chosen, as in Table 5: sized for
two CPU cores.  The models of all epochs are kept, and five of them measured, for Figure 5.
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
    out="runs/multi30k",
    data=ParallelData(
        source="de",
        target="en",
        files=(
            ("train", "train.de.gz", "train.en.gz"),
            ("validation", "val.de.gz", "val.en.gz"),
            ("test", "test_2016_flickr.de.gz", "test_2016_flickr.en.gz"),
            ("test_mscoco", "test_2017_mscoco.de.gz", "test_2017_mscoco.en.gz"),
        ),
        max_length=64,
        buckets=(12, 16, 20, 24, 32, 48, 64),
    ),
    vocabulary=5000,
    architecture=Seq2SeqConfig(
        encoder_layers=6,
        decoder_layers=6,
        encoder_heads=8,
        decoder_heads=8,
        cross_heads=8,
        width=128,
        encoder_ffn=256,
        decoder_ffn=256,
        norm="pre",
        dropout=0.15,
    ),
    train=replace(
        FROM_SCRATCH,
        epochs=10,
        batch_tokens=2048,
        learning_rate=2e-3,
        warmup=1000,
        clip=1.0,
        keep_epochs=True,
        final="average",
    ),
    decoding=Decoding(beam=1),
    importance=Importance(split="train[:2000]"),
    ablation=Ablation(splits=("test[:500]", "test_mscoco", "validation[:500]")),
    pruning=Pruning(select="validation[:500]", test="test", rows=("all", "enc", "dec", "cross")),
    paper=Paper(epochs=(1, 2, 4, 7, 10)),
)
