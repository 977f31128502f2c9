"""MM-Vet: an answer is graded 0.0 to 1.0 against the truth; the score is the mean, of 100, and by ability."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sbt.benchmarks.common import judge as judging
from sbt.benchmarks.common import judged
from sbt.benchmarks.common.judge import Protocol
from sbt.models import Arm
from sbt.utils import checks, paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_json


def load(folder: Path | str) -> list[dict]:
    """Questions of mm-vet.json with `question_id` and `image` (a path); DataError names one that lacks something."""
    folder = paths.resolve(str(folder))
    content, found = read_json(folder / "mm-vet.json"), []
    if not isinstance(content, dict) or not content:
        raise DataError(f"{paths.shown(folder / 'mm-vet.json')}: expected an object of questions by name")
    for name, row in content.items():
        where = f"{paths.shown(folder / 'mm-vet.json')}, {name}"
        checks.texts(row, ("imagename", "question", "answer"), where)
        checks.key(row, "capability", where)
        found.append({**row, "question_id": name, "image": str(folder / "images" / row["imagename"])})
    return found


def ask(arm: Arm, questions: Sequence[dict], cache: Path, **how: Any) -> dict[str, list[str]]:
    """{"": the arm's answers}, greedily; `how` as `judged.greedy` takes it."""
    requests = [{"id": str(row["question_id"]), "image": row["image"], "text": row["question"]} for row in questions]
    return {"": judged.greedy(arm, requests, cache, **how)}


def cases(questions: Sequence[dict], answers: Sequence[str], *, arm: str, condition: str = "") -> list[dict]:
    """What the judge is asked about an arm: each answer beside the truth, <AND> and <OR> set apart."""
    found = []
    for row, answer in zip(questions, answers, strict=True):
        truth = row["answer"].replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        texts = {"question": row["question"], "truth": truth, "answer": answer}
        named = {"question": row["question_id"], "subset": "+".join(sorted(row["capability"])), "condition": condition}
        found.append(PROTOCOL.case("mm_vet", texts=texts, arm=arm, answer=answer, item=row, **named))
    return found


def parse(verdict: str) -> tuple[float] | None:
    """The number before the first blank, if it lies between 0 and 1."""
    try:
        grade = float(verdict.split(" ")[0].strip())
    except ValueError:
        return None
    return (grade,) if 0 <= grade <= 1 else None


def _publishers(content: Mapping[str, dict]) -> list[dict]:
    """The first run of mm-vet_evaluator.py's grade file."""
    return [
        {"arm": "the arm", "question": name, "judge": row["model"][0], "template": "mm_vet",
         "verdict": row["content"][0]}
        for name, row in content.items()
    ]  # fmt: skip


PROTOCOL = Protocol(
    "mmvet", judging.templates(__file__), parse, lambda own, other: own, "score", 100.0, (0.0,), "lowest",
    max_tokens=3, publishers=_publishers,
)  # fmt: skip
per_item = partial(judging.per_item, PROTOCOL)
score_files = partial(judging.score_files, PROTOCOL)
