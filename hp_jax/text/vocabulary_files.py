"""Tokenizers of Hugging Face's kinds made from files of a vocabulary, without added tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from hp_jax.data.tables import read_text
from hp_jax.storage.files import read_json
from hp_jax.text.added_tokens import Settings
from hp_jax.typed import Natural

WORDS, BYTES = ("vocab.txt",), ("vocab.json", "merges.txt")
"""The files of a vocabulary, by its kind."""

Known = Mapping[str, int]
"""Ids of the tokens of a vocabulary and of those that are added to it."""
Roles = Mapping[str, str]
"""Special tokens, by what they are for."""

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What Qwen2 takes as words: numbers digit by digit."""


def bert(folder: Path, roles: Roles, added: Known, settings: Settings) -> Tokenizer:
    """BERT's and DistilBERT's: word pieces, `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`."""
    file = folder / WORDS[0]
    lines = read_text(file).removesuffix("\n").split("\n")
    vocab = {token.rstrip("\r"): i for i, token in enumerate(lines)}
    cls, sep = _ends(roles, vocab, added, file)
    tokenizer = Tokenizer(
        models.WordPiece(vocab, unk_token=roles["unk"], max_input_chars_per_word=100)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls[0]}:0 $A:0 {sep[0]}:0",
        pair=f"{cls[0]}:0 $A:0 {sep[0]}:0 $B:1 {sep[0]}:1",
        special_tokens=[cls, sep],
    )
    tokenizer.normalizer = bert_normalizer(settings)
    return tokenizer


def bert_normalizer(settings: Settings) -> normalizers.BertNormalizer:
    """As the settings say."""
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.tokenize_chinese_chars is not False,
        strip_accents=settings.strip_accents,
        lowercase=settings.do_lower_case is not False,
    )


def roberta(folder: Path, roles: Roles, added: Known, settings: Settings) -> Tokenizer:
    """RoBERTa's: `<s> A </s>` and `<s> A </s></s> B </s>`."""
    vocab, space = _vocab(folder), bool(settings.add_prefix_space)
    cls, sep = _ends(roles, vocab, added, folder / BYTES[0])
    tokenizer = _byte_level(folder, vocab)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=space)
    return tokenizer


def gpt2(folder: Path, roles: Roles, added: Known, settings: Settings) -> Tokenizer:
    """GPT-2's; a text is only its tokens."""
    tokenizer = _byte_level(folder, _vocab(folder))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=bool(settings.add_prefix_space)
    )
    return tokenizer


def qwen2(folder: Path, roles: Roles, added: Known, settings: Settings) -> Tokenizer:
    """Qwen2's and Qwen3's; the same with other words."""
    tokenizer = _byte_level(folder, _vocab(folder), versioned=False)
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(_QWEN2), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


def _ends(
    roles: Roles, vocab: Known, added: Known, file: Path
) -> tuple[tuple[str, int], tuple[str, int]]:
    """CLS and SEP with their ids; ValueError if a token that encoding needs is missing."""
    known = {**added, **vocab}
    for role in ("unk", "sep", "pad", "cls"):
        if roles[role] not in (vocab if role == "unk" else known):
            raise ValueError(
                f"{file}: expected the special token {roles[role]!r} ({role}), but the vocabulary "
                f"of {len(vocab)} has none"
            )
    return (roles["cls"], known[roles["cls"]]), (roles["sep"], known[roles["sep"]])


def _vocab(folder: Path) -> dict[str, int]:
    return read_json(folder / BYTES[0], dict[str, Natural])


def _byte_level(folder: Path, vocab: dict[str, int], *, versioned: bool = True) -> Tokenizer:
    """Byte-level BPE, without its words.

    versioned: the first line of merges.txt says the version, and the last is empty; otherwise the
    first may, and any may be empty.
    """
    file = folder / BYTES[1]
    merges = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if number == 1 and (versioned or line.startswith("#version:")):
            continue
        merges.append((number, line))
    merges = merges[:-1] if versioned else [(n, line) for n, line in merges if line.strip()]
    pairs = []
    for number, line in merges:
        pair = line.split()
        if len(pair) != 2:
            raise ValueError(f"{file}:{number}: expected two pieces, but found {line!r}")
        pairs.append((pair[0], pair[1]))
    try:
        model = models.BPE(
            vocab, pairs, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False
        )
    except Exception as error:  # tokenizers raises a bare Exception
        raise ValueError(f"{file} does not fit vocab.json: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
