"""The documentation does what it says: its Python runs, its commands run, its links lead somewhere.

The pages are read in order, as one session in one folder, in which the places that they name
(`path/to/sst2`, `MODEL_FOLDER`, ...) are there in tiny.  A comment above a block says what is not
so: `<!-- not run: why -->`, or `<!-- parsed only: why -->` for commands of which only the words are
tried.
"""

import ast
import dataclasses
import gzip
import importlib
import io
import pathlib
import re
import shlex
import shutil
import sys

import jax
import pytest
from tiny import write_hf_folder, write_sst2
from tiny_language import (
    write_documents,
    write_items,
    write_language_model,
    write_last_words,
    write_patching,
)
from tiny_marian import VARIANTS, make_tensors, make_vocabulary, write_npz
from translation_files import write_parallel

import hp_jax
from hp_jax.cli import main
from hp_jax.cli.dispatch import COMMANDS
from hp_jax.shrink import speed

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

CLASSIFIER = {
    "data.max_length": 16,
    "data.buckets": (16,),
    "data.batch": 32,
    "train.epochs": 1,
    "importance.split": "train[:32]",
    "ablation.masks_at_once": 5,
    "ablation.random.count": 2,
    "pruning.shares": (0.0, 0.5),
    "pruning.orders": ("one_shot", "re_estimated"),
}
TRANSLATION = {
    "data.max_length": 16,
    "data.buckets": (16,),
    "data.batch": 8,
    "importance.split": "test[:8]",
    "ablation.splits": ("test[:500]",),
    "ablation.sets": ("one_off",),
    "ablation.masks_at_once": 4,
    "pruning.select": "test[:8]",
    "pruning.test": "test[8:]",
    "pruning.orders": ("one_shot",),
    "pruning.shares": (0.0, 0.5),
}
"""What makes an experiment tiny, unless its command says otherwise."""
LANGUAGE = {
    "data.max_length": 16,
    "data.buckets": (16,),
    "data.batch": 32,
    "ablation.masks_at_once": 4,
    "pruning.orders": ("one_shot",),
    "pruning.shares": (0.0, 0.5),
}
TINY = dict.fromkeys(
    ("sst2", "sst2_recover", "classification", "own_data"), CLASSIFIER
) | dict.fromkeys(("pt_en", "multi30k", "translation"), TRANSLATION)
TINY |= dict.fromkeys(("smollm2", "language_model", "multiple_choice"), LANGUAGE)
FOLDERS = {"speed": {"length": 8, "rounds": 2}, "remove": {"length": 8}}
"""The same for commands that take folders."""
STEPS = (
    "hp_jax.paper.reproduce",  # first: it has to have the others as they are
    "hp_jax.sharding.join_hosts",
    "hp_jax.experiment.compare_orders",
    "hp_jax.experiment.load",
    "hp_jax.experiment.train_model",
    "hp_jax.experiment.train_if_needed",
    "hp_jax.experiment.ablate",
    "hp_jax.experiment.prune_orders",
    "hp_jax.experiment.setup.vocabulary",
    "hp_jax.experiment.translation.translate",
    "hp_jax.formats.model.convert",
    "hp_jax.shrink.remove.remove",
    "hp_jax.storage.status.statuses",
    "hp_jax.report.page.write_report",
)
"""What commands begin to do once their words are understood."""


# --- blocks --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block, and how the comment above it marks it."""

    page: pathlib.Path
    line: int
    language: str
    text: str
    mark: str
    reason: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[\w ]+): (?P<reason>.+?) -->\n)?"
    r"^ *```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


def blocks(page):
    text = page.read_text()
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        mark, reason = (match[name] or "" for name in ("mark", "reason"))
        yield Block(page, line, match["language"], match["text"], mark, reason)


ALL = [block for page in PAGES for block in blocks(page)]
RUN = [page for page in PAGES if any(b.page == page and b.language != "bibtex" for b in ALL)]


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_is_run_or_says_why_not(block):
    assert block.language in ("python", "bash", "console", "text", "bibtex")
    assert block.mark in ("", "not run", "parsed only")
    if block.language == "console":
        assert block.mark == "not run"
    if block.mark == "parsed only":
        assert block.language == "bash"
    assert block.page.read_text().count("```") % 2 == 0


# --- the session ---------------------------------------------------------------------------------


MATERIAL = ("MODEL_FOLDER", "MARIAN_FOLDER", "LM_FOLDER", "path")


def write_material(folder):
    """The places that the pages name."""
    write_hf_folder(folder / "MODEL_FOLDER")
    write_sst2(folder / "path/to/sst2", train=32, validation=24)
    shutil.copy(folder / "path/to/sst2/dev.tsv", folder / "path/to/mine.tsv")
    marian = folder / "MARIAN_FOLDER"
    marian.mkdir()
    (marian / "vocab.spm").write_bytes(make_vocabulary())
    write_npz(marian / "model.npz", make_tensors(VARIANTS["ssru"]), VARIANTS["ssru"])
    write_language_model(folder / "LM_FOLDER")
    write_documents(folder / "path/to/text", train=200, validation=200)
    write_items(folder / "path/to/items.jsonl", 12)
    write_last_words(folder / "path/to/lambada.jsonl", 12)
    write_patching(folder / "path/to/patching.jsonl", 12)
    write_parallel(folder / "pairs", test=10)
    for where, names in {
        "path/to/tatoeba": ("tatoeba.por-eng.por", "tatoeba.por-eng.eng"),
        "path/to/pairs": ("test.pt", "test.en"),
    }.items():
        (folder / where).mkdir(parents=True)
        for old, new in zip(("test.xx", "test.yy"), names, strict=True):
            (folder / where / new).write_bytes((folder / "pairs" / old).read_bytes())
    (folder / "path/to/multi30k").mkdir()
    for name in ("train.de.gz", "train.en.gz"):
        with gzip.open(folder / "path/to/multi30k" / name, "wt") as file:
            file.write("a b c\n")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The folder in which all pages are read."""
    folder = tmp_path_factory.mktemp("docs")
    write_material(folder)
    return folder


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow) if page.parent.name == "guides" else page
        for page in RUN
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_blocks_of_a_page_run(page, session, monkeypatch):
    monkeypatch.chdir(session)
    monkeypatch.setattr(speed, "LEAST", 0.0)
    one, load = jax.devices()[:1], hp_jax.load_config
    monkeypatch.setattr(jax, "devices", lambda: one)  # quicker to compile for

    def load_tiny(name, changes=None):
        return load(name, TINY.get(name, {}) | dict(changes or {}))

    monkeypatch.setattr(hp_jax, "load_config", load_tiny)
    trains = "hp-jax train sst2" in page.read_text() or page.name == "README.md"
    if not trains and not pathlib.Path("runs/sst2/model").exists():
        write_hf_folder(session / "runs/sst2/model", head=True)  # the page is read alone
    for made in set(session.iterdir()) - {session / name for name in (*MATERIAL, "runs")}:
        shutil.rmtree(made) if made.is_dir() else made.unlink()  # other pages' models
    namespace = {"__name__": "docs"}
    with jax.numpy_rank_promotion("allow"), jax.debug_key_reuse(False):
        for block in blocks(page):
            if block.language not in ("python", "bash") or block.mark == "not run":
                continue
            if block.language == "python":
                code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
                exec(code, namespace)
            else:
                for words, stdin in commands(block):
                    with monkeypatch.context() as patch:
                        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
                        run(block, words, patch)


def commands(block):
    """The words of each hp-jax command of a block, and what it reads."""
    for line in block.text.replace("\\\n", " ").splitlines():
        *before, last = _pipe(line)
        if not last:  # an empty line, or a comment
            continue
        assert last[0] == "hp-jax", f"{block} has a command that is not run: {line}"
        assert all(words[0] == "echo" for words in before), f"{block}: {line}"
        yield last[1:], "".join(" ".join(words[1:]) + "\n" for words in before)


def _pipe(line):
    """The commands of a pipe, as words."""
    parts = [[]]
    for word in shlex.split(line, comments=True):
        parts.append([]) if word == "|" else parts[-1].append(word)
    return parts


class Begun(BaseException):
    """A command's words were understood."""


def run(block, words, patch):
    """Runs a command, made tiny; or, if it is only parsed, until it begins."""
    command, name = words[0], words[1] if len(words) > 1 else ""
    extra = TINY.get(name, {}) if name in TINY else FOLDERS.get(command, {})
    words = [*words, *flags(extra, words)]
    if block.mark == "parsed only":
        for step in STEPS:
            patch.setattr(*_attribute(step), _begin)
        with pytest.raises(Begun):
            main(words)
    else:
        assert main(words) == 0, f"{block}: {shlex.join(words)}"


def flags(changes, words):
    """Changes as flags, but those that the command has."""
    for field, value in changes.items():
        flag = "--" + field.replace("_", "-")
        if flag not in words:
            yield flag
            yield from map(str, value if isinstance(value, tuple) else (value,))


def _attribute(path):
    module, _, name = path.rpartition(".")
    return importlib.import_module(module), name


def _begin(*_, **__):
    raise Begun


# --- commands outside of the pages ---------------------------------------------------------------

SOURCES = [
    *sorted((ROOT / "configs").glob("*.py")),
    *sorted((ROOT / "hp_jax").rglob("*.py")),
    *sorted((ROOT / "scripts").glob("*.s*")),
]
"""Files whose docstrings or comments show commands."""


def shown(path):
    """The words of each command that a file's docstring, or its first comment, shows on a line of
    its own, with scripts that start hp-jax elsewhere left away."""
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    else:
        text = "\n".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"^(sbatch .*slurm\.sbatch|scripts/tpu_pod\.sh NAME ZONE) ", "hp-jax ", line)
        if line.strip().startswith("hp-jax "):
            yield shlex.split(line.strip())[1:]


SHOWN = [(path, words) for path in SOURCES for words in shown(path)]


def test_configs_and_scripts_show_commands():
    files = {path.name for path, _ in SHOWN}
    assert {path.name for path in (ROOT / "configs").glob("*.py")} | {
        "tpu_pod.sh",
        "slurm.sbatch",
    } <= files


@pytest.mark.parametrize(("path", "words"), SHOWN, ids=lambda one: getattr(one, "name", ""))
def test_a_command_that_is_shown_begins(path, words, monkeypatch):
    run(Block(path, 0, "bash", "", "parsed only", "it needs what is not here"), words, monkeypatch)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("demo", "configs")])
def test_a_command_that_is_described_is_one(name):
    """And every command is shown somewhere."""
    words = name.split()
    told = [w for path in RUN for b in blocks(path) if b.language == "bash" for w, _ in commands(b)]
    assert any(one[: len(words)] == words for one in [*told, *(w for _, w in SHOWN)])


# --- what the pages say --------------------------------------------------------------------------


def test_the_readme_is_two_screens_and_its_python_a_few_lines():
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= 90
    (code,) = (block for block in blocks(readme) if block.language == "python")
    lines = [line for line in code.text.splitlines() if line]
    assert len(lines) < 12
    assert [line for line in lines if re.match("import|from", line)] == ["import hp_jax"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]*)?\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_every_command_is_described():
    text = (ROOT / "docs/reference/commands.md").read_text()
    assert [name for name in COMMANDS if f"`hp-jax {name}" not in text] == []


def test_every_shipped_config_is_described():
    names = sorted(path.stem for path in ROOT.rglob("configs/*.py") if path.stem != "__init__")
    assert "sst2" in names
    text = (ROOT / "docs/reference/configs.md").read_text()
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_public_module_has_a_page():
    text = "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    flat = {path.stem for path in (ROOT / "hp_jax").glob("*.py")} - {"__init__", "__main__"}
    assert {name for name in flat if f"::: hp_jax.{name}\n" not in text} == {"progress"}
