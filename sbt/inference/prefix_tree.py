"""Which tokens a set of prompts shares, and the batches that compute each of them once.

Prompts that share most of their tokens become one `line`, a tree of tokens in which every path is a prompt; what all
lines of a group begin with is its `primer`, whose keys and values are computed once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

MIN_PRIMER = 8  # a shorter primer does not pay for copying its keys and values
MIN_GROUP = 8  # as few prompts are rather put into one line than given a primer of their own
LINE = 512  # tokens of a line that holds more than one prompt


@dataclass(frozen=True)
class Row:
    """Token ids of a context and of a continuation after it."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def parts(self) -> tuple[list[int], list[int]]:
        """Context and continuation as lists."""
        return list(self.context), list(self.continuation)

    @property
    def read(self) -> tuple[int, ...]:
        """What the model reads: all but the last token, which it only predicts."""
        return (self.context + self.continuation)[:-1]


@dataclass
class Line:
    """A tree of tokens; `places` are the (item, row) whose paths it holds."""

    skip: int  # tokens of the primer, which stand before the tree
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    scored: list[list[tuple[int, int]]] = field(default_factory=list)  # of each place: (node, the token it predicts)
    _children: dict[tuple[int, int], int] = field(default_factory=dict, repr=False)

    def add(self, place: tuple[int, int], row: Row) -> None:
        """Put a row's path into the tree."""
        node, path = -1, []
        for depth, token in enumerate(row.read[self.skip :]):
            key = node, token
            if key not in self._children:
                self._children[key] = len(self.tokens)
                self.tokens.append(token)
                self.parents.append(node)
                self.depths.append(self.skip + depth)
            node = self._children[key]
            path.append(node)
        first = len(row.context) - 1 - self.skip
        self.places.append(place)
        self.scored.append(list(zip(path[first:], row.continuation, strict=True)))

    def growth(self, row: Row) -> int:
        """How many tokens `add` would put into the tree."""
        node, read = -1, row.read[self.skip :]
        for depth, token in enumerate(read):
            if (node := self._children.get((node, token), -2)) == -2:
                return len(read) - depth
        return 0

    @property
    def chain(self) -> bool:
        """Whether the tree does not branch, so that plain causal attention is right for it."""
        return all(parent == node - 1 for node, parent in enumerate(self.parents))

    def ancestors(self) -> torch.Tensor:
        """(nodes, nodes) bool: which tokens each token may attend to."""
        found = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                found[node] |= found[parent]
        return torch.from_numpy(found)


@dataclass
class Group:
    """Lines that begin with the same primer."""

    primer: tuple[int, ...]
    lines: list[Line]


@dataclass(frozen=True)
class Batch:
    """Lines of one group for one forward pass."""

    primer: tuple[int, ...]
    lines: list[Line]

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """(item, row) of everything scored in this batch."""
        return [place for line in self.lines for place in line.places]

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Token ids (lines, width), attention mask (None: plain causal) and position ids, padded on the right."""
        skip, width = len(self.primer), max(len(line.tokens) for line in self.lines)
        ids, positions = torch.zeros(2, len(self.lines), width, dtype=torch.long)
        for i, line in enumerate(self.lines):
            ids[i, : len(line.tokens)] = torch.tensor(line.tokens)
            positions[i, : len(line.tokens)] = torch.tensor(line.depths)
        if all(line.chain for line in self.lines) and not skip:
            return ids, None, torch.arange(width).expand(len(self.lines), width)
        mask = torch.zeros(len(self.lines), 1, width, skip + width, dtype=torch.bool)
        mask[..., :skip] = True
        for i, line in enumerate(self.lines):
            mask[i, 0, : len(line.tokens), skip : skip + len(line.tokens)] = line.ancestors()
        if not skip:
            mask[..., 0] |= ~mask.any(dim=-1)  # a padded position that sees nothing would be nan
        return ids, mask, positions

    def predictions(self) -> tuple[list[int], list[int], list[int], list[int]]:
        """Lists of line, node, the token predicted there, and the number of the place it is scored for."""
        found: list[tuple[int, int, int, int]] = []
        owner = 0
        for number, line in enumerate(self.lines):
            for path in line.scored:
                found += [(number, node, token, owner) for node, token in path]
                owner += 1
        return tuple(map(list, zip(*found, strict=True)))


def clusters(items: Sequence[Sequence[Row]]) -> list[tuple[tuple[int, ...], list[int]]]:
    """(primer, items that begin with it): a few-shot prompt, say. What has none of its own comes last, together."""
    order = sorted(range(len(items)), key=lambda i: min(row.context for row in items[i]))
    runs, rest = [], []
    for run in _runs(items, order):
        if len(run) >= MIN_GROUP and _longer_than_a_line(items, run):
            runs.append(run)
        else:
            rest += run
    return [(_primer(items, run), run) for run in ([*runs, rest] if rest else runs)]


def plan(items: Sequence[Sequence[Row]]) -> list[Group]:
    """Groups of lines that hold every row of every item once; a function of the tokens alone."""
    groups = []
    for primer, run in clusters(items):
        lines: list[Line] = []
        for near in _runs(items, run, len(primer)):
            lines += _lines(items, near, len(primer))
        groups.append(Group(primer, lines))
    return groups


def batches(groups: Iterable[Group], size: int, tokens: int = 2**62) -> Iterator[Batch]:
    """Batches of at most `size` lines and about `tokens` tokens, padding included.

    The longest come first: whatever does not fit into memory shows at once.
    """
    for group in groups:
        lines = sorted(group.lines, key=lambda line: -len(line.tokens))
        while lines:
            count = max(1, min(size, tokens // max(1, len(lines[0].tokens))))
            yield Batch(group.primer, lines[:count])
            lines = lines[count:]


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _runs(items: Sequence[Sequence[Row]], order: Sequence[int], skip: int = 0) -> Iterator[list[int]]:
    """Neighbours in the order of their tokens that share at least half of them."""
    run: list[int] = []
    for i in order:
        if run:
            a, b = items[run[-1]][0].context[skip:], items[i][0].context[skip:]
            if 2 * common(a, b) < max(len(a), len(b)):
                yield run
                run = []
        run.append(i)
    if run:
        yield run


def _longer_than_a_line(items: Sequence[Sequence[Row]], run: Sequence[int]) -> bool:
    return len(_lines(items, run, 0, most=2)) > 1


def _primer(items: Sequence[Sequence[Row]], run: Sequence[int]) -> tuple[int, ...]:
    rows = [row for i in run for row in items[i]]
    first, last = min(row.context for row in rows), max(row.context for row in rows)
    # all but the last token of a context: the first prediction needs a position to start from
    length = min(common(first, last), min(len(row.context) for row in rows) - 1)
    return first[:length] if length >= MIN_PRIMER and len(rows) > 1 else ()


def _lines(items: Sequence[Sequence[Row]], near: Sequence[int], skip: int, most: int = 0) -> list[Line]:
    """One line for near neighbours, or several where one would grow longer than LINE.

    An item is divided, too, but not where most of a row is in the line already: that is less than to begin a new one.
    """
    lines = [Line(skip)]
    for i in near:
        for number, row in enumerate(items[i]):
            growth = lines[-1].growth(row)
            full = len(lines[-1].tokens) + growth > LINE
            if lines[-1].tokens and full and (number == 0 or 2 * growth > len(row.read) - skip):
                if len(lines) == most:
                    return lines
                lines.append(Line(skip))
            lines[-1].add((i, number), row)
    return lines
