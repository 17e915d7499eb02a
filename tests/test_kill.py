"""Jobs that are killed, and two at once: nothing wrong is ever marked as done, and nothing is lost
but the chunk in flight."""

import contextlib
import itertools
import multiprocessing
import signal
import time

import kill_worker
import numpy as np
import pytest

from hp_jax.storage.store import open_store

SLOW_TO_IMPORT = [
    "jax",
    "hp_jax.grid",
    "hp_jax.models.classification",
    "hp_jax.formats.huggingface.bert",
    "hp_jax.data.batching",
]


@pytest.fixture(scope="module")
def processes():
    """Makes processes in which everything is imported already, but JAX has not started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_TO_IMPORT)
    return context


def started(processes, folder):
    """A process that is just about to create and fill the store."""
    listening, begun = processes.Pipe(duplex=False)
    process = processes.Process(target=kill_worker.fill, args=(folder, begun))
    process.start()
    begun.close()
    listening.recv_bytes()
    return process


def finish(processes, folder):
    """Fills the store undisturbed; the seconds it took."""
    process = started(processes, folder)
    begun = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begun


def check_done(folder, whole):
    """What is marked as done is there and right."""
    with contextlib.suppress(FileNotFoundError):
        store = open_store(folder)
        done = store.done()
        for name, values in whole.items():
            np.testing.assert_array_equal(store.read(name)[done], values[done])


def check_finished(folder, whole, kills):
    """The values are those of the undisturbed run, bit for bit, and each kill has cost one chunk at
    most."""
    for name, values in open_store(folder).read_items().items():
        assert values.tobytes() == whole[name].tobytes()
    chunks = folder.with_name(f"{folder.name}.log").stat().st_size
    assert chunks <= kill_worker.MASKS // kill_worker.CHUNK + kills


@pytest.mark.parametrize("many", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_change_nothing_and_cost_a_chunk_each(processes, tmp_path, many):
    seconds = finish(processes, tmp_path / "undisturbed")
    whole = open_store(tmp_path / "undisturbed").read_items()
    assert np.ptp(whole["loss"], axis=0).min() > 1e-3
    pauses = np.diff(np.sort(np.random.default_rng(0).uniform(0, seconds, many)), prepend=0)
    folders = (tmp_path / str(number) for number in itertools.count())
    folder, before, kills = next(folders), 0, 0
    while kills < many:
        process = started(processes, folder)
        process.join(pauses[kills])
        process.kill()
        process.join()
        check_done(folder, whole)
        if process.exitcode == -signal.SIGKILL:
            kills += 1
        else:  # it was quicker than the undisturbed one
            check_finished(folder, whole, kills - before)
            folder, before = next(folders), kills
    finish(processes, folder)
    check_finished(folder, whole, kills - before)


def test_two_jobs_create_and_fill_one_store_at_once(processes, tmp_path):
    folders, masks = [tmp_path / str(number) for number in range(20)], 7
    for folder in folders[::2]:  # what an interrupted creation of something else leaves
        kill_worker.create(folder, masks + 2)
        (folder / "manifest.json").unlink()
    barrier = processes.Barrier(2, timeout=30)
    jobs = [
        processes.Process(
            target=kill_worker.every_second_chunk, args=(folders, first, masks, barrier)
        )
        for first in range(2)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    for folder in folders:
        store = open_store(folder)
        for name, expected in kill_worker.values(masks).items():
            np.testing.assert_array_equal(store.read_items()[name], expected)
        np.testing.assert_array_equal(store.read("label"), np.arange(kill_worker.EXAMPLES))
