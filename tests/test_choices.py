"""Multiple choice: layouts, encoding, the task, and the commands."""

import dataclasses
import json
import runpy
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from tiny import ONE_DEVICE, config_file, random_params
from tiny_language import CONFIG, tokenizer, write_items, write_language_model

from hp_jax import heads
from hp_jax.architecture import present_mask
from hp_jax.cli import main
from hp_jax.config import (
    FINE_TUNING,
    Ablation,
    ChoiceData,
    Importance,
    MultipleChoiceExperiment,
    Pruning,
)
from hp_jax.data import choices
from hp_jax.data.batching import batches
from hp_jax.experiment import ablate, load
from hp_jax.grid import evaluate_grid
from hp_jax.importance import head_importance
from hp_jax.least_squares import repair
from hp_jax.linear import linear_map
from hp_jax.metrics import metric_of, scores, statistics_of
from hp_jax.models.choices import MultipleChoice
from hp_jax.models.language import LanguageModel
from hp_jax.report.scale import SCALES
from hp_jax.storage.store import open_store
from hp_jax.text.choices import EncodedItems, encode_items

FULL = present_mask(CONFIG)
SOME = np.array([[1, 1, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0]], bool)
TASK = MultipleChoice(CONFIG, 3)
PARAMS = random_params(LanguageModel(CONFIG), scale=0.3)


def encoded(count=6, seed=0):
    """Random items of two or three choices; those of every other item begin alike."""
    random = np.random.default_rng(seed)
    tokens, given, size = [], [], []
    for n in range(count):
        own, shared = random.integers(2, 4), random.integers(0, CONFIG.vocab, 3 * (n % 2))
        ids = [
            np.concatenate([shared, random.integers(0, CONFIG.vocab, random.integers(3, 6))])
            for _ in range(own)
        ]
        tokens.append(tuple(one.astype(np.int32) for one in ids))
        given.append(tuple(int(random.integers(1 + len(shared), len(one))) for one in ids))
        size.append(tuple(random.uniform(1, 3, own)))
    label_N = np.array([random.integers(len(own)) for own in tokens], np.int32)
    return EncodedItems("x", tuple(tokens), tuple(given), tuple(size), 3, label_N, np.arange(count))


DATA = encoded()
LONGEST = 24


def by_hand(mask_AH):
    """Log-likelihoods by size, from the logits of each choice alone."""
    model = LanguageModel(CONFIG)
    run = jax.jit(model.logits)
    found = np.full((len(DATA), 3), -np.inf)
    for n, c in np.ndindex(len(DATA), 3):
        if c < len(DATA.tokens[n]):
            ids, before = DATA.tokens[n][c], DATA.given[n][c]
            filled = np.pad(ids, (0, 9 - len(ids)))[None]
            logits_TV = run(PARAMS, filled, heads.gates(mask_AH, FULL))[0]
            log_TV = jax.nn.log_softmax(logits_TV)
            told = [log_TV[t - 1, ids[t]] for t in range(before, len(ids))]
            found[n, c] = np.sum(told) / DATA.size[n][c]
    return found


def batched(size=4):
    return batches(DATA, size=size, buckets=(LONGEST,))


def test_what_choices_share_is_read_once():
    """Each choice's tokens are at their positions, after those that it shares; each token of it
    that is predicted is, once."""
    (batch,) = batched(6)
    for place, n in enumerate(batch["index_B"]):
        tokens, given = DATA.tokens[n], DATA.given[n]
        names = "tokens_BT", "choice_BT", "position_BT", "target_BT"
        own_T, choice_T, position_T, target_T = (batch[name][place] for name in names)
        shared = (choice_T == 0).sum()
        assert shared >= 3 * (n % 2)
        assert (choice_T >= 0).sum() == shared + sum(len(ids) - 1 - shared for ids in tokens)
        for number, (ids, before) in enumerate(zip(tokens, given, strict=True), 1):
            read_T = np.isin(choice_T, (0, number))
            np.testing.assert_array_equal(own_T[read_T], ids[:-1])
            np.testing.assert_array_equal(position_T[read_T], np.arange(len(ids) - 1))
            told = target_T[choice_T == number]
            np.testing.assert_array_equal(told[told >= 0], ids[before:])
            assert (target_T[choice_T <= 0] == -1).all()


def test_a_grid_gives_what_each_choice_has_alone():
    values = evaluate_grid(TASK, PARAMS, batched(), np.stack([FULL, SOME]))
    for mask_AH, loss_N, prediction_N, confidence_N in zip(
        (FULL, SOME), values["loss"], values["prediction"], values["confidence"], strict=True
    ):
        logits_NC = by_hand(mask_AH)
        np.testing.assert_array_equal(prediction_N, logits_NC.argmax(1))
        expected = optax.softmax_cross_entropy_with_integer_labels(logits_NC, DATA.label_N)
        np.testing.assert_allclose(loss_N, expected, rtol=1e-4, atol=1e-5)
        odds_NC = np.asarray(jax.nn.softmax(logits_NC))
        np.testing.assert_allclose(confidence_N, odds_NC.max(1), rtol=1e-4)


def test_the_logit_difference_is_from_the_best_other_choice():
    """In the grid, and in the metric of all items and of each."""
    values = evaluate_grid(TASK, PARAMS, batched(), np.stack([FULL, SOME]))
    metric = metric_of({"metric": "logit_difference"})
    assert metric.larger_is_better
    for m, mask_AH in enumerate((FULL, SOME)):
        expected = []
        for logits_C, label in zip(by_hand(mask_AH), DATA.label_N, strict=True):
            others = [logit for c, logit in enumerate(logits_C) if c != label]
            expected.append(logits_C[label] - max(others))
        found_N = values["logit_difference"][m]
        np.testing.assert_allclose(found_N, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(found_N > 0, values["prediction"][m] == DATA.label_N)
        np.testing.assert_allclose(scores(metric, values)[m], np.mean(expected), rtol=1e-4)
        statistics_NS = statistics_of(metric, values)[m]
        np.testing.assert_allclose(statistics_NS[:, 0] / statistics_NS[:, 1], found_N)


def test_importance_and_the_linear_map_are_those_of_the_loss():
    """Of each token, whatever the batches; and the map's log-odds at its own gates are the
    model's."""
    few, many = (
        head_importance(TASK, PARAMS, batched(size), FULL, mesh=ONE_DEVICE) for size in (1, 6)
    )
    np.testing.assert_allclose(few, many, rtol=1e-4)
    assert (few > 0).all()
    found = linear_map(TASK, PARAMS, batched(), SOME)
    logits_NC = by_hand(SOME)
    real = np.isfinite(logits_NC[:, 2])
    odds_NO = logits_NC[:, 1:] - logits_NC[:, :1]
    np.testing.assert_allclose(found.output_NO[real], odds_NO[real], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.output_NO[:, 0], odds_NO[:, 0], rtol=1e-4, atol=1e-4)
    here, values = found.values(SOME[None]), evaluate_grid(TASK, PARAMS, batched(), SOME[None])
    assert set(here) == set(values)
    for name, array in here.items():
        np.testing.assert_allclose(array, values[name], rtol=1e-4, atol=1e-4)


def test_a_repair_leaves_less_missing():
    found = repair(TASK, PARAMS, batched(), SOME)
    assert (found.after_A <= found.before_A * (1 + 1e-6)).all()


def test_smoothing_is_over_the_choices_that_there_are():
    (batch,) = batched(6)
    gates, key = heads.gates(FULL, FULL), jax.random.key(0)
    loss_B, count_B = TASK.training_loss(PARAMS, batch, gates, dropout=key, smoothing=0.2)
    logits_NC = by_hand(FULL)
    assert (count_B == 1).all()
    for place, n in enumerate(batch["index_B"]):
        logits_C = logits_NC[n][np.isfinite(logits_NC[n])]
        label_C = 0.8 * np.eye(len(logits_C))[DATA.label_N[n]] + 0.2 / len(logits_C)
        expected = -(label_C * np.asarray(jax.nn.log_softmax(logits_C))).sum()
        np.testing.assert_allclose(loss_B[place], expected, rtol=1e-4)


def test_a_batch_that_is_not_full_has_a_training_loss():
    """What fills it up has no choice at all."""
    (batch,) = batched(8)
    gates, key = heads.gates(FULL, FULL), jax.random.key(0)

    def loss(params):
        loss_B, count_B = TASK.training_loss(params, batch, gates, dropout=key, smoothing=0.1)
        return (loss_B * batch["weight_B"]).sum() / (count_B * batch["weight_B"]).sum()

    found, gradient = jax.value_and_grad(loss)(PARAMS)
    (full,) = batched(6)
    loss_B, _ = TASK.training_loss(PARAMS, full, gates, dropout=key, smoothing=0.1)
    assert found == pytest.approx(float(loss_B.mean()), rel=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


# --- layouts -------------------------------------------------------------------------------------

LAYOUTS = {
    "own": (
        {"context": "the", "choices": ["an", "at"], "label": 1},
        [("the", " an"), ("the", " at")],
        1,
    ),
    "hellaswag": (
        {
            "activity_label": "Cooking",
            "ctx_a": "A cook [step] stands.",
            "ctx_b": "she",
            "endings": ["cooks. [title] Eat", "sings."],
            "label": "0",
        },
        [
            ("Cooking: A cook stands. She", " cooks.. Eat"),
            ("Cooking: A cook stands. She", " sings."),
        ],
        0,
    ),
    "arc": (
        {
            "question": "Why?",
            "choices": {"text": ["So", "No", "Yes"], "label": ["A", "B", "C"]},
            "answerKey": "C",
        },
        [("Question: Why?\nAnswer:", f" {answer}") for answer in ("So", "No", "Yes")],
        2,
    ),
    "piqa": (
        {"goal": "Open it", "sol1": "Push", "sol2": "Pull", "label": 1},
        [("Question: Open it\nAnswer:", " Push"), ("Question: Open it\nAnswer:", " Pull")],
        1,
    ),
    "winogrande": (
        {"sentence": "The _ is big.", "option1": "cat", "option2": "dog", "answer": "2"},
        [("The cat", " is big."), ("The dog", " is big.")],
        1,
    ),
    "blimp": (
        {"sentence_good": "It is.", "sentence_bad": "It are."},
        [("", "It is."), ("", "It are.")],
        0,
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    record, expected, label = LAYOUTS[layout]
    (tmp_path / "validation.jsonl").write_text(json.dumps(record) + "\n")
    found = choices.read(ChoiceData(path=str(tmp_path), layout=layout), "validation")
    assert found.choices == (tuple(expected),)
    assert found.label_N.tolist() == [label]


def test_parquet_as_hubs_ship_it(tmp_path):
    """In several files, with lists and structs in the columns."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    record, expected, label = LAYOUTS["arc"]
    for shard in range(2):
        name = f"validation-0000{shard}-of-00002.parquet"
        parquet.write_table(pyarrow.Table.from_pylist([record] * 2), tmp_path / name)
    found = choices.read(ChoiceData(path=str(tmp_path), layout="arc"), "validation")
    assert found.choices == (tuple(expected),) * 4
    assert found.label_N.tolist() == [label] * 4
    assert found.line_N.tolist() == [1, 2, 3, 4]


def test_the_authors_own_arc(tmp_path):
    record = {
        "question": {
            "stem": "Why?",
            "choices": [{"text": "So", "label": "1"}, {"text": "No", "label": "2"}],
        },
        "answerKey": "2",
    }
    (tmp_path / "x.jsonl").write_text(json.dumps(record))
    found = choices.read(ChoiceData(path=str(tmp_path / "x.jsonl"), layout="arc"), "validation")
    assert found.choices[0][1] == ("Question: Why?\nAnswer:", " No")
    assert found.label_N.tolist() == [1]


@pytest.mark.parametrize(
    ("layout", "record", "said"),
    [
        ("own", {"choices": ["a", "b"]}, "x.jsonl:1: expected an item as own has them.*label"),
        ("own", {"choices": ["a", "b"], "label": "1"}, "a number from 0 was expected"),
        ("own", {"choices": ["a", "b"], "label": 2}, "found 2 and the label 2"),
        ("own", {"choices": ["a"], "label": 0}, "at least two choices"),
        ("own", {"choices": ["a", " "], "label": 0}, "choice 1 is empty"),
        ("own", {"choices": "ab", "label": 0}, "a list of texts was expected"),
        ("own", {"choices": {"a": "b", "c": "d"}, "label": 0}, "a list of texts was expected"),
        ("own", {"context": 5, "choices": ["a", "b"], "label": 0}, "context is 5, but a text"),
        ("piqa", {"goal": None, "sol1": "a", "sol2": "b", "label": 0}, "goal is None, but a text"),
        ("arc", {"question": None, "choices": {}, "answerKey": "A"}, "question is None, but"),
        ("winogrande", {"sentence": "x", "option1": "", "option2": "", "answer": "1"}, "no blank"),
    ],
)
def test_items_that_are_none(tmp_path, layout, record, said):
    (tmp_path / "x.jsonl").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=said):
        choices.read(ChoiceData(path=str(tmp_path / "x.jsonl"), layout=layout), "validation")


def test_no_context_may_be_said_in_three_ways(tmp_path):
    ways = [{}, {"context": None}, {"context": ""}]
    lines = [json.dumps({"choices": ["a", "b"], "label": 0} | way) for way in ways]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    found = choices.read(ChoiceData(path=str(tmp_path / "x.jsonl")), "validation")
    assert set(found.choices) == {(("", "a"), ("", "b"))}


def items(*of):
    place_N = np.arange(len(of))
    return choices.Items(
        choices=of,
        label_N=np.zeros(len(of), np.int32),
        files={"x": "x"},
        line_N=place_N + 1,
        origin_N=place_N,
    )


def test_context_and_choice_are_encoded_together():
    """The spaces at the end of what is before a choice are the choice's."""
    own = tokenizer()
    found = encode_items(own, items((("an", " the"), ("an ", "at"))), 20, prefix="", by_length=True)
    assert found.tokens[0][0].tolist() == own.encode("an the").ids
    assert found.tokens[0][1].tolist() == own.encode("an at").ids
    assert found.given == ((1, 1),)
    assert found.size == ((3.0, 2.0),)


def test_long_ones_lose_their_first_tokens():
    own = tokenizer()
    found = encode_items(
        own, items((("the an at", " the"), ("t", "h"))), 3, prefix="", by_length=False
    )
    assert found.tokens[0][0].tolist() == own.encode("the an at the").ids[-3:]
    assert found.given == ((2, 1),)
    with pytest.raises(ValueError, match="has 3 tokens, but max_length is 3"):
        encode_items(own, items((("t", " at"), ("t", "h"))), 3, prefix="", by_length=False)


def test_nothing_before_a_choice_needs_a_prefix():
    own = tokenizer()
    own.add_special_tokens(["<start>"])
    some = items((("", "the"), ("", "an")))
    with pytest.raises(ValueError, match=r"x:1: nothing is before the choice 'the'.*data.prefix"):
        encode_items(own, some, 9, prefix="", by_length=False)
    with pytest.raises(ValueError, match="but the model has no such token"):
        encode_items(own, some, 9, prefix="<begin>", by_length=False)
    found = encode_items(own, some, 9, prefix="<start>", by_length=False)
    start = own.token_to_id("<start>")
    assert found.tokens[0][0].tolist() == [start, *own.encode("the").ids]
    assert found.given == ((1, 1),)


def test_minimal_pairs_differ_little(tmp_path):
    """In one word, or in the words at the end; as many have the right one first as last."""
    script = Path(__file__).parents[1] / "scripts" / "minimal_pairs.py"
    lines = [json.dumps(item) for item in runpy.run_path(str(script))["items"]()]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    found = choices.read(ChoiceData(path=str(tmp_path / "pairs.jsonl")), "validation")
    assert len(set(found.choices)) == len(found) >= 200
    assert found.label_N.sum() * 2 == len(found)
    for pair in found.choices:
        one, other = (choice.rstrip(".?").split() for _, choice in pair)
        short, long = sorted((one, other), key=len)
        differ = sum(a != b for a, b in zip(one, other, strict=False))
        assert (len(one) == len(other) and differ == 1) or long[: len(short)] == short


# --- the commands --------------------------------------------------------------------------------


def test_a_run_from_items_to_report(tmp_path, capsys):
    write_language_model(tmp_path / "model")
    for split in ("train", "validation"):
        write_items(tmp_path / f"{split}.jsonl", 12)
    config = MultipleChoiceExperiment(
        model=str(tmp_path / "model"),
        out=str(tmp_path / "out"),
        data=ChoiceData(path=str(tmp_path), buckets=(16,), normalize="characters", max_length=32),
        importance=Importance(split="train"),
        ablation=Ablation(sets=("one_off",)),
        pruning=Pruning(orders=("one_shot",), shares=(0, 0.5), select="train", test="validation"),
    )
    path = config_file(tmp_path, config)
    assert main(["run", str(path), "--quiet"]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert load(config).task.choices == 3
    settings = dataclasses.replace(config.ablation, precision=50.0)
    split = dataclasses.replace(config, ablation=settings, tensor_devices=4)
    assert load(split).grid([], np.ones((1, 3, 4), bool), label="").tensor == 4
    ablate(load(split))
    whole, estimate = (
        open_store(f"{config.out}/{name}/validation/one_off") for name in ("ablation", "estimates")
    )
    measured_NM = estimate.read("measured")
    order_N = np.concatenate([estimate.read("certain"), estimate.read("audit")])
    found_NM, expected_NM = estimate.read("prediction"), whole.read("prediction").T[order_N]
    assert measured_NM.any()
    np.testing.assert_array_equal(found_NM[measured_NM], expected_NM[measured_NM])

    words = [str(path), "--ablation.precision", "30", "--out", str(tmp_path / "some"), "--quiet"]
    assert main(["ablate", *words]) == 0
    assert " of 12 items measured" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "some"), "--quiet"]) == 0
    page = (tmp_path / "some" / "report" / "index.html").read_text()
    assert "on all 12 items, of which" in page


@pytest.mark.parametrize("metric", ["loss", "logit_difference"])
def test_other_metrics_are_reported(tmp_path, capsys, metric):
    """In grids, curves, the linear map's forecasts and one evaluation."""
    write_language_model(tmp_path / "model")
    for split in ("train", "validation"):
        write_items(tmp_path / f"{split}.jsonl", 12)
    config = MultipleChoiceExperiment(
        model=str(tmp_path / "model"),
        out=str(tmp_path / "out"),
        data=ChoiceData(path=str(tmp_path), buckets=(16,), max_length=32),
        metric=metric,
        importance=Importance(split="train"),
        ablation=Ablation(sets=("one_off",)),
        pruning=Pruning(orders=("one_shot",), shares=(0, 0.5), select="train", test="validation"),
    )
    path = str(config_file(tmp_path, config))
    assert main(["run", path, "--quiet"]) == 0
    assert main(["linear", path, "--quiet"]) == 0
    name = SCALES[metric].name
    page = (tmp_path / "out/report/index.html").read_text()
    for words in (f"Change of {name} in nats", f"r over masks, {name}", f"{name} is "):
        assert words in page
    store = open_store(f"{config.out}/ablation/validation/one_off")
    capsys.readouterr()
    assert main(["evaluate", path, "--quiet"]) == 0
    assert f"{metric} {store.read(metric)[0].mean():.4g} (95 %" in capsys.readouterr().out


def test_training_goes_on_from_a_model(tmp_path):
    write_language_model(tmp_path / "model")
    for split in ("train", "validation"):
        write_items(tmp_path / f"{split}.jsonl", 5)
    config = MultipleChoiceExperiment(
        model=str(tmp_path / "model"),
        out=str(tmp_path / "out"),
        data=ChoiceData(path=str(tmp_path), buckets=(16,), max_length=16),
        train=dataclasses.replace(FINE_TUNING, epochs=1, batch=4),
    )
    assert main(["train", str(config_file(tmp_path, config)), "--quiet"]) == 0
    assert load(config).task.choices == 3
