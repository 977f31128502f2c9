"""MME: two yes/no questions a picture, 14 tasks of perception and cognition (Fu et al. 2023).

Protocol "standard": the publishers' eval_tool. "paper": the authors' metric, 12 tasks. `SPEC.protocols`.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import controls
from sbt.benchmarks.mme import SPEC, metric
from sbt.benchmarks.mme.files import load, read_answers, read_log, with_pictures, write_answers
from sbt.benchmarks.mme.metric import KINDS, METRICS, parse, tasks
from sbt.report import stats
from sbt.utils.errors import DataError

__all__ = ["KINDS", "METRICS", "counts", "load", "parse", "prompt", "rows", "samples",
           "score", "score_files", "tasks", "with_pictures", "write_answers"]  # fmt: skip


def counts(items: Sequence[dict]) -> dict[str, dict[str, int]]:
    """By task, how much there is: questions, different pictures, questions whose answer is yes."""
    asked = {task: [item for item in items if item["task"] == task] for task in tasks()}
    yes = {task: sum(item["label"].lower() == "yes" for item in found) for task, found in asked.items()}
    shown = {task: len({item["image"] for item in found}) for task, found in asked.items()}
    return {t: {"questions": len(asked[t]), "pictures": shown[t], "yes": yes[t]} for t in asked if asked[t]}


def prompt(item: dict, protocol: str = "standard") -> str:
    """The question as it stands in the file."""
    return item["question"]


def _by_task(items: Sequence[dict], answers: Sequence[str], protocol: str) -> dict[str, list[tuple[dict, str]]]:
    """Items and answers of each task that the protocol scores, the two questions about a picture side by side."""
    check_protocol(protocol, SPEC.protocols)
    found: dict[str, dict[str, list]] = {task: {} for task in tasks(protocol)}
    for item, answer in zip(items, answers, strict=True):
        if item["task"] in found:
            found[item["task"]].setdefault(item["image"], []).append((item, answer))
    for task, images in found.items():
        for image, pair in images.items():
            if len(pair) != 2:
                raise DataError(f"MME, {task}: {len(pair)} questions about {image!r}. Keep both that go together")
    return {task: [one for pair in images.values() for one in pair] for task, images in found.items() if images}


def score(items: Sequence[dict], answers: Sequence[str], protocol: str = "standard") -> dict:
    """{"perception", "cognition", "tasks": {name: {"acc", "acc_plus", "score"}}}; the sums are over the tasks there.

    DataError where an image has other than two questions.
    """
    found = {}
    for task, pairs in _by_task(items, answers, protocol).items():
        parsed = [parse(answer, protocol) for _, answer in pairs]
        found[task] = metric.task_scores(metric.hits([item["label"] for item, _ in pairs], parsed))
    sums = {kind: sum(found[name]["score"] for name in names if name in found) for kind, names in KINDS.items()}
    return {**{kind: float(total) for kind, total in sums.items()}, "tasks": found}


def rows(
    items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str = "real", seed: int = 0,
    protocol: str = "standard", **same,
) -> list[dict]:  # fmt: skip
    """Metric rows with 95 % intervals, resampling pictures: METRICS by task, and the score of each kind of tasks.

    `acc` and the ratios are shares of the questions, `acc_plus` of the pictures. Their subsets are the tasks' names,
    with the given one behind them unless that is "real".
    """
    measured, hits = [], {}
    for task, pairs in _by_task(items, answers, protocol).items():
        values = metric.measures([item["label"] for item, _ in pairs], [answer for _, answer in pairs], protocol)
        images, hits[task] = [item["image"] for item, _ in pairs], values.pop("hits")
        for name, scored in values.items():
            groups = images if len(scored) == len(images) else None
            measured.append((task, name, stats.bootstrap(scored, groups=groups, seed=seed), len(scored)))
    for kind, names in KINDS.items():
        if there := [hits[name] for name in names if name in hits]:
            measured.append((kind, "score", metric.total(there, seed), sum(map(len, there))))
    return [
        {"arm": arm, "benchmark": "mme", "subset": controls.subset(name, subset), "metric": metric_name}
        | {"value": value, "low": low, "high": high, "n": n, "protocol": protocol, **same}
        for name, metric_name, (value, low, high), n in measured
    ]


def samples(items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str = "real",
            protocol: str = "standard") -> list[dict]:  # fmt: skip
    """One record an item: what was asked, what was said, what it is taken for, whether it is right."""
    return [
        {"arm": arm, "subset": controls.subset(item["task"], subset), "image": item.get("file", item["image"])}
        | {"prompt": prompt(item), "label": item["label"], "answer": answer}
        | {"parsed": (said := parse(answer, protocol))}
        | {"correct": said == item["label"].lower(), "unparsed": said == "other", "empty": not answer.strip()}
        for item, answer in zip(items, answers, strict=True)
    ]


def per_item(samples: Sequence[dict]) -> dict[str, pd.DataFrame]:
    """Scores of the items about the right picture, items x arms, for paired comparisons."""
    return {"MME": controls.by_item(samples, "correct")}


def score_files(answers: Path | str, references: Path | str | None = None, protocol: str = "standard") -> dict:
    """`score` of a folder of answers in the publishers' form, TASK.txt; `references` is the folder of the questions.

    With `references` every line must be one of its questions, and its tasks suffice; without, all tasks must be there.
    """
    check_protocol(protocol, SPEC.protocols)
    folder = Path(answers).absolute()
    if folder.suffix in (".json", ".jsonl") and not references:
        return score(*read_log(folder), protocol)
    if not folder.is_dir():
        raise DataError(f"{answers} is no folder. Give the one with the answers of every task, as existence.txt")
    items, told = read_answers(folder, protocol, Path(references) if references else None)
    return score(items, told, protocol)
