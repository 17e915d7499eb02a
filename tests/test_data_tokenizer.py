"""Tokenizer folders of each form are read, and examples encoded with truncation, types and labels
as models expect."""

import dataclasses
import json

import numpy as np
import pytest
from data_tokenizers import SENTENCES, WORD_PIECES, labelled, write_byte_level, write_word_pieces
from hypothesis import given
from hypothesis import strategies as st

from hp_jax.text.tokenizer import encode, load_tokenizer

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
    with pytest.raises(ValueError, match=r"vocab\.json: expected the special token '<pad>'"):
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
