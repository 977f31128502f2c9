"""Seeded samples of a training set: n rows, with duplicates only when asked; held-out rows; a text-only twin.

Works on lists of rows and on prepared folders mapped from the disk (`arrowfolder.load`).
"""

import contextlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import datasets

from sbt.data import llava
from sbt.data.arrowfolder import TOKENS
from sbt.utils.errors import ParameterError

Rows = Sequence[dict] | datasets.Dataset


class Sample(NamedTuple):
    """Rows, their sorted `positions` in the set they were drawn from, and `counts` of different and duplicate ones."""

    rows: Rows
    positions: list[int]
    counts: dict[str, int]

    def stated(self) -> str:
        """What it is, in words: duplicates are never passed over."""
        of = f"{self.counts['rows']:,} rows of {self.counts['of']:,}"
        if not self.counts["duplicates"]:
            return f"{of}, none twice"
        most = self.counts["most_copies"]
        return (
            f"{of}: {self.counts['duplicates']:,} are duplicates, {self.counts['different']:,} rows 1 to {most} times"
        )


def draw(rows: Rows, n: int, *, seed: int, repeat: bool = False, name: str = "rows") -> Sample:
    """`n` rows without replacement, in their order in the set: the trainer shuffles.

    `repeat`: more rows than there are may be asked for; every row then comes n // size times, and the rest is drawn
    without replacement (the paper's "80K" of Alpaca's 52K). Copies are called `ID#2`, `ID#3`. ParameterError where
    `n` is not positive, or larger than the set without `repeat`.
    """
    size = len(rows)
    if n < 1 or (n > size and not repeat) or not size:
        words = f"{n:,} of {size:,} {name} cannot be drawn without repeating some"
        raise ParameterError(f"{words}: ask for 1 to {size:,}, or set repeat=True to get stated duplicates")
    whole, rest = divmod(n, size)
    positions = sorted([*range(size)] * whole + random.Random(f"{seed}/{name}").sample(range(size), rest))
    most = whole + bool(rest)
    counts = {"rows": n, "of": size, "different": min(n, size), "duplicates": max(0, n - size), "most_copies": most}
    return Sample(_take(rows, positions), positions, counts)


def set_aside(rows: Rows, n: int, *, seed: int) -> tuple[Rows, Rows]:
    """The rows to train on, and `n` or a few more with an image that are kept from it.

    Drawn by image: a picture's rows all go the same way, for one that was trained on is no held-out one.
    ParameterError where fewer than `n` rows have an image, or none would be left.
    """
    of_image: dict[str, list[int]] = {}
    for position, names in enumerate(_column(rows, "images")):
        for name in names:
            of_image.setdefault(name, []).append(position)
    order = sorted(of_image)
    random.Random(f"{seed}/aside").shuffle(order)
    chosen: set[int] = set()
    while order and len(chosen) < n:
        chosen.update(of_image[order.pop()])
    left = [position for position in range(len(rows)) if position not in chosen]
    if len(chosen) < n or not left:
        raise ParameterError(
            f"{n:,} of {len(rows):,} rows cannot be set aside: too few have an image, or none is left"
        )
    return _take(rows, left), _take(rows, sorted(chosen))


def twin(rows: Rows) -> Rows:
    """`llava.text_twin` of a list or of a mapped set: same ids, same order, no images."""
    if not isinstance(rows, datasets.Dataset):
        return llava.text_twin(rows)
    with quiet():
        blind = rows.remove_columns([TOKENS] if TOKENS in rows.column_names else [])  # they counted the images in
        return blind.map(lambda row: llava.text_twin([row])[0], features=blind.features)


def _column(rows: Rows, name: str) -> Iterable:
    return rows[name] if isinstance(rows, datasets.Dataset) else [row[name] for row in rows]


def _take(rows: Rows, positions: Sequence[int]) -> Rows:
    copies: Counter = Counter()
    suffixes = []
    for position in positions:
        copies[position] += 1
        suffixes.append(f"#{copies[position]}" if copies[position] > 1 else "")
    if not isinstance(rows, datasets.Dataset):
        return [rows[at] | {"id": rows[at]["id"] + suffix} for at, suffix in zip(positions, suffixes, strict=True)]
    taken = rows.select(positions)
    if not any(suffixes):
        return taken
    names = [name + suffix for name, suffix in zip(taken["id"], suffixes, strict=True)]
    order = taken.column_names
    with quiet():
        return taken.remove_columns("id").add_column("id", names).select_columns(order)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars of the datasets library: a published notebook would keep them."""
    before = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            datasets.enable_progress_bars()
