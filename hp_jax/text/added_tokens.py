"""What a Hugging Face folder says of its tokenizer beside the vocabulary: settings, and special and
added tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from hp_jax.storage.files import read_json
from hp_jax.typed import Natural, decode


@dataclasses.dataclass(frozen=True, kw_only=True)
class Token:
    """An added token, as files describe it."""

    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool | None = None
    """None: if it is not special."""
    special: bool = False

    def made(self, *, special: bool) -> AddedToken:
        """The token for the library."""
        return AddedToken(
            self.content,
            lstrip=self.lstrip,
            rstrip=self.rstrip,
            single_word=self.single_word,
            normalized=not special if self.normalized is None else self.normalized,
            special=special,
        )


_UNSAID = Token(content="")
_Name = Token | str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What tokenizer_config.json and special_tokens_map.json say that ids depend on; the rest of
    them acts in padding, decoding or offsets."""

    do_lower_case: bool | None = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = True
    add_prefix_space: bool | None = False
    add_bos_token: bool | None = False
    add_eos_token: bool | None = False
    legacy: bool | None = None
    model_input_names: tuple[str, ...] | None = None
    added_tokens_decoder: dict[str, Token] | None = None
    bos_token: _Name = _UNSAID
    eos_token: _Name = _UNSAID
    unk_token: _Name = _UNSAID
    sep_token: _Name = _UNSAID
    pad_token: _Name = _UNSAID
    cls_token: _Name = _UNSAID
    mask_token: _Name = _UNSAID
    additional_special_tokens: tuple[Token | str, ...] | None = None
    extra_special_tokens: dict[str, Token | str] | tuple[Token | str, ...] | None = None
    from_slow: bool | None = None
    truncation_side: str | None = None
    do_basic_tokenize: bool | None = None
    never_split: tuple[str, ...] | None = None
    split_special_tokens: bool | None = None
    fast_tokenizer_files: tuple[str, ...] | None = None
    init_inputs: tuple[Any, ...] | None = None
    auto_map: Any = None


_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "truncation_side": (None, "right"),
    "do_basic_tokenize": (None, True),
    "never_split": (None, ()),
    "split_special_tokens": (None, False),
    "fast_tokenizer_files": (None, (), ("tokenizer.json",)),
    "init_inputs": (None, ()),
    "from_slow": (None, False),
    "auto_map": (None,),
}
"""Of settings that make other ids, the values that do not."""


def read_settings(folder: Path, unsaid: Mapping[str, Any]) -> Settings:
    """What tokenizer_config.json says and, in folders of before 2023, special_tokens_map.json;
    `unsaid` holds where it says nothing."""
    path, tokens = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
    said = {**unsaid, **(read_json(path) if path.exists() else {})}
    settings = decode(Settings, said, path)
    if settings.added_tokens_decoder is None and tokens.exists():
        mapped, more = read_json(tokens), "additional_special_tokens"
        decode(Settings, mapped, tokens)
        both = [*(said.get(more) or ()), *(mapped.get(more) or ())]
        settings = decode(Settings, said | mapped | {more: both}, path)
    for name, values in _SUPPORTED.items():
        if getattr(settings, name) not in values:
            raise ValueError(
                f"{path}: {name} is {getattr(settings, name)!r}, which makes other token ids; "
                f"supported is {values[-1]!r}"
            )
    return settings


def added_tokens(
    folder: Path, settings: Settings, inside: Mapping[int, Token]
) -> tuple[Mapping[int, Token], Mapping[int, Token]]:
    """Added tokens by their ids: all, and those that are described in full.

    inside: those of tokenizer.json, which count where tokenizer_config.json lists none.
    """
    if settings.added_tokens_decoder is None:
        return {**_added_of_old(folder, settings), **inside}, inside
    for number in settings.added_tokens_decoder:
        if not number.isdecimal():
            raise ValueError(
                f"{folder / 'tokenizer_config.json'}: added_tokens_decoder: expected ids, but "
                f"found {number!r}"
            )
    listed = {int(number): token for number, token in settings.added_tokens_decoder.items()}
    return listed, listed


def _added_of_old(folder: Path, settings: Settings) -> dict[int, Token]:
    """The tokens of added_tokens.json, by their ids."""
    path = folder / "added_tokens.json"
    if not path.exists():
        return {}
    special = {content(token) for token in special_tokens(settings, {}, {}, {}).values()}
    return {
        place: Token(content=token, normalized=token not in special, special=token in special)
        for token, place in read_json(path, dict[str, Natural]).items()
    }


def special_tokens(
    settings: Settings,
    usual: Mapping[str, str],
    mask: Mapping[str, bool],
    declared: Mapping[int, Token],
) -> dict[str, Token | str]:
    """The special tokens in the order in which they are added, those with a role by its name.

    usual: what has a role where nothing is said; mask: how a mask token is found; declared: tokens
    that are described elsewhere.
    """
    described = {token.content: token for token in declared.values()}
    special: dict[str, Token | str] = {}
    for role in _ROLES:
        token: _Name = getattr(settings, f"{role}_token")
        if token is _UNSAID:
            token = usual.get(role)
        elif token:
            token = described.get(content(token), token)
        if role == "mask" and isinstance(token, str) and mask:
            token = Token(content=token, **mask)
        if token:
            special[role] = token
    extra = settings.extra_special_tokens or ()
    more = [
        *(settings.additional_special_tokens or ()),
        *(extra.values() if isinstance(extra, dict) else extra),
    ]
    return special | {f"more {i}": token for i, token in enumerate(more)}


def content(token: Token | str) -> str:
    """What it is in texts."""
    return token.content if isinstance(token, Token) else token


def add_tokens(
    tokenizer: Tokenizer,
    special: Sequence[Token | str],
    added: Mapping[int, Token],
    folder: Path,
) -> None:
    """Adds tokens in the order of their ids, then the special ones that are none yet; ValueError
    for one that would not have its id."""
    there = tokenizer.get_added_tokens_decoder().values()
    same = {repr(token) for token in there}
    tokens = [token for _, token in sorted(added.items(), key=lambda one: one[0])]
    tokens = [token for token in tokens if repr(token.made(special=token.special)) not in same]
    known = {token.content for token in there} | {token.content for token in tokens}
    contents = set()
    for token in special:
        name = content(token)
        if name not in contents and (isinstance(token, Token) or name not in known):
            tokens.append(token if isinstance(token, Token) else Token(content=name))
        contents.add(name)
    tokenizer.add_tokens(
        [token.made(special=token.special or token.content in contents) for token in tokens]
    )
    for place, token in added.items():
        found = tokenizer.token_to_id(token.content)
        if found != place:
            raise ValueError(
                f"{folder}: the added token {token.content!r} should have the id {place}, but "
                f"beside this vocabulary it has {found}"
            )
