"""Encoded sentence pairs, and their batches."""

from __future__ import annotations

import dataclasses
import hashlib
import logging

import numpy as np

from hp_jax.data.batching import Batch, in_rows, padded, places
from hp_jax.data.parallel import Parallel
from hp_jax.text.codec import Codec

log = logging.getLogger("hp_jax")


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """N encoded pairs; `source[n]` is `[S_n]` and `target[n]` `[T_n]`, int32, unpadded, each with
    EOS at the end."""

    name: str
    """The data."""
    split: str
    """The split of which these are some or all, without a slice."""
    source: tuple[np.ndarray, ...]
    target: tuple[np.ndarray, ...]
    reference: tuple[str, ...]
    """The whole target text, as read."""
    origin_N: np.ndarray
    """0-based place of each pair in its whole split; int64."""
    padding: int
    """The id that stands for no token."""

    def __len__(self) -> int:
        return len(self.source)

    @property
    def length_N(self) -> np.ndarray:
        """Tokens of the longer side of each pair; int32."""
        return np.array(
            [max(len(s), len(t)) for s, t in zip(self.source, self.target, strict=True)], np.int32
        )

    def pad(self, index: np.ndarray, rows: int, length: int) -> Batch:
        """The pairs at `index`: `source_BS`, `target_BT`, `source_length_B`, `target_length_B`,
        `weight_B` and `index_B`.

        S and T are both `length`. All are int32, `weight_B` float32; a row of padding has lengths
        1, weight 0 and index 0.
        """
        source, target = ([side[n] for n in index] for side in (self.source, self.target))
        return {
            "source_BS": padded(source, rows, length, self.padding),
            "source_length_B": in_rows([len(ids) for ids in source], rows, 1),
            "target_BT": padded(target, rows, length, self.padding),
            "target_length_B": in_rows([len(ids) for ids in target], rows, 1),
            **places(index, rows),
        }

    def fingerprint(self) -> str:
        """sha256 (hex) of all ids and references, in order: equal exactly if models are given and
        compared with the same."""
        text = [np.frombuffer(reference.encode(), np.uint8) for reference in self.reference]
        digest = hashlib.sha256()
        for side in (self.source, self.target, text):
            for array in (np.array(len(side)), np.array([len(ids) for ids in side]), *side):
                digest.update(array.astype("<i8").tobytes())
        return digest.hexdigest()


def encode_pairs(codec: Codec, parallel: Parallel, max_length: int, *, drop: bool) -> Pairs:
    """Token ids of both sides, each with EOS at the end and of at most `max_length` tokens, EOS
    included.

    drop: pairs with a longer side are left out, as for training; otherwise that side is cut before
    EOS, as for evaluation.
        Either way their number is in a warning.

    ValueError for a max_length without room for a token and EOS, and if no pair is left.
    """
    if max_length < 2:
        raise ValueError(f"max_length is {max_length}, but a token and EOS need at least 2")
    source, target = codec.encode_source(parallel.source), codec.encode_target(parallel.target)
    long_N = np.array(
        [max(len(s), len(t)) > max_length for s, t in zip(source, target, strict=True)], bool
    )
    if long_N.any():
        done = "dropped" if drop else "cut"
        log.warning(
            "%s: pairs of more than %d tokens, %s: %d",
            parallel.file,
            max_length,
            done,
            long_N.sum(),
        )
    kept = np.flatnonzero(~long_N) if drop else np.arange(len(parallel))
    if not len(kept):
        raise ValueError(
            f"{parallel.file}: expected pairs of at most {max_length} tokens a side, but there "
            "are none"
        )
    return Pairs(
        name=parallel.name,
        split=parallel.split,
        source=tuple(_cut(source[n], max_length) for n in kept),
        target=tuple(_cut(target[n], max_length) for n in kept),
        reference=tuple(parallel.target[n] for n in kept),
        origin_N=parallel.origin_N[kept],
        padding=codec.pad,
    )


def _cut(ids: np.ndarray, max_length: int) -> np.ndarray:
    return ids if len(ids) <= max_length else np.append(ids[: max_length - 1], ids[-1:])
