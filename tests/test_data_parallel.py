"""Sentence pairs are read alike from each form, with right line numbers, and batched without
loss."""

import gzip
import subprocess
import sys
import urllib.error

import numpy as np
import pytest
import sacrebleu.dataset
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from hp_jax.config import ParallelData
from hp_jax.data import splits
from hp_jax.data.batching import batches
from hp_jax.data.parallel import Parallel, read_parallel
from hp_jax.text.pairs import encode_pairs

PAIRS = [
    ("ein Haus\u2028hier", "a house\x85here"),
    ("zwei  ", "two"),
    ("drei, é", '"three'),
    ("vier", "four\x0cmore"),
]


def write(folder, name, lines, end="\n"):
    content = "".join(line + end for line in lines).encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def write_two(folder, pairs=PAIRS, split="train", ends=("", ""), **how):
    for side, language, end in zip(zip(*pairs, strict=True), ("de", "en"), ends, strict=True):
        write(folder, f"{split}.{language}{end}", side, **how)


def read(folder, split="train", **settings):
    return read_parallel(ParallelData(path=str(folder), **settings), split)


def pairs_of(parallel):
    return list(zip(parallel.source, parallel.target, strict=True))


@pytest.mark.parametrize("ends", [("", ""), (".gz", ".gz"), ("", ".gz")])
def test_two_files(tmp_path, ends):
    write_two(tmp_path, ends=ends)
    found = read(tmp_path)
    assert pairs_of(found) == PAIRS
    assert (found.name, found.split, len(found)) == ("de-en", "train", 4)
    assert found.where(2) == f"{tmp_path}/train.de{ends[0]} and train.en{ends[1]}:3"
    assert list(found.origin_N) == [0, 1, 2, 3]


def test_carriage_returns_and_a_missing_last_line_feed_change_nothing(tmp_path):
    write_two(tmp_path, end="\r\n")
    write(tmp_path, "train.en", ["\n".join(target for _, target in PAIRS)], end="")
    assert pairs_of(read(tmp_path)) == PAIRS


@pytest.mark.parametrize(
    "lines",
    [
        [f"{source}\t{target}" for source, target in PAIRS],
        ["de\ten", *(f"{source}\t{target}" for source, target in PAIRS)],
        ["en\tid\tde", *(f"{target}\t7\t{source}" for source, target in PAIRS)],
    ],
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_table(tmp_path, lines, end):
    write(tmp_path, f"train.tsv{end}", lines)
    found = read(tmp_path)
    assert pairs_of(found) == PAIRS
    assert found.where(0) == f"{tmp_path}/train.tsv{end}:{len(lines) - 3}"


def test_named_files(tmp_path):
    write(tmp_path, "a", ["x", "y"])
    write(tmp_path, "b", ["u", "v"])
    write(tmp_path, "c.tsv", ["p\tq"])
    data = {"files": (("train", "a", "b"), ("test", "c.tsv", "c.tsv")), "name": "mine"}
    assert pairs_of(read(tmp_path, **data)) == [("x", "u"), ("y", "v")]
    assert pairs_of(read(tmp_path, "test", **data)) == [("p", "q")]
    assert read(tmp_path, **data).name == "mine"


def test_pairs_with_an_empty_side_are_dropped_and_counted(tmp_path, caplog):
    write_two(tmp_path, [("a", "b"), ("", "c"), ("d", " "), ("", ""), ("e", "f")])
    found = read(tmp_path)
    assert pairs_of(found) == [("a", "b"), ("e", "f")]
    assert (list(found.line_N), list(found.origin_N)) == ([1, 5], [0, 1])
    assert "empty side, the first on line 2: 3" in caplog.text
    assert len(caplog.records) == 1


def test_slices_are_random_samples_that_do_not_overlap(tmp_path):
    write_two(tmp_path, [(f"s{i}", f"t{i}") for i in range(50)])
    whole, first, second = (
        read(tmp_path, split) for split in ("train", "train[:40%]", "train[40%:]")
    )
    assert (
        len(first),
        len(second),
        splits.overlap(first, second),
        splits.overlap(first, whole),
    ) == (20, 30, 0, 20)
    assert {*pairs_of(first), *pairs_of(second)} == set(pairs_of(whole))
    assert first.source != whole.source[:20]
    for part in (first, second):
        assert [pairs_of(whole)[n] for n in part.origin_N] == pairs_of(part)
        assert list(part.line_N) == list(part.origin_N + 1)


def test_faults_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent with the files of de-en"):
        read(tmp_path / "absent")
    write_two(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"split 'test': expected test\.de with test\.en, or test\.tsv"
    ):
        read(tmp_path, "test")
    write(tmp_path, "train.en", ["one"])
    with pytest.raises(
        ValueError, match=r"train\.de has 4 lines, but .*train\.en has 1: expected as many"
    ):
        read(tmp_path)
    write_two(tmp_path, [("", "x")])
    with pytest.raises(
        ValueError,
        match=r"train\.de and train\.en: expected pairs of sentences, but there are none",
    ):
        read(tmp_path)
    write(tmp_path, "dev.tsv", ["a\tb\tc"])
    with pytest.raises(ValueError, match=r"dev\.tsv:1: expected 2 fields, but found 3"):
        read(tmp_path, "dev")
    with pytest.raises(ValueError, match="need the set's name"):
        read(tmp_path, format="tfds")


# --- tensorflow-datasets and sacrebleu -----------------------------------------------------------


class TedHrlrTranslate(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="de_to_en", version="1.0.0"),)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.Translation(languages=("de", "en"))
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i, (source, target) in enumerate(PAIRS):
            yield i, {"de": source, "en": target}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    TedHrlrTranslate(
        config="de_to_en", data_dir=folder, file_format="array_record"
    ).download_and_prepare()
    return folder


def test_a_prepared_translation_set(data_dir):
    settings = {"format": "tfds", "name": "ted_hrlr_translate/de_to_en"}
    found = read(data_dir, **settings)
    assert sorted(pairs_of(found)) == sorted(PAIRS)
    assert found.where(3).endswith("de_to_en/1.0.0/train:4")
    assert pairs_of(
        read(data_dir / "ted_hrlr_translate" / "de_to_en" / "1.0.0", **settings)
    ) == pairs_of(found)
    back = read(data_dir, source="en", target="de", **settings)
    assert (back.source, back.target) == (found.target, found.source)
    with pytest.raises(ValueError, match=r"no column 'fr'; the columns are de, en"):
        read(data_dir, source="fr", **settings)
    with pytest.raises(ValueError, match=r"no split 'test'; the splits are train"):
        read(data_dir, "test", **settings)
    with pytest.raises(
        ValueError, match=r"expected a prepared folder, or a data_dir that contains other/de_to_en"
    ):
        read(data_dir, format="tfds", name="other/de_to_en")


def test_nothing_heavy_is_imported(data_dir):
    code = (
        "import sys; from hp_jax import metrics; from hp_jax.config import ParallelData;"
        "from hp_jax.data import parallel; from hp_jax.text import fairseq, loading, pairs, "
        "vocabulary;"
        "late = ('sacrebleu', 'sacremoses', 'sentencepiece', 'subword_nmt', "
        "'tensorflow_datasets', 'jax');"
        "assert not set(late) & set(sys.modules);"
        f"data = ParallelData(path={str(data_dir)!r}, format='tfds', "
        "name='ted_hrlr_translate/de_to_en');"
        "assert len(parallel.read_parallel(data, 'train')) == 4 and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def test_set(tmp_path, monkeypatch):
    made = sacrebleu.dataset.DATASETS["wmt14/full"]
    monkeypatch.setattr(made, "_outdir", str(tmp_path))
    monkeypatch.setattr(made, "_rawdir", str(tmp_path / "raw"))
    return tmp_path


def test_a_test_set_of_sacrebleu(test_set):
    for field in sacrebleu.dataset.DATASETS["wmt14/full"].fieldnames("de-en"):
        write(test_set, f"wmt14_full.de-en.{field}", [pair[field != "src"] for pair in PAIRS])
    found = read("", "wmt14/full", format="sacrebleu")
    assert pairs_of(found) == PAIRS
    assert len(read("", "wmt14/full[:50%]", format="sacrebleu")) == 2


def test_what_sacrebleu_cannot_give_says_what_to_do(test_set, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(sacrebleu.dataset.base, "download_file", offline)
    with pytest.raises(
        RuntimeError,
        match=r"test set wmt14/full for de-en \(URLError: .*no network.* needs the network once",
    ):
        read("", "wmt14/full", format="sacrebleu")
    with pytest.raises(ValueError, match=r"no test set 'wmt99' for de-en; it has .*wmt14/full"):
        read("", "wmt99", format="sacrebleu")
    with pytest.raises(ValueError, match="'wmt14' for de-xx; it has none"):
        read("", "wmt14", format="sacrebleu", target="xx")


# --- encoded pairs -------------------------------------------------------------------------------


class Words:
    """A word is its length as an id; EOS is 1, padding 0."""

    source_vocab = target_vocab = 9
    eos, pad, unk = 1, 0, 8

    def encode_source(self, lines):
        return [np.array([*map(len, line.split()), 1], np.int32) for line in lines]

    encode_target = encode_source


def pairs_from(source, target):
    place_N = np.arange(len(source))
    return Parallel(
        name="de-en",
        source=source,
        target=target,
        files={"train": "f"},
        line_N=place_N + 1,
        origin_N=place_N,
    )


def parallel_of(lengths):
    source, target = (
        tuple(" ".join(["www"] * length) for length in side) for side in zip(*lengths, strict=True)
    )
    return pairs_from(source, target)


LENGTHS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=20)


@given(LENGTHS, st.integers(2, 13))
def test_long_pairs_are_dropped_or_cut(lengths, max_length):
    parallel = parallel_of(lengths)
    cut = encode_pairs(Words(), parallel, max_length, drop=False)
    assert [(len(s), len(t)) for s, t in zip(cut.source, cut.target, strict=True)] == [
        (min(s + 1, max_length), min(t + 1, max_length)) for s, t in lengths
    ]
    assert all(ids[-1] == 1 and (ids[:-1] == 3).all() for ids in cut.source + cut.target)
    assert cut.reference == parallel.target
    short = [n for n, pair in enumerate(lengths) if max(pair) < max_length]
    if not short:
        with pytest.raises(
            ValueError, match=f"at most {max_length} tokens a side, but there are none"
        ):
            encode_pairs(Words(), parallel, max_length, drop=True)
        return
    dropped = encode_pairs(Words(), parallel, max_length, drop=True)
    assert list(dropped.origin_N) == short
    assert dropped.reference == tuple(parallel.target[n] for n in short)
    assert [len(ids) for ids in dropped.source] == [lengths[n][0] + 1 for n in short]


def test_the_warning_counts_the_long(caplog):
    encode_pairs(Words(), parallel_of([(1, 1), (1, 9), (9, 9)]), 5, drop=False)
    assert [record.getMessage() for record in caplog.records] == [
        "f: pairs of more than 5 tokens, cut: 2"
    ]
    with pytest.raises(ValueError, match="max_length is 1"):
        encode_pairs(Words(), parallel_of([(1, 1)]), 1, drop=True)


@given(LENGTHS, st.none() | st.integers(0, 9))
def test_every_pair_once_and_unchanged(lengths, seed):
    pairs = encode_pairs(Words(), parallel_of(lengths), 13, drop=False)
    made = batches(
        pairs,
        size=4,
        buckets=(4, 8, 16),
        shuffle=None if seed is None else np.random.default_rng(seed),
    )
    assert sorted(n for batch in made for n in batch["index_B"][batch["weight_B"] == 1]) == list(
        range(len(lengths))
    )
    for batch in made:
        assert {
            name: array.dtype for name, array in batch.items() if name != "weight_B"
        } == dict.fromkeys(
            ("source_BS", "source_length_B", "target_BT", "target_length_B", "index_B"), np.int32
        )
        assert batch["source_BS"].shape == batch["target_BT"].shape
        for row, n in enumerate(batch["index_B"]):
            for ids, side, length in (
                ("source_BS", pairs.source, "source_length_B"),
                ("target_BT", pairs.target, "target_length_B"),
            ):
                real = side[n] if batch["weight_B"][row] else []
                np.testing.assert_array_equal(batch[ids][row, : len(real)], real)
                assert (batch[ids][row, len(real) :] == pairs.padding).all()
                assert batch[length][row] == max(1, len(real))


def test_fingerprints_differ_with_what_a_model_is_given_or_compared_with():
    def fingerprint(source, target, padding=0):
        return encode_pairs(Words(), pairs_from(source, target), 9, drop=False).fingerprint()

    assert fingerprint(("a b", "c"), ("d", "e")) == fingerprint(("x y", "z"), ("d", "e"))
    assert len({fingerprint(*sides) for sides in [
        (("a b", "c"), ("d", "e")), (("a", "b c"), ("d", "e")),
        (("a b", "c"), ("d", "f")), (("a b", "c"), ("d", "eé")),
        (("d", "e"), ("a b", "c")), (("a b",), ("d",)),
    ]}) == 6  # fmt: skip
