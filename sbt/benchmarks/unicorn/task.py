"""Unicorn: pictures unlike the training's (OODCV-VQA, counterfactual too) and line drawings (Sketchy-VQA).

Tu et al. 2023. Protocol "paper": the publishers' code with its defects, "standard": without them (`SPEC.protocols`).
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import controls
from sbt.benchmarks.common.protocol import UNICORN as DECODING
from sbt.benchmarks.unicorn import SPEC, metric
from sbt.benchmarks.unicorn.files import check_task, load, read_answers
from sbt.benchmarks.unicorn.metric import OODCV, SITUATIONS, SKETCHY, TASKS
from sbt.report import stats
from sbt.utils.errors import DataError, ParameterError

__all__ = ["DECODING", "OODCV", "SITUATIONS", "SKETCHY", "TASKS", "counts", "load", "prompt",
           "rows", "samples", "score", "score_files"]  # fmt: skip


def counts(items: Sequence[dict]) -> dict[str, int]:
    """How much a task holds: questions, different pictures, questions whose answer is yes, that ask for a number."""
    labels = [item["label"].lower() for item in items]
    pictures, numbers = len({item["image"] for item in items}), sum(map(str.isdigit, labels))
    return {"questions": len(items), "pictures": pictures, "yes": labels.count("yes"), "numbers": numbers}


def prompt(item: dict, protocol: str = "standard") -> str:
    """The question as it stands in the file."""
    return item["question"]


def _checked(items: Sequence[dict], protocol: str) -> None:
    check_protocol(protocol, SPEC.protocols)
    if len(found := {item["task"] for item in items}) != 1:
        raise DataError(f"unicorn: items of one task are scored together, found {', '.join(sorted(found)) or 'none'}")


def score(items: Sequence[dict], answers: Sequence[str], protocol: str = "standard") -> dict:
    """The scores of one task's answers: `metric.scores`."""
    _checked(items, protocol)
    return metric.scores(items, answers, protocol)


def blind(items: Sequence[dict]) -> list[str]:
    """What one would answer who never looks: the most frequent label of the yes/no questions, and of the others."""
    labels = [item["label"] for item in items]
    return controls.commonest(["number" if label.isdigit() else "yes or no" for label in labels], labels)


def rows(
    items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, seed: int = 0,
    protocol: str = "standard", **same,
) -> list[dict]:  # fmt: skip
    """Metric rows with 95 % intervals, resampling pictures: `metric.measures` of one task's answers.

    n is the number of questions a share is of.
    """
    _checked(items, protocol)
    pairs, found = metric.answered(items, answers, protocol), []
    pictures = [item["image"] for item, _ in pairs]
    for name, (above, below) in metric.measures(pairs, protocol).items():
        n = sum(below) if name in metric.PARTS else len(pairs)
        if n:
            value, low, high = stats.ratio(below, above, groups=pictures, seed=seed)
            measured = {"metric": name, "value": value, "low": low, "high": high, "n": n, "protocol": protocol}
            found.append({"arm": arm, "benchmark": "unicorn", "subset": subset, **measured, **same})
    return found


def samples(items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str,
            protocol: str = "standard") -> list[dict]:  # fmt: skip
    """One record a scored item: what was asked, what was said, what it is taken for, whether it is right."""
    _checked(items, protocol)
    kept = ("said", "correct", "unparsed", "ambiguous", "empty")
    return [
        {"arm": arm, "subset": subset, "image": item["image"], "prompt": prompt(item)}
        | {"label": item["label"], "answer": answer}
        | {key: value for key, value in metric.judged(item, answer, protocol).items() if key in kept}
        for item, answer in metric.answered(items, answers, protocol)
    ]


def per_item(samples: Sequence[dict]) -> dict[str, pd.DataFrame]:
    """Right or wrong answers about the right picture, items x arms, for paired comparisons: a table a data set."""
    found = {}
    for name, tasks in (("OODCV-VQA", OODCV), ("Sketchy-VQA", SKETCHY)):
        if part := [one for one in samples if one["subset"] in tasks]:
            found[name] = controls.by_item(part, "correct")
    return found


def score_files(
    answers: Path | str, references: Path | str, protocol: str = "standard", task: str | None = None
) -> dict:
    """`score` of an answers file (`files.read_answers` says its forms) to a task's questions."""
    check_protocol(protocol, SPEC.protocols)
    if task is None:
        raise ParameterError(f"unicorn needs --task, one of {', '.join(TASKS)}")
    items = load(Path(references).absolute(), check_task(task))
    found, told = read_answers(Path(answers).absolute(), items, protocol)
    result = score(found, told, protocol)
    return result | ({"overwritten": len(items) - result["n"]} if task in OODCV else {})
