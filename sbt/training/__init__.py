"""Supervised fine-tuning of any arm, by TRL: the only folder that imports it.

result = sft(model, processor, rows, folder, Settings(learning_rate=2e-3, conversation="plain"))
result = launch(spec, folder, settings, engine="ddp", processes=2)
"""

from sbt.training.collator import Collator, labels
from sbt.training.distributed import build_model_and_rows, formats, launch
from sbt.training.inspect import render, response_logprobs
from sbt.training.settings import Result, Settings
from sbt.training.train import sft
from sbt.training.variants import varied

__all__ = [
    "Collator",
    "Result",
    "Settings",
    "build_model_and_rows",
    "formats",
    "labels",
    "launch",
    "render",
    "response_logprobs",
    "sft",
    "varied",
]
