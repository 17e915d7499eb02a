"""What the compiler says that each step costs a device: FLOPs, memory and collectives; and how many
masks fit together.

    python scripts/cost.py --batch 32              # BERT-base, on the devices that are here
    export TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu  # a TPU's compiler (pip install 'jax[tpu]')
    python scripts/cost.py --topology v5e:4x4 --dtype bfloat16 --batch 4096 --mask-devices 1
    python scripts/cost.py --topology v5e:16x16 --dtype bfloat16 --layers 2 --heads 4 \
        --width 128 --ffn 512
    python scripts/cost.py configs/multi30k.py --topology v5e:4x4 --dtype bfloat16 --length 32
    python scripts/cost.py language_model --topology v5e:4x4 --dtype bfloat16 --tensor-devices 16 \
        --layers 32 --heads 32 --key-heads 8 --width 4096 --ffn 14336 --vocab 128256 --batch 8 \
        --length 512 --masks 8                     # the shape of Llama 3 8B

On two CPU cores beside other work these took 26 seconds, 11 minutes (most of it the training step),
35 seconds and 4 minutes.  Nothing is run.  With ALLOW_MULTIPLE_LIBTPU_LOAD=1 several processes may
compile for TPUs at the same time.
"""

import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hp_jax import heads
from hp_jax.architecture import BertConfig, DecoderConfig, Decoding
from hp_jax.config import Experiment, LanguageModelExperiment, TranslationExperiment
from hp_jax.config_files import load_config
from hp_jax.grid import chunks
from hp_jax.grid.plan import plan
from hp_jax.importance import MeanGradient, importance_sums
from hp_jax.models.classification import Classification
from hp_jax.models.language import LanguageModel
from hp_jax.models.translation import Translation
from hp_jax.sharding import BOTH, device_mesh, params_specs
from hp_jax.train import State, optimizer, train_step

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
GIB = {
    "TPU v2": 8,
    "TPU v3": 16,
    "TPU v4": 16,
    "TPU v5 lite": 16,
    "TPU v5": 95,
    "TPU v6 lite": 32,
    "TPU7x": 96,
}
"""Memory of a device by its kind; up to v4 a device is one of a chip's two cores.  `TPU v5` is
v5p."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Shapes; those of BERT-base where nothing else is said."""

    config: Annotated[str, tyro.conf.arg(name=""), tyro.conf.Positional] = "classification"
    """A config file, or `classification`, `translation` or `language_model`."""
    topology: str = ""
    """A TPU topology such as v5e:16x16; default: the devices that are here."""
    mask_devices: int = 0
    """Devices along the mesh's `mask` axis in the grid; default: as many as there are masks for."""
    tensor_devices: int = 1
    """Devices among which parameters are split."""
    batch: int = 256
    """Examples a batch, over all devices, rounded up to what they divide."""
    length: int = 128
    """Tokens an example, on each side of a pair."""
    masks: int = 0
    """Masks in a chunk of the grid; default: as many as fit."""
    dtype: Literal["", "float32", "bfloat16"] = ""
    """Default: the config's."""
    layers: int = 12
    heads: int = 12
    width: int = 768
    ffn: int = 3072
    key_heads: int = 0
    """Of a language model; default: as many as query heads."""
    vocab: int = 32000
    """Of a language model, and of a translation model whose config leaves it open."""


def task_of(cost: Cost, config: Experiment) -> Classification | Translation | LanguageModel:
    """The config's model; of a classifier or a language model, whose shape comes with its
    checkpoint, the shape is the flags'."""
    compute: dict[str, Any] = {"dtype": cost.dtype or config.dtype, "kernel": config.kernel}
    if isinstance(config, TranslationExperiment):
        own = config.architecture
        vocab = {
            "source_vocab": own.source_vocab or cost.vocab,
            "target_vocab": own.target_vocab or cost.vocab,
        }
        return Translation(dataclasses.replace(own, **vocab, **compute), config.decoding)
    shape = {"layers": cost.layers, "heads": cost.heads, "width": cost.width, "ffn": cost.ffn}
    if isinstance(config, LanguageModelExperiment):
        own = DecoderConfig(
            family="llama",
            vocab=cost.vocab,
            key_heads=cost.key_heads or cost.heads,
            head_width=cost.width // cost.heads,
            positions=cost.length,
            tied=False,
            **shape,
            **compute,
        )
        return LanguageModel(own)
    return Classification(
        BertConfig("bert", ("a", "b"), vocab=30522, positions=512, types=2, **shape, **compute)
    )


def devices_of(topology: str) -> list[jax.Device]:
    """The topology's devices, or those that are here."""
    if not topology:
        return jax.devices()
    from jax.experimental import topologies

    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)


def may_use(device: jax.Device) -> float:
    """Bytes of a device's memory that a grid may use."""
    whole = chunks.device_bytes() if device.platform != "tpu" else GIB[device.device_kind] * 2**30
    return chunks.SHARE * whole


def collectives(compiled: Any) -> set[str]:
    """The kinds of collectives that a program has."""
    text = compiled.as_text()
    return {kind for kind in COLLECTIVES if re.search(rf"\b{kind}(-start)?\(", text)}


def one_off(task: Any) -> np.ndarray:
    """The whole model and every head off, `[M, A, H]`."""
    present_AH = task.present_AH
    return np.concatenate([present_AH[None], heads.one_off(present_AH)])


@dataclasses.dataclass(frozen=True)
class GridWork:
    """What a grid really runs, as its chunks' plans say: XLA counts a loop's body once, however
    often it is run."""

    masks: int
    chunks: int
    layers: int
    """Stages that are run, of the masks times stages that there would be one by one."""
    flops: float
    """Without the search, on one device, if it had all chunks."""


def grid_work(
    task: Any, params: Any, batch: Mapping[str, Any], masks_MAH: np.ndarray, chunk: int
) -> GridWork:
    """The work on one device's batch; only shapes of `params` and `batch` count."""
    gates = heads.gates(masks_MAH[0], task.present_AH)

    def flops(part: Callable[..., Any], *shapes: Any) -> float:
        return float(jax.jit(part).lower(*shapes).cost_analysis()["flops"])

    def contexts_of(params: Any, batch: Any, state: Any) -> Any:
        return task.context(params, 0, batch, state)

    def apply_row(params: Any, batch: Any, state: Any, context: Any, gate: Any) -> Any:
        return task.apply_row(params, 0, batch, state, context, gate)

    state = jax.eval_shape(task.start, params, batch)
    context = jax.eval_shape(contexts_of, params, batch, state)
    plans = [plan(masks_MAH[i : i + chunk], task.stages) for i in range(0, len(masks_MAH), chunk)]
    contexts, layers = (
        sum(int(n) for n in counts) for counts in zip(*map(_runs, plans), strict=True)
    )
    one_state = jax.eval_shape(lambda state: jax.tree.map(lambda x: x[None], state), state)
    forced = dataclasses.replace(task, decoding=None) if isinstance(task, Translation) else task
    read = len(masks_MAH) * flops(
        forced.evaluate, params, batch, one_state, [gate[None] for gate in gates]
    )
    total = (
        contexts * flops(contexts_of, params, batch, state)
        + layers * flops(apply_row, params, batch, state, context, gates[0])
        + read
    )
    return GridWork(len(masks_MAH), len(plans), layers, total)


def _runs(made: Any) -> tuple[int, int]:
    """How many times a plan's stages take a context and apply a row."""
    return made.count_A.sum(), made.first_AP.max(1).sum()


def show(
    name: str, compile: Callable[[], Any], flops: float | None = None, start: float | None = None
) -> None:
    """Compiles a step and prints its row of the table; the seconds are since `start`."""
    start = time.monotonic() if start is None else start
    compiled = compile()
    seconds = time.monotonic() - start
    count = compiled.cost_analysis()["flops"] if flops is None else flops
    found = ", ".join(sorted(collectives(compiled))) or "none"
    print(
        f"{name:<22} {count / 1e9:10.2f} {chunks.needed_bytes(compiled) / 2**20:9.0f} "
        f"{seconds:6.0f}  {found}",
        flush=True,
    )


def placed(tree: Any, mesh: Mesh, *axes: Any) -> Any:
    """Shapes with their sharding along the first axes."""
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype, sharding=sharding), tree
    )


def forward(task: Any, params: Any, batch: Any, mask_AH: Any) -> jax.Array:
    """The loss of each example."""
    return task.loss(params, batch, heads.gates(mask_AH, task.present_AH))


def search(
    task: Any, params: Any, batch: Any, mask_AH: Any, *, mesh: Mesh, decoding: Decoding
) -> Any:
    """Beam search, each device with sentences of its own."""

    def own(params: Any, batch: Any, mask_AH: Any) -> Any:
        return task.translate(params, batch, heads.gates(mask_AH, task.present_AH), decoding)

    specs = PartitionSpec(), PartitionSpec(BOTH), PartitionSpec()
    return jax.shard_map(
        own, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(BOTH), check_vma=False
    )(params, batch, mask_AH)


def step_rows(task: Any, config: Experiment, params: Any, batch: Any, mesh: Mesh) -> None:
    """The rows of all steps but the grid; each device has a part of the batch."""
    recipe = config.train
    key = placed(jax.eval_shape(functools.partial(jax.random.key, 0)), mesh)
    params = jax.tree.map(
        lambda leaf, spec: placed(leaf, mesh, *spec), params, params_specs(params, mesh)
    )
    batch = placed(batch, mesh, BOTH)
    mask_AH = placed(task.present_AH, mesh)

    def begin(params: Any) -> State:
        return State(
            params, optimizer(recipe, 1000).init(params), jnp.zeros((), jnp.int32), jnp.zeros(())
        )

    state = placed(jax.eval_shape(begin, params), mesh)
    show(
        "forward",
        lambda: jax.jit(forward, static_argnums=0).lower(task, params, batch, mask_AH).compile(),
    )
    estimator = MeanGradient(config.importance.per, config.importance.measure)
    show(
        "importance",
        lambda: importance_sums.lower(task, params, batch, mask_AH, estimator=estimator).compile(),
    )
    if mesh.shape["tensor"] == 1:  # training has parameters whole
        show(
            "training step",
            lambda: train_step.lower(
                state, batch, mask_AH, key, task=task, recipe=recipe, steps=1000
            ).compile(),
        )
    if isinstance(task, Translation):
        searching = jax.jit(functools.partial(search, task, mesh=mesh, decoding=task.decoding))
        show(
            f"search, beam {task.decoding.beam}",
            lambda: searching.lower(params, batch, mask_AH).compile(),
        )


def grid_row(task: Any, params: Any, batch: Any, mesh: Mesh, length: int, masks: int) -> None:
    """The row of one chunk on each device, of the grid of every head off; and the number of masks
    that fit."""
    masks_MAH, limit, start = one_off(task), may_use(mesh.devices.flat[0]), time.monotonic()
    if not masks:
        most = min(chunks.MOST, math.ceil(len(masks_MAH) / mesh.shape["mask"]))
        fit = chunks.masks_that_fit(task, params, batch, mesh, limit, most=most)
        masks = chunks.equal_chunk(len(masks_MAH), mesh.shape["mask"], fit)
        print(
            f"{fit} masks fit into {limit / 2**20:.0f} MiB ({chunks.SHARE:.0%} of a device's "
            f"memory), of {most} wanted"
        )
    own = task.batch_shapes(len(batch["weight_B"]) // mesh.shape["data"], length)
    work = grid_work(task, params, own, masks_MAH, masks)
    flops = work.flops / work.chunks
    show(
        f"grid, {masks} masks",
        lambda: chunks.compiled_grid(task, params, batch, mesh, masks),
        flops,
        start,
    )
    print(
        f"One head off, {work.masks} masks in {work.chunks} chunks: {work.layers} shared layers "
        "are run, "
        f"one by one it would be {work.masks * task.stages}. The chunk's GFLOP are the mean of "
        "these chunks."
    )


def main(cost: Cost) -> None:
    """Prints the table."""
    config, devices = load_config(cost.config), devices_of(cost.topology)
    task = task_of(cost, config)
    apart = len(devices) // cost.tensor_devices
    examples = apart * math.ceil(cost.batch / apart)
    params, batch = (
        jax.eval_shape(task.init, jax.random.key(0)),
        task.batch_shapes(examples, cost.length),
    )
    most = len(one_off(task))
    along = cost.mask_devices or max(n for n in range(1, apart + 1) if apart % n == 0 and n <= most)
    mesh = device_mesh(devices, mask=along, tensor=cost.tensor_devices)
    print(
        f"{len(devices)} x {devices[0].device_kind}; grid: {dict(mesh.shape)}; {examples} "
        f"examples of {cost.length} tokens"
    )
    print(f"{task.config}\n")
    print(f"{'a device, a batch':<22} {'GFLOP':>10} {'MiB':>9} {'s':>6}  collectives")
    step_rows(task, config, params, batch, mesh)
    grid_row(task, params, batch, mesh, cost.length, cost.masks)
    print(
        "s: of compiling, for the grid all chunks that were tried.  XLA counts a loop's body "
        "once: a search's GFLOP are of one"
    )
    print("token; the grid's are as often as the plans run each part, without the search.")


if __name__ == "__main__":
    main(tyro.cli(Cost, description=__doc__))
