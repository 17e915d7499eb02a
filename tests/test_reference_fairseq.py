"""Translation models against fairseq, live: log-probabilities, n-best lists and their scores, whole
and with heads masked.

Run with ve-fairseq 0.12.3 (fairseq for today's PyTorch; Python 3.11) installed without its
requirements: what is used of it needs bitarray, hydra-core, sacrebleu, scikit-learn and tqdm.
"""

import argparse
import dataclasses
import logging
import re
import warnings
from typing import Any

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
level = logging.getLogger().level
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r"`torch.jit.script", category=DeprecationWarning)
    pytest.importorskip("fairseq.models.transformer")
    from fairseq.checkpoint_utils import load_model_ensemble
    from fairseq.data import Dictionary
    from fairseq.models.transformer import TransformerModel, base_architecture
    from fairseq.sequence_generator import SequenceGenerator
logging.getLogger().setLevel(level)  # fairseq has everything logged

from tiny_export import fairseq_text, two_masks, without  # noqa: E402
from tiny_translation import log_probs, make_batch, masked, real, sentences, some_masks, translate  # noqa: E402

from hp_jax import heads  # noqa: E402
from hp_jax.architecture import Decoding  # noqa: E402
from hp_jax.formats.export import export  # noqa: E402
from hp_jax.formats.fairseq.read import load_fairseq_model  # noqa: E402
from hp_jax.formats.model import Model, load_model  # noqa: E402
from hp_jax.models.translation import Translation  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:Support for mismatched key_padding_mask and attn_mask:UserWarning"
)

PAD, EOS = 1, 2
SIZES = {
    "arch": "transformer",
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "max_source_positions": 40,
    "max_target_positions": 40,
}
SEEDS = {"shared": 10, "pre": 2, "old": 2}
"""Models whose translations are of many lengths."""
VARIANTS: dict[str, dict[str, Any]] = {
    "shared": {"share_all_embeddings": True},
    "pre": {
        "encoder_normalize_before": True,
        "decoder_normalize_before": True,
        "decoder_attention_heads": 2,
        "decoder_ffn_embed_dim": 20,
        "share_decoder_input_output_embed": True,
        "activation_fn": "gelu",
        "no_scale_embedding": True,
    },
    "old": {"encoder_learned_pos": True, "decoder_learned_pos": True},
}


def make_model(variant):
    """A random model with parameters large enough that every head matters, its settings and its
    target dictionary."""
    settings = argparse.Namespace(**SIZES | VARIANTS[variant])
    base_architecture(settings)
    source, target = Dictionary(), Dictionary()
    for dictionary, symbols in ((source, 26), (target, 26 if variant == "shared" else 22)):
        for i in range(symbols):
            dictionary.add_symbol(f"w{i}")
    model = TransformerModel.build_model(
        settings,
        argparse.Namespace(
            source_dictionary=source, target_dictionary=source if variant == "shared" else target
        ),
    )
    torch.manual_seed(SEEDS[variant])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "layer_norm.weight" in name else 0.0, 0.3)
        model.decoder.output_projection.weight[EOS] *= (
            1.5  # so that some translations end before their limit
        )
    return model.eval(), settings, source if variant == "shared" else target


def old_layout(state):
    """The tensors as fairseq named them in 2018."""
    old = {}
    for name, tensor in state.items():
        if ".q_proj." in name:
            kind = name.rpartition(".")[2]
            parts = [state[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            old[name.replace(f".q_proj.{kind}", f".in_proj_{kind}")] = torch.cat(parts)
        elif not re.search(r"\.[kv]_proj\.", name):
            norms = ["self_attn_layer_norm", "final_layer_norm"]
            if name.startswith("decoder"):
                norms.insert(1, "encoder_attn_layer_norm")
            for i, norm in enumerate(norms):
                name = name.replace(f".{norm}.", f".layer_norms.{i}.")
            old[name.replace("decoder.output_projection.weight", "decoder.embed_out")] = tensor
    return old


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    """A reference model with its target dictionary, and ours from its saved file."""
    model, settings, dictionary = make_model(request.param)
    state = model.state_dict()
    path = tmp_path_factory.mktemp(request.param) / "model.pt"
    torch.save(
        {"args": settings, "model": old_layout(state) if request.param == "old" else state}, path
    )
    config, params = load_fairseq_model(path)
    return model, dictionary, Translation(config), params


def pairs_of(task):
    sizes = {"eos": EOS, "first": 4, "longest": 9}
    sources = sentences(6, task.config.source_vocab, seed=1, **sizes)
    return sources, sentences(6, task.config.target_vocab, seed=2, **sizes)


def reference_log_probs(model, batch):
    """Source padded on the left, as fairseq does, and the target shifted."""
    width = batch["source_BS"].shape[1]
    rows = zip(batch["source_BS"], batch["source_length_B"], strict=True)
    source_BS = np.stack([np.roll(ids, width - length) for ids, length in rows])
    shifted_BT = np.pad(batch["target_BT"][:, :-1], ((0, 0), (1, 0)), constant_values=EOS)
    inputs = (torch.tensor(x).long() for x in (source_BS, batch["source_length_B"], shifted_BT))
    with torch.no_grad():
        return model.get_normalized_probs(model(*inputs), log_probs=True).numpy()


def test_log_probabilities(pair):
    model, _, task, params = pair
    batch = make_batch(*pairs_of(task), pad=PAD, width=12)
    for mask_AH in some_masks(task):
        with masked(model, task, mask_AH):
            expected_BTV = reference_log_probs(model, batch)
        found_BTV = log_probs(task, params, batch, mask_AH)
        np.testing.assert_allclose(
            found_BTV[real(batch)], expected_BTV[real(batch)], atol=1e-5, rtol=1e-5
        )


def test_every_head_matters(pair):
    _, _, task, params = pair
    batch = make_batch(*pairs_of(task), pad=PAD, width=12)
    full = task.present_AH
    before_BTV = log_probs(task, params, batch, full)
    for mask_AH in heads.one_off(full):
        change_BTV = np.abs(log_probs(task, params, batch, mask_AH) - before_BTV)
        assert change_BTV[real(batch)].max() > 1e-2


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(max_ratio=1.5, max_extra=3),
        Decoding(length_penalty=0.6, min_length=3, max_ratio=1.0, max_extra=4),
        Decoding(beam=1, max_ratio=1.0, max_extra=2),
    ],
    ids=["beam 5", "length penalty", "greedy"],
)
def test_translations(pair, decoding):
    """All hypotheses and scores. fairseq's limit is of its batch's padded length, so it has batches
    of one length."""
    model, dictionary, task, params = pair
    random = np.random.default_rng(4)
    groups = [
        np.append(random.integers(4, task.config.source_vocab, (3, n)), [[EOS]] * 3, axis=1)
        for n in (3, 8)
    ]
    sources = [ids.astype(np.int32) for group in groups for ids in group]
    batch = make_batch(sources, sources, pad=PAD, width=12)
    generator = SequenceGenerator(
        [model],
        dictionary,
        beam_size=decoding.beam,
        max_len_a=decoding.max_ratio,
        max_len_b=decoding.max_extra,
        max_len=1000,
        min_len=decoding.min_length,
        len_penalty=decoding.length_penalty,
    )
    lengths = set()
    whole, *_, few, fewer = some_masks(task)
    for mask_AH in (whole, few, fewer):
        with masked(model, task, mask_AH):
            inputs = [
                {
                    "src_tokens": torch.tensor(group),
                    "src_lengths": torch.tensor([group.shape[1]] * 3),
                }
                for group in groups
            ]
            expected = [
                hypotheses
                for one in inputs
                for hypotheses in generator.generate([model], {"net_input": one})
            ]
        for ours, theirs in zip(
            translate(task, params, batch, mask_AH, decoding), expected, strict=True
        ):
            assert [ids for ids, _ in ours] == [one["tokens"].tolist() for one in theirs]
            np.testing.assert_allclose(
                [score for _, score in ours], [one["score"].item() for one in theirs], atol=1e-4
            )
            lengths |= {len(ids) for ids, _ in ours}
    assert len(lengths) > 2


def test_the_old_and_the_new_layout_are_the_same_model(tmp_path):
    model, settings, _ = make_model("pre")
    state = model.state_dict()
    old = old_layout(
        {name: tensor for name, tensor in state.items() if "output_projection" not in name}
    )
    del settings.activation_fn  # there was no choice
    torch.save({"args": settings, "model": old}, tmp_path / "old.pt")
    torch.save({"cfg": {"model": vars(settings), "task": {}}, "model": state}, tmp_path / "new.pt")
    (config, params), (new_config, new_params) = (
        load_fairseq_model(tmp_path / name) for name in ("old.pt", "new.pt")
    )
    assert config == new_config == dataclasses.replace(config, activation="relu")
    jax.tree.map(np.testing.assert_array_equal, params, new_params)


def test_rectangular_export(pair, tmp_path):
    """Masked is removed is exported is what fairseq computes; read by us, some more heads removed,
    and all that again."""
    _, _, task, params = pair
    batch, full = make_batch(*pairs_of(task), pad=PAD, width=12), task.present_AH
    model = Model(task.config, params, fairseq_text(task.config))
    for mask_AH in two_masks(full):
        expected_BTV = log_probs(task, params, batch, mask_AH)
        out = tmp_path / str(mask_AH.sum())
        export(without(model, mask_AH), out, "fairseq", decoding=Decoding(beam=3))
        (theirs,), cfg = load_model_ensemble(
            [str(out / "model.pt")], arg_overrides={"data": str(out)}
        )
        found_BTV = reference_log_probs(theirs.eval(), batch)
        np.testing.assert_allclose(
            found_BTV[real(batch)], expected_BTV[real(batch)], atol=1e-5, rtol=1e-5
        )
        assert cfg.generation.beam == 3
        model = load_model(str(out))
        assert (
            dataclasses.replace(model.config, max_positions=task.config.max_positions)
            == task.config
        )
        np.testing.assert_allclose(
            log_probs(model.task, model.params, batch, full), expected_BTV, atol=1e-5, rtol=1e-5
        )


@pytest.mark.filterwarnings("ignore")  # fairseq's and PyTorch's own
def test_an_exported_folder_translates_text(tmp_path):
    model, settings, _ = make_model("shared")
    torch.save({"args": settings, "model": model.state_dict()}, tmp_path / "model.pt")
    config, params = load_fairseq_model(tmp_path / "model.pt")
    text, decoding = fairseq_text(config), Decoding(beam=3, max_ratio=1.0, max_extra=4)
    export(Model(config, params, text), tmp_path / "out", "fairseq", decoding=decoding)
    hub = TransformerModel.from_pretrained(str(tmp_path / "out"), checkpoint_file="model.pt")
    line = "abc mab, hik."
    batch = make_batch(text.encode_source([line]), text.encode_source([line]), pad=PAD, width=20)
    task = Translation(config)
    best = translate(task, params, batch, task.present_AH, decoding)[0][0][0]
    assert hub.encode(line).tolist() == text.encode_source([line])[0].tolist()
    assert hub.translate(line, beam=3) == text.decode(best)
