"""A Hugging Face folder's tokenizer, which gives the ids that transformers' AutoTokenizer does."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from hp_jax.architecture import BertConfig, ModelConfig
from hp_jax.data.tables import read_text
from hp_jax.storage.files import parse_json, read_json, write_whole
from hp_jax.text import vocabulary_files
from hp_jax.text.added_tokens import (
    Settings,
    Token,
    add_tokens,
    added_tokens,
    content,
    read_settings,
    special_tokens,
)
from hp_jax.typed import Natural, decode

log = logging.getLogger("hp_jax")


class _Class(NamedTuple):
    """A class of tokenizers: what holds where nothing is said."""

    special: Mapping[str, str]
    types: bool
    """Whether models are given token types."""
    vocabulary: tuple[str, ...] = ()
    """Its files where there is no tokenizer.json."""
    made: Callable[..., Tokenizer] | None = None
    """From those files, special tokens by their roles, ids of added tokens, and settings."""
    mask: Mapping[str, bool] = {}
    """How its mask token is found."""
    unsaid: Mapping[str, Any] = {}
    """Settings of it, where they are not `Settings`' own."""
    framed: bool = False
    """Whether BOS and EOS stand around texts as the settings say, whatever tokenizer.json says."""


_BERT = {name.lower(): f"[{name}]" for name in ("UNK", "SEP", "PAD", "CLS", "MASK")}
_ROBERTA = {
    "bos": "<s>",
    "eos": "</s>",
    "sep": "</s>",
    "cls": "<s>",
    **{name: f"<{name}>" for name in ("unk", "pad", "mask")},
}
_END, _LEFT = "<|endoftext|>", {"lstrip": True}
_LLAMA = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
_GEMMA = {name: f"<{name}>" for name in ("bos", "eos", "unk", "pad")}
_WORDS = (vocabulary_files.WORDS, vocabulary_files.bert)
_ROBERTA_BYTES, _GPT2_BYTES, _QWEN2_BYTES = (
    (vocabulary_files.BYTES, made)
    for made in (vocabulary_files.roberta, vocabulary_files.gpt2, vocabulary_files.qwen2)
)
_FRAMED = {"add_bos_token": True}
_CLASSES = {
    "BertTokenizer": _Class(_BERT, True, *_WORDS),
    "ElectraTokenizer": _Class(_BERT, True, *_WORDS),
    "DistilBertTokenizer": _Class(_BERT, False, *_WORDS),
    "RobertaTokenizer": _Class(
        _ROBERTA, False, *_ROBERTA_BYTES, mask=_LEFT | {"normalized": False}
    ),
    "XLMRobertaTokenizer": _Class(_ROBERTA, False, mask=_LEFT),
    "GPT2Tokenizer": _Class(dict.fromkeys(("bos", "eos", "unk"), _END), False, *_GPT2_BYTES),
    "Qwen2Tokenizer": _Class(dict.fromkeys(("eos", "unk", "pad"), _END), False, *_QWEN2_BYTES),
    "LlamaTokenizer": _Class(
        _LLAMA, False, unsaid=_FRAMED | {"add_prefix_space": None}, framed=True
    ),
    "GemmaTokenizer": _Class(_GEMMA, False, unsaid=_FRAMED, framed=True),
    "PreTrainedTokenizer": _Class({}, True),
    "TokenizersBackend": _Class({}, True),
}
"""By name without `Fast`; the last is what transformers 5 calls the one before it."""
_OF_MODEL = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "gpt2": "GPT2Tokenizer",
    **dict.fromkeys(("llama", "mistral"), "LlamaTokenizer"),
    **dict.fromkeys(("qwen2", "qwen3"), "Qwen2Tokenizer"),
    **dict.fromkeys(("gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
}
"""By Hugging Face's model_type."""


# --- reading -------------------------------------------------------------------------------------


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """A classifier's tokenizer, as `load_decoder_tokenizer` does, with the token types that
    transformers gives the model; ValueError for types that cannot be taken out."""
    tokenizer, types = _load(Path(folder).expanduser())
    return tokenizer if types else _without_types(tokenizer, Path(folder))


def load_decoder_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder, with padding and truncation off.

    From tokenizer.json; else from BERT's vocab.txt (WordPiece) or RoBERTa's, GPT-2's or Qwen2's
    vocab.json and merges.txt (byte-level BPE). What tokenizer_config.json, special_tokens_map.json
    and added_tokens.json say of the class, case, accents, prefix spaces, token types, special and
    added tokens holds, and what the class takes where they say nothing, as in transformers 4.57;
    Llama's and Gemma's put BOS before a text and EOS after it if they say so.  A tokenizer.json of
    which nothing says the class is taken as it is.

    FileNotFoundError if there is none of these; ValueError for a file that cannot be read or lacks
    a special token, for a class or a setting that makes other ids, and for an added token that
    would not have the id that it should.
    """
    return _load(Path(folder).expanduser())[0]


def _load(folder: Path) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether models are given its token types."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with a tokenizer")
    name, file = _class_of(folder), folder / "tokenizer.json"
    if not name:
        return _from_json(file)[0], True
    kind = _CLASSES[name]
    settings = read_settings(folder, kind.unsaid)
    if file.exists():
        tokenizer, inside = _from_json(file, settings.truncation_side)
    else:
        tokenizer, inside = None, {}
    added, declared = added_tokens(folder, settings, inside)
    special = special_tokens(settings, kind.special, kind.mask, declared)
    framed = kind.framed
    if tokenizer is None:
        tokenizer = _from_vocabulary(folder, kind, settings, special, added)
        framed |= kind.special is not _BERT and bool(settings.add_bos_token)
    elif name == "LlamaTokenizer" and settings.add_prefix_space is not None:
        _check_spaces(tokenizer, settings, folder)
    add_tokens(tokenizer, [*special.values()], added, folder)
    if kind.special is _BERT:
        _normalize(tokenizer, settings, folder)
    if framed:
        _frame(tokenizer, settings, special, folder)
    words = tokenizer.pre_tokenizer
    if isinstance(words, pre_tokenizers.ByteLevel) and settings.add_prefix_space is not None:
        words.add_prefix_space = settings.add_prefix_space
        tokenizer.pre_tokenizer = words
    names = settings.model_input_names
    return tokenizer, kind.types if names is None else "token_type_ids" in names


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
    if (folder / "tokenizer.model").exists():
        return FileNotFoundError(
            f"{folder} has a tokenizer.model but no tokenizer.json: make one with "
            "transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    return FileNotFoundError(
        f"{folder}: expected tokenizer.json, vocab.txt, or vocab.json with merges.txt, but found "
        f"{found}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Numbered(Token):
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


def _from_json(path: Path, side: str | None = None) -> tuple[Tokenizer, dict[int, Token]]:
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
        fields = {field.name: getattr(token, field.name) for field in dataclasses.fields(Token)}
        tokens[token.id] = Token(**fields)
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
            f"{folder}: the tokenizer's post_processor "
            f"{(state['post_processor'] or {}).get('type')} gives token types, but its "
            "model_input_names have no token_type_ids"
        )
    return made


def _from_vocabulary(
    folder: Path,
    kind: _Class,
    settings: Settings,
    special: Mapping[str, Token | str],
    added: Mapping[int, Token],
) -> Tokenizer:
    """The tokenizer without its added tokens."""
    if kind.made is None or not all((folder / name).exists() for name in kind.vocabulary):
        raise _without_vocabulary(folder)
    roles = {role: content(special.get(role, "")) for role in ("unk", "sep", "pad", "cls")}
    known = {token.content: place for place, token in added.items()}
    return kind.made(folder, roles, known, settings)


def _normalize(tokenizer: Tokenizer, settings: Settings, folder: Path) -> None:
    """The settings' normalizer in place of the file's, if that is BERT's too."""
    old, new = tokenizer.normalizer, vocabulary_files.bert_normalizer(settings)
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


def _frame(
    tokenizer: Tokenizer, settings: Settings, special: Mapping[str, Token | str], folder: Path
) -> None:
    """BOS before a text and EOS after it, as far as the settings say; in place."""
    ends = {"bos": settings.add_bos_token, "eos": settings.add_eos_token}
    tokens = {role: content(special.get(role, "")) for role, there in ends.items() if there}
    ids = {role: tokenizer.token_to_id(token) for role, token in tokens.items()}
    for role, token in tokens.items():
        if ids[role] is None:
            raise ValueError(
                f"{folder}: add_{role}_token is true, but the vocabulary has no such token "
                f"{token!r}"
            )
    bos, eos = ([f"{tokens[role]}:0"] if role in tokens else [] for role in ends)
    single, second = [*bos, "$A:0", *eos], [*bos, "$B:0", *eos]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(single),
        pair=" ".join([*single, *second]),
        special_tokens=[*{token: (token, ids[role]) for role, token in tokens.items()}.values()],
    )


def _check_spaces(tokenizer: Tokenizer, settings: Settings, folder: Path) -> None:
    """ValueError unless tokenizer.json puts spaces where transformers does, which makes Llama's
    tokenizer anew from tokenizer.model if there is a setting add_prefix_space."""
    made, space = Tokenizer(BPE()), bool(settings.add_prefix_space)
    if settings.legacy is False:
        scheme = "first" if space else "never"
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    else:
        before = [normalizers.Prepend("▁")] if space else []
        made.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    one, other = (json.loads(each.to_str()) for each in (made, tokenizer))
    for part in ("normalizer", "pre_tokenizer"):
        if one[part] != other[part]:
            raise ValueError(
                f"{folder}/tokenizer_config.json has an add_prefix_space, with which transformers "
                f"makes the tokenizer anew, with another {part} than tokenizer.json has: load and "
                "save it once with transformers"
            )


# --- checking and writing ------------------------------------------------------------------------


def check_tokens(tokenizer: Tokenizer, config: BertConfig, folder: Path) -> None:
    """ValueError names a token or a token type that the model's tables have no row for."""
    ends = check_ids(tokenizer, config, folder)
    if config.types > 1 and max(ends.type_ids, default=0) >= config.types:
        raise ValueError(
            f"{folder}: the tokenizer gives the token type {max(ends.type_ids)}, but the model's "
            f"embedding of types has {config.types} rows"
        )


def check_ids(tokenizer: Tokenizer, config: ModelConfig, folder: Path) -> Encoding:
    """ValueError names a token that the model's embedding has no row for; returns what the
    tokenizer makes of a pair of texts that are not in its vocabulary."""
    token, largest = max(tokenizer.get_vocab().items(), key=lambda one: one[1])
    try:
        ends = tokenizer.encode("\ufffe", "\ufffe")  # a character that no vocabulary has
    except Exception as error:  # tokenizers raises a bare Exception
        raise ValueError(f"{folder}: the tokenizer cannot encode every text: {error}") from error
    if ends.ids and max(ends.ids) > largest:
        token, largest = ends.tokens[int(np.argmax(ends.ids))], max(ends.ids)
    if largest >= config.vocabulary:
        raise ValueError(
            f"{folder}: the tokenizer's token {token!r} has the id {largest}, but the model's "
            f"embedding has {config.vocabulary} rows: resize the embedding, or take the token out"
        )
    return ends


def without_beyond(tokenizer: Tokenizer, vocab: int, folder: Path) -> Tokenizer:
    """Without the added tokens whose ids are `vocab` or more, for which a model has no embedding,
    such as Gemma 3's for pictures in models of text; what they are in texts is read as text."""
    added = tokenizer.get_added_tokens_decoder()
    beyond = [token.content for place, token in added.items() if place >= vocab]
    if not beyond:
        return tokenizer
    log.info("%s: the model has no embedding of %s: read as text", folder, ", ".join(beyond))
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < vocab]
    return Tokenizer.from_str(json.dumps(state))


def plain_settings(
    tokenizer: Tokenizer, length: int, special: Mapping[str, str | None], inputs: Sequence[str]
) -> dict[str, Any]:
    """tokenizer_config.json beside a tokenizer.json that is used as it is, whatever the model; what
    is not an added token there does not become one.

    length: of the longest text; special: tokens by their roles; inputs: what the model is given.
    """
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    words = tokenizer.pre_tokenizer
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "model_input_names": list(inputs),
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": isinstance(words, pre_tokenizers.ByteLevel) and words.add_prefix_space,
    } | {f"{role}_token": token for role, token in special.items() if token in added}


def save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """`tokenizer.json`, from which `load_tokenizer` makes it again."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
