"""One row of every training source in the form of `sbt.data.llava`, with the checks of `llava` and `text`."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from sbt.data import figures, llava, text
from sbt.data.imagezip import open_zip, reference, safe
from sbt.data.llava import Fail
from sbt.utils import paths
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.text import nearest


def _llava(entry: dict, position: int, fail: Fail) -> dict:
    return llava.row(entry, fail)


def _sharegpt(entry: dict, position: int, fail: Fail) -> dict:
    """SlimOrca's form: LLaVA's conversations without ids (and with weights, which nobody trains with)."""
    return llava.row({"id": entry.get("id", f"row-{position}"), "conversations": entry.get("conversations")}, fail)


def _figure(name: str) -> Callable[[dict, int, Fail], dict]:
    return lambda entry, position, fail: llava.row(figures.ENTRIES[name](entry, position, fail), fail)


FORMATS: dict[str, Callable[[dict, int, Fail], dict]] = {
    "llava": _llava,
    "sharegpt": _sharegpt,
    "alpaca": text.alpaca_row,
    "orca": text.orca_row,
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
