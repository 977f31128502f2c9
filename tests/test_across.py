"""Several studies side by side: each arm with the base of its own study, and the papers' means."""

import numpy as np
import pandas as pd
import pytest

from sbt import benchmarks
from sbt.report import across, collect
from sbt.utils.errors import MissingStep


def study(name: str, gain: float) -> across.Study:
    rng = np.random.default_rng(0)
    base = rng.random(100)
    table = pd.DataFrame({"base": base, "full": base + gain, "text": base + gain / 2})
    row = {"benchmark": "truthfulqa", "subset": "all", "metric": "mc2", "low": 0.1, "high": 0.9}
    rows = [{**row, "arm": arm, "value": table[arm].mean()} for arm in table]
    scores = dict.fromkeys(("mc2", *across.MEANS["five language tasks"]), table)
    roles = {"base": "base", "tuned": "full", "text_only": "text"}
    return across.Study(name, f"{name}-model", collect.Results(rows, {}, scores, {}), roles)


def test_an_arm_is_compared_with_its_own_base_and_with_the_arm_without_pictures() -> None:
    apart = across.differences([study("one", 0.1), study("two", 0.3)])
    found = apart[apart.score == "mc2"].set_index(["study", "arm", "against"]).delta
    assert found["two", "full", "base"] == pytest.approx(0.3)
    assert found["two", "full", "text"] == pytest.approx(0.15)
    means = apart[apart.score == "mean of five language tasks"].set_index(["study", "arm", "against"]).delta
    assert means["one", "full", "base"] == pytest.approx(0.1)
    assert "mean of truthfulness and ethics" not in set(apart.score)  # two of its three were not scored


def test_levels_stand_by_study_and_arm() -> None:
    levels = across.levels([study("one", 0.1), study("two", 0.3)], benchmarks.specs())
    table = across.table(levels, levels.table.iloc[0])
    assert list(table.columns) == ["TruthfulQA mc2"] and ("two", "full") in table.index


def test_a_study_without_results_is_named(project: object) -> None:
    with pytest.raises(MissingStep, match="nowhere has no finished step that scored a benchmark"):
        across.studies(["nowhere"], benchmarks.specs())
    with pytest.raises(MissingStep, match="no study below outputs scored a benchmark: `sbt run params/embedded`"):
        across.studies([], benchmarks.specs())
