"""Typed borders: what comes from a file or from a person is what its type says, or one sentence
says where it is not.

msgspec decides; ranges are `Annotated[int, msgspec.Meta(ge=1)]`, such as those below.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import typing
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import Meta, inspect

Kind = TypeVar("Kind")

_LARGEST, _HUGE = 2**31 - 1, 3.4028234663852886e38  # of int32 and float32
Natural = Annotated[int, Meta(ge=0, le=_LARGEST)]
"""0, 1, 2, ... of what an array can be long."""
Count = Annotated[int, Meta(ge=1, le=_LARGEST)]
"""1, 2, 3, ..."""
Counts = Annotated[tuple[Count, ...], Meta(min_length=1)]
"""At least one of them."""
Layers = Annotated[int, Meta(ge=1, le=10_000)]
"""Layers of a model."""
Share = Annotated[float, Meta(ge=0, le=1)]
"""From 0 to 1."""
Dropout = Annotated[float, Meta(ge=0, lt=1)]
"""A share that is not the whole."""
Amount = Annotated[float, Meta(ge=0, le=_HUGE)]
"""0 or more, and finite."""
Positive = Annotated[float, Meta(gt=0, le=_HUGE)]
"""More than 0, and finite."""
Number = Annotated[float, Meta(ge=-_HUGE, le=_HUGE)]
"""Any finite number."""


def decode(kind: type[Kind], value: Any, where: object, *, closed: bool = False) -> Kind:
    """A value from JSON, YAML or the like as a dataclass, TypedDict, `tuple[...]` or other type.

    Numbers are not read from text, nor integers from 1.0 or true; lists become tuples.  Names that
    the kind does not have are passed over, unless it is `closed`.

    ValueError `WHERE: FIELD: expected ..., but found ...`, such as `m/config.json: layers[0]: ...`.
    """
    try:
        made = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {_sentence(kind, value, error)}") from error
    if closed:
        there = [field.encode_name for field in _info(kind).fields]
        for name in value:
            if name not in there:
                raise ValueError(
                    f"{where}: there is no setting {_short(name)}; there are {', '.join(there)}"
                )
    return made


def check_place(place: str) -> None:
    """ValueError for the name of a folder or bucket that would not be where it says."""
    if not place.strip():
        raise ValueError("a folder was expected, but its name is empty")
    if not place.isprintable() or "\\" in place:
        raise ValueError(f"the folder {place!r} has a character that no folder here may have")
    if place.startswith("~"):
        raise ValueError(f"the folder {place} would be one of that name: write the home in full")
    scheme, there, _ = place.partition("://")
    if there and scheme not in ("gs", "s3", "file"):
        raise ValueError(f"{place} is no place to write to: expected a folder, gs:// or s3://")


@contextlib.contextmanager
def located(where: object) -> Iterator[None]:
    """Errors say where."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


class Checked:
    """A frozen dataclass whose fields are what their types say, also those that are given in
    Python: ValueError names the field.

    section: what the names of its fields begin with in a config and on the command line.
    """

    section: ClassVar[str] = ""

    def __init_subclass__(cls, section: str | None = None) -> None:
        super().__init_subclass__()
        if section is not None:
            cls.section = f"{section}." if section else ""

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in _hints(kind).items():
            given = getattr(self, name)
            try:
                value = msgspec.convert(given, hint)
            except msgspec.ValidationError as error:
                raise ValueError(
                    f"{self.section}{name}{_sentence(hint, given, error, inside=True)}"
                ) from None
            if value is not given:  # a list is a tuple, an integer that should be a float is one
                object.__setattr__(self, name, value)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


# --- msgspec's errors in our words ---------------------------------------------------------------


def _sentence(kind: Any, value: Any, error: Exception, *, inside: bool = False) -> str:
    """`FIELD: expected ..., but found ...`.

    inside: the value is itself a field, whose name stands before the sentence.
    """
    found = re.fullmatch(r"(.*?)(?: - at (`key` in )?`\$(.*)`)?", str(error), re.DOTALL)
    assert found is not None  # it matches any text
    what, is_key, path = found[1], found[2], found[3] or ""
    info = _info(kind)
    for name, index in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", path):
        value, info = _below(value, info, name or index)
    place = path if inside else path.removeprefix(".")
    start = f"{place}: " if place or inside else ""
    lacking = re.fullmatch("Object missing required field `(.*)`", what)
    if lacking:
        return f"{start}expected a setting {lacking[1]}, but there is none"
    expected = re.sub(r", got .*", "", what)
    if expected.startswith("Invalid enum value"):
        expected = f"one of {', '.join(map(repr, _choices(info)))}"
    elif expected == "Number out of range":
        expected = "a smaller number"
    elif not expected.startswith("Expected "):  # said by a dataclass itself
        return f"{start}{what}"
    expected = expected.removeprefix("Expected ").replace(f" <= {_HUGE}", " that is finite")
    if inside and isinstance(info, inspect.DataclassType):
        expected = info.cls.__name__
    expected = re.sub(r"`([^`]+)`", lambda kinds: _words(kinds[1]), expected)
    if is_key:
        return f"{start}expected keys that are {expected}, but found {_short(value)}"
    return f"{start}expected {expected}, but found {_short(value)}"


_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
"""What msgspec calls by the names of types."""


def _words(kinds: str) -> str:
    return " or ".join(_WORDS.get(kind, kind) for kind in kinds.split(" | "))


def _below(value: Any, info: Any, key: str) -> tuple[Any, Any]:
    """What is there under a name or number of msgspec's path, and the type that it should have."""
    if key == "...":  # in a dict, of which msgspec does not say which key it was
        return value, getattr(info, "value_type", info)
    options = getattr(info, "types", (info,))  # of a union
    if isinstance(value, list | tuple):
        kinds = [getattr(one, "item_type", None) for one in options]
        kinds += [one.item_types[int(key)] for one in options if hasattr(one, "item_types")]
        return value[int(key)], next((one for one in kinds if one is not None), info)
    fields = [field for one in options for field in getattr(one, "fields", ())]
    kind = next((field.type for field in fields if field.encode_name == key), info)
    return (value.get(key) if isinstance(value, dict) else getattr(value, key, None)), kind


def _choices(info: Any) -> list[Any]:
    return [
        value for one in getattr(info, "types", (info,)) for value in getattr(one, "values", ())
    ]


def _info(kind: Any) -> Any:
    info = inspect.type_info(kind)
    return info.type if isinstance(info, inspect.Metadata) else info


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
