"""Puts the notebooks and the parameter files into the package, so that one `pip install` brings a whole study."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["sbt*"]), "sbt.notebooks", "sbt.params"],
    package_dir={"sbt.notebooks": "notebooks", "sbt.params": "params"},
    package_data={
        "sbt": ["templates/*", "training/engines/*.yaml", "microworld/assets/**/*", "report/**/*.yaml"],
        "sbt.notebooks": ["*.ipynb"],
        "sbt.params": ["**/*.yaml"],
    },
)
