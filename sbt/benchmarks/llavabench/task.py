"""LLaVA-Bench in the wild: both answers are rated from a caption; own scores over the reference's count.

A review whose first line is not two numbers is [-1, -1] in LLaVA's code, and stays in its mean.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sbt.benchmarks.common import judge as judging
from sbt.benchmarks.common import judged
from sbt.benchmarks.common.judge import Protocol
from sbt.models import Arm
from sbt.utils import checks, paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_jsonl


def load(folder: Path | str) -> list[dict]:
    """Questions with `image` (a path), its `caption` and the `reference` answer; DataError for what is missing."""
    folder = paths.resolve(str(folder))
    captions = {row["image"]: row["caption"] for row in read_jsonl(folder / "context.jsonl")}
    known = {row["question_id"]: row["text"] for row in read_jsonl(folder / "answers_gpt4.jsonl")}
    found = []
    for where, row in checks.listed(read_jsonl(folder / "questions.jsonl"), paths.shown(folder / "questions.jsonl")):
        checks.texts(row, ("image", "text", "category"), where)
        caption, reference = captions.get(row["image"]), known.get(row.get("question_id"))
        if caption is None or reference is None:
            raise DataError(f"{where}: no caption in context.jsonl, or no answer in answers_gpt4.jsonl")
        caption = "\n".join(caption) if isinstance(caption, list) else caption
        image = folder / "images" / row["image"]
        image = image if image.is_file() else folder / row["image"]
        found.append({**row, "image": str(image), "caption": caption, "reference": reference})
    return found


def ask(arm: Arm, questions: Sequence[dict], cache: Path, **how: Any) -> dict[str, list[str]]:
    """{"": the arm's answers}, greedily; `how` as `judged.greedy` takes it."""
    requests = [{"id": str(row["question_id"]), "image": row["image"], "text": row["text"]} for row in questions]
    return {"": judged.greedy(arm, requests, cache, **how)}


def cases(questions: Sequence[dict], answers: Sequence[str], *, arm: str, condition: str = "") -> list[dict]:
    """What the judge is asked about an arm: each answer beside the reference's, in both orders."""
    return [
        PROTOCOL.case(
            "llava_bench", texts={"caption": row["caption"], "question": row["text"]}, arm=arm, answer=answer,
            question=row["question_id"], other=row["reference"], item=row, subset=row["category"], order=order,
            condition=condition,
        )
        for row, answer in zip(questions, answers, strict=True)
        for order in judging.ORDERS
    ]  # fmt: skip


def parse(verdict: str) -> tuple[float, float] | None:
    """The two numbers of the first line, parted by one blank or comma, as LLaVA's code reads it."""
    pair = verdict.split("\n")[0].replace(",", " ").split(" ")
    try:
        return (float(pair[0]), float(pair[1])) if len(pair) == 2 else None
    except ValueError:
        return None


def _publishers(rows: Sequence[dict]) -> list[dict]:
    """Rows of LLaVA's review files: the reference is Assistant 1."""
    return [
        {"arm": row.get("answer2_model", "the arm"), "question": row["question_id"], "order": "second",
         "subset": row["category"].removeprefix("llava_bench_"), "judge": "the review's", "template": "llava_bench",
         "verdict": row["content"]}
        for row in rows
    ]  # fmt: skip


PROTOCOL = Protocol(
    "llavabench", judging.templates(__file__), parse, lambda own, other: own / 10, "relative_score", 100.0,
    (-1.0, -1.0), "lowest", max_tokens=1024, temperature=0.2, of_reference=True, publishers=_publishers,
    asked=lambda row: row["order"] == "second",  # LLaVA's code shows the reference first
)  # fmt: skip
per_item = partial(judging.per_item, PROTOCOL)
score_files = partial(judging.score_files, PROTOCOL)
