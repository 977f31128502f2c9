"""POPE: is the object in the picture? (Li et al. 2023). JSON lines of question_id, image, text, label.

Protocol "standard": the question alone, greedy decoding, the official parser and metric. "paper" has the same parser
and metric, and how the authors decode; what comes of that: `SPEC.protocols`.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import controls
from sbt.benchmarks.pope import metric as yesno
from sbt.benchmarks.pope.metric import parse
from sbt.report import stats
from sbt.utils import checks, paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_lines

METRICS = ("accuracy", "precision", "recall", "f1", "yes_ratio")


def files(folder: Path | str, splits: Sequence[str]) -> dict[str, Path]:
    """Question file of each split: `pope_SPLIT.json`, or the official `coco_pope_SPLIT.json`, whichever is there."""
    found = {}
    for split in splits:
        names = [paths.resolve(str(folder)) / f"{start}pope_{split}.json" for start in ("", "coco_")]
        there = [path for path in names if path.is_file()]
        if not there:
            raise DataError(
                f"{paths.shown(names[0])} does not exist: put POPE's {names[1].name} there, or set `splits`"
            )
        found[split] = there[0]
    return found


def load(path: Path | str) -> list[dict]:
    """Questions in file order; DataError names file and line of a missing field, a wrong label or a repeated id."""
    lines, name = read_lines(Path(path)), paths.shown(path)
    if not lines:
        raise DataError(f"{name} holds no question")
    for number, row in lines:
        if missing := [key for key in ("image", "text", "label") if not isinstance(row.get(key), str)]:
            raise DataError(f"{name}:{number}: no text in {', '.join(missing)}")
        if row["label"] not in ("yes", "no"):
            raise DataError(f"{name}:{number}: label must be yes or no, found {row['label']!r}")
    numbers, rows = zip(*lines, strict=True)
    checks.once((row.get("question_id") for row in rows), f"{name}:", "question_id", numbers)
    return list(rows)


def counts(rows: Sequence[dict]) -> dict[str, int]:
    """How much a question file holds: questions, different pictures, questions whose answer is yes."""
    yes = sum(row["label"] == "yes" for row in rows)
    return {"questions": len(rows), "pictures": len({row["image"] for row in rows}), "yes": yes}


def prompt(item: dict) -> str:
    """The question as it stands in the file."""
    return item["text"]


def image_folder(folder: Path | str, questions: dict[str, list[dict]]) -> Path:
    """The folder, if every picture that is asked about lies in it; one DataError says what is missing and where."""
    return checks.image_folder(folder, (row["image"] for rows in questions.values() for row in rows))


def score(items: Sequence[dict], answers: Sequence[str]) -> dict[str, float | int]:
    """The official metrics of answers in the order of the items."""
    return yesno.scores(answers, [item["label"] for item in items])


def rows(items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, seed: int = 0, **same) -> list[dict]:
    """Metric rows with 95 % intervals, resampling pictures: the questions about one picture belong together."""
    yes = [parse(answer) == "yes" for answer in answers]
    positive = [item["label"] == "yes" for item in items]
    hits = [float(y and p) for y, p in zip(yes, positive, strict=True)]
    one = [1.0] * len(items)
    ratios = {
        "accuracy": ([float(y == p) for y, p in zip(yes, positive, strict=True)], one),
        "precision": (hits, yes),
        "recall": (hits, positive),
        "f1": ([2 * hit for hit in hits], [float(y) + p for y, p in zip(yes, positive, strict=True)]),
        "yes_ratio": ([float(y) for y in yes], one),
    }
    found, pictures = [], [item["image"] for item in items]
    for metric in METRICS:
        above, below = ratios[metric]
        value, low, high = stats.ratio(below, above, groups=pictures, seed=seed)
        measured = {"metric": metric, "value": value, "low": low, "high": high, "n": len(items)}
        found.append({"arm": arm, "benchmark": "pope", "subset": subset, **measured, **same})
    return found


def samples(items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str) -> list[dict]:
    """One record an item: what was asked, what was said, whether it is right."""
    return [
        {"arm": arm, "subset": subset, "image": item["image"], "prompt": prompt(item), "label": item["label"]}
        | {"answer": answer, "correct": parse(answer) == item["label"], "unparsed": yesno.is_unparsed(answer)}
        for item, answer in zip(items, answers, strict=True)
    ]


def per_item(samples: Sequence[dict]) -> dict[str, pd.DataFrame]:
    """Scores of the items about the right picture, items x arms, for paired comparisons."""
    return {"POPE": controls.by_item(samples, "correct")}


def score_files(answers: Path | str, references: Path | str, protocol: str = "standard") -> dict[str, float | int]:
    """Scores of an answers file: rows with `question_id`, or the official `question` and `answer` in order.

    DataError names file and line, also where a row's `question` is another one than its `question_id` or its place
    says. Both protocols score alike: the authors kept the official parser.
    """
    check_protocol(protocol, ("standard", "paper"))
    items, lines, name = load(references), read_lines(Path(answers)), paths.shown(answers)
    for number, row in lines:
        if not isinstance(row.get("answer"), str):
            raise DataError(f"{name}:{number}: no text in 'answer'")
    numbers, rows = [number for number, _ in lines], [row for _, row in lines]
    if any("question_id" in row for row in rows):
        known = {item["question_id"]: item for item in items}
        ordered = checks.matched(rows, "question_id", known, name, numbers)
        for number, row in lines:
            if "question" in row:
                _same(row, known[row["question_id"]], f"question_id {row['question_id']!r}", f"{name}:{number}")
        return score(items, [row["answer"] for row in ordered])
    if len(rows) != len(items):
        raise DataError(f"{name}: {len(rows)} answers for {len(items)} questions. Give one a question, in their order")
    for place, ((number, row), item) in enumerate(zip(lines, items, strict=True), start=1):
        _same(row, item, f"question {place}", f"{name}:{number}")
    return score(items, [row["answer"] for row in rows])


def _same(row: dict, item: dict, what: str, where: str) -> None:
    """DataError unless a row answers the item. "imange" is "image": the publishers mended that word in autumn 2023."""
    said, asked = (str(text).replace("imange", "image") for text in (row.get("question"), item["text"]))
    if said != asked:
        raise DataError(f"{where}: this answers {row.get('question')!r}, but {what} is {item['text']!r}")
