"""Task templates of a training set: the sentences that its instructions repeat most, whatever the picture shows.

table = mine(rows, top=20, min_share=0.01);  templates = [row["sentence"] for row in table]
"""

import re
from collections import Counter
from collections.abc import Iterable

from sbt.utils.errors import DataError, ParameterError
from sbt.utils.text import nearest

# Where a sentence may end. "line" serves scripts and tasks whose sentences carry no full stop.
SPLITTERS = {
    "sentence": re.compile(r"[.!?]+[\"'”’)\]]*(?=\s)|[。！？]+|[\r\n]+"),
    "line": re.compile(r"[\r\n]+"),
}
_LETTER = re.compile(r"\(?(?:[A-Za-z]|\d{1,2})[.)]")  # "A." of a choice: it opens what follows and ends nothing


def spans(text: str, splitter: str = "sentence") -> list[tuple[int, int]]:
    """(start, end) of every sentence of a text, in characters, in order; the blanks between them belong to none.

    "sentence" ends one at . ! ? (and closing quotes) before a blank, at 。！？ and at a line's end; "A." and "1."
    stay with what they number; abbreviations ("e.g. a") are cut. "line" ends one at a line's end only. ParameterError
    for another splitter.
    """
    if splitter not in SPLITTERS:
        raise ParameterError(f"splitter {splitter!r} is unknown{nearest(str(splitter), SPLITTERS)}")
    found, start = [], 0
    for end in (*(match.end() for match in SPLITTERS[splitter].finditer(text)), len(text)):
        piece = text[start:end]
        if splitter == "sentence" and end < len(text) and _LETTER.fullmatch(piece.strip()):
            continue
        if piece.strip():
            left = start + len(piece) - len(piece.lstrip())
            found.append((left, left + len(piece.strip())))
        start = end
    return found


def sentences(text: str, splitter: str = "sentence") -> list[str]:
    """The sentences of a text, as `spans` finds them."""
    return [text[start:end] for start, end in spans(text, splitter)]


def count(rows: Iterable[dict], splitter: str = "sentence") -> tuple[Counter[str], int]:
    """In how many instructions (user turns) each sentence stands, and how many instructions there are.

    A sentence counts once a turn, so a share is one of turns; letter case and wording are compared as they are.
    """
    found: Counter[str] = Counter()
    turns = 0
    for row in rows:
        for message in row["messages"]:
            if message["role"] == "user":
                turns += 1
                found.update({one for text in _texts(message["content"]) for one in sentences(text, splitter)})
    return found, turns


def mine(
    rows: Iterable[dict], *, top: int | None = None, min_share: float | None = None, splitter: str = "sentence"
) -> list[dict]:
    """Table of the sentences that most instructions have: `rank`, `sentence`, `count` (turns), `share` of all turns.

    The `top` most frequent, those in `min_share` (0 to 1) of the turns or more, or both conditions; never one that a
    single turn has. Equal counts are in alphabetical order, so the same rows give the same table. Source of the rule:
    L2T (arXiv 2503.22215) drops top-frequency sentences of the training set; neither its number nor its splitter is
    published, so both are parameters. ParameterError for no or impossible limits; DataError for rows without
    instructions.
    """
    if top is None and min_share is None:
        raise ParameterError("give top (how many sentences), min_share (in which share of the instructions), or both")
    if top is not None and not (isinstance(top, int) and top > 0):
        raise ParameterError(f"top must be a whole number above 0, found {top!r}")
    if min_share is not None and not 0 < min_share <= 1:
        raise ParameterError(f"min_share must lie above 0 and not above 1, found {min_share!r}")
    counts, turns = count(rows, splitter)
    if turns == 0:
        raise DataError("no row has an instruction (a turn of the user) to find templates in")
    least = max(2, (min_share or 0) * turns)
    order = sorted((item for item in counts.items() if item[1] >= least), key=lambda item: (-item[1], item[0]))
    return [
        {"rank": rank, "sentence": sentence, "count": number, "share": number / turns}
        for rank, (sentence, number) in enumerate(order[:top], start=1)
    ]


def _texts(content: str | list[dict]) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
