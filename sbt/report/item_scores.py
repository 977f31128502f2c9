"""Scores of every item of the text benchmarks, one column an arm, from the samples that the benchmarks' steps keep.

Several steps may have scored runs of one arm: a study with more seeds scores the later ones in steps of their own.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import pandas as pd

from sbt.report.paired import group
from sbt.utils.errors import DataError
from sbt.utils.text import run_names

TRUTHFULQA = ("mc1", "mc2", "rougeL_acc")
LANGUAGE = {"mmlu": "acc", "gsm8k": "exact_match_flexible", "mathqa": "acc_norm", "boolq": "acc", "squad2": "f1"}
BASE = "base"

Scores = dict[str, pd.DataFrame]  # by benchmark or metric: items as rows, arms as columns


def truthfulqa(samples: Sequence[dict]) -> Scores:
    """Scores of TruthfulQA's questions: mc1, mc2 and, where answers were generated, rougeL_acc."""
    rows = pd.DataFrame(samples)
    kept = {metric: rows[rows[metric].notna()] for metric in TRUTHFULQA if metric in rows}
    return {metric: found.pivot(index="id", columns="arm", values=metric) for metric, found in kept.items()}


def ethics(samples: Sequence[dict]) -> Scores:
    """Which rows of ETHICS' five `test` files were answered rightly (1, 0), as one benchmark."""
    rows = pd.DataFrame(samples)
    rows = rows[rows["subset"].str.endswith(" test")]
    table = rows.pivot(index=["subset", "index"], columns="arm", values="correct")
    return {"ETHICS": table.astype(float)}


def language(samples: Sequence[dict]) -> Scores:
    """Scores of the items of the five language benchmarks, each by its headline metric (SQuAD's F1 from 0 to 1)."""
    rows = pd.DataFrame(samples)
    found = {name: rows[rows["benchmark"] == name] for name in LANGUAGE}
    return {
        name: part.pivot(index="id", columns="arm", values=LANGUAGE[name]).astype(float)
        for name, part in found.items()
        if len(part)
    }


def together(steps: Sequence[Mapping[str, pd.DataFrame]]) -> Scores:
    """The scores of several steps as one: runs of an arm are numbered through all of them, `base` is taken once.

    DataError where a step scored other items than the first.
    """
    first, *others = steps
    found = {}
    for benchmark, table in first.items():
        columns: dict[str, list[pd.Series]] = {}
        for one in (table, *(other[benchmark] for other in others if benchmark in other)):
            if set(one.index) != set(table.index):
                raise DataError(f"{benchmark}: steps scored other items than the first of them: run them on the same")
            for arm, names in group(one.columns).items():
                if arm != BASE or BASE not in columns:
                    columns.setdefault(arm, []).extend(one.loc[table.index, name] for name in names)
        named = (zip(run_names(arm, len(runs)), runs, strict=True) for arm, runs in columns.items())
        found[benchmark] = pd.DataFrame(dict(chain.from_iterable(named)))
    return found
