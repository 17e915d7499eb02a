"""BERT, RoBERTa and DistilBERT against transformers, live.

Run with transformers 4.57.6, the last line with head masks; the tests named `unmasked` also run
with its newest version.
"""

import copy
import functools
import json
import logging

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tiny import ONE_DEVICE, examples, load_hf_bert  # noqa: E402

from hp_jax import heads  # noqa: E402
from hp_jax.data.batching import batches  # noqa: E402
from hp_jax.importance import example_gradients, head_importance  # noqa: E402
from hp_jax.models.classification import Classification  # noqa: E402

FAMILIES = ("bert", "roberta", "distilbert")
LABELS = ("entailment", "neutral", "contradiction")
LAYERS, HEADS = 3, 4
DATA = examples(count=9, longest=14, vocab=60)


def make_model(family, *, head=True, seed=0):
    """A random model with parameters large enough that every head matters."""
    names = {
        "id2label": dict(enumerate(LABELS)),
        "label2id": {name: i for i, name in enumerate(LABELS)},
    }
    common = {"vocab_size": 60, "max_position_embeddings": 30, **names}
    usual = {
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_size": 32,
        "intermediate_size": 48,
    }
    distil = {"n_layers": LAYERS, "n_heads": HEADS, "dim": 32, "hidden_dim": 48}
    config, plain, classifier = {
        "bert": (
            transformers.BertConfig,
            transformers.BertModel,
            transformers.BertForSequenceClassification,
        ),
        "roberta": (
            transformers.RobertaConfig,
            transformers.RobertaModel,
            transformers.RobertaForSequenceClassification,
        ),
        "distilbert": (
            transformers.DistilBertConfig,
            None,
            transformers.DistilBertForSequenceClassification,
        ),
    }[family]
    extra = {
        "bert": usual,
        "roberta": usual | {"type_vocab_size": 1, "layer_norm_eps": 1e-5},
        "distilbert": distil,
    }[family]
    torch.manual_seed(seed)
    model = (classifier if head else plain)(
        config(**common, **extra, attn_implementation="eager")
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            one = 1.0 if "LayerNorm.weight" in name or "layer_norm.weight" in name else 0.0
            parameter.normal_(one, 0.3)
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    """A family's reference model, and ours from its saved folder."""
    model = make_model(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    config, params = load_hf_bert(folder, LABELS)
    return model, Classification(config), params


def inputs(model, batch):
    """The reference's inputs; it pads on its own terms, with its own padding token."""
    real_BT = np.arange(batch["tokens_BT"].shape[1]) < batch["length_B"][:, None]
    tokens_BT = np.where(real_BT, batch["tokens_BT"], model.config.pad_token_id)
    made = {
        "input_ids": torch.tensor(tokens_BT).long(),
        "attention_mask": torch.tensor(real_BT).long(),
    }
    if model.config.model_type == "bert":
        made["token_type_ids"] = torch.tensor(batch["types_BT"]).long()
    return made


def our_batch(task, size=9):
    batch = batches(DATA, size=size, buckets=(16,))[0]
    tokens_BT = batch["tokens_BT"].copy()
    tokens_BT[::2, 1] = task.config.pad  # also in a text, where RoBERTa does not count it
    return batch | {"tokens_BT": tokens_BT, "types_BT": batch["types_BT"] * (task.config.types > 1)}


@functools.partial(jax.jit, static_argnames="task")
def gated_logits(task, params, batch, gates):
    return task.logits(params, batch, gates)


def our_logits(task, params, batch, mask_AH):
    return np.asarray(gated_logits(task, params, batch, heads.gates(mask_AH, task.present_AH)))


def test_unmasked_logits(pair):
    model, task, params = pair
    batch = our_batch(task)
    with torch.no_grad():
        expected = model(**inputs(model, batch)).logits.numpy()
    np.testing.assert_allclose(
        our_logits(task, params, batch, heads.all_on(LAYERS, HEADS)), expected, atol=1e-5
    )
    assert np.ptp(expected) > 0.5


def test_masked_logits(pair):
    """The reference in float64: in float32 it is itself 1e-5 away from that."""
    model, task, params = pair
    model = copy.deepcopy(model).double()
    batch, full = our_batch(task), heads.all_on(LAYERS, HEADS)
    masks = [
        *heads.one_off(full),
        *heads.one_on(full)[::5],
        *heads.random_off(jax.random.key(5), full, 7, 3),
        np.zeros((LAYERS, HEADS)),
    ]
    for mask_AH in masks:
        with torch.no_grad():
            expected = model(
                **inputs(model, batch), head_mask=torch.tensor(np.array(mask_AH, np.float64))
            ).logits.numpy()
        np.testing.assert_allclose(our_logits(task, params, batch, mask_AH), expected, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_importance_is_the_dot_product_of_context_and_gradient(pair, masked):
    """|Att_h . dL/dAtt_h| from hooks on the reference's contexts (Michel et al., equation 3)."""
    model, task, params = pair
    batch = our_batch(task)
    mask_AH = np.ones((LAYERS, HEADS), np.float32)
    if masked:
        mask_AH[0, 1] = mask_AH[2, 3] = 0
    # A head that is off has a context of 0 in the reference, so its gate's gradient cannot be seen
    # there.
    alive = mask_AH > 0
    attentions = [
        module
        for name, module in model.named_modules()
        if name.endswith(("attention.self", "attention.out_lin"))
    ]
    contexts = []

    def keep(module, args, output):
        context = args[0] if isinstance(module, torch.nn.Linear) else output[0]
        context.retain_grad()
        contexts.append(context)

    hooks = [module.register_forward_hook(keep) for module in attentions]
    logits = model(**inputs(model, batch), head_mask=torch.tensor(mask_AH)).logits
    torch.nn.functional.cross_entropy(
        logits, torch.tensor(batch["label_B"]).long(), reduction="sum"
    ).backward()
    for hook in hooks:
        hook.remove()
    assert len(contexts) == LAYERS
    dots = [(c * c.grad).detach().numpy().reshape(9, 16, HEADS, 8).sum(-1) for c in contexts]
    tokens = batch["length_B"].sum()
    token_AH = np.stack([np.abs(dot).sum((0, 1)) for dot in dots]) / np.array(
        [[tokens], [tokens], [9]]
    )
    example_NAH = np.stack([dot.sum(1) for dot in dots], axis=1)
    found_AH = head_importance(task, params, [batch], mask_AH, mesh=ONE_DEVICE)
    np.testing.assert_allclose(found_AH[alive], token_AH[alive], rtol=1e-3, atol=1e-6)
    found_NAH = example_gradients(task, params, [batch], mask_AH, mesh=ONE_DEVICE)
    np.testing.assert_allclose(
        found_NAH[:, alive], example_NAH[batch["index_B"].argsort()][:, alive], rtol=1e-3, atol=2e-5
    )


def test_the_same_parameters_from_every_form_of_file(tmp_path):
    """One file, shards, .bin, and old LayerNorm names."""
    model = make_model("bert")
    model.save_pretrained(tmp_path / "one")
    _, expected = load_hf_bert(tmp_path / "one", LABELS)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").is_file()
    old_names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    old = {
        functools.reduce(lambda name, pair: name.replace(*pair), old_names.items(), name): tensor
        for name, tensor in model.state_dict().items()
    }
    (tmp_path / "bin").mkdir()
    torch.save(old, tmp_path / "bin" / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path / "bin")
    for form in ("shards", "bin"):
        _, found = load_hf_bert(tmp_path / form, LABELS)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_model_without_classifier_gets_a_fresh_one_and_says_so(tmp_path, caplog):
    model = make_model("bert", head=False)
    model.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"no trained classifier \(classifier\.weight\): fine-tune it first"
    ):
        load_hf_bert(tmp_path, LABELS, fresh=False)
    with caplog.at_level(logging.INFO, "hp_jax"):
        config, params = load_hf_bert(tmp_path, LABELS)
    assert "has no classifier.bias, classifier.kernel: initialised afresh" in caplog.text
    task = Classification(config)
    batch = our_batch(task)
    with torch.no_grad():
        pooled = model(**inputs(model, batch)).pooler_output.numpy()
    expected = pooled @ np.asarray(params["classifier"]["kernel"]) + np.asarray(
        params["classifier"]["bias"]
    )
    np.testing.assert_allclose(
        our_logits(task, params, batch, heads.all_on(LAYERS, HEADS)), expected, atol=1e-5
    )


def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path):
    model = make_model("bert")
    model.config.save_pretrained(tmp_path)

    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"bert.pooler.dense.weight": Hostile()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be read as a file of plain tensors"):
        load_hf_bert(tmp_path, LABELS)
    assert not (tmp_path / "owned").exists()


def test_old_and_new_versions_write_the_same_config_names(pair):
    model, task, _ = pair
    raw = json.loads(model.config.to_json_string())
    assert task.config.labels == LABELS
    assert task.config.width == (raw.get("hidden_size") or raw["dim"])
