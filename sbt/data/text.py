"""Text-only instruction data in the Alpaca and Orca formats as training rows, with the checks of `sbt.data.llava`."""

from collections.abc import Callable, Iterable
from pathlib import Path

from sbt.data.llava import PLACEHOLDER, Fail, check_turns, fail_in, unique
from sbt.utils import paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import read_json, read_jsonl
from sbt.utils.text import nearest


def load_alpaca(file: Path) -> list[dict]:
    """Rows of an Alpaca file, a JSON list of {instruction, input, output}; an `input` follows after a newline.

    Rows without an id are named `alpaca-POSITION`. DataError names file, row and remedy.
    """
    entries = read_json(file)
    if not isinstance(entries, list):
        raise DataError(f"{paths.shown(file)}: expected a list of instructions, found {type(entries).__name__}")
    return _rows(alpaca_row, enumerate(entries), file)


def load_orca(file: Path) -> list[dict]:
    """Rows of an Orca file, JSON lines of {id, system_prompt, question, response}; DataError as above.

    An empty `system_prompt` writes no system turn, so the conversation template's own stands.
    """
    return _rows(orca_row, enumerate(read_jsonl(file)), file)


LOADERS = {"alpaca": load_alpaca, "orca": load_orca}


def load(name: str, file: Path) -> list[dict]:
    """Rows of a text-only set by the name of its format; ParameterError with a suggestion for another name."""
    if name not in LOADERS:
        raise ParameterError(f"text-only format {name!r} is unknown{nearest(name, LOADERS)}")
    return LOADERS[name](file)


def alpaca_row(entry: object, position: int, fail: Fail) -> dict:
    """One entry of an Alpaca file as a row; its problem goes to `fail`."""
    instruction, extra = _field(entry, "instruction", fail), _field(entry, "input", fail, optional=True)
    turns = [("user", f"{instruction}\n{extra}" if extra else instruction)]
    turns += [("assistant", _field(entry, "output", fail))]
    return _row(entry.get("id", f"alpaca-{position}"), turns, fail)


def orca_row(entry: object, position: int, fail: Fail) -> dict:
    """One entry of an Orca file as a row; its problem goes to `fail`."""
    system = _field(entry, "system_prompt", fail, optional=True)
    turns = [("system", system)] if system else []
    turns += [(role, _field(entry, key, fail)) for role, key in (("user", "question"), ("assistant", "response"))]
    return _row(entry.get("id", f"orca-{position}"), turns, fail)


def _rows(form: Callable[[object, int, Fail], dict], entries: Iterable[tuple[int, object]], file: Path) -> list[dict]:
    rows = [form(entry, position, fail_in(file, position, entry)) for position, entry in entries]
    return unique(rows, Path(file))


def _field(entry: object, key: str, fail: Fail, *, optional: bool = False) -> str:
    if not isinstance(entry, dict):
        raise fail(f"expected an object, found {type(entry).__name__}")
    value = entry.get(key, "" if optional else None)
    if optional and value in ("", None):
        return ""
    if not isinstance(value, str):
        raise fail(f"no text in {key!r}: fill it in or drop the row")
    if not value.strip():
        empty = "empty answer: there is nothing to learn from" if key in ("output", "response") else f"empty {key!r}"
        raise fail(f"{empty}. Fill it in or drop the row")
    return value


def _row(name: object, turns: list[tuple[str, str]], fail: Fail) -> dict:
    check_turns([role for role, _ in turns], fail)
    if any(PLACEHOLDER in text for _, text in turns):
        raise fail(f"the text holds a literal {PLACEHOLDER}, which stands for a picture. Reword it or drop the row")
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    return {"id": str(name), "images": [], "messages": messages}
