"""What the compiler says that a forward pass, importance and a chunk of a grid cost: FLOPs, memory and collectives.

    python scripts/cost.py                                    # BERT-base, this machine's compiler
    TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu \\
    python scripts/cost.py --topology v5e:4x4 --dtype bfloat16  # a TPU's compiler, without a TPU (pip install 'jax[tpu]')

Compiling twelve layers takes minutes on a small machine; nothing is run. FLOPs and memory are per chip.
"""

import dataclasses
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hp_jax import heads
from hp_jax.config import BertConfig
from hp_jax.grid import evaluate_masks
from hp_jax.importance import importance_sums
from hp_jax.models.classification import Classification
from hp_jax.sharding import data_mesh

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Cost:
    """A model's shape and a batch's; the defaults are BERT-base."""

    topology: str = ""
    """A TPU topology such as v5e:4x4; default: the devices that are here."""
    layers: int = 12
    heads: int = 12
    width: int = 768
    ffn: int = 3072
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch: int = 32
    """Examples a batch, over all chips."""
    length: int = 128
    masks: int = 4
    """Masks in a chunk of the grid."""


def mesh_of(topology: str) -> Mesh:
    """All chips of the topology, or the devices that are here, along `data`."""
    if not topology:
        return data_mesh()
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def describe(name: str, compiled: Any) -> float:
    """Prints one row of the table and returns its FLOPs."""
    flops, memory = compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes
    found = [kind for kind in COLLECTIVES if re.search(rf"\b{kind}(-start)?\(", compiled.as_text())]
    print(f"{name:<12} {flops / 1e9:12.2f} GFLOP {memory / 2**20:10.1f} MiB temporary   {', '.join(found) or 'no collectives'}")
    return flops


def main(cost: Cost) -> None:
    shape = {"layers": cost.layers, "heads": cost.heads, "width": cost.width, "ffn": cost.ffn}
    config = BertConfig("bert", ("a", "b"), vocab=30522, positions=512, types=2, **shape, dtype=cost.dtype)
    task, mesh = Classification(config), mesh_of(cost.topology)

    def placed(shape: tuple[int, ...], dtype: Any, *axes: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

    params = jax.tree.map(lambda leaf: placed(leaf.shape, leaf.dtype), jax.eval_shape(task.init, jax.random.key(0)))
    tokens = {name: placed((cost.batch, cost.length), jnp.int32, "data") for name in ("tokens_BT", "types_BT")}
    numbers = {name: placed((cost.batch,), jnp.int32, "data") for name in ("length_B", "label_B")}
    batch = tokens | numbers | {"weight_B": placed((cost.batch,), jnp.float32, "data")}
    mask_AH = placed((cost.layers, cost.heads), jnp.bool_)
    masks_MAH = placed((cost.masks, cost.layers, cost.heads), jnp.bool_)

    forward = jax.jit(lambda params, batch, mask_AH: task.loss(params, batch, heads.gates(mask_AH, task.heads)))
    print(f"{mesh.size} x {mesh.devices.flat[0].device_kind}, {cost}")
    base = describe("forward", forward.lower(params, batch, mask_AH).compile())
    ours = describe("importance", importance_sums.lower(task, params, batch, mask_AH, per="token", kind="abs").compile())
    grid = describe(f"{cost.masks} masks", evaluate_masks.lower(task, params, batch, masks_MAH).compile())
    print(f"importance / forward: {ours / base:.2f}; {cost.masks} masks / forward: {grid / base:.2f}")


if __name__ == "__main__":
    main(tyro.cli(Cost, description=__doc__))
