"""The commands that take folders in place of a config: reports, models made smaller, timed and
given back, and the demo."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hp_jax.cli.command import Answer, Flag, Folder, FolderCommand, Model, say
from hp_jax.cli.steps import take_steps, write_report

Keep = Annotated[
    tuple[str, float] | None, tyro.conf.arg(metavar="{heads,parameters,flops,latency} MOST")
]
"""What a budget is of, and how much of it stays at most."""

BUDGETS = ("heads", "parameters", "flops", "cache", "latency")
"""What `--keep` can be of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo(FolderCommand):
    """Find out which heads a real translation model needs, in about two minutes."""

    out: str = "runs/demo"
    """The folder for the results."""

    def run(self) -> None:
        """Takes all steps but training, and prints what was found and where the report is."""
        from hp_jax import demo

        take_steps(demo.config(self.out), ("importance", "ablate", "prune"))
        say("\n".join(demo.findings(Path(self.out))))
        say(write_report(self.out))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(FolderCommand, Answer):
    """Write one HTML page, pictures and tables from a folder of results."""

    folder: Folder
    """The experiment's `out` folder."""

    def run(self) -> None:
        """Writes the page, and prints its path."""
        page = write_report(self.folder)
        self.answer({"report": page}, page)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridStatus(FolderCommand, Answer):
    """Say what is done in each store of a folder, what is missing, and how it was made."""

    folder: Folder
    """The experiment's `out` folder, or any other folder or bucket path with results in it."""
    verify: Flag = False
    """Read everything, so that damaged files are found."""

    def run(self) -> None:
        """Prints it.  OSError, afterwards, if a store is damaged."""
        from hp_jax.storage import status

        found = status.statuses(self.folder, verify=self.verify)
        self.answer(found, status.as_text(found, self.folder))
        damaged = sum("error" in one for one in found)
        if damaged:
            raise OSError(f"{damaged} of the {len(found)} stores in {self.folder} cannot be read")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configs(FolderCommand, Answer):
    """List the configs that ship with hp_jax, or say where the file of one is."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = ""
    """The config whose file's path is printed; empty: all are listed."""

    def run(self) -> None:
        """Prints a table of names, or a path."""
        from hp_jax.config_files import config_path, shipped

        if self.name:
            path = str(config_path(self.name))
            self.answer({"name": self.name, "path": path}, path)
            return
        known = shipped()
        wide = max(map(len, known), default=0)
        lines = [f"{name:<{wide}}  {what}" for name, what in known.items()]
        self.answer(
            [{"name": name, "what": what} for name, what in known.items()], "\n".join(lines)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convert(FolderCommand):
    """Write a model of another library as a model folder of hp_jax."""

    model: Model
    """The folder of a Hugging Face, fairseq or Marian model."""
    folder: Folder
    """The new folder."""
    force: Flag = False
    """Replace what is in the folder."""

    def run(self) -> None:
        """Converts it."""
        from hp_jax.formats import model
        from hp_jax.storage.files import local_folder

        model.convert(self.model, local_folder(self.folder), force=self.force)
        say(f"{self.folder}: the model as a folder of hp_jax")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remove(FolderCommand, Answer):
    """Write a smaller model: without some heads, or within a budget."""

    model: Model
    """The folder of a model of hp_jax or of another library."""
    folder: Folder
    """The new folder."""
    heads: str = ""
    """The heads that go, as reports name them, counted from 0, such as 'enc.0.1-3,7 cross.1.2'; or
    in the authors' notations, counted from 1, such as '1:3,4 2:11' or 'E:1:3 A:2:1,4'."""
    mask: str = ""
    """A file with the heads that stay: .npy [rows, heads], 1 where a head stays (such as
    run_bertology's head_mask.npy), or a line that names the heads that go, as in --heads."""
    order: str = ""
    """What goes first, for --keep: out/importance, out/pruning/ORDER, or a file: heads as in
    --heads, or .npy of scores [rows, heads], the lowest first (such as head_importance.npy)."""
    keep: Keep = None
    """What stays at most, by --order: of heads, parameters, flops, cache (bytes of keys and values
    of a text of `length` tokens that is generated) or latency, up to 1 a share and above 1 an
    amount, such as heads 0.5."""
    floor: int = 0
    """Heads that every row keeps at least, for --keep."""
    multiple: int = 1
    """The number of heads, or with --groups of groups, of which every row keeps a multiple, for
    --keep."""
    groups: Flag = False
    """Query heads that share keys and values go together, for --keep."""
    length: int = 128
    """Tokens of an example, for FLOPs and latency."""
    table: str = ""
    """The speed.json that `hp-jax speed` wrote for the model, for a budget of latency."""
    batch: int = 1
    """Examples in a batch in that table, for a budget of latency."""
    force: Flag = False
    """Replace what is in the folder."""

    def run(self) -> None:
        """Writes it, and prints what that saves."""
        from hp_jax.shrink import remove
        from hp_jax.storage.files import local_folder

        budget = self._budget()
        given = sum(map(bool, (self.heads, self.mask, budget)))
        if given != 1:
            raise ValueError(
                "expected one of --heads, --mask, or --order with --keep, but got "
                f"{given or 'none'} of them"
            )
        folder = local_folder(self.folder)
        text = remove.remove(
            self.model,
            folder,
            off=self.heads,
            mask=self.mask,
            budget=budget,
            length=self.length,
            force=self.force,
        )
        about = json.loads((folder / "config.json").read_text())
        summary = {name: about[name] for name in ("heads removed", "before", "after")}
        after = f"next: hp-jax export {self.folder} NEW_FOLDER --to FORMAT"
        self.answer({"folder": self.folder} | summary, f"{text}\n{after}")

    def _budget(self) -> Any:
        """The budget that the flags ask for, if they do."""
        from hp_jax.shrink.remove import Budget

        if not self.order and not self.keep:
            asked = {
                "--floor": self.floor,
                "--multiple": self.multiple - 1,
                "--groups": self.groups,
                "--table": self.table,
            }
            if given := [flag for flag, value in asked.items() if value]:
                raise ValueError(f"{given[0]} is for --order with --keep, but they are not given")
            return None
        if not (self.order and self.keep):
            raise ValueError(
                "--order says which heads go first and --keep how much stays: expected both, but "
                "one is missing"
            )
        of, most = self.keep
        if of not in BUDGETS or not 0 <= most < math.inf:
            raise ValueError(
                f"--keep is {of} {most:g}, but {', '.join(BUDGETS[:-1])} or {BUDGETS[-1]} and a "
                "number were expected"
            )
        return Budget(
            self.order,
            of,
            most,
            floor=self.floor,
            multiple=self.multiple,
            groups=self.groups,
            table=self.table,
            batch=self.batch,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(FolderCommand):
    """Write a model in a format of other libraries, or as a program that needs none."""

    model: Model
    """The folder of a model of hp_jax or of another library."""
    folder: Folder
    """The new folder."""
    to: Literal["hf", "hf-ragged", "fairseq", "marian", "safetensors", "stablehlo"]
    """The format; hf, fairseq and marian have zeros where heads were removed, so they are as large
    as the original; the others are not."""
    beam: int = 5
    """Hypotheses of beam search in a translation program; 1: greedy search."""
    source_length: int = 64
    """Most source tokens of a translation program."""
    force: Flag = False
    """Replace the model that is in the folder."""

    def run(self) -> None:
        """Exports it."""
        from hp_jax.architecture import Decoding
        from hp_jax.formats import export, model
        from hp_jax.storage.files import local_folder

        folder = local_folder(self.folder)
        export.export(
            model.load_model(self.model),
            folder,
            self.to,
            decoding=Decoding(beam=self.beam),
            source_length=self.source_length,
            force=self.force,
        )
        say(f"{self.folder}: {export.FORMATS[self.to]}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed(FolderCommand, Answer):
    """Time a model beside itself with fewer heads, and ask the compiler what that saves."""

    model: Model = ""
    """The folder of a model of hp_jax or of another library; empty: random weights of --shape."""
    removed: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="REMOVED")] = ""
    """The folder of the same model with fewer heads; empty: random heads are removed."""
    shape: Literal["", "tiny", "mini", "small", "medium", "minilm", "base", "transformer"] = ""
    """The shape of random weights, in place of a model: Google's BERT models, MiniLM with 6 layers,
    or the Transformer of 6 + 6 layers."""
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Shares of all heads that are removed at random."""
    multiple: int = 1
    """The number of heads of which every row keeps a multiple."""
    batch: tuple[int, ...] = (1, 4, 16, 64)
    """Examples in a batch."""
    length: tuple[int, ...] = (128,)
    """Tokens of an example (of a pair: of each side), random, without padding."""
    beam: tuple[int, ...] = (1, 4)
    """Hypotheses of a translation model's beam search; 1: greedy search."""
    rounds: int = 5
    """Rounds, in each of which every model is timed once."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The type of number that the model computes with."""
    seed: int = 0
    """The seed of random weights, heads and tokens."""
    out: str = "runs/speed"
    """The folder for speed.json and the plot."""
    force: Flag = False
    """Overwrite what is in that folder."""

    def run(self) -> None:
        """Times everything, writes it to `out`, and prints tables."""
        import jax

        from hp_jax.report.sections.speed import write
        from hp_jax.shrink import speed
        from hp_jax.storage.files import local_folder, sign

        names = [field.name for field in dataclasses.fields(speed.Setting)]
        setting = speed.Setting(**{name: getattr(self, name) for name in names})
        out, path = local_folder(self.out), Path(self.out) / "speed.json"
        rows = speed.speed(setting, out, force=self.force)
        text = write(rows, out, jax.devices()[0].device_kind)
        sign(out)
        self.answer({"path": str(path)} | json.loads(path.read_text()), f"{text}\n{path}")
