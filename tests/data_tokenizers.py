"""Tiny tokenizer folders made from a few sentences, for the tests of tokenization."""

import json
import os
from pathlib import Path

import numpy as np
from tokenizers import ByteLevelBPETokenizer

from hp_jax.data.labelled import Labelled

SENTENCES = (
    "Our friends won't buy this analysis, let alone the next one we propose.",
    "it 's a charming and often affecting journey . ",
    "Crème brûlée, naïve café: 3.50 € for 日本語 text\u2028and\u00a0odd   spaces",
    "A special [SEP] or <mask> </s> in the text, and [MASK] [CLS].",
    "",
    " ",
    "supercalifragilistic" * 12,
    "ΑΒΓ İstanbul ẞ \U0001f600 \u200b\ufffd\x07",
)
WORD_PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "it",
    "is",
    "a",
    "the",
    "well",
    "##l",
    "good",
    "bad",
    "Good",
    "film",
    "##s",
    ".",
    ",",
]


def write_word_pieces(folder: Path, **settings: object) -> Path:
    """BERT's vocab.txt, and tokenizer_config.json if there are settings."""
    (folder / "vocab.txt").write_text("\n".join(WORD_PIECES) + "\n", encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_byte_level(folder: Path, **settings: object) -> Path:
    """RoBERTa's vocab.json and merges.txt, trained on `SENTENCES`."""
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(
        SENTENCES, vocab_size=400, min_frequency=1, special_tokens=special, show_progress=False
    )
    trained.save_model(str(folder))
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def labelled(*texts: tuple[str, ...]) -> Labelled:
    """Examples with alternating labels `no` and `yes`."""
    n = len(texts)
    label = tuple(("no", "yes")[i % 2] for i in range(n))
    return Labelled(
        name="task",
        text=texts,
        label=label,
        files={"train": "f.tsv"},
        line_N=np.arange(2, n + 2),
        origin_N=np.arange(n),
    )


def real_sentences() -> tuple[str, ...]:
    """Lines of the public sets in the folder HP_JAX_DATA if there is one, and `SENTENCES`."""
    folder = Path(os.environ.get("HP_JAX_DATA", "/nonexistent"))
    files = [
        folder / name
        for name in (
            "sst2/dev.tsv",
            "cola/in_domain_dev.tsv",
            "mrpc/msr_paraphrase_test.txt",
            "mnli/dev_matched.tsv",
        )
    ]
    lines = [
        line
        for file in files
        if file.is_file()
        for line in file.read_text(encoding="utf-8").split("\n")[:400]
    ]
    return tuple(part for line in lines for part in line.split("\t")) + SENTENCES
