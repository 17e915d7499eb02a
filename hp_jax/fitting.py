"""Fitting an experiment's models: training one, on which data and how it is judged, and bringing pruned ones back."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from hp_jax import fingerprint
from hp_jax.checkpoint import is_model, load_params
from hp_jax.config import Experiment, Train
from hp_jax.corpus import Encoded
from hp_jax.files import local_folder, read_json
from hp_jax.grid import evaluate_grid
from hp_jax.recovery import PASSES, RATE, calibrate, fold_scales
from hp_jax.removal import pad_heads, remove_heads
from hp_jax.sharding import device_mesh
from hp_jax.subject import Subject, load_subject, save_subject
from hp_jax.task import Batch, Params
from hp_jax.train import train

log = logging.getLogger("hp_jax")
Learned = dict[str, Any]
"""What a recovery tells of itself, for config.json."""


def train_model(config: Experiment) -> None:
    """Trains or fine-tunes `config.model` (or a new translation model) into out/model."""
    out, recipe = local_folder(config.out), config.train
    subject = load_subject(config, config.model, fresh=True)
    training, judging = subject.examples(recipe.split, training=True), subject.examples(recipe.evaluate)
    inputs = {
        "model": subject.digest,
        "data": training.fingerprint(),
        "evaluation data": judging.fingerprint(),
        "recipe": fingerprint.of_json(recipe),
        "seed": str(config.seed),
        "batching": fingerprint.of_json(subject.corpus.data.buckets),
        "dtype": config.dtype,
    }
    if is_model(out / "model"):
        _check_same(read_json(out / "model" / "config.json").get("training", {}).get("inputs", {}), inputs, out / "model")
        log.info("%s is already trained", out / "model")
        return
    judge = _judge(subject, judging)

    def evaluate(epoch: int, params: Params) -> dict[str, float]:
        if recipe.keep_epochs:
            save_subject(out / "epochs" / f"{epoch:02d}", subject, params, {"epoch": epoch})
        return judge(params)

    params, history = train(
        subject.task,
        subject.params,
        functools.partial(subject.training_batches, training),
        evaluate,
        recipe,
        mask_AH=subject.full_AH,
        seed=config.seed,
        mesh=device_mesh(),
        folder=out / "train",
        inputs=inputs,
    )
    params = _final(subject, params, history)
    save_subject(out / "model", subject, params, {"training": {"inputs": inputs, "history": history, "final": judge(params)}})


def _judge(subject: Subject, examples: Encoded) -> Callable[[Params], dict[str, float]]:
    """A function of parameters: the metric and the mean loss (nats an example) of the full model on `examples`."""
    batches, finish = subject.batches(examples), subject.corpus.finish(examples)
    fixed = {name: array for name, (_, array) in subject.corpus.kept(examples, 1)[0].items()}

    def judge(params: Params) -> dict[str, float]:
        full_1AH = subject.full_AH[None]
        values = evaluate_grid(subject.task, params, batches, full_1AH, chunk=1, finish=finish, label="evaluation")
        sums_1S = subject.metric.statistics(values | fixed).sum(-2, dtype=np.int64)
        return {subject.metric.name: float(subject.metric.score(sums_1S)[0]), "evaluation loss": float(values["loss"].mean())}

    return judge


def _final(subject: Subject, last: Params, history: Sequence[dict[str, float]]) -> Params:
    """The parameters that `train.final` asks for."""
    recipe = subject.config.train
    if recipe.final == "last":
        return last
    chosen = range(max(1, recipe.epochs + 1 - recipe.average), recipe.epochs + 1)
    if recipe.final == "best":
        best = max(history, key=lambda line: line[subject.metric.name])
        chosen = range(int(best["epoch"]), int(best["epoch"]) + 1)
    log.info("the model is that of epoch %s", ", ".join(map(str, chosen)))
    folders = [Path(subject.config.out) / "epochs" / f"{epoch:02d}" for epoch in chosen]
    models = [load_params(folder, read_json(folder / "config.json"), jax.eval_shape(lambda: last)) for folder in folders]
    return jax.tree.map(lambda *parts: sum(parts) / len(parts), *models)


def _check_same(found: dict[str, str], expected: dict[str, str], path: Path) -> None:
    differ = fingerprint.differing(found, expected)
    if differ:
        raise ValueError(f"{path} was made from other input (different {', '.join(differ)}); choose another --out or delete it")


# --- pruned models ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Recovery:
    """One way to bring an experiment's pruned models back, and where it keeps them: out/`where`/models/NN, without NN heads.

    calibrate: each head that is left has its output scaled (`hp_jax.recovery`).  retrain: all parameters are trained with the
    heads fixed, starting from the model of the step before.
    """

    kind: Literal["calibrate", "retrain"]
    subject: Subject
    where: str

    @property
    def split(self) -> str:
        """Where it learns."""
        config = self.subject.config
        return config.importance.split if self.kind == "calibrate" else config.train.split

    @functools.cached_property
    def examples(self) -> Encoded:
        """What it learns from."""
        return self.subject.examples(self.split, training=self.kind == "retrain")

    @functools.cached_property
    def recipe(self) -> Train:
        """How it trains."""
        config = self.subject.config
        rate = config.pruning.retrain_rate
        return dataclasses.replace(
            config.train, epochs=1, learning_rate=rate, schedule="linear", warmup=0.1, keep_epochs=False, final="last"
        )

    @functools.cached_property
    def inputs(self) -> dict[str, str]:
        """Hashes of what it depends on, whatever the mask."""
        config, data = self.subject.config, self.subject.corpus.data
        retrain = [config.pruning.retrain_steps, self.recipe]
        how: list[Any] = [config.pruning.calibrate, PASSES, RATE] if self.kind == "calibrate" else retrain
        how += [self.kind, config.seed, config.train.batch, config.train.batch_tokens, data.buckets, config.dtype]
        return {
            "model": self.subject.digest,
            "recovery": fingerprint.of_json(how),
            "recovery data": self.examples.fingerprint(),
        }

    def model(self, mask_AH: np.ndarray) -> Params:
        """The parameters of the recovered model, in the shape of the subject's: those that are kept, or else made now.

        Masks are to come with less and less on: retraining goes on from the smallest of the larger models that are kept.
        """
        removed = int((self.subject.task.full_AH & ~mask_AH).sum())
        if not removed:
            return self.subject.params
        larger = [n for n in range(1, removed) if is_model(self._folder(n))] if self.kind == "retrain" else []
        start = read_json(self._folder(larger[-1]) / "config.json")["params"] if larger else self.subject.digest
        inputs = self.inputs | {"mask": fingerprint.of_arrays(mask_AH), "start": start}
        if is_model(self._folder(removed)):
            about = read_json(self._folder(removed) / "config.json")
            _check_same(about.get("recovery", {}).get("inputs", {}), inputs, self._folder(removed))
        else:
            params = self._load(larger[-1]) if larger else self.subject.params
            if self.kind == "calibrate":
                params, learned = self._calibrated(params, mask_AH)
            else:
                params, learned = self._retrained(params, mask_AH, removed, inputs)
            config, small = remove_heads(self.subject.task.config, params, mask_AH)
            task: Any = self.subject.task  # of either kind, and of the config's
            kept = dataclasses.replace(self.subject, task=dataclasses.replace(task, config=config))
            save_subject(self._folder(removed), kept, small, {"recovery": {"inputs": inputs, **learned}})
            if jax.process_index() == 0:
                shutil.rmtree(self._folder(removed, "states"), ignore_errors=True)
        return self._load(removed)

    def _folder(self, removed: int, kind: str = "models") -> Path:
        return local_folder(self.subject.config.out) / self.where / kind / f"{removed:02d}"

    def _load(self, removed: int) -> Params:
        """A kept model, with zeros for the heads that it lacks."""
        kept = load_subject(self.subject.config, str(self._folder(removed)))
        return remove_heads(*pad_heads(kept.task.config, kept.params), self.subject.task.full_AH)[1]

    def _batches(self, first: int) -> Iterator[Batch]:
        """Batches without end, in the orders of the epochs from `first` on."""
        for epoch in itertools.count(first):
            yield from self.subject.training_batches(self.examples, epoch)

    def _calibrated(self, params: Params, mask_AH: np.ndarray) -> tuple[Params, Learned]:
        """Fits scales on the same batches whatever the mask, and folds them into the output projections."""
        some, examples = [], 0
        for batch in self.subject.training_batches(self.examples, 0):
            if examples < self.subject.config.pruning.calibrate:
                some.append(batch)
                examples += int(batch["weight_B"].sum())
        fitted = calibrate(self.subject.task, params, some, mask_AH)
        learned = {"scales": fitted.scale_AH.tolist(), "loss before": fitted.before, "loss after": fitted.after}
        return fold_scales(self.subject.task.config, params, fitted.scale_AH), learned

    def _retrained(self, params: Params, mask_AH: np.ndarray, removed: int, inputs: dict[str, str]) -> tuple[Params, Learned]:
        """Trains on other batches for each mask.

        The heads that are off stay until the end, so that one program serves all masks; they get no gradient.
        """
        chosen = list(itertools.islice(self._batches(removed), self.subject.config.pruning.retrain_steps))
        params, history = train(
            self.subject.task,
            params,
            lambda epoch: chosen,
            lambda epoch, params: {},
            self.recipe,
            mask_AH=mask_AH,
            seed=self.subject.config.seed,
            mesh=device_mesh(),
            folder=self._folder(removed, "states"),
            inputs=inputs,
        )
        return params, {"training loss": history[-1]["training loss"]}
