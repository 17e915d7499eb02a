"""The door of Hugging Face's classifiers: whatever is wrong in a file is one sentence with its
place, at once."""

import copy
import json
import logging
import math
import re
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from doors import WRONG, refusal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tiny import WORDS, write_hf_folder

from hp_jax.formats.huggingface.bert import read_config
from hp_jax.formats.model import load_model
from hp_jax.formats.reading import Options

SIZES = (
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_size",
    "intermediate_size",
)
OTHERS = {
    "layer_norm_eps": (-1e-12, math.nan, "x"),
    "hidden_dropout_prob": (1.0, -0.1, math.nan, "x"),
    "classifier_dropout": (2, "x", [0.1]),
    "hidden_act": ("mish", 3, None),
    "pad_token_id": (10**6, -1, 0.5, "0"),
    "id2label": ({"0": "a", "1": "a"}, {"0": "a", "2": "b"}, {"a": "b", "c": "d"}, [], {"0": 3}),
    "pruned_heads": ({"7": [0]}, {"0": [9]}, {"0": 3}, {"x": []}, [1]),
    "architectures": (["BertForTokenClassification"], ["BertForMultipleChoice"], "x", [3], 7),
    "position_embedding_type": ("relative_key", 3),
    "problem_type": ("multi_label_classification", "regression"),
    "is_decoder": (True, 1.5),
    "add_cross_attention": (True,),
    "auto_map": ({"AutoModel": "mine.Model"},),
    "quantization_config": ({"bits": 4},),
    "model_type": ("t5", None, 3, ["bert"]),
}
"""Values that make another model, or none, of settings that have other good ones."""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder, its config.json and its tensors."""
    folder = tmp_path_factory.mktemp("door") / "model"
    write_hf_folder(folder, head=True)
    return (
        folder,
        json.loads((folder / "config.json").read_text()),
        load_file(folder / "model.safetensors"),
    )


def refused(folder, raw=None, tensors=None):
    """The one sentence with which a folder with other settings or tensors is refused."""
    before = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    try:
        if raw is not None:
            (folder / "config.json").write_text(json.dumps(raw))
        if tensors is not None:
            save_file(tensors, folder / "model.safetensors")
        return refusal(folder)
    finally:
        for name, content in before.items():
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", SIZES)
def test_sizes(good, name):
    folder, raw, _ = good
    for wrong in WRONG:
        if wrong != raw[name]:
            refused(folder, raw | {name: wrong})
    if name != "type_vocab_size":  # which BERT's models need not say
        assert name in refused(folder, {one: raw[one] for one in raw if one != name})


@pytest.mark.parametrize(
    ("name", "wrong"), [(n, one) for n, some in OTHERS.items() for one in some]
)
def test_settings(good, name, wrong):
    folder, raw, _ = good
    sentence = refused(folder, raw | {name: wrong})
    said = {"id2label": "label", "architectures": "says that this is a", "pad_token_id": "pad"}
    assert name in sentence or said[name] in sentence


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_json_is_a_model_or_a_sentence(good, data):
    folder, raw, _ = good
    path = folder / "config.json"
    before = path.read_bytes()
    changed = copy.deepcopy(raw)
    names = st.sampled_from([*raw, *OTHERS])
    values = st.recursive(
        st.sampled_from(WRONG[:-3]) | st.integers(-3, 40),
        lambda below: st.lists(below, max_size=2) | st.dictionaries(st.sampled_from("01a"), below),
        max_leaves=3,
    )
    changed |= data.draw(st.dictionaries(names, values, max_size=2))
    path.write_text(json.dumps(changed))
    try:
        load_model(str(folder))
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        path.write_bytes(before)


# --- tensors -------------------------------------------------------------------------------------

NAME = "bert.encoder.layer.1.output.dense.weight"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x * np.nan, "has 384 numbers that are not finite"),
        (lambda x: np.full_like(x, np.inf), "has 384 numbers that are not finite"),
        (lambda x: np.full(x.shape, 1e300), "has 384 numbers that are not finite in float32"),
        (lambda x: x.astype(np.int64), "has numbers of type int64"),
        (lambda x: x > 0, "has numbers of type bool"),
        (lambda x: x[:-1], r"has shape \(15, 24\), but config.json implies \(16, 24\)"),
        (lambda x: x[None], "has shape"),
        (lambda x: np.zeros(0, np.float32), "has shape"),
    ],
)
def test_tensors(good, change, sentence):
    folder, _, tensors = good
    changed = change(tensors[NAME])
    assert changed is not tensors[NAME]

    found = refused(folder, tensors=tensors | {NAME: np.ascontiguousarray(changed)})
    assert re.search(f"tensor .*{NAME} {sentence}", found)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_types_of_floating_point_are_read(good, dtype):
    folder, _, tensors = good
    before = (folder / "model.safetensors").read_bytes()
    save_file(tensors | {NAME: tensors[NAME].astype(dtype)}, folder / "model.safetensors")
    found = load_model(str(folder)).params["layer_1"]["ffn"]["outer"]["kernel"]
    np.testing.assert_allclose(found.T, tensors[NAME], atol=5e-3)
    (folder / "model.safetensors").write_bytes(before)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_understood(good, tmp_path, prefix):
    folder, _, tensors = good
    plain = load_model(str(folder)).params
    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    save_file(
        {f"{prefix}{name}": tensor for name, tensor in tensors.items()},
        tmp_path / "model.safetensors",
    )
    jax.tree.map(np.testing.assert_array_equal, plain, load_model(str(tmp_path)).params)
    doubled = tensors | {f"module.{NAME}": tensors[NAME]}
    assert f"module.{NAME}" in refused(folder, tensors=doubled)


def test_another_prefix_is_named(good):
    folder, _, tensors = good
    found = refused(folder, tensors={f"net.{name}": one for name, one in tensors.items()})
    assert "found net.bert.embeddings.word_embeddings.weight: take 'net.bert.' off" in found
    assert "found none like it" in refused(folder, tensors={"x": np.zeros(1, np.float32)})


def test_settings_that_nothing_reads_are_named(good, caplog):
    folder, raw, _ = good
    changed = raw | {"alibi": True, "use_cache": True, "torch_dtype": "float16"}
    with caplog.at_level(logging.INFO, "hp_jax"):
        read_config(changed, "bert", ("no", "yes"), Options(), folder)
    assert "transformers' bert does not read alibi" in caplog.text


def test_two_names_of_one_setting():
    raw = {"vocab_size": 9, "max_position_embeddings": 8, "hidden_dim": 4, "n_heads": 1}
    raw |= {"hidden_size": 4, "n_layers": 2}
    found = read_config(raw, "distilbert", ("no", "yes"), Options(), Path())
    assert (found.width, found.layers) == (4, 2)
    with pytest.raises(ValueError, match="dim is 5, but hidden_size, which means the same, is 4"):
        read_config(raw | {"dim": 5}, "distilbert", ("no", "yes"), Options(), Path())


def test_another_librarys_wrapping_is_understood(good, tmp_path):
    torch = pytest.importorskip("torch")
    folder, _, tensors = good
    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights = {name: torch.nn.Parameter(torch.tensor(one)) for name, one in tensors.items()}
    for content in (weights, {"state_dict": weights, "epoch": 3}, {"model": weights}):
        torch.save(content, tmp_path / "pytorch_model.bin")
        found = load_model(str(tmp_path)).params
        jax.tree.map(np.testing.assert_array_equal, load_model(str(folder)).params, found)
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="expected tensors by name, but found list"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("layers", [3, 10**4])
def test_layers_that_are_not_there_cost_no_time(good, layers):
    folder, raw, _ = good
    found = refused(folder, raw | {"num_hidden_layers": layers})
    assert found.endswith(f"has tensors of 2 layers, but config.json says {layers}")


# --- what indexes a table ------------------------------------------------------------------------


def test_a_token_beyond_the_embedding(good):
    folder, _, _ = good
    path = folder / "vocab.txt"
    before = path.read_text()
    path.write_text(before + "more\n")
    count = 5 + len(WORDS)
    assert f"'more' has the id {count}, but the model's embedding has {count} rows" in refused(
        folder
    )
    path.write_text(before)
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": count}))
    assert f"'<new>' has the id {count}, but" in refused(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": count + 4}))
    assert "should have the id" in refused(folder)
    (folder / "added_tokens.json").unlink()


def test_the_same_of_a_folder_of_our_own(good, tmp_path):
    folder, _, _ = good
    model = load_model(str(folder))
    model.save(tmp_path / "own", {}, flat=True)
    model.text.add_tokens(["beyond"])
    model.family.save_text(tmp_path / "own", model.text)
    with pytest.raises(ValueError, match="own: the tokenizer's token 'beyond' has the id"):
        load_model(str(tmp_path / "own"))


# --- the tokenizer's settings --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"truncation_side": "left"}, "truncation_side is 'left', which makes other token ids"),
        ({"do_basic_tokenize": False}, "do_basic_tokenize is False"),
        ({"never_split": ["film"]}, r"never_split is \('film',\)"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "tokenizer_class is 'BertJapanese"),
        ({"do_lower_case": "yes"}, "do_lower_case: expected true or false"),
        ({"cls_token": 3}, "cls_token: expected"),
        ({"cls_token": "[none]"}, r"special token '\[none\]'"),
        ({"added_tokens_decoder": {"x": {"content": "y"}}}, "expected ids, but found 'x'"),
        ({"added_tokens_decoder": {"4": {"content": "y"}}}, "'y' should have the id 4"),
        ({"added_tokens_decoder": {"4": {"lstrip": True}}}, "expected a setting content"),
        ({"added_tokens_decoder": [1]}, "added_tokens_decoder: expected an object"),
    ],
)
def test_what_would_make_other_ids_is_refused(good, changes, sentence):
    folder, _, _ = good
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(changes))
    try:
        assert re.search(sentence, refusal(folder))
    finally:
        path.unlink()
