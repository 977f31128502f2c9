"""Yes/no answers as POPE scores them (AoiDragon/POPE: evaluate.py)."""

import re
from collections.abc import Sequence


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


def scores(answers: Sequence[str], labels: Sequence[str]) -> dict[str, float | int]:
    """Accuracy, precision, recall, f1 and yes_ratio (of the answers), "yes" being the positive class; n; unparsed.

    Where nothing is predicted or labelled yes, precision, recall and f1 are 0.0 (the official script divides by 0).
    ValueError for different numbers of answers and labels: the official script cuts the longer list.
    """
    if len(answers) != len(labels) or not labels:
        raise ValueError(f"{len(answers)} answers for {len(labels)} labels")
    yes = [parse(answer) == "yes" for answer in answers]
    positive = [label == "yes" for label in labels]
    hits = sum(y and p for y, p in zip(yes, positive, strict=True))
    return {
        "accuracy": sum(y == p for y, p in zip(yes, positive, strict=True)) / len(labels),
        "precision": hits / sum(yes) if any(yes) else 0.0,
        "recall": hits / sum(positive) if any(positive) else 0.0,
        "f1": 2 * hits / (sum(yes) + sum(positive)) if hits else 0.0,
        "yes_ratio": sum(yes) / len(yes),
        "n": len(labels),
        "unparsed": sum(map(is_unparsed, answers)),
    }
