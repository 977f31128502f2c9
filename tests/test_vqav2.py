"""VQAv2: the official accuracy and the authors' answers, the publishers' files, the authors' choice of questions."""

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sbt.__main__ import main
from sbt.benchmarks.vqav2 import SPEC
from sbt.benchmarks.vqav2 import task as vqa
from sbt.benchmarks.vqav2 import task as vqav2
from sbt.utils.errors import DataError, ParameterError


def refs(*counted: tuple[int, str], **changed: object) -> list[dict]:
    """Annotators' answers, as many of each text as are counted."""
    texts = [text for count, text in counted for _ in range(count)]
    return [{"answer": t, "answer_confidence": "yes", "answer_id": n, **changed} for n, t in enumerate(texts, start=1)]


# references, prediction, official accuracy (GT-Vision-Lab/VQA@a013f00), the authors' (Sight-Beyond-Text@47f96a3)
JUDGED = [
    ([(10, "yes")], "yes", 1, 0),
    ([(10, "yes")], "Yes", 0, 0),
    ([(10, "2")], "two", 0, 0),
    ([(10, "a dog")], "dog", 0, 0),
    ([(10, "a dog")], "a dog", 1, 1),
    ([(9, "yes"), (1, "no")], "yes, there is", 0, 1),
    ([(9, "yes"), (1, "no")], "not", 0, 0.3),
    ([(4, "0"), (3, "none"), (2, "zero"), (1, "no")], "none", 1, 0.3),
    ([(6, "skateboarding"), (4, "skating")], "skateboarding###Human:", 0, 1),
    # where all agree: letter for letter, blanks around it aside
    ([(10, "red")], " red\n", 1, 1),
    ([(10, "red")], "Red", 0, 0),
    ([(10, "red")], "red.", 0, 0),
    ([(10, "hot\tdog")], "hot dog", 1, 1),
    ([(10, "snow")], "snow", 1, 0),
    ([(10, "Yes")], "yes", 0, 1),
    ([(5, "red"), (5, " red ")], "Red", 0, 0),  # the same once blanks are off: nothing is normalised
    # where they differ, everything is normalised
    ([(9, "red"), (1, "blue")], "Red.", 1, 1),
    ([(9, "snow"), (1, "ice")], "snow", 1, 0),
    ([(9, "a dog"), (1, "cat")], "The dog!", 1, 1),
    ([(9, "don't know"), (1, "x")], "dont know", 1, 0),  # "know" has a no
    ([(9, "red"), (1, "blue")], "", 0, 0),
    # one annotator is left out in turn, so one who agrees is worth 0.3
    ([(1, "red"), (9, "blue")], "red", 0.3, 0.3),
    ([(2, "red"), (8, "blue")], "red", 0.6, 0.6),
    ([(3, "red"), (7, "blue")], "red", 0.9, 0.9),
    ([(4, "red"), (6, "blue")], "red", 1, 1),
    # any number of annotators
    ([(1, "red")], "red", 0, 0),
    ([(2, "red")], "red", 1 / 3, 1 / 3),
    ([(3, "red"), (2, "blue")], "red", (3 * 2 / 3 + 2) / 5, (3 * 2 / 3 + 2) / 5),
]


@pytest.mark.parametrize(("counted", "said", "official", "authors"), JUDGED)
def test_accuracy_of_both_protocols(counted: list, said: str, official: float, authors: float) -> None:
    assert vqa.accuracy(said, refs(*counted)) == pytest.approx(official, abs=1e-12)
    assert vqa.accuracy(vqa.postprocessed(said), refs(*counted)) == pytest.approx(authors, abs=1e-12)


def test_annotators_are_told_apart_by_their_whole_rows() -> None:
    assert vqa.accuracy("red", refs((10, "red"))) == 1
    assert vqa.accuracy("red", refs((10, "red"), answer_id=1)) == 0  # ten equal rows: no other than oneself
    unnamed = [{"answer": "red"}] * 4 + [{"answer": "blue"}] * 6
    assert vqa.accuracy("red", unnamed) == pytest.approx(0.6)  # the four see none, the six see four
    sure = refs((4, "red"), answer_id=1)
    sure[3]["answer_confidence"] = "maybe"
    assert vqa.accuracy("red", sure) == pytest.approx((3 * (1 / 3) + 1) / 4)
    with pytest.raises(ValueError, match="not with none"):
        vqa.accuracy("red", [])


def test_accuracy_changes_nothing_it_is_given() -> None:
    rows = refs((9, "The dog."), (1, "cat"))
    before = json.dumps(rows)
    assert vqa.accuracy("dog", rows) == 1 == vqa.accuracy("dog", rows) and json.dumps(rows) == before


NORMALISED = {
    "3.": "3",
    ".5": ".5",
    "2.50": "2.50",
    "3.a": "3a",  # "look behind for a digit" would have kept it
    "a.m.": "am",
    "e.g. a cat": "eg cat",
    "men's": "men's",
    "1,000": "1000",
    "1,,000": "1 000",
    "red,blue": "red blue",
    "red, blue": "red blue",
    "red , blue,green": "red bluegreen",  # a blank beside one comma: all go without leaving a blank
    "x-ray": "x ray",
    "x-ray - yes": "xray yes",
    "1,000 x-ray": "1000 xray",  # a comma between digits: every mark goes so
    "left/right": "left right",
    "what?!": "what",
    "'quoted'": "'quoted'",
    "10:30": "10:30",
    "$5 & 5%": "$5 & 5%",
    "café": "café",
    "None": "0",
    "Zero": "0",
    "ten": "10",
    "eleven": "eleven",
    "twenty-one": "twenty 1",
    "no one": "no 1",
    "The": "",
    "An apple a day": "apple day",
    "a": "",
    "dont": "don't",
    "DONT": "don't",
    "wont": "won't",
    "Im": "im",  # its entry has a capital, which no lower-cased word has
    "let's": "let's",
    "somebody'd": "somebodyd",  # the official entry takes the apostrophe away
    "yall'd've": "y'all'd've",
    "'ow'sat": "'ow's'at",
    "  two \t dogs ": "2 dogs",
    "": "",
}


@pytest.mark.parametrize("text", NORMALISED)
def test_normalised_as_the_official_expressions_behave(text: str) -> None:
    assert vqa.normalised(text) == NORMALISED[text]


def test_only_32_periods_go() -> None:
    assert vqa.normalised("x" + "." * 32) == "x"
    assert vqa.normalised("x" + "." * 35) == "x..."
    assert vqa.normalised("x" + "." * 40 + "5") == "x" + "." * 8 + "5"


def test_the_tables_are_whole() -> None:
    assert "".join(sorted(vqa.PUNCTUATION)) == '!"()+,-/;<=>?@[\\]_`{}'
    assert list(vqa.NUMBERS.values()) == ["0", *map(str, range(11))] and len(vqa.CONTRACTIONS) == 120
    flat = " ".join(f"{found} {written}" for found, written in vqa.CONTRACTIONS.items())
    assert hashlib.sha256(flat.encode()).hexdigest().startswith("993ad8bad1774ef6")  # the official table, in its order


POSTPROCESSED = {
    "yes": "Yes",
    " yes": "Yes",
    "Yes, no": "Yes",
    "no, yes": "Yes",
    "eyes": "Yes",
    "YES": "YES",
    "NO": "NO",
    "no": "No",
    "snow": "No",
    "piano": "No",
    "north": "No",
    "canoe": "No",
    "I do not know": "No",
    "none": "No",
    "nothing": "No",
    "North": "No",
    "red": "red",
    " red ": " red ",
    "red###Human: yes": "red",
    "red</s>no": "red",
    "red Question: no": "red ",
    "Answer: red": "",
    "red. Questions": "red. ",
    "question: yes": "Yes",
    "two\nAnswerNo": "two\n",
    "": "",
}


@pytest.mark.parametrize("answer", POSTPROCESSED)
def test_the_authors_postprocessing(answer: str) -> None:
    assert vqa.postprocessed(answer) == POSTPROCESSED[answer]
    assert vqa.postprocessed(POSTPROCESSED[answer]) == POSTPROCESSED[answer]  # theirs may be given in again


# --- files


def annotation(key: object, answers: list[dict], **changed: object) -> dict:
    row = {"question_id": key, "image_id": 42, "question_type": "is there", "answer_type": "yes/no"}
    return row | {"multiple_choice_answer": answers[0]["answer"], "answers": answers} | changed


def question(key: object, **changed: object) -> dict:
    return {"question_id": key, "image_id": 42, "question": f"Is there a {key}?"} | changed


ANNOTATIONS = [
    annotation(1, refs((10, "yes"))),
    annotation(2, refs((9, "yes"), (1, "no"))),
    annotation(3, refs((3, "red"), (7, "blue")), question_type="what color", answer_type="other", image_id=7),
]
RESULTS = [
    {"question_id": 3, "answer": "Red"},
    {"question_id": 1, "answer": "yes"},
    {"question_id": 2, "answer": "No"},
]


def whole(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.fixture
def scored(tmp_path: Path) -> Callable[..., dict]:
    def score(results: object = RESULTS, rows: object = ANNOTATIONS, protocol: str = "standard") -> dict:
        content = {"annotations": rows} if isinstance(rows, list) else rows
        answers = whole(tmp_path / "r.json", results)
        return vqav2.score_files(answers, whole(tmp_path / "a.json", content), protocol)

    return score


def test_scores_by_hand(scored: Callable) -> None:
    found = scored()
    assert found == {
        "overall": 73.33,
        "per_answer_type": {"yes/no": 65.0, "other": 90.0},
        "per_question_type": {"is there": 65.0, "what color": 90.0},
        "per_question": {1: 1.0, 2: 0.3, 3: 0.9},
        "n": 3,
    }
    assert scored(RESULTS[::-1]) == found  # the order of the results does not matter
    assert scored(protocol="paper") == {
        "overall": 40.0,
        "per_answer_type": {"other": 90.0, "yes/no": 15.0},
        "per_question_type": {"what color": 90.0, "is there": 15.0},
        "per_question": {3: 0.9, 1: 0.0, 2: 0.3},
        "n": 3,
    }


def test_the_authors_half_for_two_right_answers(scored: Callable) -> None:
    said = [{"question_id": key, "answer": " yes"} for key in (1, 2)]
    assert scored(said, ANNOTATIONS[:2])["overall"] == 100.0
    assert scored(said, ANNOTATIONS[:2], "paper")["overall"] == 50.0


def test_percent_is_rounded_to_two_digits() -> None:
    assert [vqa.percent(values) for values in ([1, 0, 0], [1, 1, 0], [0.3] * 7, [0.0])] == [33.33, 66.67, 30.0, 0.0]


def test_the_paper_scores_the_questions_that_are_answered(scored: Callable, capsys: pytest.CaptureFixture) -> None:
    found = scored(RESULTS[:1], protocol="paper")
    assert (found["overall"], found["n"], found["per_question"]) == (90.0, 1, {3: 0.9})
    assert capsys.readouterr().err.endswith("r.json: 1 of 3 questions have an answer\n")
    with pytest.raises(DataError, match=r"r\.json: 2 of 3 questions have no answer, the first of them question_id 1"):
        scored(RESULTS[:1])


def test_annotators_without_an_id_of_their_own_are_spoken_of(scored: Callable, capsys: pytest.CaptureFixture) -> None:
    """The official code takes equal rows for one annotator, who then agrees with nobody else."""
    for answers in ([{"answer": "yes"}] * 10, refs((10, "yes"), answer_id=1)):
        assert scored(RESULTS[1:2], [annotation(1, answers)])["overall"] == 0.0
        told = capsys.readouterr().err
        assert "a.json: 1 questions with annotators who share an answer_id or have none" in told
        assert "the first question_id 1. Equal rows of theirs count as one" in told
    assert scored(RESULTS[1:2], [annotation(1, refs((10, "yes")))])["overall"] == 100.0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([*RESULTS, RESULTS[0]], r"r\.json, row 4: question_id 3 stands in the file twice"),
        ([*RESULTS, {"question_id": 9, "answer": "x"}], r"r\.json, row 4: question_id 9 is not in the reference file"),
        ([*RESULTS[1:], {"question_id": "4", "answer": "x"}], r"row 3: question_id '4' is not in .* whose first is 1"),
        (
            [*RESULTS[::2], {"question_id": True, "answer": "yes"}],
            r"r\.json, row 3: question_id must be a text or a number, found True",
        ),
        ([*RESULTS, {"answer": "x"}], r"r\.json, row 4: question_id must be a text or a number, found None"),
        ([*RESULTS, {"question_id": [3], "answer": "x"}], r"r\.json, row 4: question_id must be a text or a number"),
        ([*RESULTS, {"question_id": 4}], r"r\.json, row 4: no text in 'answer'"),
        ([*RESULTS, {"question_id": 4, "answer": 2}], r"r\.json, row 4: no text in 'answer'"),
        ([*RESULTS, ["x"]], r"r\.json, row 4: expected a JSON object"),
        ([], r"r\.json: 3 of 3 questions have no answer"),
        ({"1": "yes"}, r"r\.json:1: no text in 'answer'"),
        ('[{"question_id": 1,\n', r"r\.json:2:1: malformed JSON"),
    ],
)
@pytest.mark.parametrize("protocol", ("standard", "paper"))
def test_faulty_results(results: object, message: str, protocol: str, scored: Callable) -> None:
    with pytest.raises(DataError, match=message):
        scored(results, protocol=protocol)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ANNOTATIONS[0], ANNOTATIONS[0]], "row 2: question_id 1 stands in the file twice"),
        ([annotation(1, refs((1, "x"))) | {"answers": []}], "row 1: answers must be a list of one answer or more"),
        ([annotation(1, refs((1, "x"))) | {"answers": "yes"}], "row 1: answers must be a list"),
        ([annotation(1, [*refs((2, "x")), {"answer": 3}])], "row 1, answer 3: expected {answer, answer_confidence"),
        ([annotation(1, [*refs((2, "x")), "yes"])], "row 1, answer 3: expected"),
        ([annotation(1, refs((1, "x")), answer_type=None)], "row 1: no text in answer_type"),
        ([{"question_id": 1, "answers": refs((1, "x"))}], "row 1: no text in question_type, answer_type"),
        ([annotation(None, refs((1, "x")))], "row 1: question_id must be a text or a number, found None"),
        ([ANNOTATIONS[0], 7], "row 2: expected an object, found '7'"),
        ([], "expected VQA annotations"),
        ({"questions": []}, "expected VQA annotations"),
        ("[]", "expected VQA annotations"),
        ("{", "malformed JSON"),
    ],
)
def test_faulty_annotations(rows: object, message: str, scored: Callable) -> None:
    with pytest.raises(DataError, match=rf"a\.json.*{message}"):
        scored(RESULTS[1:2], rows)


def test_the_command_scores_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole(tmp_path / "a.json", {"annotations": ANNOTATIONS})
    whole(tmp_path / "r.json", RESULTS)
    words = ["score", "vqav2", "--answers", str(tmp_path / "r.json"), "--references", str(tmp_path / "a.json")]
    assert main(words) == 0 and json.loads(capsys.readouterr().out)["per_question"] == {"1": 1.0, "2": 0.3, "3": 0.9}
    assert main([*words, "--protocol", "paper"]) == 0 and json.loads(capsys.readouterr().out)["overall"] == 40.0
    assert main([*words, "--protocol", "papers"]) == 2
    assert "protocol 'papers' is unknown here; did you mean 'paper'" in capsys.readouterr().err


# --- items


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., list[dict]]:
    def load(questions: object, rows: list = ANNOTATIONS, **given: str) -> list[dict]:
        content = {"questions": questions} if isinstance(questions, list) else questions
        asked, answered = whole(tmp_path / "q.json", content), whole(tmp_path / "a.json", {"annotations": rows})
        return vqav2.load(asked, answered, **given)

    return load


QUESTIONS = [question(3, image_id=7), question(1), question(2)]


def test_questions_meet_their_annotations_by_id_in_the_order_of_the_questions(loaded: Callable) -> None:
    items = loaded(QUESTIONS)
    assert [item["question_id"] for item in items] == [3, 1, 2]
    assert [item["image"] for item in items] == ["COCO_val2014_000000000007.jpg"] + [
        "COCO_val2014_000000000042.jpg"
    ] * 2
    assert (items[0]["question"], items[0]["multiple_choice_answer"]) == ("Is there a 3?", "red")
    assert items[1]["answers"] == refs((10, "yes"))
    assert loaded(QUESTIONS, image="%06d.png")[0]["image"] == "000007.png"


@pytest.mark.parametrize(
    ("questions", "rows", "message"),
    [
        (QUESTIONS[1:], ANNOTATIONS, r"a\.json, row 3: question_id 3 is not in .*q\.json. Give the two files of one"),
        (QUESTIONS, ANNOTATIONS[:2], r"q\.json, row 1: question_id 3 is not in .*a\.json"),
        ([question(1), question(1)], ANNOTATIONS, r"q\.json, row 2: question_id 1 stands in the file twice"),
        ([question(1, question=None)], ANNOTATIONS[:1], r"q\.json, row 1: no text in question"),
        ([question(1, image_id="42")], ANNOTATIONS[:1], r"row 1: image_id must be a whole number, found '42'"),
        ([question(1, image_id=43)], ANNOTATIONS[:1], r"q\.json, row 1: image_id is 43, in .*a\.json 42"),
        (
            [question(1)],
            [annotation(1, refs((1, "x")), multiple_choice_answer=2)],
            "no text in multiple_choice_answer",
        ),
        ({"questions": {}}, ANNOTATIONS, r"q\.json: expected VQA questions"),
        (QUESTIONS, [], r"a\.json: expected VQA annotations"),
    ],
)
def test_faulty_questions(questions: object, rows: list, message: str, loaded: Callable) -> None:
    with pytest.raises(DataError, match=message):
        loaded(questions, rows)


def many(count: int) -> list[dict]:
    return [{"question_id": n, "question": f" What {n}? ", "answers": [{"answer": f" {n} "}]} for n in range(count)]


def test_the_authors_choice_of_questions_and_demonstrations() -> None:
    items = many(400)
    found = vqav2.select(items, "paper", questions=50, pool=30)
    before = np.random.get_state()
    np.random.seed(42)  # as they do, with the one generator of the process
    drawn = np.random.choice(400, 80, replace=False)
    np.random.set_state(before)
    assert [item["question_id"] for item in found] == drawn[30:].tolist()
    draw = random.Random(42)
    for item in found:
        places = draw.sample(drawn[:30].tolist(), 3)
        assert item["demonstrations"] == [(f"What {place}?", str(place)) for place in places]
    assert vqav2.select(items, "paper", questions=50, pool=30) == found
    assert vqav2.select(items) == items and "demonstrations" not in items[0]
    assert not any(item["demonstrations"] for item in vqav2.select(items, "paper", questions=5, pool=5, shots=0))


def test_a_bad_picture_takes_its_questions_out_of_the_draw_and_changes_nothing_else() -> None:
    items = [{**item, "image": f"{item['question_id'] // 2}.jpg"} for item in many(400)]
    drawn = vqav2.select(items, "paper", questions=50, pool=30)
    good = {item["image"] for item in items} - {drawn[7]["image"]}
    kept = vqav2.select(items, "paper", questions=50, pool=30, usable=good)
    assert kept == [item for item in drawn if item["image"] in good] and 48 <= len(kept) < 50
    before = vqav2.select([item for item in items if item["image"] in good], "paper", questions=50, pool=30)
    assert [item["question_id"] for item in before[:7]] != [item["question_id"] for item in drawn[:7]], "another draw"
    assert vqav2.select(items, usable=good) == [item for item in items if item["image"] in good]


def test_the_differences_name_the_pairing_by_position() -> None:
    assert all(told and source for told, source in SPEC.protocols["paper"])
    assert "eval_datasets.py:91-94" in {source for _, source in SPEC.protocols["paper"]}


def test_the_real_size_of_the_authors_choice() -> None:
    found = vqav2.select([{"n": n, "question": "", "answers": [{"answer": ""}]} for n in range(214_354)], "paper")
    assert len({item["n"] for item in found}) == len(found) == 5000


def test_too_few_items_for_the_authors_choice() -> None:
    with pytest.raises(ParameterError, match="400 questions are too few for 5000 questions, and 2048 for 3 demonstr"):
        vqav2.select(many(400), "paper")
    for given in ({"questions": 300, "pool": 101}, {"questions": 0, "pool": 9}, {"questions": 9, "pool": 2}):
        with pytest.raises(ParameterError, match="set `questions` and `pool`"):
            vqav2.select(many(400), "paper", **given)
    with pytest.raises(ParameterError, match="protocol 'official' is unknown"):
        vqav2.select(many(4), "official")


def test_prompts() -> None:
    item = {"question": " Is there a dog? "}
    assert vqav2.prompt(item, "paper") == "Is there a dog?"
    assert vqav2.prompt(item) == "Is there a dog?\nAnswer the question using a single word or phrase."


# --- rows and samples


@pytest.mark.parametrize("protocol", ("standard", "paper"))
def test_rows_have_the_scores_with_intervals(protocol: str, loaded: Callable) -> None:
    rng, numbers = random.Random(0), range(60)
    color = {"question_type": "what color", "answer_type": "other"}
    rows = [annotation(n, refs((6, "no"), (4, "yes")), image_id=n // 3, **(color if n % 2 else {})) for n in numbers]
    items = loaded([question(n, image_id=n // 3) for n in numbers], rows)
    said = [rng.choice(["yes", "No.", "x"]) for _ in numbers]
    whole, found = vqav2.score(items, said, protocol), vqav2.rows(items, said, arm="a", subset="s", protocol=protocol)
    told = {(row["metric"], row["subset"]): row for row in found}
    assert {subset for _, subset in told} == {
        "s", "s, answer yes/no", "s, answer other", "s, question is there", "s, question what color",
    }  # fmt: skip
    assert told["accuracy", "s"]["value"] == pytest.approx(whole["overall"] / 100, abs=1e-4)
    for kind, value in whole["per_answer_type"].items():
        assert told["accuracy", f"s, answer {kind}"]["value"] == pytest.approx(value / 100, abs=1e-4)
    assert told["yes_ratio", "s"]["value"] == pytest.approx(whole["yes_ratio"])
    assert all(row["low"] < row["value"] < row["high"] and row["protocol"] == protocol for row in found)
    assert told["accuracy", "s"]["n"] == 60 and told["yes_ratio", "s"]["n"] == 30


def test_yes_ratio_and_what_is_no_answer() -> None:
    items = [{"answers": refs((10, "yes")), "answer_type": "yes/no", "question_type": "is"}] * 5
    items.append({"answers": refs((10, "red")), "answer_type": "other", "question_type": "what"})
    said = ["Yes.", "no", "nope", " ", "yes, it is", "yes"]
    found = vqav2.score(items, said)
    assert (found["yes_ratio"], found["unparsed"], found["empty"], found["n"]) == (0.2, 3, 1, 6)
    found = vqav2.score(items, said, "paper")  # "yes, it is" is Yes there, "nope" is No
    assert (found["yes_ratio"], found["unparsed"], found["empty"]) == (0.4, 1, 1)
    assert vqav2.score(items[5:], said[5:])["yes_ratio"] is None
    with pytest.raises(ValueError, match="no answer to score"):
        vqav2.score([], [])
    with pytest.raises(ValueError, match="zip"):
        vqav2.score(items, said[:5])


def test_samples_show_what_is_scored(loaded: Callable) -> None:
    items, said = loaded(QUESTIONS), ["Red###", "yes", "No"]
    found = vqav2.samples(items, said, arm="a", subset="s", protocol="paper")
    assert [(row["answer"], row["scored"], row["correct"]) for row in found] == [
        ("Red###", "Red", True), ("yes", "Yes", False), ("No", "No", False),
    ]  # fmt: skip
    assert (found[0]["prompt"], found[0]["label"], found[0]["accuracy"]) == (
        "Is there a 3?",
        "red",
        pytest.approx(0.9),
    )
    assert found[0]["references"] == ["red"] * 3 + ["blue"] * 7
    assert [row["correct"] for row in vqav2.samples(items, said, arm="a", subset="s")] == [False, True, False]


def test_the_hubs_annotations_lie_beside_its_questions(tmp_path: Path) -> None:
    for name in vqav2.OFFICIAL[0]:
        (tmp_path / name).write_text("{}")
    assert vqav2.files(tmp_path, "hub") == tuple(tmp_path / name for name in vqav2.OFFICIAL[0])
