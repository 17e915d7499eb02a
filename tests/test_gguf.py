"""GGUF files: what is written is read again, whatever the architecture and the type of tensor; what
would be another model, and what is not whole, is refused in a sentence."""

import io
import json
import resource
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
import sentencepiece
import tiny_gguf
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from tiny_gguf import BIASED, CONFIGS, LLAMA3, logits, make_config, make_params, write_gguf
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from hp_jax.formats.gguf.file import read_gguf
from hp_jax.formats.gguf.read import load_gguf, read_config
from hp_jax.text.gguf import tokenizer_of

Kind = GGMLQuantizationType
VARIANTS = {name: (name, {}) for name in CONFIGS} | {
    "llama3": ("llama", LLAMA3),
    "llama_biased": ("llama", BIASED),
    "llama_untied": ("llama", {"tied": False}),
}


def written(folder, architecture="llama", *, config=None, **given):
    """A folder with a file, with the config and parameters of its model."""
    config = config or make_config(architecture)
    params = make_params(config)
    write_gguf(folder / "model.gguf", architecture, config, params, **given)
    return config, params


def same(params, others, tolerance=0.0):
    """Whether all parameters are, to a share of the largest number of each."""
    flat = jax.tree_util.tree_leaves_with_path(params)
    found = dict(jax.tree_util.tree_leaves_with_path(others))
    assert len(flat) == len(found)
    for path, value in flat:
        assert found[path].shape == value.shape
        off = np.abs(np.asarray(found[path]) - value).max()
        assert off <= tolerance * np.abs(value).max(), path


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written_is_read_again(tmp_path, variant):
    architecture, changes = VARIANTS[variant]
    config, params = written(tmp_path, architecture, config=make_config(architecture, **changes))
    found, read, _ = load_gguf(tmp_path)
    assert found == config
    same(params, read)


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        (Kind.F16, 1e-3),
        (Kind.BF16, 4e-3),
        (Kind.Q8_0, 5e-3),
        (Kind.Q5_0, 0.07),
        (Kind.Q5_1, 0.04),
        (Kind.Q4_0, 0.13),
        (Kind.Q4_1, 0.08),
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_quantised_numbers_are_near(tmp_path, architecture, kind, tolerance):
    _, params = written(tmp_path, architecture, kind=kind)
    read = load_gguf(tmp_path)[1]
    same(params, read, tolerance)
    with pytest.raises(AssertionError):
        same(params, read)


@pytest.mark.parametrize("kind", [Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K])
def test_blocks_of_256_are_dequantised(tmp_path, kind):
    """The library gguf cannot write them, so these are random bytes, whose scales are finite."""
    block, size = GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(0).integers(0, 0x40, (40, 2 * size), np.uint8)
    config = make_config(width=2 * block, heads=64, key_heads=2)
    written(tmp_path, config=config, tensors={"token_embd.weight": (raw, kind)})
    read = load_gguf(tmp_path)[1]["word"]["embedding"]
    assert read.shape == (40, 2 * block)
    np.testing.assert_array_equal(read, dequantize(raw, kind))
    assert np.abs(read).max() > 0


def test_without_undoing_the_order_it_is_another_model(tmp_path):
    """Of queries and of keys."""
    config, params = written(tmp_path)
    read = load_gguf(tmp_path)[1]
    tokens_BT = np.random.default_rng(0).integers(0, config.vocab, (2, 12))
    expected = logits(config, params, tokens_BT)
    np.testing.assert_array_equal(logits(config, read, tokens_BT), expected)
    for name, heads in (("query", config.heads), ("key", config.key_heads)):
        kernel = np.asarray(read["layer_0"]["attention"][name]["kernel"])
        rows = kernel.reshape(config.width, -1).T
        swapped = tiny_gguf.permute(rows, heads).T.reshape(kernel.shape)
        other = jax.tree.map(lambda leaf: leaf, read)
        other["layer_0"]["attention"][name] = {"kernel": swapped}
        assert np.abs(logits(config, other, tokens_BT) - expected).max() > 0.01


def test_linear_scaling_and_factors_multiply(tmp_path):
    scaling = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    written(tmp_path, config=make_config(**LLAMA3), changes=scaling)
    found = load_gguf(tmp_path)[0]
    assert found.rotary_factors == tuple(4 * factor for factor in LLAMA3["rotary_factors"])
    written(tmp_path, changes=scaling | {"llama.rope.scaling.type": "none"})
    assert load_gguf(tmp_path)[0].rotary_factors == ()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gemma3.attention.sliding_window": None}, {"local": (), "window": 0, "local_base": 0.0}),
        ({"gemma3.attention.sliding_window_pattern": 3}, {"local": (0, 1, 3, 4, 6)}),
        ({"gemma3.attention.sliding_window_pattern": [True] + [False] * 6}, {"local": (0,)}),
        ({"gemma3.rope.freq_base_swa": 500.0}, {"local_base": 500.0}),
        ({"gemma3.final_logit_softcapping": 20.0}, {"logit_softcap": 20.0}),
        ({"gemma3.attention.scale": 0.5}, {"query_scale": 4.0}),
        ({"tokenizer.ggml.eot_token_id": 7, "tokenizer.ggml.eom_token_id": 2}, {"eos": (2, 7)}),
    ],
    ids=str,
)
def test_what_is_said_holds(tmp_path, changes, expected):
    config, _ = written(tmp_path, "gemma3", changes=changes)
    assert load_gguf(tmp_path)[0] == make_config("gemma3", **expected) != config


@pytest.mark.parametrize(("architecture", "layers"), [("gemma2", 46), ("gemma3", 62)])
def test_the_largest_gemma_scales_by_width_over_heads(tmp_path, architecture, layers):
    """As llama.cpp has it, by the number of layers; of most of them there is one tensor here."""
    norms = {f"blk.{i}.attn_norm.weight": np.ones(32) for i in range(2, layers)}
    for count, scale in ((layers, 8.0), (layers - 1, 0.0)):
        changes = {f"{architecture}.block_count": count}
        written(tmp_path, architecture, tensors=norms, changes=changes)
        found = read_config(read_gguf(tmp_path / "model.gguf"))
        assert found.query_scale == scale
        assert found.local == tuple(i for i in range(count) if (i + 1) % {46: 2, 62: 6}[layers])


def test_a_copy_of_the_embedding_is_no_output_projection(tmp_path):
    """As GPT-2's files have it."""
    config = make_config("gpt2")
    embedding = make_params(config)["word"]["embedding"]
    written(tmp_path, "gpt2", tensors={"output.weight": embedding})
    assert load_gguf(tmp_path)[0] == config
    written(tmp_path, "gpt2", tensors={"output.weight": embedding + 1})
    assert not load_gguf(tmp_path)[0].tied


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"general.architecture": "mamba"}, "architecture is 'mamba'; supported are llama, qwen2"),
        ({"general.type": "adapter"}, "general.type is 'adapter'"),
        ({"llama.expert_count": 8}, "expert_count is 8, which makes another model"),
        ({"llama.rope.scaling.type": "yarn"}, "rope.scaling.type is 'yarn'"),
        ({"llama.rope.scaling.attn_factor": 1.5}, "attn_factor is 1.5"),
        ({"llama.rope.dimension_count": 4}, "rope.dimension_count is 4, but 8 was"),
        ({"llama.attention.value_length": 4}, "value_length is 4, but 8 was"),
        ({"llama.attention.causal": False}, "causal is False"),
        ({"llama.attention.sliding_window": 8}, "sliding_window is 8"),
        ({"llama.attention.sliding_window_pattern": 2}, "sliding_window_pattern is a setting that"),
        ({"llama.logit_scale": 2.0}, "llama.logit_scale is a setting that is not known"),
        ({"llama.attention.head_count": None}, "expected a setting attention_head_count"),
        (
            {"llama.attention.head_count_kv": [2, 1]},
            r"head_count_kv: expected an integer.*\[2, 1",
        ),
        ({"llama.attention.head_count_kv": 3}, "4 heads of row dec.0 do not share 3 key/value"),
        (
            {"llama.attention.layer_norm_rms_epsilon": None},
            "expected a setting attention.layer_norm",
        ),
        ({"llama.block_count": 3}, "tensors of 2 layers, but block_count says 3"),
        ({"llama.block_count": 1}, "9 tensors with no place in a llama of 1 layers"),
        ({"llama.embedding_length": 64}, "rope.dimension_count is 8, but 16 was expected"),
        ({"llama.feed_forward_length": 32}, r"shape \(64, 32\), .* implies \(32, 32\)"),
        ({"llama.feed_forward_length": 2**31}, "but found 2147483648"),
        ({"llama.attention.head_count": 2**30}, "rope.dimension_count is 8, but 0 was expected"),
        ({"llama.vocab_size": 41}, "vocab_size is 41, but 40 was"),
        ({"tokenizer.ggml.model": "t5"}, "model: expected one of 'gpt2', 'llama'"),
        ({"tokenizer.ggml.tokens": ["a", "b"]}, "has 2 tokens, but the model's embedding has 40"),
        ({"tokenizer.ggml.tokens": ["a"] * 40}, "has the token 'a' twice"),
        ({"tokenizer.ggml.scores": None}, "expected a setting scores"),
        ({"tokenizer.ggml.scores": [0.5]}, "scores has 1 numbers, but there are 40 tokens"),
        ({"tokenizer.ggml.bos_token_id": 40}, "bos_token_id is 40, but there are 40 tokens"),
        ({"tokenizer.ggml.bos_token_id": None}, "expected a setting bos_token_id"),
        ({"tokenizer.ggml.eos_token_id": 99}, "eos has the token 99"),
        ({"tokenizer.ggml.remove_extra_whitespaces": True}, "remove_extra_whitespaces"),
        ({"tokenizer.ggml.fold_case": True}, "fold_case is a setting that is not known"),
    ],
    ids=str,
)
def test_another_model_is_refused_by_name(tmp_path, changes, sentence):
    written(tmp_path, changes=changes)
    with pytest.raises(ValueError, match=sentence) as error:
        load_gguf(tmp_path)
    assert "model.gguf" in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"blk.1.attn_k.weight": None}, r"no tensor blk.1.attn_k.weight, .* \(16, 32\)"),
        ({"token_embd.weight": None}, "no tensor token_embd.weight"),
        ({"blk.1.attn_q.weight": np.ones((8, 32))}, r"attn_q.weight has shape \(8, 32\)"),
        ({"blk.1.ffn_gate_inp.weight": np.ones((8, 32))}, "e.g. blk.1.ffn_gate_inp.weight"),
        ({"output_norm.weight": np.full(32, np.nan)}, "output_norm.weight has 32 numbers that"),
        ({"rope_freqs.weight": np.ones(3)}, "3 rotary_factors, but 4 are expected"),
        ({"rope_freqs.weight": np.zeros(4)}, "rotary_factors"),
        (
            {"output_norm.weight": (np.ones(32, np.int32), Kind.I32)},
            "output_norm.weight is of type I32, which",
        ),
    ],
    ids=map(str, range(8)),
)
def test_other_tensors_are_refused_by_name(tmp_path, tensors, sentence):
    written(tmp_path, tensors=tensors)
    with pytest.raises(ValueError, match=sentence):
        load_gguf(tmp_path)


def test_one_file_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model of llama.cpp: expected a file \*.gguf"):
        load_gguf(tmp_path)
    written(tmp_path)
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"2 GGUF files, model\.gguf, other\.gguf: expected one"):
        load_gguf(tmp_path)


def test_a_file_that_is_cut_off_is_refused_wherever_it_ends(tmp_path):
    written(tmp_path)
    file = tmp_path / "model.gguf"
    whole = file.read_bytes()
    for size in [*range(0, 400, 7), *range(400, len(whole) - 1, 997), len(whole) - 40]:
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"model\.gguf (is|has|:)"):
            load_gguf(tmp_path)


def test_no_damaged_header_is_more_than_a_sentence(tmp_path):
    """Whatever byte of it is another: the file is read, or refused in a sentence; not with memory
    for what it claims to have."""
    written(tmp_path)
    file = tmp_path / "model.gguf"
    whole = file.read_bytes()
    random, end = np.random.default_rng(0), read_gguf(file).tensors["token_embd.weight"].offset
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sentences = []
    for place in random.permutation(end)[:600]:
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF if place % 2 else 1 << int(random.integers(8))
        file.write_bytes(damaged)
        try:
            read_gguf(file)
        except ValueError as error:
            sentences.append(str(error))
    assert all(str(file) in one and "\n" not in one for one in sentences)
    assert len(sentences) > 50
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2e5  # KiB


def test_other_files_are_refused(tmp_path):
    file = tmp_path / "model.gguf"
    for content, sentence in (
        (b"", "is empty"),
        (b"PK\3\4" * 9, r"is not a GGUF file: it begins with b'PK"),
        (struct.pack("<4sI", b"GGUF", 1), "version 1 .*expected 2 or 3"),
        (struct.pack(">4sI", b"GGUF", 3), "version 50331648 "),
        (struct.pack("<4sIQQ", b"GGUF", 3, 2**60, 2**60), "is not whole"),
        (struct.pack("<4sIQQQ4sIIQ", b"GGUF", 3, 0, 1, 4, b"many", 9, 0, 2**60), "is not whole"),
        (struct.pack("<4sIQQQ4sIIQ", b"GGUF", 3, 0, 1, 4, b"many", 9, 9, 1), "type 9, which"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            read_gguf(file)


# --- vocabularies --------------------------------------------------------------------------------

TEXT = """In 2024 there were 1,234 heads;  many more than in 1999.
    def f(x):
        return x + 12  # it's we'll DON'T

Straße naïve e\u0301 café, Ångström — “quoted” 你好 世界 100 % and 3.14159\t\tx\r\n\r\nend   """
TEXTS = [
    TEXT,
    *TEXT.split("\n"),
    "",
    " ",
    "   ",
    "\n\n1",
    "a  1",
    "😀🇫🇷 x",
    "ⅷ ² ½",
    "<|end|>",
    "a<|end|> b <think>c",
    "<|end|><|end|>",
    "hello<|end|>\n",
]
_ANY = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = {
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)],
    **{
        name: [
            pre_tokenizers.Split(Regex(_ANY.replace("DIGITS", digits)), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
        for name, digits in (("llama-bpe", "{1,3}"), ("qwen2", ""))
    },
}
"""As the tokenizer.json of GPT-2, SmolLM2, Llama 3 and Qwen 2 have it."""


def byte_level(pre):
    """A tokenizer of these words, with two added tokens, trained on a few lines."""
    made = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    made.pre_tokenizer = pre_tokenizers.Sequence(WORDS[pre])
    if pre == "qwen2":
        made.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    made.train_from_iterator([TEXT] * 3, trainer)
    made.add_tokens(["<think>"])
    return made


def byte_vocabulary(made, pre, **changes):
    """Its settings in a file."""
    merges = json.loads(made.to_str())["model"]["merges"]
    tokens = sorted(made.get_vocab(), key=made.get_vocab().get)
    kinds = [{"<|end|>": 3, "<think>": 4}.get(token, 1) for token in tokens]
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": kinds,
        "merges": [" ".join(pair) for pair in merges],
        "bos_token_id": 0,
        "eos_token_id": 0,
    } | changes


def tokenizer(vocabulary):
    """The tokenizer of such a vocabulary."""
    settings = {f"tokenizer.ggml.{name}": value for name, value in vocabulary.items()}
    return tokenizer_of(settings, Path("model.gguf"), len(vocabulary["tokens"]))


def test_a_vocabulary_is_read_as_it_is_written(tmp_path):
    made = byte_level("smollm")
    vocabulary = byte_vocabulary(made, "smollm", add_bos_token=False)
    written(tmp_path, config=make_config(vocab=len(vocabulary["tokens"])), vocabulary=vocabulary)
    found = load_gguf(tmp_path)[2]
    assert found.to_str() == tokenizer(vocabulary).to_str()
    assert found.get_vocab() == made.get_vocab()


@pytest.mark.parametrize("pre", WORDS)
def test_byte_level_ids_are_those_of_the_tokenizer_it_was_made_from(pre):
    made = byte_level(pre)
    found = tokenizer(byte_vocabulary(made, pre, add_bos_token=False))
    for text in TEXTS:
        assert found.encode(text).ids == made.encode(text).ids, text
        whole = found.decode(found.encode(text).ids, skip_special_tokens=False)
        assert normalizers.NFC().normalize_str(whole) == normalizers.NFC().normalize_str(text)
    assert found.decode(found.encode("a<|end|>").ids) == "a"


def test_words_differ_by_the_setting():
    made = byte_level("gpt-2")
    tokens = {
        pre: [tokenizer(byte_vocabulary(made, pre)).encode(text).ids for text in TEXTS]
        for pre in (*WORDS, "default")
    }
    assert len({str(ids) for ids in tokens.values()}) == len(tokens)


@pytest.mark.parametrize("pre", ["tekken", None])
def test_other_words_are_refused_by_name(pre):
    vocabulary = byte_vocabulary(byte_level("gpt-2"), pre)
    with pytest.raises(ValueError, match=f"pre is {pre!r}, .* gpt-2, smollm"):
        tokenizer(vocabulary)


@pytest.mark.parametrize("merge", ["a", "a b c", "é a"])
def test_merges_that_do_not_fit_are_refused(merge):
    vocabulary = byte_vocabulary(byte_level("gpt-2"), "gpt-2", merges=[merge])
    with pytest.raises(ValueError, match="merges"):
        tokenizer(vocabulary)


def test_tokens_around_a_text_are_those_that_are_asked_for():
    made = byte_level("llama-bpe")
    ids = made.encode("two heads").ids
    think = made.token_to_id("<think>")
    both = {"bos_token_id": think, "eos_token_id": 0}
    for changes, before, after in (
        ({}, [think], []),  # llama.cpp's own for this kind
        ({"add_bos_token": False}, [], []),
        ({"add_bos_token": True, "add_eos_token": True}, [think], [0]),
        ({"add_bos_token": False, "add_eos_token": True}, [], [0]),
    ):
        found = tokenizer(byte_vocabulary(made, "llama-bpe", **both, **changes))
        assert found.encode("two heads").ids == [*before, *ids, *after]
        assert found.encode("two heads", add_special_tokens=False).ids == ids
        pair = found.encode("two heads", "two heads")
        assert pair.ids == [*before, *ids, *after] * 2
        assert not any(pair.type_ids)


@pytest.mark.parametrize("prefix", [True, False])
def test_pieces_are_those_of_sentencepiece(prefix):
    """Its own library's, of a vocabulary with bytes and with neither normalisation nor lost spaces,
    as Llama 2's and Gemma's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.split("\n") * 3),
        model_writer=model,
        model_type="bpe",
        vocab_size=360,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=prefix,
        minloglevel=2,
    )
    made = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    numbers = range(made.get_piece_size())
    kinds = [
        2 if made.is_unknown(i) else 3 if made.is_control(i) else 6 if made.is_byte(i) else 1
        for i in numbers
    ]
    found = tokenizer(
        {
            "model": "llama",
            "pre": "default",
            "tokens": [made.id_to_piece(i) for i in numbers],
            "scores": [made.get_score(i) for i in numbers],
            "token_type": kinds,
            "bos_token_id": made.bos_id(),
            "eos_token_id": made.eos_id(),
            "unknown_token_id": made.unk_id(),
        }
        | ({} if prefix else {"add_space_prefix": False}),
    )
    for text in TEXTS:
        ids = made.encode(text)
        assert found.encode(text).ids == [made.bos_id(), *ids], text
        assert found.decode(ids) == made.decode(ids) == text
    assert found.token_to_id("</s>") in found.encode("a</s>b").ids  # unlike in SentencePiece
