"""Benchmarks: a folder each. `specs()` finds them; adding one is adding a folder, a notebook and a line of a plan."""

import importlib
import pkgutil
from functools import cache

from sbt.benchmarks.spec import Headline, Spec
from sbt.data.registry import BenchmarkFiles
from sbt.study import estimate
from sbt.templates import template_hash
from sbt.utils.errors import ParameterError
from sbt.utils.files import sha256
from sbt.utils.text import nearest

__all__ = ["Headline", "Spec", "check_protocol", "get", "provenance", "sources", "specs"]

MICRO_WORLD = 200  # questions of a benchmark of the micro-world, about


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


def workload(notebook: str, values: dict) -> tuple[list[estimate.Load], dict[str, float]]:
    """What the benchmarks of a notebook ask of one arm, by their SPECs, and gigabytes of files they fetch and unpack.

    The first protocol is asked with the right picture, another one and none, further ones with the right one only.
    """
    from sbt.data import preflight  # here: it asks the Hub, which a table of SPECs need not

    found = []
    for spec in specs().values():
        if spec.notebook != notebook or spec.name not in values.get("benchmarks", (spec.name,)):
            continue
        given = [values.get(name) or values.get("sources", {}).get(name.rpartition(".")[2]) for name in spec.sources]
        items = (spec.items or values.get("limit", 0)) if any(given) or not spec.sources else MICRO_WORLD
        items = min(items, values.get("limit") or items)
        first, *others = values.get("protocols") or [values.get("protocol", "standard")]
        prompts = items * (3 if spec.kind == "vision" else 1)
        prompts += len(others) * min(items, values.get("questions") or items)
        worse = len(values.get("corruptions", ())) * len(values.get("severities", ()))
        prompts += worse * min(items, values.get("corrupted_limit") or items)
        a_picture = (spec.pictures or spec.items) / spec.items if spec.kind == "vision" and spec.items else 0
        written = min(spec.written, values.get("max_new_tokens", spec.written))
        found.append(estimate.Load(prompts, spec.tokens, round(prompts * a_picture), written))
    wanted = preflight.wanted(values, sources())
    texts = {spec.name: 4 * spec.items * spec.tokens for spec in specs().values() if spec.kind == "text"}  # bytes
    sizes = {source.name: sum(file.size for file in source.files) for source in wanted}
    for source in wanted:
        if any(file.name.endswith(".zip") for file in source.files):
            sizes[f"{source.name}, unpacked"] = sizes[source.name]
    return found, {name: (size or texts.get(name, 0)) / 1e9 for name, size in sizes.items()}


estimate.workload = workload


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
