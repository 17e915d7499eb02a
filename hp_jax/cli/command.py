"""What a command is: a frozen dataclass of what was typed, with the flags that commands share."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from hp_jax.config import Experiment

Flag = tyro.conf.FlagCreatePairsOff[bool]
"""A flag that is given or not, without its opposite."""
Model = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
"""The folder of a model, by its place."""
Folder = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FOLDER")]
"""A folder, by its place."""


class UnusableError(Exception):
    """Words of which no command can be made; its message is one sentence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """What all commands have."""

    quiet: Flag = False
    """Say nothing on stderr but warnings and errors."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderCommand(Command):
    """A command that takes folders, or nothing."""

    def run(self) -> None:
        """Does it."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfiguredCommand(Command):
    """A command that takes a config and flags for every field of it."""

    config: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CONFIG")]
    """The config, before all flags: a Python file that defines `config`, the name of one that ships
    with hp_jax, or for the defaults `classification`, `translation`, `language_model` or
    `multiple_choice`."""

    def run(self, experiment: Experiment) -> None:
        """Does it for the config, in which the flags' values are."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer(Command):
    """What the commands have whose result a script can read."""

    json: Flag = False
    """Print the result as JSON."""

    def answer(self, data: Any, text: str) -> None:
        """Prints the result on stdout: `data` as JSON if that was asked for, or else `text`."""
        if self.json:
            say(json.dumps(data, indent=1))
        elif text:
            say(text)


def say(text: str, end: str = "\n") -> bool:
    """Prints on stdout; what nobody reads any more, as behind `| head`, is no error.  Whether
    somebody still did."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def standard_input() -> str:
    """All of it; empty where it is closed."""
    from hp_jax.data.tables import decode_text

    if sys.stdin is None:
        return ""
    return decode_text(sys.stdin.buffer.read(), "standard input")
