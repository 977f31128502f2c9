"""Arms against the base model, by item; where an arm was trained several times, its runs are a second level of chance.

Names are those of `models.study.arms`: "mm-full", or "mm-full (run 1)", "mm-full (run 2)" for runs of one arm.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from sbt.report import stats

_RUN = re.compile(r" \(run \d+\)$")
PerItem = Mapping[str, Mapping[str, Sequence[float]]]  # scores of every item, by name and metric


def group(names: Iterable[str]) -> dict[str, list[str]]:
    """Arm -> the names of its runs, in their order."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_RUN.sub("", name), []).append(name)
    return found


def between(scores: Mapping[str, Sequence[float]], a: str, b: str, seed: int) -> dict:
    """Paired difference of arm `a` from arm `b`, over items and runs, from scores of every item by name."""
    runs = group(scores)
    return stats.paired_runs([scores[name] for name in runs[a]], [scores[name] for name in runs[b]], seed=seed)


def differences(per_item: PerItem, metrics: Sequence[str], seed: int, base: str = "base") -> list[dict]:
    """Paired differences of every arm from `base`: arm, benchmark (the metric), delta, low, high, p, test, p_holm.

    The table is Holm-corrected as a whole. [] where there is no base. Intervals of an arm with several runs are over
    runs and items.
    """
    arms = {arm: names for arm, names in group(per_item).items() if arm != base} if base in per_item else {}
    found = []
    for metric in metrics:
        for arm, names in arms.items():
            runs = [per_item[name][metric] for name in names]
            measured = stats.paired_runs(runs, [per_item[base][metric]], seed=seed)
            found.append({"arm": arm, "benchmark": metric, **measured})
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
