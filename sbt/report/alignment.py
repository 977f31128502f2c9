"""What the report says of preference alignment: what visual tuning cost in language ability, what brought it back,
and what part of that is length or label noise.

run.answer(*alignment.answers(results, collect.arms(study), specs, tuned="mm-full"))
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from sbt.report import claims, collect, paired, tables

METHODS = ("dpo", "rejection", "steerlm", "sft")
CONTROLS = ("random_labels", "length_matched")
JUDGED = "mtbench"  # where language ability was not scored
MARGIN = 0.02  # a difference within it is none, as in the claims about language ability


def answers(results: Any, made: pd.DataFrame, specs: Mapping[str, Any], *, tuned: str, seed: int = 0) -> list[str]:
    """The answer in sentences, with 95 % intervals; [] where `tuned`, base and an aligned arm were not scored alike.

    `made` are the study's arms (`collect.arms`). A difference is told by the rule of the claims: shown, within MARGIN
    and so none, or not to be told. The controls are DPO on random labels and on pairs of equal length.
    """
    ability = [spec.name for spec in specs.values() if spec.table == "Language ability"]
    ability = [name for name in ability if name in results.scores] or [JUDGED]
    scored = [set(paired.group(results.scores.get(name, {}))) for name in ability]
    roles = collect.roles(made, set.union(*scored))
    roles = {role: roles[role] for role in (*METHODS, *CONTROLS) if role in roles}
    methods = [role for role in METHODS if role in roles]
    if not methods or any(not {paired.BASE, tuned} <= arms for arms in scored):
        return []
    roles |= {"base": paired.BASE, "tuned": tuned}
    asked = [("tuned", "base"), *((role, "tuned") for role in methods), *(("dpo", control) for control in CONTROLS)]
    rows = claims.ledger(results, roles, specs, [_claim(a, b, ability) for a, b in asked], seed=seed)
    found = dict(zip(asked, rows.to_dict("records"), strict=True))
    what = "MT-Bench" if ability == [JUDGED] else f"language ability (mean of {', '.join(ability)})"
    said = [_cost(found["tuned", "base"], tuned, what), _back(found, methods, roles, tuned)]
    return said + ([_parts(found, roles["dpo"], tuned)] if "dpo" in methods else [])


def _claim(a: str, b: str, scores: Iterable[str]) -> dict:
    empty = dict.fromkeys(("paper", "id", "claim", "source", "read"), "") | {"published": None}
    return empty | {"a": a, "b": b, "scores": list(scores), "says": "differs", "margin": MARGIN}


def _way(row: Mapping) -> str:
    """ "more" or "less", as the interval shows; "as much", within the margin; "" where it cannot be told."""
    if row["verdict"] == "supported":
        return "more" if row["delta"] > 0 else "less"
    return "as much" if row["verdict"] == "equivalent to none" else ""


def _why(row: Mapping) -> str:
    """The difference with its interval, or why there is none."""
    return tables.signed(row) if row["delta"] == row["delta"] and row["delta"] is not None else row["why"]


def _cost(row: Mapping, tuned: str, what: str) -> str:
    begin = {
        "less": f"Visual tuning cost {tuned} {what}",
        "more": f"Visual tuning cost {tuned} no {what}, it added some",
        "as much": f"Visual tuning cost {tuned} no {what} to speak of",
    }
    return f"{begin.get(_way(row), f'What visual tuning cost {tuned} in {what} cannot be told')} ({_why(row)})"


def _back(found: Mapping, methods: Iterable[str], roles: Mapping[str, str], tuned: str) -> str:
    groups: dict[str, list[str]] = {}
    for role in methods:
        row = found[role, "tuned"]
        groups.setdefault(_way(row), []).append(f"{roles[role]} ({_why(row)})")
    words = {
        "more": "brought some back" if _way(found["tuned", "base"]) == "less" else "raised it",
        "as much": "changed nothing to speak of", "less": "lowered it", "": "cannot be told",
    }  # fmt: skip
    told = [f"{', '.join(groups[way])}: {ending}" for way, ending in words.items() if way in groups]
    return f"Beside {tuned}, {'; '.join(told)}"


def _parts(found: Mapping, dpo: str, tuned: str) -> str:
    """What of the difference that DPO made random labels and pairs of equal length make too."""
    if _way(found["dpo", "tuned"]) != "more":
        return f"{dpo} is not shown to be higher than {tuned}, so no part of it can be called length or label noise"
    noise, length = (found["dpo", control] for control in CONTROLS)
    of_noise = {
        "more": "random labels give less, so the preferences count", "as much": "random labels give as much",
        "less": "random labels give more", "": "what is label noise cannot be told",
    }  # fmt: skip
    of_length = {
        "more": "pairs of equal length, which are fewer, give less, so length may be a part",
        "as much": "pairs of equal length give as much, so it is not length",
        "less": "pairs of equal length give more, so it is not length", "": "what is length cannot be told",
    }  # fmt: skip
    told = [f"{words[_way(row)]} ({_why(row)})" for words, row in ((of_noise, noise), (of_length, length))]
    return f"Of what {dpo} gained, {'; '.join(told)}"
