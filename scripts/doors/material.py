"""Tiny good material: models in every format, text, results, masks, a config."""

import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

CONFIG = """from hp_jax.config import *

config = ClassificationExperiment(
    model="trained",
    out="runs",
    data=Data(path="sst2", max_length=16, buckets=(16,), batch=8),
    importance=Importance(split="validation"),
    ablation=Ablation(sets=("one_off",), masks_at_once=4),
    pruning=Pruning(select="validation", test="validation", shares=(0, 0.5), orders=("one_shot",)),
)
"""


def write_material(folder: Path) -> None:
    """All of it, in a folder that is not there; the tests' own writers make it."""
    from tiny import write_hf_folder, write_sst2
    from tiny_export import hf_marian
    from tiny_marian import VARIANTS, make_tensors, make_vocabulary, write_bin, write_npz

    from hp_jax.cli import main
    from hp_jax.formats.export import export
    from hp_jax.formats.model import load_model

    write_hf_folder(folder / "trained", head=True)
    write_sst2(folder / "sst2", train=16, validation=16)
    export(load_model(str(folder / "trained")), folder / "hf", "hf")
    export(hf_marian(separate=False), folder / "hf_marian", "hf")
    export(hf_marian(separate=False), folder / "flat", "safetensors")
    load_model(str(folder / "trained")).save(folder / "own", {})
    for name, write in (("npz", write_npz), ("bin", write_bin)):
        (folder / name).mkdir()
        (folder / name / "vocab.spm").write_bytes(make_vocabulary())
        settings = VARIANTS["ssru"]
        write(folder / name / f"model.{name}", make_tensors(settings), settings)
    (folder / "config.py").write_text(CONFIG)
    (folder / "order.txt").write_text("enc.0.1\nenc.1.3\n")
    (folder / "masks.txt").write_text("1:2\n")
    np.save(folder / "mask.npy", np.array([[1, 0, 1, 1], [1, 1, 1, 0]], bool))
    (folder / "foreign").mkdir()
    (folder / "foreign/config.json").write_text(json.dumps({"somebody": "else"}))
    (folder / "foreign/letter.txt").write_text("dear")
    _from_inside(folder, lambda: [main([step, "config.py", "--quiet"]) for step in STEPS])


STEPS = ("importance", "ablate", "prune")


def _from_inside(folder: Path, act) -> None:
    import os

    before = Path.cwd()
    os.chdir(folder)
    try:
        act()
    finally:
        os.chdir(before)
