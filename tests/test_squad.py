"""SQuAD 2.0: its file, the official scores by hand, thresholds against a search over all of them, the baselines."""

import json
import math
import random
from pathlib import Path

import pytest

from sbt.benchmarks.common import language
from sbt.benchmarks.squad2 import task as squad
from sbt.benchmarks.squad2.task import SQUAD2 as squad2
from sbt.utils.errors import DataError, RunError


def entry(name: str = "a", answers: tuple[str, ...] = ("Paris",), **changed: object) -> dict:
    found = [{"text": text, "answer_start": 3} for text in answers]
    return {"id": name, "question": "Where?", "answers": found, "is_impossible": not answers} | changed


def file(folder: Path, *entries: dict, **changed: object) -> Path:
    article = {"title": "France", "paragraphs": [{"context": "In Paris.", "qas": list(entries)}]} | changed
    (folder / "dev-v2.0.json").write_text(json.dumps({"version": "v2.0", "data": [article]}))
    return folder / "dev-v2.0.json"


def docs(*answers: list[str]) -> list[dict]:
    same = {"title": "t", "context": "c", "question": "q"}
    return [
        {"id": str(n), **same, "answers": {"text": t, "answer_start": [0] * len(t)}} for n, t in enumerate(answers)
    ]


def thresholded(
    scores: list[float], no_answer: list[float], answerable: list[bool], threshold: float = 1.0
) -> list[float]:
    """Scores with the answers taken back whose probability of having none is above the threshold: at 1.0, never.

    So an answer "unanswerable" stays a wrong text at the harness's threshold, 1.0.
    """
    items = zip(scores, no_answer, answerable, strict=True)
    return [score if p <= threshold else float(not known) for score, p, known in items]


def scores(items: list[dict], results: list[tuple[str, float]], subset: str = "all") -> dict[str, float]:
    rows = squad2.rows(items, results, arm="a")
    return {row["metric"]: row["value"] for row in rows if row["subset"] == subset}


def test_the_publisher_s_file_becomes_the_hub_s_rows(tmp_path: Path) -> None:
    path = file(tmp_path, entry(), entry("b", (), plausible_answers=[{"text": "Rome", "answer_start": 0}]))
    found = squad2.load(tmp_path)
    assert found == squad2.load(path) == squad2.from_rows(found, "hub")
    same = {"title": "France", "context": "In Paris.", "question": "Where?"}
    assert found == [
        {"id": "a", **same, "answers": {"text": ["Paris"], "answer_start": [3]}},
        {"id": "b", **same, "answers": {"text": [], "answer_start": []}},
    ]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (entry(), "row 2: id 'a' stands in the file twice"),
        (entry("b", question=" "), r"row 2 \(id 'b'\): 'question' is empty"),
        (entry("b", is_impossible=True), "qas, row 2: 1 answers, but is_impossible is True"),
        (entry("b", (), is_impossible=False), "qas, row 2: 0 answers, but is_impossible is False"),
        ({"id": "b", "question": "q", "answers": []}, "qas, row 2 has no 'is_impossible'.* another data set"),
        ({"id": "b", "question": "q"}, "qas, row 2 has no 'answers'"),
        ({**entry("b"), "answers": None}, "qas, row 2: 'answers' must be a list"),
        (entry("b", (" ",)), r"row 2 \(id 'b'\): 'answers' must hold a list 'text' of texts"),
        (entry(7), r"row 2 \(id 7\): 'id' must be a text"),
    ],
)
def test_a_faulty_question_is_named(second: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"dev-v2.0.json.*{message}"):
        squad2.load(file(tmp_path, entry(), second))


def test_other_faults_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no dev-v2.0.json. Put it there, or name the file"):
        squad2.load(tmp_path)
    with pytest.raises(DataError, match="data, row 1: 'title' is empty"):
        squad2.load(file(tmp_path, entry(), title=""))
    with pytest.raises(DataError, match="paragraphs, row 1: 'context' is empty"):
        squad2.load(file(tmp_path, paragraphs=[{"context": "", "qas": [entry()]}]))
    (tmp_path / "dev-v2.0.json").write_text("[]")
    with pytest.raises(DataError, match="expected an object with 'data'"):
        squad2.load(tmp_path)


def test_normalisation() -> None:
    assert squad.normalize("The  U.S.A., an\tanswer!") == "usa answer"
    assert squad.normalize("a-the") == "athe"  # punctuation goes first, so what it joined is one word
    assert squad.normalize("“Theatre” – a") == "“theatre” –"  # ASCII punctuation only
    assert squad.normalize("The") == squad.normalize(" .") == ""


def test_exact_and_f1_by_hand() -> None:
    assert squad.exact(" the Eiffel tower.", ["Eiffel Tower"]) == 1.0 and squad.exact("Eiffel", ["Eiffel Tower"]) == 0
    assert squad.f1("Eiffel", ["Eiffel Tower", "tower"]) == pytest.approx(2 / 3)
    assert squad.f1("big big tower", ["big tower tower"]) == pytest.approx(2 / 3)  # bags: big and tower, once each
    assert squad.f1("Rome", ["Paris"]) == 0.0
    assert squad.golds(["the", "x"]) == ["x"] and squad.golds(["the"]) == squad.golds([]) == [""]
    assert [squad.exact(text, []) for text in ("", " the.", "unanswerable")] == [1.0, 1.0, 0.0]
    assert [squad.f1(text, []) for text in ("", " the.", "unanswerable")] == [1.0, 1.0, 0.0]
    assert squad.f1("", ["Paris"]) == 0.0


def test_unanswerable_is_a_wrong_text_unless_a_threshold_takes_it_back() -> None:
    sure = math.log(0.99)
    assert scores(docs([], ["x"]), [("unanswerable", sure), ("x", -9.0)]) == {
        "exact": 50, "f1": 50, "HasAns_exact": 100, "HasAns_f1": 100, "NoAns_exact": 0, "NoAns_f1": 0,
        "best_exact": 100, "best_f1": 100,
    }  # fmt: skip
    assert thresholded([0.0, 0.0, 1.0], [1.0, 0.9, 0.9], [False, False, True]) == [0.0, 0.0, 1.0]  # 1.0: never
    assert thresholded([0.0, 0.0, 1.0], [1.0, 0.9, 0.9], [False, False, True], 0.5) == [1.0, 1.0, 0.0]


def test_the_best_threshold_is_that_of_a_search_over_all() -> None:
    rng = random.Random(0)
    for _ in range(50):
        n = rng.randrange(1, 12)
        known = [rng.random() < 0.5 for _ in range(n)]
        answers = [rng.choice(["", "x"]) for _ in range(n)]
        p = rng.sample([k / 100 for k in range(1, 100)], n)
        # as the raw scores are: without an answer, only the empty text is right
        raw = [
            rng.choice([0.0, 0.4, 1.0]) if has else float(not text) for has, text in zip(known, answers, strict=True)
        ]
        every = [sum(thresholded(raw, p, known, t)) for t in [0.0, *p]]
        held, threshold = squad.best(raw, p, known, answers)
        assert sum(held) == pytest.approx(max(every))
        assert sum(thresholded(raw, p, known, threshold)) == pytest.approx(max(every))


def test_best_scores_where_the_official_order_and_texts_decide() -> None:
    # equals are let in one by one in file order, so the first alone may be counted, which no threshold can do
    assert squad.best([1.0, 0.0], [0.5, 0.5], [True, False], ["x", "y"]) == ([1.0, 1.0], 0.5)
    assert squad.best([0.0, 1.0], [0.5, 0.5], [False, True], ["y", "x"]) == ([1.0, 0.0], 0.0)
    # a blank is a text here, though `exact` takes it for none
    assert squad.exact(" ", []) == 1.0 and squad.best([1.0, 1.0], [0.1, 0.2], [False, True], [" ", "x"])[0] == [1, 0]
    assert squad.best([1.0, 1.0], [0.1, 0.2], [False, True], ["", "x"]) == ([1.0, 1.0], 0.2)


def test_probabilities_are_rounded_to_32_bits() -> None:
    # exp(-200) and exp(-300) are both 0 in 32 bits: the order of the file decides
    items, results = docs([], ["x"]), [("y", -200.0), ("x", -300.0)]
    assert squad2.per_item(items, results)["no_answer"] == [0.0, 0.0]
    assert squad2.per_item(items, results)["best_exact"] == [1.0, 0.0]
    assert squad2.per_item(items, [("y", -20.0), ("x", -30.0)])["best_exact"] == [1.0, 1.0]
    with pytest.raises(RunError, match="not a number"):
        squad2.per_item(items, [("y", math.nan), ("x", -1.0)])


def test_rows_are_times_100_and_leave_out_what_there_is_none_of() -> None:
    rows = squad2.rows(docs(["x"], ["y"]), [("x", -1.0), ("z", -1.0)], arm="a", template_hash="h")
    own = {row["metric"]: row for row in rows if row["subset"] == "all"}
    assert set(own) == {"exact", "f1", "HasAns_exact", "HasAns_f1", "best_exact", "best_f1"}
    assert own["exact"]["value"] == 50 and 0 <= own["exact"]["low"] < 50 < own["exact"]["high"] <= 100
    mixed = squad2.rows(docs(["x"], [], []), [("x", -1.0)] * 3, arm="a")
    assert {row["metric"]: row["n"] for row in mixed if row["subset"] == "all"} == {
        "exact": 3, "f1": 3, "HasAns_exact": 1, "HasAns_f1": 1, "NoAns_exact": 2, "NoAns_f1": 2, "best_exact": 3,
        "best_f1": 3,
    }  # fmt: skip


def test_constant_answers_give_the_printed_baselines_and_exchanged_ones_little() -> None:
    items = docs(*([f"answer {n}"] if n % 4 else [] for n in range(200)))
    printed = squad2.baselines(items)
    assert printed == {"always nothing": 25.0, "always unanswerable": 0.0}
    for name, text in (("always nothing", ""), ("always unanswerable", "unanswerable")):
        assert scores(items, [(text, -1.0)] * 200)["exact"] == printed[name]
    knows = [((doc["answers"]["text"] or [""])[0], -1.0) for doc in items]
    assert scores(items, knows)["exact"] == scores(items, knows)["f1"] == 100
    control = scores(items, knows, language.PERMUTED)
    assert control["HasAns_exact"] == 0 and control["exact"] < 15
    mixed = squad2.permuted(items, 1)
    assert mixed != items and sorted(squad2.labels(mixed)) == sorted(squad2.labels(items))
