"""The sets of masks: properties of each, a user's files, and all of them through the command; the
arrays for other programs."""

import csv
import pathlib
import pickle

import numpy as np
import pytest
import xarray
from tiny import config_file, write_hf_folder, write_sst2

from hp_jax import heads
from hp_jax.cli import main
from hp_jax.config import Ablation, ClassificationExperiment, Data, Importance, Pruning, RandomSets
from hp_jax.descriptors import format_descriptor, parse_descriptor
from hp_jax.experiment.mask_sets import masks_of
from hp_jax.report.pictures import style
from hp_jax.storage.store import open_store

ROWS = ("enc.0", "dec.0", "cross.0")
FULL_AH = heads.all_on(3, [4, 2, 3])
CROSS_AH = FULL_AH & np.array([False, False, True])[:, None]
SCORE_AH = np.array([[3.0, 1, 4, 1], [5, 9, 0, 0], [2, 6, 5, 0]])


def make(name, scope_AH=FULL_AH, **settings):
    return np.asarray(
        masks_of(name, Ablation(**settings), FULL_AH, scope_AH, ROWS, lambda: SCORE_AH)
    )


def missing(masks_MAH):
    return (np.asarray(FULL_AH) & ~masks_MAH).sum((1, 2))


def drawn(**settings):
    """The random masks by how many heads they lack."""
    masks_MAH = make("random", random=RandomSets(**settings))[1:]
    return {
        count: [mask.tobytes() for mask in masks_MAH[missing(masks_MAH) == count]]
        for count in set(missing(masks_MAH))
    }


@pytest.mark.parametrize("name", ["one_off", "one_on", "pairs", "rows_off", "random", "prefixes"])
def test_the_full_mask_comes_first_and_the_other_parts_stay(name):
    for scope_AH in (FULL_AH, CROSS_AH):
        masks_MAH = make(name, scope_AH)
        np.testing.assert_array_equal(masks_MAH[0], FULL_AH)
        assert (masks_MAH[1:] != np.asarray(FULL_AH)).any((1, 2)).all()
        assert not (masks_MAH & ~np.asarray(FULL_AH)).any()
        assert (masks_MAH | np.asarray(scope_AH) == np.asarray(FULL_AH)).all()


def test_whole_rows_go():
    masks_MAH = make("rows_off")
    np.testing.assert_array_equal(missing(masks_MAH), [0, 4, 2, 3])
    np.testing.assert_array_equal(masks_MAH[1:].any(2), ~np.eye(3, dtype=bool))


def test_random_subsets_have_the_shares_that_were_asked_for_and_none_twice():
    subsets = drawn(shares=(0.9, 0.35, 0.0, 1.0), count=6)
    assert set(subsets) == {3, 8, 9}  # of 9 heads, rounded down
    assert len(subsets[3]) == 6
    assert len(subsets[9]) == 1
    assert all(len(set(masks)) == len(masks) for masks in subsets.values())
    with pytest.raises(ValueError, match=r"shares \(0.1,\) of 9 heads remove none"):
        drawn(shares=(0.1,))
    with pytest.raises(
        ValueError, match=r"ablation\.random\.count: expected an integer >= 1, but found 0"
    ):
        RandomSets(count=0)


def test_random_subsets_depend_on_the_seed_the_share_and_their_number_alone():
    few, more = drawn(shares=(0.4, 0.6), count=4), drawn(shares=(0.2, 0.6, 0.4, 0.8), count=9)
    assert drawn(shares=(0.4, 0.6), count=4) == few
    assert all(more[count][: len(masks)] == masks for count, masks in few.items())
    assert drawn(shares=(0.4, 0.6), count=4, seed=1)[3] != few[3]
    off_AH = np.asarray(FULL_AH) & ~np.stack(
        [np.frombuffer(mask, bool).reshape(3, 4) for mask in drawn(shares=(0.5,), count=200)[4]]
    )
    assert (
        off_AH.sum(0)[np.asarray(FULL_AH)].std() / len(off_AH) < 0.1
    )  # every head goes as often as the others


def test_prefixes_of_importance_are_those_of_one_shot_pruning():
    masks_MAH = make("prefixes")
    np.testing.assert_array_equal(missing(masks_MAH), range(10))
    assert not (masks_MAH[1:] & ~masks_MAH[:-1]).any()
    for count in range(10):
        np.testing.assert_array_equal(
            masks_MAH[count], heads.keep_top(FULL_AH, SCORE_AH, 9 - count)
        )


def test_prefixes_of_a_file_follow_its_lines(tmp_path):
    order = tmp_path / "order.txt"
    order.write_text("# by eye\ncross.0.2\n\nenc.0.1\ncross.0.0\n")
    masks_MAH = make("prefixes", order=str(order))
    gone = [heads.removed(mask_AH, FULL_AH, ROWS) for mask_AH in masks_MAH]
    assert gone == [
        {},
        {"cross.0": [2]},
        {"enc.0": [1], "cross.0": [2]},
        {"enc.0": [1], "cross.0": [0, 2]},
    ]
    with pytest.raises(
        ValueError,
        match=r"order.txt:4 removes heads of enc.0, which ablation.rows leaves as they are",
    ):
        make("prefixes", CROSS_AH, order=str(order))


def test_a_files_masks_are_the_same_from_an_array_and_from_text(tmp_path):
    masks_MAH = make("random", random=RandomSets(count=3))
    np.save(tmp_path / "masks.npy", masks_MAH)
    lines = [format_descriptor(heads.removed(mask_AH, FULL_AH, ROWS)) for mask_AH in masks_MAH]
    (tmp_path / "masks.txt").write_text("\n".join(["# mine", *lines]) + "\n")
    for name in ("masks.npy", "masks.txt"):
        np.testing.assert_array_equal(make("file", masks=str(tmp_path / name)), masks_MAH)
    np.save(tmp_path / "one.npy", masks_MAH[5].astype(np.int8))
    np.testing.assert_array_equal(make("file", masks=str(tmp_path / "one.npy")), masks_MAH[[0, 5]])
    (tmp_path / "none.txt").write_text("A:1:2\n-\n\nE:1:1,3\n")
    np.testing.assert_array_equal(
        missing(make("file", masks=str(tmp_path / "none.txt"))), [0, 1, 0, 0, 2]
    )
    (tmp_path / "cross.txt").write_text("A:1:2\nA:1:1,3")
    np.testing.assert_array_equal(
        missing(make("file", CROSS_AH, masks=str(tmp_path / "cross.txt"))), [0, 1, 2]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "E:1:1\nE:9:1\n",
            r"masks:2: word 1, 'E:9:1': there is no row 'enc.8'; the rows are enc.0, dec.0",
        ),
        ("E:1:5\n", r"masks:1: head 4 of row 'enc.0' .* out of range"),
        ("enc.0\n", r"masks:1: word 1, 'enc.0': it is a whole row: expected its heads"),
        ("# nothing\n", r"masks is empty"),
        (
            "A:1:1\nE:1:1\n",
            r"masks:2 removes heads of enc.0, which ablation.rows leaves as they are",
        ),
    ],
)
def test_bad_lines_of_masks_are_told_with_their_place(tmp_path, text, message):
    (tmp_path / "masks").write_text(text)
    with pytest.raises(ValueError, match=message):
        make("file", CROSS_AH, masks=str(tmp_path / "masks"))


@pytest.mark.parametrize(
    "line", ["cross.0", "cross.0.x", "cross.1.0", "3", "cross.0.7", "cross.0.1\ncross.0.1"]
)
def test_bad_lines_of_an_order_are_told_with_their_place(tmp_path, line):
    (tmp_path / "order").write_text(line)
    with pytest.raises(
        ValueError,
        match=r"order:\d: .*(such as (enc|cross).0.0|no row 'cross.1'|out of range|cannot be)",
    ):
        make("prefixes", order=str(tmp_path / "order"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.ones((2, 3, 5), bool),
            r"shape \(2, 3, 5\), but \(3, 4\) or \(masks, 3, 4\) was expected",
        ),
        (np.ones((0, 3, 4), bool), r"shape \(0, 3, 4\), but"),
        (np.full((3, 4), 2), r"the head mask holds 2 at \(0, 0\), but every value must be 0 or 1"),
        (
            np.ones((3, 4), bool),
            r"mask 0: the head mask turns on head 2 of row 1, but the heads of that row are 0, 1",
        ),
        (np.array({"mask": 1}), r"is not a .npy file of plain numbers: Object arrays"),
        (None, r"is not a .npy file of plain numbers"),
    ],
)
def test_bad_arrays_of_masks_are_refused(tmp_path, array, message):
    if array is None:
        (tmp_path / "masks.npy").write_bytes(pickle.dumps([1]))
    else:
        np.save(tmp_path / "masks.npy", array)
    with pytest.raises(ValueError, match=message):
        make("file", masks=str(tmp_path / "masks.npy"))


def test_missing_files_are_named():
    with pytest.raises(ValueError, match=r"ablation.masks is '': \. is a folder"):
        make("file")
    with pytest.raises(
        FileNotFoundError, match=r"ablation.order is 'importence': there is no file importence"
    ):
        make("prefixes", order="importence")


# --- the whole job -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """All sets through the command; the experiment's folder."""
    folder = tmp_path_factory.mktemp("sets")
    write_hf_folder(folder / "hf", head=True)
    write_sst2(folder / "sst2", train=32)
    (folder / "mine.txt").write_text("1:1,2\n-\n1:4 2:1,2,3,4\n")
    config = ClassificationExperiment(
        model=str(folder / "hf"),
        out=str(folder / "out"),
        data=Data(path=str(folder / "sst2"), max_length=16, buckets=(16,), batch=16),
        importance=Importance(split="train"),
        ablation=Ablation(
            sets=("one_off", "one_on", "pairs", "rows_off", "prefixes", "random", "file"),
            splits=("validation",),
        ),
        pruning=Pruning(orders=("one_shot",), test="validation", shares=(0.0, 0.5, 1.0)),
    )
    path, seeds = (
        config_file(folder, config),
        ["--ablation.random.seed", "7", "--ablation.random.count", "3"],
    )
    assert main(["ablate", path, *seeds, "--ablation.masks", str(folder / "mine.txt")]) == 0
    assert main(["prune", path]) == 0
    with pytest.MonkeyPatch.context() as coarse:
        coarse.setattr(style, "DPI", 30)
        assert main(["linear", path]) == 0  # which writes the report
    return folder / "out"


def test_predictions_stand_beside_what_was_measured(finished):
    """The report's numbers of one set, from what is kept, and from Taylor's first term."""
    table = (finished / "report/predicted-validation.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert {row["masks"]: int(row["number"]) for row in rows}["without two heads"] == 28
    kept, grid = (
        open_store(finished / name) for name in ("linear/validation", "ablation/validation/one_off")
    )
    label_N, loss_MN = kept.read("label"), grid.read("loss")
    sign_N = 1 - 2 * label_N  # two labels: the loss is softplus of the wrong one's log-odds

    def loss(log_odds_N):
        return np.logaddexp(0, sign_N * log_odds_N)

    output_N, slope_NAH = kept.read("output")[:, 0], kept.read("slope")[:, 0]
    change_MN = np.stack(
        [
            loss(output_N - slope_NAH[:, row, head]) - loss(output_N)
            for row, head in np.ndindex(2, 4)
        ]
    )
    measured_MN = loss_MN[1:] - loss_MN[:1]
    (row,) = [row for row in rows if row["masks"] == "without one head"]
    pairs = zip(change_MN, measured_MN, strict=True)
    assert float(row["r over examples"]) == pytest.approx(
        np.median([np.corrcoef(*pair)[0, 1] for pair in pairs]), rel=1e-3
    )
    assert float(row["r over masks, loss"]) == pytest.approx(
        np.corrcoef(change_MN.mean(1), measured_MN.mean(1))[0, 1], rel=1e-3
    )
    right_MN = (output_N - slope_NAH.reshape(len(label_N), -1).T > 0) == grid.read("prediction")[1:]
    assert float(row["labels predicted right (%)"]) == pytest.approx(100 * right_MN.mean())


def test_every_set_is_a_grid_whose_manifest_has_its_settings(finished):
    sizes = {
        path.name: open_store(path).manifest["items"]
        for path in (finished / "ablation/validation").iterdir()
    }
    expected = {"one_off": 9, "one_on": 9, "pairs": 29, "rows_off": 3, "prefixes": 9, "file": 4}
    assert {name: size for name, size in sizes.items() if name != "random"} == expected
    manifest = open_store(finished / "ablation/validation/random").manifest
    assert manifest["masks"] == "random"
    settings = manifest["experiment"]["ablation"]
    assert settings["random"] == {"shares": list(RandomSets().shares), "count": 3, "seed": 7}
    assert (settings["order"], pathlib.Path(settings["masks"]).name) == ("importance", "mine.txt")
    assert open_store(finished / "ablation/validation/prefixes").manifest["splits"] == {
        "score": "train",
        "test": "validation",
    }


def test_prefixes_and_one_shot_pruning_agree(finished):
    prefixes, curve = (
        open_store(finished / "ablation/validation/prefixes"),
        open_store(finished / "pruning/one_shot/test"),
    )
    for name in ("masks", "loss"):
        np.testing.assert_allclose(prefixes.read(name)[[0, 4, 8]], curve.read(name), rtol=1e-5)


def test_every_grid_has_one_line_a_mask_for_machines(finished):
    for path in (finished / "ablation/validation").iterdir():
        store = open_store(path)
        with open(finished / f"report/{path.name}_masks.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["mask"]) for row in rows] == list(range(store.manifest["items"]))
        for row, mask_AH, loss_N in zip(rows, store.read("masks"), store.read("loss"), strict=True):
            gone = parse_descriptor(row["without"], store.manifest["rows"])
            np.testing.assert_array_equal(
                heads.remove(heads.all_on(2, 4), gone, store.manifest["rows"]), mask_AH
            )
            assert int(row["removed"]) == 8 - mask_AH.sum()
            assert float(row["loss"]) == pytest.approx(loss_N.mean())


@pytest.mark.filterwarnings(
    "ignore:Object at manifest.json is not recognized:zarr.errors.ZarrUserWarning"
)
@pytest.mark.parametrize("name", ["random", "file"])
def test_xarray_opens_a_grid_with_its_axes_named(finished, name):
    store = open_store(finished / "ablation/validation" / name)
    with xarray.open_zarr(store.path, consolidated=False) as data:
        assert data["masks"].dims == ("mask", "row", "head")
        assert data["loss"].dims == data["prediction"].dims == ("mask", "example")
        assert data.sizes == {"mask": store.manifest["items"], "example": 24, "row": 2, "head": 4}
        for array in store.manifest["arrays"]:
            np.testing.assert_array_equal(data[array].values, store.read(array))
            assert data[array].dtype == store.read(array).dtype


def test_a_bad_set_is_one_sentence_before_anything_is_measured(finished, tmp_path, capsys):
    manifest = open_store(finished / "ablation/validation/file").manifest["experiment"]
    data = Data(path=manifest["data"]["path"], max_length=16, buckets=(16,))
    config = ClassificationExperiment(model=manifest["model"], out=str(tmp_path / "out"), data=data)
    path = config_file(tmp_path, config)
    assert (
        main(
            [
                "ablate",
                path,
                "--ablation.sets",
                "one_off",
                "file",
                "--ablation.masks",
                "nowhere.npy",
            ]
        )
        == 1
    )
    assert (
        "ablation.masks is 'nowhere.npy': there is no file nowhere.npy" in capsys.readouterr().err
    )
    assert not (tmp_path / "out/ablation").exists()
