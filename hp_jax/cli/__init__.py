"""The command `hp-jax`: one sub-command a step or a folder, all of one grammar.

`command` says what a command is, `steps` has those that take a config, `folders` those that take
folders, `parsing` the grammar, `dispatch` the choice of one and what is said when something is
wrong.  Nothing heavy is imported before a command runs.
"""

from hp_jax.cli.dispatch import main
from hp_jax.config_files import load_config

__all__ = ["load_config", "main"]
