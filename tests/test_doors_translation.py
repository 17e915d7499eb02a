"""The doors of translation models: whatever is wrong in a file is one sentence with its place, at
once."""

import copy
import json
import struct

import numpy as np
import pytest
from doors import WRONG, refusal
from tiny_export import hf_marian
from tiny_marian import VARIANTS, make_tensors, make_vocabulary, write_bin, write_npz

from hp_jax.formats.export import export
from hp_jax.formats.model import load_model

SETTINGS = VARIANTS["ssru"]


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    """A folder of Hugging Face's Marian."""
    folder = tmp_path_factory.mktemp("door") / "hf"
    export(hf_marian(separate=False), folder, "hf")
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The same as a folder of ours, its parameters in a file of safetensors."""
    folder = tmp_path_factory.mktemp("door") / "own"
    export(hf_marian(separate=False), folder, "safetensors")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same, its parameters in Orbax's folder."""
    folder = tmp_path_factory.mktemp("door") / "whole"
    hf_marian(separate=False).save(folder, {})
    return folder


@pytest.fixture
def marian(tmp_path):
    """A folder of Marian's own."""
    (tmp_path / "vocab.spm").write_bytes(make_vocabulary())
    return tmp_path


def tried(path, change):
    """The sentence about a JSON file that is changed in place for the time being."""
    before = path.read_bytes()
    raw = json.loads(before)
    try:
        path.write_text(json.dumps(change(raw) or raw))
        return refusal(path.parent)
    finally:
        path.write_bytes(before)


# --- Hugging Face --------------------------------------------------------------------------------

SIZES = (
    "vocab_size",
    "encoder_layers",
    "decoder_layers",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "d_model",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_hugging_face(hf, name):
    for wrong in WRONG:
        tried(hf / "config.json", lambda raw, wrong=wrong: raw.update({name: wrong}))
    assert name in tried(hf / "config.json", lambda raw: raw.pop(name) and None)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("eos_token_id", 10**6),
        ("pad_token_id", -1),
        ("decoder_start_token_id", "0"),
        ("decoder_vocab_size", 3),
        ("activation_function", "mish"),
        ("scale_embedding", 1),
        ("share_encoder_decoder_embeddings", "yes"),
        ("tie_word_embeddings", None),
        ("dropout", 1.5),
        ("attention_dropout", float("nan")),
        ("normalize_before", True),
        ("is_decoder", True),
        ("auto_map", {"AutoModel": "mine.Model"}),
        ("quantization_config", {"bits": 8}),
        ("model_type", ["marian"]),
    ],
)
def test_settings_of_hugging_face(hf, name, wrong):
    tried(hf / "config.json", lambda raw: raw.update({name: wrong}))


@pytest.mark.parametrize("wrong", [[0], {"</s>": "0"}, {"</s>": -1, "<unk>": 1}, {"a": 0}])
def test_pieces_of_hugging_face(hf, wrong):
    assert "vocab.json" in tried(hf / "vocab.json", lambda _: wrong)


@pytest.mark.parametrize("change", ["twice", "gap"])
def test_ids_of_pieces_are_0_to_the_last_once_each(hf, change):
    def changed(raw):
        name = [*raw][-2]
        raw[name] = raw[name] + 7 if change == "gap" else 3

    assert "ids" in tried(hf / "vocab.json", changed)


# --- Marian --------------------------------------------------------------------------------------

MARIAN_SIZES = ("enc-depth", "dec-depth", "dim-emb", "transformer-heads", "transformer-dim-ffn")


@pytest.mark.parametrize("name", [*MARIAN_SIZES, "dim-vocabs"])
def test_sizes_of_marian(marian, name):
    tensors = make_tensors(SETTINGS)
    for wrong in WRONG:
        write_npz(marian / "model.npz", tensors, SETTINGS | {name: wrong})
        assert "model.npz" in refusal(marian)
    write_npz(marian / "model.npz", tensors, {k: v for k, v in SETTINGS.items() if k != name})
    assert name in refusal(marian)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("tied-embeddings-all", "yes"), ("transformer-preprocess", 3), ("dec-cell", ["ssru"])],
)
def test_settings_of_marian(marian, name, wrong):
    write_npz(marian / "model.npz", make_tensors(SETTINGS), SETTINGS | {name: wrong})
    assert name in refusal(marian)


@pytest.mark.parametrize("place", [8, 16, 24, 32])
@pytest.mark.parametrize("value", [2**63, 2**40, 0])
def test_headers_of_marian_that_lie(marian, place, value):
    path = marian / "model.bin"
    write_bin(path, make_tensors(SETTINGS), SETTINGS)
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, place, value)
    path.write_bytes(content)
    assert "model.bin" in refusal(marian)


@pytest.mark.parametrize("multiplier", [0.0, float("nan"), float("inf")])
def test_multipliers_of_marian(marian, multiplier):
    path = marian / "model.bin"
    write_bin(path, make_tensors(SETTINGS), SETTINGS, int8=True)
    content = path.read_bytes()
    load_model(str(marian))
    from hp_jax.formats.marian import file

    name, kind = "encoder_l1_self_Wq", 0x4101
    made = file._array(file._Bytes(path), name, kind, (2, 2), bytes(4) + struct.pack("<f", 1))
    assert made.shape == (2, 2)
    data = bytes(4) + struct.pack("<f", multiplier)
    with pytest.raises(ValueError, match=f"model.bin .* {name} has the multiplier"):
        file._array(file._Bytes(path), name, kind, (2, 2), data)
    assert content == path.read_bytes()


@pytest.mark.parametrize("change", [np.isnan, lambda x: x * np.nan, lambda x: x.astype(np.int64)])
def test_tensors_of_marian(marian, change):
    tensors = make_tensors(SETTINGS)
    tensors["encoder_l1_self_Wq"] = change(tensors["encoder_l1_self_Wq"])
    write_npz(marian / "model.npz", tensors, SETTINGS)
    assert "encoder_l1_self_Wq has" in refusal(marian)


# --- our own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["own", "whole"])
def test_any_setting_of_our_own_folders(request, kind):
    path = request.getfixturevalue(kind) / "config.json"
    config = json.loads(path.read_text())["config"]
    for name in {*config} - {"dtype", "kernel"}:  # which the experiment says
        for wrong in (None, "?", -7, 10**40, {}, [None]):

            def changed(raw, name=name, wrong=wrong):
                raw["config"][name] = wrong

            assert name in tried(path, changed)

    def more(raw):
        raw["config"]["no_such_setting"] = 1

    assert "no_such_setting" in tried(path, more)


@pytest.mark.parametrize("name", ["family", "config", "format", "params", "files"])
def test_what_describes_a_folder_of_ours(whole, name):
    for wrong in (None, [], 3, "x", {"a": -1}):
        tried(whole / "config.json", lambda raw, wrong=wrong: raw.update({name: wrong}))


def test_text_of_our_own_folders(own):
    path = own / "text.json"
    good = json.loads(path.read_text())
    for name in good:
        for wrong in (None, 3, [1], {"x": 3}):
            before = path.read_bytes()
            path.write_text(json.dumps(copy.deepcopy(good) | {name: wrong}))
            assert "text.json" in refusal(own)
            path.write_bytes(before)
