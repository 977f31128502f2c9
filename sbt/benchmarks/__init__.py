"""Benchmarks: one file each, with `load`, `prompt` and `score`; adding one is a file and a line here."""

import importlib
from types import ModuleType

from sbt.templates import template_hash
from sbt.utils.errors import ParameterError
from sbt.utils.files import sha256
from sbt.utils.text import nearest

NAMES = {
    "captions": "sbt.benchmarks.captions.task",
    "ethics": "sbt.benchmarks.ethics.task",
    "mme": "sbt.benchmarks.mme.task",
    "pope": "sbt.benchmarks.pope.task",
    "truthfulqa": "sbt.benchmarks.truthfulqa.task",
    "truthfulqa-gen": "sbt.benchmarks.truthfulqa.generation",
    "unicorn": "sbt.benchmarks.unicorn.task",
    "vqav2": "sbt.benchmarks.vqav2.task",
}


def get(name: str) -> ModuleType:
    """The module of a benchmark; ParameterError with a suggestion where there is none of that name."""
    if name not in NAMES:
        raise ParameterError(f"benchmark {name!r} is unknown{nearest(name, NAMES)}")
    return importlib.import_module(NAMES[name])


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
