"""What a set of prompts shares, the batches that compute each token once, and the keys and values of shared prefixes.

Prompts that share most of their tokens become one `PrefixTree`, in which every path is a prompt. What all trees of a
group begin with is their shared prefix: its keys and values are computed once and read by every batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

MIN_PREFIX = 8  # tokens; a shorter shared prefix does not pay for copying its keys and values
MIN_GROUP = 8  # fewer prompts are put into one tree instead of getting a shared prefix of their own
MAX_TREE = 512  # tokens of a tree that holds more than one prompt


@dataclass(frozen=True)
class TokenSequence:
    """Token ids of a context and of a continuation after it."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def read(self) -> tuple[int, ...]:
        """What the model reads: all but the last token, which is only predicted."""
        return (self.context + self.continuation)[:-1]


@dataclass
class PrefixTree:
    """A tree of tokens; `places` are the (item, sequence) numbers whose paths it holds."""

    skip: int  # tokens of the shared prefix, which stand before the tree
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    scored: list[list[tuple[int, int]]] = field(default_factory=list)  # of each place: (node, the token it predicts)
    _children: dict[tuple[int, int], int] = field(default_factory=dict, repr=False)

    def add(self, place: tuple[int, int], sequence: TokenSequence) -> None:
        """Put a sequence's path into the tree."""
        node, path = -1, []
        for depth, token in enumerate(sequence.read[self.skip :]):
            key = node, token
            if key not in self._children:
                self._children[key] = len(self.tokens)
                self.tokens.append(token)
                self.parents.append(node)
                self.depths.append(self.skip + depth)
            node = self._children[key]
            path.append(node)
        first = len(sequence.context) - 1 - self.skip
        self.places.append(place)
        self.scored.append(list(zip(path[first:], sequence.continuation, strict=True)))

    def growth(self, sequence: TokenSequence) -> int:
        """How many tokens `add` would put into the tree."""
        node, read = -1, sequence.read[self.skip :]
        for depth, token in enumerate(read):
            if (node := self._children.get((node, token), -2)) == -2:
                return len(read) - depth
        return 0

    def put_beside(self, other: "PrefixTree") -> None:
        """Take in the nodes of another tree: no path of one attends to a path of the other."""
        before = len(self.tokens)
        self.tokens += other.tokens
        self.parents += [parent + before if parent >= 0 else parent for parent in other.parents]
        self.depths += other.depths
        self.places += other.places
        self.scored += [[(node + before, token) for node, token in path] for path in other.scored]

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


@dataclass(frozen=True)
class Batch:
    """Trees for one forward pass, all behind the same shared prefix."""

    prefix: tuple[int, ...]
    trees: list[PrefixTree]

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """(item, sequence) numbers of everything scored in this batch."""
        return [place for tree in self.trees for place in tree.places]

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Token ids (trees, width), attention mask (None: plain causal) and position ids, padded on the right."""
        skip, width = len(self.prefix), max(len(tree.tokens) for tree in self.trees)
        ids, positions = torch.zeros(2, len(self.trees), width, dtype=torch.long)
        for i, tree in enumerate(self.trees):
            ids[i, : len(tree.tokens)] = torch.tensor(tree.tokens)
            positions[i, : len(tree.tokens)] = torch.tensor(tree.depths)
        if all(tree.chain for tree in self.trees) and not skip:
            return ids, None, torch.arange(width).expand(len(self.trees), width)
        mask = torch.zeros(len(self.trees), 1, width, skip + width, dtype=torch.bool)
        mask[..., :skip] = True
        for i, tree in enumerate(self.trees):
            mask[i, 0, : len(tree.tokens), skip : skip + len(tree.tokens)] = tree.ancestors()
        if not skip:
            mask[..., 0] |= ~mask.any(dim=-1)  # a padded position that sees nothing would be nan
        return ids, mask, positions

    @cached_property
    def predictions(self) -> tuple[list[int], list[int], list[int], list[int]]:
        """Lists of tree, node, the token predicted there, and the number of the place it is scored for."""
        found: list[tuple[int, int, int, int]] = []
        owner = 0
        for number, tree in enumerate(self.trees):
            for path in tree.scored:
                found += [(number, node, token, owner) for node, token in path]
                owner += 1
        return tuple(map(list, zip(*found, strict=True)))


def clusters(items: Sequence[Sequence[TokenSequence]]) -> list[tuple[tuple[int, ...], list[int]]]:
    """(shared prefix, items that begin with it): a few-shot prompt, say. Items without one come last, together."""
    order = sorted(range(len(items)), key=lambda i: min(one.context for one in items[i]))
    runs, rest = [], []
    for run in _runs(items, order):
        if len(run) >= MIN_GROUP and len(_trees(items, run, 0, most=2)) > 1:
            runs.append(run)
        else:
            rest += run
    return [(_prefix(items, run), run) for run in ([*runs, rest] if rest else runs)]


def plan(items: Sequence[Sequence[TokenSequence]], share: bool = True) -> list[Batch]:
    """Trees that hold every sequence of every item once, by shared prefix; a function of the tokens alone.

    Without `share` each sequence is read whole and alone; those that read the same tokens are read once.
    """
    if not share:
        whole: dict[tuple[int, ...], PrefixTree] = {}
        for i, sequences in enumerate(items):
            for number, one in enumerate(sequences):
                whole.setdefault(one.read, PrefixTree(0)).add((i, number), one)
        return [Batch((), list(whole.values()))]
    groups = []
    for prefix, run in clusters(items):
        near_runs = _runs(items, run, len(prefix))
        groups.append(Batch(prefix, [tree for near in near_runs for tree in _trees(items, near, len(prefix))]))
    return groups


def batches(
    groups: Iterable[Batch],
    size: int,
    tokens: int = 2**62,
    scored: int = 2**62,
    *,
    side_by_side: bool = False,
) -> Iterator[Batch]:
    """Batches of at most `size` trees, about `tokens` tokens (with padding) and `scored` predictions.

    The longest come first: whatever does not fit into memory shows at once. `side_by_side` puts short trees into one
    line where padding would stand.
    """
    for group in groups:
        trees = sorted(group.trees, key=lambda tree: -len(tree.tokens))
        if side_by_side and (group.prefix or not all(tree.chain for tree in trees)):  # else no mask is needed
            trees = _side_by_side(trees)
        while trees:
            count = max(1, min(size, tokens // max(1, len(trees[0].tokens))))
            totals = np.cumsum([sum(map(len, tree.scored)) for tree in trees[:count]])
            count = max(1, int((totals <= scored).sum()))
            yield Batch(group.prefix, trees[:count])
            trees = trees[count:]


def _side_by_side(trees: Sequence[PrefixTree]) -> list[PrefixTree]:
    """The trees, the longest first, as lines no longer than the longest of them, or than MAX_TREE."""
    lines, room = [], max(len(trees[0].tokens), MAX_TREE)
    for tree in trees:
        line = next((line for line in lines if len(line.tokens) + len(tree.tokens) <= room), None)
        if line is None:
            lines.append(PrefixTree(tree.skip))
        (line or lines[-1]).put_beside(tree)
    return sorted(lines, key=lambda line: -len(line.tokens))


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _runs(items: Sequence[Sequence[TokenSequence]], order: Sequence[int], skip: int = 0) -> Iterator[list[int]]:
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


def _prefix(items: Sequence[Sequence[TokenSequence]], run: Sequence[int]) -> tuple[int, ...]:
    sequences = [one for i in run for one in items[i]]
    first, last = min(one.context for one in sequences), max(one.context for one in sequences)
    # all but the last token of a context: the first prediction needs a position to start from
    length = min(common(first, last), min(len(one.context) for one in sequences) - 1)
    return first[:length] if length >= MIN_PREFIX and len(sequences) > 1 else ()


def _trees(
    items: Sequence[Sequence[TokenSequence]], near: Sequence[int], skip: int, most: int = 0
) -> list[PrefixTree]:
    """One tree for near neighbours, or several where one would grow longer than MAX_TREE; `most` stops early.

    An item is divided, too, but not where most of a sequence is in the tree already: that is less than a new tree.
    """
    trees = [PrefixTree(skip)]
    for i in near:
        for number, one in enumerate(items[i]):
            growth = trees[-1].growth(one)
            full = len(trees[-1].tokens) + growth > MAX_TREE
            if trees[-1].tokens and full and (number == 0 or 2 * growth > len(one.read) - skip):
                if len(trees) == most:
                    return trees
                trees.append(PrefixTree(skip))
            trees[-1].add((i, number), one)
    for tree in trees:  # nothing is added any more; the table of children is more than half of a tree's memory
        tree._children.clear()
    return trees


def read_prefix(model: nn.Module, prefix: tuple[int, ...]) -> DynamicCache | None:
    """Keys and values of a shared prefix, for `borrowed` or `repeated`; None where there is none."""
    if not prefix:
        return None
    return keys_and_values(model, input_ids=torch.tensor([prefix], device=model.device))


def keys_and_values(model: nn.Module, **read: object) -> DynamicCache:
    """The cache after a forward pass that needs no predictions: the head sees one position only."""
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda module, args: (args[0][:, -1:], *args[1:]))
    try:
        return model(**read, use_cache=True).past_key_values
    finally:
        handle.remove()


class _Borrowed(DynamicLayer):
    """One row of keys and values that every pass reads before its own; what a pass computes is not kept.

    An ordinary cache would keep a copy of the prefix for every row and layer, more memory than the pass itself needs.
    """

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the prefix in front of those of this pass."""
        pairs = ((self.keys, key_states), (self.values, value_states))
        return tuple(torch.cat([own.expand(len(new), *own.shape[1:]), new], dim=-2) for own, new in pairs)


def borrowed(past: DynamicCache | None, config: PretrainedConfig) -> DynamicCache | None:
    """A cache for any number of passes of any number of rows that all begin with the prefix in `past`."""
    if past is None:
        return None
    cache = DynamicCache(config=config)
    cache.layers = [_Borrowed() for _ in past.layers]
    for layer, own in zip(cache.layers, past.layers, strict=True):
        layer.lazy_initialization(own.keys, own.values)
        layer.keys, layer.values = own.keys, own.values
    return cache


def repeated(past: DynamicCache | None, rows: Sequence[int], config: PretrainedConfig) -> DynamicCache | None:
    """A cache whose row number k holds the keys and values of row `rows[k]` of `past`."""
    if past is None:
        return None
    cache = DynamicCache(config=config)
    for number, layer in enumerate(past.layers):
        cache.update(layer.keys[list(rows)], layer.values[list(rows)], number)
    return cache
