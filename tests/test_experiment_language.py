"""The commands, on a decoder-only language model: from a folder and a file of text to a report, a
smaller model and its speed."""

import dataclasses
import re
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from tiny import config_file
from tiny_language import tokenizer, write_documents, write_language_model

from hp_jax import heads
from hp_jax.cli import main
from hp_jax.config import (
    KINDS_OF_EXPERIMENT,
    Ablation,
    Data,
    DocumentData,
    Importance,
    LanguageModelExperiment,
    MaskSet,
    Pruning,
)
from hp_jax.data import documents
from hp_jax.experiment import Curve, ablate, load, prune_orders
from hp_jax.formats.model import load_model
from hp_jax.grid import evaluate_grid
from hp_jax.linear import linear_map
from hp_jax.metrics import MetricName, metric_of, scores
from hp_jax.quadratic import fisher, gauss_newton
from hp_jax.report import interactions
from hp_jax.report.comparison import compare
from hp_jax.report.page import write_report
from hp_jax.report.scale import SCALES
from hp_jax.report.sections.predicted import WORDS
from hp_jax.storage.store import open_store


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    write_language_model(folder / "model")
    write_documents(folder / "text", train=12, validation=16)
    return LanguageModelExperiment(
        model=str(folder / "model"),
        out=str(folder / "out"),
        data=DocumentData(path=str(folder / "text"), max_length=16, buckets=(16,)),
        importance=Importance(split="train"),
        ablation=Ablation(sets=("one_off", "groups_off", "group_on")),
        pruning=Pruning(orders=("one_shot", "linear"), shares=(0, 0.5, 1), select="train"),
    )


def test_a_run_from_text_to_report(config, tmp_path, capsys):
    path = config_file(tmp_path, config)
    assert main(["run", str(path), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "perplexity" in said
    assert "on validation (16 documents)" in said
    page = Path(config.out, "report/index.html").read_text()
    for words in ("Without a group of query heads", "One group alone in its row", "dec.0.0,1"):
        assert words in page
    tables = Path(config.out, "report/tables.txt").read_text()
    assert re.search(r"\n +task +MNLI +language modelling\n", tables)
    assert main(["evaluate", str(path), "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("validation: 16 documents, 0 of 12 heads off\n")
    store = open_store(f"{config.out}/ablation/validation/groups_off")
    present_AH = np.ones((3, 4), bool)
    np.testing.assert_array_equal(store.read("masks")[1:], heads.groups_off(present_AH, [2, 2, 2]))
    assert store.read("tokens").sum() == sum(
        len(tokenizer().encode(text).ids) - 1 for text in load(config).text("validation").text
    )
    assert main(["linear", str(path), "--quiet"]) == 0
    page = Path(config.out, "report/index.html").read_text()
    assert set(WORDS) == set(get_args(MaskSet))
    assert all(WORDS[name] in page for name in config.ablation.sets)


def test_half_of_the_heads_go_for_good(config, tmp_path, capsys):
    path = config_file(tmp_path, config)
    assert main(["importance", str(path), "--quiet"]) == 0
    small = str(tmp_path / "small")
    order = f"{config.out}/importance"
    words = ["remove", config.model, small, "--order", order, "--keep", "heads", "0.5"]
    assert main([*words, "--quiet"]) == 0
    assert load_model(small).config.heads_per_row.keys() == {"dec.0", "dec.1", "dec.2"}
    out = str(tmp_path / "speed")
    timed = ["speed", config.model, small, "--batch", "2", "--length", "8", "--out", out]
    assert main([*timed, "--rounds", "2", "--quiet"]) == 0
    assert "examples/s" in capsys.readouterr().out


def test_what_is_for_other_models_is_refused(config, tmp_path, capsys):
    path = config_file(tmp_path, config)
    assert main(["vocabulary", str(path)]) == 1
    assert "is about language modelling" in capsys.readouterr().err
    assert main(["evaluate", "sst2", "--model", config.model, "--data.path", str(tmp_path)]) == 1
    assert "has a language model, but a classifier was expected" in capsys.readouterr().err


def test_groups_go_as_one(config, tmp_path, capsys):
    """In the orders of scores, and out of the model: the heads of a group, or none."""
    out = str(tmp_path / "out")
    settings = dataclasses.replace(
        config.pruning, unit="group", orders=("one_shot", "oracle"), shares=(0, 0.5, 1)
    )
    own = dataclasses.replace(config, out=out, pruning=settings)
    prune_orders(load(own))
    for order in settings.orders:
        masks_MAH = open_store(f"{out}/pruning/{order}/test").read("masks") != 0
        assert masks_MAH.sum((1, 2)).tolist() == [12, 6, 0]
        np.testing.assert_array_equal(masks_MAH[..., 0::2], masks_MAH[..., 1::2])
    grid = open_store(f"{out}/pruning/oracle/select")
    loss_M = scores(
        metric_of({"metric": "perplexity"}), {n: grid.read(n) for n in grid.manifest["arrays"]}
    )
    best = np.argsort(loss_M[1:])[:3]  # the groups without which it is least
    kept_AH = (open_store(f"{out}/pruning/oracle/test").read("masks") != 0)[1]
    np.testing.assert_array_equal(kept_AH, (grid.read("masks")[1:][best] != 0).all(0))

    small = str(tmp_path / "small")
    words = ["remove", config.model, small, "--order", f"{out}/importance"]
    assert main([*words, "--keep", "heads", "0.5", "--groups", "--quiet"]) == 0
    kept_AH = load_model(small).task.present_AH
    assert kept_AH.sum() == 6
    np.testing.assert_array_equal(kept_AH[:, 0::2], kept_AH[:, 1::2])

    words = ["remove", config.model, str(tmp_path / "none"), "--heads", "dec.0.0", "--groups"]
    assert main(words) == 1
    assert "--groups is for --order with --keep, but they are not" in capsys.readouterr().err

    for changes, said in [
        ({"heads": (0, 2, 3)}, "whole groups of 2 heads, but pruning.heads has 3"),
        ({"floor": 1}, "whole groups of 2 heads, but pruning.floor has 1"),
    ]:
        uneven = dataclasses.replace(own, pruning=dataclasses.replace(settings, **changes))
        with pytest.raises(ValueError, match=said):
            prune_orders(load(uneven))


@pytest.mark.parametrize("order", ["linear", "fisher", "gauss_newton", "verified"])
def test_greedy_orders_go_by_groups_that_are_tried_whole(order, config, tmp_path):
    """By hand: under the mask of each group's going the map, the quadratic or, of the two best, the
    grid says which goes."""
    settings = dataclasses.replace(
        config.pruning, unit="group", heads=(2, 6), proposals=2, label_draws=2
    )
    setup = load(dataclasses.replace(config, out=str(tmp_path), pruning=settings))
    curve, (task, params) = Curve(setup, order), (setup.task, setup.params)
    masks_MAH = curve.rank(curve.folder, curve.scorer)
    batches = setup.batches(config.importance.split)
    left_AH, expected = np.ones((3, 4), bool), [np.ones((3, 4), bool)]
    for count in (1, 2):
        draws = 2 if order == "gauss_newton" else 0
        found = linear_map(task, params, batches, left_AH, draws=draws, seed=config.seed)
        for _ in range(count):
            some_MAH = heads.groups_off(left_AH, [2, 2, 2])
            if order in ("fisher", "gauss_newton"):
                quadratic = fisher(found) if order == "fisher" else gauss_newton(found)
                loss_M = quadratic.predict(some_MAH)
            else:
                loss_M = found.values(some_MAH)["loss"].mean(1, dtype=np.float64)
            if order == "verified":
                some_MAH = some_MAH[np.argsort(loss_M, kind="stable")[:2]]
                some = setup.batches(settings.select)
                loss_M = evaluate_grid(task, params, some, some_MAH)["loss"].mean(1)
            left_AH = some_MAH[np.argmin(loss_M)]
        expected.append(left_AH)
    np.testing.assert_array_equal(masks_MAH, expected)
    passes = open_store(tmp_path / f"pruning/{order}/ranking").manifest["passes"]
    measured = 3 * 2 * len(setup.examples(settings.select)) if order == "verified" else 0
    assert passes["forward"] == 2 * len(setup.examples(config.importance.split)) + measured


# --- documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "content", "expected", "lines"),
    [
        ("line", "a.txt", "one\n\n two \r\nthree", ["one", " two ", "three"], [1, 3, 4]),
        ("paragraph", "a.txt", "one\ntwo\n \t\nthree\n", ["one\ntwo", "three"], [1, 4]),
        ("file", "a.txt", "one\n\ntwo\n", ["one\n\ntwo\n"], [1]),
        ("line", "a.jsonl", '{"text": "one\\ntwo"}\n{"text": "3"}', ["one\ntwo", "3"], [1, 2]),
        ("line", "a.csv", 'n,content\n1,"one, two"\n', ["one, two"], [2]),
    ],
)
def test_documents_of_every_form(tmp_path, kind, name, content, expected, lines):
    (tmp_path / name).write_bytes(content.encode())
    data = DocumentData(path=str(tmp_path / name), documents=kind)
    found = documents.read(data, "validation")
    assert list(found.text) == expected
    assert found.line_N.tolist() == lines
    assert found.where(0) == f"{tmp_path / name}:{lines[0]}"


@pytest.mark.parametrize(
    ("files", "changes", "split", "said"),
    [
        ({"train.txt": "a"}, {}, "test", "has no file for the split 'test'.*there is train.txt"),
        ({"test.txt": " \n"}, {}, "test", "expected documents, but there are none"),
        ({"test.csv": "a,b\n1,2\n"}, {}, "test", "cannot tell which column has the documents"),
        ({"test.csv": "a,b\n1,2\n"}, {"text": "c"}, "test", "there is no column 'c'"),
        ({}, {"files": (("test", "x.txt"),)}, "test", "expected x.txt"),
    ],
)
def test_documents_that_cannot_be_read(tmp_path, files, changes, split, said):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        documents.read(DocumentData(path=str(tmp_path), **changes), split)


# --- groups --------------------------------------------------------------------------------------


def test_groups_are_those_that_share_keys_and_values():
    mask_AH = np.array([[1, 1, 0, 0], [1, 0, 1, 1]], bool)
    off_MAH, on_MAH = (made(mask_AH, [2, 2]) for made in (heads.groups_off, heads.group_on))
    expected_off = [
        [[0, 0, 0, 0], [1, 0, 1, 1]],
        [[1, 1, 0, 0], [0, 0, 1, 1]],
        [[1, 1, 0, 0], [1, 0, 0, 0]],
    ]
    expected_on = [
        [[1, 1, 0, 0], [1, 0, 1, 1]],
        [[1, 1, 0, 0], [1, 0, 0, 0]],
        [[1, 1, 0, 0], [0, 0, 1, 1]],
    ]
    np.testing.assert_array_equal(off_MAH, np.array(expected_off, bool))
    np.testing.assert_array_equal(on_MAH, np.array(expected_on, bool))
    np.testing.assert_array_equal(heads.groups_off(mask_AH, [1, 1]), heads.one_off(mask_AH))
    np.testing.assert_array_equal(heads.group_on(mask_AH, [1, 1]), heads.one_on(mask_AH))
    with pytest.raises(ValueError, match="a size of groups for each of 2 rows"):
        heads.groups_off(mask_AH, [2])


# --- metrics -------------------------------------------------------------------------------------


def names_of(hint):
    return {name for name in get_args(hint) if name}


def test_every_metric_of_a_config_is_known_wherever_metrics_are():
    """To stores, reports, and the function that makes them."""
    known = set(get_args(MetricName))
    asked = set()
    for kind in KINDS_OF_EXPERIMENT:
        asked |= names_of(get_type_hints(kind).get("metric"))
    asked |= names_of(get_type_hints(Data)["metric"])
    assert asked == known == set(SCALES)
    more = {"labels": ["a", "b"], "positive": 1, "tokenize": "13a"}
    assert {metric_of({"metric": name, **more}).name for name in known} == known


@pytest.mark.parametrize("metric", ["token_loss", "bits_per_byte", "word_perplexity"])
def test_results_with_every_metric_are_opened_and_reported(config, tmp_path, metric):
    out = str(tmp_path / "out")
    own = dataclasses.replace(config, metric=metric, out=out, ablation=Ablation(sets=("one_off",)))
    ablate(load(own))
    page = write_report(tmp_path / "out").read_text()
    assert SCALES[metric].name in page
    store = open_store(f"{out}/ablation/validation/one_off")
    loss_MN, documents_ = store.read("loss"), len(set(store.read("origin")))
    assert documents_ < loss_MN.shape[1]  # some in several windows
    expected_M = loss_MN.sum(1, dtype=float) / documents_
    np.testing.assert_allclose(compare(store).loss_M, expected_M, rtol=1e-6)
    np.testing.assert_allclose(interactions._mean_loss(store), expected_M, rtol=1e-6)
