"""What every benchmark checks of the files it is given; each fault is one DataError that names file and row."""

import itertools
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from sbt.utils import paths
from sbt.utils.errors import DataError


def image_folder(folder: Path | str, names: Iterable[str]) -> Path:
    """The folder, if every picture lies in it; otherwise the message says what is missing and where it belongs."""
    folder, names = paths.resolve(str(folder)), sorted(set(names))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        what = f"{len(missing)} of {len(names)} pictures are missing" if folder.is_dir() else "there is no such folder"
        raise DataError(
            f"{paths.shown(folder)}: {what}. Put the pictures there, the first as {paths.shown(folder / missing[0])}, "
            "or set `images` to the folder that holds them"
        )
    return folder


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


def matched(
    rows: Sequence[dict], key: str, known: Collection, name: str, numbers: Sequence[int] | None = None
) -> list[dict]:
    """Rows of the JSON-lines file `name` in the order of the `known` keys: one for each of them, and no others.

    `numbers` as in `once`.
    """
    once((row.get(key) for row in rows), f"{name}:", key, numbers)
    for number, row in zip(numbers or itertools.count(1), rows, strict=False):
        if row[key] not in known:
            raise DataError(f"{name}:{number}: {key} {row[key]!r} is not in the reference file")
    found = {row[key]: row for row in rows}
    if missing := [one for one in known if one not in found]:
        count = f"{len(missing)} of {len(known)} questions have no answer"
        raise DataError(f"{name}: {count}, the first of them {key} {missing[0]!r}")
    return [found[one] for one in known]
