"""Hugging Face folders of decoder-only models without transformers: there and back, other names of
tensors, refusals; and what of their tokenizers needs no reference."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import random_params
from tiny_language import CONFIG, tokenizer
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from hp_jax.architecture import DecoderConfig, present_mask
from hp_jax.formats.huggingface import decoder, decoder_config
from hp_jax.formats.huggingface.decoder_export import save_hf_decoder
from hp_jax.formats.reading import Options
from hp_jax.heads import gates
from hp_jax.models.language import LanguageModel
from hp_jax.removal import remove_heads
from hp_jax.text.huggingface import (
    check_ids,
    load_decoder_tokenizer,
    save_tokenizer,
    without_beyond,
)

BIASES = ("query", "key", "value", "out")
SHARED = {"vocab": 300, "epsilon": 1e-6}
GEMMA = SHARED | {
    "norm_outputs": True,
    "activation": "gelu_new",
    "local": (0, 2),
    "window": 3,
    "query_scale": 5.0,
    "logit_softcap": 3.0,
    "embedding_scale": 4.0,
}
FAMILIES = {
    "gpt2": SHARED
    | {
        "key_heads": 4,
        "head_width": 4,
        "norm": "layer",
        "biases": BIASES,
        "ffn_bias": True,
        "gated": False,
        "activation": "gelu_new",
        "rotary_base": 0.0,
        "eos": (3,),
    },
    "llama": SHARED
    | {"biases": BIASES, "ffn_bias": True, "tied": False, "rotary_factors": (2.0,) * 3},
    "mistral": SHARED | {"local": (0, 1, 2), "window": 4, "eos": (3, 5)},
    "qwen2": SHARED | {"biases": BIASES[:3], "local": (1, 2), "window": 4},
    "qwen3": SHARED
    | {"norm_queries": True, "rotary_factors": (1.0, 2.0, 4.0), "rotary_scale": 1.2},
    "gemma2": GEMMA | {"attention_softcap": 2.0},
    "gemma3_text": GEMMA | {"norm_queries": True, "local_base": 100.0, "tied": False},
}
RAGGED = np.array([[1, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]], bool)


def of_family(family):
    config = dataclasses.replace(CONFIG, family=family, **FAMILIES[family])
    return config, random_params(LanguageModel(config), scale=0.3)


def read(folder):
    raw = json.loads((folder / "config.json").read_text())
    return decoder.load_hf_decoder(folder, raw, Options())


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A written model, its config and its parameters."""
    folder = tmp_path_factory.mktemp("gpt2")
    config, params = of_family("gpt2")
    save_hf_decoder(folder, config, params, tokenizer())
    return folder, config, params


def changed(folder, new, change, **settings):
    """The folder with other tensors, and other settings in config.json."""
    new.mkdir(exist_ok=True)
    save_file(change(load_file(folder / "model.safetensors")), new / "model.safetensors")
    raw = json.loads((folder / "config.json").read_text())
    (new / "config.json").write_text(json.dumps(raw | settings))
    return new


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back(tmp_path, family):
    """With heads removed, which are zeros in the file; Gemma's norms are 1 + weight there."""
    config, params = of_family(family)
    config, params = remove_heads(config, params, RAGGED)
    save_hf_decoder(tmp_path, config, params, tokenizer())
    found, whole = read(tmp_path)
    assert dataclasses.replace(found, kept=config.kept) == config
    again = remove_heads(found, whole, RAGGED)[1]
    assert jax.tree.structure(again) == jax.tree.structure(params)
    same = (
        np.testing.assert_allclose
        if family.startswith("gemma")
        else (lambda one, other, **_: np.testing.assert_array_equal(one, other))
    )
    jax.tree.map(lambda one, other: same(one, other, rtol=0, atol=1e-7), again, params)
    out = np.asarray(whole["layer_1"]["attention"]["out"]["kernel"])
    assert not out[~RAGGED[1]].any()
    assert decoder.read(tmp_path, json.loads((tmp_path / "config.json").read_text()), Options())


LEVEL = {
    "a group of each layer": ([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]], (2, 1)),
    "a head of each group": ([[1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 0, 0]], (2, 2)),
    "a head": ([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], (1, 1)),
    "a layer with all": ([[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]], (4, 2)),
    "none": ([[0] * 4] * 3, (1, 1)),
}
"""Heads that are left, and the query heads and heads of keys and values that a file needs."""


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gpt2"])
@pytest.mark.parametrize("case", LEVEL)
def test_a_file_is_as_small_as_its_fullest_layer(tmp_path, family, case):
    left_AH, shape = np.array(LEVEL[case][0], bool), LEVEL[case][1]
    config, params = remove_heads(*of_family(family), left_AH)
    save_hf_decoder(tmp_path, config, params, tokenizer())
    found, read_params = read(tmp_path)
    assert (found.heads, found.key_heads) == shape
    tokens_BT = np.arange(14).reshape(2, 7) + 5
    expected_BTV, found_BTV = (
        LanguageModel(one).logits(held, tokens_BT, gates(task_mask, task_mask))
        for one, held, task_mask in (
            (config, params, present_mask(config)),
            (found, read_params, present_mask(found)),
        )
    )
    np.testing.assert_allclose(found_BTV, expected_BTV, rtol=1e-4, atol=1e-5)


def test_gpt2_s_first_names_and_triangles(gpt2, tmp_path):
    """Without a prefix, with the constants that old files have, and in bfloat16."""
    folder, config, params = gpt2

    def change(tensors):
        triangle = {f"h.{i}.attn.bias": np.tril(np.ones((1, 1, 4, 4))) for i in range(3)}
        plain = {name.removeprefix("transformer."): one for name, one in tensors.items()}
        return triangle | {name: one.astype(ml_dtypes.bfloat16) for name, one in plain.items()}

    found, read_params = read(changed(folder, tmp_path, change))
    assert found == config
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf, ml_dtypes.bfloat16), params)
    jax.tree.map(np.testing.assert_array_equal, read_params, rounded)


@pytest.mark.parametrize("there", [("word", "output"), ("output",)])
def test_a_tied_output_may_be_in_the_file_too(gpt2, tmp_path, there):
    folder, config, params = gpt2
    names = {"word": "transformer.wte.weight", "output": "lm_head.weight"}

    def change(tensors):
        word = tensors.pop(names["word"])
        return tensors | {names[one]: word.copy() for one in there}

    found, read_params = read(changed(folder, tmp_path, change))
    assert found == config
    jax.tree.map(np.testing.assert_array_equal, read_params, params)


def with_other_output(tensors):
    return tensors | {"lm_head.weight": tensors["transformer.wte.weight"] + 1}


def without(name):
    return lambda tensors: {there: one for there, one in tensors.items() if there != name}


def narrow(tensors):
    name = "transformer.h.0.attn.c_attn.weight"
    return tensors | {name: tensors[name][:, :-3].copy()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_other_output, r"wte.weight and lm_head.weight should be one tensor"),
        (without("transformer.h.1.attn.c_attn.bias"), r"has no tensor h.1.attn.c_attn.bias"),
        (narrow, r"transformer.h.0.attn.c_attn.weight has shape \(16, 45\), .* \(16, 48\)"),
        (
            lambda tensors: tensors | {"score.weight": np.ones(2)},
            r"1 tensors with no place .*score",
        ),
        (lambda tensors: tensors | {"wpe.weight": np.ones(2)}, r"are one tensor, wpe.weight"),
    ],
)
def test_faults_of_tensors_are_named(gpt2, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read(changed(gpt2[0], tmp_path, change))


def test_the_file_has_fewer_layers_than_config_json_says(gpt2, tmp_path):
    with pytest.raises(ValueError, match=r"tensors of 3 layers, but config.json says 4"):
        read(changed(gpt2[0], tmp_path, dict, n_layer=4))


def test_the_ends_of_a_text(gpt2, tmp_path):
    """generation_config.json comes first; tokens that the embedding lacks are none."""
    assert read(changed(gpt2[0], tmp_path, dict, eos_token_id=[4, 300]))[0].eos == (4,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert read(tmp_path)[0].eos == (5, 6)


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 64, "long_factor": [2.0] * 64}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("bloom", {}, r"model_type 'bloom'; supported are gpt2, llama"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "which makes another model"),
        ("gpt2", {"reorder_and_upcast_attn": True}, "which makes another model"),
        ("gpt2", {"scale_attn_weights": False}, "which makes another model"),
        ("gpt2", {"add_cross_attention": True}, "which makes another model"),
        ("gpt2", {"n_embd": 1.5}, "n_embd: expected an integer, but found 1.5"),
        ("gpt2", {"architectures": ["GPT2ForSequenceClassification"]}, "expected is a language"),
        ("llama", {"quantization_config": {}}, "quantization_config is {}"),
        ("llama", {"auto_map": {"AutoModel": "x"}}, "auto_map"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("llama", {"hidden_act": "quick_gelu"}, "hidden_act: expected one of 'gelu'"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type is 'dynamic'"),
        ("llama", {"rope_scaling": {"rope_type": "linear"}}, "a setting factor of .* 'linear'"),
        ("llama", {"rope_scaling": {"mrope_section": [1]}}, "no setting 'mrope_section'"),
        ("llama", {"rope_scaling": LONG}, "depends on the length of the text"),
        ("llama", {"rope_scaling": LONG | {"long_factor": [1.0]}}, "expected 64 numbers, .* 1"),
        (
            "llama",
            {"rope_scaling": LONG | {"long_factor": [1.0] * 64}},
            "expected a setting attention_factor",
        ),
        (
            "llama",
            {"rope_scaling": LLAMA3, "original_max_position_embeddings": 8},
            "original_max_position_embeddings is 16, but beside it 8",
        ),
        (
            "llama",
            {"rope_theta": 3.0, "rope_parameters": {"rope_theta": 4.0}},
            "rope_theta 4.0 and rope_theta beside it 3.0 contradict",
        ),
        (
            "llama",
            {"rope_scaling": LLAMA3, "rope_parameters": {"rope_theta": 4.0}},
            "rope_scaling or rope_parameters, but found both",
        ),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "factor is 0.5"),
        ("mistral", {"layer_types": ["full_attention"] * 32}, "layer_types is"),
        ("qwen3", {"layer_types": ["full_attention"]}, "layer_types has 1 layers"),
        ("qwen3", {"layer_types": ["chunked_attention"]}, "expected one of 'full_attention'"),
        ("gemma2", {"use_bidirectional_attention": True}, "which makes another model"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "which makes another model"),
        ("gemma3_text", {"rope_parameters": {"rope_theta": 4.0}}, "full_attention and sliding"),
        (
            "gemma3_text",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "sliding_attention: supported is .* but found 'linear'",
        ),
        ("gemma3", {"text_config": {"hidden_size": "x"}}, "text_config: hidden_size: expected"),
    ],
)
def test_settings_that_make_another_model_are_refused_by_name(tmp_path, kind, settings, message):
    with pytest.raises(ValueError, match=message):
        decoder_config.read_config({"model_type": kind} | settings, Options(), tmp_path)


def test_spellings_of_versions_say_the_same(tmp_path):
    """`rope_scaling` of transformers 4, with its older `type`, and `rope_parameters` of 5."""

    def found(kind, **settings):
        return decoder_config.read_config({"model_type": kind} | settings, Options(), tmp_path)

    old = {name: value for name, value in LLAMA3.items() if name != "rope_type"}
    new = LLAMA3 | {"rope_theta": 5.0}
    assert found("llama", rope_theta=5.0, rope_scaling=LLAMA3) == found(
        "llama", rope_parameters=new
    )
    assert found("llama", rope_scaling=old | {"type": "llama3"}) == found(
        "llama", rope_scaling=LLAMA3
    )
    nested = {"full_attention": new, "sliding_attention": {"rope_theta": 6.0}}
    four = found("gemma3_text", rope_theta=5.0, rope_local_base_freq=6.0, rope_scaling=LLAMA3)
    assert four == found("gemma3_text", rope_parameters=nested)
    assert four.local_base == 6.0
    assert len({*four.rotary_factors}) > 2
    assert found("gemma3", text_config={"head_dim": 4}) == found(
        "gemma3_text", head_dim=4, eos_token_id=None
    )


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", {"logit_softcap": 3.0}, "it has logit_softcap 0.0, not 3.0"),
        ("llama", {"norm_queries": True}, "it has norm_queries False"),
        ("qwen2", {"biases": ()}, "it has biases"),
        ("mistral", {"local": (1,)}, "it has local"),
        ("gpt2", {"head_width": 6}, "it has head_width 4, not 6"),
        ("gemma3_text", {"attention_softcap": 2.0}, "attn_logit_softcapping is 2.0"),
    ],
)
def test_what_a_family_cannot_be_is_not_written(tmp_path, family, changes, message):
    config, params = of_family(family)
    config = dataclasses.replace(config, **changes)
    with pytest.raises(ValueError, match=message):
        save_hf_decoder(tmp_path / "new", config, params, tokenizer())
    assert not (tmp_path / "new").exists()


# --- tokenizers ----------------------------------------------------------------------------------


def write_llama(folder, **settings):
    """Characters as pieces, with tokenizer_config.json of Llama's class."""
    vocab = {token: n for n, token in enumerate(["<unk>", "<s>", "</s>", *"\u2581abc"])}
    made = Tokenizer(models.BPE(vocab, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "LlamaTokenizer"} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({}, ["<s>", "\u2581", "a"]),
        ({"add_bos_token": False}, ["\u2581", "a"]),
        ({"add_eos_token": True}, ["<s>", "\u2581", "a", "</s>"]),
        ({"add_eos_token": True, "eos_token": "<s>"}, ["<s>", "\u2581", "a", "<s>"]),
        ({"bos_token": "<new>"}, ["<new>", "\u2581", "a"]),
        ({"add_bos_token": None, "bos_token": None}, ["\u2581", "a"]),
    ],
)
def test_ends_are_put_as_the_settings_say(tmp_path, settings, tokens):
    """And the same tokenizer is written and read again."""
    made = load_decoder_tokenizer(write_llama(tmp_path, **settings))
    assert made.encode("a").tokens == tokens
    save_tokenizer(tmp_path / "own", made)
    assert load_decoder_tokenizer(tmp_path / "own").encode("a").tokens == tokens


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bos_token": None}, "add_bos_token is true, but the vocabulary has no such token"),
        ({"add_prefix_space": True}, "with another normalizer than tokenizer.json has"),
        ({"from_slow": True}, "from_slow is True, which makes other token ids"),
        ({"tokenizer_class": "CodeGenTokenizer"}, "tokenizer_class is 'CodeGenTokenizer'"),
    ],
)
def test_faults_of_tokenizers_are_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        load_decoder_tokenizer(write_llama(tmp_path, **settings))


def test_a_sentencepiece_model_alone_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(FileNotFoundError, match=r"tokenizer.model but no tokenizer.json: make one"):
        load_decoder_tokenizer(tmp_path)


def test_tokens_that_the_embedding_lacks(tmp_path):
    """An added one is read as text; one of the vocabulary is refused."""
    made, config = tokenizer(), dataclasses.replace(CONFIG, vocab=262)
    size = made.get_vocab_size()
    made.add_tokens([AddedToken("the", special=True), AddedToken("<new>", special=True)])
    small = dataclasses.replace(config, vocab=size)
    with pytest.raises(ValueError, match=rf"'<new>' has the id {size}, but .* has {size} rows"):
        check_ids(made, small, tmp_path)
    without = without_beyond(made, size, tmp_path)
    check_ids(without, small, tmp_path)
    plain = tokenizer()
    plain.add_tokens([AddedToken("the", special=True)])
    for text in ("the <new> man", "then"):
        assert without.encode(text).ids == plain.encode(text).ids != made.encode(f"<new>{text}").ids
    assert without_beyond(made, size + 1, tmp_path) is made
    with pytest.raises(ValueError, match=f"but the model's embedding has {size - 1} rows"):
        check_ids(without, DecoderConfig(**vars(small) | {"vocab": size - 1}), tmp_path)
