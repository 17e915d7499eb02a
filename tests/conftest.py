"""Stricter than production: no silent rank promotion, key reuse is an error, and eight fake devices
for everything sharded.

Tiny models: compiling costs more than running, so it is made cheap, in the processes that tests
start too (their environment is this one's).
"""

import gc
import os

import hypothesis
import jax
import pytest

if jax.__version_info__ < (0, 11):  # half of the time of compiling; 0.12 refuses to start with it
    CHEAP = "--xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {CHEAP}".strip()
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_disable_most_optimizations", True)

hypothesis.settings.register_profile(
    "shared", deadline=None
)  # a shared machine's timings say nothing
hypothesis.settings.load_profile("shared")


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_are_let_go():
    """A file's programs serve no other: otherwise they would fill gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()
