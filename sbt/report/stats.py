"""Intervals and differences: bootstrap over items (or groups of items) and over training runs, paired between arms.

bootstrap(values) -> (mean, low, high)        paired(a, b) -> {"delta", "low", "high", "p", "n", "test"}
over_runs(runs) -> (mean, low, high)          paired_runs(a_runs, b_runs) -> the same and "runs_a", "runs_b"
corrected(table) -> the rows with "p_holm"    Everything takes `seed`, and gives the same numbers for the same seed.
"""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
ENUMERATED = 15  # non-zero differences: up to so many, all 2**15 patterns of signs are gone through
_CHUNK = 200_000  # drawn numbers held at once: what stays in a processor's cache
_FEW = 500  # distinct values: more of them, and drawing how often each comes costs more than drawing items


def bootstrap(
    values: Sequence[float], *, groups: Sequence | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `values` with its 95 % percentile interval; whole `groups` are resampled where given (one a picture)."""
    return ratio(np.ones(len(values)), values, groups=groups, resamples=resamples, seed=seed)


def ratio(
    below: Sequence[float],
    above: Sequence[float],
    *,
    groups: Sequence | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float, float]:
    """sum(above) / sum(below) with its 95 % interval, resampling items: accuracy, precision, F1 are such ratios.

    F1 is 2 TP / (2 TP + FP + FN): above = 2 TP, below = 2 TP + FP + FN of each item. 0 where the sum below is 0.
    ValueError for no items, for lengths that differ and for scores that are no finite numbers.
    """
    parts = np.column_stack([np.asarray(above, float), np.asarray(below, float)])
    sums = _group_sums(parts, groups)
    drawn = _resampled(sums, resamples, seed)
    low, high = np.percentile(_divide(drawn[:, 0], drawn[:, 1]), [2.5, 97.5])
    whole = sums.sum(axis=0)
    return float(_divide(whole[0], whole[1])), float(low), float(high)


def paired(
    a: Sequence[float],
    b: Sequence[float],
    *,
    groups: Sequence | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, float | int | str]:
    """Mean of a - b over the same items: `delta`, its 95 % interval `low`, `high`, and two-sided `p`.

    p is that of the sign-flip test: how often the sum of the items' (groups') differences would be as far from zero
    as it is if each had either sign with equal odds, as where the arms are alike. `test` says how it was found:
    "exact" where all patterns of signs are counted (by the binomial distribution for differences of one magnitude,
    such as those of right-or-wrong answers: the exact McNemar test; by enumeration for at most 15 non-zero ones),
    "permutation" where `resamples` patterns are drawn. ValueError for no items or for lengths that differ.
    """
    if len(a) != len(b):
        raise ValueError(f"paired scores must be of the same items: {len(a)} and {len(b)}")
    difference = np.asarray(a, float) - np.asarray(b, float)
    delta, low, high = bootstrap(difference, groups=groups, resamples=resamples, seed=seed)
    p, test = _sign_flip(_group_sums(difference[:, None], groups)[:, 0], resamples, seed)
    return {"delta": delta, "low": low, "high": high, "p": p, "n": len(difference), "test": test}


def over_runs(
    values_by_run: Sequence[Sequence[float]],
    *,
    groups: Sequence | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean over several training runs of one arm, scored on the same items, with its 95 % interval.

    A two-level bootstrap: every resample draws items, the same for all runs, then runs. A single run has no spread
    of its own: the interval is `bootstrap`'s. Two or three runs say little about the spread of training: the interval
    allows for its expected size, not for how uncertain that is. ValueError for no runs or runs of different length.
    """
    drawn, whole = _run_means(values_by_run, groups, resamples, seed)
    low, high = np.percentile(_draw_runs(drawn, np.random.default_rng([seed, 1])), [2.5, 97.5])
    return float(whole.mean()), float(low), float(high)


def paired_runs(
    a_runs: Sequence[Sequence[float]],
    b_runs: Sequence[Sequence[float]],
    *,
    groups: Sequence | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, float | int | str]:
    """Mean of arm a minus mean of arm b, each with its own runs, as `paired` gives it, with `runs_a` and `runs_b`.

    Items are drawn for both arms together, runs for each arm on its own. With one run an arm this is `paired`. Else
    `test` is "bootstrap" and p twice the share of resamples on the far side of zero: a sign-flip test would take the
    runs for the arm and leave out how much another run differs. An untrained arm (`base`) has one run.
    """
    counts = {"runs_a": len(a_runs), "runs_b": len(b_runs)}
    if len(a_runs) == len(b_runs) == 1:
        return {**paired(a_runs[0], b_runs[0], groups=groups, resamples=resamples, seed=seed), **counts}
    if not a_runs or not b_runs:
        raise ValueError("no runs to average")
    drawn, whole = _run_means([*a_runs, *b_runs], groups, resamples, seed)
    first, rng = len(a_runs), np.random.default_rng([seed, 1])
    found = _draw_runs(drawn[:, :first], rng) - _draw_runs(drawn[:, first:], rng)
    low, high = np.percentile(found, [2.5, 97.5])
    beyond = min((found <= 0).sum(), (found >= 0).sum())
    p = min(1.0, 2 * (int(beyond) + 1) / (resamples + 1))
    delta = float(whole[:first].mean() - whole[first:].mean())
    return {"delta": delta, "low": float(low), "high": float(high), "p": p, "n": len(a_runs[0]), "test": "bootstrap",
            **counts}  # fmt: skip


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given, of the step-down procedure of Holm (1979): at most 1.

    Rejecting what is below 0.05 leaves a 5 % chance of any false rejection in the family. ValueError unless all are
    between 0 and 1.
    """
    p = np.asarray(p_values, float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie between 0 and 1: {list(p_values)}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def corrected(rows: Sequence[dict]) -> list[dict]:
    """The rows of one table of `paired` results, each with `p_holm`: its p corrected for all of the table."""
    return [{**row, "p_holm": p} for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True)]


def _group_sums(parts: np.ndarray, groups: Sequence | None) -> np.ndarray:
    if len(parts) == 0:
        raise ValueError("no items to average")
    if not np.isfinite(parts).all():
        raise ValueError("scores must be finite numbers")
    if groups is None:
        return parts
    if len(groups) != len(parts):
        raise ValueError(f"{len(parts)} items but {len(groups)} group names")
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((index.max() + 1, parts.shape[1]))
    np.add.at(sums, index, parts)
    return sums


def _resampled(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums over `resamples` draws with replacement, (resamples, columns).

    Items with equal values are drawn together: a resample is then a multinomial over the few distinct values, which
    is the same distribution and, for right-or-wrong scores, independent of the number of items. Otherwise it is
    counted how often each item is drawn, and one matrix product serves all columns: gathering takes longer.
    """
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


def _run_means(
    runs: Sequence[Sequence[float]], groups: Sequence | None, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of every run in every resample of the items, (resamples, runs), and in the whole, (runs,)."""
    if not runs:
        raise ValueError("no runs to average")
    if len(sizes := {len(run) for run in runs}) > 1:
        raise ValueError(f"runs must be scored on the same items: {' and '.join(map(str, sorted(sizes)))} scores")
    columns = [np.asarray(run, float) for run in runs]
    sums = _group_sums(np.column_stack([*columns, np.ones(len(columns[0]))]), groups)
    drawn, whole = _resampled(sums, resamples, seed), sums.sum(axis=0)
    return drawn[:, :-1] / drawn[:, -1:], whole[:-1] / whole[-1]


def _draw_runs(means: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mean over runs drawn with replacement, (resamples,), from `means` (resamples, runs).

    Drawn runs vary less about their mean than the population they stand for, by (runs - 1) / runs: for three runs
    that would be a third of the variance lost, so the deviations are stretched by as much.
    """
    runs = means.shape[1]
    centre = means.mean(axis=1)
    if runs == 1:
        return centre
    weights = rng.multinomial(runs, np.full(runs, 1 / runs), len(means)) / runs
    return centre + np.sqrt(runs / (runs - 1)) * ((weights * means).sum(axis=1) - centre)


def _sign_flip(sums: np.ndarray, resamples: int, seed: int) -> tuple[float, str]:
    """Two-sided p of the sum of `sums` where every sign is a fair coin, and "exact" or "permutation"."""
    found = sums[sums != 0]
    size = np.abs(found)
    if len(found) == 0 or np.ptp(size) <= 1e-9 * size.max():
        return _binomial(int((found > 0).sum()), len(found)), "exact"
    # sums of the same numbers in another order differ in the last digits: they count as equal
    observed = abs(found.sum()) - 1e-11 * size.sum()
    if len(found) <= ENUMERATED:
        totals = np.zeros(1)
        for value in found:
            totals = np.concatenate([totals + value, totals - value])
        return float((np.abs(totals) >= observed).mean()), "exact"
    extreme = int((np.abs(_flipped(found, resamples, seed)) >= observed).sum())
    return (extreme + 1) / (resamples + 1), "permutation"


def _flipped(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums of `values` with random signs: a random byte looks up the sum of eight values in a table of all 256."""
    rng = np.random.default_rng(seed)
    blocks = np.concatenate([values, np.zeros(-len(values) % 8)]).reshape(-1, 8)
    signs = (np.arange(256) >> np.arange(8)[:, None] & 1) * 2 - 1
    table, starts = (blocks @ signs).ravel(), np.arange(len(blocks)) * 256
    rows = max(1, _CHUNK // len(blocks))
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    drawn = (rng.integers(0, 256, (size, len(blocks)), dtype=np.uint8) for size in sizes)
    return np.concatenate([table[one + starts].sum(axis=1) for one in drawn])


def _binomial(positive: int, total: int) -> float:
    """Two-sided p of `positive` heads in `total` fair throws; whole numbers, so that no long tail is rounded."""
    term = tail = 1
    for k in range(min(positive, total - positive)):
        term = term * (total - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**total)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(np.asarray(above, float)), where=np.asarray(below) != 0)
