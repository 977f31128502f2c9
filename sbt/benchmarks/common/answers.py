"""One reader for files of answers, whatever tool wrote them: a JSON list or JSON lines, ids as text or as number.

rows = answers.read("answers.jsonl");  by_id, unknown = answers.by_id(rows, ["question_id"], known)
"""

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from sbt.utils import paths
from sbt.utils.errors import DataError
from sbt.utils.files import read_json, read_lines, read_text
from sbt.utils.text import short

Row = tuple[str, dict]  # where it stands ("a.jsonl:3", "a.json, row 3"), and what it holds
TEXTS = ("prediction", "response", "answer", "text")  # where "answer" stands beside "prediction", it is the label
_IDS = ("question_id", "image_id", "category")  # what lmms-eval names an item by, within its metrics


def read(path: Path | str) -> list[Row]:
    """The rows of a JSON list, or of JSON lines, told apart by how the file begins; those of a sample log made plain.

    DataError names file, and row or line, of what is malformed or no object.
    """
    path = Path(path)
    if not read_text(path).lstrip().startswith("["):
        return _plain([(f"{paths.shown(path)}:{number}", row) for number, row in read_lines(path)])
    rows = [(f"{paths.shown(path)}, row {number}", row) for number, row in enumerate(read_json(path), start=1)]
    for where, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected a JSON object, found {json.dumps(row)[:40]}")
    return _plain(rows)


def one_object(path: Path, kind: type) -> dict | None:
    """The content of a file that is one JSON object with values of this kind; None where it is a list, or JSON lines.

    DataError where a key stands in it twice.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return None
    fits = isinstance(content, dict) and all(isinstance(value, kind) for value in content.values())
    return read_json(path, keys_once=True) if fits else None


def _plain(rows: list[Row]) -> list[Row]:
    """Rows of a harness's sample log in the keys of other answer files; rows of other files as they are.

    `response` is the text, `loglikelihoods` are those of the `continuations`. The log of lm-evaluation-harness
    (0.4.13: EvaluationTracker.save_results_samples) holds numbers as texts, the question as `doc`, and every question
    once for each filter. lmms-eval leaves out `doc`, and `resps` where no filter changed it; ids stand in its metrics.
    """
    filters = [row.get("filter") for _, row in rows if _is_logged(row)]
    kept = [(where, row) for where, row in rows if not _is_logged(row) or row.get("filter") == filters[0]]
    return [(where, _of_log(row, where) if _is_logged(row) else row) for where, row in kept]


def _is_logged(row: dict) -> bool:
    return "doc_id" in row and isinstance(row.get("filtered_resps"), list)


def _of_log(row: dict, where: str) -> dict:
    doc, given = row.get("doc"), row.get("arguments")
    found = {key: value for key, value in doc.items() if key not in TEXTS} if isinstance(doc, dict) else {}
    for part in row.values():
        found |= {key: part[key] for key in _IDS if key in part} if isinstance(part, dict) and part is not doc else {}
    found |= {key: row[key] for key in ("doc_id", "doc", "target", "input") if key in row}
    values = []
    answers = row.get("resps", row["filtered_resps"])
    for said in answers if isinstance(answers, list) else [answers]:
        first = said[0] if isinstance(said, list) and said else said  # of a repeated request the first answer
        if isinstance(first, str):
            found.setdefault("response", first)
            continue
        try:
            values.append(float(first[0]))
        except (TypeError, ValueError, LookupError, OverflowError):
            raise DataError(f"{where}: resps holds neither text nor log-likelihood, found {str(said)[:40]}") from None
    if values:
        asked = [one for one in given.values() if isinstance(one, dict)] if isinstance(given, dict) else []
        continuations = [one["arg_1"] for one in asked if isinstance(one.get("arg_1"), str)]
        found |= {"loglikelihoods": values, "continuations": continuations}
    return found


def text(row: Row, keys: Sequence[str] = TEXTS) -> str:
    """What the model said: the text under the first of the keys that the row has. DataError where it has none."""
    where, content = row
    key = next((key for key in keys if key in content), "answer" if keys is TEXTS else keys[0])
    if not isinstance(content.get(key), str):
        others = "" if key in content else f" (or {', '.join(repr(one) for one in keys if one != key)})"
        raise DataError(f"{where}: no text in {key!r}{others}")
    return content[key]


def loglikelihoods(row: Row, count: int, key: str = "loglikelihoods") -> list[float]:
    """The `count` finite numbers of a row, one an option in the order of the file; DataError for anything else."""
    where, values = row[0], row[1].get(key)
    if not isinstance(values, list) or len(values) != count:
        found = f", found {len(values)}" if isinstance(values, list) else ""
        raise DataError(f"{where}: {key} needs {count} log-likelihoods, one a choice in file order{found}")
    for value in values:
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:  # NaN is not below it, either
            raise DataError(f"{where}: {key} holds {short(value, 40)}, which is no finite number")
    return values


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


def in_order(rows: Sequence[Row], key: str, known: Collection, name: str) -> list[Row]:
    """As `matched`; rows without any id are taken for the answers in the order of the `known` ids, one each."""
    if any(key in row for _, row in rows):
        return matched(rows, key, known, name)
    if len(rows) != len(known):
        raise DataError(f"{name}: {len(rows)} answers for {len(known)} questions. Give one a question, in their order")
    return list(rows)
