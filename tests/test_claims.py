"""The ledger of claims: data in order, one rule for every verdict, a reason wherever it cannot be told."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from sbt import benchmarks
from sbt.report import claims, collect, deviations, published, tables
from sbt.study import params
from sbt.utils import paths
from sbt.utils.errors import DataError

ROW = {"id": "x", "claim": "a is better.", "a": "tuned", "b": "base", "scores": ["mc2"], "says": "higher",
       "margin": 0.05, "published": 0.1, "source": "here", "read": "table"}  # fmt: skip
ARMS = {"tuned": "full", "base": "base"}
SPECS = benchmarks.specs()


@pytest.mark.parametrize(
    ("says", "low", "high", "expected"),
    [
        ("higher", 0.01, 0.3, "supported"),
        ("higher", -0.3, -0.01, "contradicted"),
        ("higher", -0.04, 0.04, "equivalent to none"),
        ("higher", -0.04, 0.06, "cannot tell"),
        ("higher", -0.01, 0.3, "cannot tell"),
        ("lower", -0.3, -0.01, "supported"),
        ("lower", 0.01, 0.3, "contradicted"),
        ("lower", -0.06, 0.04, "cannot tell"),
        ("differs", -0.3, -0.01, "supported"),
        ("differs", -0.04, 0.04, "equivalent to none"),
        ("differs", -0.06, 0.04, "cannot tell"),
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


def held(
    row: dict, tables: dict, rows: tuple[dict, ...] = (), one_answer: dict | None = None, model: str = ""
) -> dict:
    results = collect.Results(list(rows), {}, tables, one_answer or {})
    return claims.ledger(results, ARMS, SPECS, [{"paper": "p", **row}], model).iloc[0].to_dict()


def level(arm: str, value: float, subset: str = "all corruptions", metric: str = "relative_drop") -> dict:
    around = {"value": value, "low": value - 0.03, "high": value + 0.04}
    return {"arm": arm, "benchmark": "captions", "subset": subset, "metric": metric, **around}


def test_a_claim_is_held_against_the_arms_that_play_its_roles() -> None:
    found = held(ROW, {"mc2": scores(base=0.3, full=0.6)})
    assert found["verdict"] == "supported" and found["arms"] == "full - base" and 0.15 < found["low"] < 0.45
    assert held(ROW, {"mc2": scores(base=0.6, full=0.3)})["verdict"] == "contradicted"
    assert held(ROW | {"says": "differs"}, {"mc2": scores(base=0.6, full=0.3)})["verdict"] == "supported"
    assert claims.words(found).startswith("supported (+0.")


@pytest.mark.parametrize(
    ("says", "low", "high", "margin"),
    [("higher", -0.041, 0.05, 0.02), ("lower", -0.1, 0.01, 0.02), ("differs", -0.3, 0.31, 0.05),
     ("alike", -0.02, 0.05, 0.01), ("alike", -0.04, 0.05, 0.03)],
)  # fmt: skip
def test_that_many_times_the_items_tell_and_fewer_do_not(says: str, low: float, high: float, margin: float) -> None:
    assert claims.verdict(says, low, high, margin) == "cannot tell"
    times = int(re.search(r"(\d+) times", claims.too_few(says, low, high, margin))[1])
    middle, half = (low + high) / 2, (high - low) / 2

    def told(count: int) -> str:
        return claims.verdict(says, middle - half / count**0.5, middle + half / count**0.5, margin)

    assert told(times) != "cannot tell" == told(times - 1) and times > 1
    assert "more than 100 times" in claims.too_few(says, margin / 2 - 9, margin / 2 + 9, margin)


def test_what_cannot_be_told_says_why() -> None:
    table = {"mc2": scores(base=0.5, full=0.5)}
    few = held(ROW, {"mc2": table["mc2"].head(40)})
    assert few["why"].startswith("too few items") and "wider than 0.05" in claims.words(few)
    assert held(ROW | {"scores": ["CIDEr"]}, table)["why"] == "CIDEr: not in this study"
    assert held(ROW | {"a": "lora"}, table)["why"] == "the study has no arm for lora"
    assert held(ROW, {"mc2": scores(base=0.5)})["why"] == "full was not scored on mc2, or was asked otherwise"
    same = held(ROW | {"b": "tuned", "says": "alike"}, table)
    assert same["why"] == "full is the study's arm for tuned and for tuned"
    assert held(ROW | {"needs": "two studies"}, table)["why"] == "needs two studies"
    for says in ("alike", "higher"):
        floor = held(ROW | {"says": says}, {"mc2": scores(base=0.0, full=0.0)})
        assert floor["verdict"] == "cannot tell" and "at its floor" in floor["why"]


def test_a_claim_about_one_base_model_is_held_against_no_other() -> None:
    table = {"mc2": scores(base=0.3, full=0.6)}
    assert held(ROW | {"model": "chat"}, table, model="meta-llama/Llama-2-7b-hf")["verdict"] == "cannot tell"
    assert held(ROW | {"model": "chat"}, table, model="meta-llama/Llama-2-7b-chat-hf")["verdict"] == "supported"


def test_an_arm_that_gives_one_answer_judges_nothing() -> None:
    table = {"mc2": scores(base=0.3, full=0.6)}
    told = held(ROW, table, one_answer={"mc2": {"base": 1.0, "full": 0.9}})
    assert told["verdict"] == "cannot tell"
    assert told["why"] == "constant: base gives one answer to nearly all items of mc2"
    assert held(ROW, table, one_answer={"mc2": {"base": 0.9}})["verdict"] == "supported"


def test_what_guessing_gives_shows_no_loss() -> None:
    guessed = held(ROW | {"scores": ["boolq"], "says": "alike"}, {"boolq": scores(base=0.5, full=0.5)})
    assert guessed["verdict"] == "cannot tell" and "above guessing (0.50) on boolq" in guessed["why"]
    assert held(ROW | {"scores": ["boolq"]}, {"boolq": scores(base=0.5, full=0.8)})["verdict"] == "supported"


def test_of_several_scores_the_mean_counts_with_a_narrower_interval() -> None:
    one, two = scores(base=0.3, full=0.6), scores(base=0.3, full=0.6)[::-1].reset_index(drop=True)
    single = held(ROW, {"mc2": one})
    both = held(ROW | {"scores": ["mc2", "mc1"]}, {"mc2": one, "mc1": two})
    assert both["delta"] == pytest.approx(single["delta"])
    assert both["high"] - both["low"] == pytest.approx((single["high"] - single["low"]) / 2**0.5, rel=1e-6)


def test_a_score_that_shows_nothing_is_left_out_of_a_mean_unless_they_are_half() -> None:
    good, floor, names = scores(base=0.3, full=0.6), scores(base=0.0, full=0.0), ["mc2", "mc1", "rougeL_acc"]
    found = held(ROW | {"scores": names}, {"mc2": good, "mc1": good, "rougeL_acc": floor})
    assert found["verdict"] == "supported" and found["measured"].startswith("mc2, mc1 (without rougeL_acc: ")
    assert held(ROW | {"scores": names[1:]}, {"mc1": good, "rougeL_acc": floor})["verdict"] == "cannot tell"


def test_a_column_of_the_report_is_compared_by_its_levels() -> None:
    row = ROW | {"scores": ["captions, share lost under corruption"]}
    rows = (level("base", 0.2), level("full", 0.5), level("full", 0.9))  # of two protocols the first
    found = held(row, {}, rows)
    assert found["verdict"] == "supported" and found["delta"] == pytest.approx(0.3)
    assert found["low"] == pytest.approx(0.3 - 0.05) and found["high"] == pytest.approx(0.3 + 0.05)
    alone = held(row | {"b": "none"}, {}, rows)
    assert alone["arms"] == "full" and (alone["delta"], alone["low"]) == pytest.approx((0.5, 0.47))


def test_other_scores_stand_in_only_where_the_benchmark_is_not_there() -> None:
    row = ROW | {"scores": ["MT-Bench"], "instead": ["mc2"], "instead_margin": 0.02}
    table = {"mc2": scores(base=0.3, full=0.6)}
    found = held(row, table)
    assert (found["verdict"], found["measured"], found["of"]) == ("supported", "mc2", "MT-Bench")
    assert held(row, table | {"MT-Bench": scores(base=0.6, full=0.3)})["verdict"] == "contradicted"


def test_the_papers_claims_are_in_order_and_name_scores_that_exist_or_were_published() -> None:
    rows = claims.load()
    assert len({row["id"] for row in rows}) == len(rows) >= 45 and len({row["paper"] for row in rows}) == 3
    known = {"mc1", "mc2", "mc2, facts not told", "rougeL_acc", "ETHICS", "ETHICS hard", "POPE", "MME", "VQAv2",
             "captions CIDEr", "held-out texts", "held-out pictures", *SPECS}  # fmt: skip
    known |= {title for titles in tables.columns(SPECS).values() for title in titles.values()}
    printed = " ".join(published.load().benchmark)
    for row in rows:
        assert set(row.get("instead", ())) <= known
        assert all(name in known or name.split(" hall")[0] in printed for name in row["scores"]), row["id"]
        assert {row["a"], row["b"]} <= {
            "base", "tuned", "text_only", "lora", "alpaca", "orca", "none", "l2t", "whole_instruction", "no_system",
            "conversation", "detail", "reasoning", "uniform", "dpo", "random_labels", "rejection", "steerlm", "sft",
        }  # fmt: skip


def test_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("paper: p\nclaims: [{id: a, claim: b}]\n")
    with pytest.raises(DataError, match="x.yaml, claim 'a': 'a' is missing"):
        claims.load(tmp_path)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"paper": "p", "claims": [ROW | {"instead": ["mc1"]}]}))
    with pytest.raises(DataError, match="`instead` and `instead_margin` stand together"):
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
