"""Training with optax: one jitted step, deterministic by seed, resumed from the last checkpoint
with the same result."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from hp_jax.config import Train
from hp_jax.heads import gates
from hp_jax.progress import track
from hp_jax.sharding import place, place_batch
from hp_jax.storage.checkpoint import TrainingStates
from hp_jax.storage.fingerprint import differing
from hp_jax.task import Array, Batch, Params, Trainable

log = logging.getLogger("hp_jax")


class State(NamedTuple):
    """Everything that a step changes."""

    params: Params
    opt_state: Any
    step: jax.Array
    loss_sum: jax.Array
    """Sum of the losses of this epoch's steps."""


def optimizer(recipe: Train, steps: int) -> optax.GradientTransformation:
    """AdamW with the recipe's schedule and clipping; no weight decay on vectors (biases,
    LayerNorm)."""
    warmup = max(round(recipe.warmup * steps if recipe.warmup < 1 else recipe.warmup), 1)
    if recipe.schedule == "linear":
        after = optax.linear_schedule(recipe.learning_rate, 0.0, max(steps - warmup, 1))
    else:
        after = lambda step: recipe.learning_rate * (warmup / (step + warmup)) ** 0.5  # noqa: E731
    schedule = optax.join_schedules(
        [optax.linear_schedule(0.0, recipe.learning_rate, warmup), after], [warmup]
    )
    beta1, beta2 = recipe.betas
    adamw = optax.adamw(schedule, beta1, beta2, weight_decay=recipe.weight_decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(recipe.clip), adamw) if recipe.clip else adamw


def decayed(params: Params) -> Params:
    """Which parameters weight decay acts on: kernels and embeddings."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key in ("kernel", "embedding"), params
    )


@functools.partial(jax.jit, static_argnames=("task", "recipe", "steps"), donate_argnames="state")
def train_step(
    state: State,
    batch: Batch,
    mask_AH: Array,
    key: jax.Array,
    *,
    task: Trainable,
    recipe: Train,
    steps: int,
) -> State:
    """One update on the mean loss of the batch's predictions (examples, or target tokens)."""
    dropout = jax.random.fold_in(key, state.step)

    def mean_loss(params: Params) -> jax.Array:
        at = gates(mask_AH, task.present_AH)
        loss_B, count_B = task.training_loss(
            params, batch, at, dropout=dropout, smoothing=recipe.label_smoothing
        )
        return jnp.sum(loss_B * batch["weight_B"]) / jnp.sum(count_B * batch["weight_B"])

    loss, gradient = jax.value_and_grad(mean_loss)(state.params)
    updates, opt_state = optimizer(recipe, steps).update(gradient, state.opt_state, state.params)
    return State(
        optax.apply_updates(state.params, updates), opt_state, state.step + 1, state.loss_sum + loss
    )


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run: what is trained on what and how, and where its states are kept."""

    task: Trainable
    epoch_batches: Callable[[int], Sequence[Batch]]
    """The batches of an epoch: the same number for every epoch, and they depend on it alone; so a
    run that was killed goes on with the same result as one that was not."""
    evaluate: Callable[[int, Params], dict[str, float]]
    """(epoch, params): what the history says of an epoch besides its loss."""
    recipe: Train
    mask_AH: Array
    seed: int
    mesh: Mesh
    folder: Path
    """Of the training states."""
    inputs: Mapping[str, str]
    """Hashes of what the result depends on."""

    @functools.cached_property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return len(self.epoch_batches(0))

    @property
    def steps(self) -> int:
        """All steps."""
        return self.recipe.epochs * self.per_epoch


History = list[dict[str, float]]
"""A line an epoch."""


def train(run: Run, params: Params) -> tuple[Params, History]:
    """Trains for `run.recipe.epochs`, from the newest state in `run.folder` if there is one.

    ValueError if `run.folder` holds the states of another run.
    """
    per_epoch, key = run.per_epoch, jax.random.key(run.seed)
    with TrainingStates(run.folder) as states:
        state, history = _begin(run, params, states)
        start, began, examples = int(state.step), time.monotonic(), 0

        def status() -> str:
            done = int(state.step) % per_epoch  # waits for the device
            speed = f"{examples / (time.monotonic() - began):.0f} examples/s"
            return f"loss {float(state.loss_sum) / done:.4f}, {speed}" if done else speed

        steps = track(
            range(start, run.steps),
            "training",
            total=run.steps,
            done=start,
            unit="steps",
            status=status,
        )
        for step in steps:
            epoch, number = divmod(step, per_epoch)
            if step == start or number == 0:
                batches = run.epoch_batches(epoch)
            examples += int(batches[number]["weight_B"].sum())
            batch = place_batch(batches[number], run.mesh)
            state = train_step(
                state,
                batch,
                run.mask_AH,
                key,
                task=run.task,
                recipe=run.recipe,
                steps=run.steps,
            )
            last = number == per_epoch - 1
            saves = last or (step + 1) % run.recipe.save_every == 0
            if saves:
                _check_finite(run, epoch + 1, step + 1, state)
            if last:
                state = _end_epoch(run, epoch + 1, state, history)
            if saves:
                states.save(step + 1, state, {"history": history, "inputs": dict(run.inputs)})
    return state.params, history


def _begin(run: Run, params: Params, states: TrainingStates) -> tuple[State, History]:
    """The newest state that is kept and its history, or the first one."""
    # The step donates its state; the caller's parameters are copied so that they survive.
    params = jax.tree.map(jnp.copy, params)
    first = optimizer(run.recipe, run.steps).init(params)
    state = place(State(params, first, jnp.zeros((), jnp.int32), jnp.zeros(())), run.mesh)
    restored = states.restore(jax.eval_shape(lambda: state))
    if restored is None:
        return state, []
    differ = differing(restored[1]["inputs"], run.inputs)
    if differ:
        raise ValueError(
            f"{run.folder} holds another training run (different {', '.join(differ)}); choose "
            "another folder"
        )
    state = place(restored[0], run.mesh)
    log.info("training continues after step %d of %d", int(state.step), run.steps)
    return state, restored[1]["history"]


def _check_finite(run: Run, epoch: int, step: int, state: State) -> None:
    """ValueError if the loss is no number any more: such a state is not saved."""
    loss = float(state.loss_sum)
    if not math.isfinite(loss):
        raise ValueError(
            f"the sum of the training losses of epoch {epoch} is {loss} after step {step} of "
            f"{run.steps}: this state is not saved (the last that was is in {run.folder}); try a "
            "lower train.learning_rate, or train.clip"
        )


def _end_epoch(run: Run, epoch: int, state: State, history: History) -> State:
    """Adds the epoch's line to the history; the state with which the next one begins."""
    line = {"epoch": epoch, "training loss": float(state.loss_sum) / run.per_epoch}
    history.append(line | run.evaluate(epoch, state.params))
    log.info(", ".join(f"{name} {value:.4g}" for name, value in history[-1].items()))
    return state._replace(loss_sum=place(jnp.zeros(()), run.mesh))
