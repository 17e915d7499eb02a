"""Stricter than production: no silent rank promotion, key reuse is an error, and eight fake devices for everything sharded."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_disable_most_optimizations", True)  # tiny models: compiling costs more than running


@pytest.fixture
def key():
    return jax.random.key(0)
