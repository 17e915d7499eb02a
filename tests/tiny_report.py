"""Synthetic results to report on."""

import dataclasses
import json

import numpy as np

from hp_jax import heads
from hp_jax.config import ClassificationExperiment
from hp_jax.storage.store import create_store
from hp_jax.storage.zarr import Items

ROWS, HEADS, N = ["enc.0", "<dec>.0"], [3, 2], 60
FULL_AH = np.asarray(heads.all_on(2, HEADS))
LABELS = ["no", "maybe", "yes"]
ABOUT = {
    "experiment": dataclasses.asdict(ClassificationExperiment(model="<script>alert(1)</script>")),
    "devices": ["cpu <b>"],
    "command": ["hp-jax", "run", "<i>&.py"],
    "metric": "accuracy",
    "positive": 1,
    "labels": LABELS,
    "rows": ROWS,
    "heads": FULL_AH.astype(int).tolist(),
}


def make_grid(path, about, fixed, values):
    axes = ("mask", "example", "count")
    items = {
        name: Items(axes[: value.ndim], value.shape, str(value.dtype))
        for name, value in values.items()
    }
    return create_store(
        path,
        "grid",
        fingerprint={"model": "m", "data": "d"},
        about=about,
        fixed=fixed,
        items=items,
        chunk=1,
    )


def grid(
    path,
    masks_MAH,
    *,
    split="validation",
    metric="accuracy",
    losses=True,
    confidence=False,
    finished=True,
    seed=0,
):
    """A grid whose models get worse with every head they lack, at random examples."""
    masks_MAH = np.asarray(masks_MAH)
    random = np.random.default_rng(seed)
    label_N = random.integers(0, 3, N).astype(np.int32)
    missing_M = FULL_AH.sum() - masks_MAH.sum((1, 2))
    wrong_MN = random.random((len(masks_MAH), N)) < 0.1 + 0.13 * missing_M[:, None]
    values = {"prediction": np.where(wrong_MN, (label_N + 1) % 3, label_N).astype(np.int32)}
    if losses:
        values["loss"] = random.random((len(masks_MAH), N)).astype(np.float32) + wrong_MN
    if confidence:
        values["confidence"] = random.uniform(0.35, 0.99, wrong_MN.shape).astype(np.float32)
    fixed = {"masks": (("mask", "row", "head"), masks_MAH), "label": (("example",), label_N)}
    store = make_grid(path, ABOUT | {"metric": metric, "splits": {"test": split}}, fixed, values)
    count = len(masks_MAH) if finished else 2
    store.write(
        0, {name: value[:count].astype(store.read(name).dtype) for name, value in values.items()}
    )
    return store


def with_full(masks_MAH):
    return np.concatenate([FULL_AH[None], np.asarray(masks_MAH)])


def importance(path, norm=2.0):
    total = np.array([[[3.0, 1, 2], [4, 0, 9]], [[1.0, 1, 0], [0, 3, 9]]])
    values = {"total": total, "count": np.array([[1.0, 2], [3, 2]])}
    experiment = json.loads(json.dumps(ABOUT["experiment"]))
    experiment["importance"]["norm"] = norm
    store = create_store(
        path,
        "importance",
        fingerprint={"model": "m"},
        about=ABOUT | {"splits": {"score": "train[:<9]"}, "experiment": experiment},
        fixed={"mask": (("row", "head"), FULL_AH)},
        items={
            name: Items(("part", "row", "head")[: value.ndim], value.shape, "float64")
            for name, value in values.items()
        },
        chunk=1,
    )
    store.write(0, values)
    return store


CURVE_MAH = np.stack(
    [heads.keep_top(FULL_AH, np.arange(6.0).reshape(2, 3), n) for n in (5, 4, 2, 0)]
)


def everything(folder):
    importance(folder / "importance")
    grid(folder / "ablation/validation/one_off", with_full(heads.one_off(FULL_AH)))
    grid(folder / "ablation/validation/one_on", with_full(heads.one_on(FULL_AH)))
    grid(folder / "ablation/validation/pairs", with_full(heads.pairs(FULL_AH)))
    grid(folder / "pruning/one_shot/test", CURVE_MAH, split="validation[50%:]")
    grid(folder / "pruning/oracle/test", CURVE_MAH, split="validation[50%:]")
    (folder / "model").mkdir()
    history = [
        {"epoch": 1, "training loss": 0.5, "accuracy": 0.7},
        {"epoch": 2, "training loss": 0.25, "accuracy": 0.75},
    ]
    (folder / "model/config.json").write_text(json.dumps({"training": {"history": history}}))
