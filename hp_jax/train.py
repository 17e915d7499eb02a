"""Training with optax: one jitted step, deterministic by seed, resumed from the last checkpoint
with the same result."""

from __future__ import annotations

import functools
import logging
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


def train(
    task: Trainable,
    params: Params,
    epoch_batches: Callable[[int], Sequence[Batch]],
    evaluate: Callable[[int, Params], dict[str, float]],
    recipe: Train,
    *,
    mask_AH: Array,
    seed: int,
    mesh: Mesh,
    folder: Path,
    inputs: Mapping[str, str],
) -> tuple[Params, list[dict[str, float]]]:
    """Trains for `recipe.epochs`; the parameters, and a line of history an epoch, with what
    `evaluate(epoch, params)` says.

    `epoch_batches(epoch)` gives the same number of batches for every epoch and depends on the epoch
    alone; so a run that was killed continues from `folder` with the same result as one that was
    not.  `inputs` are hashes of what the result depends on: ValueError if `folder` holds the states
    of another run.
    """
    per_epoch = len(epoch_batches(0))
    steps = recipe.epochs * per_epoch
    # The step donates its state; the caller's parameters are copied so that they survive.
    params = jax.tree.map(jnp.copy, params)
    state = place(
        State(
            params, optimizer(recipe, steps).init(params), jnp.zeros((), jnp.int32), jnp.zeros(())
        ),
        mesh,
    )
    history: list[dict[str, float]] = []
    with TrainingStates(folder) as states:
        restored = states.restore(jax.eval_shape(lambda: state))
        if restored is not None:
            differ = differing(restored[1]["inputs"], inputs)
            if differ:
                raise ValueError(
                    f"{folder} holds another training run (different {', '.join(differ)}); choose "
                    "another folder"
                )
            state, history = place(restored[0], mesh), restored[1]["history"]
            log.info("training continues after step %d of %d", int(state.step), steps)
        start = int(state.step)
        batches = epoch_batches(start // per_epoch)
        began, examples = time.monotonic(), 0

        def status() -> str:
            done = int(state.step)  # waits for the device
            speed = f"{examples / (time.monotonic() - began):.0f} examples/s"
            return (
                f"loss {float(state.loss_sum) / (done % per_epoch):.4f}, {speed}"
                if done % per_epoch
                else speed
            )

        for step in track(
            range(start, steps), "training", total=steps, done=start, unit="steps", status=status
        ):
            epoch, number = divmod(step, per_epoch)
            if number == 0:
                batches = epoch_batches(epoch)
            batch = place_batch(batches[number], mesh)
            examples += int(batches[number]["weight_B"].sum())
            state = train_step(
                state, batch, mask_AH, jax.random.key(seed), task=task, recipe=recipe, steps=steps
            )
            last = number == per_epoch - 1
            if last:
                line = {"epoch": epoch + 1, "training loss": float(state.loss_sum) / per_epoch}
                history.append(line | evaluate(epoch + 1, state.params))
                log.info(", ".join(f"{name} {value:.4g}" for name, value in history[-1].items()))
                state = state._replace(loss_sum=place(jnp.zeros(()), mesh))
            if last or (step + 1) % recipe.save_every == 0:
                states.save(step + 1, state, {"history": history, "inputs": dict(inputs)})
    return state.params, history
