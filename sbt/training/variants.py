"""Variants of instructions that differ in one thing, as controls: which part of the data does it?

rows = varied(rows, words="shuffled", pictures="other", turns=1, seed=0)
"""

import random
from collections.abc import Callable

from datasets import Dataset

from sbt.data import training_sets
from sbt.data.prepare import TOKENS, quiet
from sbt.utils.errors import ParameterError
from sbt.utils.text import nearest

KNOWN = {"words": ("kept", "shuffled"), "pictures": ("right", "other", "none"), "turns": range(1000)}


def varied(rows: Dataset, *, seed: int = 0, **variant: str | int) -> Dataset:
    """The rows with their words shuffled within each turn, other pictures or none, and the first turns alone.

    As many rows, in their order. In `variant`: `words`, kept or shuffled, of questions and answers alike; `pictures`,
    the right one, another one of the set (the same for all rows of a picture), or none; `turns`, questions of a
    conversation, with their answers, 0 being all. ParameterError for another name or value, or where no other picture
    is there.
    """
    for name, value in variant.items():
        known = KNOWN.get(name)
        if known is None:
            raise ParameterError(f"variant {name!r} is unknown{nearest(name, KNOWN)}")
        if value not in known:
            raise ParameterError(f"variant: {name} {value!r} is unknown{nearest(str(value), map(str, known))}")
    words, pictures, turns = (variant.get(name, known[0]) for name, known in KNOWN.items())
    rows = training_sets.twin(rows) if pictures == "none" else rows
    changes: list[Callable[[dict], dict]] = []
    if turns:
        changes.append(lambda row: {"messages": _first(row["messages"], turns)})
    if words == "shuffled":
        changes.append(lambda row: {"messages": _shuffled(row, random.Random(f"{seed} {row['id']}"))})
    if pictures == "other":
        other = _others([image for images in rows["images"] for image in images], seed)
        changes.append(lambda row: {"images": [other[image] for image in row["images"]]})
    if not changes:
        return rows
    with quiet():
        rows = rows.remove_columns([TOKENS] if TOKENS in rows.column_names else [])  # they counted what is changed
        for change in changes:
            rows = rows.map(change, features=rows.features)
    return rows


def _first(messages: list[dict], turns: int) -> list[dict]:
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    return messages[: answers[:turns][-1] + 1]


def _shuffled(row: dict, rng: random.Random) -> list[dict]:
    def mixed(part: dict) -> dict:
        return {**part, "text": part["text"] and _in_any_order(part["text"], rng)}

    return [
        message
        if message["role"] == "system"
        else {**message, "content": [mixed(part) for part in message["content"]]}
        for message in row["messages"]
    ]


def _in_any_order(text: str, rng: random.Random) -> str:
    """The words in random order; blanks at the ends stay, since they part the text from a picture."""
    words = text.split()
    start, end = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return start + " ".join(rng.sample(words, len(words))) + (end if words else "")


def _others(images: list[str], seed: int) -> dict[str, str]:
    """Another picture for each one, no two the same."""
    names = sorted(set(images))
    if len(names) == 1:
        raise ParameterError("pictures 'other': the rows have one picture only")
    order = random.Random(seed).sample(names, len(names))
    return dict(zip(order, [*order[1:], *order[:1]], strict=True))
