"""What a benchmark says of itself. Its folder's `__init__.py` holds one `SPEC` (or `SPECS`, where one folder has several).

Nothing central lists benchmarks: `sbt.benchmarks.specs()` finds them, and the command line, the preflight, the report's
tables, the paired comparisons and README's table are made from what it finds.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Headline:
    """A metric that the report shows: a column of one of its tables.

    `chance` is what guessing gives, None where nothing is known; `best` is the metric's upper end, None if it has none.
    """

    subset: str
    metric: str
    title: str
    chance: float | None = None
    best: float | None = 1.0


@dataclass(frozen=True)
class Spec:
    """One benchmark. Functions are named as "module:function" and loaded when they are called, so that a plan needs no torch.

    name: as metric rows and `sbt score` call it. kind: "text" (asks the language model alone) or "vision" (asks arms
    that can see). table: title of the report's table. headline: its columns there. per_item: a function that turns a
    step's samples into {score: DataFrame of items x arms}, for paired comparisons. score_files: what `sbt score` calls,
    and answer_keys: what an answer file must hold, in words. sources: parameter of the notebook -> sources (names in
    `sources_by_name`) that its value "hub" asks for. protocols: name -> differences from the official way, each with
    its source. items and tokens: questions, and tokens a question with its answers, for estimates.
    """

    name: str
    title: str
    kind: str
    table: str
    headline: tuple[Headline, ...]
    about: str = ""
    notebook: str = ""
    per_item: str = ""
    score_files: str = ""
    answer_keys: str = ""
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sources_by_name: dict[str, Any] = field(default_factory=dict)
    protocols: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    items: int = 0
    tokens: int = 0

    def load(self, what: str) -> Callable:
        """The function that `what` ("per_item", "score_files") names."""
        module, _, name = getattr(self, what).partition(":")
        return getattr(importlib.import_module(module), name)
