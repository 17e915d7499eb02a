"""The vocabulary of a GGUF file as a tokenizer, as llama.cpp splits texts and as the tokenizers of
the models that it was made from do."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from hp_jax.typed import Count, Natural, decode

VOCABULARY = "tokenizer.ggml."
"""What the names of its settings begin with."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LATER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS: Mapping[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LATER.format("{1,3}"),),
    "qwen2": (_LATER.format(""),),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
}
"""By `pre`, the expressions that cut a text into words, one after another: what one matches is cut
out of what is left whole."""

_NORMAL, _UNKNOWN, _CONTROL, _OWN = 1, 2, 3, 4
"""Types of tokens: of the others, none is looked for in texts."""
_SPACE = "▁"


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of the vocabulary that ids depend on."""

    model: Literal["gpt2", "llama"]
    tokens: tuple[str, ...]
    pre: str | None = None
    token_type: tuple[int, ...] | None = None
    scores: tuple[float, ...] | None = None
    merges: tuple[str, ...] | None = None
    bos_token_id: Natural | None = None
    eos_token_id: Natural | None = None
    unknown_token_id: Natural | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool = False
    add_sep_token: Literal[False] = False
    add_space_prefix: bool | None = None
    remove_extra_whitespaces: Literal[False] = False


class _Ends(msgspec.Struct, frozen=True):
    eos_token_id: Natural | None = None
    eot_token_id: Natural | None = None
    eom_token_id: Natural | None = None


def ends(settings: Mapping[str, Any]) -> tuple[int, ...]:
    """The tokens with which a text, a turn or a message ends, each once."""
    said = decode(_Ends, _own(settings), VOCABULARY[:-1])
    found = (said.eos_token_id, said.eot_token_id, said.eom_token_id)
    return tuple(dict.fromkeys(token for token in found if token is not None))


def tokenizer_of(settings: Mapping[str, Any], path: Path, vocab: Count) -> Tokenizer:
    """The tokenizer that the settings of the file at `path` describe, for a model of `vocab`
    tokens.

    ValueError names what is missing, does not fit together, or makes ids that are not made here.
    """
    where, found = f"{path}: {VOCABULARY[:-1]}", _own(settings)
    said = decode(_Settings, found, where)
    known = {field.name for field in msgspec.structs.fields(_Settings)}
    for name in found:
        if name not in known and not name.endswith(("_token_id", "_token_ids")):
            raise ValueError(
                f"{where}.{name} is a setting that is not known here: it may make other token ids"
            )
    count = len(said.tokens)
    if count != vocab:
        raise ValueError(f"{where} has {count} tokens, but the model's embedding has {vocab} rows")
    if len(set(said.tokens)) != count:
        twice = collections.Counter(said.tokens).most_common(1)[0][0]
        raise ValueError(f"{where}.tokens has the token {twice!r} twice")
    for name in ("token_type", "scores"):
        values = getattr(said, name)
        if values is not None and len(values) != count:
            raise ValueError(
                f"{where}.{name} has {len(values)} numbers, but there are {count} tokens"
            )
    for name in ("bos_token_id", "eos_token_id", "unknown_token_id"):
        if (getattr(said, name) or 0) >= count:
            raise ValueError(
                f"{where}.{name} is {getattr(said, name)}, but there are {count} tokens"
            )
    tokenizer = (_bytes if said.model == "gpt2" else _pieces)(said, where)
    kinds = said.token_type or (_NORMAL,) * count
    for kind, special in ((_CONTROL, True), (_UNKNOWN, True), (_OWN, False)):
        tokenizer.add_tokens(
            [
                AddedToken(token, normalized=False, special=special)
                for token, own in zip(said.tokens, kinds, strict=True)
                if own == kind
            ]
        )
    _add_ends(tokenizer, said, where)
    return tokenizer


def _own(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix(VOCABULARY): value
        for name, value in settings.items()
        if name.startswith(VOCABULARY)
    }


def _bytes(said: _Settings, where: str) -> Tokenizer:
    """Byte-level BPE, of GPT-2 and its like."""
    words = WORDS.get(said.pre or "")
    if words is None:
        raise ValueError(
            f"{where}.pre is {said.pre!r}, which makes other token ids; supported are "
            f"{', '.join(WORDS)}"
        )
    merges = []
    for line in said.merges or ():
        pair = line.split(" ")
        if len(pair) != 2:
            raise ValueError(f"{where}.merges: expected two pieces, but found {line!r}")
        merges.append((pair[0], pair[1]))
    whole = said.pre == "llama-bpe"
    tokenizer = Tokenizer(_model(said, merges, where, ignore_merges=whole))
    if said.pre == "qwen2":  # llama.cpp leaves it out
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(one), "isolated") for one in words),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pieces(said: _Settings, where: str) -> Tokenizer:
    """SentencePiece's BPE, of Llama 2 and Gemma: of two neighbours that are a piece together, those
    whose piece has the highest score become one; bytes stand for what is no piece."""
    if said.scores is None:
        raise ValueError(f"{where}: expected a setting scores, but there is none")
    score_of = dict(zip(said.tokens, said.scores, strict=True))
    merges = []
    for piece, score in score_of.items():
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        both = [pair for pair in halves if pair[0] in score_of and pair[1] in score_of]
        both.sort(key=lambda pair: (score_of[pair[0]], score_of[pair[1]]), reverse=True)
        merges += [(score, pair) for pair in both]
    merges.sort(key=lambda one: one[0], reverse=True)
    unknown = said.tokens[said.unknown_token_id or 0]
    model = _model(
        said,
        [pair for _, pair in merges],
        where,
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    prefix = said.add_space_prefix is not False
    spaces = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefix else []),
        ]
    )
    return tokenizer


def _model(said: _Settings, merges: list[tuple[str, str]], where: str, **options: Any) -> Any:
    try:
        return models.BPE({token: i for i, token in enumerate(said.tokens)}, merges, **options)
    except Exception as error:  # tokenizers raises a bare Exception
        raise ValueError(f"{where}: merges do not fit the tokens: {error}") from error


def _add_ends(tokenizer: Tokenizer, said: _Settings, where: str) -> None:
    """The tokens around every text."""
    first = said.add_bos_token
    if first is None:  # llama.cpp's own
        first = said.model == "llama" or said.pre == "llama-bpe"
    wanted = {"bos": first, "eos": said.add_eos_token}
    ids = {"bos": said.bos_token_id, "eos": said.eos_token_id}
    for name in wanted:
        if wanted[name] and ids[name] is None:
            raise ValueError(f"{where}: expected a setting {name}_token_id, but there is none")
    before, after = ([name] if wanted[name] else [] for name in wanted)
    single = [*before, "$A", *after]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single,
        pair=[f"{one}:0" for one in (*single, *before, "$B", *after)],  # a model without types
        special_tokens=[
            {"id": name, "ids": [token], "tokens": [said.tokens[token]]}
            for name, token in ids.items()
            if token is not None
        ],
    )
