"""transformers' side of the translation benchmark: `generate` under head masks, by beam search as
in fairseq."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from peers import torch_device

from hp_jax.models.translation import Translation


class Layers(tuple[torch.Tensor, ...]):
    """A decoder's head mask, one row a layer, which `generate` does not repeat for every beam and
    then refuse."""

    def size(self) -> tuple[int]:
        """What the model compares with its number of layers."""
        return (len(self),)


def head_masks(task: Translation, mask_AH: np.ndarray) -> dict[str, Any]:
    """The three masks of `generate`."""
    rows = {
        row: torch.tensor(mask_H, dtype=torch.float32, device=torch_device())
        for row, mask_H in zip(task.rows, mask_AH, strict=True)
    }
    names = {"head_mask": "enc.", "decoder_head_mask": "dec.", "cross_attn_head_mask": "cross."}
    return {
        name: Layers(row for key, row in rows.items() if key.startswith(kind))
        for name, kind in names.items()
    }


def end_at(limit: int, eos: int) -> transformers.LogitsProcessorList:
    """Only EOS may come after `limit` tokens, at its price, as in fairseq; transformers' own forced
    EOS is free."""

    def processor(ids: torch.Tensor, score_BV: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] <= limit:  # the decoder's start is one of them
            return score_BV
        ends_BV = torch.full_like(score_BV, -torch.inf)
        ends_BV[:, eos] = score_BV[:, eos]
        return ends_BV

    return transformers.LogitsProcessorList([processor])


@torch.inference_mode()
def generate(
    model: Any, task: Translation, sources: Sequence[np.ndarray], mask_AH: np.ndarray
) -> np.ndarray:
    """Ids `[B, T]` of the best translation of every source, in one batch; early stopping is
    fairseq's rule, and ours."""
    decoding, pad = task.decoding, task.config.pad
    ids_BS = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(ids).long() for ids in sources], batch_first=True, padding_value=pad
    )
    ids_BS = ids_BS.to(torch_device())
    found = model.generate(
        input_ids=ids_BS,
        attention_mask=(ids_BS != pad).long(),
        num_beams=decoding.beam,
        do_sample=False,
        early_stopping=True,
        length_penalty=decoding.length_penalty,
        max_new_tokens=decoding.max_extra + 1,
        min_new_tokens=decoding.min_length,
        bad_words_ids=[[pad]],
        logits_processor=end_at(decoding.max_extra, task.config.eos),
        **head_masks(task, mask_AH),
    )
    return found[:, 1:].cpu().numpy()
