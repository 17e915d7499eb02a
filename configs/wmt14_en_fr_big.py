"""WMT'14, English to French: a Transformer-big trained from nothing on an accelerator, then scored,
ablated and pruned.

hp-jax run wmt14_en_fr_big --data.path TFDS_FOLDER

TFDS_FOLDER has wmt14_translate/fr-en as tensorflow-datasets prepares it (array_record).  Not run
here.
"""

from dataclasses import replace

from hp_jax.architecture import Decoding, Seq2SeqConfig
from hp_jax.config import FROM_SCRATCH, Importance, ParallelData, Pruning, TranslationExperiment

config = TranslationExperiment(
    out="runs/wmt14_en_fr_big",
    dtype="bfloat16",
    data=ParallelData(
        format="tfds",
        name="wmt14_translate/fr-en",
        source="en",
        target="fr",
        max_length=256,
        buckets=(16, 32, 48, 64, 96, 128, 256),
        batch=128,
    ),
    vocabulary=32000,
    architecture=Seq2SeqConfig(
        encoder_layers=6,
        decoder_layers=6,
        encoder_heads=16,
        decoder_heads=16,
        cross_heads=16,
        width=1024,
        encoder_ffn=4096,
        decoder_ffn=4096,
        dropout=0.1,
    ),
    train=replace(
        FROM_SCRATCH,
        epochs=10,
        batch_tokens=65536,
        learning_rate=7e-4,
        weight_decay=0.0,
        clip=1.0,
        keep_epochs=True,
        final="average",
    ),
    decoding=Decoding(beam=5),
    importance=Importance(split="train[:10000]"),
    pruning=Pruning(
        select="validation", test="test", rounding="ceil", rows=("all", "enc", "dec", "cross")
    ),
)
