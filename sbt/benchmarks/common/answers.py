"""One reader for files of answers, whatever tool wrote them: a JSON list or JSON lines, ids as text or as number.

rows = answers.read("answers.jsonl");  by_id, unknown = answers.by_id(rows, ["question_id"], known)
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from sbt.utils import paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_json, read_lines, read_text

Row = tuple[str, dict]  # where it stands ("a.jsonl:3", "a.json, row 3"), and what it holds
TEXTS = ("prediction", "response", "answer", "text")  # where "answer" stands beside "prediction", it is the label


def read(path: Path | str) -> list[Row]:
    """The rows of a JSON list, or of JSON lines, told apart by how the file begins.

    DataError names file, and row or line, of what is malformed or no object.
    """
    path = Path(path)
    if not read_text(path).lstrip().startswith("["):
        return [(f"{paths.shown(path)}:{number}", row) for number, row in read_lines(path)]
    rows = [(f"{paths.shown(path)}, row {number}", row) for number, row in enumerate(read_json(path), start=1)]
    for where, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected a JSON object, found {json.dumps(row)[:40]}")
    return rows


def text(row: Row, keys: Sequence[str] = TEXTS) -> str:
    """What the model said: the text under the first of the keys that the row has. DataError where it has none."""
    where, content = row
    key = next((key for key in keys if key in content), "answer" if keys is TEXTS else keys[0])
    if not isinstance(content.get(key), str):
        others = "" if key in content else f" (or {', '.join(repr(one) for one in keys if one != key)})"
        raise DataError(f"{where}: no text in {key!r}{others}")
    return content[key]


def by_id(
    rows: Iterable[Row], keys: Sequence[str], known: Collection, names: Mapping[str, object] | None = None
) -> tuple[dict[object, Row], list[tuple[object, Row]]]:
    """(the rows by the known id that they are of, those of no known id with the id that they give).

    The id stands under the first of the `keys` that a row has. 42 and "42" are one id; `names` maps further forms, the
    name of a picture say, to ids. DataError for an id that is neither text nor number, or that is given twice.
    """
    forms = {**(names or {}), **{str(one): one for one in known}}
    found, unknown = {}, {}
    for where, content in rows:
        given = next((content[key] for key in keys if key in content), None)
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise DataError(f"{where}: {keys[0]} must be a text or a number, found {given!r}")
        one = forms.get(str(given).strip(), given)
        if one in found or one in unknown:
            raise DataError(f"{where}: {keys[0]} {given!r} stands in the file twice. Keep one")
        (found if str(one) in forms else unknown)[one] = where, content
    return found, list(unknown.items())


def refuse_unknown(unknown: Sequence[tuple[object, Row]], key: str, known: Collection, more: str = "") -> None:
    """DataError that shows the first id that is not known beside one that is, so that both forms can be compared."""
    if unknown:
        given, (where, _) = unknown[0]
        example = f", whose first is {next(iter(known))!r}{more}" if known else ""
        raise DataError(f"{where}: {key} {given!r} is not in the reference file{example}")


def refuse_missing(found: Mapping, known: Collection, key: str, name: str, remedy: str = "Answer them all") -> None:
    """DataError that counts the known ids without a row, and shows the first."""
    if missing := [one for one in known if one not in found]:
        count = f"{len(missing)} of {len(known)} questions have no answer"
        raise DataError(f"{name}: {count}, the first of them {key} {missing[0]!r}. {remedy}")


def matched(rows: Sequence[Row], key: str, known: Collection, name: str) -> list[Row]:
    """The rows in the order of the `known` ids: one for each of them, and no others; DataErrors as above."""
    found, unknown = by_id(rows, [key], known)
    refuse_unknown(unknown, key, known)
    refuse_missing(found, known, key, name)
    return [found[one] for one in known]
