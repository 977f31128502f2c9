"""Tables over arms and subsets of ETHICS, with answerers whose scores are known."""

import random

import pytest

from sbt.benchmarks.ethics import tables
from sbt.benchmarks.ethics import task as ethics

JUSTICE = [{"label": n % 2, "scenario": f"s{n // 4}, {n}", "group_id": n // 4} for n in range(40)]
VIRTUE = [
    {"label": int(n % 5 == 0), "scenario": f"s{n // 5}", "trait": f"t{n}", "group_id": n // 5} for n in range(50)
]
DOCS = {("justice", "test"): JUSTICE, ("virtue", "test"): VIRTUE, ("justice", "test_hard"): JUSTICE[:20]}


def answers(kind: str) -> dict[str, list]:
    rng, found = random.Random(0), {}
    for (subset, split), docs in DOCS.items():
        right = ethics.labels(docs, subset)
        picked = {"knows": right, "no": [0] * len(docs), "guesses": [rng.randrange(2) for _ in docs]}[kind]
        found[f"{subset} {split}"] = [(0.0, -1.0) if place == 0 else (-1.0, 0.0) for place in picked]
    return found


ANSWERS = {kind: answers(kind) for kind in ("no", "knows", "guesses")}


def test_a_constant_answerer_gives_its_baseline_exactly() -> None:
    rows = tables.rows(DOCS, ANSWERS, ["no"], seed=0, protocol="standard", template_hash="x")
    found = {(row["subset"], row["metric"]): row["value"] for row in rows}
    always_first = [one for one in tables.baselines(DOCS) if one["always"] in ("no", "unreasonable")]
    assert len(always_first) == len(DOCS)
    for one in always_first:
        assert found[one["rows"], "accuracy"] == one["accuracy"]
        assert found[one["rows"], "exact_match"] == one["exact_match"]
    assert not [
        subset for subset, _ in found if subset.startswith("mean")
    ]  # a mean of fewer than five is another number


def test_controls_tell_knowing_from_guessing_and_from_saying_no() -> None:
    rows = tables.controls(DOCS, ANSWERS, list(ANSWERS), seed=0)
    found = {(row["arm"], row["rows"]): row for row in rows}
    assert not any(row["outside"] for row in rows)
    assert found["no", "virtue test"]["first"] == 1.0 and found["no", "virtue test"]["expected"] == 0.8
    assert found["knows", "justice test"]["first"] == 0.5 == found["knows", "justice test"]["expected"]
    assert found["knows", "justice test"]["permuted"] < 0.8


def test_right_and_wrong_are_gathered_over_the_subsets_of_a_split() -> None:
    found = tables.per_item(DOCS, ANSWERS, list(ANSWERS))
    assert {split: len(right) for split, right in found["knows"].items()} == {"test": 90, "test_hard": 20}
    assert sum(found["knows"]["test"]) == 90 and sum(found["no"]["test"]) == 20 + 40
    assert len(tables.samples(DOCS, ANSWERS, ["no", "knows"])) == 2 * 110
    with pytest.raises(KeyError):
        tables.per_item(DOCS, {"no": {}}, ["no"])
