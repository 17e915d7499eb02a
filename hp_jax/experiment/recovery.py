"""Bringing pruned models back: scales on the heads that are left, by the loss or by least squares,
output projections by least squares, or more training."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from hp_jax.calibration import PASSES, RATE, calibrate, fold_scales
from hp_jax.config import Train
from hp_jax.experiment.corpus import Encoded
from hp_jax.experiment.results import check_same, provenance
from hp_jax.experiment.setup import Setup
from hp_jax.formats.model import load_model
from hp_jax.least_squares import RIDGE, Fit, repair
from hp_jax.removal import pad_heads, remove_heads
from hp_jax.sharding import device_mesh
from hp_jax.storage import fingerprint
from hp_jax.storage.checkpoint import is_model
from hp_jax.storage.files import local_folder, read_json
from hp_jax.storage.lock import alone
from hp_jax.task import Batch, Params
from hp_jax.train import Run, train

log = logging.getLogger("hp_jax")
Method = Literal["calibrate", "repair", "rescale", "retrain"]
FITS: Mapping[Method, Fit] = {"repair": "weights", "rescale": "scales"}
"""What is fitted by least squares."""
Learned = dict[str, Any]
"""What a recovery tells of itself, for config.json."""


@dataclasses.dataclass(frozen=True)
class Recovery:
    """One way to bring an experiment's pruned models back, and where it keeps them:
    out/`where`/models/NN, without NN heads.

    calibrate: each head that is left has its output scaled (`hp_jax.calibration`).  repair: output
    projections are fitted anew by least squares (`hp_jax.least_squares`).  rescale: so are a
    scale of each head that is left, and biases.  retrain: all parameters are trained with the heads
    fixed, starting from the model of the step before.
    """

    method: Method
    setup: Setup
    where: str

    @property
    def split(self) -> str:
        """Where it learns."""
        config = self.setup.config
        return config.train.split if self.method == "retrain" else config.importance.split

    @functools.cached_property
    def examples(self) -> Encoded:
        """What it learns from."""
        return self.setup.examples(self.split, training=self.method == "retrain")

    @functools.cached_property
    def recipe(self) -> Train:
        """How it trains."""
        config = self.setup.config
        rate = config.pruning.retrain_rate
        return dataclasses.replace(
            config.train,
            epochs=1,
            learning_rate=rate,
            schedule="linear",
            warmup=0.1,
            keep_epochs=False,
            final="last",
        )

    @functools.cached_property
    def inputs(self) -> dict[str, str]:
        """Hashes of what it depends on, whatever the mask."""
        config, data = self.setup.config, self.setup.corpus.data
        settings: dict[Method, list[Any]] = {
            "calibrate": [config.pruning.calibrate, PASSES, RATE],
            "repair": [config.pruning.repair, RIDGE],
            "rescale": [config.pruning.rescale, RIDGE],
            "retrain": [config.pruning.retrain_steps, self.recipe],
        }
        how = [
            *settings[self.method],
            self.method,
            config.seed,
            config.train.batch,
            config.train.batch_tokens,
            data.buckets,
            config.dtype,
        ]
        return {
            "model": self.setup.model.digest,
            "recovery": fingerprint.of_json(how),
            "recovery data": self.examples.fingerprint(),
        }

    def model(self, mask_AH: np.ndarray) -> Params:
        """The parameters of the recovered model, in the shape of the setup's: those that are kept,
        or else made now.

        Masks are to come with less and less on: retraining goes on from the smallest of the larger
        models that are kept.
        """
        removed = int((self.setup.present_AH & ~mask_AH).sum())
        if not removed:
            return self.setup.params
        larger = self._larger(removed)
        folder, start = self._folder(removed), self.setup.model.digest
        if larger:
            start = read_json(self._folder(larger) / "config.json")["params"]
        inputs = self.inputs | {"mask": fingerprint.of_arrays(mask_AH), "start": start}
        if is_model(folder):
            found = read_json(folder / "config.json").get("recovery", {}).get("inputs", {})
            check_same(found, inputs, folder)
        else:
            with alone(folder.parent.parent, "recovery"):
                params = self._load(larger) if larger else self.setup.params
                if self.method == "calibrate":
                    params, learned = self._calibrated(params, mask_AH)
                elif self.method in FITS:
                    params, learned = self._repaired(params, mask_AH)
                else:
                    params, learned = self._retrained(params, mask_AH, removed, inputs)
                config, small = remove_heads(self.setup.model.config, params, mask_AH)
                kept = dataclasses.replace(self.setup.model, config=config, params=small)
                about = {"recovery": {"inputs": inputs, **learned}}
                kept.save(folder, provenance(self.setup.config) | about)
                if jax.process_index() == 0:
                    shutil.rmtree(self._folder(removed, "states"), ignore_errors=True)
        return self._load(removed)

    def _larger(self, removed: int) -> int:
        """How many heads the smallest of the larger models that are kept lacks; 0: there is none,
        or it is not what this method starts from."""
        if self.method != "retrain":
            return 0
        return max((n for n in range(1, removed) if is_model(self._folder(n))), default=0)

    def _folder(self, removed: int, what: str = "models") -> Path:
        return local_folder(self.setup.config.out) / self.where / what / f"{removed:02d}"

    def _load(self, removed: int) -> Params:
        """A kept model, with zeros for the heads that it lacks."""
        kept = load_model(str(self._folder(removed)), self.setup.options)
        return remove_heads(*pad_heads(kept.config, kept.params), self.setup.present_AH)[1]

    def _batches(self, first: int) -> Iterator[Batch]:
        """Batches without end, in the orders of the epochs from `first` on."""
        for epoch in itertools.count(first):
            yield from self.setup.training_batches(self.examples, epoch)

    def _some(self, count: int) -> list[Batch]:
        """Whole batches of `count` examples or a few more, the same whatever the mask."""
        some, examples = [], 0
        for batch in self.setup.training_batches(self.examples, 0):
            if examples < count:
                some.append(batch)
                examples += int(batch["weight_B"].sum())
        return some

    def _calibrated(self, params: Params, mask_AH: np.ndarray) -> tuple[Params, Learned]:
        """Fits scales, and folds them into the output projections."""
        some = self._some(self.setup.config.pruning.calibrate)
        fitted = calibrate(self.setup.task, params, some, mask_AH, mesh=self.setup.mesh)
        learned = {
            "scales": fitted.scale_AH.tolist(),
            "loss before": fitted.before,
            "loss after": fitted.after,
        }
        return fold_scales(self.setup.model.config, params, fitted.scale_AH), learned

    def _repaired(self, params: Params, mask_AH: np.ndarray) -> tuple[Params, Learned]:
        """Fits the output projections of the heads that are left, or scales of these."""
        settings, fit = self.setup.config.pruning, FITS[self.method]
        some = self._some(settings.repair if fit == "weights" else settings.rescale)
        fitted = repair(self.setup.task, params, some, mask_AH, fit=fit, mesh=self.setup.mesh)
        rows = self.setup.rows
        learned = {
            "missing before": dict(zip(rows, fitted.before_A.tolist(), strict=True)),
            "missing after": dict(zip(rows, fitted.after_A.tolist(), strict=True)),
        }
        return fitted.params, learned

    def _retrained(
        self, params: Params, mask_AH: np.ndarray, removed: int, inputs: dict[str, str]
    ) -> tuple[Params, Learned]:
        """Trains on other batches for each mask.

        The heads that are off stay until the end, so that one program serves all masks; they get no
        gradient.
        """
        chosen = list(
            itertools.islice(self._batches(removed), self.setup.config.pruning.retrain_steps)
        )
        run = Run(
            self.setup.task,
            lambda epoch: chosen,
            lambda epoch, params: {},
            self.recipe,
            mask_AH=mask_AH,
            seed=self.setup.config.seed,
            mesh=device_mesh(),
            folder=self._folder(removed, "states"),
            inputs=inputs,
        )
        params, history = train(run, params)
        return params, {"training loss": history[-1]["training loss"]}
