"""GLUE in tiny, in the files in which it is distributed: the archives' text, and hubs' parquet."""

import json

import pyarrow
from pyarrow import parquet
from tiny import WORDS

from hp_jax.data import glue

TEXT = {"sst2": ("sentence",), "cola": ("sentence",), "mnli": ("premise", "hypothesis")}
TEXT |= {"mrpc": ("sentence1", "sentence2"), "rte": ("sentence1", "sentence2")}
TEXT |= {"qqp": ("question1", "question2"), "qnli": ("question", "sentence")}
TEXT |= {"wnli": ("sentence1", "sentence2")}
"""The text columns of hubs' files."""


def write_parquet(path, columns, names=None, **types):
    """A file as the library `datasets` writes it; `names` of the label go into the schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {name: {"dtype": "string", "_type": "Value"} for name in columns}
    if names:
        features["label"] = {"names": list(names), "_type": "ClassLabel"}
    said = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    arrays = {name: pyarrow.array(values, types.get(name)) for name, values in columns.items()}
    parquet.write_table(pyarrow.table(arrays).replace_schema_metadata(said), path)


def write_glue(folder, task, split, labels, shard="00000-of-00001", first=0):
    """A file of the repository nyu-mll/glue: texts `sentence 0`, `sentence 1`, ..."""
    places = range(first, first + len(labels))
    columns = {name: [f"{name} {i}" for i in places] for name in TEXT[task]}
    columns |= {"label": labels, "idx": list(places)}
    path = folder / task / f"{split}-{shard}.parquet"
    names = glue.TASKS[task].labels
    write_parquet(path, columns, names, label=pyarrow.int64(), idx=pyarrow.int32())


HEADERS = {
    "sst2": "sentence\tlabel\n",
    "cola": "",
    "mrpc": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n",
    "mnli": "index\tsentence1\tsentence2\tlabel1\tgold_label\n",
}
LINES = {
    "sst2": "{0} \t{label}\n",
    "cola": "gj04\t{label}\t\t{0}\n",
    "mrpc": "{label}\t1\t2\t{0}\t{1}\n",
    "mnli": "{n}\t{0}\t{1}\tneutral\t{name}\n",
}


def write_text(path, task, count):
    """A file of GLUE's archive, or of a corpus that it is made of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = glue.TASKS[task].labels
    lines = [HEADERS[task]]
    for n in range(count):
        label = n * 7 % len(names)
        texts = [f"the film is {WORDS[(n + i) % len(WORDS)]}" for i in (label, 3)]
        lines.append(LINES[task].format(*texts, n=n, label=label, name=names[label]))
    path.write_text("".join(lines), encoding="utf-8")
