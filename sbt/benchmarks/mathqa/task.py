"""MathQA (Amini et al. 2019): word problems with five options, four-shot. A JSON list: Problem, options, correct.

Prompt: lm_eval/tasks/mathqa/mathqa.yaml (0.4.13); "paper" (0.3, lm_eval/tasks/mathqa.py) asks and scores the same.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import language
from sbt.benchmarks.common.samples import item_scores as scores_of_items
from sbt.utils import paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_json

NAME, TASK, SHOTS, SPLIT, SHOTS_SPLIT = "mathqa", "mathqa", 4, "test", "train"
KIND = {"standard": "choice", "paper": "choice"}
LETTERS = "abcde"
METRICS = {"standard": ("acc", "acc_norm"), "paper": ("acc", "acc_norm")}
FILES = {"test": ("test.json",), "train": ("train.json",), "validation": ("dev.json", "validation.json")}
# The harness's own reading of "a ) 24 , b ) 120 , ..." (lm_eval/tasks/mathqa/utils.py).
_OPTIONS = re.compile(r"[abcd] \) .*?, |e \) .*?$")


def load(path: Path | str, split: str = SPLIT) -> list[dict]:
    """Docs {Problem, options, correct} of a file, or of the split's file in a folder."""
    path = language.source(path, split, FILES)
    return from_rows(read_json(path), paths.shown(path))


def from_rows(rows: Sequence[dict], name: str) -> list[dict]:
    """Docs of the publisher's or the hub's rows; DataError names the row that has not five options and one answer."""
    docs = []
    for where, row in language.listed(rows, name):
        doc = {field: language.text(row, field, where) for field in ("Problem", "options", "correct")}
        if doc["correct"] not in tuple(LETTERS):
            raise DataError(f"{where}: 'correct' must be one of {', '.join(LETTERS)}, found {doc['correct']!r}")
        found = choices(doc)
        if len(found) != len(LETTERS) or not all(found):
            read = f"{len(found)} options, {sum(map(bool, found))} of them with text, are read from {doc['options']!r}"
            raise DataError(f"{where}: {read}. Write all five as 'a ) 1 , b ) 2 , ...', or remove that row")
        docs.append(doc)
    return docs


def choices(doc: dict) -> list[str]:
    """The options as the harness scores them: without letter, and without the comma and blanks behind."""
    return [found[4:].rstrip(" ,") for found in _OPTIONS.findall(doc["options"])]


def labels(docs: Sequence[dict]) -> list[int]:
    """Place of the right option, 0 to 4, of every doc."""
    return [LETTERS.index(doc["correct"]) for doc in docs]


def per_item(docs: Sequence[dict], results: Sequence, protocol: str = "standard") -> dict[str, list[float]]:
    """`acc` and `acc_norm` of every item, and whether options are `tied` for the likeliest, before normalisation.

    acc_norm divides a log-likelihood by the option's length in characters, without the blank before it
    (lm_eval/api/task.py: process_results, completion_len; 0.3: MultipleChoiceTask).
    """
    check_protocol(protocol, language.PROTOCOLS)
    lengths = [[len(choice) for choice in choices(doc)] for doc in docs]
    right, tied = language.accuracy(results, labels(docs), [[1] * len(LETTERS)] * len(docs))
    return {"acc": right, "acc_norm": language.accuracy(results, labels(docs), lengths)[0], "tied": tied}


def rows(
    docs: Sequence[dict], results: Sequence, *, arm: str, seed: int = 0, protocol: str = "standard", **same
) -> list[dict]:
    """Metric rows with 95 % intervals over items: acc and acc_norm, and those of the permuted labels."""
    parts = {"all": docs, language.PERMUTED: permuted(docs, seed)}
    scores = {subset: per_item(part, results, protocol) for subset, part in parts.items()}
    same = {"arm": arm, "benchmark": NAME, "protocol": protocol, **same}
    return language.metric_rows(scores, METRICS[protocol], seed=seed, **same)


def samples(docs: Sequence[dict], results: Sequence, *, arm: str, protocol: str = "standard") -> list[dict]:
    """One record an item; its id is its place among the docs, from 0."""
    return language.records(range(len(docs)), labels(docs), results, per_item(docs, results, protocol), arm)


def permuted(docs: Sequence[dict], seed: int) -> list[dict]:
    """The control: the same docs with random labels."""
    golds = language.guessed([len(LETTERS)] * len(docs), seed)
    return [{**doc, "correct": LETTERS[gold]} for doc, gold in zip(docs, golds, strict=True)]


def baselines(docs: Sequence[dict]) -> dict[str, float]:
    """Accuracy of guessing and of always choosing the same option."""
    return language.constant(labels(docs), LETTERS)


def item_scores(samples: Sequence[dict]) -> dict:
    """Scores of the items by arm, from the samples of a step: see `common.samples`."""
    return scores_of_items(samples, NAME, {NAME: "acc_norm"})
