"""VQAv2's files: questions and annotations, and which of them a protocol asks."""

import random
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from sbt.benchmarks import check_protocol
from sbt.benchmarks.common import answers
from sbt.benchmarks.common.protocol import PROTOCOLS
from sbt.utils import checks, paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import read_json

IMAGE = "COCO_val2014_%012d.jpg"
OFFICIAL = (
    ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
    ("questions.json", "annotations.json"),
)


def files(questions: Path | str, annotations: Path | str = "") -> tuple[Path, Path]:
    """The two files: those named, or of a folder val2014's official ones, else questions.json and annotations.json.

    DataError where a folder has no questions, or a file of questions is named without its annotations.
    """
    folder = paths.resolve(str(questions))
    if not folder.is_dir():
        if not str(annotations):
            raise DataError(
                f"{paths.shown(folder)}: set `annotations` to the file with the answers to these questions"
            )
        return folder, paths.resolve(str(annotations))
    for asked, answered in OFFICIAL:
        if (folder / asked).is_file():
            return folder / asked, paths.resolve(str(annotations)) if str(annotations) else folder / answered
    raise DataError(
        f"{paths.shown(folder)} holds neither {' nor '.join(asked for asked, _ in OFFICIAL)}. Name the file"
    )


def load(questions: Path | str, annotations: Path | str, image: str = IMAGE) -> list[dict]:
    """Items in the order of the question file: the fields of both files, and `image`, the picture's file name.

    Rows belong together by `question_id`. By position, as the paper's authors pair them (UCSC-VLAA/Sight-Beyond-Text:
    llava/eval/mmoverall/eval_datasets.py@47f96a3), one file in another order, or cut, gives every question the answers
    of another without a word. `image` makes the name of an `image_id`. DataError names file and row.
    """
    questions, annotations = paths.resolve(str(questions)), paths.resolve(str(annotations))
    name, other = paths.shown(questions), paths.shown(annotations)
    rows = _rows(questions, "questions", ("question",))
    asked, answered = {row["question_id"] for row in rows}, {}
    for number, row in enumerate(read_annotations(annotations), start=1):
        where = f"{other}, row {number}: question_id {row['question_id']!r}"
        if row["question_id"] not in asked:
            raise DataError(f"{where} is not in {name}. Give the two files of one split")
        if not isinstance(row.get("multiple_choice_answer"), str):
            raise DataError(f"{where} has no text in multiple_choice_answer")
        answered[row["question_id"]] = row
    items = []
    for number, row in enumerate(rows, start=1):
        where, key, picture = f"{name}, row {number}", row["question_id"], row.get("image_id")
        if key not in answered:
            raise DataError(f"{where}: question_id {key!r} is not in {other}. Give the two files of one split")
        if type(picture) is not int or picture < 0:
            raise DataError(f"{where}: image_id must be a whole number, found {picture!r}")
        if answered[key].get("image_id") != picture:
            raise DataError(f"{where}: image_id is {picture!r}, in {other} {answered[key].get('image_id')!r}")
        items.append({**answered[key], **row, "image": image % picture})
    return items


def select(
    items: Sequence[dict],
    protocol: str = "standard",
    *,
    questions: int = 5000,
    pool: int = 2048,
    shots: int = 3,
    seed: int = 42,
    usable: Collection[str] | None = None,
) -> list[dict]:
    """The items a protocol asks: all of them, or the authors' choice, each with its `demonstrations`.

    Give all items, and as `usable` the pictures that can be used: those about others are left out of what was drawn.
    Left out before, one picture would change the whole draw. Demonstrations have no picture, so all of them stay.

    They draw pool + questions items without replacement (evaluate.py: numpy's generator, seeded); the first `pool` are
    for demonstrations, the others are asked. For each, Python's generator of the same seed draws `shots` of the pool,
    (question, first annotator's answer). With all 214,354 items of val2014 in file order these are the authors' own.
    ParameterError for too few items.
    """
    check_protocol(protocol, PROTOCOLS)
    if protocol == "standard":
        return [item for item in items if usable is None or item["image"] in usable]
    if min(questions - 1, pool - shots, shots) < 0 or questions + pool > len(items):
        wanted = f"{questions} questions, and {pool} for {shots} demonstrations each"
        raise ParameterError(f"{len(items)} questions are too few for {wanted}: set `questions` and `pool` to fit")
    drawn = np.random.RandomState(seed).choice(len(items), pool + questions, replace=False)
    shown = [
        (row["question"].strip(), row["answers"][0]["answer"].strip()) for row in (items[i] for i in drawn[:pool])
    ]
    draw = random.Random(seed)
    asked = [{**items[place], "demonstrations": draw.sample(shown, shots)} for place in drawn[pool:]]
    return [item for item in asked if usable is None or item["image"] in usable]


def read_annotations(path: Path) -> list[dict]:
    """Rows of an annotation file in its order: question_id, question_type, answer_type, and one answer or more.

    The official code takes any number of answers, so this does, though the publishers' rows have ten.
    """
    rows, name = _rows(path, "annotations", ("question_type", "answer_type")), paths.shown(path)
    for number, row in enumerate(rows, start=1):
        where, given = f"{name}, row {number}", row.get("answers")
        if not isinstance(given, list) or not given:
            raise DataError(f"{where}: answers must be a list of one answer or more, found {str(given)[:40]}")
        for place, answer in enumerate(given, start=1):
            if not isinstance(answer, dict) or not isinstance(answer.get("answer"), str):
                raise DataError(f"{where}, answer {place}: expected {{answer, answer_confidence, answer_id}}")
    return rows


def read_results(path: Path, known: Sequence[dict], every: bool) -> list[tuple[dict, str]]:
    """Annotation and answer for each {question_id, answer} of a results file (`common.answers`).

    With `every`, all of the `known` annotations need an answer, and they come in their order; else those that have one
    come, in the order of the results. DataError names the first unknown, repeated or missing question.
    """
    rows, annotated = answers.read(path), {row["question_id"]: row for row in known}
    said = {where: answers.text((where, row)) for where, row in rows}
    found, unknown = answers.by_id(rows, ["question_id"], annotated)
    answers.refuse_unknown(unknown, "question_id", annotated)
    if every or not found:
        remedy = "Answer them all; protocol paper scores those that are there"
        answers.refuse_missing(found, annotated, "question_id", paths.shown(path), remedy)
    return [(annotated[key], said[found[key][0]]) for key in (annotated if every else found)]


def _rows(path: Path, kind: str, texts: Sequence[str]) -> list[dict]:
    """The list `kind` of a file, every row an object with these texts and a question_id of its own."""
    content, name = read_json(path), paths.shown(path)
    rows = content.get(kind) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{name}: expected VQA {kind}, an object with a list {kind!r} that is not empty")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{name}, row {number}: expected an object, found {str(row)[:40]!r}")
        if missing := [text for text in texts if not isinstance(row.get(text), str)]:
            raise DataError(f"{name}, row {number}: no text in {', '.join(missing)}")
    checks.once((row.get("question_id") for row in rows), f"{name}, row ", "question_id")
    return rows
