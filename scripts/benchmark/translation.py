"""A translation grid by BLEU, against transformers' `generate` with its head masks."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import transformers
from generate import generate
from peers import draw, prepare, torch_device
from timing import Ratio, Run, compare, sample, spread_over

from hp_jax import heads
from hp_jax.architecture import Decoding
from hp_jax.data.batching import Batch, batches
from hp_jax.formats.huggingface.marian import load_hf_marian_model
from hp_jax.formats.reading import Options
from hp_jax.grid.whole import Grid, evaluate_grid
from hp_jax.metrics import TextMetric
from hp_jax.models.translation import Translation as Task
from hp_jax.storage.files import read_json
from hp_jax.task import Params
from hp_jax.text.pairs import Pairs

EOS = 0
METRIC = TextMetric("bleu", tokenize="none")
"""Of ids as words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translation(Run):
    """All single-head ablations of a random Marian model by BLEU, against transformers' `generate`
    with its head masks."""

    layers: int = 6
    """Of the encoder, and of the decoder."""
    heads: int = 8
    width: int = 512
    vocab: int = 16000
    sentences: int = 64
    """All in one batch."""
    source: tuple[int, int] = (10, 30)
    """Shortest and longest, in tokens."""
    limit: int = 31
    """Most tokens of a translation before its EOS. Random models seldom end earlier, so both sides
    have the same to do."""
    beam: int = 4
    chunk: int = 16
    """Masks that we evaluate at once."""
    ours: int = 1000
    """About how many masks our grid does: whole chunks, spread over all."""
    sample: int = 3
    """Masks that transformers does, spread over all."""
    seed: int = 0


class Pair(NamedTuple):
    """One set of weights on both sides."""

    theirs: Any
    task: Task
    params: Params


def load_pair(setting: Translation) -> Pair:
    """A random model; eager attention, since transformers' other kernels have no head masks."""
    pad, sizes = (
        setting.vocab - 1,
        {"vocab_size": setting.vocab, "d_model": setting.width, "max_position_embeddings": 512},
    )
    for side in ("encoder", "decoder"):
        sizes |= {
            f"{side}_layers": setting.layers,
            f"{side}_attention_heads": setting.heads,
            f"{side}_ffn_dim": 4 * setting.width,
        }
    special = {
        "pad_token_id": pad,
        "decoder_start_token_id": pad,
        "eos_token_id": EOS,
        "forced_eos_token_id": None,
    }
    compute = {
        "activation_function": "swish",
        "scale_embedding": True,
        "attn_implementation": "eager",
    }
    model = transformers.MarianMTModel(
        transformers.MarianConfig(**sizes, **special, **compute)
    ).eval()
    draw(model, setting.seed, setting.width, but=("embed_positions",))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config, params = load_hf_marian_model(
            Path(folder), read_json(Path(folder) / "config.json"), Options()
        )
    decoding = Decoding(beam=setting.beam, max_ratio=0.0, max_extra=setting.limit)
    return Pair(model.to(torch_device()), Task(config, decoding), jax.device_put(params))


def random_sources(setting: Translation) -> list[np.ndarray]:
    """Random ids, EOS at the end."""
    random, (shortest, longest) = np.random.default_rng(setting.seed), setting.source
    lengths = random.integers(shortest, longest + 1, setting.sentences)
    return [
        np.append(random.integers(1, setting.vocab - 1, length), EOS).astype(np.int32)
        for length in lengths
    ]


def as_text(ids: np.ndarray) -> str:
    """The ids before EOS as words."""
    return " ".join(str(token) for token in ids[: list(ids).index(EOS)])


def their_translations(
    pair: Pair, sources: Sequence[np.ndarray], masks_MAH: np.ndarray
) -> list[list[str]]:
    """Of every sentence under each mask."""
    found = [generate(pair.theirs, pair.task, sources, mask_AH) for mask_AH in masks_MAH]
    return [[as_text(ids_T) for ids_T in ids_NT] for ids_NT in found]


def their_grid(
    pair: Pair, sources: Sequence[np.ndarray], references: Sequence[str], masks_MAH: np.ndarray
) -> np.ndarray:
    """BLEU under each mask `[M]`."""
    texts = their_translations(pair, sources, masks_MAH)
    return np.array([METRIC.score(METRIC.statistics(text, references).sum(0)) for text in texts])


def our_translations(
    pair: Pair, made: Sequence[Batch], masks_MAH: np.ndarray, chunk: int
) -> list[list[str]]:
    """Of every sentence under each mask."""
    found = evaluate_grid(pair.task, pair.params, made, masks_MAH, chunk=chunk)["translation"]
    return [[as_text(ids_T) for ids_T in ids_NT] for ids_NT in found]


def our_grid(
    pair: Pair,
    made: Sequence[Batch],
    references: Sequence[str],
    masks_MAH: np.ndarray,
    *,
    chunk: int,
) -> np.ndarray:
    """BLEU under each mask `[M]`; the grid also gives the loss under teacher forcing, which the
    other side does not compute."""

    def counted(batch: Batch, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        own = [references[n] for n in batch["index_B"]]
        return {
            "bleu": np.stack(
                [
                    METRIC.statistics([as_text(ids_T) for ids_T in ids_BT], own)
                    for ids_BT in values["translation"]
                ]
            )
        }

    return METRIC.score(
        Grid(pair.task, pair.params, made, masks_MAH, counted).evaluate(chunk)["bleu"].sum(1)
    )


def agreement(
    pair: Pair,
    sources: Sequence[np.ndarray],
    made: Sequence[Batch],
    masks_MAH: np.ndarray,
    chunk: int,
) -> dict[str, float]:
    """The share of equal translations; SystemExit if it is low, or if the masks hardly change a
    translation."""
    found = our_translations(pair, made, masks_MAH, chunk)
    expected = their_translations(pair, sources, masks_MAH)
    same = float(np.mean(np.array(found) == np.array(expected)))
    changed = float(np.mean(np.array(expected[1:]) != np.array(expected[0])))
    if same < 0.9 or changed < 0.1:
        raise SystemExit(
            f"{same:.1%} of the translations are the same, and masks change {changed:.1%}: "
            "nothing was timed"
        )
    words = np.mean([len(text.split()) for texts in expected for text in texts])
    return {"equal translations": same, "changed by a mask": changed, "mean length": float(words)}


def main(setting: Translation) -> None:
    prepare()
    pair, sources = load_pair(setting), random_sources(setting)
    present_AH = pair.task.present_AH
    masks_MAH = np.concatenate([present_AH[None], heads.one_off(present_AH)])
    references = their_translations(pair, sources, masks_MAH[:1])[0]
    targets = [np.array([*map(int, text.split()), EOS], np.int32) for text in references]
    pairs = Pairs(
        "random",
        "test",
        tuple(sources),
        tuple(targets),
        tuple(references),
        np.arange(len(sources)),
        pair.task.config.pad,
    )
    made = batches(pairs, size=setting.sentences, buckets=[int(pairs.length_N.max())])
    agree = agreement(
        pair,
        sources,
        made,
        spread_over(masks_MAH, setting.sample),
        min(setting.chunk, setting.sample),
    )
    ours = functools.partial(our_grid, pair, made, references, chunk=setting.chunk)
    sides = {
        "our grid": sample(ours, masks_MAH, setting.ours, setting.chunk),
        "transformers' generate": sample(
            functools.partial(their_grid, pair, sources, references), masks_MAH, setting.sample
        ),
    }
    unit = (
        f"BLEU of {len(masks_MAH)} masks (the whole model, and each head off) on {len(sources)} "
        "sentences"
    )
    ratios = [Ratio("transformers' generate", "our grid", ">= 10")]
    compare(setting, unit, sides, ratios, {"masks": len(masks_MAH), "agreement": agree})
