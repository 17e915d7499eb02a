"""The paper's tables and figures of a tiny model by one command: what is measured, what is left
out, and what the report has of it."""

import csv
import dataclasses
import json
import pathlib
import re
import runpy
import sys

import pytest
from tiny import config_file
from translation_files import write_parallel

from hp_jax.architecture import Decoding, Seq2SeqConfig
from hp_jax.cli import main
from hp_jax.config import (
    FROM_SCRATCH,
    Ablation,
    Importance,
    Paper,
    ParallelData,
    Pruning,
    TranslationExperiment,
)
from hp_jax.report import page, published
from hp_jax.storage.store import find_stores

SPLITS = ("test", "validation")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    write_parallel(folder / "text", train=96, validation=24, test=20)
    return TranslationExperiment(
        out=str(folder / "out"),
        data=ParallelData(
            source="xx",
            target="yy",
            path=str(folder / "text"),
            max_length=16,
            buckets=(16,),
            batch=24,
        ),
        vocabulary=34,
        architecture=Seq2SeqConfig(
            encoder_layers=1,
            decoder_layers=1,
            encoder_heads=2,
            decoder_heads=2,
            cross_heads=2,
            width=16,
            encoder_ffn=16,
            decoder_ffn=16,
            norm="pre",
            dropout=0.0,
        ),
        train=dataclasses.replace(
            FROM_SCRATCH,
            epochs=3,
            batch=8,
            batch_tokens=0,
            learning_rate=1e-2,
            warmup=20,
            keep_epochs=True,
        ),
        metric="token_accuracy",
        decoding=Decoding(beam=1),
        importance=Importance(split="train[:32]"),
        ablation=Ablation(splits=SPLITS, masks_at_once=7),
        pruning=Pruning(
            select="validation", test="test", shares=(0.0, 0.5, 1.0), per=("example", "token")
        ),
        paper=Paper(setting="iwslt", seeds=(0, 1), epochs=(1, 3), batch=(1,)),
    )


@pytest.fixture(scope="module")
def out(config, tmp_path_factory):
    """The folder of everything that `hp-jax reproduce` makes."""
    folder = tmp_path_factory.mktemp("config")
    assert main(["reproduce", config_file(folder, config), "--quiet"]) == 0
    return pathlib.Path(config.out)


def test_everything_is_measured_once_and_in_its_place(out):
    stores = {store.path.removeprefix(f"{out}/"): store for store in find_stores(out)}
    assert all(store.done().all() for store in stores.values())
    grids = {name for name, store in stores.items() if store.manifest["kind"] == "grid"}
    orders, types = ["one_shot", "re_estimated", "oracle"], ["enc", "dec", "cross"]
    assert grids == {
        *(f"ablation/{split}/{name}" for split in SPLITS for name in ("one_off", "one_on")),
        *(f"pruning/{order}/test" for order in orders),
        *(f"pruning/{order}.{rows}/test" for order in orders for rows in types),
        *(f"pruning/{order}-example/test" for order in orders[:2]),  # token is the importance's
        *(f"epochs/{epoch:02d}/pruning/one_shot/test" for epoch in (1, 3)),
        *(f"seeds/1/pruning/{order}/test" for order in orders),  # 0 is the experiment's own
        "seeds/1/ablation/validation/one_off",  # of its oracle order
    }
    speed = json.loads((out / "speed/speed.json").read_text())
    assert {row["heads"] for row in speed["rows"]} == {6, 3}


def test_the_report_has_all_in_the_papers_order(out):
    text = (out / "report/index.html").read_text()
    titles = [
        "Summary",
        "Without one head (Table 1, Figure 1), on test",
        "One head alone in its row (Tables 2 and 3), on test",
        "Without one head, on test and validation",
        "Pruning (Figures 3, 4 and 6)",
        "Speed (Table 4)",
        "Epochs (Figure 5)",
        "Several seeds",
        "One head alone, on test and validation",
        "How this was made",
    ]
    places = [text.index(f">{title}</h2>") for title in titles]
    assert places == sorted(places)
    written = {path.name for path in (out / "report").iterdir()}
    for exhibit in ("table1", "table2", "figure2", "figure6", "table4", "figure4", "figure5"):
        assert any(name.startswith(f"paper_{exhibit}") for name in written), exhibit
    with open(out / "report/claims.csv", encoding="utf-8") as file:
        claims = {row["exhibit"]: row for row in csv.DictReader(file)}
    assert {"Table 1, Figure 1", "Figure 2", "Figure 4", "Figure 5", "Table 4"} <= set(claims)
    assert {row["verdict"] for row in claims.values()} <= {
        "holds",
        "does not hold",
        "cannot be told",
    }
    assert "published_figure5.csv" in written
    assert "differs in model, task" in text  # the tiny model is not the paper's


SCRIPTS = sorted((pathlib.Path(__file__).parent.parent / "scripts" / "paper").glob("[tf]*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_makes_its_table_or_figure(script, config, out, tmp_path, monkeypatch, capsys):
    """From what is measured already."""
    words = [str(out)] if script.stem == "figure6" else [config_file(tmp_path, config)]
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    monkeypatch.syspath_prepend(str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().out
    if script.stem.startswith("figure"):
        assert (out / f"{script.stem}.png").read_bytes().startswith(b"\x89PNG")
    else:
        assert "examples/s" in said or "sentences" in said


def test_what_was_found_becomes_pages(out, tmp_path):
    collect = runpy.run_path(str(SCRIPTS[0].parent / "collect.py"))
    collect["main"](tmp_path, [out])
    text = (tmp_path / "out" / "index.md").read_text()
    pictures = re.findall(r"\]\((.+?\.png)\)", text)
    assert {"pruning.png", "pruning_types.png", "epochs.png", "seeds.png"} <= set(pictures)
    assert all((tmp_path / "out" / name).is_file() for name in pictures)
    claims = (tmp_path / "claims.md").read_text()
    assert "## Early in training there are no unimportant heads (Figure 5)" in claims
    assert "| [out](out/index.md) | **" in claims


def test_there_is_a_script_for_each_table_and_figure():
    names = {f"{kind}{number}" for kind in ("table", "figure") for number in range(1, 7)}
    assert {path.stem for path in SCRIPTS} == names == set(published.FINDINGS)


@pytest.mark.parametrize(
    ("only", "changes", "sentence"),
    [
        ("figure5", {"paper": Paper(epochs=(2, 7))}, "paper.epochs names 7"),
        ("table5", {"ablation": Ablation(splits=("test",))}, "ablation.splits has only test"),
    ],
)
def test_what_an_experiment_lacks_is_said(only, changes, sentence, config, out, tmp_path, capsys):
    own = config_file(tmp_path, dataclasses.replace(config, **changes))
    assert main(["reproduce", own, "--only", only, "--quiet"]) == 1
    said = capsys.readouterr().err
    assert f"{only} cannot be made: " in said
    assert sentence in said


def test_other_seeds_of_a_model_that_was_not_trained_here_are_refused_at_once(
    config, out, tmp_path, capsys
):
    trained = dataclasses.replace(config, model=str(out / "model"), out=str(tmp_path / "new"))
    assert main(["reproduce", config_file(tmp_path, trained), "--quiet"]) == 1
    assert "was not trained in this experiment" in capsys.readouterr().err
    assert not find_stores(tmp_path / "new")


def test_a_split_that_is_not_there_is_said_before_anything_is_measured(
    config, out, tmp_path, capsys
):
    changes = {"ablation": Ablation(splits=("test", "nosuch")), "paper": Paper()}
    changes |= {"model": str(out / "model"), "out": str(tmp_path / "new")}
    own = config_file(tmp_path, dataclasses.replace(config, **changes))
    assert main(["reproduce", own, "--quiet"]) == 1
    assert "nosuch" in capsys.readouterr().err
    assert not find_stores(tmp_path / "new")


@pytest.mark.parametrize("content", ["", "{}", '{"device": "cpu", "rows": []}'])
def test_damaged_times_are_one_sentence(content, tmp_path):
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed/speed.json").write_text(content)
    with pytest.raises(ValueError, match=r"speed\.json is damaged, delete it"):
        page._speed(tmp_path)
