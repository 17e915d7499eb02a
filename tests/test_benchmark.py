"""The benchmarks on tiny models: that both sides agree, what they write, and that they refuse sides
that do not agree."""

import json
import pathlib

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
if int(transformers.__version__.split(".")[0]) > 4:
    pytest.skip("transformers has no head masks from version 5 on", allow_module_level=True)

from tiny import write_hf_folder  # noqa: E402
from tiny_language import KINDS, write_documents, write_language_model  # noqa: E402

PAIRS = (
    "the film is good\tthe film was great\tentailment",
    "a film\tit is very bad .\tneutral",
    "awful\tfine\tcontradiction",
)


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """The benchmark's modules can be imported, and what it sets of both libraries is taken back."""
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "scripts" / "benchmark")
    before, threads = jax.config.jax_default_matmul_precision, torch.get_num_threads()
    yield
    jax.config.update("jax_default_matmul_precision", before)
    torch.set_num_threads(threads)


@pytest.fixture
def text(tmp_path):
    """Flags of the benchmarks of classifiers: a tiny model, six examples."""
    write_hf_folder(tmp_path / "model")
    lines = ["sentence1\tsentence2\tgold_label", *PAIRS, *PAIRS]
    (tmp_path / "dev_matched.tsv").write_text("\n".join(lines) + "\n")
    where = {"model": tmp_path / "model", "data": tmp_path, "out": tmp_path / "benchmark.json"}
    return where | {"shape": "own", "examples": 6, "batch": 4, "rounds": 2}


def numbers(setting, capsys):
    """The JSON file, and a check of what all have in common."""
    found, printed = json.loads(setting.out.read_text()), capsys.readouterr().out
    assert str(setting.out.parent) not in setting.out.read_text()
    assert {"command", "versions", "devices", "cores", "torch threads", "setting", "unit"} <= set(
        found
    )
    for name, row in (found["seconds"] | found["ratios"]).items():
        assert len(row["rounds"]) == 2
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert name in printed
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_language(tmp_path, capsys, family):
    import language

    changes = KINDS["gpt2"] | {"head_width": 4} if family == "gpt2" else {}
    write_language_model(tmp_path / "model", **changes, family=family)
    write_documents(tmp_path / "text", validation=6)
    setting = language.Language(
        model=tmp_path / "model",
        data=tmp_path / "text/validation.txt",
        out=tmp_path / "benchmark.json",
        documents=6,
        batch=4,
        chunk=4,
        ours=4,
        rounds=2,
    )
    language.main(setting)
    found = numbers(setting, capsys)
    assert found["agreement"]["importance"]["largest difference"] < 1e-2
    assert "transformers, a pass a head / our grid" in found["ratios"]


def test_importance(text, capsys, monkeypatch):
    import importance

    setting = importance.Importance(**text)
    importance.main(setting)
    found = numbers(setting, capsys)
    assert "run_bertology, batch 4, weights frozen" in found["seconds"]
    assert found["ratios"]["our importance / our forward"]["goal"] == "<= 2.2"
    scores = importance.head_importance
    monkeypatch.setattr(
        importance, "head_importance", lambda *args, **options: scores(*args, **options) * 1.01
    )
    with pytest.raises(
        SystemExit,
        match=r"importance per example: the two sides differ by .* and nothing was timed",
    ):
        importance.main(setting)


def test_grid(text, capsys, monkeypatch):
    import grid

    setting = grid.Grid(**text | {"shape": "tiny"}, sample=2)
    grid.main(setting)
    found = numbers(setting, capsys)
    assert found["masks"] == 1 + 2 * 2
    assert found["seconds"]["authors' way"]["note"] == "sample of 2 of 5 masks"
    assert found["agreement"]["authors' way"]["loss"]["largest difference"] < 1e-4
    grids = grid.evaluate_grid
    changed = {"loss": lambda loss: loss + 1e-3}
    monkeypatch.setattr(
        grid,
        "evaluate_grid",
        lambda *args, **options: {
            name: changed.get(name, lambda same: same)(values)
            for name, values in grids(*args, **options).items()
        },
    )
    with pytest.raises(SystemExit, match=r"loss under masks: the two sides differ by 0\.001"):
        grid.main(setting)


def test_translation(tmp_path, capsys, monkeypatch):
    import translation

    sizes = {
        "layers": 1,
        "heads": 2,
        "width": 16,
        "vocab": 24,
        "sentences": 6,
        "source": (2, 5),
        "limit": 6,
    }
    setting = translation.Translation(**sizes, rounds=2, out=tmp_path / "benchmark.json")
    translation.main(setting)
    found = numbers(setting, capsys)
    assert found["agreement"]["equal translations"] == 1
    monkeypatch.setattr(
        translation, "our_translations", lambda pair, made, masks, chunk: [["0"] * 6] * len(masks)
    )
    with pytest.raises(SystemExit, match=r"0\.0% of the translations are the same"):
        translation.main(setting)


def test_scaling(text, capsys):
    import scaling

    setting = scaling.Scaling(
        **text | {"examples": 3, "shape": "tiny"}, masks=(4, 8), times=(2,), shared=8, chunk=4
    )
    scaling.main(setting)
    found = numbers(setting, capsys)
    assert list(found["seconds"])[:3] == [
        "4 masks, 1 x data",
        "8 masks, 1 x data",
        "4 masks, 2 x data",
    ]
    assert (
        found["ratios"]["8 masks, pinned processes: 1 / 8 masks, pinned processes: 2"]["goal"]
        == ">= 1.8"
    )


def test_sides_alternate_and_samples_are_scaled():
    import timing

    order = []
    sides = {
        "a": timing.Side(lambda: order.append("a")),
        "b": timing.sample(lambda masks: order.append(len(masks)), np.zeros((4, 2, 2)), 1),
    }
    times = timing.alternate(sides, 2)
    assert order == ["a", 1, "a", 1, 1, "a"]
    assert sides["b"].note == "sample of 1 of 4 masks"
    assert all(len(seconds) == 2 for side in times.values() for seconds in side)
