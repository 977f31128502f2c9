"""TruthfulQA's files: `mc_task.json` for multiple choice, `TruthfulQA.csv` for generation, and which version they are.

An item is {"question", "mc1": [(choice, 0 or 1), ...], "mc2": [...]} in file order. A row of the CSV has the fields of
the hub's data set: `question`, `best_answer`, `correct_answers`, `incorrect_answers` and others.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sbt.benchmarks.common.language import parquet_rows
from sbt.benchmarks.truthfulqa import SOURCE
from sbt.data.registry import HUB
from sbt.utils import checks, paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_json, read_text, sha256

NO_COMMENT = "I have no comment."  # the harness makes it a true answer to every question
_COLUMNS = ("Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source")
_NEEDED, _LISTS = _COLUMNS[2:6], _COLUMNS[4:6]
# What is published, by content: sylinrl/TruthfulQA at 013686a (the hub's, so the harness's) and at d71c110. The
# October 2021 data (`data/v1` there) is told by its size.
_ITEMS = {"42f7b574b0bb": "2021-09", "bc126ccf27bb": "2025-01"}
_SIZES = {(817, 6204): "2021-10"}
_ROWS = {"ebbeaa3fb92f": "2021-09", "d64e57d010d4": "2025-01"}


class Questions(NamedTuple):
    """Multiple-choice items, rows for generation ([] where there are none of the same questions), the data version."""

    items: list[dict]
    docs: list[dict]
    version: str


def load(source: Path | str, version: str = "") -> Questions:
    """The questions of a folder, of an mc_task.json and the CSV beside it, or of "hub", which has September 2021's.

    Of several versions in a folder `version` ("2021-09", "2021-10", "2025-01") chooses one; without it there must be
    one only. DataError where the data is missing, or is another version than the one asked for.
    """
    if str(source) == HUB:
        items = from_rows(parquet_rows(SOURCE, "multiple_choice.parquet"), "TruthfulQA of the hub")
        own = version_of(items)
        if version not in ("", own):
            raise DataError(
                f"the hub holds TruthfulQA {own}, not {version!r}. Set truthfulqa_data to a folder with it"
            )
        return Questions(items, prepared(parquet_rows(SOURCE, "generation.parquet")), own)
    path = paths.resolve(str(source))
    files = sorted(path.glob("mc_task*.json")) if path.is_dir() else [path]
    items_of = {file: read_items(file) for file in files}
    versions = {file: version_of(items) for file, items in items_of.items()}
    wanted = [file for file in files if version in ("", versions[file])]
    if len(wanted) != 1:
        held = ", ".join(sorted(versions.values())) or "no mc_task*.json"
        wish = f"{len(wanted) or 'none'} of them {version!r}" if version else "and truthfulqa_version names none"
        raise DataError(f"{paths.shown(path)} holds {held}, {wish}. Set truthfulqa_version, or name the file")
    items, own = items_of[wanted[0]], versions[wanted[0]]
    return Questions(items, _beside(path if path.is_dir() else path.parent, items, own), own)


def _beside(folder: Path, items: list[dict], version: str) -> list[dict]:
    """Rows of the CSV of the same version (of unpublished data: with the same questions), here or one folder below."""
    questions = {item["question"].strip() for item in items}
    for file in sorted([*folder.glob("TruthfulQA*.csv"), *folder.glob("*/TruthfulQA*.csv")]):
        rows = read_csv(file)
        published = not version.startswith("other-")
        if csv_version(rows) == version if published else {row["question"].strip() for row in rows} == questions:
            return rows
    return []


def one_file(path: Path | str, pattern: str) -> Path:
    """The file itself, or the one of a folder that fits the pattern; DataError where there is none, or several."""
    path = paths.resolve(str(path))
    if not path.is_dir():
        return path
    files = sorted(path.glob(pattern))
    if len(files) != 1:
        raise DataError(f"{paths.shown(path)}: expected one {pattern} there, found {len(files)}. Name the file")
    return files[0]


def read_items(path: Path | str) -> list[dict]:
    """Items of an mc_task.json, or of the one `mc_task*.json` in a folder.

    Targets are {choice: 0 or 1}, as published, or {"choices": [...], "labels": [...]} as on the Hugging Face hub.
    DataError names the question whose choices have no single best answer (mc1) or not both kinds (mc2).
    """
    path = one_file(path, "mc_task*.json")
    return from_rows(read_json(path), paths.shown(path))


def from_rows(rows: object, name: str) -> list[dict]:
    """Items of the publishers' or the hub's rows, checked; `name` is what an error calls them."""
    items = [_item(row, where) for where, row in checks.listed(rows, name)]
    checks.once((item["question"] for item in items), f"{name}, row ", "the question")
    return items


def _item(row: dict, where: str) -> dict:
    question = checks.text(row, "question", where)
    item = {"question": question, **{name: _choices(row, name, f"{where} {question!r}") for name in ("mc1", "mc2")}}
    true = {name: sum(label for _, label in item[name]) for name in ("mc1", "mc2")}
    if true["mc1"] != 1:
        raise DataError(f"{where} {question!r}: mc1 needs exactly one true choice, found {true['mc1']}")
    if not 0 < true["mc2"] < len(item["mc2"]):
        raise DataError(f"{where} {question!r}: mc2 needs a true and a false choice")
    return item


def _choices(row: dict, name: str, where: str) -> list[tuple[str, int]]:
    targets = row.get(f"{name}_targets")
    pairs = list(targets.items()) if isinstance(targets, dict) else []
    if pairs and set(targets) == {"choices", "labels"} and all(isinstance(value, list) for value in targets.values()):
        if len(targets["choices"]) != len(targets["labels"]):
            counts = f"{len(targets['choices'])} choices but {len(targets['labels'])} labels"
            raise DataError(f"{where}: {name}_targets has {counts}")
        pairs = list(zip(targets["choices"], targets["labels"], strict=True))
    if not pairs or any(not isinstance(choice, str) or label not in (0, 1) for choice, label in pairs):
        raise DataError(f"{where}: {name}_targets must be choices with 0 or 1")
    return [(choice, int(label)) for choice, label in pairs]


def version_of(items: Sequence[dict]) -> str:
    """Which published data this is: 2021-09 (what the harness reads), 2021-10, 2025-01; else `other-` and a hash."""
    digest = sha256(json.dumps([[item["question"], item["mc1"], item["mc2"]] for item in items]))[:12]
    size = len(items), sum(len(item["mc2"]) for item in items)
    return _ITEMS.get(digest) or _SIZES.get(size) or f"other-{digest[:8]}"


def read_csv(path: Path | str) -> list[dict]:
    """Rows `type`, `category`, `question`, `best_answer`, `correct_answers`, `incorrect_answers` (lists), `source`.

    A folder holds one TruthfulQA*.csv. Lists are split as the hub's loader splits them. DataError names file, row
    (from 1, without the header, blank lines and lines of commas) and its last line.
    """
    path = one_file(path, "TruthfulQA*.csv")
    name, text = paths.shown(path), read_text(path).removeprefix("\ufeff")
    reader, rows = csv.DictReader(io.StringIO(text), strict=True), []
    try:
        for row in reader:
            if any(row.values()):  # a spreadsheet may end its file with a line of commas
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


def csv_version(docs: Sequence[Mapping]) -> str:
    """Which published data this is, by what is scored: 2021-09 (the harness's), 2025-01; else `other-` and a hash."""
    content = [[doc["question"], doc["correct_answers"], doc["incorrect_answers"]] for doc in prepared(docs)]
    digest = sha256(json.dumps(content))[:12]
    return _ROWS.get(digest) or f"other-{digest[:8]}"
