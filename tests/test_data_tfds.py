"""Prepared tensorflow-datasets folders are read without TensorFlow, and give what files give."""

import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds

from hp_jax.config import Data
from hp_jax.data import labelled, splits

PAIRS = [("élan", "x"), ("", "two\nlines"), ("p", "q"), ("u", "v")]
LABELS = ["not_equivalent", "equivalent"]


class Glue(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """MRPC in small: a builder that does not need TensorFlow."""

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="mrpc", version="2.0.0")]

    def _info(self):
        label = tfds.features.ClassLabel(names=LABELS)
        columns = {
            "sentence1": tfds.features.Text(),
            "sentence2": tfds.features.Text(),
            "label": label,
            "idx": np.int32,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(columns))

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(4, [0, 1]),
            "test": self._generate_examples(2, [-1]),
        }

    def _generate_examples(self, n, labels):
        for i, (first, second) in enumerate(PAIRS[:n]):
            yield (
                i,
                {
                    "sentence1": first,
                    "sentence2": second,
                    "label": labels[i % len(labels)],
                    "idx": i,
                },
            )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    Glue(config="mrpc", data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def read(path, split="train", **settings):
    return labelled.read(Data(task="mrpc", path=str(path), format="tfds", **settings), split)


def test_a_prepared_folder_gives_all_examples(data_dir):
    found = read(data_dir / "glue" / "mrpc" / "2.0.0")
    assert sorted(zip(found.text, found.label, strict=True)) == sorted(
        zip(PAIRS, LABELS * 2, strict=True)
    )
    assert found.where(3).endswith("mrpc/2.0.0/train:4")
    assert list(found.origin_N) == [0, 1, 2, 3]
    assert read(data_dir).text == found.text


def test_slices_are_those_of_files(data_dir):
    halves = [read(data_dir, "train[:50%]"), read(data_dir, "train[50%:]")]
    assert [len(half) for half in halves] == [2, 2]
    assert splits.overlap(*halves) == 0


def test_the_newest_version_is_read(data_dir, tmp_path):
    for version in ("2.0.0", "10.0.0", "9.1.0", "incomplete.X_11.0.0"):
        folder = tmp_path / "glue" / "mrpc" / version
        folder.mkdir(parents=True)
        for file in (data_dir / "glue" / "mrpc" / "2.0.0").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    assert "/10.0.0/" in read(tmp_path).file


def test_a_set_that_is_not_in_glue_is_read_by_its_columns(data_dir):
    folder = data_dir / "glue" / "mrpc" / "2.0.0"
    data = Data(
        task="mine", path=str(folder), format="tfds", text=("sentence2",), labels=tuple(LABELS)
    )
    assert sorted(labelled.read(data, "train").text) == sorted((second,) for _, second in PAIRS)


def test_faults_are_named(data_dir, tmp_path):
    with pytest.raises(ValueError, match=r"no split 'foo'; the splits are test, train"):
        read(data_dir, "foo")
    with pytest.raises(ValueError, match=r"no column 'premise'; the columns are "):
        read(data_dir, text=("premise",))
    with pytest.raises(
        ValueError, match=r"train:\d: '(not_)?equivalent' is not a label; the labels are a, b"
    ):
        read(data_dir, labels=("a", "b"))
    with pytest.raises(ValueError, match=r"test: expected examples with a gold label"):
        read(data_dir, "test")
    with pytest.raises(
        ValueError, match=r"expected a prepared folder, or a data_dir that contains mine/<version>"
    ):
        labelled.read(
            Data(task="mine", path=str(tmp_path), format="tfds", text=("a",), labels=("x", "y")),
            "train",
        )


def test_a_folder_in_another_form_is_refused(data_dir, tmp_path):
    for file in (data_dir / "glue" / "mrpc" / "2.0.0").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes().replace(b"array_record", b"tfrecord"))
    with pytest.raises(ValueError, match=r"expected a folder in array_record form.*found tfrecord"):
        read(tmp_path)


def test_what_cannot_be_prepared_says_what_to_do(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network\nat all")

    monkeypatch.setattr(tfds.core.download.DownloadManager, "download", offline)
    with pytest.raises(
        RuntimeError,
        match=r"could not prepare glue/mrpc in .*copy the folder, or use --data.format files$",
    ):
        read(tmp_path)


def test_a_glue_task_is_prepared_without_tensorflow(tmp_path, monkeypatch):
    (tmp_path / "RTE").mkdir()
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        (tmp_path / "RTE" / name).write_text(
            'index\tsentence1\tsentence2\tlabel\n0\ta "b\tc\tentailment\n'
        )
    monkeypatch.setattr(
        tfds.core.download.DownloadManager, "download_and_extract", lambda self, url: tmp_path
    )
    found = labelled.read(Data(task="rte", path=str(tmp_path), format="tfds"), "validation")
    assert (found.text, found.label) == ((('a "b', "c"),), ("entailment",))


def test_tensorflow_is_not_imported(data_dir):
    code = (
        "import sys; from hp_jax.config import Data; from hp_jax.data import labelled;"
        "assert 'tensorflow_datasets' not in sys.modules;"
        f"assert len(labelled.read(Data(task='mrpc', path={str(data_dir)!r}, format='tfds'), "
        "'train')) == 4;"
        "assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
