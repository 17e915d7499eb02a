"""Tiny translation models, batches of mixed length, and what is compared with other libraries."""

import contextlib
import functools

import jax
import numpy as np

from hp_jax import heads
from hp_jax.architecture import Seq2SeqConfig
from hp_jax.formats.huggingface import marian
from hp_jax.formats.model import load_model
from hp_jax.formats.reading import Options
from hp_jax.models.seq2seq import Seq2Seq
from hp_jax.models.translation import Translation
from hp_jax.storage.files import read_json

SIZES = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_heads": 4,
    "decoder_heads": 4,
    "cross_heads": 4,
    "width": 16,
}
CONFIG = Seq2SeqConfig(
    source_vocab=20,
    target_vocab=20,
    eos=2,
    pad=1,
    start=2,
    never=(1,),
    encoder_ffn=24,
    decoder_ffn=24,
    **SIZES,
)
TASK = Translation(CONFIG)


def sentences(count, vocab, *, eos, first, longest, seed):
    """Random ids from `first` on, of mixed length, EOS at the end."""
    random = np.random.default_rng(seed)
    lengths = random.permutation(np.linspace(2, longest - 1, count).astype(int))
    return [
        np.append(random.integers(first, vocab, length), eos).astype(np.int32) for length in lengths
    ]


def make_batch(sources, targets, *, pad, width):
    """The batch of these pairs, padded on the right to `width`."""

    def padded(side):
        return np.stack([np.pad(ids, (0, width - len(ids)), constant_values=pad) for ids in side])

    return {
        "source_BS": padded(sources),
        "source_length_B": np.array([len(ids) for ids in sources], np.int32),
        "target_BT": padded(targets),
        "target_length_B": np.array([len(ids) for ids in targets], np.int32),
        "weight_B": np.ones(len(sources), np.float32),
        "index_B": np.arange(len(sources), dtype=np.int32),
    }


@functools.partial(jax.jit, static_argnames="task")
def _log_probs(task, params, batch, mask_AH):
    named = dict(zip(task.rows, heads.gates(mask_AH, task.present_AH), strict=True))
    inputs = batch["source_BS"], batch["source_length_B"], batch["target_BT"], named
    return jax.nn.log_softmax(Seq2Seq(task.config).apply({"params": params}, *inputs))


def log_probs(task, params, batch, mask_AH):
    """Log-probabilities `[B, T, V]` under teacher forcing."""
    return np.asarray(_log_probs(task, params, batch, np.asarray(mask_AH)))


@functools.partial(jax.jit, static_argnames=("task", "decoding"))
def _translate(task, params, batch, mask_AH, decoding):
    return task.translate(params, batch, heads.gates(mask_AH, task.present_AH), decoding)


def translate(task, params, batch, mask_AH, decoding):
    """Of each sentence the hypotheses, the best first: (ids with EOS, score)."""
    found = jax.device_get(_translate(task, params, batch, np.asarray(mask_AH), decoding))
    return [
        [
            (before_eos(ids, task.config.eos), float(score))
            for ids, score in zip(*sentence, strict=True)
            if np.isfinite(score)
        ]
        for sentence in zip(*found, strict=True)
    ]


def before_eos(ids, eos):
    """Ids up to the first EOS, and that."""
    ids = [int(i) for i in ids]
    return ids[: ids.index(eos) + 1]


def some_masks(task):
    """The full mask, one head off in each kind of row, each row off, and heads off all over the
    model."""
    full = task.present_AH
    one_off = heads.one_off(full)
    return [
        full,
        *one_off[1::5],
        *heads.rows_off(full),
        *heads.random_off(jax.random.key(3), full, 9, 2),
    ]


def real(batch):
    """Which target positions hold tokens `[B, T]`."""
    return np.arange(batch["target_BT"].shape[1]) < batch["target_length_B"][:, None]


@contextlib.contextmanager
def masked(model, task, mask_AH):
    """A PyTorch model, with modules named as in fairseq, whose output projections do not see the
    heads that are off."""
    before = {}
    for row, mask_H, count in zip(
        task.rows, np.asarray(mask_AH), task.present_AH.sum(1), strict=True
    ):
        kind, _, layer = row.partition(".")
        module = (model.encoder if kind == "enc" else model.decoder).layers[int(layer)]
        weight = (module.encoder_attn if kind == "cross" else module.self_attn).out_proj.weight.data
        before[row] = weight, weight.clone()
        weight.view(len(weight), count, -1)[:, ~mask_H[:count]] = 0
    yield
    for weight, whole in before.values():
        weight.copy_(whole)


def load_hf_marian_model(folder):
    """A Hugging Face folder's config and parameters, whether it has a text side or not."""
    return marian.load_hf_marian_model(folder, read_json(folder / "config.json"), Options())


def load_hf_marian(folder):
    """A Hugging Face folder's config, parameters and codec."""
    model = load_model(str(folder))
    return model.config, model.params, model.text
