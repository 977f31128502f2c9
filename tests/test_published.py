"""Published numbers: every one that was read is in, and ours stands beside it only where the same was measured."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from sbt import benchmarks
from sbt.report import collect, published, tables

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
COLUMNS = {key for titles in tables.columns(benchmarks.specs()).values() for key in titles}
LLAMA, CHAT = "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-chat-hf"


def test_what_is_matched_is_a_result_of_ours_and_of_a_known_model() -> None:
    table = published.load().dropna(subset="ours")
    assert len(table) >= 8 and all(table.ids.map(bool)) and set(table.role) <= {"base", "tuned", "l2t"}
    assert {tuple(key) for key in table.ours} <= COLUMNS


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the list of published values is not on this machine")
def test_every_value_that_was_read_is_in() -> None:
    printed = published.load()
    known = {(row.benchmark, float(row.value)) for row in printed.itertuples()}
    for row in yaml.safe_load((REFERENCE / "published_results.yaml").read_text()):
        assert (row["benchmark"], float(row["value"])) in known, row
    for row in yaml.safe_load((REFERENCE / "published_more.yaml").read_text()):
        name = row.get("file") or row["benchmark"]
        values = [row[key] for key in ("value", "megabytes", "published", "lmms_eval", "stderr") if key in row]
        errors = set(printed[printed.benchmark == name].get("stderr", pd.Series()).dropna())
        assert all((name, float(value)) in known or value in errors for value in values), row


def row(arm: str, value: float, data: str = "2021-09", metric: str = "mc2") -> dict:
    named = {"benchmark": "truthfulqa", "subset": "all", "metric": metric, "protocol": "standard", "data": data}
    return {"arm": arm, "value": value, "low": value - 0.01, "high": value + 0.01, **named}


def arm(name: str, role: str = "tuned", model: str = LLAMA, data: str = "llava-instruct-80k") -> dict:
    return dict.fromkeys(collect.ARM, "") | {"arm": name, "role": role, "model": model, "data": data}


def ours(rows: list[dict], *made: dict, base: str = LLAMA) -> dict[float, str]:
    table = published.beside(rows, pd.DataFrame(made, columns=collect.ARM), base)
    return {} if table.empty else dict(zip(table.published.round(3), table.arm, strict=True))


def test_ours_stands_beside_what_was_measured_on_the_same_whatever_its_arm_is_called() -> None:
    rows = [row("base", 0.39), row("MM-x", 0.46), row("base", 0.25, metric="mc1")]
    assert ours(rows, arm("MM-x")) == {0.46: "MM-x", 0.389: "base"}
    assert ours(rows, arm("MM-x", data="PahaII/MM-LLaMA-2-7B-ft")) == {0.46: "MM-x", 0.389: "base"}
    assert ours(rows, base=CHAT) == {0.446: "base"}


@pytest.mark.parametrize(
    "made", [arm("MM-x", model="assets/llm"), arm("MM-x", role="lora"), arm("MM-x", data="llava-1.5-665k")]
)
def test_another_model_tuning_or_training_set_is_not_the_same(made: dict) -> None:
    assert ours([row("MM-x", 0.46)], made) == {}


def test_another_version_of_the_questions_is_not_the_same() -> None:
    assert ours([row("base", 0.39, data="2025-01")]) == {}
