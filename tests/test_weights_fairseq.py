"""fairseq's files: what is wrong with one, or is not supported, is said in one sentence that names
it; none is run."""

import argparse
import logging
import re

import jax
import numpy as np
import pytest
from tiny_translation import load_hf_marian_model
from translation_files import ARGS, EMBEDDING, D, V, write_fairseq, write_marian

from hp_jax.cli import main
from hp_jax.formats.fairseq.read import load_fairseq, load_fairseq_model
from hp_jax.formats.model import load_model

torch = pytest.importorskip("torch")


@pytest.fixture
def fairseq(tmp_path):
    return tmp_path / "model.pt", write_fairseq(tmp_path / "model.pt")


@pytest.fixture
def marian(tmp_path):
    return tmp_path, write_marian(tmp_path)


def test_both_libraries_files_give_the_same_parameters(marian, fairseq):
    _, ours = load_hf_marian_model(marian[0])
    config, params = load_fairseq_model(fairseq[0])
    assert (config.start, config.pad, config.never, config.eos, config.first_position) == (
        2,
        1,
        (1,),
        2,
        2,
    )
    ours.pop("output_bias")
    jax.tree.map(np.testing.assert_array_equal, params, ours)


def test_embeddings_that_are_not_shared(marian, fairseq):
    source, target, output = (
        np.random.default_rng(2).normal(size=(3, V + 1, D)) + np.arange(3)[:, None, None]
    ).astype(np.float32)
    folder, change = marian
    model = {
        "model.encoder.embed_tokens.weight": source[:V],
        "model.decoder.embed_tokens.weight": target,
    }
    bias = {"final_logits_bias": np.zeros((1, V + 1), np.float32), "lm_head.weight": output}
    settings = {
        "share_encoder_decoder_embeddings": False,
        "decoder_vocab_size": V + 1,
        "tie_word_embeddings": False,
    }
    change(model | bias, ["model.shared.weight"], **settings)
    path, change = fairseq
    named = {
        f"{side}.embed_tokens.weight": x
        for side, x in (("encoder", source[:V]), ("decoder", target))
    }
    change(named | {"decoder.embed_out": output}, share_all_embeddings=False)
    for config, params in (load_hf_marian_model(folder), load_fairseq_model(path)):
        assert (config.source_vocab, config.target_vocab) == (V, V + 1)
        np.testing.assert_array_equal(params["source_embedding"]["embedding"], source[:V])
        np.testing.assert_array_equal(params["target_embedding"]["embedding"], target)
        np.testing.assert_array_equal(params["output"]["kernel"], output.T)


FUSED = {
    "encoder.layers.0.self_attn.in_proj_weight": np.zeros((3 * D, D), np.float32),
    "encoder.layers.0.self_attn.in_proj_bias": np.zeros(3 * D - 1, np.float32),
}
PARTS = [
    f"encoder.layers.0.self_attn.{part}_proj.{kind}"
    for part in "qkv"
    for kind in ("weight", "bias")
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"without": ["encoder.layers.1.fc2.bias"]},
            r"model.pt has no tensor encoder.layers.1.fc2.bias, expected .* \(8,\)",
        ),
        (
            {"more": FUSED, "without": PARTS},
            r"in_proj_bias \(v\) has shape \(7,\), but its settings implies \(8,\)",
        ),
        (
            {"more": {"decoder.layers.0.self_attn.bias_k": np.zeros(D)}},
            r"no place in .* decoder.layers.0.self_attn.bias_k",
        ),
        (
            {"more": {"decoder.embed_tokens.weight": EMBEDDING + 1}},
            "should be one tensor, but they differ",
        ),
        (
            {"encoder_layers": 1},
            r"no place in a Transformer of 1 encoder and 2 decoder layers, e.g. encoder.layers.1",
        ),
        (
            {"adaptive_softmax_cutoff": "10,20"},
            "adaptive_softmax_cutoff = '10,20', which is not supported",
        ),
        ({"layernorm_embedding": True}, "layernorm_embedding = True, which is not supported"),
        ({"cross_self_attention": True}, "cross_self_attention = True"),
        ({"no_cross_attention": True}, "no_cross_attention = True"),
        ({"adaptive_input": True}, "adaptive_input = True"),
        ({"char_inputs": True}, "char_inputs = True"),
        ({"no_token_positional_embeddings": True}, "no_token_positional_embeddings = True"),
        (
            {"encoder_embed_dim": 16},
            "encoder_embed_dim is 16, but decoder_embed_dim is 8; they should be equal",
        ),
        ({"decoder_output_dim": 4}, "decoder_embed_dim is 8, but decoder_output_dim is 4"),
        (
            {"decoder_normalize_before": True},
            "encoder_normalize_before is False, but decoder_normalize_before is True",
        ),
        ({"arch": "fconv"}, "expected a bilingual Transformer, but it has arch = 'fconv'"),
        ({"arch": "multilingual_transformer"}, "arch = 'multilingual_transformer'"),
        ({"task": "translation_multi_simple_epoch"}, "task = 'translation_multi_simple_epoch'"),
        (
            {"activation_fn": "relu_squared"},
            "activation_fn: expected one of .* but found 'relu_squared'",
        ),
        ({"decoder_layers": None}, "decoder_layers: expected an integer, but found None"),
        ({"cfg": {}}, "neither args nor cfg"),
    ],
)
def test_what_does_not_fit_in_a_fairseq_file_is_named(fairseq, change, message):
    path, apply = fairseq
    apply(**change)
    with pytest.raises(ValueError, match=message):
        load_fairseq_model(path)


def test_fairseqs_buffers_are_named_in_the_log(fairseq, caplog):
    path, change = fairseq
    _, expected = load_fairseq_model(path)
    change(
        {"encoder.version": np.ones(1), "decoder.embed_positions._float_tensor": np.ones(1)},
        cfg={"model": ARGS},
    )
    with caplog.at_level(logging.INFO, "hp_jax"):
        jax.tree.map(np.testing.assert_array_equal, load_fairseq_model(path)[1], expected)
    assert "ignored decoder.embed_positions._float_tensor, encoder.version" in caplog.text


def test_a_hostile_pickle_is_refused_and_runs_nothing(fairseq, tmp_path):
    path, _ = fairseq

    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    whole = torch.load(path, weights_only=False)
    for content in (
        Hostile(),
        whole | {"args": argparse.Namespace(**ARGS, more=Hostile())},
        whole | {"extra_state": Hostile()},
    ):
        torch.save(content, path)
        with pytest.raises(
            ValueError,
            match=(
                r"model.pt cannot be read as a file of plain tensors: it asks for io.open; if "
                r"you"
            ),
        ):
            load_fairseq_model(path)
        assert not (tmp_path / "owned").exists()
    torch.save(whole, path, _use_new_zipfile_serialization=False)
    load_fairseq_model(path)


def test_what_omegaconf_wrote_is_refused_and_the_way_out_is_said(fairseq):
    omegaconf = pytest.importorskip("omegaconf")
    path, change = fairseq
    change(cfg=omegaconf.OmegaConf.create({"model": ARGS}))
    with pytest.raises(
        ValueError,
        match=r"asks for omegaconf\.\S+; .* omegaconf.OmegaConf.to_container\(cfg, resolve=True\)",
    ):
        load_fairseq_model(path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_named(fairseq, share):
    path, _ = fairseq
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        ValueError, match=re.escape(f"{path} cannot be read as a file of plain tensors")
    ):
        load_fairseq_model(path)


def test_a_file_of_something_else_is_named(fairseq):
    path, _ = fairseq
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="expected a fairseq checkpoint with args"):
        load_fairseq_model(path)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing.pt"):
        load_fairseq_model(path.parent / "nothing.pt")


@pytest.fixture
def archive(fairseq):
    """An unpacked archive whose dictionaries fit the model."""
    path, _ = fairseq
    folder = path.parent
    lines = "".join(f"{symbol} {V - i}\n" for i, symbol in enumerate("abcdefgh"))
    for name in ("dict.de.txt", "dict.en.txt"):
        (folder / name).write_text(lines)
    (folder / "bpecodes").write_text("#version: 0.2\na b\n")
    return folder


def test_an_archive(archive, fairseq):
    pytest.importorskip("subword_nmt")
    config, params, codec = load_fairseq(archive)
    assert (config.source_vocab, config.eos, config.pad) == (
        codec.source_vocab,
        codec.eos,
        codec.pad,
    )
    jax.tree.map(np.testing.assert_array_equal, params, load_fairseq_model(fairseq[0])[1])
    (archive / "model.pt").rename(archive / "mine.pt")
    (archive / "bpecodes").rename(archive / "bpe.codes")
    assert load_fairseq(archive)[0] == config
    (archive / "more.pt").write_bytes(b"")
    with pytest.raises(
        FileNotFoundError,
        match=r"expected the model as model.pt, .* or one \*.pt, but found mine.pt, more.pt",
    ):
        load_fairseq(archive)
    (archive / "more.pt").rename(archive / "more")
    (archive / "dict.en.txt").write_text("a 1\n")
    with pytest.raises(
        ValueError,
        match=r"vocabularies have \(12, 5\) tokens, but the model's embeddings \(12, 12\)",
    ):
        load_model(str(archive))
    (archive / "dict.en.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"dict.en.txt"):
        load_fairseq(archive)


def test_one_command_makes_our_own_folder_of_an_archive(archive, tmp_path):
    own = tmp_path / "own"
    assert main(["convert", str(archive), str(own)]) == 0
    config, params, codec = load_fairseq(archive)
    own_model = load_model(str(own))
    found_config, found, found_codec = own_model.config, own_model.params, own_model.text
    assert found_config == config
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert [ids.tolist() for ids in found_codec.encode_source(["ab c-d"])] == [
        ids.tolist() for ids in codec.encode_source(["ab c-d"])
    ]
