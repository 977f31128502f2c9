"""Load the text benchmarks with "hub", in a process whose HF_ENDPOINT is a fake hub; print what came as JSON.

python text_hub_probe.py [NAME]   # all text benchmarks, or one language benchmark
"""

import json
import sys

from sbt.benchmarks.common import language
from sbt.benchmarks.ethics import task as ethics
from sbt.benchmarks.truthfulqa import files as truthfulqa
from sbt.utils.errors import SbtError


def result(load):
    """What `load` gives, or its error as a text."""
    try:
        return load()
    except SbtError as error:
        return f"{type(error).__name__}: {error}"


def all_of_them() -> dict:
    """What the hub gives of every text benchmark."""
    found = {name: result(lambda name=name: [language.get(name).load("hub"), language.get(name).examples("hub")])
             for name in ("mmlu", "gsm8k", "mathqa", "boolq", "squad2")}  # fmt: skip
    for subset in ethics.SUBSETS:
        for split in ethics.SPLITS:
            found[f"{subset} {split}"] = result(lambda key=(subset, split): ethics.load("hub", *key))
    found["truthfulqa"] = result(lambda: truthfulqa.load("hub"))
    found["truthfulqa 2025-01"] = result(lambda: truthfulqa.load("hub", "2025-01"))
    return found


if __name__ == "__main__":
    one = sys.argv[1:]
    print(json.dumps(result(lambda: language.get(one[0]).load("hub")) if one else all_of_them()))
