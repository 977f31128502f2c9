"""Conversation templates as chat-template files; what is trained stands between `{% generation %}` marks.

`load("v1")` returns the template text for a tokenizer or processor; `template_hash` names it in results.
"""

from functools import cache
from pathlib import Path

from sbt.utils.errors import ParameterError
from sbt.utils.files import sha256
from sbt.utils.text import nearest

_FOLDER = Path(__file__).parent
_STOPS = {"plain": "\n", "v0": "###", "v0_eval": "###"}


def names() -> list[str]:
    """Names of all conversation templates, sorted."""
    return sorted(file.stem for file in _FOLDER.glob("*.jinja"))


@cache
def load(name: str) -> str:
    """Jinja text of the conversation template `name`; ParameterError (with a suggestion) if there is none."""
    if name not in names():
        raise ParameterError(f"conversation {name!r} is unknown{nearest(str(name), names())}")
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def template_hash(name: str) -> str:
    """First 12 hex digits of the SHA-256 of the template text: it tells apart results of different prompts."""
    return sha256(load(name))[:12]


def stop_string(name: str) -> str | None:
    """Text that ends an answer in formats whose end is no eos token (v0, plain); None where eos ends it."""
    load(name)
    return _STOPS.get(name)
