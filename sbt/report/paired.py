"""Arms against each other, by item. Where an arm was trained several times, its runs are a second source of chance.

Names of arms are "mm-full", or "mm-full (run 1)", "mm-full (run 2)" for several runs of one arm.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import pandas as pd

from sbt.report import stats
from sbt.utils.errors import DataError
from sbt.utils.text import run_names

BASE = "base"
CONSTANT = 0.95  # an arm that gives one answer to more of the items judges nothing: it gets no difference and no p

_RUN = re.compile(r" \(run \d+\)$")
PerItem = Mapping[str, Mapping[str, Sequence[float]]]  # scores of every item, by name and metric


def group(names: Iterable[str]) -> dict[str, list[str]]:
    """Arm -> the names of its runs, in their order."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_RUN.sub("", name), []).append(name)
    return found


def between(scores: Mapping[str, Sequence[float]], a: str, b: str, seed: int) -> dict:
    """Paired difference of arm `a` from arm `b`, over items and runs, from scores of every item by name.

    Answers about one picture depend on each other: where a table names pictures, whole pictures are resampled.
    """
    runs = group(scores)
    of_a, of_b = ([scores[name] for name in runs[arm]] for arm in (a, b))
    return stats.paired_runs(of_a, of_b, groups=pictures(scores), seed=seed)


def pictures(scores: Mapping[str, Sequence[float]]) -> list[str] | None:
    """The picture of every item, where the scores are a table that names pictures."""
    if not isinstance(scores, pd.DataFrame) or "image" not in scores.index.names:
        return None
    return list(scores.index.get_level_values("image"))


def differences(per_item: PerItem, metrics: Sequence[str], seed: int) -> list[dict]:
    """Paired differences of every arm from BASE: arm, benchmark (the metric), delta, low, high, p, test, p_holm.

    The table is Holm-corrected as a whole. [] where there is no base. Intervals of an arm with several runs are over
    runs and items. An arm without a metric has no row of it, nor has any arm where the base has none.
    """
    found = []
    for metric in metrics:
        scores = {name: of[metric] for name, of in per_item.items() if metric in of}
        for arm in group(scores) if BASE in scores else ():
            if arm != BASE:
                found.append({"arm": arm, "benchmark": metric, **between(scores, arm, BASE, seed)})
    return stats.corrected(found)


def judging(names: Iterable[str], shares: Mapping[str, float]) -> list[str]:
    """The names without those of arms that give nearly all items one answer; `shares`: arm -> the share of it."""
    return [name for name in names if shares.get(name, shares.get(_RUN.sub("", name), 0)) < CONSTANT]


def by_part(
    per_item: PerItem, metrics: Sequence[str], parts: Mapping[str, Mapping[str, Sequence[bool]]], seed: int
) -> list[dict]:
    """Differences from base on parts of the items: `differences` with `part`, corrected as one table.

    `parts`: part -> arm -> for each item, whether it belongs to that part for that arm. Empty parts have no rows.
    """
    found, runs = [], group(per_item)
    for part, by_arm in parts.items():
        for arm, picked in by_arm.items():
            kept = {name: {metric: [v for v, keep in zip(per_item[name][metric], picked, strict=True) if keep]
                           for metric in metrics} for name in (BASE, *runs[arm])}  # fmt: skip
            if any(picked):
                found += [{**row, "part": part} for row in differences(kept, metrics, seed)]
    return stats.corrected(found)


def pooled(per_item: PerItem, metrics: Sequence[str], *, seed: int, **named) -> list[dict]:
    """Metric rows of the arms with several runs: their mean, with its interval over runs and items."""
    found = []
    for arm, names in group(per_item).items():
        if len(names) > 1:
            for metric in metrics:
                value, low, high = stats.over_runs([per_item[name][metric] for name in names], seed=seed)
                measured = {"metric": metric, "value": value, "low": low, "high": high}
                found.append({"arm": arm, **measured, "n": len(per_item[names[0]][metric]), **named})
    return found


def together(steps: Sequence[Mapping[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Scores of items (rows) by arm (columns) from several steps as one table a score.

    Runs of an arm are numbered through all steps, and the untrained `base` is taken once. DataError where a step
    scored other items than the first step with the same score.
    """
    joined = {}
    for name in dict.fromkeys(chain.from_iterable(steps)):
        first, *others = [step[name] for step in steps if name in step]
        columns: dict[str, list[pd.Series]] = {}
        for table in (first, *others):
            if set(table.index) != set(first.index):
                raise DataError(f"{name}: steps scored other items than the first of them: run them on the same")
            for arm, runs in group(table.columns).items():
                if arm != BASE or BASE not in columns:
                    columns.setdefault(arm, []).extend(table.loc[first.index, run] for run in runs)
        named = (zip(run_names(arm, len(runs)), runs, strict=True) for arm, runs in columns.items())
        joined[name] = pd.DataFrame(dict(chain.from_iterable(named)))
    return joined
