"""POPE: is the object in the picture? (Li et al. 2023). JSON lines of question_id, image, text, label.

Protocol "standard": the question alone, greedy decoding, the official parser and metric (AoiDragon/POPE:
evaluate.py). "paper" has the same parser and metric, and how the authors decode; what comes of that: `SPEC.protocols`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import answers as answer_files
from sbt.benchmarks.common import controls
from sbt.benchmarks.pope import SPEC
from sbt.report import stats
from sbt.utils import checks, paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_lines

SPLITS = ("random", "popular", "adversarial")  # the publishers'
MICRO_WORLD = (*SPLITS, "heldout")  # and pairs of colour and shape that no instruction mentions
counts = controls.counts


def files(folder: Path | str, splits: Sequence[str]) -> dict[str, Path]:
    """Question file of each split: `pope_SPLIT.json`, or the official `coco_pope_SPLIT.json`, whichever is there."""
    found = {}
    for split in splits:
        names = [paths.resolve(str(folder)) / f"{start}pope_{split}.json" for start in ("", "coco_")]
        found[split] = next((path for path in names if path.is_file()), None)
        if found[split] is None:
            told = f"put POPE's {names[1].name} there, or set `splits`"
            raise DataError(f"{paths.shown(names[0])} does not exist: {told}")
    return found


def load(path: Path | str) -> list[dict]:
    """Questions in file order; DataError names file and line of a missing field, a wrong label or a repeated id."""
    lines, name = read_lines(Path(path)), paths.shown(path)
    if not lines:
        raise DataError(f"{name} holds no question")
    for number, row in lines:
        checks.texts(row, ("image", "text", "label"), f"{name}:{number}")
        if row["label"] not in ("yes", "no"):
            raise DataError(f"{name}:{number}: label must be yes or no, found {row['label']!r}")
    numbers, rows = zip(*lines, strict=True)
    checks.once((row.get("question_id") for row in rows), f"{name}:", "question_id", numbers)
    return list(rows)


def prompt(item: dict, protocol: str = "standard") -> str:
    """The question as it stands in the file."""
    return item["text"]


def parse(answer: str) -> str:
    """The answer as "yes" or "no" by the official rule: "no" if the first sentence has one of the words No, not, no.

    The sentence ends at the first period; commas are removed, words are what blanks separate.
    Everything else is yes, also "NO", "No!", "no" before a line break, and the empty answer.
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def is_unparsed(answer: str) -> bool:
    """Whether the sentence that `parse` reads has no yes or no word in any spelling ("NO!" is one, "Nope" is none).

    The official "yes" is only its default then; such answers are counted beside the scores.
    """
    return not {"yes", "no", "not"} & set(re.findall(r"[a-z]+", answer.split(".")[0].lower()))


def measures(items: Sequence[dict], answers: Sequence[str]) -> dict[str, tuple[list, list]]:
    """Metric -> numerator and denominator of each item; a metric is the sum of the one over the sum of the other.

    "yes" is the positive class. ValueError for different numbers of items and answers: the official script cuts the
    longer list.
    """
    if len(answers) != len(items) or not items:
        raise ValueError(f"{len(answers)} answers for {len(items)} labels")
    yes = [parse(answer) == "yes" for answer in answers]
    positive = [item["label"] == "yes" for item in items]
    pairs, one = list(zip(yes, positive, strict=True)), [True] * len(items)
    hits = [y and p for y, p in pairs]
    return {
        "accuracy": ([y == p for y, p in pairs], one),
        "precision": (hits, yes),
        "recall": (hits, positive),
        "f1": ([2 * hit for hit in hits], [y + p for y, p in pairs]),
        "yes_ratio": (yes, one),
    }


def score(items: Sequence[dict], answers: Sequence[str]) -> dict[str, float | int]:
    """The official metrics of answers in the order of the items; n; unparsed.

    Where nothing is predicted or labelled yes, precision, recall and f1 are 0.0 (the official script divides by 0).
    """
    sums = {name: (sum(above), sum(below)) for name, (above, below) in measures(items, answers).items()}
    found = {name: above / below if below else 0.0 for name, (above, below) in sums.items()}
    return {**found, "n": len(items), "unparsed": sum(map(is_unparsed, answers))}


def rows(items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, seed: int = 0, **same) -> list[dict]:
    """Metric rows with 95 % intervals, resampling pictures: the questions about one picture belong together."""
    named = {"arm": arm, "benchmark": "pope", "subset": subset, "groups": [item["image"] for item in items]}
    return [
        stats.metric_row(above, below, metric=metric, seed=seed, **named, **same)
        for metric, (above, below) in measures(items, answers).items()
    ]


def samples(
    items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, protocol: str = "standard"
) -> list[dict]:
    """One record an item: what was asked, what was said, what it is taken for, whether it is right."""
    return [
        {"arm": arm, "subset": subset, "image": item["image"], "prompt": prompt(item), "label": item["label"]}
        | {"answer": answer, "parsed": parse(answer), "correct": parse(answer) == item["label"]}
        | {"unparsed": is_unparsed(answer), "empty": not answer.strip()}
        for item, answer in zip(items, answers, strict=True)
    ]


def per_item(samples: Sequence[dict]) -> dict[str, pd.DataFrame]:
    """Scores of the items about the right picture, items x arms, for paired comparisons."""
    return {"POPE": controls.by_item(samples, "correct")}


def score_files(answers: Path | str, references: Path | str, protocol: str = "standard") -> dict[str, float | int]:
    """Scores of an answers file (`common.answers`): rows with `question_id`, or `question` in the official order.

    DataError names file and line, also where a row's `question` is another one than its `question_id` or its place
    says. Both protocols score alike: the authors kept the official parser.
    """
    check_protocol(protocol, SPEC.protocols)
    items, rows, name = load(references), answer_files.read(answers), paths.shown(answers)
    rows = _of_split(rows, Path(references).stem, name)
    said = {where: answer_files.text((where, row)) for where, row in rows}
    rows = answer_files.in_order(rows, "question_id", [item["question_id"] for item in items], name)
    for place, ((where, row), item) in enumerate(zip(rows, items, strict=True), start=1):
        what = f"question_id {row['question_id']!r}" if "question_id" in row else f"question {place}"
        if "question" in row or "question_id" not in row:
            _check_same(row, item, what, where)
    return score(items, [said[where] for where, _ in rows])


def _of_split(rows: list[answer_files.Row], file: str, name: str) -> list[answer_files.Row]:
    """Of a log of lmms-eval, which has all three splits, the rows of the one that the question file is named after."""
    splits = {row["category"] for _, row in rows if "category" in row}
    if splits and not (own := [split for split in splits if str(split) in file]):
        raise DataError(f"{name} has the splits {', '.join(map(str, sorted(splits)))}: none is in the name of {file}")
    return [(where, row) for where, row in rows if row["category"] == own[0]] if splits else rows


def _check_same(row: dict, item: dict, what: str, where: str) -> None:
    """DataError unless a row answers the item. "imange" is "image": the publishers mended that word in autumn 2023."""
    said, asked = (str(text).replace("imange", "image") for text in (row.get("question"), item["text"]))
    if said != asked:
        raise DataError(f"{where}: this answers {row.get('question')!r}, but {what} is {item['text']!r}")
