"""`python -m hp_jax`: the command `hp-jax`."""

import sys

from hp_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
