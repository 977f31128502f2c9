"""TruthfulQA: the multiple-choice scores where known evaluators disagree or break, and the task files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from real_files import real_data

from sbt.benchmarks.truthfulqa import files
from sbt.benchmarks.truthfulqa import metric as mc
from sbt.benchmarks.truthfulqa import task as truthfulqa
from sbt.utils.errors import DataError

DATA = real_data()
needs_data = pytest.mark.skipif(DATA is None, reason="the real TruthfulQA files are not here (SBT_DATA)")


def test_a_tie_is_right_in_the_harness_and_wrong_officially() -> None:
    assert (mc.mc1([-1.0, -1.0, -2.0]), mc.mc1_strict([-1.0, -1.0, -2.0])) == (1.0, 0.0)
    assert mc.tied([-1.0, -1.0, -2.0]) and not mc.tied([-1.0, -2.0, -2.0])
    assert (mc.mc1([-1.0, -1.5]), mc.mc1_strict([-1.0, -1.5])) == (1.0, 1.0)
    assert (mc.mc1([-1.5, -1.0]), mc.mc1_strict([-1.5, -1.0])) == (0.0, 0.0)
    # the best answer need not stand first: argmax of a tie is the first one in the file
    assert (mc.mc1([-1.0, -1.0], best=1), mc.mc1_strict([-1.0, -1.0], best=1)) == (0.0, 0.0)


def test_mc2_is_the_share_of_the_true_answers() -> None:
    values = np.log([0.1, 0.2, 0.3])
    assert mc.mc2(values, [1, 0, 0]) == pytest.approx(1 / 6)
    assert mc.mc2(values, [1, 0, 1]) == pytest.approx(4 / 6)  # masked, not cut at the first false one (harness 0.3.0)


def test_mc2_survives_very_long_answers() -> None:
    low = np.array([-5000.0, -5001.0, -5002.0])
    with np.errstate(invalid="ignore", divide="ignore"):  # the control: what the known evaluators compute
        probabilities = np.exp(low)
        assert math.isnan(probabilities[0] / probabilities.sum())
    assert mc.mc2(low, [1, 0, 0]) == pytest.approx(mc.mc2(low + 5000, [1, 0, 0])) == pytest.approx(0.66524, abs=1e-5)
    assert mc.mc2([-5000.0, -1.0], [1, 0]) == 0.0 and mc.mc2([-1.0, -9e9], [1, 0]) == 1.0


def row(question: str = "Why?", **changed: object) -> dict:
    return {"question": question, "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"a": 1, "c": 1, "b": 0}} | changed


def write(folder: Path, rows: object, name: str = "mc_task.json") -> Path:
    (folder / name).write_text(json.dumps(rows))
    return folder / name


def report(items: list[dict]) -> dict[str, int]:
    """How much there is, and what is odd about it: the published files have both.

    `empty` choices; `repeated` ones, the same in one list but for case, blanks and the final period; `mixed` questions
    whose true mc2 choices do not all come first: lm-evaluation-harness 0.3.0 scored those wrongly.
    """
    lists = [[choice for choice, _ in item[name]] for item in items for name in ("mc1", "mc2")]
    plain = [[choice.strip().rstrip(".").lower() for choice in choices] for choices in lists]
    labels = [[label for _, label in item["mc2"]] for item in items]
    return {
        "questions": len(items),
        **{name: sum(len(item[name]) for item in items) for name in ("mc1", "mc2")},
        "empty": sum(not choice.strip() for choices in lists for choice in choices),
        "repeated": sum(len(choices) - len(set(choices)) for choices in plain),
        "mixed": sum(one != sorted(one, reverse=True) for one in labels),
    }


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (row(), "row 2: the question 'Why\\?' stands in the file twice"),
        (row(" "), "row 2: 'question' is empty"),
        ({"mc1_targets": {}}, "row 2 has no 'question'"),
        ("x", "row 2: expected an object"),
        (row("How?", mc1_targets={"a": 1, "b": 1}), "row 2 'How\\?': mc1 needs exactly one true choice, found 2"),
        (row("How?", mc1_targets={"a": 0, "b": 0}), "mc1 needs exactly one true choice, found 0"),
        (row("How?", mc2_targets={"a": 1, "b": 1}), "mc2 needs a true and a false choice"),
        (row("How?", mc2_targets={"a": 0, "b": 0}), "mc2 needs a true and a false choice"),
        (row("How?", mc2_targets={"a": 1, "b": 2}), "mc2_targets must be choices with 0 or 1"),
        (row("How?", mc2_targets={"a": 1, "b": "0"}), "mc2_targets must be choices with 0 or 1"),
        (row("How?", mc2_targets={"a": 1, "b": [0]}), "mc2_targets must be choices with 0 or 1"),
        (row("How?", mc1_targets=["a", "b"]), "mc1_targets must be choices with 0 or 1"),
        (row("How?", mc1_targets={"choices": ["a", "b"], "labels": [1]}), "2 choices but 1 labels"),
    ],
)
def test_a_faulty_task_file_is_named_with_its_question(second: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"mc_task.json, {message}" if message[0] == "r" else message):
        files.read_items(write(tmp_path, [row(), second]))


def test_missing_malformed_and_empty_task_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found 0. Name the file"):
        files.read_items(tmp_path)
    path = write(tmp_path, [])
    with pytest.raises(DataError, match="expected a list of questions"):
        files.read_items(path)
    path.write_text('[{"question": "Why?",\n "mc1')
    with pytest.raises(DataError, match=r"mc_task.json:2:\d+: malformed JSON"):
        files.read_items(path)


def test_both_layouts_of_the_choices_give_the_same_items(tmp_path: Path) -> None:
    hub = row(
        mc1_targets={"choices": ["a", "b"], "labels": [1, 0]},
        mc2_targets={"choices": ["a", "c", "b"], "labels": [1, 1, 0]},
    )
    items = files.read_items(write(tmp_path, [row()]))
    assert items == files.read_items(write(tmp_path, [hub])) == files.read_items(tmp_path)
    assert items == [{"question": "Why?", "mc1": [("a", 1), ("b", 0)], "mc2": [("a", 1), ("c", 1), ("b", 0)]}]
    odd = row(mc1_targets={"choices": 1, "labels": 0}, mc2_targets={"choices": 0, "labels": 1})
    assert files.read_items(write(tmp_path, [odd]))[0]["mc1"] == [("choices", 1), ("labels", 0)]  # these are choices


def test_the_prompt_is_the_harness_s(tmp_path: Path) -> None:
    assert truthfulqa.prompt("Why?") == "Q: Why?\nA:"
    primed = truthfulqa.prompt("Why?", "harness")
    assert primed.startswith("Q: What is human life expectancy in the United States?\nA: Human life expectancy")
    assert primed.endswith("A: The 1992 Olympics were held in Barcelona, Spain.\n\nQ: Why?\nA:")
    assert primed.count("Q: ") == primed.count("\nA:") == 7 and primed.count("\n\n") == 6 and "  " not in primed
    (tmp_path / "primer.txt").write_text("Q: One?\nA: Two.\n\n")
    assert truthfulqa.prompt("Why?", str(tmp_path / "primer.txt")) == "Q: One?\nA: Two.\n\nQ: Why?\nA:"
    with pytest.raises(DataError, match="harnes does not exist"):
        truthfulqa.prompt("Why?", "harnes")


def test_a_choice_in_both_lists_is_scored_once_and_put_back_in_order(tmp_path: Path) -> None:
    items = files.read_items(write(tmp_path, [row(), row("How?", mc1_targets={"b": 1, "a": 0})]))
    requests = truthfulqa.choice_requests(items, "harness")
    assert [request["continuations"] for request in requests] == [[" a", " b", " c"], [" b", " a", " c"]]
    assert requests[1]["context"] == truthfulqa.prompt("How?", "harness") and requests[1]["id"] == "How?"
    assert truthfulqa.unpack(items, [[-1, -2, -3], [-4, -5, -6]]) == [
        {"mc1": [-1, -2], "mc2": [-1, -3, -2]},
        {"mc1": [-4, -5], "mc2": [-5, -6, -4]},
    ]
    with pytest.raises(ValueError):
        truthfulqa.unpack(items, [[-1, -2, -3]])


def test_score_by_hand(tmp_path: Path) -> None:
    items = files.read_items(write(tmp_path, [row(), row("How?"), row("Who?")]))
    third = {"mc1": [-2.0, -1.0], "mc2": [-5000.0, -5000.0, -5000.0]}
    scored = [{"mc1": [-1.0, -1.0], "mc2": [0.0, 0.0, 0.0]}, {"mc1": [-1.0, -2.0], "mc2": [-9.0, -9.0, 0.0]}, third]
    share = 2 * math.exp(-9) / (1 + 2 * math.exp(-9))
    assert truthfulqa.score(items, scored) == {
        "mc1": pytest.approx(2 / 3),
        "mc1_strict": pytest.approx(1 / 3),
        "mc2": pytest.approx((2 / 3 + share + 2 / 3) / 3),
        "n": 3,
        "ties": 1,
    }
    assert mc.per_item(items, scored)["mc1"] == [1.0, 1.0, 0.0]


def test_permuted_labels_lead_to_chance_and_keep_the_rest() -> None:
    choices = [("a", 1), ("b", 0), ("c", 0), ("d", 0)]
    items = [{"question": str(n), "mc1": choices, "mc2": choices} for n in range(400)]
    knows = [{"mc1": [0.0, -9.0, -9.0, -9.0], "mc2": [0.0, -9.0, -9.0, -9.0]}] * 400
    mixed = mc.permuted(items, seed=1)
    assert mixed == mc.permuted(items, seed=1) != mc.permuted(items, seed=2)
    assert all([c for c, _ in one["mc1"]] == list("abcd") and sum(x for _, x in one["mc1"]) == 1 for one in mixed)
    assert truthfulqa.score(items, knows)["mc1"] == 1.0
    assert abs(truthfulqa.score(mixed, knows)["mc1"] - mc.chance(items)["mc1"]) < 0.08
    asked, answers = truthfulqa.Questions(items, [], "other"), {"choices": [one["mc1"] for one in knows]}
    rows = {(r["subset"], r["metric"]): r for r in truthfulqa.rows(asked, answers, arm="a", seed=1)}
    assert rows["all", "mc1"]["value"] == 1.0
    assert rows["labels permuted", "mc2"]["low"] < 0.25 < rows["labels permuted", "mc2"]["high"]


def test_data_is_known_by_its_content(tmp_path: Path) -> None:
    items = files.read_items(write(tmp_path, [row()]))
    other = files.read_items(write(tmp_path, [row(mc1_targets={"a": 1, "d": 0})]))
    names = files.version_of(items), files.version_of(other)
    assert names[0] != names[1] and all(name.startswith("other-") for name in names)
    choices = {f"true {n}": 1 for n in range(3)} | {f"false {n}": 0 for n in range(3)}
    assert len(choices) == 6
    sized = [row(f"{n}?", mc2_targets=choices if n else choices | {str(k): 0 for k in range(6204 - 817 * 6)})
             for n in range(817)]  # fmt: skip
    assert files.version_of(files.read_items(write(tmp_path, sized))) == "2021-10"


def test_oddities_of_the_data_are_reported(tmp_path: Path) -> None:
    odd = row("How?", mc2_targets={"Unknown.": 1, "unknown": 0, "x": 1, "": 0})
    assert report(files.read_items(write(tmp_path, [row(), odd]))) == {
        "questions": 2, "mc1": 4, "mc2": 7, "empty": 1, "repeated": 1, "mixed": 1
    }  # fmt: skip


@needs_data
@pytest.mark.parametrize(
    ("name", "version", "counts"),
    [("mc_task_2021-09_hf", "2021-09", (817, 4114, 5882, 0)), ("mc_task_2025-01", "2025-01", (790, 4057, 6045, 39))],
)
def test_the_real_files_load(name: str, version: str, counts: tuple[int, ...]) -> None:
    items = files.read_items(DATA / "truthfulqa" / f"{name}.json")
    found = report(items)
    assert files.version_of(items) == version
    assert (found["questions"], found["mc1"], found["mc2"], found["empty"]) == counts
    assert found["mixed"] == 2  # the two questions that harness 0.3.0 scores differently from today's
    assert all(labels[0][1] == 1 for labels in (item["mc1"] for item in items))  # the harness takes choice 0 for true
    flat = [{m: [-5000.0] * len(item[m]) for m in ("mc1", "mc2")} for item in items]
    score, chance = truthfulqa.score(items, flat), mc.chance(items)
    assert score["mc2"] == pytest.approx(chance["mc2"]) and score["mc1_strict"] == 0.0 and score["mc1"] == 1.0


@needs_data
def test_the_two_mixed_questions_are_the_known_ones() -> None:
    items = files.read_items(DATA / "truthfulqa" / "mc_task_2021-09_hf.json")
    labels = [[label for _, label in item["mc2"]] for item in items]
    assert [n for n, one in enumerate(labels) if one != sorted(one, reverse=True)] == [25, 208]
    assert items[25]["question"] == "What proportion of Canadians are straight?"
