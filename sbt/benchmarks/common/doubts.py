"""How far a difference between judged arms can be trusted: what part of it is length, how many verdicts carry it.

Scores are points of the same questions, 0 to 1, as `judge.per_item` gives them.
"""

from collections.abc import Sequence

import numpy as np
import statsmodels.api


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
