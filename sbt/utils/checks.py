"""What every benchmark checks of the files it is given; each fault is one DataError that names file and row."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

from sbt.utils.errors import DataError


def once(keys: Iterable[object], where: str, what: str, numbers: Iterable[int | str] | None = None) -> None:
    """Every key is a text or a number and stands there once; `where` and a row's number, from 1, name the row.

    "answers.jsonl:" makes it "answers.jsonl:3", and "results.json, row " makes it "results.json, row 3". `numbers` are
    the rows' own, where they do not simply count up (`files.read_lines`). JSON's true is not the number 1.
    """
    seen = set()
    for number, key in zip(numbers or itertools.count(1), keys, strict=False):
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise DataError(f"{where}{number}: {what} must be a text or a number, found {key!r}")
        if key in seen:
            raise DataError(f"{where}{number}: {what} {key!r} stands in the file twice. Keep one")
        seen.add(key)


def listed(rows: object, name: str, expected: str = "a list of questions, at least one") -> list[tuple[str, dict]]:
    """("NAME, row NUMBER", row), numbers from 1; DataError unless `rows` is a list of objects, at least one."""
    rows = list(rows) if isinstance(rows, Iterable) and not isinstance(rows, str | Mapping) else []
    if not rows:
        raise DataError(f"{name}: expected {expected}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{name}, row {number}: expected an object, found {str(row)[:40]!r}")
    return [(f"{name}, row {number}", row) for number, row in enumerate(rows, start=1)]


def texts(row: Mapping, keys: Sequence[str], where: str, remedy: str = "") -> None:
    """DataError unless the row has a text, which is not blank, under each of the keys."""
    if missing := [key for key in keys if not isinstance(row.get(key), str) or not row[key].strip()]:
        raise DataError(f"{where}: no text in {', '.join(missing)}{remedy}")


def key(row: Mapping, name: str, where: str) -> object:
    """A value of the row; DataError names the missing key and those that are there."""
    if name not in row:
        raise DataError(f"{where} has no {name!r}, only {', '.join(map(repr, row))}: is this another data set?")
    return row[name]


def text(row: Mapping, name: str, where: str) -> str:
    """A text of the row, as it stands; DataError where it is missing, empty or no text."""
    value = key(row, name, where)
    if not isinstance(value, str) or not value.strip():
        found = "is empty" if isinstance(value, str) else f"must be a text, found {value!r}"
        raise DataError(f"{where}: {name!r} {found}. Mend or remove that row")
    return value
