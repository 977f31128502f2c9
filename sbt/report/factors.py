"""Which part of the data does it? Effects and shares of factors in a full factorial of arms, with intervals.

levels = {"words": ["shuffled", "kept"], "pictures": ["none", "other", "right"]}  # a control first, real data last
shares(scores, levels)  # arms are named by their levels: "kept-right", "shuffled-none"
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from math import factorial

import numpy as np
import pandas as pd
from IPython.display import HTML

from sbt.report import paired, tables
from sbt.utils.errors import DataError

Levels = Mapping[str, Sequence[str]]
RESAMPLES = 2000
WIDEST = 2.0  # interval of a share of the gain: a wider one says that the gain itself may be nothing
BASE, ANY, TOGETHER = "base", "any tuning", "together"  # what is not a factor: tuning on all controls; interactions


def cells(levels: Levels) -> list[str]:
    """Names of the arms: every combination of levels, in order."""
    return ["-".join(named) for named in product(*levels.values())]


def shares(scores: pd.DataFrame, levels: Levels, *, seed: int = 0) -> pd.DataFrame:
    """A row for each factor, for tuning as such and for what factors do together, from scores (items x arms).

    `effect`: mean difference of the last level from the first over all other factors. `gain`: share of the difference
    of the arm with all last levels from base, Shapley's value: what switching the factor on adds, averaged over all
    orders; ANY is what tuning with all controls gains. `variance`: share of the variance between arms (ANOVA of a
    balanced design), TOGETHER the interactions'. Each with `_low`, `_high`: 95 %, from drawing items, and runs of
    each arm where it has several. DataError names an arm that was not scored.
    """
    names, runs = [BASE, *cells(levels)], paired.group(scores.columns)
    if missing := [name for name in names if name not in runs]:
        raise DataError(f"the factorial is not full: {missing[0]!r} was not scored ({len(missing)} of {len(names)})")
    values = [scores[runs[name]].to_numpy(float).T for name in names]  # (runs, items) of each arm
    shape, rng = tuple(map(len, levels.values())), np.random.default_rng(seed)

    def measured(means: np.ndarray) -> np.ndarray:
        return _parts(means[1:].reshape(shape) - means[0])

    whole = measured(np.array([value.mean() for value in values]))
    drawn = []
    for _ in range(RESAMPLES):
        items = rng.integers(0, len(scores), len(scores))
        picked = [value[rng.integers(0, len(value), len(value))] for value in values]
        drawn.append(measured(np.array([value[:, items].mean() for value in picked])))
    # drawing adds the items' noise to the arms' variance once more: the intervals are moved back by that
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0) + whole - np.mean(drawn, axis=0)  # NaN stays NaN
    columns = ("effect", "gain", "variance")
    named = {f"{name}{end}": table[:, place] for place, name in enumerate(columns)
             for end, table in (("", whole), ("_low", low), ("_high", high))}  # fmt: skip
    return pd.DataFrame(named, index=pd.Index([*levels, ANY, TOGETHER], name="part"))


def _parts(gains: np.ndarray) -> np.ndarray:
    """(factors + 2, 3): effect, share of the gain and share of the variance; NaN for what a part does not have."""
    number = gains.ndim
    found = np.full((number + 2, 3), np.nan)
    total = gains[(-1,) * number]
    spread = ((gains - gains.mean()) ** 2).mean()
    for factor in range(number):
        means = gains.mean(axis=tuple(axis for axis in range(number) if axis != factor))
        explained = ((means - gains.mean()) ** 2).mean()
        found[factor] = means[-1] - means[0], _shapley(gains, factor) / total, explained / spread
    found[number, :2] = gains[(0,) * number], gains[(0,) * number] / total
    found[number + 1, 2] = 1 - found[:number, 2].sum()
    return found


def _shapley(gains: np.ndarray, factor: int) -> float:
    """What setting a factor from its first to its last level adds, averaged over the orders of setting them all."""
    number, value = gains.ndim, 0.0
    others = [axis for axis in range(number) if axis != factor]
    for size in range(number):
        weight = factorial(size) * factorial(number - size - 1) / factorial(number)
        for chosen in combinations(others, size):
            with_it, without = (
                [-1 if a in {*chosen, *extra} else 0 for a in range(number)] for extra in ([factor], [])
            )
            value += weight * (gains[tuple(with_it)] - gains[tuple(without)])
    return value


def effects(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Effects of factors on several scores, in the form of paired differences: arm (the factor), benchmark, delta."""
    named = {"part": "arm", "effect": "delta", "effect_low": "low", "effect_high": "high"}
    rows = [shares.reset_index().rename(columns=named).assign(benchmark=name) for name, shares in found.items()]
    return pd.concat(rows).dropna(subset="variance").query("arm != @TOGETHER") if rows else pd.DataFrame()


def table(found: Mapping[str, pd.DataFrame]) -> HTML:
    """Shares of the gain and of the variance of several scores, each with its interval, for a page."""
    made = []
    for kind in ("gain", "variance"):
        words = {score: parts.apply(_words, axis=1, kind=kind) for score, parts in found.items()}
        made.append(tables.page(pd.DataFrame(words), f"Share of the {kind}").data)
    return HTML("".join(made))


def answer(found: pd.DataFrame, score: str) -> str:
    """The shares of the gain in words."""
    told = [f"{part} {words}" for part, words in found.apply(_words, axis=1, kind="gain").items() if words]
    return f"Of the gain in {score}: {', '.join(told)}"


def _words(row: pd.Series, kind: str) -> str:
    """A share with its interval; "" for what a part does not have, "cannot tell" where hardly anything is shared."""
    value, low, high = row[kind], row[f"{kind}_low"], row[f"{kind}_high"]
    if high - low > WIDEST:
        return "cannot tell"
    return f"{value:.0%} [{low:.0%}, {high:.0%}]" if value == value else ""
