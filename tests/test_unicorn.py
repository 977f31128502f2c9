"""Unicorn: the publishers' rules with their defects and without, the files of the four tasks."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from sbt.benchmarks.unicorn import SPEC
from sbt.benchmarks.unicorn import task as unicorn
from sbt.utils.errors import DataError, ParameterError

PROTOCOLS = ("standard", "paper")


def right(answer: str, label: str, counterfactual: bool = False) -> tuple[bool, bool]:
    """Whether an answer to OODCV-VQA is right in both protocols."""
    item = {"task": unicorn.OODCV[counterfactual], "label": label}
    return tuple(unicorn.judged(item, answer, protocol)["correct"] for protocol in PROTOCOLS)


# answer, label: right in "standard", right in "paper" (oodcv_vqa_metric.py@ef1aba1, which was run on these
# inputs but for the label 10: it has no place for numbers above 5 and raises KeyError)
OODCV = {
    ("10", "1"): (False, True),
    ("There are 10 cars.", "10"): (True, True),
    ("There are 12 cars", "2"): (False, True),
    ("I do not know", "No"): (False, True),
    ("not", "No"): (False, True),
    ("I know it is", "No"): (False, True),
    ("know", "0"): (False, True),
    ("No, there is none", "No"): (True, True),
    ("nope", "No"): (True, True),
    ("NO", "No"): (True, False),
    ("YES!", "Yes"): (True, False),
    ("yeah", "Yes"): (True, True),
    ("eyes", "Yes"): (False, True),
    ("Two", "2"): (True, False),
    ("two.", "2"): (True, True),
    ("0", "0"): (True, False),
    ("zero", "0"): (True, True),
    ("There are no cars", "0"): (True, True),
    ("none", "1"): (False, True),
    ("a stone", "1"): (False, True),
    ("a single car", "1"): (True, True),
    ("Yes. There is no car", "No"): (False, True),
    ("Sure. There are 3", "3"): (False, True),
    ("about 2.5", "2"): (False, True),
    ("1,000", "1"): (False, True),
    ("2,three", "3"): (True, True),
    ("1 or 2", "1"): (True, True),
    ("1 or 2", "2"): (True, True),
    ("yes or no", "No"): (True, True),
    ("", "0"): (False, False),
    ("many", "4"): (False, False),
    ("four", "4"): (True, True),
}


@pytest.mark.parametrize(("answer", "label"), OODCV)
def test_oodcv_answers(answer: str, label: str) -> None:
    assert right(answer, label) == OODCV[answer, label]


# the same for the counterfactual questions
COUNTERFACTUAL = {
    ("I'm sorry, but no", "No"): (False, False),
    ("Sorry. Yes", "Yes"): (False, False),
    ("As an AI I see 2", "2"): (False, False),
    ("Yes, there would be no cars", "No"): (False, False),
    ("Yes, there would be no cars", "Yes"): (True, True),
    ("Not at all", "No"): (False, True),
    ("None", "No"): (False, True),
    ("It is so. If added, yes", "Yes"): (False, True),
    ("Look. There would be none, no", "No"): (True, True),
    ("There would be 3 cars if 2 were added", "3"): (True, True),
    ("There would be 3 cars if 2 were added", "2"): (False, False),
    ("There would be different cars, 4", "4"): (False, False),
    ("There would be some different 4 cars", "4"): (True, False),
    ("If 2 were added there would be 5", "5"): (True, True),
    ("If 2 were added there would be 5", "2"): (False, False),
    ("If 2 were added, there would be 5 cars", "2"): (False, False),
    ("there would be 5 if 2 were added", "2"): (False, True),
    ("There are 2. There would be 5", "2"): (False, True),
    ("There are 2. there would still be 5", "5"): (True, True),
    ("After 2 left, three there would still be 1", "1"): (True, True),
    ("five", "5"): (True, True),
    ("", "1"): (False, False),
}


@pytest.mark.parametrize(("answer", "label"), COUNTERFACTUAL)
def test_counterfactual_answers(answer: str, label: str) -> None:
    assert right(answer, label, counterfactual=True) == COUNTERFACTUAL[answer, label]


# answer: what it is taken for in "standard", and in "paper" (sketchy_metric.py@ef1aba1)
SKETCHY = {
    "No": ("no", "no"),
    "no, it is not": ("no", "no"),
    "This is not a dog": ("no", "no"),
    "Yes": ("yes", "yes"),
    "yes, it is": ("yes", "yes"),
    "yeah": ("yes", "yes"),
    "Yes, no": ("no", "no"),
    "No.": ("no", "nan"),
    "Yes.": ("yes", "nan"),
    "Yes!\n": ("yes", "nan"),
    "NO": ("no", "nan"),
    "Yeah": ("yes", "nan"),
    "Not": ("no", "nan"),
    "Yes. It is not a cat": ("no", "no"),
    "know": ("nan", "nan"),
    "nothing": ("nan", "nan"),
    "maybe": ("nan", "nan"),
    "": ("nan", "nan"),
}


@pytest.mark.parametrize("answer", SKETCHY)
def test_sketchy_answers(answer: str) -> None:
    assert tuple(unicorn.parse(answer, protocol) for protocol in PROTOCOLS) == SKETCHY[answer]


def sketch(image: str, label: str) -> dict:
    return {"task": "sketchy-vqa", "image": image, "question": "Is this a dog in the image?", "label": label}


def oodcv(image: str, label: str, situation: str = "iid", task: str = "oodcv-vqa", question: str = "?") -> dict:
    return {"task": task, "image": image, "question": question, "label": label, "situation": situation}


def test_sketchy_scores_by_hand() -> None:
    items = [sketch(f"{n}.png", label) for n, label in enumerate(["Yes", "Yes", "Yes", "No", "No"])]
    said = ["Yes", "no", "maybe", "yes, no", "yeah"]
    assert unicorn.score(items, said) == {
        "accuracy": 2 / 5, "precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5, "yes_ratio": 2 / 5,
        "n": 5, "unparsed": 1, "empty": 0,
    }  # fmt: skip
    # four counts only: TP 1, FP 1, TN 1, FN 1; the answer that is neither stands in none of them
    assert unicorn.score(items, said, "paper") == {
        "accuracy": 2 / 4, "precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "yes_ratio": 2 / 5,
        "n": 5, "unparsed": 1, "empty": 0,
    }  # fmt: skip
    silent = unicorn.score(items, [""] * 5, "paper")  # a division by zero in the publishers' code
    assert silent["accuracy"] == silent["f1"] == 0.0 and silent["unparsed"] == silent["empty"] == 5


def test_labels_of_sketchy_in_lower_case() -> None:
    items = [sketch("a.png", "no")]
    assert unicorn.score(items, ["no"])["accuracy"] == 1.0
    assert unicorn.score(items, ["no"], "paper")["accuracy"] == 0.0  # all but "No" counts as yes
    assert unicorn.score(items, ["yes"], "paper")["recall"] == 1.0


def test_the_pictures_of_sketchy_overwrite_nothing() -> None:
    items = [sketch("a.png", "Yes"), sketch("a.png", "No")]
    assert [unicorn.score(items, ["yes", "no"], protocol)["n"] for protocol in PROTOCOLS] == [2, 2]


def test_oodcv_scores_by_hand() -> None:
    items = [
        oodcv("a.jpg", "Yes"), oodcv("a.jpg", "2", "pose"), oodcv("b.jpg", "No", "pose"), oodcv("c.jpg", "1", "pose"),
        oodcv("c.jpg", "0", "pose"),
    ]  # fmt: skip
    said = ["Yes", "1 or 3", "yes, no", "one", "  "]
    assert unicorn.score(items, said) == {
        "accuracy": 3 / 5, "yes_no_accuracy": 1.0, "digits_accuracy": 1 / 3, "yes_ratio": 1.0,
        "n": 5, "unparsed": 1, "empty": 1, "ambiguous": 2, "overwritten": 0,
        "per_answer": {"0": 0.0, "1": 1.0, "2": 0.0, "Yes": 1.0, "No": 1.0},
        "per_situation": {"iid": 1.0, "pose": 0.5},
    }  # fmt: skip
    paper = unicorn.score(items, said, "paper")  # the second answer about a.jpg and c.jpg replaces the first
    assert (paper["n"], paper["overwritten"], paper["accuracy"]) == (3, 2, 1 / 3)
    assert (paper["yes_no_accuracy"], paper["digits_accuracy"]) == (1.0, 0.0)
    assert paper["per_answer"] == {"0": 0.0, "2": 0.0, "No": 1.0} and paper["per_situation"] == {"pose": 1 / 3}


def test_a_kind_of_question_that_is_not_there_has_no_accuracy() -> None:
    found = unicorn.score([oodcv("a.jpg", "2")], ["2"])
    assert found["yes_no_accuracy"] is None and found["yes_ratio"] is None and found["digits_accuracy"] == 1.0
    rows = unicorn.rows([oodcv("a.jpg", "2")], ["2"], arm="a", subset="oodcv-vqa")
    assert {"yes_no_accuracy", "yes_ratio"}.isdisjoint(row["metric"] for row in rows)


def test_one_task_at_a_time() -> None:
    with pytest.raises(DataError, match="items of one task are scored together, found oodcv-vqa, sketchy-vqa"):
        unicorn.score([oodcv("a", "1"), sketch("b", "No")], ["1", "no"])
    with pytest.raises(DataError, match="found none"):
        unicorn.score([], [])
    with pytest.raises(ParameterError, match="protocol 'offical' is unknown"):
        unicorn.rows([oodcv("a", "1")], ["1"], arm="a", subset="s", protocol="offical")


def made(task: str) -> tuple[list[dict], list[str]]:
    rng, items = random.Random(0), []
    for n in range(90):
        label = rng.choice(("Yes", "No") if task in unicorn.SKETCHY or n % 2 else ("0", "1", "2", "3"))
        items.append(oodcv(f"{n // 3}.png", label, rng.choice(unicorn.SITUATIONS), task, f"{n}?"))
    wild = ["yes", "No.", "one of 10", "maybe", "", "Two", "not 3"]
    return items, [rng.choice([item["label"], rng.choice(wild)]) for item in items]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("task", unicorn.TASKS)
def test_rows_agree_with_the_score(task: str, protocol: str) -> None:
    items, answers = made(task)
    whole = unicorn.score(items, answers, protocol)
    rows = unicorn.rows(items, answers, arm="a", subset=task, protocol=protocol, template_hash="h")
    for row in rows:
        name = row["metric"]
        value = whole[name] if name in whole else whole[name.removesuffix("_ratio")] / whole["n"]
        assert row["value"] == pytest.approx(value) and row["low"] <= value <= row["high"], name
        assert row["low"] < row["high"] and row["subset"] == task and row["template_hash"] == "h"
    numbers = {row["metric"]: row["n"] for row in rows}
    assert numbers["accuracy"] == whole["n"] == (30 if protocol == "paper" and task in unicorn.OODCV else 90)
    if task in unicorn.OODCV:
        assert numbers["yes_no_accuracy"] + numbers["digits_accuracy"] == whole["n"]
    shuffled = unicorn.rows(items, answers, arm="a", protocol=protocol, subset=f"{task}, shuffled")
    assert {row["subset"] for row in shuffled} == {f"{task}, shuffled"}


def test_samples_say_what_an_answer_is_taken_for() -> None:
    items = [oodcv("a.jpg", "1"), oodcv("a.jpg", "No")]
    found = unicorn.samples(items, ["10", "YES"], arm="a", subset="oodcv-vqa, blank")
    assert [(row["said"], row["correct"]) for row in found] == [(["10"], False), (["Yes"], False)]
    assert found[0]["subset"] == "oodcv-vqa, blank" and found[0]["prompt"] == unicorn.prompt(items[0])
    (paper,) = unicorn.samples(items, ["10", "YES"], arm="a", subset="s", protocol="paper")
    assert (paper["said"], paper["unparsed"], paper["label"]) == ([], True, "No")


# --- files


QUESTIONS = {
    "oodcv": [
        {"image": "iid/a.jpg", "question": "Is there a car?", "answer": "A", "text_answer": "Yes", "situation": "iid",
         "options": ["A. Yes", "B. No"]},
        {"image": "pose/b.jpg", "question": "How many cars?", "answer": "B", "text_answer": "2", "situation": "pose",
         "options": ["A. 1", "B. 2"]},
    ],
    "sketchy": [
        {"image": "png/dog/1.png", "question": "Is this a dog?", "answer": "Yes"},
        {"image": "png/cat/2.png", "question": "Is this a dog?", "answer": "No"},
    ],
}  # fmt: skip
SAVED = {  # as the publishers' evaluation.py saves them
    "oodcv": {
        "/data/ood/iid/a.jpg": {"prediction": "Yes, a car.", "answer": "Yes", "situation": "iid"},
        "/data/ood/pose/b.jpg": {"prediction": "Two", "answer": "2", "situation": "pose"},
    },
    "sketchy": [
        {"answer": "Yes.", "label": "Yes", "image_path": "/data/ood/png/dog/1.png"},
        {"answer": "no, a cat", "label": "No", "image_path": "/data/ood/png/cat/2.png"},
    ],
}


@pytest.fixture
def scored(tmp_path: Path) -> Callable[..., dict]:
    def score(task: str, answers: object, questions: object = None, protocol: str = "standard") -> dict:
        (tmp_path / "q.json").write_text(json.dumps(QUESTIONS[task.split("-")[0]] if questions is None else questions))
        lines = answers if isinstance(answers, str) else json.dumps(answers)
        (tmp_path / "a.json").write_text(lines)
        return unicorn.score_files(tmp_path / "a.json", tmp_path / "q.json", protocol, task)

    return score


@pytest.mark.parametrize("task", unicorn.TASKS)
def test_the_publishers_forms(task: str, scored: Callable) -> None:
    kind = task.split("-")[0]
    found = scored(task, SAVED[kind])
    paper = scored(task, SAVED[kind], protocol="paper")
    assert (found["accuracy"], found["n"]) == (1.0, 2)
    assert paper["accuracy"] == (0.5 if kind == "oodcv" else 1.0)  # "Two" is missed; "Yes." is left out
    assert paper["unparsed"] == 1 and json.loads(json.dumps([found, paper])) == [found, paper]


def test_one_answer_a_question(scored: Callable, tmp_path: Path) -> None:
    rows = [{"image": q["image"], "question": q["question"], "answer": a}
            for q, a in zip(QUESTIONS["oodcv"], ("yes", "10 or 12"), strict=True)]  # fmt: skip
    assert scored("oodcv-vqa", rows)["accuracy"] == 0.5
    assert scored("oodcv-vqa", rows, protocol="paper")["accuracy"] == 1.0  # "12" holds a 2
    assert scored("oodcv-vqa", [{"answer": row["answer"]} for row in rows]) == scored("oodcv-vqa", rows)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert unicorn.score_files(tmp_path / "a.jsonl", tmp_path / "q.json", task="oodcv-vqa")["accuracy"] == 0.5
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[0]) + '\n{"answer": 2}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: no text in 'answer'"):
        unicorn.score_files(tmp_path / "a.jsonl", tmp_path / "q.json", task="oodcv-vqa")


def test_a_file_by_picture_holds_the_last_answer_only(scored: Callable) -> None:
    first = {**QUESTIONS["oodcv"][0], "text_answer": "No", "question": "Is there a bus?"}
    questions = [first, *QUESTIONS["oodcv"]]
    with pytest.raises(DataError, match="one answer a picture, but 3 questions about 2 pictures.*--protocol paper"):
        scored("oodcv-vqa", SAVED["oodcv"], questions)
    paper = scored("oodcv-vqa", SAVED["oodcv"], questions, "paper")
    assert (paper["n"], paper["overwritten"], paper["accuracy"]) == (2, 1, 0.5)
    told = ["No, a car", "Yes, a car.", "Two"]
    listed = [{"image": q["image"], "prediction": a} for q, a in zip(questions, told, strict=True)]
    assert scored("oodcv-vqa", listed, questions, "paper") == paper
    assert scored("oodcv-vqa", listed, questions)["accuracy"] == 1.0


def test_a_path_that_stands_twice_is_refused(scored: Callable) -> None:
    """JSON's readers keep the last of equal keys without a word: here the right answer of two."""
    first, second = (json.dumps(path) + ": " + json.dumps(row) for path, row in SAVED["oodcv"].items())
    wrong = first.replace("Yes, a car.", "No")
    assert scored("oodcv-vqa", f"{{{first}, {second}}}")["accuracy"] == 1.0
    for protocol in PROTOCOLS:
        with pytest.raises(DataError, match=r"a\.json: the key '/data/ood/iid/a\.jpg' stands twice in one object"):
            scored("oodcv-vqa", f"{{{wrong}, {first}, {second}}}", protocol=protocol)


def test_blank_lines_keep_the_numbers_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text(json.dumps(QUESTIONS["sketchy"]))
    told = tmp_path / "a.jsonl"
    told.write_text('\n{"answer": "Yes"}\n\n{"answer": 2}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:4: no text in 'answer'"):
        unicorn.score_files(told, tmp_path / "q.json", task="sketchy-vqa")


GOOD, ROW = SAVED["oodcv"], SAVED["sketchy"]


@pytest.mark.parametrize(
    ("task", "answers", "message"),
    [
        ("oodcv-vqa", {**GOOD, "c.jpg": {"prediction": "x"}}, r"a\.json, key 'c\.jpg': no question is about"),
        ("oodcv-vqa", {**GOOD, "pose/b.jpg": {"prediction": "x"}}, r"key 'pose/b\.jpg': 'pose/b\.jpg' stands in"),
        ("oodcv-vqa", dict([*GOOD.items()][:1]), r"a\.json: 1 of 2 pictures have no answer, the first 'pose/b\.jpg'"),
        ("oodcv-vqa", {**GOOD, "/data/ood/pose/b.jpg": {"prediction": 2}}, "b.jpg': no text in 'prediction'"),
        ("oodcv-vqa", {**GOOD, "/data/ood/pose/b.jpg": {"prediction": "2", "answer": "3"}},
         "b.jpg': answer is '3', but the question's is '2'"),
        ("oodcv-vqa", {**GOOD, "/data/ood/pose/b.jpg": "2"}, r"a\.json:1: no text in|1 answers for 2 questions"),
        ("oodcv-vqa", "3", r"a\.json:1: expected a JSON object"),
        ("oodcv-vqa", "[1,", r"a\.json:1:\d+: malformed JSON"),
        ("sketchy-vqa", {"png/dog/1.png": {"answer": "x"}}, r"a\.json: 1 answers for 2 questions"),
        ("sketchy-vqa", ROW[:1], r"a\.json: 1 answers for 2 questions"),
        ("sketchy-vqa", [*ROW, ROW[0]], r"a\.json: 3 answers for 2 questions"),
        ("sketchy-vqa", [ROW[0], ROW[0]], r"row 2: (label is 'Yes'|this is about)"),
        ("sketchy-vqa", [ROW[0], {**ROW[1], "image_path": "x/2.png"}], r"row 2: this is about 'x/2\.png', but"),
        ("sketchy-vqa", [ROW[0], {**ROW[1], "label": "Yes"}], "row 2: label is 'Yes', but the question's is 'No'"),
        ("sketchy-vqa", [ROW[0], {**ROW[1], "question": "Is it?"}], "row 2: this answers 'Is it\\?', but"),
        ("sketchy-vqa", [ROW[0], {"answer": None}], "row 2: no text in 'answer'"),
        ("sketchy-vqa", [ROW[0], "no"], "row 2: expected a JSON object"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_faulty_answers(task: str, answers: object, message: str, protocol: str, scored: Callable) -> None:
    with pytest.raises(DataError, match=message):
        scored(task, answers, protocol=protocol)


@pytest.mark.parametrize(
    ("task", "questions", "message"),
    [
        ("sketchy-vqa", {}, r"q\.json: expected a list of questions, as the publishers' sketchy-vqa\.json"),
        ("sketchy-vqa", [], r"q\.json: expected a list of questions"),
        ("sketchy-vqa", [QUESTIONS["sketchy"][0], 1], r"q\.json, row 2: expected an object, found"),
        ("sketchy-vqa", QUESTIONS["oodcv"], r"q\.json, row 1: answer must be Yes or No, found 'A'"),
        ("oodcv-vqa", QUESTIONS["sketchy"], r"row 1: no text in text_answer\. Is this the file of oodcv-vqa\?"),
        ("oodcv-vqa", [{**QUESTIONS["oodcv"][0], "text_answer": "11"}], "text_answer must be Yes, No or 0 to 10"),
        (
            "oodcv-vqa",
            [{**QUESTIONS["oodcv"][0], "situation": "poses"}],
            "situation 'poses' is unknown; did you mean 'p",
        ),
    ],
)
def test_faulty_questions(task: str, questions: object, message: str, scored: Callable) -> None:
    with pytest.raises(DataError, match=message):
        scored(task, [], questions)


def test_the_published_folders(tmp_path: Path) -> None:
    for place in ("", "sketchy-vqa", "ood/sketchy-vqa"):
        (tmp_path / (place or "flat") / "x").mkdir(parents=True)
        root = tmp_path if place else tmp_path / "flat"
        (root / place / "sketchy-challenging.json").write_text(json.dumps(QUESTIONS["sketchy"]))
        items = unicorn.load(root, "sketchy-challenging")
        assert [item["label"] for item in items] == ["Yes", "No"] and items[0]["task"] == "sketchy-challenging"
        (root / place / "sketchy-challenging.json").unlink()
    assert unicorn.counts(items) == {"questions": 2, "pictures": 2, "yes": 1, "numbers": 0}
    with pytest.raises(DataError, match=r"oodcv-vqa\.json does not exist"):
        unicorn.load(tmp_path, "oodcv-vqa")


def test_the_task_must_be_named(scored: Callable, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="unicorn needs --task, one of oodcv-vqa, oodcv-counterfactual, sketchy"):
        unicorn.score_files(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ParameterError, match="no task 'sketchy'; did you mean 'sketchy-vqa'"):
        unicorn.score_files(tmp_path / "a", tmp_path / "b", task="sketchy")


def test_the_differences_are_pairs_and_tell_how_answers_are_written_too() -> None:
    assert all(told and source for told, source in SPEC.protocols["paper"])
    said = " ".join(told for told, _ in SPEC.protocols["paper"])
    assert "temperature 0.2" in said and "25 new tokens" in said and "template v0" not in said
    assert "OODCV-VQA: paper keeps one answer a picture" in said and "Sketchy-VQA: paper wants the bare word" in said
