"""Tables of the report: a number stands with its interval, ours beside the published one of the same metric."""

import pandas as pd
import pytest

from sbt import benchmarks
from sbt.report import tables

SPECS = benchmarks.specs()
ALL = {column: title for titles in tables.columns(SPECS).values() for column, title in titles.items()}


def row(arm, benchmark, subset, metric, value, low=0.1, high=0.9):
    return {"arm": arm, "benchmark": benchmark, "subset": subset, "metric": metric, "value": value} | {
        "low": low,
        "high": high,
    }


ROWS = [
    row("base", "truthfulqa", "all", "mc2", 0.25),
    row("mm-full", "truthfulqa", "all", "mc2", 0.5),
    row("mm-full", "pope", "adversarial", "f1", 0.875),
    row("mm-full", "pope", "adversarial", "accuracy", 0.875, low=None, high=None),
    row("mm-full", "pope", "adversarial, shuffled", "f1", 0.1),
]


def test_a_cell_has_its_interval_and_a_number_without_one_is_not_shown():
    table = tables.wide(ROWS, ALL)
    assert table.loc["mm-full", "TruthfulQA mc2"] == "0.50 [0.10, 0.90]"
    assert table.loc["base", "POPE F1 (adversarial)"] == "–"
    assert "POPE accuracy (adversarial)" not in table.columns


def test_a_terminal_gets_one_table_that_it_can_hold():
    text = tables.as_text(ROWS, SPECS)
    assert text.startswith("Truthfulness and ethics") and "mm-full  0.50 [0.10, 0.90]" in text and "POPE" not in text
    wide = [row(f"{'long' * 9} {n}", "truthfulqa", "all", metric, 0.25) for metric in ("mc1", "mc2") for n in range(3)]
    wide += [row("x", "ethics", f"mean {split}", "accuracy", 0.5) for split in ("test", "test_hard")]
    lines = tables.as_text(wide, SPECS).splitlines()
    assert max(map(len, lines)) <= 100 and "mc2" in lines[1] and "hard" not in lines[1]
    assert tables.as_text([], SPECS) == ""


def test_a_titled_table_says_what_guessing_gives_and_lies_down_where_it_is_wide():
    table = tables.with_guessing(ROWS, SPECS, "Vision")
    assert table.loc["guessing", "POPE F1 (adversarial)"] == "–" and list(table.index) == ["mm-full", "guessing"]
    assert not len(tables.with_guessing(ROWS, SPECS, "Language ability"))
    more = [row("mm-full", *key, 0.5) for key in tables.columns(SPECS)["Vision"]]
    assert list(tables.with_guessing(more, SPECS, "Vision").columns) == ["mm-full", "guessing"]
    page = tables.page(table, "Vision").data
    assert page.count("<caption") == 1 and ">Vision</caption>" in page and "guessing" in page


def test_columns_that_find_no_room_stand_below_with_the_same_rows():
    cells = ["0.50 [0.45, 0.55]", float("nan")]
    frame = pd.DataFrame({f"arm {n}": cells for n in range(9)}, index=["POPE", "MME"])
    html = tables.page(frame, "Vision").data
    parts = html.split("<table")[1:]
    assert len(parts) == 2 and html.count("<caption") == 1 and all("POPE" in part for part in parts)
    assert [f"arm {n}<" in parts[0] for n in (0, 6, 7)] == [True, True, False] and "arm 8" in parts[1]
    assert tables.page(frame[["arm 0"]]).data.count("<table") == 1
    assert tables.page(frame.iloc[:0]).data.count("<table") == 1
    assert len(html.splitlines()) <= 8  # a line a row, or committed notebooks grow


def test_differences_are_a_table_of_sentences_in_numbers():
    row = {"benchmark": "mc2", "delta": 0.25, "low": 0.125, "high": 0.375, "n": 48, "test": "exact"}
    deltas = pd.DataFrame([{**row, "arm": "full", "p": 0.00001, "p_holm": None}])
    html = tables.compared(deltas).data
    assert all(word in html for word in ("+0.250 [+0.125, +0.375]", "&lt; 0.0001", "too few runs", "48", "full"))
    assert tables.compared(deltas.iloc[:0]).data == tables.NOT_BOTH


def test_a_number_has_the_digits_that_its_interval_can_hold():
    cells = [tables.cell({"value": value, "low": value - 1, "high": value + 1}) for value in (0.5, 34.25, 363.33)]
    assert cells == ["0.50 [-0.50, 1.50]", "34.2 [33.2, 35.2]", "363 [362, 364]"]


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ((0.21, 0.15, 0.27), "+0.210 [+0.150, +0.270]"),
        ((0.0002, 0.0001, 0.0004), "+0.0002 [+0.0001, +0.0004]"),
        ((0.1, 0.000049, 0.2), "+0.10000 [+0.00005, +0.20000]"),  # else it would seem to hold 0
        ((-0.0001, -0.08, 0.07), "+0.000 [-0.080, +0.070]"),
        ((0.0, -1e-17, 1e-17), "+0.000 [+0.000, +0.000]"),  # what rounding leaves of nothing
        ((0.0, -4e-7, 6e-7), "+0.000000 [+0.000000, +0.000001]"),
    ],
)
def test_no_end_of_an_interval_reads_as_nothing_where_it_is_not(numbers, shown):
    assert tables.signed(dict(zip(("delta", "low", "high"), numbers, strict=True))) == shown


def test_a_sentence_says_what_the_interval_shows():
    row = {"arm": "mm-full", "delta": 0.2, "low": 0.1, "high": 0.3}
    assert tables.sentence(row, "mc2") == "mm-full is higher than base on mc2 (+0.200 [+0.100, +0.300])"
    assert "not shown to differ from text" in tables.sentence(row | {"low": -0.1}, "mc2", "text")
    assert "lower than base" in tables.sentence({**row, "delta": -0.2, "low": -0.3, "high": -0.1}, "mc2")


def test_a_grid_holds_cells_in_their_order_and_dashes():
    rows = [row("b", "mme", "count", "score", 150, 100, 200), row("a", "mme", "color", "score", 50, 50, 50)]
    table = tables.grid(pd.DataFrame(rows), "subset", digits=0)
    assert list(table.columns) == ["b", "a"] and list(table.index) == ["count", "color"]
    assert table.loc["count", "b"] == "150 [100, 200]" and table.loc["count", "a"] == "–"


def test_a_p_is_never_zero_and_never_invented():
    shown = [tables.p_value(p) for p in (0.25, 3e-7, None, float("nan"))]
    assert shown == ["0.2500", "< 0.0001", "too few runs", "too few runs"]


def test_a_grid_of_nothing_is_empty():
    assert tables.grid(pd.DataFrame([]), "subset").empty


def test_an_answer_names_the_arms_that_differ_and_counts_the_others() -> None:
    values = [("a", "mc2", 0.2, 0.1, 0.3), ("b", "mc2", -0.1, -0.3, 0.1), ("c", "mc2", -0.4, -0.5, -0.3)]
    deltas = pd.DataFrame(
        [dict(zip(("arm", "benchmark", "delta", "low", "high"), row, strict=True)) for row in values]
    )
    told = tables.outcome(deltas, "mc2")
    assert told.startswith("mc2: lower than base: c (-0.400 [-0.500, -0.300]); higher than base: a (+0.200")
    assert told.endswith("not shown to differ from base: b (-0.100 [-0.300, +0.100])")
    assert tables.counted(deltas) == (
        "Of 3 differences: 1 higher than base (a on mc2), 1 lower than base (c on mc2); the others are not shown "
        "to differ"
    )
    empty = pd.DataFrame()
    assert tables.outcome(empty, "mc1") == "mc1: base and another arm were not both scored"
    assert tables.counted(empty) == "base and another arm were not both scored"
