"""Sight Beyond Text, reproducible: does visual instruction tuning make a language model more truthful on pure text?

A notebook starts with `run = sbt.begin(globals())` and ends with `run.finish(metrics)`.
"""

from sbt.study.runs import begin

__version__ = "0.1.0"
__all__ = ["__version__", "begin"]
