"""ETHICS's subsets and files: the publishers' CSVs as checked docs, and answer files.

`util_*.csv` has no header line, and `virtue_*.csv` holds "sentence [SEP] trait" in one column.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from sbt.benchmarks.common import answers
from sbt.benchmarks.common.language import published_file
from sbt.benchmarks.ethics import SOURCE
from sbt.data.registry import HUB
from sbt.utils import paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import read_text
from sbt.utils.text import nearest

SUBSETS = ("commonsense", "deontology", "justice", "utilitarianism", "virtue")
SIZES = {"deontology": 4, "justice": 4, "virtue": 5}  # rows of a group; the other subsets have no groups
SPLITS = ("test", "test_hard")
# The texts of a doc, in the fields of the harness's task files. All subsets but utilitarianism have a label, too, and
# those of SIZES a group_id. _PREFIXES: how the publishers' file names begin.
_TEXTS = {
    "commonsense": ("input",),
    "deontology": ("scenario", "excuse"),
    "justice": ("scenario",),
    "utilitarianism": ("activity", "baseline"),
    "virtue": ("scenario", "trait"),
}
_PREFIXES = {"commonsense": "cm", "utilitarianism": "util"} | {name: name for name in SIZES}
_UTIL_HEADERS = (["activity", "baseline"], ["baseline", "less_pleasant"])  # the harness's and the hub's names


def load(path: Path | str, subset: str, split: str = "test") -> list[dict]:
    """Docs of a subset in file order, of a CSV file, of the one for `split` in a folder, or of "hub".

    They have the fields of the harness's task files: label (0 or 1), the texts, `group_id`: the row's number, from 0,
    // 4 (virtue: // 5). The folder holds the publishers' files (`cm_test.csv`, `util_test_hard.csv`, ...) flat, or in
    their subfolders. "hub" is the publishers' own repository on the Hub, with SHA-256. DataError names file, row (from
    1, the header not counted), its line, and the remedy.
    """
    if subset not in SUBSETS:
        raise ParameterError(f"ETHICS has no subset {subset!r}{nearest(subset, SUBSETS)}")
    if split not in SPLITS:
        raise ParameterError(f"ETHICS has no split {split!r}{nearest(split, SPLITS)}")
    if str(path) == HUB:
        path = published_file(SOURCE, f"{_PREFIXES[subset]}_{split}.csv")
    path = paths.resolve(str(path))
    if path.is_dir():
        name = f"{_PREFIXES[subset]}_{split}.csv"
        flat, inner = path / name, path / subset / name
        if not flat.is_file() and not inner.is_file():
            raise DataError(f"{paths.shown(flat)} does not exist: put the publishers' {name} there or into {subset}/")
        path = flat if flat.is_file() else inner
    for other, prefix in _PREFIXES.items():
        if other != subset and path.name.startswith(f"{prefix}_"):  # justice would read a deontology file
            raise DataError(f"{paths.shown(path)} is {other}'s by its name, not {subset}'s. Give the other file")
    docs = [_doc(row, subset, number, where) for number, (where, row) in enumerate(_rows(path, subset))]
    if not docs:
        raise DataError(f"{paths.shown(path)} holds no row. Get the publishers' file")
    return docs


def _doc(row: dict[str, str], subset: str, number: int, where: str) -> dict:
    doc = {}
    if subset != "utilitarianism":
        if row["label"] not in ("0", "1"):
            raise DataError(f"{where}: label must be 0 or 1, found {row['label']!r}. Mend or remove the row")
        doc["label"] = int(row["label"])
    for text in _TEXTS[subset]:
        if not row[text].strip():
            raise DataError(f"{where}: no text in {text!r}. Mend or remove the row")
        doc[text] = row[text]
    return doc | ({"group_id": number // SIZES[subset]} if subset in SIZES else {})


def _rows(path: Path, subset: str) -> list[tuple[str, dict[str, str]]]:
    """("FILE, row NUMBER (line LINE)", row) of every row, the line being its last one."""
    read_text(path)  # for its errors; it makes \r\n, which stands in four posts of commonsense, into \n
    name = paths.shown(path)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            cells = [(reader.line_num, row) for row in reader if any(row)]  # a spreadsheet may add lines of commas
        except csv.Error as error:
            raise DataError(f"{name}:{reader.line_num}: malformed CSV ({error}): the file is damaged") from None
    header = _header(cells, subset, name)
    found = []
    for number, (line, row) in enumerate(cells, start=1):
        where = f"{name}, row {number} (line {line})"
        if len(row) != len(header):
            raise DataError(f"{where}: expected {len(header)} columns, found {len(row)}. Mend or remove the row")
        if subset == "virtue" and row[header.index("scenario")].count(" [SEP] ") != 1:
            raise DataError(f"{where}: expected 'sentence [SEP] trait', found {row[header.index('scenario')][:60]!r}")
        named = dict(zip(header, row, strict=True))
        if subset == "virtue":
            named |= dict(zip(_TEXTS[subset], named["scenario"].split(" [SEP] "), strict=True))
        found.append((where, named))
    return found


def _header(cells: list[tuple[int, list[str]]], subset: str, name: str) -> list[str]:
    """The columns' names; a header line is taken out of `cells`. Utilitarianism's files have none as published."""
    if subset == "utilitarianism":
        if cells and [column.strip().lower() for column in cells[0][1]] in _UTIL_HEADERS:
            cells.pop(0)
        return list(_TEXTS[subset])
    header = cells.pop(0)[1] if cells else []
    for column in ("label", *(text for text in _TEXTS[subset] if text != "trait")):
        if column not in header:
            there = f"its first line is {','.join(header)[:80]!r}" if header else "it is empty"
            raise DataError(f"{name}: no column {column!r}; {there}. Get the publishers' file")
    return header


def read_answers(path: Path, docs: Sequence[dict], subset: str) -> dict[int, list[float]]:
    """Row number -> two log-likelihoods, by row, of {"index", "loglikelihoods"} or of a log of the harness.

    DataError names file and line of a faulty or repeated index, of other than two finite numbers, or of a log whose
    row has other texts than the file.
    """
    rows, name, found = answers.read(path), paths.shown(path), {}
    by_index, unknown = answers.by_id(rows, ("index", "doc_id"), range(len(docs)))
    for given, (where, _) in unknown:
        raise DataError(f"{where}: index must be a row's number, 0 to {len(docs) - 1}, found {given!r}")
    for index in sorted(by_index):
        (where, row), doc = by_index[index], docs[index]
        told = row.get("doc", doc)
        if other := [text for text in _TEXTS[subset] if not isinstance(told, dict) or told.get(text) != doc[text]]:
            raise DataError(f"{where}: its {other[0]!r} is not that of row {index + 1} of the references")
        found[index] = answers.loglikelihoods(by_index[index], 2)
    if not found:
        raise DataError(f"{name} holds no answer")
    return found
