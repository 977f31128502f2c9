"""One row of every training source in the form of `sbt.data.llava`, with the checks of `llava` and `text`."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from sbt import paths
from sbt.data import figures, llava, text
from sbt.data.imagezip import open_zip, reference, safe
from sbt.data.llava import Fail
from sbt.errors import DataError, ParameterError
from sbt.text import nearest

_ANY = Path("/")  # the folder of `llava._row`; where images really are is told apart from the checks of rows


def _llava(entry: dict, position: int, fail: Fail) -> dict:
    names = entry.get("image") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise fail(f"'image' must be a file name or a list of them, found {str(names)[:60]}")
    return llava._row(entry, _ANY, fail) | {"images": names}


def _sharegpt(entry: dict, position: int, fail: Fail) -> dict:
    """SlimOrca's form: LLaVA's conversations without ids (and with weights, which nobody trains with)."""
    return _llava({"id": entry.get("id", f"row-{position}"), "conversations": entry.get("conversations")}, 0, fail)


def _alpaca(entry: dict, position: int, fail: Fail) -> dict:
    instruction = text._field(entry, "instruction", fail)
    extra = text._field(entry, "input", fail, optional=True)
    turns = [("user", f"{instruction}\n{extra}" if extra else instruction)]
    turns += [("assistant", text._field(entry, "output", fail))]
    return text._row(entry.get("id", f"alpaca-{position}"), turns, fail)


def _orca(entry: dict, position: int, fail: Fail) -> dict:
    system = text._field(entry, "system_prompt", fail, optional=True)
    turns = [("system", system)] if system else []
    turns += [(role, text._field(entry, key, fail)) for role, key in (("user", "question"), ("assistant", "response"))]
    return text._row(entry.get("id", f"orca-{position}"), turns, fail)


def _figure(name: str) -> Callable[[dict, int, Fail], dict]:
    return lambda entry, position, fail: _llava(figures.ENTRIES[name](entry, position, fail), position, fail)


FORMATS: dict[str, Callable[[dict, int, Fail], dict]] = {
    "llava": _llava,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "orca": _orca,
    **{name: _figure(name) for name in figures.ENTRIES},
}


def parser(name: str) -> Callable[[object, int, Fail], dict]:
    """The function (entry, position, fail) -> row of a format; the row's images are the names the file gives them.

    ParameterError with a suggestion for another name. The row's problems are raised by `fail`.
    """
    if name not in FORMATS:
        raise ParameterError(f"data format {name!r} is unknown{nearest(str(name), FORMATS)}")
    form = FORMATS[name]

    def parse(entry: object, position: int, fail: Fail) -> dict:
        if not isinstance(entry, dict):
            raise fail(f"expected an object, found {type(entry).__name__}")
        return form(entry, position, fail)

    return parse


class Images:
    """Where the images of a data file are: folders and zips, searched in order; `place` finds one by name."""

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = [Path(place).absolute() for place in places]
        self.zips = {place: open_zip(str(place)) for place in self.places if place.suffix.lower() == ".zip"}
        self._outputs = f"{paths.outputs()}/"
        self.place = lru_cache(maxsize=2**16)(self._place)

    def _place(self, name: str) -> str | None:
        """Path or zip reference of an image, None if it is nowhere; DataError for an unsafe or ambiguous name."""
        if not safe(name):
            raise DataError(f"image {name!r} leaves its folder: refused")
        for place in self.places:
            if found := self.zips.get(place):
                if member := found.find(name):
                    return reference(place, member)
            elif (place / name).is_file():
                return str(place / name)
        return None

    def kept(self, ref: str) -> str:
        """A reference as rows keep it: relative to the folder of outputs where it lies inside, which may move."""
        return ref.removeprefix(self._outputs)

    def shown(self) -> str:
        """The places for a message."""
        return ", ".join(paths.shown(place) for place in self.places)
