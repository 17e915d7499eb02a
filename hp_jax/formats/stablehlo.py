"""Models as programs that need nothing but JAX."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.export
import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import BertConfig, Decoding, Seq2SeqConfig
from hp_jax.formats.model import PROGRAM, Model
from hp_jax.formats.safetensors import flat, nested
from hp_jax.heads import gates
from hp_jax.models.classification import Classification
from hp_jax.models.translation import Translation
from hp_jax.storage.files import write_json, write_whole
from hp_jax.task import Array

Run = Callable[..., tuple[jax.Array, ...]]


PLATFORMS = ("cpu", "cuda", "tpu")


SERVE = '''"""This folder's model, without hp_jax: needs jax, numpy and flatbuffers.

config.json says what goes in and out.
"""

from pathlib import Path

import jax.export
import numpy as np

FOLDER = Path(__file__).parent
PARAMS = jax.device_put(dict(np.load(FOLDER / "params.npz")))
PROGRAM = jax.jit(jax.export.deserialize(bytearray((FOLDER / "model.stablehlo").read_bytes())).call)


def model(*inputs):
    return PROGRAM(PARAMS, *inputs)
'''


def _save_program(folder: Path, model: Model, decoding: Decoding, source_length: int) -> None:
    """model.stablehlo, params.npz, serve.py and, last, config.json.

    The program is for any number of examples, and a classifier's for any length.  JAX reads it for
    at least half a year after the release that wrote it.
    """
    params = {name: np.asarray(leaf) for name, leaf in flat(model.params).items()}
    if isinstance(model.config, BertConfig):
        run, inputs, about = _classifier(model.config)
    else:
        run, inputs, about = _translator(model.config, decoding, source_length)
    shapes = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in params.items()
    }
    program = jax.export.export(jax.jit(run), platforms=PLATFORMS)(shapes, *inputs.values())
    arrays = io.BytesIO()
    np.savez(arrays, **params)  # type: ignore[arg-type]  # no parameter is called allow_pickle
    write_whole(folder / "params.npz", arrays.getvalue())
    write_whole(folder / "model.stablehlo", bytes(program.serialize()))
    write_whole(folder / "serve.py", SERVE.encode())
    outputs = dict(zip(about.pop("outputs"), program.out_avals, strict=True))
    described = {
        side: {
            name: {"shape": [str(size) for size in one.shape], "dtype": str(one.dtype)}
            for name, one in some.items()
        }
        for side, some in (("inputs", inputs), ("outputs", outputs))
    }
    versions = {"platforms": PLATFORMS, "jax": jax.__version__}
    write_json(folder / "config.json", {"format": PROGRAM} | described | about | versions)


def _classifier(config: BertConfig) -> tuple[Run, dict[str, jax.ShapeDtypeStruct], dict[str, Any]]:
    """The function, what it takes besides parameters, and what else is to be known."""
    task = Classification(dataclasses.replace(config, kernel="xla"))
    on = gates(task.present_AH, task.present_AH)
    room = config.positions - config.first_position

    def run(
        params: dict[str, Array], tokens_BT: Array, types_BT: Array, length_B: Array
    ) -> tuple[jax.Array]:
        batch = {"tokens_BT": tokens_BT, "types_BT": types_BT, "length_B": length_B}
        return (task.logits(nested(params), batch, on),)

    batch, length = jax.export.symbolic_shape("b, t", constraints=["t >= 2", f"t <= {room}"])
    inputs = {"tokens": (batch, length), "types": (batch, length), "length": (batch,)}
    about = {"outputs": ["logits"], "labels": config.labels, "pad": config.pad, "longest": room}
    return run, _integers(inputs), about


def _translator(
    config: Seq2SeqConfig, decoding: Decoding, width: int
) -> tuple[Run, dict[str, jax.ShapeDtypeStruct], dict[str, Any]]:
    """The same for beam search."""
    task = Translation(dataclasses.replace(config, kernel="xla"))
    on = gates(task.present_AH, task.present_AH)
    room = config.max_positions - config.first_position
    if width < 1 or (config.positions == "learned" and width > room):
        raise ValueError(
            f"a source length of {width} does not fit: expected 1 or more, and at most the "
            "model's positions"
        )

    def run(params: dict[str, Array], source_BS: Array, length_B: Array) -> tuple[jax.Array, ...]:
        batch = {
            "source_BS": source_BS,
            "source_length_B": length_B,
            "weight_B": jnp.ones_like(length_B),
        }
        return tuple(task.translate(nested(params), batch, on, decoding))

    (batch,) = jax.export.symbolic_shape("b")
    special = {"eos": config.eos, "pad": config.pad}
    about = {"outputs": ["tokens", "scores"], "decoding": dataclasses.asdict(decoding), **special}
    return run, _integers({"source": (batch, width), "length": (batch,)}), about


def _integers(shapes: dict[str, tuple[Any, ...]]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}
