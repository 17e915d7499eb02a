"""Many processes of the real command give what one gives, die without harm, and start the way that
clusters start them."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from tiny import config_file, write_hf_folder, write_sst2

from hp_jax import experiment, sharding
from hp_jax.cli import load_config, main
from hp_jax.config import FINE_TUNING, Ablation, ClassificationExperiment, Data, Importance, Pruning
from hp_jax.experiment import results
from hp_jax.storage import lock
from hp_jax.storage.checkpoint import load_params
from hp_jax.storage.store import find_stores, open_store

ROOT = pathlib.Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
GRIDS = (
    "--ablation.sets",
    "one_off",
    "prefixes",
    "--data.buckets",
    "8",
    "16",
    "--importance.no-keep-gradients",
)
KILLED = ("--ablation.sets", "pairs", "--ablation.masks-at-once", "1", "--data.batch", "1")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The config file of a tiny experiment with a trained model; the last batch of every split has
    a single example."""
    folder = tmp_path_factory.mktemp("hosts")
    write_hf_folder(folder / "hf", head=True, layers=1, heads=8)
    write_sst2(folder / "sst2", train=40, validation=42)
    config = ClassificationExperiment(
        model=str(folder / "hf"),
        data=Data(task="sst2", path=str(folder / "sst2"), max_length=16, buckets=(16,), batch=5),
        train=dataclasses.replace(FINE_TUNING, epochs=2, batch=10, learning_rate=1e-3),
        importance=Importance(split="train[:16]", keep_gradients=True),
        ablation=Ablation(splits=("validation[:50%]",), masks_at_once=2),
        pruning=Pruning(shares=(0.0, 0.3, 0.6, 1.0)),
    )
    own = experiment.load(config)
    for split in (*config.ablation.splits, config.importance.split, config.pruning.test):
        assert own.batches(split)[-1]["weight_B"].sum() == 1
    own.model.save(folder / "model", {})
    return config_file(folder, config)


CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def words(command, config, out, *more):
    return [
        command,
        config,
        "--model",
        str(pathlib.Path(config).parent / "model"),
        "--out",
        str(out),
        *more,
    ]


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """What a single process gives."""
    out = tmp_path_factory.mktemp("alone")
    assert main(words("ablate", config, out / "ablate", *GRIDS)) == 0
    assert main(words("prune", config, out / "prune")) == 0
    assert main(words("ablate", config, out / "killed", *KILLED)) == 0
    return out


def check_same(found, expected):
    names = [store.path.removeprefix(str(expected)) for store in find_stores(expected)]
    assert names
    assert [store.path.removeprefix(str(found)) for store in find_stores(found)] == names
    for name in names:
        ours, theirs = open_store(f"{found}{name}"), open_store(f"{expected}{name}")
        assert ours.done().all()
        for array in theirs.manifest["arrays"]:
            exact = theirs.read(array).dtype.kind != "f"
            np.testing.assert_allclose(
                ours.read(array), theirs.read(array), **({"rtol": 0} if exact else CLOSE)
            )


# --- processes -----------------------------------------------------------------------------------


def environment(config, devices, **more):
    """Of a process with so many fake devices; what one process compiles, the next finds."""
    jax_settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(config).parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return os.environ | {"PYTHONPATH": str(ROOT), **jax_settings, **more}


def free_port(ports=(0,)):
    for port in ports:
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("localhost", port))
            return one.getsockname()[1]
    raise OSError("no port is free")


def start(config, arguments, *, count, devices=1):
    """So many processes, told of each other by environment variables."""
    cluster = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "JAX_NUM_PROCESSES": str(count),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "hp_jax", *arguments, "--multihost"],
            env=environment(config, devices, JAX_PROCESS_ID=str(number), **cluster),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def ended(processes, seconds=120):
    """The exit statuses, and what was said on stderr."""
    said = [process.communicate(timeout=seconds)[1] for process in processes]
    return [process.returncode for process in processes], said


def program(folder, name, text):
    """A shell script in `folder`, which comes first on the path that is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\nset -eu\n{text}")
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


SRUN = """
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_STEP_NUM_NODES=2
export SLURM_STEP_TASKS_PER_NODE='1(x2)'
for task in 0 1; do SLURM_PROCID=$task "$@" 2>"$SAID.$task" & tasks[task]=$!; done
for task in 0 1; do wait "${tasks[task]}"; done
"""


def test_two_processes_that_slurm_starts_give_what_one_gives(config, alone, tmp_path):
    """Without arguments about hosts; all four devices share every batch, and the second process has
    nothing of the last."""
    path = program(tmp_path / "bin", "srun", SRUN)
    program(tmp_path / "bin", "hp-jax", f'exec {sys.executable} -m hp_jax "$@"\n')
    job = (
        free_port(range(61440, 65536)) - 61440 + 7 * 4096
    )  # JAX makes the port of the job's number
    said = {"SAID": str(tmp_path / "said"), "SLURM_JOB_ID": str(job)}
    arguments = words("ablate", config, tmp_path / "out", *GRIDS, "--ablation.mask-devices", "1")
    environ = environment(config, 2, **path, **said)
    subprocess.run(
        ["bash", SCRIPTS / "slurm.sbatch", *arguments], env=environ, check=True, timeout=120
    )
    check_same(tmp_path / "out", alone / "ablate")
    assert "ablation/validation-0-50pc/one_off: 9/9 masks" in (tmp_path / "said.0").read_text()
    assert "masks" not in (tmp_path / "said.1").read_text()
    assert (
        open_store(tmp_path / "out/ablation/validation-0-50pc/one_off").manifest["devices"]
        == ["cpu"] * 4
    )


@pytest.mark.slow
def test_four_processes_prune_as_one_does(config, alone, tmp_path):
    """Each device has masks of its own."""
    arguments = words("prune", config, tmp_path / "out", "--ablation.mask-devices", "4")
    status, said = ended(start(config, arguments, count=4))
    assert status == [0] * 4, said
    check_same(tmp_path / "out", alone / "prune")


@pytest.mark.slow
def test_no_process_has_all_parameters(config, alone, tmp_path):
    """Four devices of two processes have a part each, from the file on."""
    split = ("--tensor-devices", "4", *GRIDS)
    arguments = words("ablate", config, tmp_path / "out", *split)
    status, said = ended(start(config, arguments, count=2, devices=2))
    assert status == [0] * 2, said
    check_same(tmp_path / "out", alone / "ablate")


@pytest.mark.slow
def test_whoever_is_killed_the_others_end_and_nothing_that_was_finished_is_done_again(
    config, alone, tmp_path
):
    out, kept = tmp_path / "out", {}
    for victim in (1, 0):
        processes = start(config, words("ablate", config, out, *KILLED), count=2)
        before = finished(out)
        while len(finished(out)) <= len(before) + 1 and processes[victim].poll() is None:
            time.sleep(0.005)
        processes[victim].send_signal(signal.SIGKILL)
        status, said = ended(processes)
        assert status[victim] == -signal.SIGKILL
        assert status[1 - victim] == 1
        (sentence,) = [line for line in said[1 - victim].splitlines() if "error" in line.lower()]
        assert sentence.startswith("hp-jax: error")
        assert sentence.endswith("see there why; all started again go on from here")
        kept |= finished(out)
        assert 0 < len(kept) < 29
    status, said = ended(start(config, words("ablate", config, out, *KILLED), count=2))
    assert status == [0, 0], said
    assert "29/29 masks" in said[0]
    check_same(out, alone / "killed")
    after = finished(out)
    assert {mask: after[mask] for mask in kept} == kept


def finished(out):
    """When the chunk of each finished mask was written."""
    with contextlib.suppress(OSError):
        store = open_store(out / "ablation/validation-0-50pc/pairs")
        return {
            int(mask): (out / f"ablation/validation-0-50pc/pairs/loss/c/{mask}/0")
            .stat()
            .st_mtime_ns
            for mask in np.flatnonzero(store.done())
        }
    return {}


def test_two_processes_go_on_with_the_training_of_one(config, tmp_path):
    """Same parameters, and the model is read by one process again.

    But for the keys' biases, on which the loss does not depend: their gradients are rounding
    errors, which Adam magnifies.
    """
    model = str(pathlib.Path(config).parent / "hf")
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["train", config, "--out", str(one), "--model", model]) == 0
    shutil.copytree(one / "train", two / "train")
    shutil.rmtree(two / "train/8")
    status, said = ended(
        start(config, ["train", config, "--out", str(two), "--model", model], count=2)
    )
    assert status == [0, 0], said
    assert "training continues after step 4 of 8" in said[0]
    own = experiment.load(load_config(config))
    described = [json.loads((out / "model/config.json").read_text()) for out in (one, two)]
    trained = [
        load_params(out / "model", *of, own.params)
        for out, *of in zip((one, two), described, strict=True)
    ]
    for (path, ours), theirs in zip(
        jax.tree.leaves_with_path(trained[1]), jax.tree.leaves(trained[0]), strict=True
    ):
        if not jax.tree_util.keystr(path).endswith("['key']['bias']"):
            np.testing.assert_allclose(ours, theirs, **CLOSE)
    kernel = [params["pool"]["kernel"] for params in (trained[1], own.params)]
    assert abs(kernel[0] - kernel[1]).max() > 1e-3


# --- what is wrong is said -----------------------------------------------------------------------


def test_without_a_cluster_the_flag_gives_one_sentence(config):
    command = [sys.executable, "-m", "hp_jax", "ablate", config, "--multihost"]
    found = subprocess.run(command, env=environment(config, 1), capture_output=True, text=True)
    assert found.returncode == 1
    error = found.stderr
    assert error.startswith(
        "hp-jax: error: found no Cloud TPU, Slurm, Kubernetes or Open MPI: expected "
        "JAX_COORDINATOR_ADDRESS"
    )
    assert error.count("\n") == 1


def test_commands_of_one_process_do_not_offer_the_flag(config, capsys):
    assert main(["translate", config, "--multihost"]) == 2
    assert "there is no option --multihost" in capsys.readouterr().err


def test_hosts_that_do_not_share_the_folder_are_told(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "agreed", lambda array: array + 1)
    assert main(words("importance", config, tmp_path / "out")) == 1
    assert "importance is another folder here than on the first host" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tasks", "gpus", "expected"),
    [("1(x4)", "8", list(range(8))), ("1", "2", [0, 1]), ("8(x4)", "8", None), ("1(x2)", "", None)],
)
def test_one_slurm_task_a_node_takes_all_of_its_gpus(monkeypatch, tasks, gpus, expected):
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", tasks)
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", gpus)
    given = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: given.update(options))
    sharding.join_hosts()
    assert given["local_device_ids"] == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ADDRESS": "localhost:99999"}, "the port from 1 to 65535"),
        ({"ADDRESS": "localhost:0"}, "the port from 1 to 65535"),
        ({"ADDRESS": "localhost"}, "host:port of the first process was expected"),
        ({"ADDRESS": ":80"}, "host:port of the first process was expected"),
        ({"ADDRESS": "a..b:80"}, r"there is no host 'a\.\.b'"),
        ({"ADDRESS": "http://localhost:80"}, "there is no host 'http://localhost'"),
        ({"COUNT": "two"}, "JAX_NUM_PROCESSES is 'two', but an integer from 1"),
        ({"COUNT": "0"}, "JAX_NUM_PROCESSES is '0', but an integer from 1"),
        ({"OWN": "-1"}, "JAX_PROCESS_ID is '-1', but an integer from 0"),
        ({"OWN": "2"}, "JAX_PROCESS_ID is 2, but of JAX_NUM_PROCESSES=2 processes the last is 1"),
        ({"LOCAL": "0,x"}, "JAX_LOCAL_DEVICE_IDS is '0,x', but numbers of devices"),
        ({"ADDRESS": "localhost:{taken}"}, r"the first process cannot listen at port \d+: Address"),
    ],
)
def test_settings_that_no_cluster_has_are_named(monkeypatch, settings, expected):
    """Before JAX sees them, which would abort the process."""
    monkeypatch.setattr(jax.distributed, "initialize", pytest.fail)
    with socket.create_server(("localhost", 0)) as taken:
        usual = {"ADDRESS": f"localhost:{free_port()}", "COUNT": "2", "OWN": "0", "LOCAL": ""}
        names = ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID", "LOCAL_DEVICE_IDS")
        for name, value in zip(names, (usual | settings).values(), strict=True):
            monkeypatch.setenv(f"JAX_{name}", value.format(taken=taken.getsockname()[1]))
        with pytest.raises((ValueError, OSError), match=expected):
            sharding.join_hosts()


SUPERVISED = """
import os, signal, sys
from hp_jax.cli import hosts
if not hosts.is_worker():
    sys.exit(hosts.supervise())
print("a line", file=sys.stderr, flush=True)
print(sys.argv[2], file=sys.stderr, flush=True)
os.kill(os.getpid(), int(sys.argv[1])) if int(sys.argv[1]) else signal.pause()
"""
FATAL = "F1126 07:56:51.709820   24691 client.h:80] Terminating. absl::Status: "
TRACE = "\n*** Check failure stack trace: ***\n    @ 0x7f absl::LogMessage::Flush()"


def supervised(number, text=""):
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISED, str(int(number)), text],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"{FATAL}UNAVAILABLE: These tasks are silent:\n1\nThe tasks crashed. Check.\n{TRACE}",
            "another process has ended, or nothing was heard of it for 30 seconds (UNAVAILABLE: "
            "These tasks are silent: 1); see there why; all started again go on from here",
        ),
        (
            f"{FATAL}DEADLINE_EXCEEDED: Deadline\n\nRPC: /xla.Coordination/RegisterTask{TRACE}",
            "could not join the other processes (DEADLINE_EXCEEDED: Deadline): within 120 seconds",
        ),
        (f"{FATAL}{TRACE}\nhp-jax: error: what it says itself", "what it says itself"),
        ("", "the process that does the work was ended by SIGABRT"),
    ],
)
def test_what_xla_says_when_it_aborts_becomes_one_sentence(text, expected):
    with supervised(signal.SIGABRT, text) as process:
        said = process.communicate(timeout=60)[1].strip().splitlines()
    assert process.returncode == 1
    assert said[0].startswith("a line")
    assert said[-1].startswith(f"hp-jax: error: {expected}")
    assert len([line for line in said if line]) == 2


def test_signals_reach_the_process_that_does_the_work():
    """And it ends when the one that a launcher knows is killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with supervised(0) as process:
            process.stderr.readline()
            process.send_signal(number)
            assert process.wait(timeout=60) == -number
            assert not process.stderr.read().strip()  # which ends when nobody can write any more


@pytest.mark.slow
def test_processes_that_do_not_find_each_other_say_so():
    command = (
        "import sys; from hp_jax import sharding; sharding.PATIENCE = 1\n"
        "from hp_jax.cli import main; sys.exit(main())"
    )
    settings = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    for number in "01":
        found = subprocess.run(
            [sys.executable, "-c", command, "ablate", "sst2", "--multihost"],
            env=os.environ | settings | {"JAX_PROCESS_ID": number},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert found.returncode == 1
        assert found.stderr.startswith(
            "hp-jax: error: could not join the other processes (DEADLINE"
        )
        assert found.stderr.count("\n") == 1


# --- trainings, buckets and launchers ------------------------------------------------------------


def test_a_second_training_in_a_folder_says_so(config, tmp_path, capsys):
    model = ["--model", str(pathlib.Path(config).parent / "hf")]
    with lock.alone(tmp_path, "training"):
        assert main(["train", config, "--out", str(tmp_path), *model]) == 1
        assert f"another training is going on in {tmp_path}" in capsys.readouterr().err
        assert not (tmp_path / "train").exists()
    with lock.alone(tmp_path, "training"):
        pass


@pytest.mark.parametrize(
    "line",
    [
        "ablate CONFIG --model gs://b/m --out OUT",
        "ablate CONFIG --model MODEL --data.path gs://b/m --out OUT",
        "ablate CONFIG --model MODEL --ablation.masks gs://b/m --out OUT",
        "ablate CONFIG --model MODEL --ablation.order s3://b/m --out OUT",
        "train CONFIG --out gs://b/m",
        "vocabulary translation --data.path gs://b/m --out OUT",
        "convert gs://b/m OUT",
        "convert MODEL gs://b/m",
        "remove MODEL gs://b/m --heads 0.0",
        "remove MODEL OUT --mask http://b/m",
        "export MODEL gs://b/m --to hf",
        "report gs://b/m",
    ],
)
def test_nothing_but_results_is_in_a_bucket(config, tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    places = {"CONFIG": config, "MODEL": str(pathlib.Path(config).parent / "hf"), "OUT": "out"}
    assert main([places.get(word, word) for word in line.split()]) == 1
    said = capsys.readouterr().err
    assert re.search("(gs|s3|http)://b/m(, but expected on a disk| is a bucket, but models)", said)
    assert said.splitlines()[-1].startswith("hp-jax: error: ")
    assert not list(tmp_path.iterdir())


def test_results_in_a_bucket(config, alone, tmp_path, monkeypatch, capsys):
    """A file:// URL is a bucket to everything but tensorstore."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    bucket = f"file://{tmp_path}/bucket"
    assert main(words("ablate", config, bucket, *GRIDS)) == 0
    check_same(tmp_path / "bucket", alone / "ablate")
    for command in ("train", "run"):
        assert main(words(command, config, bucket)) == 1
        assert (
            f"error: {bucket} is a bucket, but models and reports need a folder on a disk"
            in capsys.readouterr().err
        )
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("script", ["tpu_pod.sh", "slurm.sbatch"])
def test_launchers_are_scripts_and_say_how_they_are_used(script):
    subprocess.run(["bash", "-n", SCRIPTS / script], check=True)
    found = subprocess.run(["bash", SCRIPTS / script], capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr.startswith("usage: ")


GCLOUD = """
printf '%s\\0' "$@" > "$SAID"
(cd "$SAID.home" && bash -c "${@: -1}")
"""


def test_every_worker_of_a_tpu_pod_gets_the_words_as_they_are(tmp_path):
    path = program(tmp_path / "bin", "gcloud", GCLOUD)
    program(
        tmp_path / "said.home/hp_jax/.venv/bin",
        "hp-jax",
        """printf '%s\\0' "$PWD" "$@" > arguments\n""",
    )
    awkward = [
        "ablate",
        "it's.py",
        "--data.labels",
        "a b",
        '"q"',
        "$HOME",
        "*",
        "",
        "--out",
        "gs://bucket/x;y",
        "two\nlines",
    ]
    environ = os.environ | path | {"SAID": str(tmp_path / "said")}
    subprocess.run(
        ["bash", SCRIPTS / "tpu_pod.sh", "pod", "zone", *awkward], env=environ, check=True
    )
    given = (tmp_path / "said").read_text().split("\0")
    assert given[:9] == [
        "compute",
        "tpus",
        "tpu-vm",
        "ssh",
        "pod",
        "--zone",
        "zone",
        "--worker=all",
        "--command",
    ]
    home = tmp_path / "said.home/hp_jax"
    assert (home / "arguments").read_text().split("\0")[:-1] == [str(home), *awkward, "--multihost"]
