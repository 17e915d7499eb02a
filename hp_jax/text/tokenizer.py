"""Text to token ids: a Hugging Face folder's tokenizer, and whole sets of labelled text encoded
with it."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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

from hp_jax.data.batching import Batch, in_rows, padded, places
from hp_jax.data.labelled import Labelled
from hp_jax.data.tables import read_text
from hp_jax.storage.files import read_json, write_whole
from hp_jax.typed import Natural, decode

log = logging.getLogger("hp_jax")

_CHUNK = 4096
"""Examples encoded at a time: an encoding holds much more than its ids."""


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """N encoded examples; `tokens[n]` and `types[n]` are `[T_n]` int32, unpadded, special tokens
    included."""

    name: str
    """The task."""
    split: str
    """The split of which these are some or all, without a slice."""
    tokens: tuple[np.ndarray, ...]
    types: tuple[np.ndarray, ...]
    label_N: np.ndarray
    """int32 index into the model's labels."""
    origin_N: np.ndarray
    """0-based place of each example in its whole split; int64."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def length_N(self) -> np.ndarray:
        """Tokens of each example; int32."""
        return np.array([len(tokens) for tokens in self.tokens], np.int32)

    def pad(self, index: np.ndarray, rows: int, length: int) -> Batch:
        """The examples at `index`, padded: `tokens_BT`, `types_BT`, `length_B`, `label_B`,
        `weight_B` and `index_B`."""
        return {
            "tokens_BT": padded([self.tokens[n] for n in index], rows, length),
            "types_BT": padded([self.types[n] for n in index], rows, length),
            "length_B": in_rows([len(self.tokens[n]) for n in index], rows, 1),
            "label_B": in_rows(self.label_N[index], rows),
            **places(index, rows),
        }

    def fingerprint(self) -> str:
        """sha256 (hex) of all ids, types and labels, in order: equal exactly if a model is given
        the same."""
        digest = hashlib.sha256()
        for array in (np.array(len(self)), self.length_N, *self.tokens, *self.types, self.label_N):
            digest.update(array.astype("<i8").tobytes())
        return digest.hexdigest()


def encode(
    tokenizer: Tokenizer,
    labelled: Labelled,
    labels: Sequence[str],
    max_length: int,
    *,
    types: int = 2,
) -> Examples:
    """Token ids as Hugging Face's fast tokenizers give them with `truncation="longest_first"`.

    labels: the model's label names in order; an example's label becomes its place there.
    max_length: tokens an example, special tokens included; of a pair the longer text loses tokens
    first.
    types: token types that the model has (`BertConfig.types`); with fewer than 2 (RoBERTa,
    DistilBERT) all are 0.

    How many examples were cut is in a warning.  ValueError for a label that the model does not
    have, and for a max_length without room for any token of the text.
    """
    index = {label: i for i, label in enumerate(labels)}
    unknown = [i for i, label in enumerate(labelled.label) if label not in index]
    if unknown:
        found = labelled.label[unknown[0]]
        raise ValueError(
            f"{labelled.where(unknown[0])}: the model has no label {found!r}; its labels are "
            f"{', '.join(labels)}"
        )
    pairs = len(labelled.text[0]) == 2 if len(labelled) else False
    special = tokenizer.num_special_tokens_to_add(pairs)
    if max_length <= special:
        raise ValueError(
            f"max_length is {max_length}, but the {special} special tokens leave no room for "
            "text: expected more"
        )
    own = _unpadded(Tokenizer.from_str(tokenizer.to_str()))
    own.enable_truncation(max_length, strategy="longest_first")
    tokens: list[np.ndarray] = []
    kinds: list[np.ndarray] = []
    cut = 0
    for start in range(0, len(labelled), _CHUNK):
        texts = labelled.text[start : start + _CHUNK]
        for encoding in own.encode_batch([text if pairs else text[0] for text in texts]):
            tokens.append(np.array(encoding.ids, np.int32))
            kinds.append(np.array(encoding.type_ids, np.int32) * (types > 1))
            cut += bool(encoding.overflowing)
    if cut:
        log.warning(
            "%s: examples of more than %d tokens, cut: %d", labelled.source, max_length, cut
        )
    label_N = np.array([index[label] for label in labelled.label], np.int32)
    return Examples(
        labelled.name, labelled.split, tuple(tokens), tuple(kinds), label_N, labelled.origin_N
    )


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class _Added:
    """A token as tokenizer_config.json describes it."""

    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = True
    special: bool = False


_Token = _Added | str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    """What tokenizer_config.json, special_tokens_map.json and added_tokens.json say that ids depend
    on; the rest of them acts in padding, decoding or generation."""

    tokenizer_class: str | None = None
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    add_prefix_space: bool | None = None
    do_basic_tokenize: bool | None = None
    never_split: tuple[str, ...] | None = None
    truncation_side: str | None = None
    unk_token: _Token = None
    cls_token: _Token = None
    sep_token: _Token = None
    pad_token: _Token = None
    mask_token: _Token = None
    added_tokens_decoder: dict[str, _Added] | None = None

    def special(self, kind: str) -> str:
        """The content of a special token, such as `cls`; empty if nothing says it."""
        token = getattr(self, f"{kind}_token")
        return token.content if isinstance(token, _Added) else token or ""


_KINDS = ("unk", "cls", "sep", "pad", "mask")
_WORD_PIECE = ("BertTokenizer", "DistilBertTokenizer")
_BYTE_LEVEL = ("RobertaTokenizer",)
_SUPPORTED = {
    "do_basic_tokenize": (True,),
    "never_split": ((),),
    "truncation_side": ("right",),
}
"""Of settings that change ids, the one value that is supported, as where there is none."""


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder, with padding and truncation off.

    From tokenizer.json; else from BERT's vocab.txt (WordPiece); else from RoBERTa's vocab.json and
    merges.txt (byte-level BPE). What tokenizer_config.json, special_tokens_map.json and
    added_tokens.json say of case, accents, prefix spaces, special and added tokens holds, as in
    Hugging Face.

    FileNotFoundError if there is none of these; ValueError for a file that cannot be read or lacks
    a special token, for a setting that makes other ids than those of these tokenizers, and for an
    added token that would not have the id that it should.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with a tokenizer")
    settings = _settings(folder)
    name = (settings.tokenizer_class or "").removesuffix("Fast")
    if (folder / "tokenizer.json").exists():
        tokenizer = _unpadded(_from_json(folder / "tokenizer.json", settings, name))
    elif (folder / "vocab.txt").exists():
        _check_class(name, _WORD_PIECE, folder)
        tokenizer = _word_piece(folder / "vocab.txt", settings)
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        _check_class(name, _BYTE_LEVEL, folder)
        tokenizer = _byte_level(folder, settings)
    else:
        found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise FileNotFoundError(
            f"{folder}: expected tokenizer.json, vocab.txt, or vocab.json with merges.txt, but "
            f"found {found}"
        )
    _add(tokenizer, settings, folder)
    return tokenizer


def _settings(folder: Path) -> _Settings:
    """What the files beside the vocabulary say, of which tokenizer_config.json comes first."""
    path = folder / "tokenizer_config.json"
    said = read_json(path) if path.exists() else {}
    if "added_tokens_decoder" not in said:  # as in folders of before 2023
        tokens, added = folder / "special_tokens_map.json", folder / "added_tokens.json"
        if tokens.exists():
            kinds = {f"{kind}_token" for kind in _KINDS}
            said = {name: one for name, one in read_json(tokens).items() if name in kinds} | said
        if added.exists():
            special = {decode(_Settings, said, path).special(kind) for kind in _KINDS}
            said["added_tokens_decoder"] = {
                str(number): {
                    "content": token,
                    "special": token in special,
                    "normalized": token not in special,
                }
                for token, number in read_json(added, dict[str, Natural]).items()
            }
    settings = decode(_Settings, said, path)
    for name, values in _SUPPORTED.items():
        value = getattr(settings, name)
        if value is not None and value not in values:
            raise ValueError(
                f"{path}: {name} is {value!r}, which makes other token ids; supported is "
                f"{values[0]!r}"
            )
    return settings


def _check_class(name: str, known: Sequence[str], folder: Path) -> None:
    if name and name not in known:
        raise ValueError(
            f"{folder}/tokenizer_config.json: tokenizer_class is {name!r}; without a "
            f"tokenizer.json, supported are {' and '.join(known)}: save the tokenizer as a fast one"
        )


def _add(tokenizer: Tokenizer, settings: _Settings, folder: Path) -> None:
    """Adds the tokens that the settings add, in the order of their ids."""
    added = settings.added_tokens_decoder or {}
    where = f"{folder}/tokenizer_config.json: added_tokens_decoder"
    for number in added:
        if not number.isdecimal():
            raise ValueError(f"{where}: expected ids, but found {number!r}")
    for place, token in sorted((int(number), token) for number, token in added.items()):
        tokenizer.add_tokens(
            [
                AddedToken(
                    token.content,
                    single_word=token.single_word,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=token.normalized,
                    special=token.special,
                )
            ]
        )
        found = tokenizer.token_to_id(token.content)
        if found != place:
            raise ValueError(
                f"{where}: the token {token.content!r} should have the id {place}, but beside "
                f"this vocabulary it has {found}"
            )
    for kind in _KINDS:
        special = settings.special(kind)
        if special and tokenizer.token_to_id(special) is None:
            raise ValueError(
                f"{folder}/tokenizer_config.json: {kind}_token is {special!r}, but the "
                f"vocabulary of {tokenizer.get_vocab_size()} tokens has none"
            )


def check_tokens(tokenizer: Tokenizer, size: int, folder: Path) -> None:
    """ValueError names a token whose id is outside an embedding of `size` rows."""
    token, largest = max(tokenizer.get_vocab().items(), key=lambda one: one[1])
    if largest >= size:
        raise ValueError(
            f"{folder}: the tokenizer's token {token!r} has the id {largest}, but the model's "
            f"embedding has {size} rows: resize the embedding, or take the token out"
        )


def save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """`tokenizer.json`, from which `load_tokenizer` makes it again."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())


def _unpadded(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _from_json(path: Path, settings: _Settings, name: str) -> Tokenizer:
    """name: that of the class, without `Fast`; empty: nothing says it."""
    try:
        tokenizer = Tokenizer.from_str(read_text(path))
    except Exception as error:  # tokenizers raises a bare Exception
        raise ValueError(f"{path}: expected a tokenizer, but {error}") from error
    normalizer, words = tokenizer.normalizer, tokenizer.pre_tokenizer
    if name in ("", *_WORD_PIECE) and isinstance(normalizer, normalizers.BertNormalizer):
        tokenizer.normalizer = _bert_normalizer(settings, normalizer)
    if name in _BYTE_LEVEL and isinstance(words, pre_tokenizers.ByteLevel):
        words.add_prefix_space = bool(settings.add_prefix_space)
        tokenizer.pre_tokenizer = words
    return tokenizer


def _bert_normalizer(settings: _Settings, default: Any) -> Any:
    chinese, lower = settings.tokenize_chinese_chars, settings.do_lower_case
    accents = settings.strip_accents
    return normalizers.BertNormalizer(
        clean_text=default.clean_text,
        handle_chinese_chars=default.handle_chinese_chars if chinese is None else chinese,
        strip_accents=default.strip_accents if accents is None else accents,
        lowercase=default.lowercase if lower is None else lower,
    )


def _special(
    settings: _Settings, names: Mapping[str, str], vocab: Mapping[str, int], file: Path
) -> dict[str, str]:
    """`{"cls": "[CLS]", ...}`: what the settings say, or the default; the mask token may be missing
    from the vocabulary."""
    chosen = {}
    for kind, default in names.items():
        token = settings.special(kind) or default
        if token in vocab:
            chosen[kind] = token
        elif kind != "mask":
            raise ValueError(
                f"{file}: expected the special token {token!r} ({kind}), but the vocabulary of "
                f"{len(vocab)} has none"
            )
    return chosen


def _word_piece(file: Path, settings: _Settings) -> Tokenizer:
    """BERT's and DistilBERT's tokenizer; lower case unless the settings say otherwise."""
    lines = read_text(file).removesuffix("\n").split("\n")
    vocab = {token.rstrip("\r"): i for i, token in enumerate(lines)}
    names = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    special = _special(settings, names, vocab, file)
    cls, sep = special["cls"], special["sep"]
    tokenizer = Tokenizer(
        models.WordPiece(vocab, unk_token=special["unk"], max_input_chars_per_word=100)
    )
    tokenizer.normalizer = _bert_normalizer(settings, normalizers.BertNormalizer())
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    tokenizer.add_special_tokens(list(special.values()))
    return tokenizer


def _byte_level(folder: Path, settings: _Settings) -> Tokenizer:
    """RoBERTa's tokenizer: `<s> A </s>` and `<s> A </s></s> B </s>`."""
    vocab = read_json(folder / "vocab.json", dict[str, Natural])
    names = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
    special = _special(settings, names, vocab, folder / "vocab.json")
    space = bool(settings.add_prefix_space)
    merges = [line.split(" ") for line in read_text(folder / "merges.txt").split("\n")]
    pairs = [(line[0], line[1]) for line in merges if len(line) == 2 and line[0] != "#version:"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab, pairs, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = decoders.ByteLevel()
    cls, sep = special["cls"], special["sep"]
    tokenizer.post_processor = processors.RobertaProcessing(
        (sep, vocab[sep]), (cls, vocab[cls]), add_prefix_space=space
    )
    plain = [
        AddedToken(token, normalized=False, special=True)
        for kind, token in special.items()
        if kind != "mask"
    ]
    mask = (
        [AddedToken(special["mask"], lstrip=True, normalized=False, special=True)]
        if "mask" in special
        else []
    )
    tokenizer.add_special_tokens(plain + mask)
    return tokenizer
