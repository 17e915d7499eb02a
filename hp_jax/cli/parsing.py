"""The grammar of the command line: tyro's, with the help texts that fields have as docstrings."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import io
import operator
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import docstring_parser
import tyro
from tyro.constructors import (
    MISSING,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from hp_jax.cli.command import Command, ConfiguredCommand, UnusableError

if TYPE_CHECKING:
    from hp_jax.config import Experiment

REGISTRY = ConstructorRegistry()
"""How tyro reads our dataclasses."""


@REGISTRY.struct_rule
def _our_dataclasses(info: StructTypeInfo) -> StructConstructorSpec | None:
    """As tyro reads dataclasses, but a docstring is one paragraph, however its lines are broken."""
    if not dataclasses.is_dataclass(info.type) or not info.type.__module__.startswith("hp_jax."):
        return None
    types = typing.get_type_hints(info.type, include_extras=True)
    texts = help_texts(info.type)
    fields = []
    for field in dataclasses.fields(info.type):
        own = MISSING if field.default is dataclasses.MISSING else field.default
        default = getattr(info.default, field.name) if _is_given(info) else own
        fields.append(
            StructFieldSpec(field.name, types[field.name], default, texts.get(field.name))
        )
    return StructConstructorSpec(info.type, tuple(fields))


def _is_given(info: StructTypeInfo) -> bool:
    """Whether there is an instance with the defaults, as there is for a config."""
    return isinstance(info.default, info.type)


@functools.cache
def help_texts(kind: type) -> Mapping[str, str]:
    """The docstrings of a dataclass's fields, those of a subclass before those of its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        for one in docstring_parser.parse_from_object(base).params:
            found[one.arg_name] = " ".join((one.description or "").split())
    return found


def parse(command: type[Command], name: str, rest: Sequence[str], more: str = "") -> Command:
    """A command from the words after its name.

    more: what is said of it in its help, beyond its docstring.  SystemExit for --help,
    UnusableError for words that are no use.
    """
    return _parsed(command, f"hp-jax {name}", about(command) + more, rest)


def parse_configured(
    command: type[ConfiguredCommand], name: str, rest: Sequence[str], config: Experiment
) -> tuple[ConfiguredCommand, Experiment]:
    """A command and its config from the words after its name, of which the first names `config`."""
    kind = _both(command, type(config), config)
    found = _parsed(kind, f"hp-jax {name} {rest[0]}", about(command), rest)
    return found.command, found.experiment


def about(command: type) -> str:
    """What a command does, in one line."""
    return " ".join((inspect.getdoc(command) or "").split())


def _both(command: type, experiment: type, default: Any) -> Any:
    """A command with all the fields of an experiment, as one type."""
    return dataclasses.make_dataclass(
        "Configured",
        [
            ("command", _flat(command)),
            ("experiment", _flat(experiment), dataclasses.field(default=default)),
        ],
        frozen=True,
    )


def _flat(kind: Any) -> Any:
    """A type whose fields have flags without a prefix, wherever it is nested."""
    return Annotated[kind, tyro.conf.arg(name="")]


# --- what is wrong, in one sentence --------------------------------------------------------------


def _parsed(kind: Any, prog: str, description: str, rest: Sequence[str]) -> Any:
    """What tyro makes of the words; UnusableError in place of the box that it draws."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(kind, prog=prog, description=description, args=rest, registry=REGISTRY)
    except SystemExit as end:
        if end.code != 2:
            raise
        said = _sentence(box.getvalue())
    except ValueError as error:  # a check of our own, of what is not below anything
        said = str(error)
    raise UnusableError(f"{said} (see {prog} --help)")


def _sentence(box: str) -> str:
    """What a box of tyro's says, whose parts are set apart by lines."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)  # in a terminal it has colours
    lines = "\n".join(line.strip(" │") for line in plain.splitlines())
    _, what, *others = re.split("^(?:[╭╰].*|[─-]{5,})$", lines, flags=re.MULTILINE)
    said, more = " ".join(what.split()), "\n".join(others)
    unknown = re.match(r"Unrecognized options: ([^,]+)", said)
    if unknown:
        near = re.findall(r"^(--[\w.-]+)", more, re.MULTILINE)[:3]
        hint = f"; perhaps you meant {' or '.join(near)}" if near else ""
        start = "there is no option" if unknown[1].startswith("-") else "there is no place for"
        return f"{start} {unknown[1]}{hint}"
    if said.startswith("Missing from"):
        missing = re.findall(r"^((?:--[\w.-]+ )?[A-Z]+)$", what, re.MULTILINE)
        return f"expected {' and '.join(missing)}"
    wrong = re.fullmatch(r"Error parsing (\S+): (.*)", said)
    if not wrong:
        return f"{said[0].lower()}{said[1:-1].replace('. Expected', ': expected')}"
    name, why = wrong.groups()
    if not name.startswith("-"):  # a check of our own
        return why
    kind = re.search(rf"^{name} (.*)", more, re.MULTILINE)
    found = re.search(r"with base 10: (.*)|to float: (.*)|(?:from|arguments:) \[(.*?)\]", why)
    got = next(filter(None, found.groups()), "nothing") if found else why
    return f"{name} expects {kind[1] if kind else 'another value'}, but got {got}"


# --- all commands --------------------------------------------------------------------------------


def show_help(names: Mapping[str, str], prog: str, text: str) -> None:
    """Prints which commands there are, by name with what they do.  Raises SystemExit."""
    stubs = {name: _stub(what) for name, what in names.items()}
    tyro.extras.subcommand_cli_from_dict(stubs, prog=prog, description=text, args=["--help"])


def _stub(text: str) -> Callable[[], None]:
    def stub() -> None:
        """To be replaced."""

    stub.__doc__ = text
    return stub


SHELLS = ("bash", "zsh", "fish")
"""The shells for which there is a completion script."""
FILES = "__TYRO_COMPLETE_FILES__"
PATCHES = (
    (  # where there is nothing else to propose, files
        "    # Output one completion per line.\n",
        f'    completions = completions or ["{FILES}"]\n',
    ),
    (  # bash: as it completes files itself, with a slash after folders
        'COMPREPLY=($(compgen -f -- "$cur"))',
        "COMPREPLY=(); compopt -o default",
    ),
)
"""What is different in our completion scripts from tyro's."""


def completion(commands: Mapping[str, type[Command]], shell: str) -> str:
    """The completion script for one of the SHELLS.

    It knows all commands; a command that takes a config has the fields of both kinds of experiment.
    """
    parsers = _all_parsers(commands)
    words = ["--tyro-write-completion", shell, "-"]
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(parsers, prog="hp-jax", args=words, registry=REGISTRY)
    text = script.getvalue()
    for theirs, ours in PATCHES:
        text = text.replace(theirs, ours)
    return text


def _all_parsers(commands: Mapping[str, type[Command]]) -> dict[str, Any]:
    """What tyro needs to know of all commands, by their first word."""
    from hp_jax.config import KINDS_OF_EXPERIMENT

    fields = functools.reduce(
        lambda one, kind: _merged(kind(), one), KINDS_OF_EXPERIMENT[1:], KINDS_OF_EXPERIMENT[0]()
    )
    parsers: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for name, command in commands.items():
        parser: Any = command
        if issubclass(command, ConfiguredCommand):
            parser = _both(command, type(fields), fields)
        group, _, action = name.partition(" ")
        if action:
            groups.setdefault(group, {})[action] = parser
        else:
            parsers[name] = parser
    for group, actions in groups.items():
        parsers[group] = _group(actions)
    return parsers


def _group(actions: Mapping[str, Any]) -> Any:
    """Commands of two words with the same first one, as one type."""
    kinds = [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in actions.items()]
    either = functools.reduce(operator.or_, [*kinds, Annotated[None, tyro.conf.Suppress]])
    return dataclasses.make_dataclass("Group", [("action", _flat(either))], frozen=True)


def _merged(first: Any, second: Any) -> Any:
    """A dataclass instance with the fields of both; where both have dataclasses these are merged,
    too."""
    values = {field.name: getattr(second, field.name) for field in dataclasses.fields(second)}
    for field in dataclasses.fields(first):
        value = getattr(first, field.name)
        other = values.get(field.name)
        both = dataclasses.is_dataclass(value) and type(other) not in (type(value), type(None))
        values[field.name] = _merged(value, other) if both else value
    types = {
        name: type(values[name]) if dataclasses.is_dataclass(values[name]) else hint
        for one in (second, first)
        for name, hint in typing.get_type_hints(type(one), include_extras=True).items()
        if name in values
    }
    fields = [(name, types[name], dataclasses.field(default=values[name])) for name in values]
    return dataclasses.make_dataclass("Merged", fields, frozen=True)()
