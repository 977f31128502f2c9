"""Claims of the papers as data, each held against a study's results by one rule.

ledger = claims.ledger(results, {"tuned": "mm-full", "base": "base"}, specs);  a row a claim: published, here, verdict
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sbt.report import paired, stats, tables
from sbt.utils.errors import DataError

KEYS = {"id", "claim", "a", "b", "scores", "says", "margin", "published", "source", "read"}
MAY = {"model", "needs", "instead", "instead_margin"}
MANY = 100  # times as many items: no more are counted, since the difference would not stay as it is
SAYS = ("higher", "lower", "alike", "differs")
NONE = "none"  # the role of no arm: the claim is about the level of its first arm
VERDICTS = ("supported", "contradicted", "equivalent to none", "cannot tell")
FLOOR = 0.02  # both arms below this share of right items: the metric cannot show a difference


def load(folder: Path | None = None) -> list[dict]:
    """All claims, each with its `paper`; DataError names file and claim of an unknown or missing key."""
    rows = []
    for file in sorted((folder or Path(__file__).parent).glob("*.yaml")):
        table = yaml.safe_load(file.read_text(encoding="utf-8"))
        for row in table["claims"]:
            where = f"{file.name}, claim {row.get('id', '?')!r}"
            if wrong := sorted(KEYS - set(row) | set(row) - KEYS - MAY):
                raise DataError(f"{where}: {wrong[0]!r} is {'missing' if wrong[0] in KEYS else 'unknown'}")
            if row["says"] not in SAYS or not row["margin"] > 0 or not row["scores"]:
                raise DataError(f"{where}: `says` is one of {', '.join(SAYS)}, `margin` above 0, `scores` not empty")
            if ("instead" in row) != ("instead_margin" in row):
                raise DataError(f"{where}: `instead` and `instead_margin` stand together")
            rows.append({"paper": table["paper"], **row})
    return rows


def verdict(says: str, low: float, high: float, margin: float) -> str:
    """What an interval of a difference says of a claim about it.

    "supported": the interval lies on the claimed side of 0 ("differs": on either; "alike": within the margin).
    "contradicted": it lies on the other side ("alike": beyond the margin). "equivalent to none": it lies within the
    margin and includes 0, although the claim says that there is a difference. "cannot tell": it is wider than that.
    """
    if says == "lower":
        low, high, says = -high, -low, "higher"
    if says == "alike":
        if -margin <= low and high <= margin:
            return "supported"
        return "contradicted" if low > margin or high < -margin else "cannot tell"
    if low > 0 or high < 0:
        return "supported" if low > 0 or says == "differs" else "contradicted"
    return "equivalent to none" if -margin <= low and high <= margin else "cannot tell"


def too_few(says: str, low: float, high: float, margin: float) -> str:
    """Why an interval tells nothing, and how many times as many items would tell if the difference stayed as it is.

    The interval of n times the items is narrower by the root of n. It tells once it leaves out 0 or lies within the
    margin; of a claim that both are alike, once it leaves out the margin or lies within it.
    """
    difference, half = abs(low + high) / 2, (high - low) / 2
    room = abs(margin - difference) if says == "alike" else max(difference, margin - difference)
    told = f"too few items or runs: the interval is wider than {margin:g} around 0"
    times = math.floor((half / max(room, 1e-6)) ** 2) + 1
    return f"{told}; {times if times <= MANY else f'more than {MANY}'} times as many would tell"


def ledger(
    results: Any,
    arms: Mapping[str, str],
    specs: Mapping[str, Any],
    rows: Iterable[dict] | None = None,
    model: str = "",
    seed: int = 0,
) -> pd.DataFrame:
    """A row a claim: paper, id, claim, arms, measured, published, of, delta, low, high, verdict, why, source, read.

    `measured` names the scores here, `of` those of the published size, `why` what keeps the verdict from being told.
    `results` are `collect.results`, `arms` says which arm plays which role, `model` is the id of the base model. Of
    several scores the mean difference counts, the scores taken as independent. A score that cannot show a difference
    is left out of a mean, and named; where half of them cannot, nothing is told.
    """
    held = _Held(results, {NONE: NONE, **arms}, specs, model, seed)
    return pd.DataFrame([held.row(one) for one in (load() if rows is None else rows)])


class _Held:
    """Claims against one study."""

    def __init__(self, results: Any, arms: Mapping[str, str], specs: Mapping[str, Any], model: str, seed: int) -> None:
        self.results, self.arms, self.model, self.seed = results, arms, model, seed
        self.columns = {title: key for titles in tables.columns(specs).values() for key, title in titles.items()}
        self.chance = {spec.name: spec.headline[0].chance for spec in specs.values() if spec.headline}

    def row(self, one: dict) -> dict:
        """A row of the ledger."""
        a, b = (self.arms.get(one[role], "") for role in ("a", "b"))
        names, margin = one["scores"], one["margin"]
        if one.get("instead") and not any(map(self._known, names)):
            names, margin = one["instead"], one["instead_margin"]
        shown = f"{a or one['a']} - {b or one['b']}".removesuffix(f" - {NONE}")
        row = {key: one[key] for key in ("paper", "id", "claim")} | {"arms": shown, "measured": ", ".join(names)}
        row |= {"published": one["published"], "of": ", ".join(one["scores"])} | dict.fromkeys(
            ("delta", "low", "high")
        )
        why, usable, blind = self._missing(one, names, a, b), [], {}
        if not why:
            blind = {name: reason for name in names if (reason := self._blind(name, a, b))}
            usable = [name for name in names if name not in blind]
            if 2 * len(usable) <= len(names):
                why = "; ".join(dict.fromkeys(blind.values()))
        if why:
            return row | {"verdict": "cannot tell", "why": why, "source": one["source"], "read": one["read"]}
        delta, low, high = mean([self._difference(name, a, b) for name in usable])
        told = verdict(one["says"], low, high, margin)
        why = too_few(one["says"], low, high, margin) if told == "cannot tell" else ""
        measured = ", ".join(usable) + (f" (without {', '.join(blind)}: {'; '.join(blind.values())})" if blind else "")
        row |= {"measured": measured, "delta": delta, "low": low, "high": high, "verdict": told, "why": why}
        return row | {"source": one["source"], "read": one["read"]}

    def _known(self, name: str) -> bool:
        """Whether the study scored this at all."""
        return name in self.results.scores or bool(self._levels(name))

    def _levels(self, name: str) -> dict[str, dict]:
        """The metric rows behind a column of the report, by arm; empty where it is none."""
        key = self.columns.get(name)
        found = [row for row in self.results.rows if (row["benchmark"], row["subset"], row["metric"]) == key]
        return {row["arm"]: row for row in reversed(found) if row["low"] is not None}  # of two protocols the first

    def _missing(self, one: dict, names: Sequence[str], a: str, b: str) -> str:
        """Why a claim cannot be held against these results at all; empty where it can."""
        if "needs" in one:
            return f"needs {one['needs']}"
        if one.get("model", "").lower() not in self.model.lower():
            return f"is about another base model ({one['model']})"
        absent = [role for role, arm in ((one["a"], a), (one["b"], b)) if not arm]
        if absent:
            return f"the study has no arm for {', '.join(absent)}"
        if a == b:
            return f"{a} is the study's arm for {one['a']} and for {one['b']}"
        if unknown := [name for name in names if not self._known(name)]:
            return f"{', '.join(unknown)}: not in this study"
        for name in names:
            scored = paired.group(self.results.scores[name]) if name in self.results.scores else self._levels(name)
            judged = {*scored, NONE, *self.results.one_answer.get(name, {})}  # those of one answer have no scores
            if lacking := [arm for arm in (a, b) if arm not in judged]:
                return f"{lacking[0]} was not scored on {name}, or was asked otherwise"
        return ""

    def _blind(self, name: str, a: str, b: str) -> str:
        """Why a score can show no difference between two arms, in words; empty where it can."""
        if still := constant([name], (a, b), self.results.one_answer):
            return still
        if name not in self.results.scores:
            return ""
        table = self.results.scores[name]
        runs = {arm: [table[run] for run in paired.group(table)[arm]] for arm in (a, b) if arm != NONE}
        groups = paired.pictures(table)
        levels = {arm: stats.over_runs(found, groups=groups, seed=self.seed) for arm, found in runs.items()}
        if max(level for level, _, _ in levels.values()) <= FLOOR:
            return f"{name} is at its floor for both arms"
        chance = self.chance.get(name.lower())
        if chance and not any(low > chance for _, low, _ in levels.values()):
            return f"neither arm is shown to be above guessing ({chance:.2f}) on {name}"
        return ""

    def _difference(self, name: str, a: str, b: str) -> dict:
        """Paired by item where items were scored; else of two levels, their intervals taken as independent."""
        if name in self.results.scores and b != NONE:
            return paired.between(self.results.scores[name], a, b, self.seed)
        rows, nothing = self._levels(name), {"value": 0.0, "low": 0.0, "high": 0.0}
        one, other = rows[a], rows.get(b, nothing)
        delta = one["value"] - other["value"]
        below = ((one["value"] - one["low"]) ** 2 + (other["high"] - other["value"]) ** 2) ** 0.5
        above = ((one["high"] - one["value"]) ** 2 + (other["value"] - other["low"]) ** 2) ** 0.5
        return {"delta": delta, "low": delta - below, "high": delta + above}


def constant(names: Iterable[str], arms: Iterable[str], one_answer: Mapping[str, Mapping[str, float]]) -> str:
    """Which arm gives one answer to nearly all items of a score, in words; empty where none does."""
    for name in names:
        still = [arm for arm in arms if one_answer.get(name, {}).get(arm, 0) >= paired.CONSTANT]
        if still:
            give = "gives" if len(still) == 1 else "give"
            return f"constant: {' and '.join(still)} {give} one answer to nearly all items of {name}"
    return ""


def mean(differences: Sequence[dict]) -> tuple[float, float, float]:
    """Mean of paired differences of several scores with its interval: half widths add up as if independent."""
    count = len(differences)
    delta = sum(row["delta"] for row in differences) / count
    below = sum((row["delta"] - row["low"]) ** 2 for row in differences) ** 0.5 / count
    above = sum((row["high"] - row["delta"]) ** 2 for row in differences) ** 0.5 / count
    return delta, delta - below, delta + above


def words(row: Mapping) -> str:
    """The verdict in a cell: with the difference and its interval, and with the reason why it cannot be told."""
    why = f": {row['why']}" if row["why"] else ""
    if row["delta"] is None or row["delta"] != row["delta"]:
        return f"{row['verdict']}{why}"
    return f"{row['verdict']} ({tables.signed(row)}){why}"
