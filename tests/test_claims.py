"""The ledger of claims: data in order, one rule for every verdict, a reason wherever it cannot be told."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sbt import benchmarks
from sbt.report import claims, deviations
from sbt.study import params
from sbt.utils import paths
from sbt.utils.errors import DataError

ROW = {"id": "x", "claim": "a is better.", "a": "tuned", "b": "base", "scores": ["mc2"], "says": "higher",
       "margin": 0.05, "published": 0.1, "source": "here"}  # fmt: skip
ARMS = {"tuned": "full", "base": "base"}


@pytest.mark.parametrize(
    ("says", "low", "high", "expected"),
    [
        ("higher", 0.01, 0.3, "supported"),
        ("higher", -0.3, -0.01, "contradicted"),
        ("higher", -0.04, 0.04, "no effect"),
        ("higher", -0.04, 0.06, "cannot tell"),
        ("higher", -0.01, 0.3, "cannot tell"),
        ("lower", -0.3, -0.01, "supported"),
        ("lower", 0.01, 0.3, "contradicted"),
        ("lower", -0.06, 0.04, "cannot tell"),
        ("alike", -0.04, 0.04, "supported"),
        ("alike", 0.01, 0.04, "supported"),
        ("alike", 0.06, 0.1, "contradicted"),
        ("alike", -0.2, -0.06, "contradicted"),
        ("alike", 0.04, 0.06, "cannot tell"),
    ],
)
def test_a_verdict_follows_from_interval_and_margin(says: str, low: float, high: float, expected: str) -> None:
    assert claims.verdict(says, low, high, 0.05) == expected


def scores(**levels: float) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({arm: (rng.random(400) < level).astype(float) for arm, level in levels.items()})


def held(row: dict, tables: dict) -> dict:
    return claims.ledger(tables, ARMS, [{"paper": "p", **row}]).iloc[0].to_dict()


def test_a_claim_is_held_against_the_arms_that_play_its_roles() -> None:
    found = held(ROW, {"mc2": scores(base=0.3, full=0.6)})
    assert found["verdict"] == "supported" and found["arms"] == "full - base" and 0.15 < found["low"] < 0.45
    assert held(ROW, {"mc2": scores(base=0.6, full=0.3)})["verdict"] == "contradicted"
    assert claims.words(found).startswith("supported (+0.")


def test_what_cannot_be_told_says_why() -> None:
    table = {"mc2": scores(base=0.5, full=0.5)}
    assert "wider than 0.05" in held(ROW, {"mc2": table["mc2"].head(40)})["why"]
    same = held(ROW | {"b": "tuned", "says": "alike"}, table)
    assert same["why"] == "full is the study's arm for tuned and for tuned"
    assert held(ROW | {"scores": ["CIDEr"]}, table)["why"] == "CIDEr was not scored"
    assert held(ROW | {"a": "lora"}, table)["why"] == "the study has no arm for lora"
    assert held(ROW, {"mc2": scores(base=0.5)})["why"] == "full was not scored on mc2"
    floor = held(ROW | {"says": "alike"}, {"mc2": scores(base=0.0, full=0.0)})
    assert floor["verdict"] == "cannot tell" and "floor" in floor["why"]


def test_an_arm_that_gives_one_answer_judges_nothing() -> None:
    table = {"mc2": scores(base=0.3, full=0.6)}
    rows = [{"paper": "p", **ROW}]
    told = claims.ledger(table, ARMS, rows, one_answer={"mc2": {"base": 1.0, "full": 0.9}}).iloc[0]
    assert told.verdict == "cannot tell" and told.why == "base gives one answer to nearly all items of mc2"
    assert claims.ledger(table, ARMS, rows, one_answer={"mc2": {"base": 0.9}}).iloc[0].verdict == "supported"


def test_of_several_scores_the_mean_counts_with_a_narrower_interval() -> None:
    one, two = scores(base=0.3, full=0.6), scores(base=0.3, full=0.6)[::-1].reset_index(drop=True)
    single = held(ROW, {"mc2": one})
    both = held(ROW | {"scores": ["mc2", "mc1"]}, {"mc2": one, "mc1": two})
    assert both["delta"] == pytest.approx(single["delta"])
    assert both["high"] - both["low"] == pytest.approx((single["high"] - single["low"]) / 2**0.5, rel=1e-6)


def test_the_papers_claims_are_in_order_and_name_scores_that_exist() -> None:
    rows = claims.load()
    assert len({row["id"] for row in rows}) == len(rows) >= 20
    known = {"mc1", "mc2", "rougeL_acc", "ETHICS", "POPE", "MME", "VQAv2", "captions CIDEr", *benchmarks.specs()}
    assert {name for row in rows for name in row["scores"]} <= known
    assert {role for row in rows for role in (row["a"], row["b"])} <= {
        "base", "tuned", "text_only", "lora", "l2t", "alpaca", "orca"}  # fmt: skip


def test_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("paper: p\nclaims: [{id: a, claim: b}]\n")
    with pytest.raises(DataError, match="x.yaml, claim 'a': 'a' is missing"):
        claims.load(tmp_path)


@pytest.mark.parametrize("one", deviations.DEVIATIONS, ids=lambda one: one["topic"])
def test_a_deviation_is_whole_and_its_parameter_takes_the_authors_value(one: dict) -> None:
    assert list(one) == ["paper", "topic", "theirs", "source", "ours", "why", "restore"]
    assert all(one[key] and isinstance(one[key], str) for key in one if key != "restore")
    for notebook, values in one["restore"].items():
        declared = params.declared(paths.root() / "notebooks" / f"{notebook}.ipynb")
        for name, value in values.items():
            assert params.convert(declared[name], value, "deviations.yaml") == value
            assert value != declared[name].default or name in ("max_steps", "also"), "the default does so already"


def test_the_table_of_deviations_has_each_once_and_counts_what_the_protocols_say() -> None:
    specs = benchmarks.specs()
    table = deviations.table(specs)
    assert table["of"].is_unique and len(table) == len(deviations.DEVIATIONS) + 1
    assert all(f"{name} {len(spec.protocols['paper'])}" in table["the authors"].iloc[-1]
               for name, spec in specs.items() if spec.protocols.get("paper"))  # fmt: skip
    assert table.set_index("of")["as they do"]["SBT: place of the image"] == "image_place=front"
