"""Config files: the user's own, and those that ship with hp_jax."""

from __future__ import annotations

import ast
import dataclasses
import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hp_jax.config import Experiment

KINDS = ("classification", "translation", "language_model", "multiple_choice")
"""The names of the defaults of the kinds of experiment."""


def load_config(name: str, changes: Mapping[str, Any] | None = None) -> Experiment:
    """The `config` of a Python file, of a config that ships with hp_jax, or the defaults of one of
    the KINDS.

    name: a path such as `configs/sst2.py`, a name such as `sst2`, or `translation`.
    changes: fields by dotted name with their new values, such as {"data.path": "x", "model": "m"}.

    FileNotFoundError, with what there is, if there is no such config; ValueError, with the place,
    if the file cannot be run, and with what there is, if a field is not there.
    """
    from hp_jax.config import KINDS_OF_EXPERIMENT

    kinds = dict(zip(KINDS, KINDS_OF_EXPERIMENT, strict=True))
    if name in kinds:
        return _with_changes(kinds[name](), changes or {})
    config = _run(config_path(name)).get("config")
    if not isinstance(config, KINDS_OF_EXPERIMENT):
        expected = " or ".join(kind.__name__ for kind in KINDS_OF_EXPERIMENT)
        raise ValueError(f"{name} defines config = {config!r:.60}, but a {expected} was expected")
    return _with_changes(config, changes or {})


def config_path(name: str) -> Path:
    """The file of a config, shipped or not; FileNotFoundError, with what there is, if there is
    none."""
    shipped_file = _folder() / f"{name}.py"
    if name in shipped():
        return shipped_file
    if Path(name).is_file():
        return Path(name)
    raise FileNotFoundError(
        f"the config file {name} does not exist, and no config of hp_jax has that name; there are "
        f"{', '.join(shipped())}, and the defaults {', '.join(KINDS)}"
    )


def shipped() -> dict[str, str]:
    """The configs that ship with hp_jax: their names, and the first paragraph of each docstring in
    one line."""
    found = {}
    for path in sorted(_folder().glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        found[path.stem] = " ".join(text.split("\n\n")[0].split())
    return found


def _with_changes(config: Any, changes: Mapping[str, Any], inside: str = "") -> Any:
    """A frozen dataclass with other values in some fields, given by dotted name.

    inside: what the names are relative to, such as `data.`, for messages.  ValueError, with what
    there is, if a field is not there.
    """
    there = [field.name for field in dataclasses.fields(config)]
    own: dict[str, Any] = {}
    deeper: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        field, dot, rest = name.partition(".")
        if field not in there:
            raise ValueError(
                f"a config has no field {inside}{name}; "
                f"{inside.rstrip('.') or 'there'} has {', '.join(there)}"
            )
        if dot:
            deeper.setdefault(field, {})[rest] = value
        else:
            own[field] = value
    for field, rest_of in deeper.items():
        part = own.get(field, getattr(config, field))
        if not dataclasses.is_dataclass(part):
            raise ValueError(
                f"a config has no field {inside}{field}.{next(iter(rest_of))}; {inside}{field} is "
                f"{part!r:.60} and has no fields"
            )
        own[field] = _with_changes(part, rest_of, f"{inside}{field}.")
    return dataclasses.replace(config, **own)


def _folder() -> Path:
    """Where the shipped configs are: in an installed hp_jax, or else beside it in the clone."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _run(path: Path) -> dict[str, Any]:
    """What a Python file defines.  ValueError, with the line, for whatever goes wrong in it."""
    try:
        return runpy.run_path(str(path))
    except KeyboardInterrupt:
        raise
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise ValueError(
            f"{error.filename or path}{line}: this is not Python: {error.msg}"
        ) from error
    except BaseException as error:  # a file that ends the process, too
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise ValueError(f"{where}: {kind}{' '.join(str(error).split())}") from error
