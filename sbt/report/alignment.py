"""What the report says of preference alignment: what visual tuning cost in language ability, what brought it back,
what part of that is length or label noise, and what alignment did to how an arm sees.

answers(results, collect.arms(study), specs, tuned="mm-full")  # sentences, below the answer of the report
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from sbt.report import claims, collect, paired, tables
from sbt.study import params

METHODS = ("dpo", "rejection", "steerlm", "sft")
CONTROLS = ("random_labels", "length_matched")
JUDGED = "mtbench"  # the paper's measure
SIGHT = "POPE"
SEES = {
    "more": "{} answered more questions rightly",
    "as much": "{} changed nothing to speak of",
    "less": "{} answered fewer questions rightly",
    "": "of {} nothing can be told",
}
MARGIN = 0.02  # a difference within it is none, as in the claims about language ability


def answers(results: Any, made: pd.DataFrame, specs: Mapping[str, Any], *, tuned: str, seed: int = 0) -> list[str]:
    """The answer in sentences, with 95 % intervals; [] where `tuned`, base and an aligned arm were not scored alike.

    `made` are the study's arms (`collect.arms`). The cost is told on MT-Bench and on language ability, the rest on the
    first of them that was scored, and sight on POPE where aligned arms were asked it. A difference is told by the rule
    of the claims: shown, within MARGIN and so none, or not to be told. The controls are DPO on random labels and on
    pairs of equal length.
    """
    ability = [spec.name for spec in specs.values() if spec.table == "Language ability"]
    measures = [[JUDGED], [name for name in ability if name in results.scores]]
    measures = [names for names in measures if _usable(results, made, names, tuned)]
    if not measures:
        return []
    scored = _scored(results, measures[0])
    roles = {role: arm for role, arm in collect.roles(made, scored).items() if role in (*METHODS, *CONTROLS)}
    roles |= {"base": paired.BASE, "tuned": tuned}
    methods = [role for role in METHODS if role in roles]
    asked = [*((role, "tuned") for role in methods), *(("dpo", control) for control in CONTROLS)]
    cost = [_held(results, roles, specs, [("tuned", "base")], names, seed)["tuned", "base"] for names in measures]
    found = _held(results, roles, specs, asked, measures[0], seed)
    said = [*(_cost(row, tuned) for row in cost), _back(found, methods, roles, tuned, cost[0])]
    if "dpo" in methods:
        said.append(_parts(found, roles["dpo"], tuned, _at_equal_length(results, roles["dpo"], tuned, measures[0])))
    if seeing := [role for role in methods if {roles[role], tuned} <= _scored(results, [SIGHT])]:
        found = _held(results, roles, specs, [(role, "tuned") for role in seeing], [SIGHT], seed)
        said.append(f"On {SIGHT}, beside {tuned}, {_grouped(found, seeing, roles, SEES)}")
    return said


def _scored(results: Any, names: Iterable[str]) -> set[str]:
    """The arms that have all the scores."""
    return set.intersection(*(set(paired.group(results.scores.get(name, ()))) for name in names))


def _usable(results: Any, made: pd.DataFrame, names: Sequence[str], tuned: str) -> bool:
    arms = _scored(results, names) if names else set()
    return {paired.BASE, tuned} <= arms and bool(set(METHODS) & set(collect.roles(made, arms)))


def _held(
    results: Any, roles: Mapping[str, str], specs: Mapping[str, Any], asked: Sequence[tuple[str, str]],
    names: Sequence[str], seed: int,
) -> dict[tuple[str, str], dict]:  # fmt: skip
    """The ledger's row of each pair of roles, as if a claim said that they differ."""
    empty = dict.fromkeys(("paper", "id", "claim", "source", "read"), "") | {"published": None, "scores": names}
    rows = [empty | {"a": a, "b": b, "says": "differs", "margin": MARGIN} for a, b in asked]
    return dict(zip(asked, claims.ledger(results, roles, specs, rows, seed=seed).to_dict("records"), strict=True))


def _at_equal_length(results: Any, dpo: str, tuned: str, names: Sequence[str]) -> dict | None:
    """What is left of a judged difference where answers are equally long, if the step that judged compared the two."""
    folder = next(iter(results.folders.get(JUDGED, {}).values()), None)
    if names != [JUDGED] or folder is None or not (folder / "differences.csv").is_file():
        return None
    if params.load_yaml(folder / "params.yaml").get("compare") != tuned:
        return None
    table = pd.read_csv(folder / "differences.csv").query("arm == @dpo and benchmark == @JUDGED")
    columns = {"at equal length": "delta", "its low": "low", "its high": "high"}
    return next(iter(table[list(columns)].dropna().rename(columns=columns).to_dict("records")), None)


def _way(row: Mapping) -> str:
    """What the interval shows: "more", "less", or "as much" (within the margin); "" where it cannot be told."""
    if row["verdict"] == "supported":
        return "more" if row["delta"] > 0 else "less"
    return "as much" if row["verdict"] == "equivalent to none" else ""


def _why(row: Mapping) -> str:
    """The difference with its interval, or why there is none."""
    return tables.signed(row) if row["delta"] == row["delta"] and row["delta"] is not None else row["why"]


def _measure(row: Mapping) -> str:
    names = row["measured"].partition(" (without")[0]
    return "the score on MT-Bench (0 to 1)" if names == JUDGED else f"language ability (mean of {names})"


def _cost(row: Mapping, tuned: str) -> str:
    what = _measure(row)
    begin = {
        "less": f"Visual tuning cost {tuned} some of {what}",
        "more": f"Visual tuning cost {tuned} none of {what}, it added some",
        "as much": f"Visual tuning cost {tuned} none of {what} to speak of",
        "": f"Whether visual tuning cost {tuned} some of {what} cannot be told",
    }
    return f"{begin[_way(row)]} ({_why(row)})"


def _back(found: Mapping, methods: Iterable[str], roles: Mapping[str, str], tuned: str, cost: Mapping) -> str:
    words = {
        "more": "{} brought some back" if _way(cost) == "less" else "{} added some",
        "as much": "{} changed nothing to speak of",
        "less": "{} cost some more",
        "": "of {} nothing can be told",
    }
    return f"In {_measure(cost)}, beside {tuned}, {_grouped(found, methods, roles, words)}"


def _grouped(found: Mapping, methods: Iterable[str], roles: Mapping[str, str], words: Mapping[str, str]) -> str:
    """The methods by what they did, each with its difference: a clause of `words` for those that did the same."""
    groups: dict[str, list[str]] = {}
    for role in methods:
        row = found[role, "tuned"]
        groups.setdefault(_way(row), []).append(f"{roles[role]} ({_why(row)})")
    return "; ".join(clause.format(_listed(groups[way])) for way, clause in words.items() if way in groups)


def _listed(arms: Sequence[str]) -> str:
    *others, last = arms
    return f"{', '.join(others)} and {last}" if others else last


def _parts(found: Mapping, dpo: str, tuned: str, at_equal_length: Mapping | None) -> str:
    """What of the difference that DPO made is there with random labels, with pairs or answers of equal length."""
    if _way(found["dpo", "tuned"]) != "more":
        return f"{dpo} is not shown to be higher than {tuned}, so no part of it can be called length or label noise"
    noise, length = (found["dpo", control] for control in CONTROLS)
    of_noise = {
        "more": "random labels give less, so the preferences count",
        "as much": "random labels give as much, so no preference is shown to count",
        "less": "random labels give more, so no preference is shown to count",
        "": "what is label noise cannot be told",
    }
    of_length = {
        "more": "pairs of equal length, which are fewer, give less, so length may be a part",
        "as much": "pairs of equal length give as much, so it is not length",
        "less": "pairs of equal length give more, so it is not length",
        "": "what is length cannot be told",
    }
    told = [f"{of_noise[_way(noise)]} ({_why(noise)})"]
    if at_equal_length is None:
        told.append(f"{of_length[_way(length)]} ({_why(length)})")
    else:
        left = f"between equally long answers {tables.signed(at_equal_length)} is left"
        alone = "it is not length alone" if at_equal_length["low"] > 0 else "how much is length cannot be told"
        told.append(f"{left}, so {alone}")
    return f"Of what {dpo} gained, {'; '.join(told)}"
