"""MME's rules (Fu et al. 2023): an answer as yes, no or other, and the scores of a task's pairs of questions.

Protocol "standard" is the publishers' calculation.py (BradyFU/Awesome-Multimodal-Large-Language-Models:
tools/eval_tool.zip@1c1d69e), "paper" the authors' (UCSC-VLAA/Sight-Beyond-Text:
llava/eval/mmoverall/mme_metric.py@47f96a3). `SPEC.protocols` says where they part.
"""

from collections.abc import Sequence

import numpy as np

from sbt.report.stats import RESAMPLES

KINDS = {
    "perception": (
        "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"
    ),
    "cognition": ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
}  # fmt: skip
LEFT_OUT = ("landmark", "artwork")  # by the authors: perception is 8 tasks (at most 1600), not 10 (2000)
WHOLE = 200  # of a task: 100 for the questions, 100 for the pictures
NO_RESPONSE = "other"  # what the authors put where a line has no response
METRICS = ("acc", "acc_plus", "score", "yes_ratio", "unparsed_ratio", "empty_ratio")
_POINTS = np.array([0.0, 50.0, 200.0])  # of a picture with none, one or both questions right: acc and acc_plus, x100


def tasks(protocol: str = "standard") -> tuple[str, ...]:
    """Names of the tasks a protocol scores, in the publishers' order: 14, or 12 for "paper"."""
    return tuple(name for names in KINDS.values() for name in names if protocol != "paper" or name not in LEFT_OUT)


def one_line(answer: str) -> str:
    """The answer as an answer file can hold it: without tabs and line ends, which the publishers ask to delete."""
    return answer.translate(dict.fromkeys(map(ord, "\t\r\n")))


def parse(answer: str, protocol: str = "standard") -> str:
    """An answer as "yes", "no" or "other": what its first four characters hold in lower case, "yes" first.

    Parts of words count: "eyes" is yes, "Now" is no. "paper" strips blanks first.
    """
    start = one_line(answer).lower()
    start = (start.strip() if protocol == "paper" else start)[:4]
    return next((word for word in ("yes", "no") if word in start), "other")


def hits(labels: Sequence[str], parsed: Sequence[str]) -> list[int]:
    """How many of a picture's two questions are right, 0 to 2, a picture; its questions stand side by side.

    `labels` are yes or no in any case. ValueError unless there are as many answers, and an even number of them.
    """
    if len(labels) != len(parsed) or len(labels) % 2 or not labels:
        raise ValueError(f"{len(parsed)} answers for {len(labels)} labels: two questions a picture")
    right = [label.strip().lower() == said for label, said in zip(labels, parsed, strict=True)]
    return [sum(right[start : start + 2]) for start in range(0, len(right), 2)]


def task_scores(hits: Sequence[int]) -> dict[str, float]:
    """`acc` (share of the questions), `acc_plus` (share of the pictures with both right), `score`, 0 to 200."""
    acc, acc_plus = sum(hits) / (2 * len(hits)), hits.count(2) / len(hits)
    return {"acc": acc, "acc_plus": acc_plus, "score": acc * 100 + acc_plus * 100}


def measures(labels: Sequence[str], answers: Sequence[str], protocol: str = "standard") -> dict[str, list]:
    """What each question or each picture gives to the METRICS of its task, which are the means; and `hits`.

    One value a picture in acc_plus (both right) and score (0, 50 or 200), one a question in the others.
    """
    said = [parse(answer, protocol) for answer in answers]
    found = hits(labels, said)
    values = (
        [label.strip().lower() == word for label, word in zip(labels, said, strict=True)],
        [one == 2 for one in found],
        _POINTS[found].tolist(),
        [word == "yes" for word in said],
        [word == "other" for word in said],
        [not answer.strip() for answer in answers],
    )
    return {**dict(zip(METRICS, values, strict=True)), "hits": found}


def total(by_task: Sequence[Sequence[int]], seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float, float]:
    """Sum of the tasks' scores with its 95 % interval, resampling pictures within each task; `hits` of each task."""
    rng, value, drawn = np.random.default_rng(seed), 0.0, np.zeros(resamples)
    for found in by_task:
        counts = np.bincount(np.asarray(found, int), minlength=3)
        value += float(counts @ _POINTS) / len(found)
        drawn += rng.multinomial(len(found), counts / len(found), resamples) @ _POINTS / len(found)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return value, float(low), float(high)
