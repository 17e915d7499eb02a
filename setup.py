"""The packages, which pyproject.toml cannot say: configs/ is a folder of hp_jax once installed."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["hp_jax*"]), "hp_jax.configs"],
    package_dir={"hp_jax.configs": "configs"},
)
