"""Files are read as written: every form gives the same columns, and every fault is named with its
file and line."""

import csv
import gzip
import io
import json
import logging
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hp_jax.data import splits, tables
from hp_jax.data.labelled import Labelled, label_name

COLUMNS = [["a"], ["b", "bee"], ["label"]]
FIELD = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"])).filter(
    lambda s: s.strip(" ")
)
ROWS = st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=5)


def write(folder, name, content):
    path = folder / name
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def as_tsv(rows):
    return "label\ta\tother\tbee\n" + "".join(f"{c}\t{a}\t-\t{b}\n" for a, b, c in rows)


def as_csv(rows):
    out = io.StringIO(newline="")
    csv.writer(out).writerows(
        [("label", "a", "other", "bee"), *((c, a, "-", b) for a, b, c in rows)]
    )
    return out.getvalue()


def as_jsonl(rows):
    return "".join(json.dumps({"bee": b, "a": a, "label": c}) + "\n" for a, b, c in rows)


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize(
    ("extension", "form"), [("tsv", as_tsv), ("txt", as_tsv), ("csv", as_csv), ("jsonl", as_jsonl)]
)
def test_every_form_gives_what_was_written(tmp_path_factory, extension, form, end):
    folder = tmp_path_factory.mktemp("text")

    @given(ROWS)
    def check(rows):
        table = tables.read_table(write(folder, f"x.{extension}{end}", form(rows)), COLUMNS)
        assert table.rows == tuple(rows)
        assert list(table.lines) == [i + (extension != "jsonl") for i in range(1, len(rows) + 1)]

    check()


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\xc3\xaf\xc2\xbb\xc2\xbf"])
def test_byte_order_marks_blank_lines_and_odd_line_breaks(tmp_path, mark):
    content = mark + 'a\tb\tlabel\r\n"x\u2028y\x0bz \t"q" \t1\r\n\r\nu\x85\t\t0'.encode()
    table = tables.read_table(write(tmp_path, "x.tsv", content), COLUMNS)
    assert table.rows == (('"x\u2028y\x0bz ', '"q" ', "1"), ("u\x85", "", "0"))
    assert table.lines == (2, 4)


def test_a_csv_field_may_span_lines(tmp_path):
    table = tables.read_table(
        write(tmp_path, "x.csv", 'a,b,label\n"x\ny, ""z""",w,1\n\np,q,0\n'), COLUMNS
    )
    assert table.rows == (('x\ny, "z"', "w", "1"), ("p", "q", "0"))
    assert table.lines == (2, 5)


def test_undecodable_bytes_are_replaced_and_counted(tmp_path, caplog):
    path = write(
        tmp_path, "x.tsv", b"a\tb\tlabel\nx\xff\xfe\ty\t1\nu\tv\xe9\t0\nfine \xc3\xa9\tw\t0\n"
    )
    with caplog.at_level(logging.WARNING, "hp_jax"):
        table = tables.read_table(path, COLUMNS)
    assert table.rows[:2] == (("x\ufffd\ufffd", "y", "1"), ("u", "v\ufffd", "0"))
    assert table.rows[2][0] == "fine é"
    assert "could not be read: 2" in caplog.text
    assert str(path) in caplog.text


def test_a_file_without_a_header_has_columns_by_position(tmp_path):
    header = ("source", "label", "mark", "a")
    columns = [["a"], ["label"]]
    assert tables.read_table(
        write(tmp_path, "x.tsv", "s\t1\t\tText.\n"), columns, header=header
    ).rows == (("Text.", "1"),)
    assert tables.read_table(
        write(tmp_path, "y.tsv", "a\tlabel\nText.\t1\n"), columns, header=header
    ).rows == (("Text.", "1"),)


def test_short_rows_can_be_dropped(tmp_path, caplog):
    path = write(tmp_path, "x.tsv", "a\tb\tlabel\nx\ty\t1\ncut\nx\ty\t0\tmore\n")
    with caplog.at_level(logging.WARNING, "hp_jax"):
        assert tables.read_table(path, COLUMNS, drop_short=True).rows == (
            ("x", "y", "1"),
            ("x", "y", "0"),
        )
    assert "too few fields: 1" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.tsv", "a\tc\tlabel\nx\ty\t1\n", r"x\.tsv:1: .*'b' or 'bee'.* a, c, label"),
        ("x.tsv", "a\tb\tlabel\nx\ty\t1\nx\ty\n", r"x\.tsv:3: expected 3 fields, but found 2"),
        ("x.tsv", "a\tb\tlabel\nx\ty\tz\t1\n", r"x\.tsv:2: expected 3 fields, but found 4"),
        ("x.tsv", "", r"x\.tsv: expected examples"),
        ("x.tsv", "a\tb\tlabel\n\n", r"x\.tsv: expected examples"),
        ("x.csv", 'a,b,label\nx,y,1\n"x,y,1\n', r"x\.csv:3: .*unexpected end"),
        (
            "x.jsonl",
            '{"a": "x", "b": "y", "label": 1}\n{"a": \n',
            r"x\.jsonl:2 is not valid JSON",
        ),
        ("x.jsonl", "[1]\n", r"x\.jsonl:1: expected a JSON object, but found list"),
        ("x.jsonl", '{"a": "x", "label": 1}\n', r"x\.jsonl:1: .*'b' or 'bee'.* a, label"),
        ("x.jsonl", '{"a": null, "b": "y", "label": 1}\n', r"x\.jsonl:1: column 'a': .*None"),
        ("x.xml", "", r"x\.xml: .*\.tsv, \.txt, \.csv, \.jsonl"),
    ],
)
def test_faults_are_named(tmp_path, name, content, says):
    with pytest.raises(ValueError, match=says):
        tables.read_table(write(tmp_path, name, content), COLUMNS)


def test_missing_and_cut_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*x\.tsv"):
        tables.read_table(tmp_path / "x.tsv", COLUMNS)
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress(b"a\tb\tlabel\nx\ty\t1\n")[:-9])
    with pytest.raises(ValueError, match=r"x\.tsv\.gz: expected a whole gzip file"):
        tables.read_table(tmp_path / "x.tsv.gz", COLUMNS)


def test_json_numbers_are_labels_and_half_surrogates_are_replaced(tmp_path):
    path = write(
        tmp_path,
        "x.jsonl",
        (
            '{"a": "\\ud800 \\ud83d\\ude00", "b": "", "label": 1}\n{"a": "x", "b": "y", "label": '
            "true}\n"
        ),
    )
    assert tables.read_table(path, COLUMNS).rows == (
        ("\ufffd \U0001f600", "", "1"),
        ("x", "y", "1"),
    )


def test_labels_are_names_or_indices():
    labels = ("no", "yes")
    assert [label_name(value, labels, "f:1") for value in ("no", "1", " yes ", "0")] == [
        "no",
        "yes",
        "yes",
        "no",
    ]
    assert label_name("2", ("1", "2"), "f:1") == "2"
    for value, names in (
        ("2", labels),
        ("-1", labels),
        ("No", labels),
        ("", labels),
        ("0", ("1", "2")),
    ):
        with pytest.raises(
            ValueError, match=rf"f:1: '{value}' is not a label; the labels are {', '.join(names)}"
        ):
            label_name(value, names, "f:1")


# --- slices --------------------------------------------------------------------------------------


def labelled(n, file="f.tsv", split="train"):
    rows = tuple(str(i) for i in range(n))
    return Labelled(
        name="task",
        text=tuple((row,) for row in rows),
        label=rows,
        files={split: file},
        line_N=np.arange(1, n + 1),
        origin_N=np.arange(n),
    )


def slice_of(whole, split):
    return splits.read_split(split, lambda name: whole)


@given(st.integers(1, 50), st.lists(st.integers(0, 50), min_size=4, max_size=4))
def test_slices_have_in_common_what_their_ranges_have(n, bounds):
    whole = labelled(n)
    a, b, c, d = (min(bound, n) for bound in bounds)
    expected = len(set(range(a, b)) & set(range(c, d)))
    if a < b and c < d:
        first, second = slice_of(whole, f"train[{a}:{b}]"), slice_of(whole, f"train[{c}:{d}]")
        assert (len(first), len(second), splits.overlap(first, second)) == (b - a, d - c, expected)
        assert first.label == tuple(str(i) for i in first.origin_N)
        assert list(first.origin_N) == sorted(first.origin_N)


@given(st.integers(2, 300), st.integers(1, 99))
def test_percentages_split_a_set_in_two(n, percent):
    whole = labelled(n)
    count = round(percent * n / 100)
    parts = (
        [slice_of(whole, split) for split in (f"t[:{percent}%]", f"t[{percent}%:]")]
        if 0 < count < n
        else [whole]
    )
    assert sorted(i for part in parts for i in part.origin_N) == list(range(n))


def test_the_order_of_positions_never_changes():
    whole = labelled(10)
    assert [int(slice_of(whole, f"train[{i}:{i + 1}]").label[0]) for i in range(10)] == [
        2,
        8,
        4,
        9,
        1,
        6,
        7,
        3,
        0,
        5,
    ]
    assert slice_of(whole, "train[:]").label == slice_of(whole, "train[:100%]").label == whole.label
    assert slice_of(whole, "train[:5000]").label == whole.label
    assert slice_of(whole, "train[-3:]").label == ("0", "3", "5")


def test_other_sources_have_nothing_in_common():
    assert splits.overlap(labelled(5), labelled(5)) == 5
    assert splits.overlap(labelled(5), labelled(5, "g.tsv")) == 0


@pytest.mark.parametrize(
    "split",
    [
        "",
        "train[",
        "train[1]",
        "train[a:]",
        "train[:5]x",
        "train+",
        "+train",
        "train + test",
        "train++test",
        "train[::2]",
        "train[:1.5%]",
    ],
)
def test_malformed_splits_are_refused(split):
    with pytest.raises(ValueError, match="cannot read the split"):
        splits.parse_split(split)


@pytest.mark.parametrize(
    ("split", "says"),
    [("train[5:5]", "10 examples"), ("train[20:]", "10 examples"), ("train[:101%]", "101%")],
)
def test_slices_of_nothing_are_refused(split, says):
    with pytest.raises(ValueError, match=says):
        slice_of(labelled(10), split)


def test_folders_of_splits_are_fit_for_shells_and_urls():
    names = ["dev", "dev[:50%]", "dev[50%:]", "dev[:50]", "dev[50:]", "dev[5:50]", "mtnt1.1/test"]
    names += ["dev+dev2", "dev[:50]+dev2", "dev[:50]+dev2[50%:]", "wmt14/full+mtnt1.1/test[:5]"]
    found = [splits.folder_name(name) for name in names]
    assert found[:3] == ["dev", "dev-0-50pc", "dev-50pc-end"]
    assert found[-2:] == ["dev-0-50+dev2-50pc-end", "wmt14-full+mtnt1.1-test-0-5"]
    assert len(set(found)) == len(names)
    assert all(re.fullmatch(r"[\w.+-]+", name) for name in found)


# --- several splits joined -----------------------------------------------------------------------


WHOLE = {name: labelled(n, f"{name}.tsv", name) for name, n in (("a", 10), ("b", 7), ("c", 3))}
WHOLE["again"] = labelled(10, "a.tsv", "again")


def joined(split):
    return splits.read_split(split, WHOLE.__getitem__)


def test_several_splits_are_joined_one_after_the_other():
    found = joined("b+a[:4]+c")
    assert (found.split, found.file) == ("b+a+c", "b.tsv, a.tsv, c.tsv")
    assert found.label == WHOLE["b"].label + joined("a[:4]").label + WHOLE["c"].label
    assert list(found.line_N) == [int(label) + 1 for label in found.label]
    assert len(set(found.origin_N)) == len(found) == 14
    assert list(found.origin_N) == sorted(found.origin_N)
    assert [found.where(n) for n in (0, 7, 13)] == [
        "b.tsv:1",
        f"a.tsv:{int(found.label[7]) + 1}",
        "c.tsv:3",
    ]


def test_origins_are_those_of_the_whole_splits_joined():
    """So a part is found in the whole by its origins, and stays where it is."""
    whole, part = joined("a+b"), joined("a[50%:]+b[:3]")
    assert whole.split == part.split
    kept = np.isin(whole.origin_N, part.origin_N)
    assert tuple(np.array(whole.label)[kept]) == part.label


def test_slices_of_one_split_are_joined_to_a_slice_of_it():
    back = joined("a[5:]+a[:5]")
    assert (back.label, back.split) == (WHOLE["a"].label, "a")
    assert list(joined("a[:3]+a[3:6]").origin_N) == list(joined("a[:6]").origin_N)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True), st.data())
def test_what_joined_splits_have_in_common_is_what_their_parts_have(names, data):
    """In whatever order they are joined."""
    others = data.draw(st.permutations("abc"))[: data.draw(st.integers(1, 3))]
    sizes = {name: len(WHOLE[name]) for name in "abc"}
    first, second = (
        {name: data.draw(st.integers(1, sizes[name])) for name in chosen}
        for chosen in (names, others)
    )
    found = [
        joined("+".join(f"{name}[:{count}]" for name, count in counts.items()))
        for counts in (first, second)
    ]
    expected = sum(min(count, second.get(name, 0)) for name, count in first.items())
    assert splits.overlap(*found) == splits.overlap(*found[::-1]) == expected


def test_another_name_of_a_file_is_no_other_split():
    assert splits.overlap(joined("a+b"), joined("c+again[:4]")) == 4
    both = joined("again[4:]+c+a[:4]")
    assert splits.overlap(both, WHOLE["a"]) == 10


@pytest.mark.parametrize("split", ["a+a", "a[:5]+b+a[4:]", "a[:1]+again"])
def test_an_example_that_would_count_twice_is_refused(split):
    twice = 10 if split == "a+a" else 1
    with pytest.raises(ValueError, match=f"has {twice} examples of a.tsv twice"):
        joined(split)
