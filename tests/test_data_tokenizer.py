"""Tokenizer folders of each form are read, and examples encoded with truncation, types and labels
as models expect."""

import dataclasses
import json

import numpy as np
import pytest
from data_tokenizers import SENTENCES, WORD_PIECES, labelled, write_byte_level, write_word_pieces
from hypothesis import given
from hypothesis import strategies as st
from tiny import CONFIG

from hp_jax.text.huggingface import check_tokens, load_tokenizer
from hp_jax.text.tokenizer import encode

LABELS = ("no", "yes")


def pieces(examples, n, vocab=tuple(WORD_PIECES)):
    return " ".join(vocab[token] for token in examples.tokens[n])


def test_word_pieces_singles_pairs_and_types(tmp_path):
    tokenizer = load_tokenizer(write_word_pieces(tmp_path))
    single = encode(tokenizer, labelled(("It is GOOD.",), ("",)), LABELS, 16)
    assert [pieces(single, n) for n in range(2)] == ["[CLS] it is good . [SEP]", "[CLS] [SEP]"]
    pair = encode(tokenizer, labelled(("it", "films"), ("", "")), LABELS, 16)
    assert [pieces(pair, n) for n in range(2)] == [
        "[CLS] it [SEP] film ##s [SEP]",
        "[CLS] [SEP] [SEP]",
    ]
    assert [kinds.tolist() for kinds in pair.types] == [[0, 0, 0, 1, 1, 1], [0, 0, 1]]
    flat = encode(tokenizer, labelled(("it", "films")), LABELS, 16, types=0)
    assert flat.types[0].tolist() == [0] * 6
    assert flat.tokens[0].tolist() == pair.tokens[0].tolist()
    assert {array.dtype for array in (*pair.tokens, *pair.types, pair.label_N)} == {
        np.dtype(np.int32)
    }


def test_settings_of_case_and_special_tokens_hold(tmp_path):
    tokenizer = load_tokenizer(
        write_word_pieces(tmp_path, do_lower_case=False, unk_token={"content": "bad"})
    )
    assert (
        pieces(encode(tokenizer, labelled(("Good good Bad", "it")), LABELS, 16), 0)
        == "[CLS] Good good bad [SEP] it [SEP]"
    )
    tokenizer.enable_padding(length=30)
    tokenizer.enable_truncation(3)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    again = load_tokenizer(tmp_path)
    assert again.padding is None
    assert again.truncation is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    assert load_tokenizer(tmp_path).encode("Good").ids == tokenizer.encode("good").ids[:3]


@given(st.integers(0, 12), st.integers(0, 12), st.integers(4, 20))
def test_of_a_pair_the_longer_loses_first(tmp_path_factory, first, second, max_length):
    tokenizer = load_tokenizer(write_word_pieces(tmp_path_factory.mktemp("t")))
    examples = encode(tokenizer, labelled(("good " * first, "bad " * second)), LABELS, max_length)
    good, bad = (
        int((examples.tokens[0] == WORD_PIECES.index(word)).sum()) for word in ("good", "bad")
    )
    assert len(examples.tokens[0]) == good + bad + 3 == min(first + second + 3, max_length)
    room = max_length - 3
    assert good >= min(first, room // 2)
    assert bad >= min(second, room // 2)


def test_byte_level_pairs_have_two_separators_and_no_types(tmp_path):
    tokenizer = load_tokenizer(write_byte_level(tmp_path))
    examples = encode(tokenizer, labelled(("a", "one")), LABELS, 16)
    ids = examples.tokens[0].tolist()
    end = tokenizer.token_to_id("</s>")
    assert ids[0] == tokenizer.token_to_id("<s>") == 0
    assert ids.count(end) == 3
    assert ids[-1] == end
    assert not examples.types[0].any()
    assert (
        tokenizer.decode(
            encode(tokenizer, labelled((SENTENCES[2],)), LABELS, 400).tokens[0].tolist()
        )
        == SENTENCES[2]
    )


def test_encoding_leaves_the_tokenizer_as_it_is(tmp_path):
    tokenizer = load_tokenizer(write_word_pieces(tmp_path))
    before = tokenizer.to_str()
    encode(tokenizer, labelled(("it " * 9,)), LABELS, 4)
    assert tokenizer.to_str() == before


def test_labels_are_places_in_the_models_labels(tmp_path):
    tokenizer = load_tokenizer(write_word_pieces(tmp_path))
    examples = encode(tokenizer, labelled(("it",), ("is",), ("a",)), ("maybe", "yes", "no"), 8)
    assert examples.label_N.tolist() == [2, 1, 2]
    assert len(examples) == 3
    with pytest.raises(
        ValueError, match=r"f\.tsv:3: the model has no label 'yes'; its labels are no, maybe"
    ):
        encode(tokenizer, labelled(("it",), ("is",)), ("no", "maybe"), 8)


def test_fingerprints_differ_with_anything_a_model_sees(tmp_path):
    tokenizer = load_tokenizer(write_word_pieces(tmp_path))
    examples = encode(tokenizer, labelled(("it is", "a"), ("a", "film")), LABELS, 16)
    same = encode(tokenizer, labelled(("IT is", "a "), ("a", "film")), LABELS, 16)
    assert same.fingerprint() == examples.fingerprint()
    assert len(examples.fingerprint()) == 64
    others = [
        encode(tokenizer, labelled(("it is", "a"), ("a", "films")), LABELS, 16),
        encode(tokenizer, labelled(("it is", "a"), ("a", "film")), LABELS, 16, types=1),
        encode(tokenizer, labelled(("it is", "a"), ("a", "film")), LABELS[::-1], 16),
        dataclasses.replace(
            examples,
            tokens=(
                examples.tokens[0][:-1],
                np.append(examples.tokens[0][-1:], examples.tokens[1]),
            ),
        ),
    ]
    assert len({other.fingerprint() for other in (examples, *others)}) == 5


def test_faults_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent"):
        load_tokenizer(tmp_path / "absent")
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(
        FileNotFoundError, match=r"expected tokenizer\.json, vocab\.txt, .* but found merges\.txt"
    ):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text('{"<s>": 0, "</s>": 1}')
    with pytest.raises(ValueError, match=r"vocab\.json: expected the special token '<unk>'"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\nit\n")
    with pytest.raises(
        ValueError, match=r"vocab\.txt: expected the special token '\[SEP\]' \(sep\)"
    ):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: expected a tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(
        ValueError, match=r"tokenizer_config\.json: expected an object, but found \[\]"
    ):
        load_tokenizer(tmp_path)


def test_a_length_without_room_is_refused(tmp_path):
    tokenizer = load_tokenizer(write_word_pieces(tmp_path))
    with pytest.raises(ValueError, match="max_length is 3, but the 3 special tokens"):
        encode(tokenizer, labelled(("it", "is")), LABELS, 3)


# --- what the files beside the vocabulary say ----------------------------------------------------

NEW = len(WORD_PIECES)


def fast(folder, **settings):
    """The word pieces as a cased tokenizer.json alone, beside what config.json of BERT says."""
    made = load_tokenizer(write_word_pieces(folder, do_lower_case=False))
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer_config.json").unlink()
    made.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({}, "Good", "good"),  # BERT's class lowers unless it is told not to
        ({"do_lower_case": False}, "Good", "Good"),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}, "Good", "Good"),
        ({"additional_special_tokens": ["film"]}, "filmfilm", "film film"),
        ({"unk_token": "film"}, "filmfilm", "film film"),
        ({"extra_special_tokens": {"one": "film"}}, "filmfilm", "film film"),
    ],
)
def test_what_a_class_takes_where_nothing_is_said(tmp_path, settings, text, expected):
    tokenizer = load_tokenizer(fast(tmp_path, **settings))
    assert " ".join(tokenizer.encode(text).tokens[1:-1]) == expected


@pytest.mark.parametrize("where", ["tokenizer_class", "model_input_names"])
def test_a_model_that_is_given_no_token_types(tmp_path, where):
    settings = {
        "tokenizer_class": {"tokenizer_class": "DistilBertTokenizer"},
        "model_input_names": {"model_input_names": ["input_ids", "attention_mask"]},
    }[where]
    tokenizer = load_tokenizer(fast(tmp_path, **settings))
    assert set(tokenizer.encode("it", "is").type_ids) == {0}
    assert load_tokenizer(fast(tmp_path)).encode("it", "is").type_ids == [0, 0, 0, 1, 1]


def test_special_tokens_map_comes_before_tokenizer_config(tmp_path):
    folder = write_word_pieces(tmp_path, cls_token="bad")
    (folder / "special_tokens_map.json").write_text('{"cls_token": "good"}')
    assert load_tokenizer(folder).encode("it").tokens == ["good", "it", "[SEP]"]
    settings = {"cls_token": "bad", "added_tokens_decoder": {str(NEW): {"content": "<new>"}}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert load_tokenizer(folder).encode("<new>").tokens == ["bad", "<new>", "[SEP]"]


def test_merges_are_all_lines_but_the_first_and_the_last(tmp_path):
    folder = write_byte_level(tmp_path)
    path = folder / "merges.txt"
    lines = path.read_text().split("\n")
    expected = load_tokenizer(folder).encode(SENTENCES[0]).ids
    path.write_text("\n".join(["any first line", *lines[1:]]))
    assert load_tokenizer(folder).encode(SENTENCES[0]).ids == expected
    path.write_text("\n".join([*lines[:3], "a b c", *lines[3:]]))
    with pytest.raises(ValueError, match=r"merges\.txt:4: expected two pieces, but found 'a b c'"):
        load_tokenizer(folder)
    path.write_text("\n".join([lines[0], "zz yy", ""]))
    with pytest.raises(ValueError, match=r"merges\.txt does not fit vocab\.json"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"truncation_side": "left"}, "truncation_side is 'left'"),
        ({"split_special_tokens": True}, "split_special_tokens is True"),
        ({"auto_map": {"AutoTokenizer": ["m.T", None]}}, "auto_map is"),
        (
            {"tokenizer_class": "BertJapaneseTokenizer"},
            "tokenizer_class is 'BertJapaneseTokenizer'",
        ),
        ({"added_tokens_decoder": {"3": {"content": "Good"}}}, "'Good' should have the id 3"),
        (
            {"added_tokens_decoder": {str(NEW): {"content": "New", "normalized": True}}},
            "'New' is 'New' in texts by tokenizer.json, but 'new' by the settings",
        ),
        ({"additional_special_tokens": [3]}, "additional_special_tokens"),
    ],
)
def test_what_makes_other_ids_is_refused(tmp_path, settings, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        load_tokenizer(fast(tmp_path, **settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda one: one["added_tokens"][0].update(id=7), r"should have the id 7"),
        (lambda one: one.update(truncation=LEFT), r"direction is 'Left'"),
        (lambda one: one["model"].update(unk_token="none"), "the tokenizer cannot encode"),
        (
            lambda one: one["post_processor"]["special_tokens"]["[SEP]"].update(ids=[99]),
            r"token '\[SEP\]' has the id 99, but the model's embedding has 50 rows",
        ),
        (
            lambda one: one["post_processor"]["pair"][3]["Sequence"].update(type_id=2),
            "gives the token type 2, but the model's embedding of types has 2 rows",
        ),
    ],
)
def test_what_tokenizer_json_says_is_checked(tmp_path, change, sentence):
    path = fast(tmp_path) / "tokenizer.json"
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))
    with pytest.raises(ValueError, match=sentence) as caught:
        check_tokens(load_tokenizer(tmp_path), CONFIG, tmp_path)
    assert "\n" not in str(caught.value)


LEFT = {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
