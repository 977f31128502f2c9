"""What every benchmark checks of the files it is given; each fault is one DataError that names file and row."""

import itertools
from collections.abc import Iterable

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
