"""The paper's tables and figures of a tiny model by one command: what is measured, what is left
out, and what the report has of it."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from tiny import config_file
from translation_files import write_parallel

from hp_jax import paper
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
from hp_jax.experiment import load
from hp_jax.report import published
from hp_jax.report.sections import models
from hp_jax.storage.store import find_stores, open_store


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
        ablation=Ablation(splits=("test", "validation"), masks_at_once=7),
        pruning=Pruning(
            select="validation", test="test", shares=(0.0, 0.5, 1.0), per=("example", "token")
        ),
        paper=Paper(setting="iwslt", seeds=(0, 1), epochs=(1, 3)),
    )


@pytest.fixture(scope="module")
def out(config, tmp_path_factory):
    """The folder of everything that `hp-jax reproduce` makes."""
    folder = tmp_path_factory.mktemp("config")
    assert main(["reproduce", config_file(folder, config), "--quiet"]) == 0
    import pathlib

    return pathlib.Path(config.out)


def stores(out):
    return {store.path.removeprefix(f"{out}/"): store for store in find_stores(out)}


def test_everything_is_measured_once_and_in_its_place(out):
    found = stores(out)
    assert all(store.done().all() for store in found.values())
    grids = {name for name, store in found.items() if store.manifest["kind"] == "grid"}
    orders = ["one_shot", "re_estimated", "oracle"]
    assert grids == {
        *(
            f"ablation/{split}/{name}"
            for split in ("test", "validation")
            for name in ("one_off", "one_on")
        ),
        *(f"pruning/{order}/test" for order in orders),
        *(f"pruning/{order}.{rows}/test" for order in orders for rows in ("enc", "dec", "cross")),
        *(
            f"pruning/{order}-example/test" for order in orders[:2]
        ),  # token is importance.per itself
        *(f"epochs/{epoch:02d}/pruning/one_shot/test" for epoch in (1, 3)),
        *(f"seeds/1/pruning/{order}/test" for order in orders),  # 0 is the experiment's own
        "seeds/1/pruning/oracle/select",
    } - {"seeds/1/pruning/oracle/select"} | {
        name for name in grids if name.startswith("seeds/1/ablation")
    }
    speed = json.loads((out / "speed/speed.json").read_text())
    assert {row["heads"] for row in speed["rows"]} == {6, 3}
