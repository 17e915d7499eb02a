"""What becomes of malformed inputs: hundreds of them, made from a seed, at every door.

    python scripts/doors --seed 1 --count 600 --out doors.json

Good material is made in tiny first, and every good command tried.  Each trial then changes a copy
of it somewhere, runs one command in a process of its own (which is ended after 20 seconds), and
compares what lies there afterwards with what lay there before.  It is one of

    clear       one sentence, which names what is wrong, and exit status 1 or 2
    same        the change is without influence: the result is that of good input
    other       the change may be right (another number of the same type), with another result
    accepted    exit status 0 and another result, although the input is wrong
    obscure     a message that does not name what is wrong, or is of several lines
    traceback   a mistake's traceback
    hang, crash, harm   no end; a signal; a file changed that was not to be written

A table is printed; --out has every trial.  600 take about 8 minutes on one CPU core.
"""

import collections
import contextlib
import hashlib
import io
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).parent))
from material import write_material
from trials import Trial, make

SECONDS = 20
KINDS = (
    "clear", "same", "other", "accepted", "obscure", "traceback", "hang", "crash", "harm"
)  # fmt: skip
OUTPUTS = ("new", "runs", "x", "a", "pipe", "link")
"""What commands may write to."""


def run(argv: list[str]) -> tuple[int, str]:
    """Exit status and standard error of a command, here."""
    from hp_jax.cli import main

    err, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        import logging

        logging.getLogger().handlers.clear()
        try:
            status = main(argv)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException as error:
            import traceback

            traceback.print_exception(error)
            return 1, err.getvalue()
    return int(status or 0), err.getvalue()


def contents(folder: Path, argv: list[str]) -> dict[str, str]:
    """A hash of every file that a command may not write to: with --force it may replace what hp_jax
    wrote, which has a file that says so."""
    signed = "--force" in argv and (folder / argv[2] / "hp_jax_files.json").is_file()
    ours = argv[2:3] if signed else []
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.stat().st_size < 10**8
        and not path.is_symlink()
        and path.relative_to(folder).parts[0] not in (*OUTPUTS, *ours)
    }


def result(folder: Path) -> Any:
    """What a command made, but for times and paths."""
    made = folder / "new"
    if not made.is_dir():
        return None
    described = (
        json.loads((made / "config.json").read_text()) if (made / "config.json").exists() else {}
    )
    names = ("config", "params", "heads removed")
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in made.rglob("*")
        if path.suffix in (".safetensors", ".spm") or path.name in ("tokenizer.json", "text.json")
    }
    return {name: described.get(name) for name in names}, files


def classify(trial: Trial, status: int, err: str, same: bool, harm: bool) -> str:
    """What became of a trial that ended."""
    lines = [line for line in err.splitlines() if line and not re.match(r"\d\d:\d\d:\d\d ", line)]
    if harm:
        return "harm"
    if "Traceback (most recent call last)" in err:
        return "traceback"
    if status == 0:
        warned = any(name in err for name in trial.names if name)
        return "same" if same else "other" if trial.legal or warned else "accepted"
    ours = [line for line in lines if line.startswith("hp-jax: ")]
    named = any(name and name in err for name in trial.names)
    return "clear" if len(ours) == 1 == len(lines) and named else "obscure"


def worker(seed: int, numbers: list[int], material: Path) -> None:
    """Tries trials one after the other, and prints a line of JSON for each."""
    good: dict[str, Any] = {}
    scratch = Path(tempfile.mkdtemp())
    say = os.fdopen(os.dup(1), "w")
    for number in numbers:
        home = scratch / str(number) / "work"
        shutil.copytree(material, home, symlinks=True)
        os.chdir(home)
        trial = make(seed, number)
        key = json.dumps(trial.argv)
        print(json.dumps({"number": number, "begun": trial._asdict()}), file=say, flush=True)
        before = contents(home, trial.argv)
        status, err = run(trial.argv)
        after = contents(home, trial.argv)
        harm = any(after.get(name) != known for name, known in before.items())
        harm |= {path.name for path in home.parent.iterdir()} != {"work"}
        found = result(home)
        if status == 0 and key not in good:
            clean = scratch / "good"
            shutil.copytree(material, clean)
            os.chdir(clean)
            run(trial.argv)
            good[key] = result(clean)
            os.chdir(home)
            shutil.rmtree(clean)
        kind = classify(trial, status, err, status == 0 and found == good[key], harm)
        print(json.dumps({"number": number, "kind": kind, "err": err[-600:]}), file=say, flush=True)
        os.chdir(scratch)
        shutil.rmtree(home.parent)
    shutil.rmtree(scratch)


def supervise(seed: int, count: int, material: Path) -> list[dict[str, Any]]:
    """Every trial with what became of it; a worker that hangs or dies is replaced."""
    told: dict[int, dict[str, Any]] = {}
    left = list(range(count))
    while left:
        words = [sys.executable, __file__, "--worker", json.dumps([seed, left, str(material)])]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        last = None
        while select.select([process.stdout], [], [], SECONDS)[0]:
            line = process.stdout.readline()
            if not line:
                break
            found = json.loads(line)
            last = found["number"]
            told.setdefault(last, {"number": last}).update(found)
        ended = process.poll() is not None or not select.select([process.stdout], [], [], 0)[0]
        process.kill()
        process.wait()
        if last is not None and "kind" not in told[last]:
            told[last]["kind"] = "crash" if process.returncode != -9 and ended else "hang"
        left = [number for number in left if "kind" not in told.get(number, {})]
        if last is None:
            raise SystemExit("a worker ended before its first trial")
    return [told[number] for number in range(count)]


def main(seed: int = 1, count: int = 600, out: str = "doors.json", worker: str = "") -> None:
    """Tries `count` malformed inputs.

    Args:
        seed: Which ones.
        count: How many.
        out: The file for every trial.
        worker: For this program's own use.
    """
    if worker:
        number, numbers, folder = json.loads(worker)
        return globals()["worker"](number, numbers, Path(folder))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        material = Path(folder) / "good"
        material.mkdir()
        write_material(material)
        tried = supervise(seed, count, material)
    Path(out).write_text(json.dumps(tried, indent=1))
    counts = collections.Counter((one["begun"]["door"], one["kind"]) for one in tried)
    doors = sorted({door for door, _ in counts})
    print("door", *KINDS, sep="\t")
    for door in (*doors, "all"):
        row = [
            sum(n for (d, k), n in counts.items() if k == kind and door in (d, "all"))
            for kind in KINDS
        ]
        print(door, *row, sep="\t")


if __name__ == "__main__":
    tyro.cli(main)
