#!/usr/bin/env bash
# Runs one hp-jax command on all workers of a Cloud TPU pod slice together:
#
#   scripts/tpu_pod.sh setup NAME ZONE
#   scripts/tpu_pod.sh NAME ZONE ablate sst2 --out gs://bucket/sst2
#
# `setup` copies the committed state of this checkout to hp_jax/ in each worker's home folder and
# installs it there, in hp_jax/.venv; again after a change. Commands run in hp_jax/. Each worker
# reads the data and the model itself, so these must be on every worker, or on a disk that all have
# mounted. `out` must be a bucket (gs://...) or on such a disk; to train it must be on a disk. After
# an interruption, the same command goes on from the last finished chunk.

set -euo pipefail

usage() {
    echo "usage: tpu_pod.sh setup NAME ZONE" >&2
    echo "       tpu_pod.sh NAME ZONE COMMAND [ARGUMENT ...]" >&2
    exit 2
}

on_all_workers() { # NAME ZONE SHELL_COMMAND
    gcloud compute tpus tpu-vm ssh "$1" --zone "$2" --worker=all --command "$3"
}

set_up() { # NAME ZONE
    local archive
    archive=$(mktemp -d)/hp_jax.tar.gz
    git -C "$(dirname "$0")/.." archive --format=tar.gz --output="$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$1:" --zone "$2" --worker=all
    rm -r "$(dirname "$archive")"
    on_all_workers "$1" "$2" "set -e
        mkdir -p hp_jax && tar -xzf hp_jax.tar.gz -C hp_jax && cd hp_jax
        python3 -m pip install --quiet --user uv
        [ -d .venv ] || python3 -m uv venv --python 3.12 .venv
        python3 -m uv pip install --quiet --python .venv/bin/python -e '.[tpu]'"
}

(($# >= 3)) || usage
if [[ $1 == setup ]]; then
    (($# == 3)) || usage
    set_up "$2" "$3"
else
    name=$1 zone=$2
    shift 2
    on_all_workers "$name" "$zone" "cd hp_jax && .venv/bin/hp-jax$(printf ' %q' "$@") --multihost"
fi
