"""What removed heads save on a TPU, by the TPU compiler's own account: one attention module for
each number of heads kept.

    export TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu  # a TPU's compiler (pip install 'jax[tpu]')
    python scripts/tiles.py
    python scripts/tiles.py --topology v6e:2x2 --width 512 --heads 8 --batch 256
    python scripts/tiles.py --model --multiple 1 2 4  # BERT-base, half of its heads removed

Nothing is run.  Cycles are what the compiler itself expects of each fusion, added up; what it
expects of copies between memories is not in them.  A module is query, key, value, attention and
output projection of `batch` examples of `length` tokens.  With ALLOW_MULTIPLE_LIBTPU_LOAD=1 several
processes may compile for TPUs at the same time.
"""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from hp_jax.architecture import BertConfig
from hp_jax.grid.chunks import needed_bytes
from hp_jax.models.classification import Classification
from hp_jax.models.layers import Attention
from hp_jax.shrink import costs
from hp_jax.shrink.speed import SHAPES, random_order, without_share


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Shapes; those of BERT-base where nothing else is said."""

    topology: str = "v5e:2x2"
    """One device of it is compiled for."""
    batch: int = 64
    length: int = 128
    width: int = 768
    heads: int = 12
    """Those that there were at first."""
    dtype: str = "bfloat16"
    model: bool = False
    """All of BERT-base in place of a module: whole, and with half of its heads."""
    multiple: tuple[int, ...] = (1, 2, 4)
    """To which the heads of each row of the model are rounded, within the same half."""


def module(tiles: Tiles, kept: int, device: jax.Device) -> Any:
    """An attention module with `kept` heads, compiled."""
    attention = Attention(tiles.width, kept, tiles.width // tiles.heads, jnp.dtype(tiles.dtype))

    def apply(attention: Attention, x_BTD: jax.Array, length_B: jax.Array) -> jax.Array:
        attend_B1TS = (jnp.arange(tiles.length)[None] < length_B[:, None])[:, None, None]
        return attention(x_BTD, attention.keys(x_BTD), attend_B1TS, jnp.ones(kept))

    x_BTD = jax.ShapeDtypeStruct((tiles.batch, tiles.length, tiles.width), jnp.dtype(tiles.dtype))
    inputs = x_BTD, jax.ShapeDtypeStruct((tiles.batch,), jnp.int32)
    params = jax.eval_shape(
        functools.partial(attention.init, method=apply), jax.random.key(0), *inputs
    )
    return _compiled(functools.partial(attention.apply, method=apply), device, params, *inputs)


def model(tiles: Tiles, multiple: int, device: jax.Device) -> tuple[str, Any]:
    """The heads of each row, and the compiled forward pass of BERT-base; multiple 0: with all
    heads."""
    config = SHAPES["base"]
    assert isinstance(config, BertConfig)
    present_AH = Classification(config).present_AH
    mask_AH = (
        without_share(present_AH, random_order(present_AH, 0), 0.5, multiple)
        if multiple
        else present_AH
    )
    kept = tuple(tuple(mask_H.nonzero()[0].tolist()) for mask_H in mask_AH)
    task = Classification(dataclasses.replace(config, kept=kept, dtype=tiles.dtype))
    params = jax.eval_shape(task.init, jax.random.key(0))
    batch = task.batch_shapes(tiles.batch, tiles.length)
    return " ".join(map(str, mask_AH.sum(1))), _compiled(
        functools.partial(costs.forward, task), device, params, batch
    )


def _compiled(function: Any, device: jax.Device, *shapes: Any) -> Any:
    sharding = SingleDeviceSharding(device)
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
    )
    return jax.jit(function).lower(*placed).compile()


def show(name: str, made: Any) -> None:
    """Prints a line of the table."""
    cost = made.cost_analysis()
    cycles = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', made.as_text())))
    numbers = cycles / 1e3, cost["flops"] / 1e9, cost["bytes accessed"] / 2**20
    memory = made.memory_analysis().temp_size_in_bytes / 2**20, needed_bytes(made) / 2**20
    print(f"{name:<40}" + "".join(f"{number:>16.2f}" for number in (*numbers, *memory)), flush=True)


def main(tiles: Tiles) -> None:
    """Prints the table."""
    device = topologies.get_topology_desc(platform="tpu", topology_name=tiles.topology).devices[0]
    print(f"one {device.device_kind}; {tiles}\n")
    titles = ("1000 cycles", "GFLOP", "MiB accessed", "temporary MiB", "program MiB")
    print(f"{'heads':<40}" + "".join(f"{title:>16}" for title in titles))
    if tiles.model:
        for multiple in (0, *tiles.multiple):
            show(*model(tiles, multiple, device))
    else:
        for kept in range(1, tiles.heads + 1):
            show(str(kept), module(tiles, kept, device))


if __name__ == "__main__":
    main(tyro.cli(Tiles, description=__doc__))
