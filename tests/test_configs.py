"""Every shipped config runs from its files to its report, on a stand-in of the same shape in small:
random weights and a few dozen sentences, under the file names and in the form that it expects."""

import dataclasses
import gzip
import importlib.util
import json
import pathlib
import re

import jax
import pytest
import sacrebleu.dataset
import tensorflow_datasets as tfds
from matplotlib.figure import Figure
from safetensors.numpy import load_file, save_file
from tiny import random_params, write_hf_folder, write_sst2
from tiny_gguf import make_config, make_params, write_gguf
from tiny_glue import write_glue, write_text
from tiny_language import write_documents
from tiny_marian import VARIANTS, make_tensors, make_vocabulary, write_npz
from tiny_translation import CONFIG
from translation_files import V, write_fairseq, write_parallel

from hp_jax.cli import load_config, main
from hp_jax.config import ClassificationExperiment, TranslationExperiment
from hp_jax.config_files import shipped
from hp_jax.data.splits import folder_name
from hp_jax.formats.model import Model
from hp_jax.grid import chunks
from hp_jax.models.translation import Translation
from hp_jax.shrink import speed
from hp_jax.storage.store import open_store
from hp_jax.text.fairseq import Fairseq

SIZES = {"width": 8, "encoder_ffn": 8, "decoder_ffn": 8, "encoder_layers": 1, "decoder_layers": 1}
SIZES |= {"encoder_heads": 2, "decoder_heads": 2, "cross_heads": 2}
"""A small model of translation."""

# --- stand-ins -----------------------------------------------------------------------------------


def bert(folder):
    """A pretrained BERT without a classifier, as google-bert/bert-base-uncased has it: with the
    heads of pretraining, and old names of LayerNorm's parameters."""
    write_hf_folder(folder, layers=1, heads=2, width=8, ffn=8)
    path = folder / "model.safetensors"
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(path).items()
    }
    tensors["cls.predictions.bias"] = tensors["bert.pooler.dense.bias"]
    save_file(tensors, path)
    settings = json.loads((folder / "config.json").read_text())
    settings["architectures"] = ["BertForMaskedLM"]
    (folder / "config.json").write_text(json.dumps(settings))
    return {"model": str(folder)}


def archive(task, **files):
    """GLUE's own files, and a model to fine-tune."""

    def write(folder):
        for name, count in files.items():
            write_text(folder / "data" / name, task, count)
        return bert(folder / "hf") | {"data.path": str(folder / "data")}

    return write


def hub(task, *validation):
    """The repository nyu-mll/glue, and a model to fine-tune."""

    def write(folder):
        classes = 3 if task == "mnli" else 2
        for split, count in (("train", 64), *((name, 12) for name in validation)):
            write_glue(folder / "glue", task, split, [n % classes for n in range(count)])
        write_glue(folder / "glue", task, "test", [-1] * 4)
        return bert(folder / "hf") | {"data.path": str(folder / "glue")}

    return write


def recovered(folder):
    """SST-2 with more to train on."""
    write_sst2(folder / "data", train=64, validation=12)
    return bert(folder / "hf") | {"data.path": str(folder / "data")}


def own(folder):
    """One file, and a classifier that is trained."""
    write_sst2(folder / "data", validation=20)
    write_hf_folder(folder / "hf", head=True, layers=1, heads=2, width=8, ffn=8)
    return {"model": str(folder / "hf"), "data.path": str(folder / "data" / "dev.tsv")}


def pairs(names, form="{}", **counts):
    """Sentence pairs in two files a split: `names` of the split's stem and of both languages."""

    def write(folder):
        write_parallel(folder / "made", **counts)
        (folder / "data").mkdir()
        source, target = names
        for split in counts:
            for old, new in (("xx", source), ("yy", target)):
                text = (folder / "made" / f"{split}.{old}").read_bytes()
                name = form.format(split, new)
                path = folder / "data" / name
                path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return {"data.path": str(folder / "data")}

    return write


def marian(folder):
    """A model of the browser kind, and LASER's Tatoeba set."""
    changes = pairs(("por", "eng"), "{}.por-eng.{}", tatoeba=14)(folder)
    (folder / "model").mkdir()
    (folder / "model/vocab.spm").write_bytes(make_vocabulary())
    write_npz(folder / "model/model.npz", make_tensors(VARIANTS["ssru"]), VARIANTS["ssru"])
    return changes | {"model": str(folder / "model")}


SETS = {"wmt09": 5, "wmt10": 6, "wmt11": 4, "wmt12": 3, "wmt13": 9, "wmt14/full": 8}
SETS |= {"mtnt1.1/test": 7}


def fairseq(folder):
    """A checkpoint of fairseq, converted (without PyTorch: as it would be), and sacreBLEU's sets,
    as it keeps them."""
    for name, count in SETS.items():
        made = sacrebleu.dataset.DATASETS[name]
        made._outdir = str(folder / "sacrebleu" / name)  # set back by the test
        (folder / "sacrebleu" / name).mkdir(parents=True)
        for field in made.fieldnames("en-fr"):
            words = ("ab ba", "b", "bab a") if field == "src" else ("ba", "a ab b", "abba")
            text = "".join(f"{words[n % 3]} {words[n // 3 % 3]}\n" for n in range(count))
            file = f"{name.replace('/', '_')}.en-fr.{field}"
            (folder / "sacrebleu" / name / file).write_text(text)
    symbols = "".join(
        f"{s} 1\n" for s in ("a@@", "a", "b@@", "b", *map("madeupword{}".format, "0123"))
    )
    model = folder / "model"
    if importlib.util.find_spec("torch"):
        (folder / "fairseq").mkdir()
        write_fairseq(folder / "fairseq/model.pt")(source_lang="en", target_lang="fr")
        for language in ("en", "fr"):
            (folder / f"fairseq/dict.{language}.txt").write_text(symbols)
        (folder / "fairseq/bpecodes").write_text("#version: 0.2\nx y\n")
        assert main(["convert", str(folder / "fairseq"), str(model)]) == 0
    else:
        text = Fairseq("en", "fr", b"#version: 0.2\nx y\n", symbols.encode(), symbols.encode())
        config = dataclasses.replace(CONFIG, source_vocab=V, target_vocab=V, **SIZES)
        Model(config, random_params(Translation(config)), text).save(model, {})
    return {"model": str(model), "decoding.max_extra": 3}


class Wmt14Translate(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="fr-en", version="1.0.0"),)

    def _info(self):
        features = tfds.features.Translation(languages=("en", "fr"))
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        made = pathlib.Path(self._data_dir_root) / "made"
        return {path.stem: self._generate_examples(path) for path in made.glob("*.xx")}

    def _generate_examples(self, path):
        lines = (file.read_text().splitlines() for file in (path, path.with_suffix(".yy")))
        for n, (source, target) in enumerate(zip(*lines, strict=True)):
            yield n, {"en": source, "fr": target}


def prepared(folder):
    """wmt14_translate as tensorflow-datasets prepares it."""
    write_parallel(folder / "made", train=40, validation=8, test=7)
    tfds.disable_progress_bar()
    Wmt14Translate(
        config="fr-en", data_dir=folder, file_format="array_record"
    ).download_and_prepare()
    return {"data.path": str(folder)}


def gguf(folder):
    """A file of llama.cpp, and documents."""
    (folder / "lm").mkdir()
    config = make_config()
    write_gguf(folder / "lm" / "tiny.gguf", "llama", config, make_params(config))
    write_documents(folder / "text", train=8, validation=12)
    splits = {"importance.split": "train", "pruning.select": "train"}
    splits |= {"ablation.splits": ("validation",), "pruning.test": "validation"}
    return splits | {"model": str(folder / "lm"), "data.path": str(folder / "text")}


STAND_INS = {
    "cola": archive("cola", **{"in_domain_train.tsv": 32, "in_domain_dev.tsv": 12}
        | {"out_of_domain_dev.tsv": 9}),
    "mnli": archive("mnli", **{"train.tsv": 32, "dev_matched.tsv": 24}),
    "mrpc": archive("mrpc", **{"msr_paraphrase_train.txt": 32, "msr_paraphrase_test.txt": 12}),
    "sst2": archive("sst2", **{"train.tsv": 32, "dev.tsv": 12}),
    "sst2_recover": recovered,
    "own_data": own,
    "bert_cola": hub("cola", "validation"),
    "bert_mnli": hub("mnli", "validation_matched", "validation_mismatched"),
    "bert_mrpc": hub("mrpc", "validation"),
    "bert_sst2": hub("sst2", "validation"),
    "pt_en": marian,
    "eutrans": pairs(("es", "en"), "{}.{}", training=40, dev=6, test=14),
    "multi30k": pairs(
        ("de", "en"), "{}.{}.gz", train=40, val=8, test_2016_flickr=8, test_2017_mscoco=7
    ),
    "iwslt14": pairs(("de", "en"), "{}.{}", train=40, valid=8, test=7),
    "wmt14_en_fr": fairseq,
    "wmt14_en_fr_big": prepared,
    "smollm2": gguf,
}  # fmt: skip
"""Of each config: from an empty folder, in which they are written, to changes of the config."""

QUICK = ("bert_mrpc", "multi30k")
"""Those that are tried each time: of each kind one that has all that the others have too."""

SMALL = {
    "data.max_length": 16,
    "data.buckets": (16,),
    "data.batch": 16,
    "train.epochs": 1,
    "train.batch": 16,
    "train.batch_tokens": 0,
    "pruning.shares": (0.0, 0.5),
    "paper.epochs": (),
}
SMALL_RECOVERY = {"pruning.calibrate": 16, "pruning.repair": 16, "pruning.retrain_steps": 1}
"""What makes each experiment tiny, with SIZES; all else is the config's own."""


def tiny(split):
    """A split with its counts a hundredth: `train[:5000]` is `train[:50]`."""
    return re.sub(r"(?<=[:\[])(\d+)00(?=[:\]])", r"\1", split)


def changes_of(name, folder):
    """What is changed in a config, by dotted name."""
    config, changes = load_config(name), {"out": str(folder / "out")} | SMALL
    if isinstance(config, ClassificationExperiment):
        changes |= SMALL_RECOVERY if config.pruning.retrain_steps else {}
    if isinstance(config, TranslationExperiment):
        changes |= {f"architecture.{field}": size for field, size in SIZES.items()}
        changes |= {"architecture.dropout": 0.0, "vocabulary": 34, "train.warmup": 2}
    changes |= {"paper.seeds": config.paper.seeds[:1]}
    changes |= {
        "importance.split": tiny(config.importance.split),
        "ablation.splits": tuple(map(tiny, config.ablation.splits)),
        "pruning.select": tiny(config.pruning.select),
        "pruning.test": tiny(config.pruning.test),
        "train.evaluate": tiny(config.train.evaluate),
    }
    return changes | STAND_INS[name](folder)


def flags(changes):
    for field, value in changes.items():
        yield "--" + field.replace("_", "-")
        yield from map(str, value if isinstance(value, tuple) else (value,))


# --- the runs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What was compiled for one config serves the others."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1)


PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>'


@pytest.fixture
def home(tmp_path, monkeypatch, compiled):
    """An empty folder.  One device, nothing timed, no trial of how many masks fit it and no
    pictures, as these are other tests' matter, and slow; and sacreBLEU's places are set back
    afterwards."""
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: one)
    monkeypatch.setattr(chunks, "masks_that_fit", lambda *_, **__: 4)
    monkeypatch.setattr(speed, "speed", lambda *_: [])
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: file.write(PICTURE))
    for name in SETS:
        made = sacrebleu.dataset.DATASETS[name]
        monkeypatch.setattr(made, "_outdir", made._outdir)
    return tmp_path


def test_every_shipped_config_has_a_stand_in():
    assert set(STAND_INS) == set(shipped())


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in shipped()],
)
def test_a_config_runs_from_its_files_to_its_report(name, home):
    changes = changes_of(name, home)
    with jax.numpy_rank_promotion("allow"), jax.debug_key_reuse(False):
        assert main(["reproduce", name, *flags(changes)]) == 0
    config, out = load_config(name, changes), home / "out"
    assert (out / "report/index.html").stat().st_size > 10_000
    stores = {path: open_store(out / path) for path in expected(config)}
    assert all(store.done().all() for store in stores.values())
    for split in config.ablation.splits:
        for masks in ("one_off", "one_on"):
            store = stores[f"ablation/{folder_name(split)}/{masks}"]
            assert store.manifest["splits"] == {"test": split}
            assert store.read("loss").shape[1] >= len(set(store.read("origin"))) > 1


def expected(config):
    """The stores that a run leaves, by their places."""
    yield "importance"
    for split in config.ablation.splits:
        for masks in ("one_off", "one_on"):
            yield f"ablation/{folder_name(split)}/{masks}"
    for order in config.pruning.orders:
        yield f"pruning/{order}/test"
        for per in config.pruning.per if order != "oracle" else ():
            yield f"pruning/{order}-{per}/test"
        for rows in config.pruning.rows:
            yield f"pruning/{order}{'' if rows == 'all' else f'.{rows}'}/test"
    for seed in config.paper.seeds:
        yield f"seeds/{seed}/pruning/one_shot/test"
    if config.train.keep_epochs:
        yield "epochs/01/pruning/one_shot/test"
