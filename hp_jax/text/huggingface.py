"""A Hugging Face folder's tokenizer, which gives the ids that transformers' AutoTokenizer does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from hp_jax.architecture import BertConfig
from hp_jax.data.tables import read_text
from hp_jax.storage.files import parse_json, read_json, write_whole
from hp_jax.typed import Natural, decode


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Token:
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


_UNSAID = _Token(content="")
_Name = _Token | str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    """What tokenizer_config.json and special_tokens_map.json say that ids depend on; the rest of
    them acts in padding, decoding or offsets."""

    do_lower_case: bool | None = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = True
    add_prefix_space: bool | None = False
    model_input_names: tuple[str, ...] | None = None
    added_tokens_decoder: dict[str, _Token] | None = None
    bos_token: _Name = _UNSAID
    eos_token: _Name = _UNSAID
    unk_token: _Name = _UNSAID
    sep_token: _Name = _UNSAID
    pad_token: _Name = _UNSAID
    cls_token: _Name = _UNSAID
    mask_token: _Name = _UNSAID
    additional_special_tokens: tuple[_Token | str, ...] | None = None
    extra_special_tokens: dict[str, _Token | str] | None = None
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
    "auto_map": (None,),
}
"""Of settings that make other ids, the values that do not."""


class _Class(NamedTuple):
    """A class of tokenizers: what holds where nothing is said."""

    special: Mapping[str, str]
    types: bool
    """Whether models are given token types."""
    vocabulary: tuple[str, ...] = ()
    """Its files where there is no tokenizer.json."""
    mask: Mapping[str, bool] = {}
    """How its mask token is found."""


_BERT = {name.lower(): f"[{name}]" for name in ("UNK", "SEP", "PAD", "CLS", "MASK")}
_ROBERTA = {
    "bos": "<s>",
    "eos": "</s>",
    "sep": "</s>",
    "cls": "<s>",
    **{name: f"<{name}>" for name in ("unk", "pad", "mask")},
}
_BYTES, _LEFT = ("vocab.json", "merges.txt"), {"lstrip": True}
_CLASSES = {
    "BertTokenizer": _Class(_BERT, True, ("vocab.txt",)),
    "ElectraTokenizer": _Class(_BERT, True, ("vocab.txt",)),
    "DistilBertTokenizer": _Class(_BERT, False, ("vocab.txt",)),
    "RobertaTokenizer": _Class(_ROBERTA, False, _BYTES, _LEFT | {"normalized": False}),
    "XLMRobertaTokenizer": _Class(_ROBERTA, False, mask=_LEFT),
    "PreTrainedTokenizer": _Class({}, True),
}
"""By name without `Fast`."""
_PLAIN = _CLASSES["PreTrainedTokenizer"]
_OF_MODEL = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
"""By Hugging Face's model_type."""


# --- reading -------------------------------------------------------------------------------------


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder, with padding and truncation off.

    From tokenizer.json; else from BERT's vocab.txt (WordPiece) or RoBERTa's vocab.json and
    merges.txt (byte-level BPE). What tokenizer_config.json, special_tokens_map.json and
    added_tokens.json say of the class, case, accents, prefix spaces, token types, special and added
    tokens holds, and what the class takes where they say nothing, as in transformers 4.57.  A
    tokenizer.json of which nothing says the class is taken as it is.

    FileNotFoundError if there is none of these; ValueError for a file that cannot be read or lacks
    a special token, for a class or a setting that makes other ids, and for an added token that
    would not have the id that it should.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with a tokenizer")
    name, file = _class_of(folder), folder / "tokenizer.json"
    if not name:
        return _from_json(file)[0]
    kind = _CLASSES[name]
    settings = _settings(folder)
    if file.exists():
        tokenizer, inside = _from_json(file, settings.truncation_side)
    else:
        tokenizer, inside = None, {}
    if settings.added_tokens_decoder is None:
        added, declared = _added_of_old(folder, settings) | inside, inside
    else:
        added = declared = _by_id(settings.added_tokens_decoder, folder)
    special = _special(settings, kind, declared)
    if tokenizer is None:
        tokenizer = _from_vocabulary(folder, kind, settings, special, added)
    _add(tokenizer, [*special.values()], added, folder)
    if kind.special is _BERT:
        _normalize(tokenizer, settings, folder)
    words = tokenizer.pre_tokenizer
    if isinstance(words, pre_tokenizers.ByteLevel):
        words.add_prefix_space = bool(settings.add_prefix_space)
        tokenizer.pre_tokenizer = words
    names = settings.model_input_names
    types = kind.types if names is None else "token_type_ids" in names
    return tokenizer if types else _without_types(tokenizer, folder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Says:
    """What tokenizer_config.json or a model's config.json says of the class."""

    tokenizer_class: str | None = None
    model_type: str | None = None
    format: str | None = None


def _class_of(folder: Path) -> str:
    """The name of the tokenizer's class without `Fast`: what tokenizer_config.json or config.json
    says, or what goes with the model or the vocabulary; empty for a tokenizer.json alone, as in a
    folder of hp_jax."""
    for file in ("tokenizer_config.json", "config.json"):
        said = read_json(folder / file, _Says) if (folder / file).exists() else _Says()
        name = (said.tokenizer_class or "").removesuffix("Fast")
        if name and name not in _CLASSES:
            raise ValueError(
                f"{folder / file}: tokenizer_class is {said.tokenizer_class!r}, which may make "
                f"other token ids; supported are {', '.join(_CLASSES)} (also as ...Fast): save the "
                "tokenizer as a PreTrainedTokenizerFast"
            )
        if name:
            return name
    if (folder / "config.json").exists() and said.format is None:
        return _OF_MODEL.get(said.model_type or "bert", "PreTrainedTokenizer")
    for name, kind in _CLASSES.items():
        if kind.vocabulary and all((folder / one).exists() for one in kind.vocabulary):
            return name
    if not (folder / "tokenizer.json").exists():
        raise _without_vocabulary(folder)
    return ""


def _without_vocabulary(folder: Path) -> FileNotFoundError:
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    return FileNotFoundError(
        f"{folder}: expected tokenizer.json, vocab.txt, or vocab.json with merges.txt, but found "
        f"{found}"
    )


def _settings(folder: Path) -> _Settings:
    """What tokenizer_config.json says and, in folders of before 2023, special_tokens_map.json."""
    path, tokens = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
    said = read_json(path) if path.exists() else {}
    settings = decode(_Settings, said, path)
    if settings.added_tokens_decoder is None and tokens.exists():
        mapped, more = read_json(tokens), "additional_special_tokens"
        decode(_Settings, mapped, tokens)
        both = [*(said.get(more) or ()), *(mapped.get(more) or ())]
        settings = decode(_Settings, said | mapped | {more: both}, path)
    for name, values in _SUPPORTED.items():
        if getattr(settings, name) not in values:
            raise ValueError(
                f"{path}: {name} is {getattr(settings, name)!r}, which makes other token ids; "
                f"supported is {values[-1]!r}"
            )
    return settings


def _by_id(tokens: Mapping[str, _Token], folder: Path) -> dict[int, _Token]:
    for number in tokens:
        if not number.isdecimal():
            raise ValueError(
                f"{folder / 'tokenizer_config.json'}: added_tokens_decoder: expected ids, but "
                f"found {number!r}"
            )
    return {int(number): token for number, token in tokens.items()}


def _added_of_old(folder: Path, settings: _Settings) -> dict[int, _Token]:
    """The tokens of added_tokens.json, by their ids."""
    path = folder / "added_tokens.json"
    if not path.exists():
        return {}
    special = {_content(token) for token in _special(settings, _PLAIN, {}).values()}
    return {
        place: _Token(content=token, normalized=token not in special, special=token in special)
        for token, place in read_json(path, dict[str, Natural]).items()
    }


def _special(
    settings: _Settings, kind: _Class, declared: Mapping[int, _Token]
) -> dict[str, _Token | str]:
    """The special tokens in the order in which they are added, those with a role by its name.

    declared: tokens that are described elsewhere.
    """
    described = {token.content: token for token in declared.values()}
    special: dict[str, _Token | str] = {}
    for role in _ROLES:
        token: _Name = getattr(settings, f"{role}_token")
        if token is _UNSAID:
            token = kind.special.get(role)
        elif token:
            token = described.get(_content(token), token)
        if role == "mask" and isinstance(token, str) and kind.mask:
            token = _Token(content=token, **kind.mask)
        if token:
            special[role] = token
    more = [
        *(settings.additional_special_tokens or ()),
        *(settings.extra_special_tokens or {}).values(),
    ]
    return special | {f"more {i}": token for i, token in enumerate(more)}


def _content(token: _Token | str) -> str:
    return token.content if isinstance(token, _Token) else token


def _add(
    tokenizer: Tokenizer,
    special: Sequence[_Token | str],
    added: Mapping[int, _Token],
    folder: Path,
) -> None:
    """Adds tokens in the order of their ids, then the special ones that are none yet."""
    there = tokenizer.get_added_tokens_decoder().values()
    same = {repr(token) for token in there}
    tokens = [token for _, token in sorted(added.items(), key=lambda one: one[0])]
    tokens = [token for token in tokens if repr(token.made(special=token.special)) not in same]
    known = {token.content for token in there} | {token.content for token in tokens}
    contents = set()
    for token in special:
        content = _content(token)
        if content not in contents and (isinstance(token, _Token) or content not in known):
            tokens.append(token if isinstance(token, _Token) else _Token(content=content))
        contents.add(content)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Numbered(_Token):
    """An added token of tokenizer.json."""

    id: Natural


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Truncation:
    direction: str = "Right"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    """What is read of tokenizer.json beside what the library reads."""

    added_tokens: tuple[_Numbered, ...] = ()
    truncation: _Truncation | None = None


def _from_json(path: Path, side: str | None = None) -> tuple[Tokenizer, dict[int, _Token]]:
    """The tokenizer, and the tokens that the file adds, by their ids.

    side: the end at which texts are cut; None: what the file says.
    """
    text = read_text(path)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises a bare Exception
        raise ValueError(f"{path}: expected a tokenizer, but {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    file = decode(_File, parse_json(text, path), path)
    if side is None and file.truncation and file.truncation.direction.lower() != "right":
        raise ValueError(
            f"{path}: truncation: direction is {file.truncation.direction!r}, which makes other "
            "token ids; supported is 'Right'"
        )
    tokens = {}
    for token in file.added_tokens:
        fields = {field.name: getattr(token, field.name) for field in dataclasses.fields(_Token)}
        tokens[token.id] = _Token(**fields)
    return tokenizer, tokens


def _without_types(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """A tokenizer that gives no token type but 0."""
    if not any(tokenizer.encode("a", "a").type_ids):
        return tokenizer

    def flat(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: 0 if name == "type_id" else flat(one) for name, one in value.items()}
        return [flat(one) for one in value] if isinstance(value, list) else value

    state = json.loads(tokenizer.to_str())
    state["post_processor"] = flat(state["post_processor"])
    made = Tokenizer.from_str(json.dumps(state))
    if any(made.encode("a", "a").type_ids):
        raise ValueError(
            f"{folder}: the tokenizer's post_processor {state['post_processor']['type']} gives "
            "token types, but its model_input_names have no token_type_ids"
        )
    return made


# --- from vocabularies ---------------------------------------------------------------------------


def _from_vocabulary(
    folder: Path,
    kind: _Class,
    settings: _Settings,
    special: Mapping[str, _Token | str],
    added: Mapping[int, _Token],
) -> Tokenizer:
    """The tokenizer without its added tokens; ValueError if a token that encoding needs is
    missing."""
    missing = [name for name in kind.vocabulary if not (folder / name).exists()]
    if missing or not kind.vocabulary:
        raise _without_vocabulary(folder)
    file = folder / kind.vocabulary[0]
    vocab = _lines(file) if kind.special is _BERT else read_json(file, dict[str, Natural])
    known = {token.content: place for place, token in added.items()} | vocab
    roles = {role: _content(special.get(role, "")) for role in ("unk", "sep", "pad", "cls")}
    for role, token in roles.items():
        if token not in (vocab if role == "unk" else known):
            raise ValueError(
                f"{file}: expected the special token {token!r} ({role}), but the vocabulary of "
                f"{len(vocab)} has none"
            )
    cls, sep = ((roles[role], known[roles[role]]) for role in ("cls", "sep"))
    if kind.special is _BERT:
        tokenizer = _word_piece(vocab, roles["unk"], cls, sep)
        tokenizer.normalizer = _normalizer(settings)
        return tokenizer
    return _byte_level(vocab, folder / "merges.txt", cls, sep, bool(settings.add_prefix_space))


def _lines(file: Path) -> dict[str, int]:
    lines = read_text(file).removesuffix("\n").split("\n")
    return {token.rstrip("\r"): i for i, token in enumerate(lines)}


def _word_piece(
    vocab: dict[str, int], unk: str, cls: tuple[str, int], sep: tuple[str, int]
) -> Tokenizer:
    """BERT's and DistilBERT's tokenizer, without its normalizer."""
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=unk, max_input_chars_per_word=100))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls[0]}:0 $A:0 {sep[0]}:0",
        pair=f"{cls[0]}:0 $A:0 {sep[0]}:0 $B:1 {sep[0]}:1",
        special_tokens=[cls, sep],
    )
    return tokenizer


def _normalizer(settings: _Settings) -> normalizers.BertNormalizer:
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.tokenize_chinese_chars is not False,
        strip_accents=settings.strip_accents,
        lowercase=settings.do_lower_case is not False,
    )


def _normalize(tokenizer: Tokenizer, settings: _Settings, folder: Path) -> None:
    """The settings' normalizer in place of the file's, if that is BERT's too."""
    old, new = tokenizer.normalizer, _normalizer(settings)
    if not isinstance(old, normalizers.BertNormalizer):
        return
    new.clean_text = old.clean_text
    for token in tokenizer.get_added_tokens_decoder().values():
        forms = [one.normalize_str(token.content) for one in (old, new)]
        if token.normalized and forms[0] != forms[1]:
            raise ValueError(
                f"{folder}: the added token {token.content!r} is {forms[0]!r} in texts by "
                f"tokenizer.json, but {forms[1]!r} by the settings of the class (do_lower_case, "
                "strip_accents, tokenize_chinese_chars): make them the same in "
                "tokenizer_config.json"
            )
    tokenizer.normalizer = new


def _byte_level(
    vocab: dict[str, int], file: Path, cls: tuple[str, int], sep: tuple[str, int], space: bool
) -> Tokenizer:
    """RoBERTa's tokenizer: `<s> A </s>` and `<s> A </s></s> B </s>`."""
    merges = []
    lines = read_text(file).split("\n")
    for number, line in enumerate(lines[1:-1], 2):  # the first says the version, the last is empty
        pair = line.split()
        if len(pair) != 2:
            raise ValueError(f"{file}:{number}: expected two pieces, but found {line!r}")
        merges.append((pair[0], pair[1]))
    try:
        model = models.BPE(
            vocab, merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False
        )
    except Exception as error:  # tokenizers raises a bare Exception
        raise ValueError(f"{file} does not fit vocab.json: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=space)
    return tokenizer


# --- checking and writing ------------------------------------------------------------------------


def check_tokens(tokenizer: Tokenizer, config: BertConfig, folder: Path) -> None:
    """ValueError names a token or a token type that the model's tables have no row for."""
    token, largest = max(tokenizer.get_vocab().items(), key=lambda one: one[1])
    try:
        ends = tokenizer.encode("\ufffe", "\ufffe")  # a character that no vocabulary has
    except Exception as error:  # tokenizers raises a bare Exception
        raise ValueError(f"{folder}: the tokenizer cannot encode every text: {error}") from error
    if ends.ids and max(ends.ids) > largest:
        token, largest = ends.tokens[int(np.argmax(ends.ids))], max(ends.ids)
    if largest >= config.vocab:
        raise ValueError(
            f"{folder}: the tokenizer's token {token!r} has the id {largest}, but the model's "
            f"embedding has {config.vocab} rows: resize the embedding, or take the token out"
        )
    if config.types > 1 and ends.ids and max(ends.type_ids) >= config.types:
        raise ValueError(
            f"{folder}: the tokenizer gives the token type {max(ends.type_ids)}, but the model's "
            f"embedding of types has {config.types} rows"
        )


def save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """`tokenizer.json`, from which `load_tokenizer` makes it again."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
