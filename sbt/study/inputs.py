"""Files and folders that parameters name: which must be there before anything starts, and which a run reads."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sbt.utils import hub, paths
from sbt.utils.errors import ParameterError

NO_PATHS = ("", "hub", "none", "harness")  # what is downloaded, and presets
# Names of parameters whose values are paths; `data` alone names a step.
PATHS = re.compile(
    r".+_(data|images|from|file|answers|verdicts)|images|references|annotations|demonstrations|corrupted|sources|flickr|preset"
    r"|questions"
)
DATA = ("_data", "_images", "_from")  # what names of parameters end in that may name a published set
published: Mapping[str, object] = {}  # sets by name, from `sbt.data.registry`, which this folder may not import
REMEDY = "put it there, or change the value"


def named(parameter: str, value: object) -> Iterable[str]:
    """The local paths in the value of a parameter, in those of a dict too; not "hub", published sets and Hub ids."""
    if isinstance(value, Mapping) and PATHS.fullmatch(parameter):
        for name, inner in value.items():
            if name != "split":
                yield from named(parameter, inner)
    if not isinstance(value, str) or value in NO_PATHS or value in published:
        return
    if parameter in (*hub.MODELS, *hub.TRAINING) and hub.is_name(value):
        return
    a_file = "/" in value or hub.FILE.fullmatch(value)
    if a_file if parameter in (*hub.MODELS, "table") else PATHS.fullmatch(parameter) and (published or a_file):
        yield value


def missing(steps: Iterable[Mapping], made: Iterable[Path] = ()) -> dict[str, list[tuple[str, str]]]:
    """Paths that the steps' values name and that are not here, each with the parameters and steps that name it.

    What lies in one of the folders `made` is left out: a step writes it.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    made = tuple(made)
    for values in steps:
        for parameter, value in values.items():
            for name in named(parameter, value):
                path = paths.resolve(name)
                if not paths.exists(name) and not any(path.is_relative_to(folder) for folder in made):
                    found.setdefault(paths.shown(path), []).append((parameter, values.get("step", "a step")))
    return found


def remedy(parameter: str, path: str) -> str:
    """What to do about a path that is not here."""
    a_set = parameter.endswith(DATA) and "/" not in path
    return f"{REMEDY}, or name one of {', '.join(published)}" if a_set else REMEDY


def check(values: Mapping) -> None:
    """ParameterError with every path that a step's values name and that is not here as it begins."""
    lines = []
    for path, where in missing([values]).items():
        names = ", ".join(dict.fromkeys(name for name, _ in where))
        lines.append(f"{path} does not exist ({names}): {remedy(where[0][0], path)}")
    if lines:
        raise ParameterError("\n".join(lines))


def local(values: Mapping) -> list[str]:
    """Files and folders on this machine that parameters name, at any depth: what a run reads."""
    found, waiting = [], [value for name, value in values.items() if name not in ("study", "step")]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, list | dict):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and value and paths.exists(value):
            found.append(value)
    return list(dict.fromkeys(found))
