"""Exported models: the same function, read again or served without hp_jax; refused, or not there at
all, if it cannot be."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import load_classifier, random_params
from tiny_export import (
    LINES,
    batch_of_lines,
    classifier,
    fairseq_text,
    hf_marian,
    marian,
    two_masks,
    without,
)
from tiny_marian import VARIANTS, make_tensors
from tiny_translation import CONFIG, translate

from hp_jax import heads
from hp_jax.architecture import Decoding
from hp_jax.cli import main
from hp_jax.formats import safetensors
from hp_jax.formats.export import FORMATS, export
from hp_jax.formats.marian.file import read_marian
from hp_jax.formats.model import Model, load_model
from hp_jax.models.translation import Translation
from hp_jax.removal import pad_heads

DECODING = Decoding(beam=3, max_ratio=1.0, max_extra=3)


@functools.partial(jax.jit, static_argnames="task")
def logits(task, params, batch):
    return task.logits(params, batch, heads.gates(task.present_AH, task.present_AH))


def texts(rows, length):
    """Random ids, the first row shorter."""
    random = np.random.default_rng(rows)
    lengths = np.array([length - 1, *[length] * (rows - 1)], np.int32)
    types = np.zeros((rows, length), np.int32)
    return {
        "tokens_BT": random.integers(1, 18, (rows, length), np.int32),
        "types_BT": types,
        "length_B": lengths,
    }


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A classifier with an empty row."""
    model = classifier("bert", tmp_path_factory.mktemp("bert"))
    return without(model, two_masks(model.task.present_AH)[0])


@pytest.fixture(scope="module")
def ssru(tmp_path_factory):
    """A translation model with an empty row."""
    model = marian("ssru", tmp_path_factory.mktemp("ssru") / "model")
    return without(model, two_masks(model.task.present_AH)[0])


def check_equal(found, expected):
    assert found.config == expected.config
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


def padded(model):
    return Model(*pad_heads(model.config, model.params), model.text)


# --- Formats -------------------------------------------------------------------------------------


def test_safetensors_are_read_again(bert, ssru, tmp_path):
    export(bert, tmp_path / "bert", "safetensors")
    found = load_model(str(tmp_path / "bert"))
    check_equal(found, bert)
    assert found.text.to_str() == bert.text.to_str()
    with pytest.raises(
        ValueError, match=r"has the labels \('a', 'b', 'c'\), but the data has \('x', 'y', 'z'\)"
    ):
        load_classifier(tmp_path / "bert", ("x", "y", "z"))
    export(ssru, tmp_path / "ssru", "safetensors")
    found = load_model(str(tmp_path / "ssru"))
    check_equal(found, ssru)
    assert [ids.tolist() for ids in found.text.encode_source(LINES)] == [
        ids.tolist() for ids in ssru.text.encode_source(LINES)
    ]
    assert "encoder_1/attention/out/bias" in load_file(tmp_path / "ssru/model.safetensors")
    assert "encoder_1/attention/out/kernel" not in load_file(tmp_path / "ssru/model.safetensors")


def test_faults_in_safetensors_are_named(bert, tmp_path):
    folder = tmp_path / "bert"
    export(bert, folder, "safetensors")
    file, tensors = folder / "model.safetensors", load_file(folder / "model.safetensors")
    for changed, message in (
        (
            {"pool/bias": np.zeros(3, np.float32)},
            r"parameter pool/bias has shape \(3,\), but config.json implies \(16,\)",
        ),
        (
            {"pool/more": np.zeros(3, np.float32)},
            r"parameter pool/more has shape \(3,\), but config.json implies None",
        ),
    ):
        save_file(tensors | changed, file)
        with pytest.raises(ValueError, match=message):
            load_model(str(folder))
    save_file({name: tensor for name, tensor in tensors.items() if name != "pool/bias"}, file)
    with pytest.raises(
        ValueError, match=r"parameter pool/bias has shape None, but config.json implies \(16,\)"
    ):
        load_model(str(folder))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        load_model(str(folder))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_hugging_face_folders_are_read_again(family, tmp_path):
    """Rectangular: with zeros in the whole shape; ragged: the same heads, and one of zeros in the
    empty row."""
    whole = classifier(family, tmp_path)
    mask_AH = two_masks(whole.task.present_AH)[0]
    small = without(whole, mask_AH)
    export(small, tmp_path / "hf", "hf")
    check_equal(load_model(str(tmp_path / "hf")), padded(small))
    export(small, tmp_path / "hf-ragged", "hf-ragged")
    found = load_model(str(tmp_path / "hf-ragged"))
    assert found.text.get_vocab() == small.text.get_vocab()
    assert found.text.encode(*LINES[:2]).ids == small.text.encode(*LINES[:2]).ids
    assert list(found.config.kept) == [numbers or (0,) for numbers in small.config.kept]
    assert not any(
        leaf.any() for leaf in jax.tree.leaves(found.params["layer_1"]["attention"] | {"out": ()})
    )
    check_equal(without(found, mask_AH), small)
    path = tmp_path / "hf-ragged/config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"pruned_heads": {"0": [4]}}))
    with pytest.raises(ValueError, match=r"pruned_heads \[4\] of layer 0, but 3 layers of 4 heads"):
        load_model(str(tmp_path / "hf-ragged"))


@pytest.mark.parametrize("separate", [False, True])
def test_hugging_faces_marian_is_read_again(separate, tmp_path):
    whole = hf_marian(separate)
    export(whole, tmp_path / "whole", "hf")
    found = load_model(str(tmp_path / "whole"))
    check_equal(found, whole)
    assert found.text.target_vocab == whole.text.target_vocab
    for line in LINES:
        assert found.text.decode(found.text.encode_target([line])[0]) == line


@pytest.mark.parametrize("variant", VARIANTS)
def test_marians_files_are_read_again(variant, tmp_path):
    """Whole, as the file was; and with zeros for removed heads."""
    whole = marian(variant, tmp_path / "model")
    export(whole, tmp_path / "whole", "marian")
    tensors, settings = read_marian(tmp_path / "whole/model.npz")
    expected = make_tensors(VARIANTS[variant])
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor)
    assert VARIANTS[variant] | {"version": None} == {
        name: settings.get(name) for name in VARIANTS[variant]
    }
    small = without(whole, two_masks(whole.task.present_AH)[0])
    export(small, tmp_path / "padded", "marian")
    check_equal(load_model(str(tmp_path / "padded")), padded(small))


# --- Programs ------------------------------------------------------------------------------------

CHILD = """
import runpy, sys
import numpy as np
sys.modules["hp_jax"] = None
try:
    import hp_jax
except ImportError:
    pass
else:
    raise SystemExit("hp_jax can be imported")
given, found, size = dict(np.load(sys.argv[1])), {}, {}
for folder in sys.argv[3:]:
    model = runpy.run_path(folder + "/serve.py")["model"]
    name = folder.rpartition("/")[2]
    for case in sorted({key.split(".")[1] for key in given if key.startswith(name + ".")}):
        inputs = [given[f"{name}.{case}.{i}"] for i in range(9) if f"{name}.{case}.{i}" in given]
        found |= {f"{name}.{case}.{i}": np.asarray(out) for i, out in enumerate(model(*inputs))}
np.savez(sys.argv[2], **found)
"""


def test_programs_need_no_hp_jax(bert, ssru, tmp_path):
    """A classifier at two batch sizes and lengths, beam search at two batch sizes, in a process of
    their own."""
    export(bert, tmp_path / "bert", "stablehlo")
    export(ssru, tmp_path / "ssru", "stablehlo", decoding=DECODING, source_length=32)
    batches = [texts(2, 5), texts(3, 9)]
    given = {
        f"bert.{case}.{i}": array
        for case, batch in enumerate(batches)
        for i, array in enumerate(batch.values())
    }
    whole = batch_of_lines(ssru)
    sources = np.pad(
        whole["source_BS"],
        ((0, 0), (0, 32 - whole["source_BS"].shape[1])),
        constant_values=ssru.config.pad,
    )
    for case, rows in enumerate((1, 3)):
        given |= {
            f"ssru.{case}.0": sources[:rows],
            f"ssru.{case}.1": whole["source_length_B"][:rows],
        }
    np.savez(tmp_path / "given.npz", **given)
    arguments = [str(tmp_path / name) for name in ("given.npz", "found.npz", "bert", "ssru")]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    for case, batch in enumerate(batches):
        np.testing.assert_allclose(
            found[f"bert.{case}.0"], logits(bert.task, bert.params, batch), atol=1e-5
        )
    expected = translate(ssru.task, ssru.params, whole, ssru.task.present_AH, DECODING)
    for case, rows in enumerate((1, 3)):
        tokens, scores = found[f"ssru.{case}.0"], found[f"ssru.{case}.1"]
        for sentence, sentence_scores, hypotheses in zip(
            tokens, scores, expected[:rows], strict=True
        ):
            assert [
                ids[: len(own)].tolist() for ids, (own, _) in zip(sentence, hypotheses, strict=True)
            ] == [own for own, _ in hypotheses]
            np.testing.assert_allclose(
                sentence_scores, [score for _, score in hypotheses], atol=1e-5
            )
    described = json.loads((tmp_path / "ssru/config.json").read_text())
    assert described["inputs"]["source"] == {"shape": ["b", "32"], "dtype": "int32"}
    assert described["outputs"]["scores"] == {"shape": ["b", "3"], "dtype": "float32"}
    described = json.loads((tmp_path / "bert/config.json").read_text())
    assert described["outputs"] == {"logits": {"shape": ["b", "3"], "dtype": "float32"}}
    assert (described["labels"], described["platforms"]) == (
        ["a", "b", "c"],
        ["cpu", "cuda", "tpu"],
    )
    assert (
        len([line for line in (tmp_path / "bert/serve.py").read_text().split("\n") if line]) <= 10
    )
    assert (tmp_path / "bert/tokenizer.json").is_file()
    with pytest.raises(
        ValueError, match="has a compiled program: expected the model that it was exported from"
    ):
        load_model(str(tmp_path / "bert"))


# --- Refusals ------------------------------------------------------------------------------------


def test_what_a_format_cannot_hold_is_refused_and_leaves_nothing(bert, ssru, tmp_path):
    trained = hf_marian(False)
    pre = dataclasses.replace(trained.config, norm="pre", encoder_heads=2)
    pre = Model(pre, random_params(Translation(pre)), trained.text)
    learned = dataclasses.replace(CONFIG, positions="learned", encoder_heads=2, epsilon=1e-6)
    learned = Model(learned, random_params(Translation(learned)), fairseq_text(learned))
    distil = dataclasses.replace(bert.config, family="distilbert", types=0)
    cases = [
        (bert, "fairseq", "there is no fairseq of a classifier; its formats are hf, hf-ragged"),
        (bert, "marian", "there is no marian of a classifier; its formats are hf, hf-ragged"),
        (bert, "onnx", "there is no format 'onnx'; expected one of hf, hf-ragged"),
        (
            Model(distil, bert.params, bert.text),
            "hf",
            "DistilBert cannot hold this model: it has epsilon 1e-12, not 1e-06",
        ),
        (
            ssru,
            "hf",
            r"Hugging Face's Marian cannot hold this model: .*decoder_start_token_id: expected .*",
        ),
        (
            ssru,
            "hf-ragged",
            "there is no hf-ragged of a translation model; its formats are hf, fairseq",
        ),
        (
            ssru,
            "fairseq",
            r"needs a text side of the kind fairseq \(bpecodes, .* is of the kind sentencepiece",
        ),
        (pre, "hf", r"Hugging Face's Marian cannot hold this model: it has norm 'post', not 'pre'"),
        (pre, "marian", "Marian needs a text side of the kind sentencepiece"),
        (learned, "hf", "Hugging Face's Marian cannot hold .* positions 'sinusoid', not 'learned'"),
        (
            learned,
            "fairseq",
            "fairseq cannot hold this model: it has first_position 2, not 0; it has epsilon "
            "1e-05, not 1e-06",
        ),
        (ssru, "stablehlo", "a source length of 0 does not fit"),
    ]
    for model, to, message in cases:
        with pytest.raises(ValueError, match=message):
            export(model, tmp_path / "out", to, source_length=0)
        assert list(tmp_path.iterdir()) == []


def test_fairseq_files_need_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    config = dataclasses.replace(CONFIG, positions="sinusoid_half", first_position=2)
    model = Model(config, random_params(Translation(config)), fairseq_text(config))
    with pytest.raises(
        ImportError, match="writing a model of fairseq needs PyTorch: pip install torch"
    ):
        export(model, tmp_path / "out", "fairseq")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_whole_or_what_it_was(bert, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    export(bert, folder, "safetensors")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        ValueError,
        match=r"out is not empty; choose another folder, delete it, or overwrite it with --force",
    ):
        export(bert, folder, "hf")

    def fail(*_, **__):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors, "save_flat", fail)
        for name in ("out", "new"):
            with pytest.raises(OSError, match="the disk is full"):
                export(bert, tmp_path / name, "safetensors", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    export(bert, folder, "hf", force=True)
    assert (folder / "tokenizer_config.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="home is not replaced, since it has no hp_jax_files"):
        export(bert, tmp_path / "home", "hf", force=True)


def test_one_command_exports(bert, tmp_path, capsys):
    export(bert, tmp_path / "in", "safetensors")
    arguments = ["export", str(tmp_path / "in"), str(tmp_path / "out"), "--to"]
    assert main([*arguments, "hf-ragged"]) == 0
    assert load_model(str(tmp_path / "out")).config.kept[0] == bert.config.kept[0]
    assert main([*arguments, "hf"]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main([*arguments, "hf", "--force"]) == 0
    assert load_model(str(tmp_path / "out")).config.kept == ()
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert f"{{{','.join(FORMATS)}}}" in capsys.readouterr().out.replace("\n", "")
