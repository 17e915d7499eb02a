"""Decoder-only language models against transformers, live: logits, heads off, importance, token
ids, and folders that go there and back.

Run with transformers 4.57.6; the tests named `unmasked` or `rectangular` also run with its newest
version.
"""

import dataclasses
import functools
import importlib
import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from data_tokenizers import SENTENCES  # noqa: E402
from tiny import ONE_DEVICE  # noqa: E402
from tiny_language import tokenizer  # noqa: E402
from tokenizers import (  # noqa: E402
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from hp_jax import heads  # noqa: E402
from hp_jax.formats.huggingface import decoder, decoder_config, rotary  # noqa: E402
from hp_jax.formats.huggingface.decoder_export import CLASSES, save_hf_decoder  # noqa: E402
from hp_jax.formats.reading import Options  # noqa: E402
from hp_jax.importance import gate_gradients, head_importance  # noqa: E402
from hp_jax.models.language import LanguageModel  # noqa: E402
from hp_jax.removal import remove_heads  # noqa: E402
from hp_jax.text.huggingface import load_decoder_tokenizer, save_tokenizer  # noqa: E402

NEW = int(transformers.__version__.split(".")[0]) > 4
VOCAB, LAYERS, HEADS, KEY_HEADS, HEAD_WIDTH, LENGTH = 300, 3, 4, 2, 6, 14
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "max_position_embeddings": 32,
    "eos_token_id": [7, 9],
    "bos_token_id": 1,
    "pad_token_id": None,
}
GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": 16,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_positions": 32,
    "bos_token_id": 1,
    "eos_token_id": 7,
}
WIDE = {"head_dim": HEAD_WIDTH}
MODELS = {
    "gpt2": ("gpt2", GPT2),
    "gpt2 untied": ("gpt2", GPT2 | {"tie_word_embeddings": False, "n_inner": 20}),
    "llama": ("llama", SIZES),
    "llama with biases": (
        "llama",
        SIZES | WIDE | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "mistral": ("mistral", SIZES | WIDE | {"sliding_window": 5}),
    "mistral without window": ("mistral", SIZES | {"sliding_window": None}),
    "qwen2": ("qwen2", SIZES),
    "qwen2 with windows": (
        "qwen2",
        SIZES | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", SIZES | WIDE | {"rope_theta": 500.0}),
    "gemma2": (
        "gemma2",
        SIZES
        | WIDE
        | {
            "sliding_window": 4,
            "query_pre_attn_scalar": 9,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3_text": (
        "gemma3_text",
        SIZES
        | WIDE
        | {
            "sliding_window": 4,
            "query_pre_attn_scalar": 9,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_theta": 1000.0,
            "rope_local_base_freq": 50.0,
        },
    ),
}
SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
    "yarn with settings": {
        "rope_type": "yarn",
        "factor": 4.0,
        "beta_fast": 4.0,
        "beta_slow": 0.5,
        "mscale": 0.7,
        "mscale_all_dim": 0.4,
        "truncate": False,
        "original_max_position_embeddings": 8,
    },
    "longrope": {
        "rope_type": "longrope",
        "factor": 2.0,
        "short_factor": [1.0, 1.5, 4.0],
        "long_factor": [1.0, 1.5, 4.0],
        "original_max_position_embeddings": 32,
    },
}


def make_model(family, settings, seed=0):
    """A random model with parameters large enough that every head matters."""
    config = transformers.AutoConfig.for_model(family, **settings)
    config._attn_implementation = "eager"
    model = getattr(transformers, CLASSES[family])(config).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            one = "norm" in name or "ln_" in name
            start = 1.0 if one and not family.startswith("gemma") and "weight" in name else 0.0
            parameter.normal_(start, 0.3)
    return model


def read(folder):
    raw = json.loads((folder / "config.json").read_text())
    return decoder.load_hf_decoder(folder, raw, Options())


def pair_of(kind, folder):
    """A reference model, and ours from its saved folder."""
    model = make_model(*MODELS[kind])
    model.save_pretrained(folder)
    config, params = read(folder)
    return model, LanguageModel(config), params


@pytest.fixture(scope="module", params=MODELS)
def pair(request, tmp_path_factory):
    return pair_of(request.param, tmp_path_factory.mktemp("model"))


def our_batch(count=5, seed=1):
    """Texts of mixed length, padded on the right."""
    random = np.random.default_rng(seed)
    length_B = np.array([LENGTH, *random.integers(3, LENGTH, count - 1)], np.int32)
    tokens_BT = random.integers(1, VOCAB, (count, LENGTH)).astype(np.int32)
    tokens_BT *= np.arange(LENGTH) < length_B[:, None]
    return {
        "tokens_BT": tokens_BT,
        "length_B": length_B,
        "given_B": np.ones(count, np.int32),
        "weight_B": np.ones(count, np.float32),
        "index_B": np.arange(count),
    }


def real(batch):
    return np.arange(LENGTH) < batch["length_B"][:, None]


def reference_logits(model, batch):
    inputs = {
        "input_ids": torch.tensor(batch["tokens_BT"]).long(),
        "attention_mask": torch.tensor(real(batch)).long(),
    }
    return model(**inputs, use_cache=False).logits


RUN = jax.jit(LanguageModel.logits, static_argnums=0)


def our_logits(task, params, batch, mask_AH):
    return np.asarray(RUN(task, params, batch["tokens_BT"], heads.gates(mask_AH, task.present_AH)))


def check_logits(model, task, params, mask_AH=None):
    """To 1e-4 of their scale, which is some of a logit."""
    batch = our_batch()
    with torch.no_grad():
        expected_BTV = reference_logits(model, batch).numpy()[real(batch)]
    mask_AH = task.present_AH if mask_AH is None else mask_AH
    found_BTV = our_logits(task, params, batch, mask_AH)[real(batch)]
    scale = np.abs(expected_BTV).max()
    assert scale > 0.5
    assert np.abs(found_BTV - expected_BTV).max() < 1e-4 * scale


def projections(model):
    """The output projection of each layer's attention."""
    return [
        module for name, module in model.named_modules() if name.endswith(("o_proj", "attn.c_proj"))
    ]


class Off:
    """The reference with the inputs of heads' output projections at 0."""

    def __init__(self, model, mask_AH):
        self.hooks = [
            module.register_forward_pre_hook(functools.partial(self.zero, mask_H))
            for module, mask_H in zip(projections(model), mask_AH, strict=True)
        ]

    @staticmethod
    def zero(mask_H, module, args):
        context = args[0]
        split = context.reshape(*context.shape[:2], HEADS, -1)
        return (
            (split * torch.tensor(np.array(mask_H, np.float32))[:, None]).reshape(context.shape),
        )

    def __enter__(self):
        assert len(self.hooks) == LAYERS

    def __exit__(self, *error):
        for hook in self.hooks:
            hook.remove()


RAGGED = np.array([[1, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
"""An uneven group, a whole group off, and a row without heads."""


def test_unmasked_logits(pair):
    check_logits(*pair)


def test_unmasked_logits_of_a_model_that_sees_pictures_too(tmp_path):
    """Gemma 3's model of text in it."""
    _, settings = MODELS["gemma3_text"]
    pictures = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    pictures |= {"num_attention_heads": 1, "image_size": 16, "patch_size": 8}
    config = transformers.Gemma3Config(
        text_config=settings,
        vision_config=pictures,
        mm_tokens_per_image=1,
        image_token_index=VOCAB,
        eos_token_id=[5, 6],
    )
    config._attn_implementation = "eager"
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(tmp_path)
    found, params = read(tmp_path)
    assert found.eos == (5, 6)
    check_logits(model, LanguageModel(found), params)


@pytest.mark.parametrize("family", [*CLASSES])
def test_what_config_json_does_not_say_is_as_the_class_has_it(tmp_path, family):
    whole = json.loads(json.dumps(transformers.AutoConfig.for_model(family).to_dict()))
    found, expected = (
        decoder_config.read_config(raw, Options(), tmp_path)
        for raw in ({"model_type": family}, whole)
    )
    assert found == expected


def test_masked_logits(pair):
    model, task, params = pair
    full = task.present_AH
    for mask_AH in (RAGGED, ~RAGGED, *heads.one_off(full)[::3]):
        with Off(model, mask_AH):
            check_logits(model, task, params, mask_AH)


def test_every_head_matters(pair):
    _, task, params = pair
    batch = our_batch()
    before_BTV = our_logits(task, params, batch, task.present_AH)
    for mask_AH in heads.one_off(task.present_AH):
        change_BTV = np.abs(our_logits(task, params, batch, mask_AH) - before_BTV)
        assert change_BTV[real(batch)].max() > 1e-2


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("kind", SCALINGS)
def test_unmasked_logits_of_scaled_positions(tmp_path, kind, family):
    model = make_model(family, MODELS[family][1] | WIDE | {"rope_scaling": dict(SCALINGS[kind])})
    model.save_pretrained(tmp_path)
    config, params = read(tmp_path)
    assert (config.rotary_factors, config.rotary_scale) != ((), 1.0)
    check_logits(model, LanguageModel(config), params)


@pytest.mark.parametrize("positions", [512, 131072])
@pytest.mark.parametrize("kind", SCALINGS)
def test_unmasked_frequencies(kind, positions):
    """Of wide heads, which have planes of all lengths."""
    base, width, scaling = 5e5, 128, dict(SCALINGS[kind])
    if "original_max_position_embeddings" in scaling:
        scaling["original_max_position_embeddings"] = positions // 4
    factors = np.linspace(1, 30, width // 2).tolist()
    if kind == "longrope":
        scaling |= {"short_factor": factors, "long_factor": factors}
        scaling["original_max_position_embeddings"] = positions
    sizes = {"head_dim": width, "max_position_embeddings": positions}
    found = rotary.rotary({"rope_theta": base, "rope_scaling": scaling}, 0.0, width, positions, "")
    config = transformers.LlamaConfig(rope_theta=base, rope_scaling=dict(scaling), **sizes)
    kind_of = importlib.import_module("transformers.models.llama.modeling_llama")
    expected = kind_of.LlamaRotaryEmbedding(config)
    turn_J = base ** (-np.arange(0, width, 2) / width) / np.array(found.factors)
    np.testing.assert_allclose(turn_J, expected.inv_freq.numpy(), rtol=2e-6)
    np.testing.assert_allclose(found.scale, expected.attention_scaling, rtol=1e-12)


def test_importance_is_the_dot_product_of_context_and_gradient(tmp_path):
    """|Att_h . dL/dAtt_h| of every position, from hooks on the reference's contexts."""
    model, task, params = pair_of("qwen3", tmp_path)
    batch, contexts = our_batch(), []

    def keep(module, args):
        args[0].retain_grad()
        contexts.append(args[0])

    hooks = [module.register_forward_pre_hook(keep) for module in projections(model)]
    logits_BTV = reference_logits(model, batch)[:, :-1]
    target_BT = torch.tensor(np.where(real(batch), batch["tokens_BT"], -100)[:, 1:]).long()
    torch.nn.functional.cross_entropy(
        logits_BTV.transpose(1, 2), target_BT, reduction="sum"
    ).backward()
    for hook in hooks:
        hook.remove()
    dots = [(context * context.grad).detach().numpy() for context in contexts]
    dot_ABTH = np.stack([dot.reshape(*dot.shape[:2], HEADS, -1).sum(-1) for dot in dots])
    full_AH = task.present_AH.astype(np.float32)
    found_ABTH = np.stack(gate_gradients(task, params, batch, full_AH))
    expected_ABTH = dot_ABTH[:, :, :-1]
    np.testing.assert_allclose(found_ABTH, expected_ABTH, rtol=1e-3, atol=2e-5)
    tokens = (batch["length_B"] - 1).sum()
    found_AH = head_importance(task, params, [batch], full_AH, mesh=ONE_DEVICE)
    np.testing.assert_allclose(found_AH, np.abs(dot_ABTH).sum((1, 2)) / tokens, rtol=1e-3)
    assert found_AH.min() > 1e-3


def load(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    return model.eval().float()


def test_a_rectangular_export_is_the_same_model(pair, tmp_path):
    """With heads removed; and what is read back is what was written."""
    _, task, params = pair
    config, params = remove_heads(task.config, params, RAGGED)
    save_hf_decoder(tmp_path, config, params, tokenizer())
    model = load(tmp_path)
    assert model.config.model_type == config.family
    check_logits(model, LanguageModel(config), params)
    with Off(model, RAGGED):
        check_logits(model, LanguageModel(config), params)
    again, read_params = read(tmp_path)
    assert dataclasses.replace(again, kept=config.kept) == config
    jax.tree.map(np.testing.assert_array_equal, remove_heads(again, read_params, RAGGED)[1], params)
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path)("then the man").input_ids
    assert ids == load_decoder_tokenizer(tmp_path).encode("then the man").ids


def test_a_file_with_one_group_a_layer_is_the_same_model(pair, tmp_path):
    """It has that shape, where the format says how wide a head is."""
    _, task, params = pair
    group = task.config.heads // task.config.key_heads
    left_AH = (
        np.arange(HEADS) // group == np.arange(len(task.rows))[:, None] % task.config.key_heads
    )
    config, params = remove_heads(task.config, params, left_AH)
    save_hf_decoder(tmp_path, config, params, tokenizer())
    model = load(tmp_path)
    check_logits(model, LanguageModel(config), params)
    if config.family != "gpt2":
        assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (group, 1)


@pytest.mark.skipif(not NEW, reason="per_layer_config is of transformers 5")
@pytest.mark.parametrize("name", ["num_attention_heads", "num_key_value_heads"])
def test_transformers_builds_no_layers_of_unequal_heads(name):
    """Why ragged folders are not written: once this fails, they can be."""
    settings = MODELS["llama"][1] | WIDE

    def build():
        config = transformers.LlamaConfig(**settings, per_layer_config={1: {name: 1}})
        transformers.LlamaForCausalLM(config)

    with pytest.raises(Exception, match=f"'{name}' is a per-layer attribute"):
        build()


@pytest.mark.parametrize("kind", SCALINGS)
def test_a_rectangular_export_of_scaled_positions(tmp_path, kind):
    settings = MODELS["llama"][1] | WIDE | {"rope_scaling": dict(SCALINGS[kind])}
    make_model("llama", settings).save_pretrained(tmp_path / "theirs")
    config, params = read(tmp_path / "theirs")
    save_hf_decoder(tmp_path / "ours", config, params, tokenizer())
    check_logits(load(tmp_path / "ours"), LanguageModel(config), params)
    assert read(tmp_path / "ours")[0] == config


# --- token ids -----------------------------------------------------------------------------------

TEXTS = (
    *SENTENCES,
    "<s>a text</s> with <|endoftext|> its <bos> own<eos>ends <new> and<new>more",
    "\n\n two  lines\r\n1234567 it's IT'S",
)
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
needs_4 = pytest.mark.skipif(NEW, reason="classes of tokenizers of transformers 4")


def byte_level(folder, special=("<|endoftext|>",)):
    """vocab.json and merges.txt."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=list(special), initial_alphabet=BYTES, show_progress=False
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.model.save(str(folder))
    return made


def of_pieces(special):
    """Llama's kind: pieces of SentencePiece with bytes for what is unknown."""
    made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    special = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    made.train_from_iterator(SENTENCES[:3], trainer)
    state = json.loads(made.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < 4]
    return Tokenizer.from_str(json.dumps(state))


def gpt2(folder, slow=False, new=(), **settings):
    byte_level(folder)
    kind = transformers.GPT2Tokenizer if slow else transformers.GPT2TokenizerFast
    made = kind(str(folder / "vocab.json"), str(folder / "merges.txt"), **settings)
    made.add_tokens(list(new))
    return made


def qwen2(folder, slow=False):
    byte_level(folder, ())
    kind = transformers.Qwen2Tokenizer if slow else transformers.Qwen2TokenizerFast
    made = kind(str(folder / "vocab.json"), str(folder / "merges.txt"))
    made.add_special_tokens({"additional_special_tokens": ["<new>"]})
    return made


def llama(folder, **settings):
    special = ("<unk>", "<s>", "</s>")
    return transformers.LlamaTokenizerFast(tokenizer_object=of_pieces(special), **settings)


def gemma(folder, **settings):
    special = ("<pad>", "<eos>", "<bos>", "<unk>")
    return transformers.GemmaTokenizerFast(tokenizer_object=of_pieces(special), **settings)


def llama3(folder):
    """Without a class of its own: tokenizer.json says it all."""
    made = byte_level(folder, ("<s>",))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 0)]
            ),
        ]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", model_input_names=["input_ids", "attention_mask"]
    )


NEW_TOKEN = AddedToken("<new>", lstrip=True)
TOKENIZERS = {
    "gpt2": gpt2,
    "gpt2 with spaces": functools.partial(gpt2, add_prefix_space=True, new=[NEW_TOKEN]),
    "gpt2 of vocab.json": functools.partial(gpt2, slow=True, new=["<new>"]),
    "gpt2 of vocab.json with bos": functools.partial(gpt2, slow=True, add_bos_token=True),
    "qwen2": qwen2,
    "qwen2 of vocab.json": functools.partial(qwen2, slow=True),
    "llama": llama,
    "llama without bos": functools.partial(llama, add_bos_token=False, legacy=False),
    "llama with both": functools.partial(llama, add_eos_token=True),
    "gemma": gemma,
    "gemma with eos": functools.partial(gemma, add_eos_token=True, add_bos_token=False),
}


def check_ids(folder, own):
    """Those of AutoTokenizer, and the same from what hp_jax writes of the tokenizer."""
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    found = load_decoder_tokenizer(folder)
    save_tokenizer(own, found)
    again = load_decoder_tokenizer(own)
    for text in TEXTS:
        expected = reference(text).input_ids
        assert found.encode(text).ids == again.encode(text).ids == expected, text
    return found


@needs_4
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_token_ids(tmp_path, kind):
    (tmp_path / "made").mkdir()
    TOKENIZERS[kind](tmp_path / "made").save_pretrained(tmp_path / "saved")
    check_ids(tmp_path / "saved", tmp_path / "own")


def test_rectangular_token_ids(tmp_path):
    """Of a tokenizer without a class, as every version saves it."""
    made = llama3(tmp_path)
    made.add_tokens(["<new>"])
    made.save_pretrained(tmp_path / "saved")
    check_ids(tmp_path / "saved", tmp_path / "own")


@needs_4
@pytest.mark.parametrize(
    ("model_type", "kind"),
    [("llama", "llama"), ("gemma3_text", "gemma"), ("gpt2", "gpt2"), ("qwen3", "qwen2")],
)
def test_token_ids_where_the_model_alone_says_the_class(tmp_path, model_type, kind):
    (tmp_path / "made").mkdir()
    made = TOKENIZERS[kind](tmp_path / "made")
    made.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    transformers.AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    check_ids(tmp_path, tmp_path / "own")


@needs_4
@pytest.mark.parametrize("said", [None, True, False])
def test_token_ids_with_a_setting_of_spaces(tmp_path, said):
    """A null leaves tokenizer.json as it is."""
    gpt2_folder = tmp_path / "gpt2"
    gpt2_folder.mkdir()
    gpt2(gpt2_folder, add_prefix_space=True).save_pretrained(gpt2_folder)
    file = gpt2_folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"add_prefix_space": said}))
    found = check_ids(gpt2_folder, tmp_path / "own")
    assert found.pre_tokenizer.add_prefix_space is (said is not False)


@needs_4
@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("space", [True, False])
def test_token_ids_of_a_tokenizer_that_is_made_anew(tmp_path, space, legacy):
    """Llama's with a setting add_prefix_space, for which transformers reads tokenizer.model:
    where tokenizer.json says the same, and refused where it does not."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    (tmp_path / "text").write_text("\n".join(SENTENCES[:3]))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"),
        model_prefix=str(tmp_path / "tokenizer"),
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        minloglevel=2,
    )
    settings = {"add_prefix_space": space, "legacy": legacy}
    folder = tmp_path / "saved"
    made = transformers.LlamaTokenizer(str(tmp_path / "tokenizer.model"), **settings)
    made.save_pretrained(folder)
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.model but no tokenizer\.json: make"):
        load_decoder_tokenizer(folder)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    check_ids(folder, tmp_path / "own")
    file = folder / "tokenizer_config.json"
    changed = json.loads(file.read_text()) | {"legacy": not legacy}
    file.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"with another .* than tokenizer\.json has"):
        load_decoder_tokenizer(folder)
