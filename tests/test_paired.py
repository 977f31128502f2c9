"""Arms with several training runs: grouped by name, joined over steps, compared over runs and items."""

import numpy as np
import pandas as pd
import pytest

from sbt.benchmarks.ethics import task as ethics
from sbt.benchmarks.mmlu.task import MMLU as mmlu
from sbt.benchmarks.squad2.task import SQUAD2 as squad2
from sbt.benchmarks.truthfulqa import task as truthfulqa
from sbt.report import paired, stats
from sbt.utils.errors import DataError


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


def test_the_questions_about_a_picture_are_one_chance() -> None:
    """An arm that sees a picture answers all its ten questions: 12 pictures are compared, not 120 questions."""
    sees = np.random.default_rng(0).random((2, 12)) < [[0.7], [0.3]]
    index = pd.MultiIndex.from_product([range(12), range(10)], names=["image", "item"])
    table = pd.DataFrame({name: np.repeat(one, 10) * 1.0 for name, one in zip("ab", sees, strict=True)}, index)
    told, of_pictures = paired.between(table, "a", "b", 0), stats.paired(sees[0] * 1.0, sees[1] * 1.0, seed=0)
    assert told["p"] == of_pictures["p"] and told["delta"] == pytest.approx(of_pictures["delta"])
    alone = paired.between(table.reset_index(drop=True), "a", "b", 0)  # control: as if each question stood for itself
    assert told["high"] - told["low"] > 2 * (alone["high"] - alone["low"]) and alone["p"] < told["p"]


def test_an_arm_without_a_metric_has_no_difference_in_it() -> None:
    half = {"base": {"acc": [1, 0], "f": [1, 1]}, "a": {"acc": [1, 1]}, "b": {"acc": [0, 0], "f": [0, 1]}}
    found = paired.differences(half, ["acc", "f"], seed=0)
    assert [(row["arm"], row["benchmark"]) for row in found] == [("a", "acc"), ("b", "acc"), ("b", "f")]
    assert {row["arm"] for row in paired.differences({**half, "base": {"acc": [1, 0]}}, ["f"], seed=0)} == set()


def test_arms_that_give_one_answer_do_not_judge() -> None:
    shares = {"a": 0.96, "b": 0.94, "c (run 1)": 1.0}
    named = ["base", "a", "a (run 2)", "b", "c (run 1)", "c (run 2)"]
    assert paired.judging(named, shares) == ["base", "b", "c (run 2)"]


def test_differences_on_parts_are_those_of_the_items_of_each_arm() -> None:
    first = [place < 100 for place in range(200)]
    rest = [not one for one in first]
    parts = {"told": {"a": first, "b": first}, "not told": {"a": rest}, "none": {"a": [False] * 200}}
    found = paired.by_part(RUNS, ["acc"], parts, seed=0)
    assert [(row["part"], row["arm"]) for row in found] == [("told", "a"), ("told", "b"), ("not told", "a")]
    assert found[0]["delta"] == pytest.approx(np.mean(RUNS["a"]["acc"][:100]) - np.mean(RUNS["base"]["acc"][:100]))
    assert found[2]["n"] == 100 and all("p_holm" in row for row in found)


def test_only_arms_with_several_runs_are_pooled() -> None:
    [row] = paired.pooled(RUNS, ["acc"], seed=0, benchmark="x", subset="all")
    assert (row["arm"], row["n"], row["benchmark"]) == ("b", 200, "x")
    assert row["low"] < row["value"] < row["high"]


def rows(**arms: list[float]) -> list[dict]:
    return [{"arm": a, "id": f"q{k}", "mc1": v, "mc2": v} for a, values in arms.items() for k, v in enumerate(values)]


def test_runs_are_numbered_through_the_steps() -> None:
    first = truthfulqa.item_scores(rows(base=[0, 0], full=[1, 0], text=[0, 1]))
    later = truthfulqa.item_scores([*rows(base=[0, 0]), *rows(**{"full (run 1)": [1, 1], "full (run 2)": [0, 0]})])
    found = paired.together([first, later])
    assert set(found) == {"mc1", "mc2"}
    table = found["mc2"]
    assert paired.group(table) == {
        "base": ["base"],
        "full": ["full (run 1)", "full (run 2)", "full (run 3)"],
        "text": ["text"],
    }
    assert table["full (run 1)"].tolist() == [1, 0] and table["full (run 2)"].tolist() == [1, 1]
    assert paired.between(table, "full", "text", 0)["runs_a"] == 3


def test_the_order_of_the_items_does_not_matter_but_other_items_do() -> None:
    first, later = rows(base=[0, 1], full=[1, 0]), rows(base=[0, 1], full=[1, 0])
    turned = truthfulqa.item_scores(later[::-1])
    found = paired.together([truthfulqa.item_scores(first), turned])["mc1"]
    assert found["full (run 1)"].tolist() == found["full (run 2)"].tolist() == [1, 0]
    other = [{**row, "id": f"x{row['id']}"} for row in later]
    with pytest.raises(DataError, match="mc1: steps scored other items"):
        paired.together([truthfulqa.item_scores(first), truthfulqa.item_scores(other)])


def test_ethics_takes_the_test_files_and_language_its_headline_metrics() -> None:
    moral = [
        {"arm": "base", "subset": f"justice {split}", "index": k, "correct": k % 2}
        for split in ("test", "test_hard")
        for k in range(4)
    ]
    found = ethics.item_scores(moral)
    assert {name: table["base"].tolist() for name, table in found.items()} == dict.fromkeys(
        ("ETHICS", "ETHICS hard"), [0, 1, 0, 1]
    )
    spoken = [
        {"arm": "base", "benchmark": "mmlu", "id": "a", "acc": 1},
        {"arm": "base", "benchmark": "squad2", "id": "b", "f1": 0.5, "exact": 0},
    ]
    found = mmlu.item_scores(spoken) | squad2.item_scores(spoken)
    assert set(found) == {"mmlu", "squad2"} and found["squad2"]["base"].tolist() == [0.5]


def test_ethics_tells_how_many_rows_get_the_commonest_option() -> None:
    named = {"arm": "a", "subset": "justice test"}
    rows = [{**named, "index": k, "label": k % 2, "correct": right} for k, right in enumerate([1, 0, 1, 1])]
    assert ethics.one_answer(rows) == {"ETHICS": {"a": 0.75}, "ETHICS hard": {}}  # options 0, 0, 0, 1
