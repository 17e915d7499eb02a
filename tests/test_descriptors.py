"""Heads in words: one notation goes out and comes back; the authors' are read beside it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hp_jax import heads
from hp_jax.descriptors import format_descriptor, parse_descriptor, parse_heads
from hp_jax.mask_files import file_masks, prefixes
from hp_jax.shrink.orders import read_order

ROWS = ("enc.0", "enc.1", "dec.0", "cross.0", "my row")
PRESENT_AH = heads.all_on(5, 8)
names = st.one_of(
    st.text(min_size=1, max_size=8),
    st.sampled_from(["enc.0", "enc", "1:3", "E:1:2", "block0/attn", '"', "#", "-", "a b", "x.1-3"]),
)
chosen = st.lists(st.integers(0, 99), min_size=1, max_size=9)


@given(st.dictionaries(names, chosen, max_size=5))
@settings(max_examples=200)
def test_what_is_printed_can_be_pasted_back(gone):
    text = format_descriptor(gone)
    rows = (*gone, "another")
    assert parse_descriptor(text, rows) == gone
    assert len(text.splitlines()) == 1
    assert not text.startswith("#")  # a comment in files


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("enc.0.1-3,7 cross.0.2", {"enc.0": [1, 2, 3, 7], "cross.0": [2]}),
        ("E:1:2-4", None),
        ("E:1:2,3,4,8 A:1:3", {"enc.0": [1, 2, 3, 7], "cross.0": [2]}),
        ("D:1:1", {"dec.0": [0]}),
        ('"my row".0 enc.1.5,6', {"my row": [0], "enc.1": [5, 6]}),
        ("-", {}),
        (" ", {}),
    ],
)
def test_the_notations(text, gone):
    if gone is None:
        with pytest.raises(ValueError, match=r"expected ROW\.HEADS from 0"):
            parse_descriptor(text, ROWS)
    else:
        assert parse_descriptor(text, ROWS) == gone


def test_a_classifiers_layers_have_no_letter():
    rows = ("enc.0", "enc.1")
    assert parse_descriptor("1:3,4 2:11", rows) == {"enc.0": [2, 3], "enc.1": [10]}
    assert format_descriptor(parse_descriptor("1:3,4 2:11", rows)) == "enc.0.2,3 enc.1.10"


def test_heads_keep_their_order():
    assert parse_heads("enc.1.2 enc.0.3-4 enc.1.0", ROWS) == [
        ("enc.1", 2),
        ("enc.0", 3),
        ("enc.0", 4),
        ("enc.1", 0),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("enc.0", "word 1, 'enc.0': it is a whole row: expected its heads too, such as enc.0.0"),
        ("enc.0.1 E:1:2", "word 2, 'E:1:2': expected row.head from 0 as in word 1, but it is E"),
        ("E:1:2 cross.0.1", "word 2, .*: expected E.A.D:layer:head from 1 as in word 1"),
        ("1:2", "word 1, '1:2': there are several types of attention: expected E:, A: or D:"),
        ("enc.0.1 enc.9.1", "word 2, 'enc.9.1': there is no row 'enc.9'; the rows are enc.0"),
        ("enc.0.3-1", "word 1, .*: the range 3-1 runs backwards"),
        ("E:0:1", "count from 1"),
        ("E:1:0", "count from 1"),
        *(
            (word, "word 1, .*: expected ROW.HEADS from 0, such as enc.0.0")
            for word in ("3", "enc.0.x", "enc.0.1,", "Z:1:3", "E:E:1:1", "enc.0:1", "enc.0.9999999")
        ),
        ('"my.0', "expected a name in double quotes"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text, message):
    with pytest.raises(ValueError, match=message):
        parse_descriptor(text, ROWS)


def test_an_order_names_heads_one_by_one_or_many_in_a_line(tmp_path):
    lines, line = tmp_path / "lines.txt", tmp_path / "line.txt"
    lines.write_text("enc.1.2\n# by eye\nenc.0.3\nenc.0.4\n")
    line.write_text("enc.1.2 enc.0.3-4\n")
    one, other = ([mask for _, mask in prefixes(f, PRESENT_AH, ROWS)] for f in (lines, line))
    np.testing.assert_array_equal(one, other)


# --- what run_bertology writes -------------------------------------------------------------------


def test_head_mask_and_head_importance_of_run_bertology(tmp_path):
    random = np.random.default_rng(0)
    score_AH = random.random((5, 8)).astype(np.float32)
    keep_AH = (score_AH > 0.5).astype(np.float32)
    np.save(tmp_path / "head_mask.npy", keep_AH)
    np.save(tmp_path / "head_importance.npy", score_AH)
    ((_, mask_AH),) = file_masks(tmp_path / "head_mask.npy", PRESENT_AH, ROWS)
    np.testing.assert_array_equal(mask_AH, keep_AH == 1)
    order = prefixes(tmp_path / "head_importance.npy", PRESENT_AH, ROWS)
    assert len(order) == 40
    found = read_order(str(tmp_path / "head_importance.npy"), PRESENT_AH, ROWS, model="")
    assert found == heads.lowest_first(PRESENT_AH, score_AH)
    for gone, (_, mask_AH) in enumerate(order, 1):
        np.testing.assert_array_equal(mask_AH, heads.keep_top(PRESENT_AH, score_AH, 40 - gone))


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (file_masks, 0.25, r"a.npy: the head mask holds 0.25 at \(1, 2\), but every value must be"),
        (file_masks, np.nan, r"a.npy: the head mask holds nan at \(1, 2\)"),
        (prefixes, np.nan, r"a.npy holds nan for enc.1.2, but a finite number was expected"),
        (prefixes, np.inf, r"a.npy holds inf for enc.1.2"),
        (prefixes, 0, r"a.npy holds 0 and 1 alone, so it is a mask, but scores were expected"),
    ],
)
def test_arrays_of_other_values_are_refused(tmp_path, read, value, message):
    array_AH = np.ones((5, 8))
    array_AH[1, 2] = value
    np.save(tmp_path / "a.npy", array_AH)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.npy", PRESENT_AH, ROWS)


@pytest.mark.parametrize("read", [file_masks, prefixes])
@pytest.mark.parametrize(
    "array", [np.ones((5, 7)), np.ones(8), np.full((5, 8), "x"), np.ones((5, 8), complex)]
)
def test_arrays_of_another_kind_are_refused(tmp_path, read, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=r"a.npy (has shape .* was expected|holds .* values, but)"):
        read(tmp_path / "a.npy", PRESENT_AH, ROWS)
