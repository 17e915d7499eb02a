"""Hugging Face's Marian against transformers, live: log-probabilities, importance, greedy and beam
search, heads masked too.

Run with transformers 4.57.6, the last line with head masks.
"""

from unittest import mock

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
if int(transformers.__version__.split(".")[0]) > 4:
    pytest.skip("transformers has no head masks from version 5 on", allow_module_level=True)

from tiny import ONE_DEVICE  # noqa: E402
from tiny_translation import (  # noqa: E402
    before_eos,
    load_hf_marian_model,
    log_probs,
    make_batch,
    masked,
    real,
    sentences,
    some_masks,
    translate,
)

from hp_jax import heads  # noqa: E402
from hp_jax.architecture import Decoding  # noqa: E402
from hp_jax.importance import gate_gradients, head_importance  # noqa: E402
from hp_jax.models.translation import Translation  # noqa: E402

EOS, V, LAYERS, HEADS = 0, 24, 2, 4
PAD = V - 1
SIZES = {
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
}
SEEDS = {"shared": 2, "separate": 0}
"""Models whose translations are of many lengths."""
VARIANTS = {
    "shared": {"activation_function": "swish", "scale_embedding": True},
    "separate": {
        "activation_function": "relu",
        "share_encoder_decoder_embeddings": False,
        "decoder_ffn_dim": 20,
    },
}


def make_model(variant):
    """A random model with parameters large enough that every head matters."""
    sizes = {
        "vocab_size": V,
        "d_model": 16,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "max_position_embeddings": 40,
    }
    special = {
        "pad_token_id": PAD,
        "decoder_start_token_id": PAD,
        "eos_token_id": EOS,
        "forced_eos_token_id": None,
    }
    settings = SIZES | sizes | special | VARIANTS[variant] | {"attn_implementation": "eager"}
    model = transformers.MarianMTModel(transformers.MarianConfig(**settings)).eval()
    if variant == "separate":
        model.resize_decoder_token_embeddings(V + 3)
    torch.manual_seed(SEEDS[variant])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                parameter.normal_(1.0 if "layer_norm.weight" in name else 0.0, 0.3)
        model.final_logits_bias.normal_(0, 0.3)
    return model


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    """A variant's reference model, and ours from its saved folder."""
    model = make_model(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    config, params = load_hf_marian_model(folder)
    return model, Translation(config), params


def our_batch():
    sizes = {"eos": EOS, "first": 1, "longest": 9}
    return make_batch(
        sentences(6, PAD, seed=1, **sizes), sentences(6, PAD, seed=2, **sizes), pad=PAD, width=12
    )


def head_masks(task, mask_AH):
    """The reference's three masks."""
    rows = {
        row: torch.tensor(np.array(mask_H, np.float32))
        for row, mask_H in zip(task.rows, mask_AH, strict=True)
    }
    names = {"head_mask": "enc", "decoder_head_mask": "dec", "cross_attn_head_mask": "cross"}
    return {
        name: torch.stack([rows[f"{kind}.{i}"] for i in range(LAYERS)])
        for name, kind in names.items()
    }


def source_of(batch):
    width = batch["source_BS"].shape[1]
    return {
        "input_ids": torch.tensor(batch["source_BS"]).long(),
        "attention_mask": torch.tensor(np.arange(width) < batch["source_length_B"][:, None]).long(),
    }


def reference_logits(model, task, batch, mask_AH):
    shifted_BT = np.pad(batch["target_BT"][:, :-1], ((0, 0), (1, 0)), constant_values=PAD)
    return model(
        **source_of(batch),
        decoder_input_ids=torch.tensor(shifted_BT).long(),
        **head_masks(task, mask_AH),
    ).logits


def test_log_probabilities(pair):
    model, task, params = pair
    batch = our_batch()
    for mask_AH in some_masks(task):
        with torch.no_grad():
            expected_BTV = reference_logits(model, task, batch, mask_AH).log_softmax(-1).numpy()
        found_BTV = log_probs(task, params, batch, mask_AH)
        np.testing.assert_allclose(
            found_BTV[real(batch)], expected_BTV[real(batch)], atol=1e-5, rtol=1e-5
        )


def test_every_head_matters(pair):
    _, task, params = pair
    batch, full = our_batch(), heads.all_on(len(task.rows), HEADS)
    before_BTV = log_probs(task, params, batch, full)
    for mask_AH in heads.one_off(full):
        change_BTV = np.abs(log_probs(task, params, batch, mask_AH) - before_BTV)
        assert change_BTV[real(batch)].max() > 1e-2


def end_at(limit):
    """Only EOS may come after `limit` tokens, at its price: the reference's own forced EOS is
    free."""

    def processor(ids, scores_BV):
        if ids.shape[1] <= limit:  # the decoder's start is one of them
            return scores_BV
        return torch.full_like(scores_BV, -torch.inf).index_copy(
            1, torch.tensor([EOS]), scores_BV[:, [EOS]]
        )

    return transformers.LogitsProcessorList([processor])


@pytest.mark.parametrize("beam", [1, 5])
def test_translations(pair, beam):
    """The best hypothesis. The reference's limit is one for the batch, so all sentences have one
    length."""
    model, task, params = pair
    sources = list(
        np.append(np.random.default_rng(3).integers(1, PAD, (8, 6)), [[EOS]] * 8, axis=1).astype(
            np.int32
        )
    )
    batch, decoding = (
        make_batch(sources, sources, pad=PAD, width=7),
        Decoding(beam=beam, max_ratio=2.0, max_extra=1),
    )
    options = {
        "num_beams": beam,
        "do_sample": False,
        "max_length": 2 * 7 + 1 + 2,  # the decoder's start and EOS are counted
        "min_new_tokens": decoding.min_length,
        "bad_words_ids": [[PAD]],
        "logits_processor": end_at(2 * 7 + 1),
    } | ({"early_stopping": True, "length_penalty": 1.0} if beam > 1 else {})
    lengths = set()
    whole, *_, few, fewer = some_masks(task)
    for mask_AH in (whole, few, fewer):
        # generate repeats head masks for each beam, which it then refuses, and takes the source
        # vocabulary for the target one
        with (
            masked(model.model, task, mask_AH),
            mock.patch.object(model.config, "vocab_size", task.config.target_vocab),
        ):
            found = model.generate(**source_of(batch), **options)
        expected = [before_eos(ids[1:], EOS) for ids in found.tolist()]
        assert [
            hypotheses[0][0] for hypotheses in translate(task, params, batch, mask_AH, decoding)
        ] == expected
        lengths |= {len(ids) for ids in expected}
    assert len(lengths) > 2


@pytest.mark.parametrize("some_off", [False, True])
def test_importance_is_the_dot_product_of_context_and_gradient(pair, some_off):
    """|Att_h . dL/dAtt_h| of every query position, from hooks on the reference's contexts, for all
    kinds of attention."""
    model, task, params = pair
    batch, mask_AH = our_batch(), np.ones((len(task.rows), HEADS), np.float32)
    if some_off:
        mask_AH[0, 1] = mask_AH[2, 3] = mask_AH[5, 0] = 0
    alive = (
        mask_AH > 0
        # a head that is off has a context of 0 in the reference, so its gate's gradient cannot be
        # seen
        # there
    )
    contexts = {}

    def keep(name):
        def hook(module, args):
            contexts[name] = args[0]
            args[0].retain_grad()

        return hook

    hooks = []
    for row in task.rows:
        kind, _, i = row.partition(".")
        layer = (model.model.encoder if kind == "enc" else model.model.decoder).layers[int(i)]
        module = layer.encoder_attn if kind == "cross" else layer.self_attn
        hooks.append(module.out_proj.register_forward_pre_hook(keep(row)))
    logits_BTV = reference_logits(model, task, batch, mask_AH)
    target_BT = torch.tensor(np.where(real(batch), batch["target_BT"], -100)).long()
    torch.nn.functional.cross_entropy(
        logits_BTV.transpose(1, 2), target_BT, reduction="sum"
    ).backward()
    for hook in hooks:
        hook.remove()
    dots = [(contexts[row] * contexts[row].grad).detach().numpy() for row in task.rows]
    dot_ABTH = np.stack([dot.reshape(*dot.shape[:2], HEADS, -1).sum(-1) for dot in dots])
    found_ABTH = np.stack(gate_gradients(task, params, batch, mask_AH))
    np.testing.assert_allclose(
        found_ABTH.swapaxes(1, 3)[alive], dot_ABTH.swapaxes(1, 3)[alive], rtol=1e-3, atol=2e-5
    )
    tokens = [
        batch["source_length_B" if row.startswith("enc") else "target_length_B"].sum()
        for row in task.rows
    ]
    token_AH = np.abs(dot_ABTH).sum((1, 2)) / np.array(tokens)[:, None]
    found_AH = head_importance(task, params, [batch], mask_AH, mesh=ONE_DEVICE)
    np.testing.assert_allclose(found_AH[alive], token_AH[alive], rtol=1e-3, atol=1e-6)
    assert token_AH[alive].min() > 1e-4
