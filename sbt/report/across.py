"""Models x tuning x benchmarks over several finished studies, each arm paired with the base of its own study.

studies = across.studies(names)   across.levels(studies, specs)   across.differences(studies, seed=0)
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sbt.report import claims, collect, paired, tables
from sbt.utils import paths
from sbt.utils.errors import MissingStep

MEANS = {  # of paired differences: what the papers give as one number
    "five language tasks": ("mmlu", "gsm8k", "mathqa", "boolq", "squad2"),
    "truthfulness and ethics": ("mc2", "rougeL_acc", "ETHICS"),
}


class Study(NamedTuple):
    """A study with results: its name, its base model, its results, and its base's and arms' roles."""

    name: str
    model: str
    results: collect.Results
    roles: dict[str, str]


def studies(names: Iterable[str], specs: Mapping[str, Any]) -> list[Study]:
    """The studies of these names, or all of the results folder that scored a benchmark; MissingStep where none did."""
    names = list(names)
    folders = [paths.outputs() / Path(name).name for name in names] or sorted(paths.outputs().glob("*/"))
    found = []
    for folder in folders:
        results = collect.of_study(folder, specs) if folder.is_dir() else None
        if results is None and names:
            raise MissingStep(f"{folder.name} has no finished step that scored a benchmark: make it with `sbt run`")
        if results is not None:
            made = collect.arms(folder)
            roles = {"base": paired.BASE} | collect.roles(made, {row["arm"] for row in results.rows})
            found.append(Study(folder.name, collect.base_model(results), results, roles))
    if not found:
        raise MissingStep(
            f"no study below {paths.shown(paths.outputs())} scored a benchmark: `sbt run params/embedded`"
        )
    return found


def _named(study: Study, arm: str) -> dict[str, str]:
    role = next((role for role, of in study.roles.items() if of == arm), "")
    return {"study": study.name, "model": study.model, "arm": arm, "role": role}


def levels(found: Iterable[Study], specs: Mapping[str, Any]) -> pd.DataFrame:
    """Every headline result: study, model, arm, role, table, column, value, low, high; the first of two protocols."""
    columns = [(title, key, name) for title, titles in tables.columns(specs).items() for key, name in titles.items()]
    rows = [
        _named(study, row["arm"]) | {"table": title, "column": name} | {k: row[k] for k in ("value", "low", "high")}
        for study in found
        for title, key, name in columns
        for row in study.results.rows
        if (row["benchmark"], row["subset"], row["metric"]) == key and row["low"] is not None
    ]
    return pd.DataFrame(rows).drop_duplicates(["study", "arm", "column"]) if rows else pd.DataFrame()


def differences(found: Iterable[Study], seed: int = 0) -> pd.DataFrame:
    """Paired differences, over items and runs: of every arm from its base, and with pictures from without.

    study, model, arm, role, against, score, delta, low, high; the means of `MEANS` are scores, too.
    """
    rows = []
    for study in found:
        text_only = study.roles.get("text_only")
        arms = dict.fromkeys(arm for table in study.results.scores.values() for arm in paired.group(table))
        pairs = [(arm, paired.BASE) for arm in arms if arm != paired.BASE]
        pairs += [(study.roles["tuned"], text_only)] if text_only and "tuned" in study.roles else []
        for a, b in pairs:
            measured = {
                name: paired.between(table, a, b, seed)
                for name, table in study.results.scores.items()
                if {a, b} <= set(paired.group(table))
            }
            for name, parts in MEANS.items():
                if all(part in measured for part in parts):
                    of_parts = claims.mean([measured[part] for part in parts])
                    measured[f"mean of {name}"] = dict(zip(("delta", "low", "high"), of_parts, strict=True))
            rows += [
                _named(study, a) | {"against": b, "score": name} | {k: row[k] for k in ("delta", "low", "high")}
                for name, row in measured.items()
            ]
    return pd.DataFrame(rows)


def table(levels_: pd.DataFrame, title: str) -> pd.DataFrame:
    """One of the report's tables over all studies: (study, arm) x columns, cells "value [low, high]"."""
    return tables.grid(levels_[levels_.table == title], ["study", "arm"], "column")


def text(names: Iterable[str], specs: Mapping[str, Any]) -> str:
    """What `sbt compare` prints of whole studies: their tables, and the paired differences of the means."""
    found = studies(names, specs)
    shown = levels(found, specs)
    parts = [f"{title}\n{table(shown, title).to_string()}" for title in shown.table.unique()]
    apart = differences(found)
    means = apart[apart.score.isin(["mc2", "ETHICS", *(f"mean of {name}" for name in MEANS)])] if len(apart) else apart
    if len(means):
        cells = means.assign(cell=[tables.signed(row) for row in means.to_dict("records")])
        wide = cells.pivot_table("cell", ["study", "arm", "against"], "score", aggfunc="first", sort=False).fillna("–")
        parts.append(f"Paired differences\n{wide.to_string()}")
    return "\n\n".join(parts)
