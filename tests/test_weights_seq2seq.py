"""Marian folders of Hugging Face: what is wrong with a file, or is not supported, is said in one
sentence that names it."""

import io
import json
import logging

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_translation import load_hf_marian, load_hf_marian_model
from translation_files import EMBEDDING, D, F, V, write_marian

from hp_jax.models.seq2seq import sinusoids


@pytest.fixture
def marian(tmp_path):
    return tmp_path, write_marian(tmp_path)


def test_where_hugging_faces_tensors_go(marian):
    folder, _ = marian
    config, params = load_hf_marian_model(folder)
    tensors = {
        name.removeprefix("model."): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    assert (config.start, config.pad, config.never, config.eos) == (V - 1, V - 1, (V - 1,), 0)
    np.testing.assert_array_equal(params["target_embedding"]["embedding"], EMBEDDING)
    np.testing.assert_array_equal(params["output_bias"], np.ones(V))
    cross, out = (
        tensors[f"decoder.layers.1.encoder_attn.{part}_proj.weight"] for part in ("k", "out")
    )
    np.testing.assert_array_equal(
        params["decoder_1"]["cross"]["key"]["kernel"], cross.T.reshape(D, 4, D // 4)
    )
    np.testing.assert_array_equal(
        params["decoder_1"]["cross"]["out"]["kernel"], out.T.reshape(4, D // 4, D)
    )
    np.testing.assert_array_equal(
        params["encoder_0"]["ffn"]["inner"]["kernel"], tensors["encoder.layers.0.fc1.weight"].T
    )
    norm = params["decoder_0"]["mixer_norm"]["scale"]
    np.testing.assert_array_equal(norm, tensors["decoder.layers.0.self_attn_layer_norm.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"without": ["model.decoder.layers.1.fc2.bias"]},
            r"has no tensor decoder.layers.1.fc2.bias, expected .* \(8,\)",
        ),
        (
            {"more": {"model.encoder.layers.0.fc1.weight": np.zeros((D, F), np.float32)}},
            r"model.encoder.layers.0.fc1.weight has shape \(8, 10\), but config.json implies "
            r"\(10, 8\)",
        ),
        (
            {"more": {"model.extra": np.zeros(1)}},
            r"has 1 tensors with no place in a Transformer of 2 encoder .* model.extra",
        ),
        (
            {"more": {"lm_head.weight": EMBEDDING + 1}},
            r"model.shared.weight and lm_head.weight should be one tensor",
        ),
        (
            {"more": {"model.encoder.embed_positions.weight": np.zeros((9, D))}},
            "other positions than Marian's sinusoids",
        ),
        (
            {"vocab_size": V + 1},
            r"final_logits_bias has shape \(1, 12\), but config.json implies \(1, 13\)",
        ),
        (
            {"model_type": "bart"},
            "model_type is 'bart', which makes another model",
        ),
        ({"normalize_before": True}, "normalize_before is True, which"),
        (
            {"static_position_embeddings": False},
            "static_position_embeddings is False, which",
        ),
        ({"activation_function": "mish"}, "activation_function: expected one of .* found 'mish'"),
        ({"decoder_attention_heads": 3}, "a width of 8 does not divide into 3 heads"),
        ({"pad_token_id": None}, "pad_token_id: expected an integer, but found None"),
    ],
)
def test_what_does_not_fit_in_a_marian_folder_is_named(marian, change, message):
    folder, apply = marian
    apply(**change)
    with pytest.raises(ValueError, match=message):
        load_hf_marian_model(folder)


def test_marians_own_positions_are_named_in_the_log(marian, caplog):
    folder, change = marian
    change(
        {"model.decoder.embed_positions.weight": np.asarray(sinusoids(np.arange(9), D, half=False))}
    )
    with caplog.at_level(logging.INFO, "hp_jax"):
        load_hf_marian_model(folder)
    assert "ignored model.decoder.embed_positions.weight" in caplog.text


def test_a_whole_marian_folder(marian):
    """The SentencePiece models may be any; the vocabulary has to fit the embedding."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder, _ = marian
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c", "c b a"]),
        model_writer=model,
        vocab_size=8,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(model.getvalue())
    pieces = {"</s>": 0, "<unk>": 1} | {f"\u2581{i}": i for i in range(2, V - 1)}
    (folder / "vocab.json").write_text(json.dumps(pieces | {"<pad>": V - 1}))
    config, params, codec = load_hf_marian(folder)
    assert (codec.source_vocab, codec.eos, codec.pad) == (
        config.source_vocab,
        config.eos,
        config.pad,
    )
    jax.tree.map(np.testing.assert_array_equal, params, load_hf_marian_model(folder)[1])
    (folder / "vocab.json").write_text(json.dumps(pieces | {"<pad>": V - 1, "more": V}))
    with pytest.raises(
        ValueError,
        match=r"the vocabularies have \(13, 13\) tokens, but the model's embeddings \(12, 12\)",
    ):
        load_hf_marian(folder)
