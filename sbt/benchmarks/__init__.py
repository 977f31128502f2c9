"""Benchmarks: a folder each. `specs()` finds them; adding one is adding a folder, a notebook and a line of a plan."""

import importlib
import pkgutil
from functools import cache

from sbt.benchmarks.spec import Headline, Spec
from sbt.data.registry import BenchmarkFiles
from sbt.templates import template_hash
from sbt.utils.errors import ParameterError
from sbt.utils.files import sha256
from sbt.utils.text import nearest

__all__ = ["Headline", "Spec", "check_protocol", "get", "provenance", "sources", "specs"]


@cache
def specs() -> dict[str, Spec]:
    """Every benchmark by name, sorted by folder: the `SPEC` of each folder, or its several `SPECS`."""
    found = {}
    for folder in pkgutil.iter_modules(__path__):
        if folder.ispkg:
            module = importlib.import_module(f"{__name__}.{folder.name}")
            for spec in getattr(module, "SPECS", (module.SPEC,) if hasattr(module, "SPEC") else ()):
                found[spec.name] = spec
    return found


def get(name: str) -> Spec:
    """A benchmark's SPEC; ParameterError with a suggestion where there is none of that name."""
    if name not in specs():
        raise ParameterError(f"benchmark {name!r} is unknown{nearest(name, specs())}")
    return specs()[name]


def sources() -> dict[str, BenchmarkFiles]:
    """Parameter of a notebook -> the published files that its value "hub" asks for, over all benchmarks."""
    return {parameter: files for spec in specs().values() for parameter, files in spec.sources.items()}


def provenance(protocol: str, conversations: dict[str, str | None], text: str = "") -> dict[str, dict[str, str]]:
    """What every metric row of an arm says of its making: the protocol, and a hash of what stood around the question.

    `conversations` maps an arm to its conversation template, or to None where the question is asked in plain text;
    `text` is what precedes it then.
    """
    check_protocol(protocol, ("standard", "paper"))
    hashes = {name: template_hash(style) if style else sha256(text)[:12] for name, style in conversations.items()}
    return {name: {"protocol": protocol, "template_hash": found} for name, found in hashes.items()}


def check_protocol(protocol: str, known: tuple[str, ...] = ("standard",)) -> None:
    """Raise ParameterError unless the benchmark has this protocol."""
    if protocol not in known:
        raise ParameterError(f"protocol {protocol!r} is unknown here{nearest(protocol, known)}")
