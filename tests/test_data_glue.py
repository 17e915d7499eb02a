"""GLUE's files are found and read under the names in which they are distributed; own tasks by what
the config says."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from hp_jax.config import Data
from hp_jax.data import glue, labelled, splits

REAL = Path(os.environ.get("HP_JAX_DATA", "/nonexistent"))

# As in the GLUE archive, two examples each.
FILES = {
    "sst2": {"train.tsv": "sentence\tlabel\nbad film \t0\ngood film \t1\n"},
    "cola": {"dev.tsv": "gj04\t0\t*\tBad is.\ngj04\t1\t\tThis is good.\n"},
    "mrpc": {
        "msr_paraphrase_test.txt": (
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tx\ty\n1\t3\t4\tu\tv\n"
        )
    },
    "mnli": {
        "dev_matched.tsv": (
            "id\tsentence1\tsentence2\tlabel1\tgold_label\n"
            "0\tx\ty\tneutral\tentailment\n"
            "1\tu\tv\t\tneutral\n"
        )
    },
    "rte": {
        "dev.tsv": (
            "index\tsentence1\tsentence2\tlabel\n0\tx\ty\tentailment\n1\tu\tv\tnot_entailment\n"
        )
    },
    "qnli": {
        "dev.tsv": (
            "index\tquestion\tsentence\tlabel\n0\tx\ty\tentailment\n1\tu\tv\tnot_entailment\n"
        )
    },
    "qqp": {
        "dev.tsv": (
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
            "0\t1\t2\tx\ty\t0\n"
            "1\tcut\n"
            "1\t3\t4\tu\tv\t1\n"
        )
    },
    "wnli": {"dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tx\ty\t0\n1\tu\tv\t1\n"},
}


def write(folder, files):
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8", newline="")


@pytest.mark.parametrize("task", glue.TASKS)
def test_files_as_distributed(tmp_path, task):
    write(tmp_path, FILES[task])
    data = Data(task=task, path=str(tmp_path))
    own = glue.spec(data)
    split = {"sst2": "train", "mrpc": "test"}.get(task, "validation")
    found = labelled.read(data, split)
    assert found.label == own.labels[:2]
    assert {len(texts) for texts in found.text} == {len(own.text)}
    if len(own.text) == 2:
        assert found.text == (("x", "y"), ("u", "v"))
    assert found.where(1).endswith(f"{next(iter(FILES[task]))}:{found.line_N[1]}")
    assert list(found.origin_N) == [0, 1]


def test_metrics_are_those_of_glue_unless_told():
    assert {task for task, own in glue.TASKS.items() if own.metric == "f1"} == {"mrpc", "qqp"}
    assert {task for task, own in glue.TASKS.items() if own.metric == "matthews"} == {"cola"}
    assert glue.spec(Data(task="mrpc", metric="accuracy")).metric == "accuracy"


def test_mnli_validation_is_matched_unless_a_file_says_otherwise(tmp_path):
    write(tmp_path, FILES["mnli"])
    assert (
        labelled.read(Data(task="mnli", path=str(tmp_path)), "validation[:1]").split
        == "validation_matched"
    )
    files = (("validation", "dev_matched.tsv"),)
    assert (
        labelled.read(Data(task="mnli", path=str(tmp_path), files=files), "validation").split
        == "validation"
    )


def test_examples_without_a_gold_label_are_dropped_and_counted(tmp_path, caplog):
    write(
        tmp_path,
        {
            "train.jsonl": '{"sentence1": "x", "sentence2": "y", "gold_label": "-"}\n'
            '{"sentence1": "u", "sentence2": "v", "gold_label": "neutral"}\n'
        },
    )
    found = labelled.read(Data(task="mnli", path=str(tmp_path)), "train")
    assert (found.text, list(found.line_N), list(found.origin_N)) == ((("u", "v"),), [2], [0])
    assert "without a gold label: 1" in caplog.text


def test_glue_train_file_goes_before_the_one_that_holds_the_dev_set_too(tmp_path):
    whole = FILES["mrpc"]["msr_paraphrase_test.txt"]
    write(
        tmp_path, {"msr_paraphrase_train.txt": whole, "train.tsv": whole.rsplit("\n", 2)[0] + "\n"}
    )
    assert len(labelled.read(Data(task="mrpc", path=str(tmp_path)), "train")) == 1


def test_a_task_of_ones_own(tmp_path):
    data = Data(
        task="mine",
        path=str(tmp_path),
        text=("q", "a"),
        label="ok",
        labels=("no", "yes"),
        metric="f1",
    )
    write(
        tmp_path,
        {
            "train.csv": 'q,a,ok\n"x, y",z,yes\nu,v,0\n',
            "held.jsonl": '{"q": "x", "a": "y", "ok": 1}\n',
        },
    )
    assert glue.spec(data).metric == "f1"
    assert labelled.read(data, "train").text == (("x, y", "z"), ("u", "v"))
    assert labelled.read(data, "train").label == ("yes", "no")
    assert labelled.read(data, "held").label == ("yes",)
    with pytest.raises(ValueError, match=r"no split 'test' in .*the splits are held, train"):
        labelled.read(data, "test")


def test_a_file_is_the_split_validation(tmp_path):
    write(tmp_path, {"some.tsv": "sentence\tlabel\nx\t1\ny\t0\nz\t1\n", "some.csv": ""})
    data = Data(path=str(tmp_path / "some.tsv"))
    assert labelled.read(data, "validation").label == ("positive", "negative", "positive")
    assert len(labelled.read(data, "validation[:2]")) == 2
    with pytest.raises(ValueError, match=r"some.tsv, which is the split validation .*--data.files"):
        labelled.read(data, "train[:2]")
    files = (("train", "some.tsv"),)
    assert len(labelled.read(Data(path=str(tmp_path), files=files), "train")) == 3
    with pytest.raises(ValueError, match="but the folder with the files of"):
        labelled.read(Data(path=data.path, files=files), "train")


PAIR = ("x", "y")


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ("text label", ("x",)),
        ("id text labels", ("x",)),
        ("label sentence", ("x",)),
        ("sentence1 sentence2 label", PAIR),
        ("premise hypothesis label", PAIR),
        ("question1 question2 label", PAIR),
        ("question sentence label", PAIR),
        ("text sentence label", r"which column has the text \(text or sentence\?\): .*--data.text"),
        ("body label", "cannot tell which column has the text: .*the columns are body, label"),
        ("sentence1 label", "cannot tell which column has the text"),
        ("text class", "cannot tell which column has the label: name it with --data.label"),
        ("text label labels", r"label \(label or labels\?\)"),
        ("text label text", "expected one column 'text', but there are several"),
    ],
)
@pytest.mark.parametrize("extension", ["tsv", "csv", "jsonl"])
def test_columns_are_found_by_their_usual_names(tmp_path, caplog, columns, text, extension):
    names, values = columns.split(), []
    for name in names:
        mine = {"label": "up", "labels": "up", "class": "up", "id": "7"}
        values.append(mine.get(name, "y" if "x" in values else "x"))
    if extension == "jsonl":
        if len(set(names)) < len(names):
            return
        content = json.dumps(dict(zip(names, values, strict=True))) + "\n"
    else:
        mark = {"tsv": "\t", "csv": ","}[extension]
        content = f"{mark.join(names)}\n{mark.join(values)}\n"
    write(tmp_path, {f"validation.{extension}": content})
    data = Data(task="mine", path=str(tmp_path), labels=("up", "down"))
    caplog.set_level("INFO", "hp_jax")
    if isinstance(text, str):
        with pytest.raises(ValueError, match=rf"validation\.{extension}:1: .*{text}"):
            labelled.read(data, "validation")
    else:
        found = labelled.read(data, "validation")
        assert (found.text, found.label) == ((text,), ("up",))
        assert f"the text is {names[values.index('x')]!r}" in caplog.text


def test_labels_are_found_in_the_file_that_a_model_is_trained_on(tmp_path):
    write(
        tmp_path,
        {
            "train.csv": "text,label\n" + "".join(f"x,{n % 11}\n" for n in range(40)),
            "names.csv": "text,label\nx,sad\ny,glad\nz,sad\n",
            "scores.csv": "text,label\nx,0.25\ny,0.5\nz,0.75\n",
            "one.csv": "text,label\nx,1\ny,1\nz,1\n",
        },
    )
    data = Data(task="mine", path=str(tmp_path))
    assert labelled.labels_in(data, "train[:50%]") == tuple(map(str, range(11)))
    assert labelled.labels_in(data, "names") == ("glad", "sad")
    for split in ("scores", "one"):
        with pytest.raises(ValueError, match=r"expected labels, .* name the labels with --data.la"):
            labelled.labels_in(data, split)


@pytest.mark.parametrize("labels", [(), ("positive", "negative")])
def test_numbers_in_glues_files_mean_its_labels_in_whatever_order_a_model_has_them(
    tmp_path, labels
):
    write(tmp_path, FILES["sst2"])
    data = Data(path=str(tmp_path), labels=labels)
    assert labelled.read(data, "train").label == ("negative", "positive")


def test_the_config_overrides_the_table(tmp_path):
    write(tmp_path, {"train.tsv": "body\tmood\nx\tup\n"})
    data = Data(
        task="sst2", path=str(tmp_path), text=("body",), label="mood", labels=("up", "down")
    )
    assert labelled.read(data, "train").label == ("up",)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (Data(task="SST-2"), "there is no task 'SST-2' in GLUE: expected 'sst2'"),
        (
            Data(task="mine", text=("a", "b", "c"), labels=("x", "y")),
            "one or two text columns, but there are 3",
        ),
        (Data(task="mine", text=("a",), labels=("x",)), "at least two labels"),
        (Data(labels=("x", "x")), "all different"),
        (Data(labels=("Good", "good")), "all different .not by case alone"),
    ],
)
def test_faults_of_the_config_are_named(data, says):
    with pytest.raises(ValueError, match=says):
        glue.spec(data)


def test_faults_of_files_are_named(tmp_path):
    data = Data(path=str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"no file for the split 'train' of sst2: looked for train\.tsv"
    ):
        labelled.read(data, "train")
    with pytest.raises(ValueError, match=r"no split 'foo' .*the splits are train, validation"):
        labelled.read(data, "foo")
    with pytest.raises(FileNotFoundError, match=r"no folder or file .*absent"):
        labelled.read(Data(path=str(tmp_path / "absent")), "train")
    write(tmp_path, {"train.tsv": "sentence\tlabel\nx\t1\ny\tfine\n"})
    with pytest.raises(
        ValueError, match=r"train\.tsv:3: 'fine' is not a label; the labels are negative, positive"
    ):
        labelled.read(data, "train")


@pytest.mark.skipif(
    not REAL.is_dir(), reason="HP_JAX_DATA does not name a folder with the public data sets"
)
@pytest.mark.parametrize(
    ("task", "split", "count"),
    [
        ("sst2", "train", {"positive": 37569, "negative": 29780}),
        ("sst2", "validation", {"positive": 444, "negative": 428}),
        ("cola", "train", {"acceptable": 6023, "unacceptable": 2528}),
        ("cola", "validation", {"acceptable": 365, "unacceptable": 162}),
        ("cola", "validation_out_of_domain", {"acceptable": 354, "unacceptable": 162}),
        ("mrpc", "train", {"equivalent": 2753, "not_equivalent": 1323}),
        ("mrpc", "test", {"equivalent": 1147, "not_equivalent": 578}),
        ("mnli", "train", {"contradiction": 3394, "neutral": 3367, "entailment": 3239}),
        ("mnli", "validation", {"contradiction": 3213, "neutral": 3123, "entailment": 3479}),
    ],
)
def test_the_real_files(task, split, count):
    files = (("train", "train_10k.tsv"),) if task == "mnli" else ()
    data = Data(task=task, path=str(REAL / task), files=files)
    found = labelled.read(data, split)
    assert Counter(found.label) == count
    assert not any(
        "\t" in part or "\ufeff" in part or not part.strip()
        for texts in found.text
        for part in texts
    )
    halves = [labelled.read(data, f"{split}[{half}]") for half in (":50%", "50%:")]
    assert sum(map(len, halves)) == len(found)
    assert splits.overlap(*halves) == 0
