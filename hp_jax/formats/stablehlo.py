"""Models as programs that need nothing but JAX."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.export
import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import BertConfig, DecoderConfig, Decoding, Seq2SeqConfig
from hp_jax.formats.safetensors import flat, nested
from hp_jax.heads import gates
from hp_jax.models.classification import Classification
from hp_jax.models.language import LanguageModel
from hp_jax.models.translation import Translation
from hp_jax.storage.files import write_json, write_whole
from hp_jax.task import Array, Params

FORMAT = "hp_jax stablehlo 1"
PLATFORMS = ("cpu", "cuda", "tpu")
SERVE = '''"""The model in this folder; needs jax, numpy, flatbuffers; inputs: config.json."""

from pathlib import Path

import jax.export
import numpy as np

FOLDER = Path(__file__).parent
PARAMS = jax.device_put(dict(np.load(FOLDER / "params.npz")))
PROGRAM = jax.jit(jax.export.deserialize(bytearray((FOLDER / "model.stablehlo").read_bytes())).call)


def model(*inputs):
    return PROGRAM(PARAMS, *inputs)
'''


class Program(NamedTuple):
    """What an exported program computes."""

    run: Callable[..., tuple[jax.Array, ...]]
    """Of flat parameters and the inputs."""
    inputs: dict[str, jax.ShapeDtypeStruct]
    about: dict[str, Any]
    """What else is to be known: the names of its `outputs`, and of what they consist."""


def save_program(folder: Path, params: Params, program: Program) -> None:
    """model.stablehlo, params.npz, serve.py and, last, config.json.

    The program is for any number of examples, and but for a translator's for any length.  JAX
    reads it for at least half a year after the release that wrote it.
    """
    tensors = {name: np.asarray(leaf) for name, leaf in flat(params).items()}
    shapes = {name: jax.ShapeDtypeStruct(one.shape, one.dtype) for name, one in tensors.items()}
    export = jax.export.export(jax.jit(program.run), platforms=PLATFORMS)
    exported = export(shapes, *program.inputs.values())
    arrays = io.BytesIO()
    np.savez(arrays, **tensors)  # type: ignore[arg-type]  # no parameter is called allow_pickle
    write_whole(folder / "params.npz", arrays.getvalue())
    write_whole(folder / "model.stablehlo", bytes(exported.serialize()))
    write_whole(folder / "serve.py", SERVE.encode())
    outputs = dict(zip(program.about["outputs"], exported.out_avals, strict=True))
    about = {name: value for name, value in program.about.items() if name != "outputs"}
    described = {
        side: {
            name: {"shape": [str(size) for size in one.shape], "dtype": str(one.dtype)}
            for name, one in some.items()
        }
        for side, some in (("inputs", program.inputs), ("outputs", outputs))
    }
    versions = {"platforms": PLATFORMS, "jax": jax.__version__}
    write_json(folder / "config.json", {"format": FORMAT} | described | about | versions)


def classifier(config: BertConfig, decoding: Decoding, width: int) -> Program:
    """Logits of any number of examples of any length."""
    task = Classification(dataclasses.replace(config, kernel="xla"))
    on = gates(task.present_AH, task.present_AH)
    room = config.room

    def run(
        params: dict[str, Array], tokens_BT: Array, types_BT: Array, length_B: Array
    ) -> tuple[jax.Array]:
        batch = {"tokens_BT": tokens_BT, "types_BT": types_BT, "length_B": length_B}
        return (task.logits(nested(params), batch, on),)

    batch, length = jax.export.symbolic_shape("b, t", constraints=["t >= 2", f"t <= {room}"])
    inputs = {"tokens": (batch, length), "types": (batch, length), "length": (batch,)}
    about = {"outputs": ["logits"], "labels": config.labels, "pad": config.pad, "longest": room}
    return Program(run, _integers(inputs), about)


def language_model(config: DecoderConfig, decoding: Decoding, width: int) -> Program:
    """Logits of the token after each, of any number of texts of any length."""
    task = LanguageModel(dataclasses.replace(config, kernel="xla"))
    on, room = gates(task.present_AH, task.present_AH), config.room

    def run(params: dict[str, Array], tokens_BT: Array) -> tuple[jax.Array]:
        return (task.logits(nested(params), tokens_BT, on),)

    shape = jax.export.symbolic_shape("b, t", constraints=["t >= 2", f"t <= {room}"])
    about = {"outputs": ["logits"], "eos": config.eos, "longest": room}
    return Program(run, _integers({"tokens": tuple(shape)}), about)


def translator(config: Seq2SeqConfig, decoding: Decoding, width: int) -> Program:
    """Beam search of any number of sentences of at most `width` tokens; ValueError if it does not
    fit the model."""
    task = Translation(dataclasses.replace(config, kernel="xla"))
    on = gates(task.present_AH, task.present_AH)
    if width < 1 or (config.room is not None and width > config.room):
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
    return Program(run, _integers({"source": (batch, width), "length": (batch,)}), about)


def _integers(shapes: dict[str, tuple[Any, ...]]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}
