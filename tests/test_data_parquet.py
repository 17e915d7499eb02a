"""Parquet files as hubs ship them (GLUE's of nyu-mll/glue) and of one's own are read as other files
are."""

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from tiny_glue import TEXT, write_glue, write_parquet

from hp_jax.config import Data
from hp_jax.data import glue, labelled
from hp_jax.data.labelled import labels_in


@pytest.mark.parametrize("task", glue.TASKS)
@pytest.mark.parametrize("inside", [False, True])
def test_glue_as_hubs_ship_it(tmp_path, task, inside):
    """From the repository's root and from the task's folder."""
    split = "validation_matched" if task == "mnli" else "validation"
    write_glue(tmp_path, task, split, [1, 0, 1])
    data = Data(task=task, path=str(tmp_path / task if inside else tmp_path))
    found = labelled.read(data, "validation")
    first, second = glue.spec(data).labels[:2]
    assert found.label == (second, first, second)
    assert found.text == tuple(tuple(f"{name} {i}" for name in TEXT[task]) for i in range(3))
    assert found.where(1) == f"{tmp_path}/{task}/{split}-00000-of-00001.parquet:2"
    assert found.split == split


def test_several_files_are_one_split_in_order(tmp_path):
    for number, (first, labels) in enumerate([(0, [0, 1]), (2, [1]), (3, [0, 0])]):
        write_glue(tmp_path, "sst2", "train", labels, f"{number:05}-of-00003", first)
    found = labelled.read(Data(task="sst2", path=str(tmp_path)), "train")
    assert found.text == tuple((f"sentence {i}",) for i in range(5))
    assert [glue.TASKS["sst2"].labels.index(label) for label in found.label] == [0, 1, 1, 0, 0]
    assert found.where(3) == f"{tmp_path}/sst2/train-*-of-00003.parquet:4"
    (tmp_path / "sst2/train-00001-of-00003.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="the split 'train' in 3 files, numbered from 0"):
        labelled.read(Data(task="sst2", path=str(tmp_path)), "train")


def test_hidden_labels_are_dropped_and_a_test_set_of_them_refused(tmp_path, caplog):
    write_glue(tmp_path, "cola", "test", [-1, -1])
    write_glue(tmp_path, "cola", "validation", [1, -1, 0])
    data = Data(task="cola", path=str(tmp_path))
    found = labelled.read(data, "validation")
    assert (found.label, list(found.line_N)) == (("acceptable", "unacceptable"), [1, 3])
    assert "without a gold label: 1" in caplog.text
    with pytest.raises(ValueError, match=r"test-00000-of-00001\.parquet: .* gold label, but the"):
        labelled.read(data, "test")


def test_what_is_named_or_distributed_otherwise_goes_before(tmp_path):
    write_glue(tmp_path, "sst2", "train", [0])
    (tmp_path / "sst2/train.tsv").write_text("sentence\tlabel\nx\t1\ny\t1\n")
    assert len(labelled.read(Data(task="sst2", path=str(tmp_path)), "train")) == 2
    files = (("train", "sst2/train-00000-of-00001.parquet"),)
    assert len(labelled.read(Data(task="sst2", path=str(tmp_path), files=files), "train")) == 1


OWN = {"text": ["a", "b", "c"], "label": ["no", "yes", "no"]}


@pytest.mark.parametrize(
    ("label", "types", "names"),
    [
        (["no", "yes", "no"], {}, None),
        (["no", "yes", "no"], {"label": pyarrow.large_string(), "text": pyarrow.string_view()}, ()),
        ([0, 1, 0], {"label": pyarrow.int8()}, None),
        ([False, True, False], {}, None),
        ([1, 0, 1], {}, ("yes", "no")),
    ],
    ids=["names", "other types of text", "numbers", "booleans", "names in the schema"],
)
def test_ones_own_file(tmp_path, label, types, names):
    path = tmp_path / "mine.parquet"
    write_parquet(path, OWN | {"label": label}, names, **types)
    data = Data(task="own", path=str(path), labels=("no", "yes"))
    found = labelled.read(data, "validation")
    assert (found.text, found.label) == ((("a",), ("b",), ("c",)), ("no", "yes", "no"))
    assert list(found.origin_N) == [0, 1, 2]


def test_a_categorical_column_is_text(tmp_path):
    table = pyarrow.table({"text": OWN["text"], "label": pyarrow.array(OWN["label"])})
    table = table.set_column(1, "label", table["label"].dictionary_encode())
    parquet.write_table(table, tmp_path / "train.parquet")
    data = Data(task="own", path=str(tmp_path))
    assert labels_in(data, "train") == ("no", "yes")
    assert labelled.read(Data(task="own", path=str(tmp_path), labels=("no", "yes")), "train").label


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"body": ["a"], "label": [1]}, "cannot tell which column has the text"),
        ({"text": ["a"]}, "cannot tell which column has the label"),
        ({"text": ["a"], "label": [0.5]}, "integers in the column 'label', but found double"),
        ({"text": [["a"]], "label": [1]}, r"in the column 'text', but found list<"),
        ({"text": ["a", None], "label": [1, 0]}, "mine.parquet:2: column 'text': expected a str"),
        ({"text": ["a"], "label": [7]}, r"mine.parquet:1: '7' is not a label"),
        ({"text": [], "label": []}, "column 'text', but found null"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path, columns, sentence):
    write_parquet(tmp_path / "mine.parquet", columns)
    data = Data(task="own", path=str(tmp_path / "mine.parquet"), labels=("no", "yes"))
    with pytest.raises(ValueError, match=sentence):
        labelled.read(data, "validation")


def test_a_file_without_examples_is_refused(tmp_path):
    write_parquet(
        tmp_path / "train.parquet", {"text": [], "label": []}, text="string", label="int8"
    )
    with pytest.raises(ValueError, match=r"train\.parquet: expected examples, but the file has no"):
        labelled.read(Data(task="own", path=str(tmp_path), labels=("no", "yes")), "train")


def test_a_file_that_is_not_whole_is_one_sentence(tmp_path):
    """Wherever it ends, and whatever a byte of it became."""
    path = tmp_path / "mine.parquet"
    write_parquet(path, {"text": ["good"] * 50, "label": [0, 1] * 25}, ("no", "yes"))
    whole, random = path.read_bytes(), np.random.default_rng(0)

    def said():
        """What the error says; nothing if there is none."""
        try:
            labelled.read(Data(task="own", path=str(path), labels=("no", "yes")), "validation")
        except ValueError as error:
            return str(error)
        return ""

    for cut in (0, 3, 4, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert f"{path}: expected a whole parquet file, but: " in said()
        assert "\n" not in said()
    errors = set()
    for place in random.integers(0, len(whole), 60):
        path.write_bytes(whole[:place] + bytes([random.integers(256)]) + whole[place + 1 :])
        errors.add(said())
    assert len(errors) > 5
    assert all(str(path) in error and "\n" not in error for error in errors - {""})


def test_splits_are_named_without_their_numbers(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00001.parquet", OWN)
    with pytest.raises(ValueError, match=r"no split 'test' in .*; the splits are train$"):
        labelled.read(Data(task="own", path=str(tmp_path)), "test")
    with pytest.raises(FileNotFoundError, match=r"dev\.tsv, .*validation-00000-of-N\.parquet"):
        labelled.read(Data(task="sst2", path=str(tmp_path)), "validation")
