"""How far a difference between judged arms can be trusted: what part of it is length, how many verdicts carry it.

Scores are points of the same questions, 0 to 1, as `judge.per_item` gives them.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import statsmodels.api

from sbt.benchmarks.common import judge as judging
from sbt.benchmarks.common.judge import Protocol
from sbt.report import stats
from sbt.utils.errors import DataError


def flips(a: Sequence[float], b: Sequence[float]) -> dict[str, int]:
    """How many questions' verdicts must be exchanged between two arms before `a` is not shown to be better than `b`.

    "to doubt": until the 95 % interval of the mean difference (normal) includes 0; "to nothing": until the difference
    is gone. Exchanged are the verdicts that speak most for `a`, so these are the fewest that can do it; 0 where there
    is nothing to lose.
    """
    difference = np.sort(np.asarray(a, float) - np.asarray(b, float))[::-1]
    found = {}
    for name, z in (("to doubt", 1.96), ("to nothing", 0.0)):
        now, count = difference.copy(), 0
        while count < len(now) and now[count] > 0 and now.mean() > z * now.std(ddof=1) / len(now) ** 0.5:
            now[count] = -now[count]
            count += 1
        found[name] = count
    return found


def at_equal_length(a: Sequence[float], b: Sequence[float], longer: Sequence[float]) -> tuple[float, float, float]:
    """The mean difference that is left where both arms' answers are equally long, with its 95 % interval.

    By least squares: the difference of a question's points, on how much `longer` the answer of `a` is, in characters.
    NaN where all differences in length are the same, or questions are fewer than three.
    """
    longer = np.asarray(longer, float)
    if len(longer) < 3 or longer.std() == 0:
        return (float("nan"),) * 3
    fitted = statsmodels.api.OLS(
        np.asarray(a, float) - np.asarray(b, float), statsmodels.api.add_constant(longer / longer.std())
    ).fit(cov_type="HC3")
    return float(fitted.params[0]), *map(float, fitted.conf_int()[0])


def differences(protocol: Protocol, rows: Sequence[dict], base: str, *, seed: int = 0) -> pd.DataFrame:
    """Every arm against `base`: the difference in points with its interval, what is left at equal length, and flips.

    DataError where `base` was not judged, or where judges differ. Questions are those that both have verdicts of.
    """
    scores = judging.per_item(protocol, rows)[protocol.benchmark]
    if base not in scores:
        raise DataError(f"{base} was not judged: there are {', '.join(scores)}")
    length = pd.DataFrame(rows).pivot_table("characters", "question", "arm").loc[scores.index]
    found = []
    for arm in scores.columns.drop(base):
        measured = stats.paired(list(scores[arm]), list(scores[base]), seed=seed)
        longer = length[arm] - length[base]
        left, low, high = at_equal_length(scores[arm], scores[base], longer)
        told = {"arm": arm, "benchmark": protocol.benchmark, **measured, "longer by": longer.mean()}
        told |= {"at equal length": left, "its low": low, "its high": high}
        better = (arm, base) if measured["delta"] >= 0 else (base, arm)
        found.append({**told, **flips(scores[better[0]], scores[better[1]])})
    return pd.DataFrame(found)
