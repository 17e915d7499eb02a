"""The command `hp-jax`."""
