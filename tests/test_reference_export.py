"""Exported Hugging Face folders against transformers, live: masked is removed is exported is what
transformers computes.

Run with transformers 4.57.6; the tests named `rectangular` also run with its newest version.
"""

import functools

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tiny_export import FAMILIES, LINES, batch_of_lines, classifier, hf_marian, two_masks, without  # noqa: E402
from tiny_translation import log_probs, real, translate  # noqa: E402

from hp_jax import heads  # noqa: E402
from hp_jax.architecture import Decoding  # noqa: E402
from hp_jax.formats.export import export  # noqa: E402
from hp_jax.formats.model import load_model  # noqa: E402

OLD = int(transformers.__version__.split(".")[0]) < 5
TEXTS = ["a good film .", "it is bad", "Good well, the film is a film"]


@functools.partial(jax.jit, static_argnames="task")
def gated_logits(task, params, batch, gates):
    return task.logits(params, batch, gates)


def our_logits(model, mask_AH):
    """Logits of TEXTS, each alone as far as padding goes."""
    found = model.text.encode_batch(TEXTS)
    width = max(len(one.ids) for one in found)
    batch = {
        "tokens_BT": np.array(
            [one.ids + [model.config.pad] * (width - len(one.ids)) for one in found], np.int32
        ),
        "types_BT": np.zeros((len(TEXTS), width), np.int32),
        "length_B": np.array([len(one.ids) for one in found], np.int32),
    }
    return np.asarray(
        gated_logits(model.task, model.params, batch, heads.gates(mask_AH, model.task.present_AH))
    )


def their_logits(folder):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = transformers.AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        return model(**inputs).logits.numpy(), model


def check_classifier(family, to, folder):
    """Exported, loaded by transformers and by us, some more heads removed, and all that again."""
    whole = model = classifier(family, folder)
    for step, mask_AH in enumerate(two_masks(whole.task.present_AH)):
        expected = our_logits(whole, mask_AH)
        small = without(model, mask_AH)
        np.testing.assert_allclose(our_logits(small, small.task.present_AH), expected, atol=1e-5)
        out = folder / str(step)
        export(small, out, to)
        found, theirs = their_logits(out)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert list(theirs.config.id2label.values()) == list(whole.config.labels)
        model = load_model(str(out))
        np.testing.assert_allclose(our_logits(model, model.task.present_AH), expected, atol=1e-5)
        assert model.config.labels == whole.config.labels
        queries = (
            tensor
            for name, tensor in theirs.state_dict().items()
            if name.endswith(("query.weight", "q_lin.weight"))
        )
        yield mask_AH, model, [len(tensor) for tensor in queries]
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_rectangular_classifiers(family, tmp_path):
    for _, model, widths in check_classifier(family, "hf", tmp_path):
        assert model.config.kept == ()
        assert widths == [16] * 3


@pytest.mark.skipif(not OLD, reason="transformers has no pruned heads from version 5 on")
@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_classifiers(family, tmp_path):
    for mask_AH, model, widths in check_classifier(family, "hf-ragged", tmp_path):
        kept = [tuple(np.flatnonzero(mask_H)) or (0,) for mask_H in mask_AH]
        assert list(model.config.kept) == kept
        assert widths == [4 * len(numbers) for numbers in kept]


@pytest.mark.skipif(not OLD, reason="transformers has no pruned heads from version 5 on")
@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_pruned_is_read(family, tmp_path):
    """Its own `prune_heads` and `save_pretrained`."""
    whole = classifier(family, tmp_path)
    export(whole, tmp_path / "whole", "hf")
    _, theirs = their_logits(tmp_path / "whole")
    theirs.prune_heads({0: [1, 2], 2: [0]})
    theirs.save_pretrained(tmp_path / "pruned")
    whole.family.save_text(tmp_path / "pruned", whole.text)
    model = load_model(str(tmp_path / "pruned"))
    assert model.config.kept == ((0, 3), (0, 1, 2, 3), (1, 2, 3))
    np.testing.assert_allclose(
        our_logits(model, model.task.present_AH),
        our_logits(whole, model.task.present_AH),
        atol=1e-5,
    )


# --- Marian --------------------------------------------------------------------------------------


@pytest.mark.parametrize("separate", [False, True], ids=["one vocabulary", "two"])
def test_rectangular_marian(separate, tmp_path):
    whole = model = hf_marian(separate)
    batch, pad = batch_of_lines(whole), whole.config.pad
    for step, mask_AH in enumerate(two_masks(whole.task.present_AH)):
        expected_BTV = log_probs(whole.task, whole.params, batch, mask_AH)
        model = without(model, mask_AH)
        out = tmp_path / str(step)
        decoding = Decoding(beam=3)
        export(model, out, "hf", decoding=decoding)
        theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(out).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(out)
        inputs = tokenizer(LINES, padding=True, return_tensors="pt")
        assert tokenizer(LINES)["input_ids"] == [
            ids.tolist() for ids in whole.text.encode_source(LINES)
        ]
        shifted_BT = np.pad(batch["target_BT"][:, :-1], ((0, 0), (1, 0)), constant_values=pad)
        with torch.no_grad():
            found_BTV = (
                theirs(**inputs, decoder_input_ids=torch.tensor(shifted_BT).long())
                .logits.log_softmax(-1)
                .numpy()
            )
            generated = theirs.generate(**inputs).tolist()
        np.testing.assert_allclose(
            found_BTV[real(batch)], expected_BTV[real(batch)], atol=1e-5, rtol=1e-5
        )
        best = [
            hypotheses[0][0]
            for hypotheses in translate(whole.task, whole.params, batch, mask_AH, decoding)
        ]
        assert [ids[1 : ids.index(0) + 1] for ids in generated] == best
        assert tokenizer.batch_decode(generated, skip_special_tokens=True) == [
            whole.text.decode(ids) for ids in best
        ]
        model = load_model(str(out))
        assert model.config == whole.config
        np.testing.assert_allclose(
            log_probs(model.task, model.params, batch, mask_AH), expected_BTV, atol=1e-5, rtol=1e-5
        )
    assert len({len(ids) for ids in best}) > 1
