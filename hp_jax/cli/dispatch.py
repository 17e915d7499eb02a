"""Which command is run, and what is said when something is wrong."""

from __future__ import annotations

import difflib
import importlib.metadata
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence

from hp_jax.cli import folders, generate, hosts, parsing, steps
from hp_jax.cli.command import Command, ConfiguredCommand, FolderCommand, UnusableError, say
from hp_jax.config_files import KINDS, load_config, shipped

log = logging.getLogger("hp_jax")

COMMANDS: dict[str, type[Command]] = {
    "demo": folders.Demo,
    "run": steps.Run,
    "reproduce": steps.Reproduce,
    "train": steps.Train,
    "importance": steps.Importance,
    "ablate": steps.Ablate,
    "linear": steps.Linear,
    "prune": steps.Prune,
    "compare": steps.Compare,
    "report": folders.Report,
    "grid status": folders.GridStatus,
    "configs": folders.Configs,
    "evaluate": steps.Evaluate,
    "translate": steps.Translate,
    "generate": generate.Generate,
    "vocabulary": steps.Vocabulary,
    "convert": folders.Convert,
    "remove": folders.Remove,
    "export": folders.Export,
    "speed": folders.Speed,
}
"""All commands; `grid status` is the one of two words."""

ABOUT = (
    "Find out which attention heads a Transformer needs, prove it, and remove the others. "
    "`hp-jax COMMAND --help` says more of a command, `hp-jax COMMAND CONFIG --help` every field of "
    "its config with its default, `hp-jax --version` the version, and `hp-jax --completion bash` "
    "(zsh, fish) a script with which the shell completes commands and flags."
)
EXPECTED = (ValueError, OSError, ImportError, RuntimeError, MemoryError)
"""What bad input, and whatever else is not a mistake in hp_jax, raises."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Bad input gives one sentence on stderr and status 1 (HP_JAX_DEBUG=1 shows where it came from),
    words of which no command can be made status 2, an interrupt 130.
    """
    if arguments is None and "--multihost" in sys.argv and not hosts.is_worker():
        return hosts.supervise()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    log.setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(
        logging.CRITICAL
    )  # Orbax logs the traceback of an error and then raises it, too
    try:
        _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except UnusableError as error:
        print(f"hp-jax: error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, *EXPECTED) as error:
        if os.environ.get("HP_JAX_DEBUG"):
            raise
        return _tell(error)
    return 0


def _dispatch(args: list[str]) -> None:
    if not args:
        raise UnusableError(f"expected a command: {', '.join(COMMANDS)}; see hp-jax --help")
    if args[0] in ("-h", "--help"):
        about = {name: parsing.about(command) for name, command in COMMANDS.items()}
        parsing.show_help(about, "hp-jax", ABOUT)
    if args[0] == "--version":
        say(f"hp_jax {importlib.metadata.version('hp_jax')}")
        return
    if args[0] == "--completion":
        if args[1:] not in ([shell] for shell in parsing.SHELLS):
            raise UnusableError(f"--completion expects one of {', '.join(parsing.SHELLS)}")
        say(parsing.completion(COMMANDS, args[1]))
        return
    name, rest = _choose(args)
    command = COMMANDS[name]
    if issubclass(command, ConfiguredCommand):
        _run_configured(command, name, rest)
        return
    given = parsing.parse(command, name, rest)
    assert isinstance(given, FolderCommand)
    _be_quiet(given)
    given.run()


def _choose(args: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The command that the first words name, and the words after it."""
    if args[0] in COMMANDS:
        return args[0], args[1:]
    actions = {name.split()[1]: name for name in COMMANDS if name.startswith(f"{args[0]} ")}
    if actions and args[1:2] in (["-h"], ["--help"]):
        about = {action: parsing.about(COMMANDS[name]) for action, name in actions.items()}
        parsing.show_help(about, f"hp-jax {args[0]}", "Look at results, also while jobs write.")
    if actions and args[1:2] and args[1] in actions:
        return actions[args[1]], args[2:]
    if actions:
        found = args[1] if args[1:] else "nothing"
        raise UnusableError(f"hp-jax {args[0]} expects {' or '.join(actions)}, but got {found}")
    near = difflib.get_close_matches(args[0], [name.split()[0] for name in COMMANDS], n=2)
    hint = f"; perhaps you meant {' or '.join(near)}" if near else ""
    raise UnusableError(f"there is no command {args[0]}{hint} (see hp-jax --help)")


def _run_configured(command: type[ConfiguredCommand], name: str, rest: Sequence[str]) -> None:
    """Runs a command with the config that the first word names and the flags after it."""
    if not rest or rest[0].startswith("-"):
        if not {"-h", "--help"} & set(rest):
            raise UnusableError(
                f"hp-jax {name} expects a config before all flags: a Python file, or one of "
                f"{', '.join((*shipped(), *KINDS))}"
            )
        parsing.parse(command, name, ["--help"], _about_configs(name))
    default = load_config(rest[0])
    given, experiment = parsing.parse_configured(command, name, rest, default)
    _be_quiet(given)
    if isinstance(given, steps.Step) and given.multihost:
        _as_one_of_many(lambda: given.run(experiment))
    else:
        given.run(experiment)


def _about_configs(name: str) -> str:
    """What the help of a command without its config says of configs."""
    return (
        "\n\nA config says which model, which data and which settings. hp_jax ships with "
        f"{', '.join(shipped())} (hp-jax configs says what they are); {', '.join(KINDS)} have "
        "the defaults. Every field of a config is a flag too, such as --data.path: "
        f"`hp-jax {name} CONFIG --help` shows them all with their values."
    )


def _be_quiet(command: Command) -> None:
    if command.quiet:
        log.setLevel(logging.WARNING)


def _as_one_of_many(run: Callable[[], None]) -> None:
    """Runs a step, of which the first process speaks for all; the others tell only of what went
    wrong."""
    import jax

    from hp_jax.sharding import join_hosts, leave_hosts

    join_hosts()
    if not steps.is_first():
        log.setLevel(logging.ERROR)
    try:
        run()
    except BaseException as error:
        where = f" in process {jax.process_index()} of {jax.process_count()}"
        status_of_xla = re.match("[A-Z_]+: ", str(error))  # in an exception of whatever type
        leave_hosts(_tell(error, where, ANOTHER if status_of_xla else ""))


ANOTHER = "; if another process has ended, see there why; all started again go on from here"


def _tell(error: BaseException, where: str = "", advice: str = "") -> int:
    """Says what went wrong, in one sentence unless it should not happen at all; the exit status."""
    if isinstance(error, KeyboardInterrupt):
        print(
            "hp-jax: interrupted; what was finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    if not isinstance(error, EXPECTED) or os.environ.get("HP_JAX_DEBUG"):
        traceback.print_exception(error)
    print(f"hp-jax: error{where}: {_words(error)}{advice}", file=sys.stderr)
    return 1


def _words(error: BaseException) -> str:
    """Its message in one line; of the system's errors, which file it is about comes first."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror.lower()}"
    return " ".join(str(error).split()) or type(error).__name__
