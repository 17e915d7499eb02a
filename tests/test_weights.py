"""Model folders: what is wrong with a file is said in one sentence that names it."""

import dataclasses
import json
import logging
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import WORDS, load_classifier, load_hf_bert, write_hf_folder

from hp_jax.formats.tensors import find_folder
from hp_jax.storage.checkpoint import save_model

LABELS = ("negative", "positive")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "model"
    write_hf_folder(folder, head=True)
    return folder


@pytest.fixture
def folder(source, tmp_path):
    return shutil.copytree(source, tmp_path / "model")


def load(folder, labels=LABELS):
    return load_hf_bert(folder, labels)


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_names_without_prefix_give_the_same_parameters(folder):
    _, expected = load(folder)
    change_tensors(
        folder,
        lambda tensors: [
            tensors.update({n.removeprefix("bert."): tensors.pop(n)}) for n in list(tensors)
        ],
    )
    jax.tree.map(np.testing.assert_array_equal, load(folder)[1], expected)


def test_half_precision_files_become_float32(folder):
    _, expected = load(folder)
    change_tensors(
        folder,
        lambda tensors: tensors.update(
            {n: t.astype(ml_dtypes.bfloat16) for n, t in tensors.items()}
        ),
    )
    found = load(folder)[1]
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2**-8), found, expected)


def test_every_tensor_is_used_or_named(folder, caplog):
    extra = {
        "bert.embeddings.position_ids": np.arange(32)[None],
        "cls.predictions.bias": np.zeros(3, np.float32),
    }
    change_tensors(folder, lambda tensors: tensors.update(extra))
    with caplog.at_level(logging.INFO, "hp_jax"):
        load(folder)
    assert "ignored cls.predictions.bias, bert.embeddings.position_ids" in caplog.text
    change_tensors(
        folder,
        lambda tensors: tensors.update(
            {"bert.encoder.layer.2.output.dense.bias": np.zeros(16, np.float32)}
        ),
    )
    with pytest.raises(
        ValueError,
        match=r"no place in a bert of 2 layers, e.g. bert.encoder.layer.2.output.dense.bias",
    ):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("bert.pooler.dense.weight"), r"no tensor pooler.dense.weight"),
        (
            lambda t: t.pop("bert.encoder.layer.1.output.dense.bias"),
            r"no tensor encoder.layer.1.output.dense.bias.*\(16,\)",
        ),
        (
            lambda t: t.update(
                {"bert.encoder.layer.0.attention.self.query.weight": np.zeros((16, 8), np.float32)}
            ),
            r"bert.encoder.layer.0.attention.self.query.weight has shape \(16, 8\), but "
            r"config.json implies \(16, 16\)",
        ),
    ],
)
def test_missing_and_misshaped_tensors_are_named(folder, change, message):
    change_tensors(folder, change)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_truncated_file_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=r"model.safetensors is not a whole safetensors file \([\d,]+ bytes\)"
    ):
        load(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_attention_heads": 5}, "a width of 16 does not divide into 5 heads"),
        ({"num_hidden_layers": 1}, "no place in a bert of 1 layers"),
        ({"model_type": "gpt2"}, "model_type 'gpt2'; supported are bert, roberta"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"hidden_act": "mish"}, "hidden_act: expected one of .* but found 'mish'"),
        (
            {"id2label": {"0": "x", "1": "y", "2": "z"}},
            r"classifies into 3 labels .* the data has 2",
        ),
        (
            {"id2label": {"0": "bad", "1": "good"}},
            r"has the labels \('bad', 'good'\), but the data has",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_named(folder, values, message):
    change_config(folder, **values)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_label_names_come_from_the_config_in_its_own_order(folder):
    change_config(folder, id2label={"0": "POSITIVE", "1": "NEGATIVE"})
    assert load(folder)[0].labels == ("positive", "negative")
    change_config(folder, id2label={"0": "LABEL_0", "1": "LABEL_1"})
    assert load(folder)[0].labels == LABELS


def test_missing_files_are_named(tmp_path, source):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*config.json"):
        load(tmp_path)
    shutil.copy(source / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"neither model.safetensors nor pytorch_model.bin"):
        load(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "part-1.safetensors"}})
    )
    with pytest.raises(FileNotFoundError, match=r"there is no file .*part-1\.safetensors"):
        load(tmp_path)


def test_without_a_network_a_hub_name_is_one_sentence_that_says_what_to_do(monkeypatch):
    import huggingface_hub

    def no_network(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    with pytest.raises(
        FileNotFoundError,
        match=r"could not be fetched .* download the repository where there is a network",
    ):
        find_folder("bert-base-uncased")
    with pytest.raises(FileNotFoundError, match=r"the model folder './nowhere' does not exist"):
        find_folder("./nowhere")


@pytest.fixture
def saved(source, tmp_path):
    config, params, tokenizer = load_classifier(source, LABELS)
    save_model(tmp_path / "ours", dataclasses.asdict(config), params, about={"seed": 0})
    tokenizer.save(str(tmp_path / "ours/tokenizer.json"))
    return tmp_path / "ours", config, params, tokenizer


def test_our_own_folder_round_trips(saved):
    folder, config, params, tokenizer = saved
    found_config, found, found_tokenizer = load_classifier(folder, LABELS)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert found_config == config
    text = " ".join(WORDS[:5])
    assert found_tokenizer.encode(text).ids == tokenizer.encode(text).ids
    with pytest.raises(
        ValueError,
        match=r"has the labels \('negative', 'positive'\), but the data has \('a', 'b'\)",
    ):
        load_classifier(folder, ("a", "b"))


def test_every_file_of_our_own_folder_is_checked_for_its_size(saved):
    folder = saved[0]
    for file in [
        path for path in (folder / "params").rglob("*") if path.is_file() and path.stat().st_size
    ]:
        content = file.read_bytes()
        file.write_bytes(content[:-1])
        with pytest.raises(
            ValueError,
            match=(
                rf"is damaged: {len(content)} bytes were written, {len(content) - 1 or 'none'} "
                r"are"
            ),
        ):
            load_classifier(folder, LABELS)
        file.write_bytes(content)


def test_a_config_with_a_wrong_number_of_heads_is_refused(saved):
    path = saved[0] / "config.json"
    described = json.loads(path.read_text())
    described["config"]["heads"] = 2
    path.write_text(json.dumps(described))
    with pytest.raises(
        ValueError,
        match=(
            r"parameter .*\['key'\]\['bias'\] has shape \(4, 4\), but config.json implies \(2, "
            r"8\)"
        ),
    ):
        load_classifier(saved[0], LABELS)


def test_a_folder_that_version_0_1_wrote_is_read(saved):
    """Its config calls the kernel `attention`, and names neither the family nor a head width."""
    folder, config, params, _ = saved
    described = json.loads((folder / "config.json").read_text())
    described.pop("family", None)
    old = described["config"]
    old["attention"] = old.pop("kernel")
    del old["head_width"]
    (folder / "config.json").write_text(json.dumps(described))
    found_config, found, _ = load_classifier(folder, LABELS)
    assert found_config == config
    jax.tree.map(np.testing.assert_array_equal, found, params)
