"""Scored items of several steps as one table: runs are numbered through, the untrained base is taken once."""

import pytest

from sbt.report import item_scores, paired
from sbt.utils.errors import DataError


def rows(**arms: list[float]) -> list[dict]:
    return [{"arm": a, "id": f"q{k}", "mc1": v, "mc2": v} for a, values in arms.items() for k, v in enumerate(values)]


def test_runs_are_numbered_through_the_steps() -> None:
    first = item_scores.truthfulqa(rows(base=[0, 0], full=[1, 0], text=[0, 1]))
    later = item_scores.truthfulqa([*rows(base=[0, 0]), *rows(**{"full (run 1)": [1, 1], "full (run 2)": [0, 0]})])
    found = item_scores.together([first, later])
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
    turned = item_scores.truthfulqa(later[::-1])
    found = item_scores.together([item_scores.truthfulqa(first), turned])["mc1"]
    assert found["full (run 1)"].tolist() == found["full (run 2)"].tolist() == [1, 0]
    other = [{**row, "id": f"x{row['id']}"} for row in later]
    with pytest.raises(DataError, match="mc1: steps scored other items"):
        item_scores.together([item_scores.truthfulqa(first), item_scores.truthfulqa(other)])


def test_ethics_takes_the_test_files_and_language_its_headline_metrics() -> None:
    moral = [
        {"arm": "base", "subset": f"justice {split}", "index": k, "correct": k % 2}
        for split in ("test", "test_hard")
        for k in range(4)
    ]
    assert item_scores.ethics(moral)["ETHICS"]["base"].tolist() == [0, 1, 0, 1]
    spoken = [
        {"arm": "base", "benchmark": "mmlu", "id": "a", "acc": 1},
        {"arm": "base", "benchmark": "squad2", "id": "b", "f1": 0.5, "exact": 0},
    ]
    found = item_scores.language(spoken)
    assert set(found) == {"mmlu", "squad2"} and found["squad2"]["base"].tolist() == [0.5]
