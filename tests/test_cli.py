"""The command line: help with every default, near misses, quiet, JSON, configs by name and their
changes; nothing heavy before a command runs."""

import dataclasses
import json
import pathlib
import subprocess
import sys
import typing

import pytest
from tiny import config_file, write_hf_folder, write_sst2

from hp_jax import config_files
from hp_jax.cli import dispatch, load_config, main, parsing
from hp_jax.cli.command import ConfiguredCommand
from hp_jax.cli.folders import Speed
from hp_jax.config import (
    FINE_TUNING,
    FROM_SCRATCH,
    Ablation,
    ClassificationExperiment,
    Data,
    Experiment,
    Importance,
    Train,
    TranslationExperiment,
)

CONFIGURED = [name for name, one in dispatch.COMMANDS.items() if issubclass(one, ConfiguredCommand)]


def said(capsys, *words):
    """Exit status, and what was printed on stdout and stderr, in single spaces and no boxes."""
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code
    return status, *(" ".join(text.replace("│", " ").split()) for text in capsys.readouterr())


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", dispatch.COMMANDS)
def test_every_command_has_help_with_its_defaults(name, capsys):
    status, out, _ = said(capsys, *name.split(), "--help")
    assert status in (0, None)
    command = dispatch.COMMANDS[name]
    assert out.startswith(f"usage: hp-jax {name} ")
    assert parsing.about(command) in out
    for field in dataclasses.fields(command):
        assert parsing.help_texts(command)[field.name] in out
    assert out.count("(default: ") + out.count("(required)") == len(dataclasses.fields(command))
    if name in CONFIGURED:
        assert "sst2, sst2_recover" in out
        assert "classification, translation, language_model, multiple_choice have the" in out


@pytest.mark.parametrize("kind", config_files.KINDS)
def test_with_a_config_help_shows_every_field_with_its_value_and_in_a_phrase(kind, capsys):
    status, out, _ = said(capsys, "ablate", kind, "--help")
    assert status in (0, None)
    assert out.startswith(f"usage: hp-jax ablate {kind} ")

    def check(config, prefix):
        texts = parsing.help_texts(type(config))
        for field in dataclasses.fields(config):
            value, text = getattr(config, field.name), texts.get(field.name, "")
            assert len(text) >= 20, f"{prefix}{field.name} has no help"
            assert text[0].isupper(), f"{prefix}{field.name}: {text}"
            assert text.endswith("."), f"{prefix}{field.name}: {text}"
            assert text in out
            if dataclasses.is_dataclass(value):
                check(value, f"{prefix}{field.name}.")
            else:
                assert f"--{prefix}{field.name}".replace("_", "-") in out

    check(load_config(kind), "")
    assert ("BERT's" in out or "for BERT" in out) == (kind == "classification")


def test_the_help_of_all_lists_every_command(capsys):
    status, out, _ = said(capsys, "--help")
    assert status in (0, None)
    for name, command in dispatch.COMMANDS.items():
        assert f"• {name} {parsing.about(command)}" in out
    status, out, _ = said(capsys, "grid", "--help")
    assert status in (0, None)
    assert "• status Say what is done" in out


# --- words that are no use -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["abalte", "sst2"], "there is no command abalte; perhaps you meant ablate"),
        (["zzz"], "there is no command zzz (see hp-jax --help)"),
        ([], "expected a command: demo, run, reproduce, train"),
        (["grid", "stauts"], "hp-jax grid expects status, but got stauts"),
        (["ablate"], "hp-jax ablate expects a config before all flags: a Python file, or one of"),
        (["ablate", "--multihost", "sst2"], "expects a config before all flags"),
        (["ablate", "sst2", "--ablaton.sets", "pairs"], "perhaps you meant --ablation.sets"),
        (["remove", "a", "b", "--flor", "1"], "no option --flor; perhaps you meant --floor"),
        (["ablate", "sst2", "extra"], "there is no place for extra"),
        (["ablate", "sst2", "--ablation.sets", "pair"], "invalid choice 'pair' for argument"),
        (["ablate", "sst2", "--ablation.part", "3", "2"], "(i, n) with 1 <= i <= n was expected"),
        (["ablate", "sst2", "--ablation.part", "3"], "missing value for argument"),
        (["ablate", "sst2", "--train.epochs", "1.5"], "--train.epochs expects INT, but got '1.5'"),
        (["ablate", "sst2", "--train.clip", "x"], "--train.clip expects FLOAT, but got 'x'"),
        (["ablate", "sst2", "--train.clip", "nan"], "train.clip: expected a number >= 0.0, but"),
        (["ablate", "sst2", "--seed", "-1"], "seed: expected an integer >= 0, but found -1"),
        (["speed", "--batch", "x", "--out", "y"], "--batch expects [INT [INT ...]], but got 'x'"),
        (["remove", "--quiet"], "expected MODEL and FOLDER (see hp-jax remove --help)"),
        (["--completion", "tcsh"], "expects one of bash, zsh, fish"),
    ],
)
def test_unusable_words_end_in_status_2_and_name_what_is_near(words, sentence, capsys):
    status, out, err = said(capsys, *words)
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.startswith("hp-jax: error: ")
    assert err.count("hp-jax: ") == 1


def test_an_interrupt_and_a_fault_keep_their_manners(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(config_files, "shipped", interrupted)
    assert main(["configs"]) == 130
    assert capsys.readouterr().err.startswith("hp-jax: interrupted; what was finished is kept")
    monkeypatch.undo()
    monkeypatch.setenv("HP_JAX_DEBUG", "1")
    with pytest.raises(FileNotFoundError, match="no config of hp_jax has that name"):
        main(["ablate", "sst3"])


# --- configs -------------------------------------------------------------------------------------


def test_configs_by_name_by_path_and_by_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("sst2") == load_config(str(config_files.config_path("sst2")))
    assert load_config("classification") == ClassificationExperiment()
    assert load_config("translation") == TranslationExperiment()
    assert {"sst2", "multi30k"} <= set(config_files.shipped())
    assert config_files.shipped()["sst2"] == "SST-2: fine-tune, score, ablate and prune."


def test_a_config_with_changes():
    changes = {
        "data.path": "x",
        "model": "m",
        "ablation.random.seed": 3,
        "ablation.splits": ["test", "dev"],
    }
    config = load_config("sst2", changes)
    assert (config.data.path, config.model) == ("x", "m")
    assert (config.ablation.random.seed, config.ablation.splits) == (3, ("test", "dev"))
    assert config.train == load_config("sst2").train
    both = {"train.final": "best", "train.keep_epochs": True}  # neither alone is a config
    assert load_config("translation", both).train.final == "best"
    recipe = dataclasses.replace(FROM_SCRATCH, epochs=2)
    assert load_config("translation", {"train": recipe, "train.clip": 2.0}).train == (
        dataclasses.replace(recipe, clip=2.0)
    )


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        (
            "sts2",
            {},
            "no config of hp_jax has that name; there are bert_cola, .*, and the defaults",
        ),
        ("sst2", {"modle": "m"}, "no field modle; there has model, out, seed"),
        ("sst2", {"data.pth": "x"}, "no field data.pth; data has task, path, format"),
        ("sst2", {"ablation.random.sed": 1}, "no field ablation.random.sed; ablation.random has"),
        ("sst2", {"model.name": "x"}, "no field model.name; model is '' and has no fields"),
    ],
)
def test_what_is_not_there_is_said_with_what_there_is(name, changes, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        load_config(name, changes)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\ny = = 2\n", "own.py, line 2: this is not Python: invalid syntax"),
        ("x = 1\n\nconfig = x / 0\n", "own.py, line 3: ZeroDivisionError: division by zero"),
        (
            "from hp_jax.config import *\nconfig = Pruning(\n    calibrate=-1)\n",
            "own.py, line 2: pruning.calibrate: expected an integer >= 0, but found -1",
        ),
        (
            "from hp_jax.config import *\nconfig = ClassificationExperiment(data=Pruning())\n",
            "own.py, line 2: data: expected Data, but found Pruning(",
        ),
        (
            "from hp_jax.config import *\nconfig = ClassificationExperiment('m')\n",
            "own.py, line 2: TypeError: ClassificationExperiment.__init__() takes 1 positional",
        ),
        ("if 1:\n\tx = 1\n        y = 2\n", "own.py, line 3: this is not Python: inconsistent use"),
        ("# coding: latin-99\n", "own.py: this is not Python: unknown encoding: latin-99"),
        ("x = '\0'\n", "own.py: this is not Python: source code string cannot contain null"),
        ("import sys\nsys.exit('bye')\n", "own.py, line 2: SystemExit: bye"),
        ("raise BaseException('one\\ntwo')\n", "own.py, line 1: BaseException: one two"),
        ("config = 3\n", "own.py defines config = 3, but a ClassificationExperiment or"),
    ],
)
def test_a_config_that_fails_is_one_sentence_with_the_place(tmp_path, capsys, text, sentence):
    (tmp_path / "own.py").write_text(text)
    assert main(["ablate", str(tmp_path / "own.py")]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_the_configs_command(capsys):
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(config_files.shipped())
    assert main(["configs", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {one["name"]: one["what"] for one in listed} == config_files.shipped()
    assert main(["configs", "sst2"]) == 0
    assert pathlib.Path(capsys.readouterr().out.strip()).is_file()
    assert main(["configs", "sst3"]) == 1
    assert "there are bert_cola, bert_mnli" in capsys.readouterr().err


def test_a_recipe_has_no_default_that_fits_only_some_models():
    with pytest.raises(TypeError, match="learning_rate"):
        Train(epochs=5)
    with pytest.raises(TypeError, match="train"):
        Experiment()
    assert ClassificationExperiment().train == FINE_TUNING
    assert TranslationExperiment().train == FROM_SCRATCH
    assert (FINE_TUNING.schedule, FROM_SCRATCH.schedule) == ("linear", "inverse_sqrt")


# --- a step, quietly and for a script ------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    write_hf_folder(tmp_path / "hf", head=True)
    write_sst2(tmp_path / "sst2", train=16, validation=8)
    config = ClassificationExperiment(
        model=str(tmp_path / "hf"),
        out=str(tmp_path / "out"),
        data=Data(path=str(tmp_path / "sst2"), max_length=16, buckets=(16,), batch=8),
        importance=Importance(split="train"),
        ablation=Ablation(sets=("rows_off",)),
    )
    return config_file(tmp_path, config)


def test_a_quiet_step_prints_json_alone(config, tmp_path, capsys, caplog):
    assert main(["importance", config, "--quiet", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "out": str(tmp_path / "out"),
        "stores": [str(tmp_path / "out/importance")],
    }
    assert err == ""
    assert not [record for record in caplog.records if record.levelname == "INFO"]
    assert main(["importance", config]) == 0
    found, after = capsys.readouterr().out.splitlines()
    assert found.startswith(f"{tmp_path}/out/importance: on ")
    assert "the highest scores have enc." in found
    assert after == f"next: hp-jax prune {config}, with the same flags"
    assert [record for record in caplog.records if record.levelname == "INFO"]


def test_removing_for_a_script(config, tmp_path, capsys):
    words = ["remove", str(tmp_path / "hf"), str(tmp_path / "small"), "--heads", "1:2"]
    assert main([*words, "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(tmp_path / "small")
    assert found["heads removed"] == {"enc.0": [1]}
    assert found["after"]["heads"] == found["before"]["heads"] - 1


def test_the_flags_of_speed_are_its_settings():
    """Whose defaults cannot be imported for a help text, since jax would be."""
    from hp_jax.shrink.speed import SHAPES, Setting

    ours = {field.name: field.default for field in dataclasses.fields(Speed)}
    for field in dataclasses.fields(Setting):
        assert ours[field.name] == field.default
    assert typing.get_args(typing.get_type_hints(Speed)["shape"]) == ("", *SHAPES)


# --- the start -----------------------------------------------------------------------------------


def test_the_module_is_the_command_and_says_its_version():
    ran = subprocess.run(
        [sys.executable, "-m", "hp_jax", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "hp_jax 0.2.0\n"


def test_help_imports_nothing_heavy():
    code = """
import sys
from hp_jax.cli import main
for words in (["--help"], ["speed", "--help"], ["ablate", "--help"], ["configs"], ["x"]):
    try:
        main(words)
    except SystemExit:
        pass
heavy = {"jax", "flax", "numpy", "scipy", "matplotlib", "orbax", "tensorstore", "rich"}
print("heavy:", *heavy & set(sys.modules))
try:
    main(["ablate", "sst2", "--help"])
except SystemExit:
    pass
print("heavy:", *(heavy & set(sys.modules)) - {"numpy"})
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line for line in ran.stdout.splitlines() if line.startswith("heavy:")] == ["heavy:"] * 2


# --- completion ----------------------------------------------------------------------------------


def test_bash_completes_commands_flags_choices_and_files(tmp_path):
    script = parsing.completion(dispatch.COMMANDS, "bash")
    for theirs, ours in parsing.PATCHES:
        assert theirs not in script.replace(ours + theirs, "")
        assert ours in script
    (tmp_path / "hp-jax.bash").write_text(script)
    wanted = {
        "hp-jax abl": "ablate",
        "hp-jax grid sta": "status",
        "hp-jax ablate sst2 --ablation.masks-": "--ablation.masks-at-once",
        "hp-jax run own.py --ablation.sets ran": "random",
        "hp-jax run sst2 --data.lab": "--data.label --data.labels",
        "hp-jax run sst2 --data.sou": "--data.source",
        "hp-jax export a b --to stab": "stablehlo",
        "hp-jax run own": "",
    }
    ask = "\n".join(
        f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); COMPREPLY=(); "
        '_tyro_hp_jax; echo "${COMPREPLY[*]}"'
        for words in wanted
    )
    command = f"compopt() {{ :; }}; source {tmp_path}/hp-jax.bash\n{ask}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert dict(zip(wanted, ran.stdout.split("\n"), strict=False)) == wanted
