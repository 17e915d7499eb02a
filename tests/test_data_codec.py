"""Ids and texts are those of SentencePiece, transformers' MarianTokenizer, and fairseq's chain of
Moses, BPE and dictionary."""

import dataclasses
import io
import json

import numpy as np
import pytest
import regex
import sacremoses
import sentencepiece
from subword_nmt import apply_bpe, learn_bpe

from hp_jax.text.fairseq import read_fairseq
from hp_jax.text.loading import load_codec
from hp_jax.text.marian import read_marian
from hp_jax.text.sentencepiece import SentencePiece, read_sentencepiece
from hp_jax.text.vocabulary import train_sentencepiece

GERMAN = (
    "Ein kleines Haus steht am Fluss.",
    "Die Leute - sagt man - gehen gern dorthin!",
    "Wie geht's dir, Anna?",
) * 3
ENGLISH = (
    "A small house stands at the river.",
    "People - they say - like to go there!",
    "How's it going, Anna?",
) * 3
ODD = (
    *GERMAN[:3],
    *ENGLISH[:3],
    "",
    "  ",
    "a  b\u00a0c\u2028d",
    "unknown: 日本 \U0001f600 & <b>[x]|y</b> 'quoted' \"too\"",
    "an end </s> within, <unk> and<pad>padding </s>",
    ">>fra<< with a language",
    ">>xyz<<>>fra<< unknown, then known",
    "within >>fra<< is text",
    ">> not << a language </s>>>fra<< again",
    "e.g. well-known semi-detached 3-4 rooms... it isn't .",
)


@pytest.fixture(scope="module")
def models():
    """SentencePiece models of one side each."""
    return train_sentencepiece(GERMAN, 40), train_sentencepiece(ENGLISH, 60, kind="bpe")


def processor(model):
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def lists(arrays):
    assert all(array.dtype == np.int32 and array.ndim == 1 for array in arrays)
    return [array.tolist() for array in arrays]


def check_saved(made, folder):
    """What is saved and loaded gives the same."""
    made.save(folder / "saved")
    again = load_codec(folder / "saved")
    assert type(again) is type(made)
    assert lists(again.encode_source(ODD)) == lists(made.encode_source(ODD))
    assert lists(again.encode_target(ODD)) == lists(made.encode_target(ODD))
    for name in ("source_vocab", "target_vocab", "eos", "pad", "unk"):
        assert getattr(again, name) == getattr(made, name)
    assert [again.decode(ids) for ids in again.encode_target(ENGLISH)] == [
        made.decode(i) for i in made.encode_target(ENGLISH)
    ]


# --- SentencePiece -------------------------------------------------------------------------------


def test_a_sentencepiece_model_of_ones_own(tmp_path, models):
    (tmp_path / "m.spm").write_bytes(models[0])
    made = read_sentencepiece(tmp_path / "m.spm")
    assert (made.source_vocab, made.target_vocab, made.pad, made.eos, made.unk) == (40, 40, 0, 1, 2)
    reference = processor(models[0])
    for found in (made.encode_source(ODD), made.encode_target(ODD)):
        assert lists(found) == [[*reference.encode(line), 1] for line in ODD]
    for line, ids in zip(ODD, made.encode_target(ODD), strict=True):
        assert made.decode(ids) == reference.decode(reference.encode(line))
        assert (
            made.decode([*ids, 5, 6, 7])
            == made.decode(ids[:-1])
            == made.decode([0, *ids[:-1], 0, 0])
            == made.decode(ids)
        )
    check_saved(made, tmp_path)


def test_marians_models_have_no_padding(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH),
        model_writer=model,
        vocab_size=36,
        eos_id=0,
        unk_id=1,
        bos_id=-1,
        minloglevel=2,
    )
    made = SentencePiece(model.getvalue())
    assert (made.eos, made.unk, made.pad) == (0, 1, 0)
    assert made.decode([*made.encode_target(ENGLISH)[0], 0, 0]) == ENGLISH[0]


@pytest.mark.parametrize(("kind", "size"), [("unigram", 36), ("bpe", 60)])
def test_vocabularies_are_the_same_again_and_cover_every_character(kind, size):
    model = train_sentencepiece(iter(ENGLISH), size, kind=kind)
    assert model == train_sentencepiece(list(ENGLISH), size, kind=kind)
    made = processor(model)
    assert [made.id_to_piece(i) for i in range(3)] == ["<pad>", "</s>", "<unk>"]
    assert (len(made), made.bos_id()) == (size, -1)
    assert all(made.decode(made.encode(line)) == line for line in ENGLISH)
    with pytest.raises(
        ValueError, match=r"of 5000 pieces is too large for this text: expected at most \d+$"
    ):
        train_sentencepiece(ENGLISH, 5000, kind=kind)
    with pytest.raises(
        ValueError,
        match=r"of 9 pieces is too small for this text: expected more than its \d+ characters$",
    ):
        train_sentencepiece(ENGLISH, 9, kind=kind)
    with pytest.raises(ValueError, match="there is none"):
        train_sentencepiece([], 9, kind=kind)


# --- Marian --------------------------------------------------------------------------------------


def write_marian(folder, models, separate, **settings):
    pieces = [[made.id_to_piece(i) for i in range(len(made))] for made in map(processor, models)]
    special = ["</s>", "<unk>", ">>fra<<"]
    both = (
        special
        + [piece for piece in dict.fromkeys(pieces[0] + pieces[1]) if not piece.startswith("<")]
        + ["<pad>"]
    )
    source = [*special, *pieces[0][3:], "<pad>"] if separate else both
    for name, model in zip(("source.spm", "target.spm"), models, strict=True):
        (folder / name).write_bytes(model)
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(source)}))
    if separate:
        target = {piece: i for i, piece in enumerate([*special[:2], *pieces[1][3:], "<pad>"])}
        (folder / "target_vocab.json").write_text(json.dumps(target))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"separate_vocabs": separate, "model_max_length": 512, **settings})
    )
    return folder


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("clean_up", [False, True])
def test_marian_of_hugging_face(tmp_path, models, separate, clean_up):
    transformers = pytest.importorskip("transformers")
    folder = write_marian(tmp_path, models, separate, clean_up_tokenization_spaces=clean_up)
    reference = transformers.MarianTokenizer.from_pretrained(folder)
    made = read_marian(folder)
    assert lists(made.encode_source(ODD)) == reference(list(ODD)).input_ids
    assert lists(made.encode_target(ODD)) == reference(text_target=list(ODD)).input_ids
    assert (made.eos, made.pad, made.unk) == (
        reference.eos_token_id,
        reference.pad_token_id,
        reference.unk_token_id,
    )
    assert (made.source_vocab, made.target_vocab) == (
        len(reference.encoder),
        len(reference.decoder),
    )
    generator = np.random.default_rng(0)
    noise = [generator.integers(1, made.target_vocab, size=20) for _ in range(20)]
    for ids in (*made.encode_target(ODD[:10]), *noise):
        wanted = reference.decode(ids, skip_special_tokens=True)
        assert made.decode([made.pad, *ids]) == made.decode([*ids, made.eos, 5]) == wanted
    check_saved(made, tmp_path)


# --- fairseq -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fairseq_folder(tmp_path_factory):
    """BPE codes and dictionaries of tokenised text, all but the first two symbols of it."""
    folder = tmp_path_factory.mktemp("fairseq")
    texts = {
        language: moses(language, lines) for language, lines in (("de", GERMAN), ("en", ENGLISH))
    }
    codes = io.StringIO()
    learn_bpe.learn_bpe(
        io.StringIO("\n".join(line for text in texts.values() for line in text)), codes, 60
    )
    (folder / "bpecodes").write_text(codes.getvalue())
    bpe = apply_bpe.BPE(codes)
    for language, lines in texts.items():
        symbols = list(
            dict.fromkeys(symbol for line in lines for symbol in bpe.process_line(line).split())
        )[2:]
        entries = [f"{symbol} {count}" for count, symbol in enumerate(symbols[::-1])]
        (folder / f"dict.{language}.txt").write_text("\n".join([*entries, "madeupword0000 0", ""]))
    return folder


def moses(language, lines, dash_splits=True, escape=True):
    tokenizer = sacremoses.MosesTokenizer(language)
    return [tokenizer.tokenize(line, dash_splits, True, escape) for line in lines]


def symbols_of(folder, language):
    lines = (folder / f"dict.{language}.txt").read_text().splitlines()
    return ["<s>", "<pad>", "</s>", "<unk>", *(line.split(" ")[0] for line in lines)]


@pytest.mark.parametrize(
    "how",
    [{}, {"clean": True}, {"dash_splits": False, "lowercase": True}, {"escape": False}],
    ids=lambda how: " ".join(how),
)
def test_fairseqs_chain(fairseq_folder, tmp_path, how):
    made = read_fairseq(fairseq_folder, "de", "en", **how)
    bpe = apply_bpe.BPE(io.StringIO((fairseq_folder / "bpecodes").read_text()))
    for language, found in (("de", made.encode_source(ODD)), ("en", made.encode_target(ODD))):
        lines = ODD
        if how.get("clean"):
            normalizer = sacremoses.MosesPunctNormalizer(language, perl_parity=True)
            lines = [regex.sub(r"\p{C}", " ", normalizer.normalize(line)) for line in ODD]
        lines = moses(language, lines, how.get("dash_splits", True), how.get("escape", True))
        lines = [bpe.process_line(line.lower() if "lowercase" in how else line) for line in lines]
        symbols = symbols_of(fairseq_folder, language)
        wanted = [
            [symbols.index(s) if s in symbols else 3 for s in line.split()] + [2] for line in lines
        ]
        assert lists(found) == wanted
        assert any(3 in ids for ids in wanted)
    assert (made.source_vocab, made.target_vocab) == tuple(
        len(symbols_of(fairseq_folder, side)) for side in ("de", "en")
    )
    assert (made.pad, made.eos, made.unk) == (1, 2, 3)
    check_saved(made, tmp_path)


def test_fairseqs_text_comes_back(fairseq_folder):
    made = read_fairseq(fairseq_folder, "en", "en")
    encoded = made.encode_target(ENGLISH[1:3])
    assert [made.decode([0, *ids, 9, 9]) for ids in encoded] == list(ENGLISH[1:3])
    assert made.decode(np.array([1, *encoded[0][:-1], 1])) == ENGLISH[1]
    assert made.decode([4, 3, 2]).endswith("<unk>")
    assert made.decode([2]) == made.decode([]) == ""


def test_tokens_stay_tokens_where_text_is_tokenized(fairseq_folder):
    made, plain = (
        read_fairseq(fairseq_folder, "en", "en", tokenized=tokenized) for tokenized in (True, False)
    )
    tokens = moses("en", ENGLISH[1:3])
    assert tokens != list(ENGLISH[1:3])
    assert [made.decode(ids) for ids in made.encode_target(tokens)] == tokens
    assert lists(made.encode_source(tokens)) == lists(plain.encode_source(ENGLISH[1:3]))


def test_a_symbol_may_be_overwritten_as_in_fairseq(fairseq_folder, tmp_path):
    for name in ("bpecodes", "dict.de.txt"):
        (tmp_path / name).write_bytes((fairseq_folder / name).read_bytes())
    (tmp_path / "dict.en.txt").write_text("a 9\nb 8\na 7 #fairseq:overwrite\n")
    made = read_fairseq(tmp_path, "de", "en")
    assert made.target_vocab == 7
    assert lists(made.encode_target(["a b"])) == [[6, 5, 2]]
    (tmp_path / "dict.en.txt").write_text("a 9\n<unk> 8\n")
    with pytest.raises(
        ValueError, match=r"dict\.en\.txt:2: expected each symbol once, but found '<unk>' again"
    ):
        read_fairseq(tmp_path, "de", "en")


def test_codecs_are_frozen(fairseq_folder, models):
    for made in (SentencePiece(models[1]), read_fairseq(fairseq_folder, "de", "en")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.kind = "other"


# --- faults --------------------------------------------------------------------------------------


def test_faults_are_named(tmp_path, models):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*text\.json"):
        load_codec(tmp_path)
    (tmp_path / "text.json").write_text('{"kind": "words", "files": {}}')
    with pytest.raises(
        ValueError, match=r"text\.json: expected a kind of sentencepiece, .*'words'"
    ):
        load_codec(tmp_path)
    (tmp_path / "text.json").write_text(
        '{"kind": "sentencepiece", "files": {"model": "vocab.spm"}}'
    )
    with pytest.raises(FileNotFoundError, match=r"there is no file .*vocab\.spm"):
        load_codec(tmp_path)
    (tmp_path / "vocab.spm").write_bytes(models[0])
    (tmp_path / "text.json").write_text(
        '{"kind": "sentencepiece", "files": {"model": "vocab.spm"}, "case": 1}'
    )
    with pytest.raises(ValueError, match=r"there is no setting 'case'; there are"):
        load_codec(tmp_path)
    (tmp_path / "vocab.spm").write_bytes(b"no model")
    with pytest.raises(
        ValueError,
        match=r"vocab\.spm: expected a SentencePiece model, but the file of 8 bytes is none",
    ):
        read_sentencepiece(tmp_path / "vocab.spm")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*vocab\.json"):
        read_marian(tmp_path)
    (tmp_path / "vocab.json").write_text('{"</s>": 0}')
    for name in ("source.spm", "target.spm"):
        (tmp_path / name).write_bytes(models[0])
    with pytest.raises(
        ValueError,
        match=r"vocab\.json: expected the pieces <unk>, <pad>, but the vocabulary of 1 has none",
    ):
        read_marian(tmp_path)


def test_codes_of_fastbpe_are_recognised(fairseq_folder, tmp_path):
    """Without a version, and with counts or without: the same ids as with subword-nmt's codes."""
    wanted = read_fairseq(fairseq_folder, "de", "en")
    for name in ("dict.de.txt", "dict.en.txt"):
        (tmp_path / name).write_bytes((fairseq_folder / name).read_bytes())
    version, *merges = (fairseq_folder / "bpecodes").read_text().splitlines()
    assert version == "#version: 0.2"
    for count in ("", " 17"):
        (tmp_path / "bpecodes").write_text("".join(f"{line}{count}\n" for line in merges))
        found = read_fairseq(tmp_path, "de", "en")
        assert lists(found.encode_source(GERMAN)) == lists(wanted.encode_source(GERMAN))
        assert found.codes == wanted.codes
    old = b"e n\nen </w>\n"  # version 0.1, where the end of a word is a symbol
    (tmp_path / "bpecodes").write_bytes(old)
    assert read_fairseq(tmp_path, "de", "en").codes == old


def test_faults_of_fairseqs_files_are_named(tmp_path, fairseq_folder):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*bpecodes"):
        read_fairseq(tmp_path, "de", "en")
    (tmp_path / "codes").write_text("#version: 0.2\na b\na b 300\n")
    with pytest.raises(
        ValueError,
        match=(
            r"codes:3: expected the codes of subword-nmt or fastBPE, two symbols a line, but "
            r"found 'a b "
            r"300'"
        ),
    ):
        read_fairseq(tmp_path, "de", "en", codes="codes")
    (tmp_path / "codes").write_text("a b\n")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*dict\.de\.txt"):
        read_fairseq(tmp_path, "de", "en", codes="codes")
    (tmp_path / "dict.de.txt").write_text("a 1\nb\n")
    with pytest.raises(
        ValueError, match=r"dict\.de\.txt:2: expected a symbol and its count, but found 'b'"
    ):
        read_fairseq(tmp_path, "de", "en", codes="codes")
