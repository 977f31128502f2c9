"""BoolQ (Clark et al. 2019): is the answer to a question about a passage yes? Zero-shot; the options are no and yes.

Read are Google's files (`dev.jsonl`: question, passage, answer, title) and SuperGLUE's (`val.jsonl`: question,
passage, label). Prompt: lm_eval/tasks/super_glue/boolq/default.yaml (0.4.13); "paper" (0.3, `BoolQ`) scores the same.
"""

from collections.abc import Sequence
from pathlib import Path

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import language
from sbt.benchmarks.common.samples import item_scores as scores_of_items
from sbt.utils import paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_jsonl

NAME, TASK, SHOTS, SPLIT = "boolq", "boolq", 0, "validation"
KIND = {"standard": "choice", "paper": "choice"}
OPTIONS = ("no", "yes")
METRICS = {"standard": ("acc",), "paper": ("acc",)}
FILES = {"validation": ("dev.jsonl", "val.jsonl"), "train": ("train.jsonl",)}


def load(path: Path | str, split: str = SPLIT) -> list[dict]:
    """Docs {question, passage, label}, label 0 (no) or 1, of a file, or of the split's file in a folder."""
    path = language.source(path, split, FILES)
    return from_rows(read_jsonl(path), paths.shown(path))


def from_rows(rows: Sequence[dict], name: str) -> list[dict]:
    """Docs of Google's, SuperGLUE's or the hub's rows; DataError names the row that lacks something."""
    return [_doc(row, where) for where, row in language.listed(rows, name)]


def _doc(row: dict, where: str) -> dict:
    question, passage = (language.text(row, name, where) for name in ("question", "passage"))
    label = row["label"] if "label" in row else language.key(row, "answer", where)
    if type(label) not in (bool, int) or label not in (0, 1):
        raise DataError(f"{where}: the label must be true, false, 0 or 1, found {label!r}. The test set has no labels")
    # SuperGLUE, which the task reads, has the title in the passage; without it the prompt would be another one.
    title = f"{language.text(row, 'title', where)} -- " if "title" in row else ""
    return {"question": question, "passage": title + passage, "label": int(label)}


def labels(docs: Sequence[dict]) -> list[int]:
    """Place of the right option, 0 (no) or 1 (yes), of every doc."""
    return [doc["label"] for doc in docs]


def per_item(docs: Sequence[dict], results: Sequence, protocol: str = "standard") -> dict[str, list[float]]:
    """`acc` of every item, 1.0 or 0.0, and whether its options are `tied`: "no" then, in both protocols."""
    check_protocol(protocol, language.PROTOCOLS)
    right, tied = language.accuracy(results, labels(docs), [(1, 1)] * len(docs))
    return {"acc": right, "tied": tied}


def rows(
    docs: Sequence[dict], results: Sequence, *, arm: str, seed: int = 0, protocol: str = "standard", **same
) -> list[dict]:
    """Metric rows with 95 % intervals over items: accuracy, and that of the permuted labels."""
    parts = {"all": docs, language.PERMUTED: permuted(docs, seed)}
    scores = {subset: per_item(part, results, protocol) for subset, part in parts.items()}
    same = {"arm": arm, "benchmark": NAME, "protocol": protocol, **same}
    return language.metric_rows(scores, METRICS[protocol], seed=seed, **same)


def samples(docs: Sequence[dict], results: Sequence, *, arm: str, protocol: str = "standard") -> list[dict]:
    """One record an item; its id is its place among the docs, from 0."""
    return language.records(range(len(docs)), labels(docs), results, per_item(docs, results, protocol), arm)


def permuted(docs: Sequence[dict], seed: int) -> list[dict]:
    """The control: the same docs with random labels."""
    golds = language.guessed([2] * len(docs), seed)
    return [{**doc, "label": gold} for doc, gold in zip(docs, golds, strict=True)]


def baselines(docs: Sequence[dict]) -> dict[str, float]:
    """Accuracy of guessing and of always answering no or yes (the validation set is 62 % yes)."""
    return language.constant(labels(docs), OPTIONS)


def item_scores(samples: Sequence[dict]) -> dict:
    """Scores of the items by arm, from the samples of a step: see `common.samples`."""
    return scores_of_items(samples, NAME, {NAME: "acc"})
