"""Tensors from a Hugging Face style folder; nothing is unpickled that could run code."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from hp_jax.storage.files import check_file, inside, local, read_json

HUB_FILES = ("*.json", "*.txt", "*.spm", "*.safetensors", "pytorch_model*.bin")


def find_folder(model: str) -> Path:
    """The local folder `model`, or the hub repository of that name, downloaded by huggingface_hub.

    FileNotFoundError, in one sentence, if it is neither, or if there is no network to look further.
    """
    folder = local(model, "the model")
    if folder.is_dir():
        return folder
    if not model or model.count("/") > 1 or model.startswith((".", "/", "~")):
        raise FileNotFoundError(f"the model folder {model!r} does not exist")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(model, allow_patterns=list(HUB_FILES)))
    except (
        Exception
    ) as error:  # huggingface_hub raises errors of several libraries when there is no network
        raise FileNotFoundError(
            f"{model!r} is not a folder here and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}); "
            "download the repository where there is a network and pass the folder's path"
        ) from error


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint folder: `model.safetensors`, one with an index of shards, or
    `pytorch_model.bin`.

    A .bin file needs torch and is read with `weights_only=True`.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return _read_safetensors(single)
    if index.is_file():
        return _read_shards(folder, index, _read_safetensors)
    single, index = folder / "pytorch_model.bin", folder / "pytorch_model.bin.index.json"
    if single.is_file():
        return _read_torch(single)
    if index.is_file():
        return _read_shards(folder, index, _read_torch)
    raise FileNotFoundError(
        f"{folder} has neither model.safetensors nor pytorch_model.bin (nor an index of shards)"
    )


@dataclasses.dataclass
class _Index:
    """model.safetensors.index.json, and the same of PyTorch."""

    weight_map: dict[str, str]


def _read_shards(folder: Path, index: Path, read: Any) -> dict[str, np.ndarray]:
    shard_of = read_json(index, _Index).weight_map
    tensors: dict[str, np.ndarray] = {}
    for file in sorted(set(shard_of.values())):
        tensors |= read(check_file(inside(folder, file)))
    missing = sorted(set(shard_of) - set(tensors))
    if missing:
        raise ValueError(
            f"{index} names the tensor {missing[0]} in {shard_of[missing[0]]}, but it is not in it"
        )
    return tensors


_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "BOOL": np.bool_,
}
"""What safetensors calls types of numbers."""


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Maps of the file's memory: a tensor is read where it is used."""
    try:
        with safe_open(path, framework="numpy") as file:  # checks the header and the file's length
            names = list(file.keys())
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        start = 8 + size
        data = (
            np.memmap(path, np.uint8, "r")
            if path.stat().st_size > start
            else np.empty(start, np.uint8)
        )
        return {name: _mapped(data[start:], **header[name]) for name in names}
    except (SafetensorError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({path.stat().st_size:,} bytes): {error}"
        ) from error


def _mapped(
    data: np.ndarray, dtype: str, shape: Sequence[int], data_offsets: tuple[int, int]
) -> np.ndarray:
    if dtype not in _TYPES:  # is refused by name where it is used
        return np.empty(shape, np.void)
    begin, end = data_offsets
    return data[begin:end].view(_TYPES[dtype]).reshape(shape)


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    content = load_torch(path)
    for name in ("state_dict", "model_state_dict", "model"):  # what trainers wrap weights in
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = to_numpy(content) if isinstance(content, Mapping) else {}
    if not tensors:
        raise ValueError(f"{path}: expected tensors by name, but found {type(content).__name__}")
    return tensors


def load_torch(path: Path, classes: Sequence[type] = ()) -> Any:
    """What `torch.save` wrote: tensors, plain containers, numbers and strings, and instances of
    `classes`.

    Nothing else is unpickled: ValueError names the class or function that the file asks for, and it
    is not called.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs PyTorch: pip install torch, or convert the file to safetensors"
        ) from error
    try:
        with torch.serialization.safe_globals(list(classes)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # zip, pickle and torch errors all mean that the file cannot be read safely
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = (
            f"it asks for {asked[1]}"
            if asked
            else str(error).partition("\n")[0] or type(error).__name__
        )
        raise ValueError(f"{path} cannot be read as a file of plain tensors: {reason}") from error


def to_numpy(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The PyTorch tensors among the values, as arrays."""
    import torch

    arrays = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}
    return {name: _from_torch(tensor) for name, tensor in arrays.items()}


def _from_torch(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach().to_dense().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.float().numpy().astype(ml_dtypes.bfloat16)
    try:
        return tensor.numpy()
    except TypeError:  # a type that NumPy has not, which is refused by name where it is used
        return np.empty(tensor.shape, np.void)
