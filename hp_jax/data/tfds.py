"""Text from tensorflow-datasets, without TensorFlow: prepared folders in array_record form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from hp_jax.data.columns import Columns, FindColumns
from hp_jax.data.tables import Table


def read_table(path: str, name: str, split: str, columns: Columns | FindColumns) -> Table:
    """Some columns of a split, as text, as for files (`tables.read_table`); of class labels the
    names.

    path: a prepared folder (.../glue/sst2/2.0.0) or a data_dir: there the newest prepared version
    of
        the dataset `name` is read; if there is none, a GLUE task is downloaded and prepared.

    In stored order; lines count records from 1.  ValueError for a split or column that is not there
    and for a split without records; RuntimeError where it cannot be prepared.
    """
    builder, folder = _open(path, name, split)
    features = builder.info.features
    wanted = columns(list(features), str(folder)) if callable(columns) else columns
    found = [_column(names, features, folder) for names in wanted]
    classes = [getattr(features[column], "names", None) for column in found]
    rows = tuple(
        tuple(_string(record[column], of) for column, of in zip(found, classes, strict=True))
        for record in _records(builder, split)
    )
    if not rows:
        raise ValueError(f"{folder}/{split}: expected examples, but the split has none")
    return Table(f"{folder}/{split}", rows, tuple(range(1, len(rows) + 1)))


def _open(path: str, name: str, split: str) -> tuple[Any, Any]:
    """The builder of the dataset `name` that is, or will be, prepared in `path` and has this split;
    its folder."""
    import tensorflow_datasets

    data_dir = tensorflow_datasets.core.Path(path).expanduser()
    folder = _prepared(data_dir, name) or _prepare(data_dir, name)
    builder = tensorflow_datasets.builder_from_directory(folder)
    if split not in builder.info.splits:
        raise ValueError(
            f"{folder} has no split {split!r}; the splits are "
            f"{', '.join(sorted(builder.info.splits))}"
        )
    return builder, folder


def _prepared(path: Any, builder: str) -> Any | None:
    """The prepared folder that `path` is or, in its newest version, contains."""
    for folder in (path, path / builder):
        if (folder / "dataset_info.json").is_file():
            return folder
        versions = [
            child.parent
            for child in folder.glob("*/dataset_info.json")
            if re.fullmatch(r"\d+(\.\d+)*", child.parent.name)
        ]
        if versions:
            return max(
                versions, key=lambda version: [int(number) for number in version.name.split(".")]
            )
    return None


def _prepare(data_dir: Any, builder: str) -> Any:
    """Download a GLUE task and prepare it in `data_dir`; the folder.

    The builder class is taken from its own module: to look it up by name, tensorflow-datasets would
    want TensorFlow.
    """
    collection, _, config = builder.rpartition("/")
    if collection != "glue":
        raise ValueError(
            f"{data_dir}: expected a prepared folder, or a data_dir that contains "
            f"{builder}/<version>, but found neither"
        )
    try:
        from tensorflow_datasets.text import glue

        made = glue.Glue(config=config, data_dir=data_dir, file_format="array_record")
        made.download_and_prepare()
    except Exception as error:
        cause = (str(error).splitlines() or [""])[0]
        raise RuntimeError(
            f"tensorflow-datasets could not prepare {builder} in {data_dir} "
            f"({type(error).__name__}: {cause}): it needs the "
            "network and the package importlib_resources, in some versions also tensorflow; "
            'install these for once, or prepare it with file_format="array_record" on another '
            "machine and copy the folder, or use --data.format files"
        ) from error
    return made.data_dir


def _column(names: Sequence[str], features: Any, folder: Any) -> str:
    for name in names:
        if name in features:
            return name
    raise ValueError(
        f"{folder} has no column {' or '.join(map(repr, names))}; the columns are "
        f"{', '.join(features)}"
    )


def _records(builder: Any, split: str, chunk: int = 1024) -> Any:
    """The records of a split in stored order, read `chunk` at a time."""
    try:
        records = builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise ValueError(
            f"{builder.data_path}: expected a folder in array_record form, which is read without "
            f"TensorFlow, but found {builder.info.file_format.value}; prepare it with "
            'file_format="array_record"'
        ) from error
    for start in range(0, len(records), chunk):
        yield from records.__getitems__(range(start, min(start + chunk, len(records))))


def _string(value: Any, classes: Sequence[str] | None) -> str:
    """Text as it is; the name of a class index, but -1, which stands for a hidden label, as it
    is."""
    is_index = isinstance(value, int | np.integer) and classes is not None
    if is_index and 0 <= value < len(classes or ()):
        return (classes or ())[value]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
