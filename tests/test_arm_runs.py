"""Arms with several training runs: grouped by name, compared with the base over runs and items."""

import numpy as np
import pytest

from sbt.report import paired, stats


def scores(seed: int, level: float) -> list[float]:
    return (np.random.default_rng(seed).random(200) < level).astype(float).tolist()


PER_ITEM = {"base": {"acc": scores(0, 0.4)}, "a": {"acc": scores(1, 0.6)}}
LEVELS = ((1, 0.5), (2, 0.9))
RUNS = PER_ITEM | {f"b (run {k})": {"acc": scores(k + 2, level)} for k, level in LEVELS}


def test_runs_of_an_arm_are_grouped() -> None:
    assert paired.group(RUNS) == {"base": ["base"], "a": ["a"], "b": ["b (run 1)", "b (run 2)"]}


def test_one_run_is_compared_as_ever_and_several_with_a_wider_interval() -> None:
    [one] = paired.differences(PER_ITEM, ["acc"], seed=0)
    plain = stats.paired(PER_ITEM["a"]["acc"], PER_ITEM["base"]["acc"], seed=0)
    assert (one["arm"], one["benchmark"], one["p_holm"]) == ("a", "acc", one["p"])
    assert {key: one[key] for key in plain} == pytest.approx(plain)
    first, second = paired.differences(RUNS, ["acc"], seed=0)
    assert (first["arm"], second["arm"]) == ("a", "b")
    assert second["high"] - second["low"] > 1.5 * (first["high"] - first["low"])
    assert second["delta"] == pytest.approx(
        np.mean([RUNS["b (run 1)"]["acc"], RUNS["b (run 2)"]["acc"]]) - np.mean(RUNS["base"]["acc"])
    )
    assert paired.differences({"a": PER_ITEM["a"]}, ["acc"], seed=0) == []


def test_only_arms_with_several_runs_are_pooled() -> None:
    [row] = paired.pooled(RUNS, ["acc"], seed=0, benchmark="x", subset="all")
    assert (row["arm"], row["n"], row["benchmark"]) == ("b", 200, "x")
    assert row["low"] < row["value"] < row["high"]
