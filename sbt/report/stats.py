"""Intervals and differences over items (or groups of items) and over training runs, paired between arms.

bootstrap(values) -> (mean, low, high)        paired(a, b) -> {"delta", "low", "high", "p", "n", "test"}
over_runs(runs) -> (mean, low, high)          paired_runs(a_runs, b_runs) -> the same and "runs_a", "runs_b"
corrected(table) -> the rows with "p_holm"    Everything takes `seed` and gives the same numbers for the same seed.

Right-or-wrong items get formulas that hold at the edges (0 of 12 is not "0 to 0"); all others a percentile bootstrap
that is widened for few items. Tests come from scipy and statsmodels; the chance of items and runs together is ours.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

RESAMPLES = 10_000
FEW_RUNS = 5  # of a trained arm: below this number, runs say too little about chance for a p
_Z = scipy.stats.norm.ppf(0.975)
_CHUNK = 200_000  # drawn numbers held at once: what stays in a processor's cache
_FEW = 500  # distinct values: more of them, and drawing how often each comes costs more than drawing items

Interval = tuple[float, float, float]


def bootstrap(
    values: Sequence[float], *, groups: Sequence | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean of `values` with its 95 % interval; whole `groups` (all questions of a picture, say) are resampled."""
    return ratio(np.ones(len(values)), values, groups=groups, resamples=resamples, seed=seed)


def ratio(
    below: Sequence[float],
    above: Sequence[float],
    *,
    groups: Sequence | None = None,
    share: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """sum(above) / sum(below) with its 95 % interval over items: accuracy, precision and F1 are such ratios.

    F1 is 2 TP / (2 TP + FP + FN): above = 2 TP, below = 2 TP + FP + FN of each item. 0 where the sum below is 0.
    A share of right-or-wrong items has the interval of Agresti and Coull (1998), with the number of items that
    `groups` are worth (Korn and Graubard 1998). A ratio whose items all lie between 0 and 1 has an interval
    that does so, too; `share` False: it only happens to, as a difference may.
    ValueError for no items, for lengths that differ, for scores that are no finite numbers, for less than 2 resamples.
    """
    parts = np.column_stack([np.asarray(above, float), np.asarray(below, float)])
    sums = _group_sums(parts, groups)
    total = sums.sum(axis=0)
    value = float(_divide(total[0], total[1]))
    bounded = share and bool(((parts[:, 0] >= 0) & (parts[:, 0] <= parts[:, 1])).all())
    if (parts[:, 1] == 1).all() and np.isin(parts[:, 0], (0, 1)).all():
        return value, *_share(value, _worth(sums, value), len(sums) if len(sums) < len(parts) else 0)
    drawn = _resampled(sums, resamples, seed)
    low, high = _widened(_divide(drawn[:, 0], drawn[:, 1]), value, len(sums))
    if bounded and total[1] and low == high and value in (0, 1):  # every item at the same end of the scale
        return value, *_share(value, max(1, int((sums[:, 1] > 0).sum())))
    return value, *((max(0.0, low), min(1.0, high)) if bounded else (low, high))


def metric_row(
    above: Sequence[float], below: Sequence[float] = (), *, groups: Sequence | None = None, seed: int = 0,
    scale: float = 1.0, n: int = 0, **named: object,
) -> dict:  # fmt: skip
    """A metric row: the mean of the items' scores, or their `ratio` to `below`, with its interval, times `scale`.

    `named` are arm, benchmark, subset, metric, and what else the row says. `n`: other than the number of items.
    """
    below = below if len(below) else np.ones(len(above))
    value, low, high = (scale * number for number in ratio(below, above, groups=groups, seed=seed))
    first = {name: named.pop(name) for name in ("arm", "benchmark", "subset", "metric")}
    return {**first, "value": value, "low": low, "high": high, "n": n or len(above), **named}


def paired(
    a: Sequence[float],
    b: Sequence[float],
    *,
    groups: Sequence | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, float | int | str]:
    """Mean of a - b over the same items: `delta`, its 95 % interval `low`, `high`, and two-sided `p`.

    p is that of the sign-flip test: how often the sum of the differences of items (or groups) would be as far from
    zero if each had either sign with equal odds, as where the arms are alike. `test` is "exact" where all patterns of
    signs are counted (for right-or-wrong answers this is McNemar's exact test), else "permutation". The interval of
    right-or-wrong answers is that of Agresti and Min (2005). It excludes 0 exactly where p is below 0.05.
    ValueError for no items or for lengths that differ.
    """
    if len(a) != len(b):
        raise ValueError(f"paired scores must be of the same items: {len(a)} and {len(b)}")
    difference = np.asarray(a, float) - np.asarray(b, float)
    sums = _group_sums(np.column_stack([difference, np.ones(len(difference))]), groups)
    delta = float(difference.mean())
    p, test = _sign_flip(sums[:, 0], resamples, seed)
    answers = np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()
    low = high = 0.0
    if not answers or len(sums) < len(difference):
        drawn = _resampled(sums, resamples, seed)
        low, high = _widened(drawn[:, 0] / drawn[:, 1], delta, len(sums))
    if answers and low == high:  # each item by itself, or groups that do not differ
        low, high = _share_difference(delta, (difference != 0).mean(), len(sums))
    low, high = _agree(delta, low, high, p)
    return {"delta": delta, "low": low, "high": high, "p": p, "n": len(difference), "test": test}


def over_runs(values_by_run: Sequence[Sequence[float]], *, groups: Sequence | None = None, seed: int = 0) -> Interval:
    """Mean over several training runs of one arm, scored on the same items, with its 95 % interval.

    Two sources of chance: the items (or groups), the same for all runs, and the runs. Their variances add up, and the
    interval is Student's with Satterthwaite's degrees of freedom, so that two or three runs give a wide one. It stays
    within 0 and 1 where all scores do. A single run has the interval of `bootstrap`. ValueError for no runs or for
    runs of different length.
    """
    if len(_run_means(values_by_run)) == 1:
        return bootstrap(values_by_run[0], groups=groups, seed=seed)
    value, reach, _ = _over_items_and_runs([values_by_run], groups)
    low, high = value - reach, value + reach
    scores = np.asarray(values_by_run, float)
    inside = scores.min() >= 0 and scores.max() <= 1
    return value, *((max(0.0, low), min(1.0, high)) if inside else (low, high))


def paired_runs(
    a_runs: Sequence[Sequence[float]],
    b_runs: Sequence[Sequence[float]],
    *,
    groups: Sequence | None = None,
    seed: int = 0,
) -> dict[str, float | int | str | None]:
    """Mean of arm a minus mean of arm b, each with its own runs, as `paired` gives it, with `runs_a` and `runs_b`.

    The interval is that of `over_runs`, for the difference. With one run an arm this is `paired`. Else p is Student's
    ("t"), and None where an arm has more than one but less than FEW_RUNS runs ("too few runs"): so few say too little
    about how much another run would differ. An untrained arm (`base`) has one run and no chance of its own.
    """
    counts = {"runs_a": len(a_runs), "runs_b": len(b_runs)}
    for runs in (a_runs, b_runs, [*a_runs, *b_runs]):
        _run_means(runs)  # refuses what does not fit together
    if len(a_runs) == len(b_runs) == 1:
        return {**paired(a_runs[0], b_runs[0], groups=groups, seed=seed), **counts}
    delta, reach, p = _over_items_and_runs([a_runs, -np.asarray(b_runs, float)], groups)
    few = any(1 < count < FEW_RUNS for count in counts.values())
    measured = {"delta": delta, "low": delta - reach, "high": delta + reach, "n": len(a_runs[0]), **counts}
    return {**measured, "p": None if few else p, "test": "too few runs" if few else "t"}


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given, of the step-down procedure of Holm (1979): at most 1.

    Rejecting what is below 0.05 leaves a 5 % chance of any false rejection in the family. ValueError unless all are
    between 0 and 1.
    """
    p = np.asarray(p_values, float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie between 0 and 1: {list(p_values)}")
    return multipletests(p, method="holm")[1].tolist() if len(p) else []


def corrected(rows: Sequence[dict]) -> list[dict]:
    """The rows of a table of `paired` results, each with `p_holm`: its p corrected for the table; None stays None."""
    adjusted = iter(holm([row["p"] for row in rows if row["p"] is not None]))
    return [{**row, "p_holm": None if row["p"] is None else next(adjusted)} for row in rows]


def _share(share: float, worth: float, units: int = 0) -> tuple[float, float]:
    """Interval of Agresti and Coull for a share of `worth` independent items, or of items in `units` groups."""
    alpha = 2 * scipy.stats.norm.sf(_t(units - 1)) if units else 0.05
    low, high = proportion_confint(share * worth, worth, alpha=alpha, method="agresti_coull")
    return min(share, max(0.0, float(low))), max(share, min(1.0, float(high)))


def _worth(sums: np.ndarray, share: float) -> float:
    """How many independent items the groups are worth: fewer where the items of a group resemble each other."""
    units, items = len(sums), sums[:, 1].sum()
    if units == items or units == 1:
        return float(items if units == items else 1)
    if share in (0, 1):  # nothing varies, so nothing tells how much a group's items resemble each other
        return float(units)
    spread = ((sums[:, 0] - share * sums[:, 1]) ** 2).sum() * units / (units - 1) / items**2
    return float(min(items, share * (1 - share) / spread)) if spread > 0 else float(items)


def _share_difference(delta: float, discordant: float, units: int) -> tuple[float, float]:
    """Interval of Agresti and Min (2005) for two shares over the same items: half an item more in each cell."""
    more = units + 2
    centre = delta * units / more
    spread = math.sqrt(max(0.0, discordant * units + 1 - centre**2 * more)) / more
    reach = _t(units - 1) * spread
    return min(delta, max(-1.0, centre - reach)), max(delta, min(1.0, centre + reach))


def _t(degrees: float) -> float:
    """The 97.5 % point of Student's t; the normal one where a single unit leaves no degree of freedom."""
    return float(scipy.stats.t.ppf(0.975, degrees)) if degrees > 0 else float(_Z)


def _widened(drawn: np.ndarray, value: float, units: int) -> tuple[float, float]:
    """Percentile interval about `value`, widened for few units as t widens the normal one (Hesterberg 2015)."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    factor = _t(units - 1) / _Z * math.sqrt(units / max(1, units - 1))
    return float(value - factor * (value - low)), float(value + factor * (high - value))


def _agree(delta: float, low: float, high: float, p: float) -> tuple[float, float]:
    """The interval with an end moved to 0 where the test and it disagree about 0: the test decides there."""
    if p > 0.05:
        return min(low, 0.0), max(high, 0.0)
    if delta > 0:
        return max(low, math.nextafter(0.0, 1.0)), high
    return low, min(high, math.nextafter(0.0, -1.0))


def _group_sums(parts: np.ndarray, groups: Sequence | None) -> np.ndarray:
    if len(parts) == 0:
        raise ValueError("no items to average")
    if not np.isfinite(parts).all():
        raise ValueError("scores must be finite numbers")
    if groups is None:
        return parts
    if len(groups) != len(parts):
        raise ValueError(f"{len(parts)} items but {len(groups)} group names")
    places: dict = {}
    index = np.array([places.setdefault(name, len(places)) for name in groups])
    sums = np.zeros((len(places), parts.shape[1]))
    np.add.at(sums, index, parts)
    return sums


def _resampled(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums over `resamples` draws with replacement, (resamples, columns).

    Items with equal values are drawn together: a resample is then a multinomial over the few distinct values, which
    is the same distribution and, for right-or-wrong scores, independent of the number of items. Otherwise it is
    counted how often each item is drawn, and one matrix product serves all columns: gathering takes longer.
    """
    if resamples < 2:
        raise ValueError(f"{resamples} resamples are too few: at least 2, better 1000")
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(sums, axis=0, return_counts=True)
    if few := len(distinct) < min(len(sums) / 4, _FEW):
        sums = distinct
    rows = max(1, _CHUNK // len(sums))
    found = np.empty((resamples, sums.shape[1]))
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        if few:
            drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size)
        else:
            picked = rng.integers(0, len(sums), (size, len(sums)), dtype=np.int32)
            cells = picked + np.arange(size)[:, None] * len(sums)
            drawn = np.bincount(cells.ravel(), minlength=size * len(sums)).reshape(size, len(sums))
        found[start : start + size] = drawn.astype(float) @ sums
    return found


def _run_means(runs: Sequence[Sequence[float]]) -> np.ndarray:
    """Mean of every run, (runs,). ValueError for no runs, or runs that were scored on different items."""
    if len(runs) == 0:
        raise ValueError("no runs to average")
    if len(sizes := {len(run) for run in runs}) > 1:
        raise ValueError(f"runs must be scored on the same items: {' and '.join(map(str, sorted(sizes)))} scores")
    return np.asarray(runs, float).mean(axis=1)


def _over_items_and_runs(
    arms: Sequence[Sequence[Sequence[float]]], groups: Sequence | None
) -> tuple[float, float, float]:
    """(sum over arms of the mean over their runs, half the width of its 95 % interval, two-sided p against 0).

    What differs from run to run in single items counts in both variances: the interval is a little too wide, not too
    narrow.
    """
    per_item = sum(np.asarray(runs, float).mean(axis=0) for runs in arms)
    value, items = float(per_item.mean()), len(per_item)
    sums = _group_sums(np.column_stack([per_item, np.ones(items)]), groups)
    units = len(sums)
    of_items = float(((sums[:, 0] - value * sums[:, 1]) ** 2).sum()) * units / max(1, units - 1) / items**2
    parts = [(of_items, units - 1)]
    for runs in arms:
        means = _run_means(runs)
        if len(means) > 1:
            parts.append((float(means.var(ddof=1)) / len(means), len(means) - 1))
    variance = sum(part for part, _ in parts)
    below = sum(part**2 / degrees for part, degrees in parts if part > 0 and degrees > 0)
    if below == 0:  # nothing varies
        return value, 0.0, 1.0 if value == 0 else 0.0
    degrees = variance**2 / below
    p = 2 * float(scipy.stats.t.sf(abs(value) / math.sqrt(variance), degrees))
    return value, _t(degrees) * math.sqrt(variance), p


def _sign_flip(sums: np.ndarray, resamples: int, seed: int) -> tuple[float, str]:
    """Two-sided p of the sum of `sums` where every sign is a fair coin, and "exact" or "permutation"."""
    moved = sums[sums != 0]
    size = np.abs(moved)
    if len(moved) == 0:
        return 1.0, "exact"
    if np.ptp(size) <= 1e-9 * size.max():  # of one magnitude: signs are throws of a coin
        return float(scipy.stats.binomtest(int((moved > 0).sum()), len(moved)).pvalue), "exact"
    test = scipy.stats.permutation_test(
        (moved, np.zeros_like(moved)),
        lambda a, b, axis: (a - b).sum(axis=axis),
        permutation_type="samples",
        n_resamples=resamples,
        batch=max(1, _CHUNK // len(moved)),
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue), "exact" if 2 ** len(moved) <= resamples else "permutation"


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(np.asarray(above, float)), where=np.asarray(below) != 0)
