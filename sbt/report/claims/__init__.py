"""Claims of the papers as data, each held against a study's results by one rule.

ledger = claims.ledger(scores, {"tuned": "mm-full", "base": "base"});  a row a claim: published, here, verdict
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import yaml

from sbt.report import paired, tables
from sbt.utils.errors import DataError

KEYS = {"id", "claim", "a", "b", "scores", "says", "margin", "published", "source"}
SAYS = ("higher", "lower", "alike")
CONSTANT = 0.95  # an arm that gives one answer to more of the items judges nothing
FLOOR = 0.02  # both arms below this share of right items: the metric cannot show a loss


def load(folder: Path | None = None) -> list[dict]:
    """All claims, each with its `paper`; DataError names file and claim of an unknown or missing key."""
    rows = []
    for file in sorted((folder or Path(__file__).parent).glob("*.yaml")):
        table = yaml.safe_load(file.read_text(encoding="utf-8"))
        for row in table["claims"]:
            where = f"{file.name}, claim {row.get('id', '?')!r}"
            if wrong := sorted(KEYS ^ set(row)):
                raise DataError(f"{where}: {wrong[0]!r} is {'missing' if wrong[0] in KEYS else 'unknown'}")
            if row["says"] not in SAYS or not row["margin"] > 0 or not row["scores"]:
                raise DataError(f"{where}: `says` is one of {', '.join(SAYS)}, `margin` above 0, `scores` not empty")
            rows.append({"paper": table["paper"], **row})
    return rows


def verdict(says: str, low: float, high: float, margin: float) -> str:
    """What an interval of a difference says of a claim about it.

    "supported": the interval lies on the claimed side of 0 (for "alike": within the margin). "contradicted": it lies
    on the other side (for "alike": beyond the margin). "no effect": it lies within the margin and includes 0, although
    the claim says that there is a difference. "cannot tell": it is wider than that.
    """
    if says == "lower":
        low, high, says = -high, -low, "higher"
    if says == "alike":
        if -margin <= low and high <= margin:
            return "supported"
        return "contradicted" if low > margin or high < -margin else "cannot tell"
    if low > 0 or high < 0:
        return "supported" if low > 0 else "contradicted"
    return "no effect" if -margin <= low and high <= margin else "cannot tell"


def ledger(
    scores: Mapping[str, pd.DataFrame],
    arms: Mapping[str, str],
    rows: Iterable[dict] | None = None,
    one_answer: Mapping[str, Mapping[str, float]] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """A row a claim: paper, claim, arms, published, delta, low, high, verdict, why (it cannot be told), source.

    `scores` (items x arms by score) and `one_answer` are those of `collect.results`. `arms`: role -> arm. Of several
    scores the mean difference counts, the scores taken as independent.
    """
    rows = load() if rows is None else rows
    return pd.DataFrame([_row(one, scores, arms, one_answer or {}, seed) for one in rows])


def _row(one: dict, scores: Mapping, arms: Mapping[str, str], one_answer: Mapping, seed: int) -> dict:
    a, b = (arms.get(one[role], "") for role in ("a", "b"))
    named = {"paper": one["paper"], "claim": one["claim"], "arms": f"{a or one['a']} - {b or one['b']}"}
    named |= {"published": one["published"], "delta": None, "low": None, "high": None}
    why = _missing(one, scores, a, b) or constant(one["scores"], (a, b), one_answer)
    if why:
        return named | {"verdict": "cannot tell", "why": why, "source": one["source"]}
    differences = [paired.between(scores[name], a, b, seed) for name in one["scores"]]
    delta, low, high = _mean(differences)
    told = verdict(one["says"], low, high, one["margin"])
    why = f"the interval is wider than {one['margin']:g} around 0" if told == "cannot tell" else ""
    return named | {"delta": delta, "low": low, "high": high, "verdict": told, "why": why, "source": one["source"]}


def constant(names: Iterable[str], arms: Iterable[str], one_answer: Mapping[str, Mapping[str, float]]) -> str:
    """Which arm gives one answer to nearly all items of a score, in words; empty where none does."""
    for name in names:
        still = [arm for arm in arms if one_answer.get(name, {}).get(arm, 0) >= CONSTANT]
        if still:
            give = "gives" if len(still) == 1 else "give"
            return f"{' and '.join(still)} {give} one answer to nearly all items of {name}"
    return ""


def _missing(one: dict, scores: Mapping[str, pd.DataFrame], a: str, b: str) -> str:
    """Why a claim cannot be held against these results at all; empty where it can."""
    absent = [role for role, arm in ((one["a"], a), (one["b"], b)) if not arm]
    if absent:
        return f"the study has no arm for {', '.join(absent)}"
    if a == b:
        return f"{a} is the study's arm for {one['a']} and for {one['b']}"
    for name in one["scores"]:
        if name not in scores:
            return f"{name} was not scored"
        runs = paired.group(scores[name])
        if lacking := [arm for arm in (a, b) if arm not in runs]:
            return f"{lacking[0]} was not scored on {name}"
        levels = [scores[name][runs[arm]].to_numpy().mean() for arm in (a, b)]
        if one["says"] == "alike" and max(levels) <= FLOOR:
            return f"{name} is at its floor for both arms: a loss could not be seen"
    return ""


def _mean(differences: Sequence[dict]) -> tuple[float, float, float]:
    """Mean of paired differences of several scores with its interval: half widths add up as if independent."""
    count = len(differences)
    delta = sum(row["delta"] for row in differences) / count
    below = sum((row["delta"] - row["low"]) ** 2 for row in differences) ** 0.5 / count
    above = sum((row["high"] - row["delta"]) ** 2 for row in differences) ** 0.5 / count
    return delta, delta - below, delta + above


def words(row: Mapping) -> str:
    """The verdict in a cell: with the difference and its interval, or with the reason why it cannot be told."""
    if row["delta"] is None or row["delta"] != row["delta"]:
        return f"{row['verdict']}: {row['why']}"
    return f"{row['verdict']} ({tables.signed(row)})"
