"""The whole job on a tiny translation model: what each step keeps, and one sentence for whatever is
wrong."""

import dataclasses
import io
import json
import pathlib

import jax
import numpy as np
import pytest
import sacrebleu
from tiny import config_file
from translation_files import write_parallel

from hp_jax import experiment, heads
from hp_jax.architecture import Decoding, Seq2SeqConfig
from hp_jax.cli import main
from hp_jax.config import (
    FROM_SCRATCH,
    Ablation,
    Importance,
    ParallelData,
    Pruning,
    TranslationExperiment,
)
from hp_jax.experiment import setup, training, translation
from hp_jax.experiment.evaluation import evaluate
from hp_jax.experiment.pruning import Curve
from hp_jax.experiment.scorers import scorer_of
from hp_jax.importance import head_importance
from hp_jax.models.translation import Translation
from hp_jax.storage.checkpoint import load_params
from hp_jax.storage.files import read_json
from hp_jax.storage.store import open_store
from hp_jax.text.sentencepiece import SentencePiece

SMALL = {
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_heads": 2,
    "decoder_heads": 2,
    "cross_heads": 4,
}
WIDTHS = {"width": 16, "encoder_ffn": 16, "decoder_ffn": 16}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translation")
    write_parallel(folder / "text", train=256, validation=24, test=20)
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
        architecture=Seq2SeqConfig(**SMALL, **WIDTHS, norm="pre", dropout=0.0),
        train=dataclasses.replace(
            FROM_SCRATCH,
            epochs=3,
            batch=8,
            batch_tokens=0,
            learning_rate=1e-2,
            warmup=20,
            keep_epochs=True,
            final="best",
        ),
        decoding=Decoding(beam=1),
        importance=Importance(split="train[:32]"),
        ablation=Ablation(splits=("test",), masks_at_once=5),
        pruning=Pruning(
            select="validation",
            test="test",
            shares=(0.0, 0.5, 1.0),
            orders=("one_shot", "oracle"),
            rows=("all", "cross"),
        ),
    )


@pytest.fixture(scope="module")
def finished(config):
    experiment.train_model(config)
    experiment.importance(experiment.load(config))
    experiment.ablate(experiment.load(config))
    experiment.prune_orders(experiment.load(config))
    return pathlib.Path(config.out)


def test_a_new_model_learns_and_its_best_epoch_is_kept(finished):
    training = read_json(finished / "model/config.json")["training"]
    history = training["history"]
    assert history[-1]["training loss"] < history[0]["training loss"]
    best = max(history, key=lambda line: line["bleu"])
    assert training["final"]["bleu"] == best["bleu"] > 0
    assert sorted(path.name for path in (finished / "epochs").iterdir()) == ["01", "02", "03"]


def test_the_mean_of_the_last_epochs(finished, config):
    recipe = dataclasses.replace(config.train, final="average", average=2)
    own = experiment.load(dataclasses.replace(config, train=recipe))
    folders = [finished / "epochs" / name for name in ("02", "03")]
    second, third = (
        load_params(path, read_json(path / "config.json"), own.params) for path in folders
    )
    mean = training._final(own, third, [])
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(a, (b + c) / 2, atol=1e-7), mean, second, third
    )


def test_the_best_epoch_is_the_one_with_the_least_loss(finished, config):
    own = experiment.load(dataclasses.replace(config, metric="loss"))
    history = [{"epoch": epoch, "loss": loss} for epoch, loss in ((1, 3.0), (2, 1.0), (3, 2.0))]
    path = finished / "epochs/02"
    best = load_params(path, read_json(path / "config.json"), own.params)
    jax.tree.map(np.testing.assert_array_equal, training._final(own, own.params, history), best)


def test_stored_counts_are_sacrebleus_corpus_score_of_the_translations(finished, config):
    store = open_store(finished / "ablation/test/one_off")
    masks_MAH = store.read("masks")
    assert store.manifest["rows"] == ["enc.0", "dec.0", "cross.0"]
    assert np.sum(store.manifest["heads"], axis=1).tolist() == [2, 2, 4]
    assert masks_MAH.shape == (9, 3, 4)
    own = experiment.load(config)
    text = own.corpus.read("test")
    for place in (0, 1, 8):
        found = translation.translate(own, text.source, masks_MAH[place])
        expected = sacrebleu.corpus_bleu(
            [hypotheses[0][0] for hypotheses in found], [list(text.target)]
        )
        counts_S = own.metric.statistics({"bleu": store.read("bleu")})[place].sum(0)
        assert own.metric.score(counts_S) == pytest.approx(expected.score, rel=1e-12)
    assert "tok:13a" in store.manifest["signatures"]["bleu"]
    tokens = sum(len(ids) for ids in own.examples("test").target)
    assert store.read("tokens").sum() == tokens >= store.read("correct")[0].sum() > 0
    assert (store.read("loss")[1:] != store.read("loss")[0]).any(1).all()  # every head matters


def test_pruning_one_type_of_attention_leaves_the_others_alone(finished):
    masks_MAH = open_store(finished / "pruning/one_shot.cross/test").read("masks")
    np.testing.assert_array_equal(masks_MAH.sum(2), [[2, 2, 4], [2, 2, 2], [2, 2, 0]])
    everything_MAH = open_store(finished / "pruning/one_shot/test").read("masks")
    np.testing.assert_array_equal(everything_MAH.sum((1, 2)), [8, 4, 0])


def test_the_verified_order_measures_losses_without_translating(finished, config, tmp_path):
    """The first head to go is the one without which the loss is least, if all are proposed."""
    pruning = Pruning(select="validation", test="test", heads=(1,), orders=("verified",))
    other = dataclasses.replace(
        config, model=str(finished / "model"), out=str(tmp_path), pruning=pruning
    )
    own = experiment.load(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Translation, "_search", None)
        scorer = scorer_of(own, "verified", Curve(own, "verified").schedule)
        score_AH = scorer.score(own.present_AH)
    masks_MAH = heads.one_off(own.present_AH)
    loss_M = [evaluate(own, "validation", mask_AH)["loss"]["value"] for mask_AH in masks_MAH]
    best = heads.living_heads(own.present_AH)[int(np.argmin(loss_M))]
    assert heads.lowest_first(own.present_AH, score_AH)[0] == best


def test_ablations_of_one_type_are_part_of_all(finished, config, tmp_path):
    other = dataclasses.replace(
        config,
        model=str(finished / "model"),
        out=str(tmp_path),
        ablation=dataclasses.replace(config.ablation, rows=("dec",), sets=("one_off",)),
    )
    experiment.ablate(experiment.load(other))
    some, every = (
        open_store(tmp_path / "ablation/test/one_off.dec"),
        open_store(finished / "ablation/test/one_off"),
    )
    np.testing.assert_array_equal(some.read("masks"), every.read("masks")[[0, 3, 4]])
    np.testing.assert_array_equal(some.read("bleu"), every.read("bleu")[[0, 3, 4]])
    wrong = experiment.load(dataclasses.replace(other, ablation=Ablation(rows=("decoder",))))
    with pytest.raises(
        ValueError, match=r"has no attention 'decoder'; its rows are enc.0, dec.0, cross.0"
    ):
        experiment.ablate(wrong)


def test_importance_does_not_depend_on_batches_or_padding(finished, config):
    other = dataclasses.replace(
        config, data=dataclasses.replace(config.data, buckets=(12, 16), batch=7)
    )
    scores = []
    for own in (experiment.load(config), experiment.load(other)):
        batches = own.batches("test")
        scores.append(head_importance(own.task, own.params, batches[::-1], own.present_AH))
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4)
    assert (scores[0][np.asarray(own.present_AH)] > 0).all()


def test_nothing_is_done_twice(finished, config, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("computed again")

    for name in (
        "experiment.training.train",
        "experiment.scoring.sum_importance",
        "grid.whole.evaluate_masks",
    ):
        monkeypatch.setattr(f"hp_jax.{name}", refuse)
    experiment.train_model(config)
    experiment.importance(experiment.load(config))
    experiment.ablate(experiment.load(config))
    experiment.prune_orders(experiment.load(config))


def test_other_decoding_is_another_result(finished, config):
    with pytest.raises(
        ValueError, match=r"holds results of another computation \(different evaluation\)"
    ):
        experiment.ablate(experiment.load(dataclasses.replace(config, decoding=Decoding(beam=2))))


# --- the command ---------------------------------------------------------------------------------


def test_the_command_translates_with_heads_removed(finished, config, tmp_path, capsys, monkeypatch):
    path = config_file(tmp_path, config)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a b c\n\nh g\n")))
    assert main(["translate", path]) == 0
    whole = capsys.readouterr().out.split("\n")
    assert len(whole) == 4
    assert whole[1] == ""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a b c\n")))
    assert (
        main(
            ["translate", path, "--nbest", "2", "--without", "A:1:1,2,3,4", "--decoding.beam", "3"]
        )
        == 0
    )
    lines = capsys.readouterr().out.rstrip("\n").split("\n")
    assert [line.split(" ||| ")[0] for line in lines] == ["0", "0"]
    assert float(lines[0].split(" ||| ")[2]) >= float(lines[1].split(" ||| ")[2])
    assert lines[0].split(" ||| ")[1] != whole[0]


def test_as_many_lines_come_out_as_went_in(finished, config, tmp_path, capsys, monkeypatch):
    """Whatever controls are in them, in a file's encoding; a line of nothing is an empty line."""
    path = config_file(tmp_path, config)
    lines = "\ufeffa\rb\x0bc\nh\x1cg\u2028a\n\u200b\n\xe9\nb".encode() + b"\xff\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    decode = SentencePiece.decode
    monkeypatch.setattr(SentencePiece, "decode", lambda self, ids: f"\x85{decode(self, ids)}\r\n.")
    assert main(["translate", path, "--quiet"]) == 0
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == out.count("\n") == 5
    assert "standard input: lines that are not UTF-8" in error or not error


@pytest.mark.parametrize("count", ["5", "-1"])
def test_no_more_hypotheses_than_the_beam_has(finished, config, tmp_path, capsys, count):
    words = ["translate", config_file(tmp_path, config), "--nbest", count, "--decoding.beam", "4"]
    assert main(words) == 1
    assert f"--nbest is {count}, but the beam has 4 hypotheses" in capsys.readouterr().err


def test_the_command_reports(finished, config, capsys):
    assert main(["report", config.out]) == 0
    page = pathlib.Path(capsys.readouterr().out.strip().splitlines()[-1]).read_text()
    assert "nrefs:1|case:mixed|eff:no|tok:13a" in page


@pytest.mark.parametrize("metric", ["token_accuracy", "loss", "perplexity"])
def test_metrics_of_the_forced_target_need_no_decoding(
    finished, config, tmp_path, monkeypatch, metric
):
    monkeypatch.setattr("hp_jax.models.translation.beam_search", None)
    other = dataclasses.replace(
        config, model=str(finished / "model"), out=str(tmp_path), metric=metric
    )
    ablation = Ablation(splits=("test",), sets=("one_off",), masks_at_once=5)
    experiment.ablate(experiment.load(dataclasses.replace(other, ablation=ablation)))
    store = open_store(tmp_path / "ablation/test/one_off")
    assert set(store.manifest["filled"]) == {"loss", "correct"}
    np.testing.assert_array_equal(
        store.read("correct"), open_store(finished / "ablation/test/one_off").read("correct")
    )


def test_the_oracle_order_of_perplexity_is_what_one_computes_by_hand(finished, config, tmp_path):
    settings = dataclasses.replace(config.pruning, heads=(0, 1, 2), orders=("oracle",))
    other = dataclasses.replace(
        config,
        model=str(finished / "model"),
        out=str(tmp_path),
        metric="perplexity",
        pruning=dataclasses.replace(settings, rows=("all",)),
    )
    experiment.prune_orders(experiment.load(other))
    select = open_store(tmp_path / "pruning/oracle/select")
    loss_M = select.read("loss").sum(1, dtype=np.float64)
    perplexity_M = np.exp(loss_M / select.read("tokens").sum())
    masks_MAH = select.read("masks")
    worse = {
        tuple(np.argwhere(masks_MAH[0] & ~mask_AH)[0].tolist()): perplexity - perplexity_M[0]
        for mask_AH, perplexity in zip(masks_MAH[1:], perplexity_M[1:], strict=True)
    }
    score_AH = open_store(tmp_path / "pruning/oracle/ranking").read("score")[0]
    assert {head: score_AH[head] for head in worse} == pytest.approx(worse)
    first, second, *_ = sorted(worse, key=worse.__getitem__)
    curve_MAH = open_store(tmp_path / "pruning/oracle/test").read("masks")
    gone = [set(map(tuple, np.argwhere(curve_MAH[0] & ~mask_AH).tolist())) for mask_AH in curve_MAH]
    assert gone == [set(), {first}, {first, second}]
    # By the loss it is the same order: perplexity grows with the loss of the same tokens.
    losses = dataclasses.replace(other.pruning, oracle="loss")
    judged = dataclasses.replace(other, out=str(tmp_path / "loss"), pruning=losses)
    experiment.prune_orders(experiment.load(judged))
    found = open_store(tmp_path / "loss/pruning/oracle/ranking").read("score")[0]
    expected = (loss_M - loss_M[0]) / len(select.read("tokens"))
    assert [found[head] for head in worse] == pytest.approx(expected[1:].tolist())
    np.testing.assert_array_equal(
        open_store(tmp_path / "loss/pruning/oracle/test").read("masks"), curve_MAH
    )


def test_conversion_keeps_the_model_and_nothing_is_overwritten(finished, config, tmp_path, capsys):
    assert main(["convert", str(finished / "model"), str(tmp_path / "copy")]) == 0
    first, second = (
        setup.load_setup(config, str(path)) for path in (finished / "model", tmp_path / "copy")
    )
    assert first.model.digest == second.model.digest
    assert first.task == second.task
    assert main(["convert", str(finished / "model"), str(tmp_path / "copy")]) == 1
    assert "is not empty; choose another folder, delete it, or" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ablate", "--data.path", "./nowhere"], "nowhere"),
        (["ablate", "--ablation.splits", "tset"], "tset"),
        (["ablate", "--tokenize", "14a"], "sacrebleu has no tokenizer '14a'"),
        (["ablate", "--model", "EMPTY"], "has no model: expected a config.json"),
        (["translate", "--without", "D:9:1"], "there is no row 'dec.8'"),
        (
            ["train", "--vocabulary", "4000"],
            "a vocabulary of 4000 pieces is too large for this text",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_a_non_zero_exit(
    finished, config, tmp_path, capsys, monkeypatch, arguments, sentence
):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\n")))
    name, *rest = [str(tmp_path / "empty") if word == "EMPTY" else word for word in arguments]
    model = [] if name == "train" else ["--model", str(finished / "model")]
    assert (
        main([name, config_file(tmp_path, config), "--out", str(tmp_path / "out"), *model, *rest])
        == 1
    )
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("hp-jax: error: ")
    assert sentence in error


def test_the_best_epoch_can_only_be_chosen_from_epochs_that_are_kept():
    with pytest.raises(
        ValueError, match=r"train.final is 'best', which needs the models of all epochs"
    ):
        dataclasses.replace(FROM_SCRATCH, final="best")


def test_what_is_about_translation_alone_is_refused_for_classification(capsys):
    for command in ("translate", "vocabulary"):
        assert main([command, "classification"]) == 1
        assert "classification is about classification" in capsys.readouterr().err


def test_steps_without_a_model_say_so(config, tmp_path, capsys):
    assert main(["importance", config_file(tmp_path, config), "--out", str(tmp_path / "none")]) == 1
    assert "there is no model yet" in capsys.readouterr().err


def test_the_manifest_of_a_model_tells_how_it_was_made(finished):
    described = json.loads((finished / "model/config.json").read_text())
    for part in (
        "experiment",
        "versions",
        "devices",
        "seed",
        "command",
        "created",
        "training",
        "params",
        "files",
    ):
        assert described[part] is not None
