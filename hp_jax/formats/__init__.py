"""Checkpoints of other libraries, read into hp_jax configs and parameters."""
