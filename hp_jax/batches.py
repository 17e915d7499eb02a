"""Batches of a data set that the core can take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from hp_jax.task import Array, Batch, Task


def make_batches(arrays: Mapping[str, Array], size: int) -> list[dict[str, np.ndarray]]:
    """A data set as batches of `size` examples, in order; the last is filled up with padding.

    arrays: `{name: [N, ...]}`.  Each batch has `[size, ...]` of them, and `weight_B` and `index_B`.
    ValueError for arrays of different lengths or a size that is not positive.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or size < 1:
        raise ValueError(
            f"expected arrays of one length and a positive size, but the lengths are {lengths} and "
            f"the size is {size}"
        )
    (count,) = set(lengths.values())
    made = []
    for start in range(0, count, size):
        index_B = np.minimum(np.arange(start, start + size), count - 1).astype(np.int32)
        weight_B = (np.arange(start, start + size) < count).astype(np.float32)
        batch = {name: np.asarray(array)[index_B] for name, array in arrays.items()}
        made.append(batch | {"weight_B": weight_B, "index_B": index_B})
    return made


def weighted(batches: Iterable[Batch], task: Task) -> list[Batch]:
    """The batches with `weight_B` (ones) where they lack it.

    ValueError if there is no real example, for batches of different arrays, for arrays of different
    lengths in a batch, for weights other than 0 and 1, and for what indexes no row of the task's
    tables.
    """
    made = list[Batch]()
    for number, batch in enumerate(batches):
        count = _examples(number, batch)
        whole: Batch = {"weight_B": np.ones(count, np.float32), **batch}
        if made and (differ := (set(whole) ^ set(made[0])) - {"index_B"}):
            raise ValueError(
                f"batch {number} has the arrays {', '.join(whole)}, but batch 0 has "
                f"{', '.join(made[0])} (different: {', '.join(sorted(differ))})"
            )
        weight_B = np.asarray(whole["weight_B"])
        if not np.isin(weight_B, (0, 1)).all():
            place = int(np.flatnonzero(~np.isin(weight_B, (0, 1)))[0])
            raise ValueError(
                f"weight_B of batch {number} is {weight_B[place]} at {place}, but 1 (a real "
                "example) or 0 (padding) was expected"
            )
        _check_ids(number, whole, task)
        made.append(whole)
    if not any(np.any(np.asarray(batch["weight_B"])) for batch in made):
        raise ValueError(
            "expected at least one batch with an example that is not padding, but there is none"
        )
    return made


def _examples(number: int, batch: Batch) -> int:
    """How many examples a batch has, padding included."""
    if not isinstance(batch, Mapping) or not batch:
        raise ValueError(
            f"batch {number} is {batch!r:.60}, but arrays by name were expected (for one batch, a "
            "list of it)"
        )
    shapes = {name: np.shape(array) for name, array in batch.items()}
    lengths = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(
            f"expected arrays of one length, that of the batch, but batch {number} has {shapes}"
        )
    return lengths.pop()


def _check_ids(number: int, batch: Batch, task: Task) -> None:
    """ValueError names what would look beyond a table of the model, if it says which it has: JAX
    takes another row instead."""
    for name, (rows, room) in getattr(task, "tables", {}).items():
        ids_BT = np.asarray(batch[name]) if name in batch else np.zeros((1, 0), int)
        wrong = np.argwhere((ids_BT < 0) | (ids_BT >= rows))
        if len(wrong):
            place = ", ".join(map(str, wrong[0]))
            raise ValueError(
                f"batch {number}: {name}[{place}] is {ids_BT[tuple(wrong[0])]}, but the model's "
                f"table has {rows} rows"
            )
        if room is not None and ids_BT.shape[-1] > room:
            raise ValueError(
                f"batch {number}: {name} has {ids_BT.shape[-1]} positions, but the model has {room}"
            )


def numbered(batches: Iterable[Batch], task: Task) -> list[Batch]:
    """The batches of a whole data set, with `weight_B` (ones) and `index_B` (as they come) where
    they lack them.

    ValueError if there is none, or if the real examples' `index_B` are not 0 to N - 1, once each.
    """
    begun, whole = 0, list[Batch]()
    for given in weighted(batches, task):
        batch = dict(given)
        if "index_B" not in batch:
            real_B = np.asarray(batch["weight_B"]) > 0
            places_B = begun + np.cumsum(real_B) - 1
            batch["index_B"] = np.where(real_B, places_B, 0).astype(np.int32)
        begun += int(np.sum(np.asarray(batch["weight_B"]) > 0))
        whole.append(batch)
    index_N = np.concatenate(
        [np.asarray(batch["index_B"])[np.asarray(batch["weight_B"]) > 0] for batch in whole]
    )
    if index_N.dtype.kind not in "iu":
        raise ValueError(f"index_B must be integers, but it is {index_N.dtype}")
    if not np.array_equal(np.sort(index_N), np.arange(len(index_N))):
        raise ValueError(
            f"index_B must number the {len(index_N)} examples of all batches from 0, once each, "
            f"but it runs from {index_N.min()} to {index_N.max()} with {len(np.unique(index_N))} "
            "different numbers"
        )
    return whole
