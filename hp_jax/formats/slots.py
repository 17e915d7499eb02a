"""Where the tensors of another library's file go, and what is said of those that do not fit."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax.sharding import Mesh

from hp_jax.sharding import place_param
from hp_jax.task import Params

log = logging.getLogger("hp_jax")

Tensors = dict[str, tuple[str, np.ndarray]]
"""Of each tensor, by the name that slots know it by: its name in the file, and itself."""


@dataclasses.dataclass(frozen=True)
class Slot:
    """A parameter's path here, and its name and shape in the file."""

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]


def named(tensors: Mapping[str, np.ndarray]) -> Tensors:
    """Tensors that slots know by their names in the file."""
    return {name: (name, tensor) for name, tensor in tensors.items()}


def renamed(tensors: Mapping[str, np.ndarray], short: Callable[[str], str], file: Path) -> Tensors:
    """Tensors that slots know by other names, such as those without a prefix; ValueError if two
    become one."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        known = short(name)
        if known in found:
            raise ValueError(f"{file}: {found[known][0]} and {name} are one tensor, {known}")
        found[known] = name, tensor
    return found


def unite(tensors: Tensors, names: Sequence[str], file: Path) -> None:
    """One tensor under the first of `names`, in place of equal ones under any of them; ValueError
    if two differ."""
    found = [tensors.pop(name) for name in names if name in tensors]
    for name, tensor in found[1:]:
        if not np.array_equal(tensor, found[0][1]):
            raise ValueError(
                f"{file}: {found[0][0]} and {name} should be one tensor, but they differ"
            )
    if found:
        tensors[names[0]] = found[0]


def check_values(name: str, tensor: np.ndarray, file: Path) -> None:
    """ValueError for a tensor that is not of finite float32, float16, bfloat16 or float64
    numbers."""
    if tensor.dtype not in (np.float32, np.float16, np.float64, ml_dtypes.bfloat16):
        raise ValueError(
            f"{file}: tensor {name} has numbers of type {tensor.dtype}, but float32, float16, "
            "bfloat16 or float64 was expected"
        )
    with np.errstate(over="ignore"):
        wrong = int(np.sum(~np.isfinite(tensor.astype(np.float32, copy=False))))
    if wrong:
        raise ValueError(
            f"{file}: tensor {name} has {wrong} numbers that are not finite in float32"
        )


def check_layers(names: Iterable[str], pattern: str, layers: int, file: Path, said: str) -> None:
    """ValueError if a file has fewer layers than `said` says, before anything is built of them.

    pattern: its first group is the number of a layer, counted from 0, in the name of a tensor.
    """
    found = {int(match[1]) for match in (re.match(pattern, name) for name in names) if match}
    if layers > len(found):
        raise ValueError(f"{file} has tensors of {len(found)} layers, but {said} says {layers}")


def assign(
    params: dict[str, Any],
    slots: Iterable[Slot],
    tensors: Tensors,
    file: Path,
    *,
    settings: str,
    transposed: bool = True,
    mesh: Mesh | None = None,
) -> None:
    """Moves the tensor of every slot from `tensors` into `params`, both in place, as float32 in the
    shape of what is there, one after another: a tensor that is a file's memory map is read then.

    transposed: kernels are `[outputs, inputs]` in the file.
    settings: where the file's shapes are said, for the message.
    mesh: the devices among which parameters are split; None: they are whole.

    ValueError names a tensor that is missing or has another shape.
    """
    for slot in slots:
        name, tensor = take(tensors, slot, file, settings)
        check_values(name, tensor, file)
        *modules, leaf = slot.path
        at = params
        for module in modules:
            at = at[module]
        tensor = tensor.T if leaf == "kernel" and transposed else tensor
        array = np.array(tensor.reshape(at[leaf].shape), np.float32, order="C")
        at[leaf] = place_param(array, mesh, slot.path) if mesh else jax.numpy.asarray(array)


def take(tensors: Tensors, slot: Slot, file: Path, settings: str) -> tuple[str, np.ndarray]:
    """A slot's tensor, which is then no longer in `tensors`, and its name in the file; errors as of
    `assign`."""
    if slot.name not in tensors:
        raise ValueError(f"{file} has no tensor {slot.name}, expected with shape {slot.shape}")
    name, tensor = tensors.pop(slot.name)
    if tensor.shape != slot.shape:
        raise ValueError(
            f"{file}: tensor {name} has shape {tensor.shape}, but {settings} implies {slot.shape}"
        )
    return name, tensor


def collect(
    params: Params, slots: Iterable[Slot], *, transposed: bool = True
) -> dict[str, np.ndarray]:
    """The inverse of `assign`: the parameter of every slot, under its name in the file and in its
    shape there.

    Float32, C-contiguous; transposed as in `assign`.
    """
    tensors = {}
    for slot in slots:
        leaf = params
        for part in slot.path:
            leaf = leaf[part]
        array = np.asarray(leaf, np.float32)
        if slot.path[-1] == "kernel" and transposed:
            array = array.reshape(slot.shape[::-1]).T
        tensors[slot.name] = np.ascontiguousarray(array.reshape(slot.shape))
    return tensors


def check_rest(tensors: Tensors, ignored: Iterable[str], model: str, file: Path) -> None:
    """Names in the log the tensors that nothing took; ValueError if one matches none of the
    patterns `ignored`.

    model: what has no place for it, for the message.
    """
    skipped = {
        known for known in tensors if any(re.fullmatch(pattern, known) for pattern in ignored)
    }
    unknown = [name for known, (name, _) in sorted(tensors.items()) if known not in skipped]
    if unknown:
        raise ValueError(
            f"{file} has {len(unknown)} tensors with no place in {model}, e.g. {unknown[0]}"
        )
    if skipped:
        log.info("%s: ignored %s", file, ", ".join(tensors[known][0] for known in sorted(skipped)))
