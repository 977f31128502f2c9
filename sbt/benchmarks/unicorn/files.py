"""Unicorn's files: the publishers' JSON of questions, and answers in their form or one a question.

Forms: UCSC-VLAA/vllm-safety-benchmark@ef1aba1: README.md, safety_evaluations/ood_scenarios/eval_datasets.py (the
questions) and evaluation.py, lines 425-435 and 550-562 (what it saves).
"""

from collections.abc import Iterable
from pathlib import Path

from sbt.benchmarks.common import answers
from sbt.benchmarks.unicorn import metric
from sbt.utils import paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import read_json
from sbt.utils.text import nearest


def check_task(task: str | None) -> str:
    """The task, or ParameterError with what is known."""
    if task not in metric.TASKS:
        raise ParameterError(f"unicorn has no task {task!r}{nearest(str(task), metric.TASKS)}")
    return task


def load(path: Path | str, task: str) -> list[dict]:
    """Items `task`, `image`, `question`, `label`, and `situation` in OODCV-VQA, in file order.

    `path` is the JSON file, or a folder with `TASK.json`, flat or in `oodcv-vqa/` or `sketchy-vqa/` as published.
    Labels: Yes, No or 0 to 10 (`text_answer`), in Sketchy-VQA Yes or No in any case (`answer`). DataError names the
    row of a missing text, a wrong label or an unknown situation.
    """
    path, family = paths.resolve(str(path)), metric.OODCV if check_task(task) in metric.OODCV else metric.SKETCHY
    if path.is_dir():
        places = [path / start / f"{task}.json" for start in ("", family[0], f"ood/{family[0]}")]
        path = next((place for place in places if place.is_file()), places[0])
    rows, name = read_json(path), paths.shown(path)
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{name}: expected a list of questions, as the publishers' {task}.json")
    return [_item(row, task, f"{name}, row {number}") for number, row in enumerate(rows, start=1)]


def _item(row: object, task: str, where: str) -> dict:
    row = row if isinstance(row, dict) else {}
    oodcv = task in metric.OODCV
    fields = {"image": "image", "question": "question", "label": "text_answer" if oodcv else "answer"}
    if missing := [name for name in fields.values() if not isinstance(row.get(name), str) or not row[name].strip()]:
        raise DataError(f"{where}: no text in {', '.join(missing)}. Is this the file of {task}?")
    item = {"task": task} | {key: row[name] for key, name in fields.items()}
    if oodcv and item["label"] not in metric.VARIANTS:
        raise DataError(f"{where}: text_answer must be Yes, No or 0 to 10, found {item['label']!r}")
    if not oodcv and item["label"].lower() not in ("yes", "no"):
        raise DataError(f"{where}: answer must be Yes or No, found {item['label']!r}")
    if oodcv and (found := row.get("situation")) not in metric.SITUATIONS:
        raise DataError(f"{where}: situation {found!r} is unknown{nearest(str(found), metric.SITUATIONS)}")
    return item | ({"situation": row["situation"]} if oodcv else {})


def read_answers(path: Path, items: list[dict], protocol: str) -> tuple[list[dict], list[str]]:
    """Items and answers of a file in one of two forms; DataError names its row, line or key.

    A list or JSON lines (`common.answers`), one row a question in their order: {"image" or "image_path", "answer",
    "label", "question"} (Sketchy-VQA as published; the last two, where they are there, must be the question's), or
    {"prediction", "answer"} for {"answer", "label"}. Or an object by image path, {"prediction", "answer"} (OODCV-VQA
    as published): it holds the last answer about a picture only, so "standard" wants the other form where one has
    more questions.
    """
    name = paths.shown(path)
    if items[0]["task"] in metric.OODCV and (content := answers.one_object(path, dict)) is not None:
        return _by_picture(content, items, protocol, name)
    rows = answers.read(path)
    if len(rows) != len(items):
        raise DataError(f"{name}: {len(rows)} answers for {len(items)} questions. Give one a question, in order")
    said = []
    for number, ((where, row), item) in enumerate(zip(rows, items, strict=True), start=1):
        said.append(_answer(row, item, where))
        for key in ("image", "image_path"):
            if key in row and _known(row[key], [item["image"]]) is None:
                raise DataError(f"{where}: this is about {row[key]!r}, but question {number} about {item['image']!r}")
        if row.get("question", item["question"]) != item["question"]:
            raise DataError(
                f"{where}: this answers {row['question']!r}, but question {number} is {item['question']!r}"
            )
    return items, said


def _by_picture(content: dict, items: list[dict], protocol: str, name: str) -> tuple[list[dict], list[str]]:
    last = {item["image"]: item for item in items}
    if protocol != "paper" and len(last) < len(items):
        raise DataError(
            f"{name}: one answer a picture, but {len(items)} questions about {len(last)} pictures. "
            "Give a list with one answer a question, or score with --protocol paper"
        )
    found: dict[str, str] = {}
    for key, row in content.items():
        where, image = f"{name}, key {key!r}", _known(key, last)
        if image is None:
            raise DataError(f"{where}: no question is about this picture")
        if image in found:
            raise DataError(f"{where}: {image!r} stands in the file twice. Keep one")
        found[image] = _answer(row, last[image], where)
    if missing := [image for image in last if image not in found]:
        raise DataError(f"{name}: {len(missing)} of {len(last)} pictures have no answer, the first {missing[0]!r}")
    return list(last.values()), [found[image] for image in last]


def _known(path: object, images: Iterable[str]) -> str | None:
    """The image that a path ends in: the publishers save it with the folder of the pictures before it."""
    parts = path.split("/") if isinstance(path, str) else []
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in images), None)


def _answer(row: dict, item: dict, where: str) -> str:
    said = answers.text((where, row))
    label = "answer" if "prediction" in row or "response" in row else "label"
    if row.get(label, item["label"]) != item["label"]:
        raise DataError(f"{where}: {label} is {row[label]!r}, but the question's is {item['label']!r}")
    return said
