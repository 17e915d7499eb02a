"""The house: imports run one way, down the floors, and in no circle."""

import ast
import graphlib
import itertools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent

FLOORS = (
    {
        "architecture",
        "batches",
        "config",
        "config_data",
        "config_files",
        "descriptors",
        "exhibits",
        "orders",
        "function_task",
        "heads",
        "task",
        "metrics",
        "stats",
        "progress",
        "typed",
    },
    {"removal", "pruning", "mask_files", "storage", "sharding"},
    {
        "text",
        "data",
        "models",
        "grid",
        "importance",
        "least_squares",
        "linear",
        "estimates",
        "quadratic",
        "attribution",
        "train",
        "generation",
        "calibration",
    },
    {"formats"},
    {"experiment", "shrink", "report"},
    {"demo", "paper"},
    {"cli"},
)
"""Rooms, the ground floor first; a room may use its own floor and those below."""
CORE = (
    "heads",
    "descriptors",
    "task",
    "function_task",
    "batches",
    "importance",
    "attribution",
    "linear",
    "pruning",
    "quadratic",
    "grid",
    "stats",
    "metrics",
    "train",
    "sharding",
)
"""What works with anybody's model."""


def modules():
    """Every module of hp_jax, by name."""
    for file in sorted((ROOT / "hp_jax").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


FILES = dict(modules())


def imports(name):
    """The modules of hp_jax that a module imports, by any statement, wherever it stands."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & set(FILES)
            found |= inside or {node.module}
    return {module for module in found if module.split(".")[0] == "hp_jax"} & set(FILES) - {name}


def room(name):
    """`grid` of `hp_jax.grid.plan`."""
    return [*name.split("."), ""][1]


def floor(name):
    return next((place for place, rooms in enumerate(FLOORS) if room(name) in rooms), None)


EDGES = {name: imports(name) for name in FILES}


def test_every_room_has_a_floor():
    assert {room(name) for name in FILES} - {"", "__main__"} == set().union(*FLOORS)


@pytest.mark.parametrize("name", [name for name in FILES if floor(name) is not None])
def test_imports_run_down(name):
    upward = sorted(
        used for used in EDGES[name] if floor(used) is None or floor(used) > floor(name)
    )
    assert not upward


def test_there_are_no_circles():
    """A package's own names count as the package's: who imports the package imports all that it
    hands on."""
    order = list(graphlib.TopologicalSorter(EDGES).static_order())
    assert set(order) == set(FILES)


def test_rooms_are_in_no_circle():
    rooms = {room(name): set() for name in FILES}
    for name, used in itertools.chain.from_iterable(
        ((name, used) for used in EDGES[name]) for name in FILES
    ):
        rooms[room(name)] |= {room(used)} - {room(name)}
    list(
        graphlib.TopologicalSorter(
            {name: used - {""} for name, used in rooms.items() if name}
        ).static_order()
    )


@pytest.mark.parametrize("name", [name for name in FILES if room(name) in CORE])
def test_the_core_knows_no_model(name):
    assert not {room(used) for used in EDGES[name]} & {
        "models",
        "formats",
        "text",
        "data",
        "experiment",
        "report",
    }


def test_only_the_commands_and_the_demo_use_the_report():
    users = {room(name) for name, used in EDGES.items() if "report" in map(room, used)} - {"report"}
    assert users == {"cli", "demo"}


def test_the_report_depends_on_results_only():
    used = set().union(*(map(room, EDGES[name]) for name in FILES if room(name) == "report"))
    assert used - {"report"} == {
        "config",
        "descriptors",
        "estimates",
        "exhibits",
        "heads",
        "importance",
        "linear",
        "metrics",
        "orders",
        "stats",
        "storage",
        "typed",
    }
