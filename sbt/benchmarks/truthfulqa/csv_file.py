"""TruthfulQA's data for generation: TruthfulQA.csv as rows of the hub's truthfulqa/truthful_qa, `generation`.

`load` reads it, `prepared` does what lm-evaluation-harness does to the rows (lm_eval/tasks/truthfulqa/utils.py).
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sbt.utils import checks, paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_text, sha256

NO_COMMENT = "I have no comment."  # the harness makes it a true answer to every question
_COLUMNS = ("Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source")
_NEEDED, _LISTS = _COLUMNS[2:6], _COLUMNS[4:6]
# What is published, by content: sylinrl/TruthfulQA at 013686a (the hub's, so the harness's) and at d71c110.
_CONTENTS = {"ebbeaa3fb92f": "2021-09", "d64e57d010d4": "2025-01"}


def load(path: Path | str) -> list[dict]:
    """Rows `type`, `category`, `question`, `best_answer`, `correct_answers`, `incorrect_answers` (lists), `source`.

    A folder holds one TruthfulQA*.csv. Lists are split as the hub's loader splits them. DataError names file, row
    (from 1, without the header and blank lines) and its last line.
    """
    path = paths.resolve(str(path))
    if path.is_dir():
        found, name = sorted(path.glob("TruthfulQA*.csv")), paths.shown(path)
        if len(found) != 1:
            raise DataError(f"{name}: expected one TruthfulQA*.csv there, found {len(found)}. Name the file")
        path = found[0]
    name, text = paths.shown(path), read_text(path).removeprefix("\ufeff")
    reader, rows = csv.DictReader(io.StringIO(text), strict=True), []
    try:
        for row in reader:
            rows.append((f"{len(rows) + 1} (line {reader.line_num})", row))
    except csv.Error as error:
        where = f"{name}, row {len(rows) + 1} (line {reader.reader.line_num})"  # `reader` stands at the row before
        raise DataError(f"{where}: malformed CSV ({error}): the file is truncated or damaged") from None
    if missing := [column for column in _NEEDED if column not in (reader.fieldnames or ())]:
        raise DataError(f"{name}: no column {', '.join(map(repr, missing))}. Give TruthfulQA.csv as it is published")
    if not rows:
        raise DataError(f"{name} holds no question")
    docs = [_doc(row, f"{name}, row {number}") for number, row in rows]
    numbers = [number for number, _ in rows]
    checks.once((doc["question"].strip() for doc in docs), f"{name}, row ", "the question", numbers)
    return docs


def _doc(row: dict, where: str) -> dict:
    if None in row or None in row.values():
        raise DataError(f"{where} has not as many fields as the header. Quote a text that holds a comma")
    if not row["Question"].strip():
        raise DataError(f"{where} has no text in 'Question'. Fill it in or remove the row")
    doc = {column.lower().replace(" ", "_"): row.get(column, "") for column in _COLUMNS}
    for column in _LISTS:
        answers = [answer.strip() for answer in row[column].strip().split(";")]
        if not any(answers):
            raise DataError(f"{where} {row['Question']!r} has no answer in {column!r}. Give one, or several with ';'")
        doc[column.lower().replace(" ", "_")] = answers
    return doc


def prepared(docs: Sequence[Mapping]) -> list[dict]:
    """What the harness makes of the rows (process_docs_gen); of rows that are prepared already, the same again."""
    found = []
    for doc in docs:
        true, false = (_sentences(doc[name]) for name in ("correct_answers", "incorrect_answers"))
        true += [] if NO_COMMENT in true else [NO_COMMENT]
        changed = {"question": doc["question"].strip(), "correct_answers": true, "incorrect_answers": false}
        found.append({**doc, **changed})
    return found


def _sentences(answers: Sequence[str]) -> list[str]:
    stripped = [answer.strip() for answer in answers]
    return [answer if answer.endswith(".") else answer + "." for answer in stripped if answer]


def version(docs: Sequence[Mapping]) -> str:
    """Which published data this is, by what is scored: 2021-09 (the harness's), 2025-01; else `other-` and a hash."""
    content = [[doc["question"], doc["correct_answers"], doc["incorrect_answers"]] for doc in prepared(docs)]
    digest = sha256(json.dumps(content))[:12]
    return _CONTENTS.get(digest) or f"other-{digest[:8]}"
