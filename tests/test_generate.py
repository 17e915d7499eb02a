"""The command `hp-jax generate`: prompts from everywhere, readers that leave, words that are
wrong."""

import json
import subprocess
import sys

import pytest
from tiny_language import tokenizer, write_language_model

from hp_jax.cli import main

GENERATE = [sys.executable, "-m", "hp_jax.cli", "generate"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("generate") / "lm"
    write_language_model(made)
    return str(made)


def piped(words, data):
    return subprocess.run([*GENERATE, *words], input=data, capture_output=True, timeout=120)


def test_a_line_feed_alone_ends_a_prompt(folder, capsys):
    """What other programs take for the end of a line is text."""
    prompts = ["the an", "at\u2028the\x0bant"]
    alone = []
    for prompt in prompts:
        assert main(["generate", folder, "--prompt", prompt, "--tokens", "4", "--json"]) == 0
        alone += json.loads(capsys.readouterr().out)
    found = piped([folder, "--tokens", "4", "--json"], "\r\n\n".join(prompts).encode())
    assert json.loads(found.stdout) == alone


def test_nobody_need_read_to_the_end(folder):
    with subprocess.Popen(
        [*GENERATE, folder, "--prompt", "the an at", "--tokens", "120"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.read(3) == b"the"
        process.stdout.close()
        assert (process.wait(timeout=120), process.stderr.read()) == (0, b"")


def test_standard_input_may_be_closed(folder):
    shell = subprocess.run(
        ["bash", "-c", '"$@" <&-', "-", *GENERATE, folder], capture_output=True, timeout=120
    )
    assert shell.returncode == 1
    assert shell.stderr.decode().strip() == (
        "hp-jax: error: expected a --prompt, or lines on standard input, but there are none"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", "a\udcff"], r"--prompt is 'a\udcff', but UTF-8 was expected"),
        (["--tokens", "0"], "--tokens is 0, but 1 or more was expected"),
        (["--tokens", "5000"], "do not fit the model's 128 positions"),
        (["--temperature", "nan"], "expected a temperature of at least 0"),
        (["--temperature", "inf"], "expected a temperature of at least 0"),
        (["--top-p", "nan"], "0 < top_p <= 1"),
        (["--seed", "-1"], "the seed is -1, but"),
        (["--seed", str(2**63)], f"the seed is {2**63}, but"),
        (["--without", "dec.7.1"], "there is no row 'dec.7'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_printed(words, said, folder, capsys):
    prompt = [] if "--prompt" in words else ["--prompt", "the an"]
    assert main(["generate", folder, *prompt, *words]) == 1
    found = capsys.readouterr()
    assert said in found.err
    assert len(found.err.splitlines()) == 1
    assert not found.out


@pytest.mark.parametrize("temperature", ["1e-30", "1e-40", "1e-320"])
def test_next_to_no_temperature_is_none(temperature, folder, capsys):
    words = ["generate", folder, "--prompt", "the an", "--tokens", "4", "--temperature"]
    assert main([*words, "0"]) == main([*words, temperature]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert len(tokenizer().encode(first).ids) > len(tokenizer().encode("the an").ids)
