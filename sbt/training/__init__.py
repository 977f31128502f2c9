"""Supervised fine-tuning of any arm, by TRL: the one place that touches it.

result = sft(model, processor, rows, folder, Settings(learning_rate=2e-3, conversation="plain"))
result = launch(spec, folder, settings, engine="ddp", processes=2)
"""

from sbt.training.collator import Collator, labels
from sbt.training.inspect import render_html
from sbt.training.launch import launch
from sbt.training.settings import Result, Settings
from sbt.training.spec import build, formats
from sbt.training.train import sft

__all__ = ["Collator", "Result", "Settings", "build", "formats", "labels", "launch", "render_html", "sft"]
