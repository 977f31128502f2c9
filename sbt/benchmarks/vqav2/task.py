"""VQAv2 (Goyal et al. 2017): open questions about COCO val2014, ten annotators' answers each.

Protocol "standard": every question, a short answer asked for, official accuracy. Protocol "paper": what the authors'
code does (UCSC-VLAA/Sight-Beyond-Text@47f96a3: llava/eval/mmoverall): 5,000 questions of seed 42, three text-only
demonstrations, the bare question, and answers made "Yes" or "No", which misses every unanimous yes/no question.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import controls
from sbt.benchmarks.vqav2 import SPEC
from sbt.benchmarks.vqav2 import metric as vqa
from sbt.benchmarks.vqav2.files import IMAGE, files, load, read_annotations, read_results, select
from sbt.report import stats
from sbt.utils import paths

__all__ = ["IMAGE", "SHORT", "files", "load", "prompt", "rows", "samples", "score",
           "score_files", "scored", "select"]  # fmt: skip
SHORT = "Answer the question using a single word or phrase."  # LLaVA-1.5's (arXiv 2310.03744)


def prompt(item: dict, protocol: str = "standard", *, request: str = SHORT) -> str:
    """The question, and in the standard protocol a line that asks for a short answer ("" for none)."""
    check_protocol(protocol, SPEC.protocols)
    question = item["question"].strip()
    return f"{question}\n{request}" if protocol == "standard" and request else question


def scored(answers: Sequence[str], protocol: str = "standard") -> list[str]:
    """The answers as the metric gets them: as they are, or as the authors' code leaves them."""
    check_protocol(protocol, SPEC.protocols)
    return [vqa.postprocessed(answer) if protocol == "paper" else answer for answer in answers]


def score(items: Sequence[dict], answers: Sequence[str], protocol: str = "standard") -> dict:
    """`metric.scores` of the answers in the order of the items: percent, n, empty, yes_ratio, unparsed."""
    return vqa.scores(scored(answers, protocol), items)


def rows(
    items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, protocol: str = "standard", seed: int = 0,
    **same,
) -> list[dict]:  # fmt: skip
    """Metric rows, 0 to 1, with 95 % intervals over pictures: accuracy of all, each answer type, each question type.

    The subsets of types are "SUBSET, answer yes/no", "SUBSET, question what color", ...; `yes_ratio` is that of the
    questions of answer type yes/no.
    """
    said, pictures = scored(answers, protocol), [item["image"] for item in items]
    measured = list(zip(vqa.accuracies(said, items), pictures, strict=True))
    parts = {("accuracy", subset): measured}
    for key in vqa.TYPES:
        for kind, part in vqa.grouped(measured, (item[key] for item in items)).items():
            parts["accuracy", f"{subset}, {key.removesuffix('_type')} {kind}"] = part
    if told := vqa.yes_no_questions(said, items):
        parts["yes_ratio", subset] = [(float(word == "yes"), pictures[place]) for place, word in told.items()]
    found = []
    for (metric, name), part in parts.items():
        values, groups = zip(*part, strict=True)
        value, low, high = stats.bootstrap(values, groups=groups, seed=seed)
        row = {"arm": arm, "benchmark": "vqav2", "subset": name, "metric": metric, "value": value, "low": low}
        found.append({**row, "high": high, "n": len(values), "protocol": protocol, **same})
    return found


def blind_levels(items: Sequence[dict]) -> dict[str, float]:
    """Accuracy, by task ("all", "answer number", ...), of one who never looks.

    To each type of question ("how many", "what color is the") it gives the answer that is right most often.
    """
    types, labels = [item["question_type"] for item in items], [item["multiple_choice_answer"] for item in items]
    guessed = rows(items, controls.commonest(types, labels), arm="never looks", subset="real")
    table = controls.split(pd.DataFrame(guessed))
    table = table[(table.metric == "accuracy") & ~table.task.str.startswith("question ")]
    return table.set_index("task").value.to_dict()


def samples(
    items: Sequence[dict], answers: Sequence[str], *, arm: str, subset: str, protocol: str = "standard"
) -> list[dict]:
    """One record an item: what was asked and said, what is scored of it, the annotators' answers, its accuracy.

    `correct` says that it earns at least half.
    """
    said = scored(answers, protocol)
    judged = zip(items, answers, said, vqa.accuracies(said, items), strict=True)
    return [
        {"arm": arm, "subset": subset, "question_id": item["question_id"], "image": item["image"]}
        | {"prompt": prompt(item, protocol), "answer": answer, "scored": read}
        | {"label": item["multiple_choice_answer"], "references": [row["answer"] for row in item["answers"]]}
        | {"answer_type": item["answer_type"], "accuracy": value, "correct": value >= 0.5}
        for item, answer, read, value in judged
    ]


def per_item(samples: Sequence[dict]) -> dict[str, pd.DataFrame]:
    """Scores of the items about the right picture, items x arms, for paired comparisons."""
    return {"VQAv2": controls.by_item([one for one in samples if one["subset"] == "real"], "accuracy")}


def score_files(answers: Path | str, references: Path | str, protocol: str = "standard") -> dict:
    """Scores of an official results file, a list of {question_id, answer}, against the official annotations.

    Percent `overall` and by type, 0 to 1 in `per_question`, by question_id; n. Protocol "standard" wants an answer to
    every annotated question; "paper" scores those that have one, as the authors do, and says so on stderr. So it does
    of annotators without an answer_id of their own, whom the official code takes for one where they agree.
    """
    check_protocol(protocol, SPEC.protocols)
    known = read_annotations(Path(references).absolute())
    rows, said = zip(*read_results(Path(answers), known, every=protocol == "standard"), strict=True)
    if len(rows) < len(known):
        print(f"{paths.shown(answers)}: {len(rows)} of {len(known)} questions have an answer", file=sys.stderr)
    if alike := [row["question_id"] for row in rows if not _told_apart(row["answers"])]:
        told = f"{len(alike)} questions with annotators who share an answer_id or have none, the first question_id"
        print(f"{paths.shown(references)}: {told} {alike[0]!r}. Equal rows of theirs count as one", file=sys.stderr)
    values = vqa.accuracies(scored(said, protocol), rows)
    # ten digits drop the noise of floating-point sums: 0.9 is 0.8999999999999998 where three annotators agree
    each = {row["question_id"]: round(value, 10) for row, value in zip(rows, values, strict=True)}
    return {**vqa.means(values, rows), "per_question": each, "n": len(rows)}


def _told_apart(answers: Sequence[dict]) -> bool:
    """Whether each annotator's answer has an answer_id, and one of its own."""
    ids = {repr(answer["answer_id"]) for answer in answers if "answer_id" in answer}
    return len(ids) == len(answers)
