"""A model made smaller on disk: which heads go, by name, by a mask or within a budget; and what
that saves."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hp_jax import heads
from hp_jax.descriptors import format_descriptor, parse_descriptor
from hp_jax.formats.model import Model, load_model
from hp_jax.mask_files import file_masks
from hp_jax.removal import remove_heads
from hp_jax.shrink import costs
from hp_jax.shrink.budget import Cost, Solution, read_latency, share_of, show, solve
from hp_jax.shrink.orders import read_order
from hp_jax.storage.files import local, new_folder


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much of a model to keep, under an order in which its heads go."""

    order: str
    """See `hp_jax.shrink.orders.read_order`."""
    of: str
    """heads, parameters, flops, cache or latency."""
    most: float
    """At most so much of it; up to 1 a share of what the model has."""
    floor: int = 0
    """Heads that every row keeps."""
    multiple: int = 1
    """Every row keeps a multiple of so many heads, or groups."""
    groups: bool = False
    """Query heads that share keys and values go together."""
    table: str = ""
    """For latency, the speed.json of `hp-jax speed`."""
    batch: int = 1
    """For latency, examples a batch in that table."""


def named_heads(model: Model, text: str) -> np.ndarray:
    """The mask `[A, H]` without the heads that `text` names (`hp_jax.descriptors`), by the numbers
    that they had at first."""
    present_AH, rows = model.task.present_AH, model.task.rows
    return np.asarray(heads.remove(present_AH, parse_descriptor(text, rows), rows))


def mask_of_file(model: Model, path: str) -> np.ndarray:
    """The one mask `[A, H]` of a .npy file or of a text file (`hp_jax.mask_files.file_masks`)."""
    masks = file_masks(local(path, "--mask"), model.task.present_AH, model.task.rows)
    if len(masks) != 1:
        raise ValueError(f"{path} has {len(masks)} masks, but one was expected")
    return np.asarray(masks[0][1])


def within_budget(model: Model, budget: Budget, length: int) -> Solution:
    """The heads that a budget keeps; FLOPs and latency are those of examples of `length` tokens."""
    task = model.task
    measures = costs.measures(task, model.params, length)
    known: dict[str, Cost] = dict(measures)
    if budget.table:
        known["milliseconds"] = read_latency(
            local(budget.table, "--table"), measures["flops"], batch=budget.batch, length=length
        )
    of = "milliseconds" if budget.of == "latency" else budget.of
    if of == "milliseconds" and not budget.table:
        raise ValueError("a budget of latency needs a table of `hp-jax speed`, but none was given")
    if of not in known:
        raise ValueError(f"a budget of {of} is for models that generate text, but this does not")
    order = read_order(budget.order, task.present_AH, task.rows, model=model.digest)
    most = share_of(known[of], budget.most) if budget.most <= 1 else budget.most
    return solve(
        order,
        task.present_AH,
        known,
        of,
        most,
        floor=budget.floor,
        multiple=budget.multiple,
        group_AH=costs.group_numbers(task.config) if budget.groups else None,
    )


def without_heads(model: Model, mask_AH: np.ndarray) -> Model:
    """The model with the heads of `mask_AH` alone."""
    config, params = remove_heads(model.config, model.params, mask_AH)
    return dataclasses.replace(model, config=config, params=params)


def remove(
    name: str,
    folder: Path,
    *,
    off: str = "",
    mask: str = "",
    budget: Budget | None = None,
    length: int = 128,
    force: bool = False,
) -> str:
    """Writes the model `name` without some heads as a model folder of hp_jax; a table of what that
    saves.

    off: their names; mask: a file with what stays; or a budget.  ValueError if nothing would be
    left, or if there is something in `folder` already (unless `force`).
    """
    with new_folder(folder, force=force) as new:
        model = load_model(name)
        small, solution = _smaller(model, name, off, mask, budget, length)
        before, after = (_amounts(one, length) for one in (model, small))
        gone = heads.removed(
            small.task.present_AH,
            heads.all_on(len(model.config.rows), [*model.config.rows.values()]),
            model.task.rows,
        )
        about: dict[str, Any] = {
            "removed from": name,
            "version of hp_jax": importlib.metadata.version("hp_jax"),
            "heads removed": gone,
            "before": before,
            "after": after,
            "budget": budget and dataclasses.asdict(budget),
        }
        small.save(new, about)
    lines = [f"{'':<36}{'before':>12}{'after':>12}"]
    for what, amount in before.items():
        lines.append(
            f"{what:<36}{show(amount):>12}{show(after[what]):>12}{after[what] / amount:>9.1%}"
        )
    counts = ", ".join(f"{row} {count}" for row, count in small.config.heads_per_row.items())
    return "\n".join(
        [
            *lines,
            f"heads removed: {format_descriptor(gone)}",
            f"heads left: {counts}",
            *([str(solution)] if solution else []),
            str(folder),
        ]
    )


def _smaller(
    model: Model, name: str, off: str, mask: str, budget: Budget | None, length: int
) -> tuple[Model, Solution | None]:
    """What `remove` writes, and how the budget was met if there is one."""
    solution = within_budget(model, budget, length) if budget else None
    if solution:
        mask_AH = solution.mask_AH
    else:
        mask_AH = mask_of_file(model, mask) if mask else named_heads(model, off)
    if not mask_AH.any():
        raise ValueError(
            f"this would remove all {model.task.present_AH.sum()} heads of {name}: expected at "
            "least one to stay"
        )
    return without_heads(model, mask_AH), solution


def _amounts(model: Model, length: int) -> dict[str, float]:
    """Heads, parameters, their bytes, and FLOPs."""
    leaves = jax.tree.leaves(model.params)
    return {
        "heads": int(model.task.present_AH.sum()),
        "parameters": costs.parameters(model.params),
        "bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        f"FLOPs (1 example, {length} tokens)": costs.forward_flops(
            model.task, model.params, model.task.batch_shapes(1, length)
        ),
    }
