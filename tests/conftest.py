"""Stricter than production: no silent rank promotion, key reuse is an error, and eight fake devices
for everything sharded."""

import hypothesis
import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update(
    "jax_disable_most_optimizations", True
)  # tiny models: compiling costs more than running

hypothesis.settings.register_profile(
    "shared", deadline=None
)  # a shared machine's timings say nothing
hypothesis.settings.load_profile("shared")
