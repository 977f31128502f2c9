"""MME: the official parser and scores, where the authors' differ, the publishers' files in both layouts."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from real_files import real_data

from sbt import benchmarks
from sbt.benchmarks.common import evaluate
from sbt.benchmarks.mme import SPEC
from sbt.benchmarks.mme import task as mme
from sbt.utils.errors import DataError, ParameterError
from sbt.utils.files import write_text

DATA = real_data()
needs_data = pytest.mark.skipif(DATA is None, reason="the real MME questions are not here (SBT_DATA)")

# answer: what the publishers' calculation.py takes it for, and the authors' mme_metric.py
ANSWERS = {
    "  yes": ("other", "yes"),
    "\u2003 no way": ("no", "no"),
    "not": ("no", "no"),
    "not sure": ("no", "no"),
    "note": ("no", "no"),
    "Now": ("no", "no"),
    "know": ("no", "no"),
    "eyes": ("yes", "yes"),
    "The answer is yes": ("other", "other"),
    "y": ("other", "other"),
    "YES": ("yes", "yes"),
    "Yes, there is.": ("yes", "yes"),
    "No": ("no", "no"),
    " yes": ("yes", "yes"),
    " no, it is not": ("no", "no"),
    "  no": ("no", "no"),
    "   no": ("other", "no"),
    "noyes": ("no", "no"),  # the first four characters are "noye"
    "nyes": ("yes", "yes"),
    "": ("other", "other"),
    "Yes\n": ("yes", "yes"),
    "\n\n\n\nYes": ("yes", "yes"),  # a file of answers cannot hold a line end: it goes
    "\tno": ("no", "no"),
    "other": ("other", "other"),
}


def write_answers(folder: Path, items: list[dict], responses: list[str]) -> list[Path]:
    """Write the publishers' answer files, TASK.txt of image, question, label, response; tabs and line ends go."""
    texts: dict[str, str] = {}
    for item, answer in zip(items, responses, strict=True):
        line = "\t".join((item["image"], item["question"], item["label"], re.sub("[\t\r\n]", "", answer)))
        texts[item["task"]] = texts.get(item["task"], "") + f"{line}\n"
    return [write_text(folder / f"{task}.txt", text) for task, text in texts.items()]


@pytest.mark.parametrize("answer", ANSWERS)
def test_parser(answer: str) -> None:
    assert (mme.parse(answer), mme.parse(answer, "paper")) == ANSWERS[answer]


def test_the_tasks_of_both_protocols() -> None:
    assert [len(names) for names in mme.KINDS.values()] == [10, 4] and len(mme.tasks()) == 14
    assert set(mme.tasks()) - set(mme.tasks("paper")) == {"landmark", "artwork"}
    assert all(source for _, source in SPEC.protocols["paper"])


def test_a_task_by_hand() -> None:
    labels = ["Yes", "No"] * 4
    said = ["yes", "no", "yes", "yes", "other", "no", "other", "other"]
    found = mme.task_scores(mme.hits(labels, said))
    assert found == {"acc": 4 / 8, "acc_plus": 1 / 4, "score": 75.0}
    assert mme.hits(labels, said) == [2, 1, 1, 0]


def test_pairs_are_consecutive_lines() -> None:
    labels = ["yes"] * 4
    assert mme.task_scores(mme.hits(labels, ["yes", "yes", "no", "no"]))["acc_plus"] == 0.5
    assert mme.task_scores(mme.hits(labels, ["yes", "no", "yes", "no"]))["acc_plus"] == 0.0
    for answers in (3, 0):
        with pytest.raises(ValueError, match="two questions a picture"):
            mme.hits(["yes"] * answers, ["yes"] * answers)
    with pytest.raises(ValueError, match="2 answers for 4 labels"):
        mme.hits(labels, ["yes"] * 2)


def test_a_task_without_a_parsed_answer_gives_no_error() -> None:
    parsed = list(map(mme.parse, ["y", "The answer is no"]))
    found = mme.task_scores(mme.hits(["Yes", "No"], parsed))
    assert found == {"acc": 0.0, "acc_plus": 0.0, "score": 0.0}
    values = mme.measures(["Yes", "No"], ["yes", "  yes"], "standard")
    assert values["yes_ratio"] == [True, False] and values["unparsed_ratio"] == [False, True]
    assert mme.measures(["Yes", "No"], ["yes", "  yes"], "paper")["unparsed_ratio"] == [False, False]


# --- files


def line(image: str, number: int, label: str, answer: str | None = None) -> str:
    given = [] if answer is None else [answer]
    return "\t".join([image, f"Is there a {number}? Please answer yes or no.", label, *given]) + "\n"


def task_lines(answers: tuple[str, ...] | None, images: int = 2) -> list[str]:
    """Two lines an image, labels Yes and No; the answers are given again and again."""
    said = [None] * 4 if answers is None else [answers[n % len(answers)] for n in range(2 * images)]
    return [line(f"{n // 2}.jpg", n % 2, ("Yes", "No")[n % 2], said[n]) for n in range(2 * images)]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def write(answers: tuple[str, ...] | None = ("yes", "no"), name: str = "answers", **changed: list[str]) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        for task in mme.tasks():
            (tmp_path / name / f"{task}.txt").write_text("".join(changed.get(task, task_lines(answers))))
        return tmp_path / name

    return write


def test_the_form_and_the_maxima(folder: Callable) -> None:
    found = mme.score_files(folder())
    assert list(found) == ["perception", "cognition", "tasks"] and list(found["tasks"]) == list(mme.tasks())
    assert found["perception"] == 2000.0 and found["cognition"] == 800.0
    assert set(map(str, found["tasks"].values())) == {"{'acc': 1.0, 'acc_plus': 1.0, 'score': 200.0}"}
    paper = mme.score_files(folder(), protocol="paper")
    assert paper["perception"] == 1600.0 and paper["cognition"] == 800.0 and len(paper["tasks"]) == 12
    json.dumps([found, paper])


@pytest.mark.parametrize(
    ("answers", "standard", "paper"),
    [(("  yes", "no"), 50.0, 200.0), (("eyes", "Now"), 200.0, 200.0), (("The answer is yes", "not"), 50.0, 50.0),
     (("y", "n"), 0.0, 0.0), (("yes", "yes"), 50.0, 50.0), (("", ""), 0.0, 0.0)],
)  # fmt: skip
def test_scores_of_both_protocols(answers: tuple[str, str], standard: float, paper: float, folder: Callable) -> None:
    assert mme.score_files(folder(answers))["tasks"]["count"]["score"] == standard
    assert mme.score_files(folder(answers), protocol="paper")["tasks"]["count"]["score"] == paper


def test_a_line_without_a_response(folder: Callable) -> None:
    lines = task_lines(("yes", "no"))
    lines[2] = line("1.jpg", 0, "Yes")
    with pytest.raises(DataError, match=r"color\.txt:3: no response\. Put a tab and the response"):
        mme.score_files(folder(color=lines))
    found = mme.score_files(folder(color=lines), protocol="paper")
    assert found["tasks"]["color"] == {"acc": 0.75, "acc_plus": 0.5, "score": 125.0}
    lines[2] = line("1.jpg", 0, "Yes", "")  # an empty response is one
    assert mme.score_files(folder(color=lines))["tasks"]["color"]["score"] == 125.0


def test_a_label_with_blanks(folder: Callable) -> None:
    lines = task_lines(("yes", "no"))
    lines[2] = line("1.jpg", 0, "yes ", "Yes")
    with pytest.raises(DataError, match=r"OCR\.txt:3: label must be Yes or No without blanks, found 'yes '"):
        mme.score_files(folder(OCR=lines))
    assert mme.score_files(folder(OCR=lines), protocol="paper")["tasks"]["OCR"]["score"] == 200.0


GOOD = task_lines(("yes", "no"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (GOOD[:3], r"scene\.txt:3: image '1\.jpg' has one question"),
        ([GOOD[0], *GOOD[2:]], r"scene\.txt:1: image '0\.jpg' has one question"),
        ([GOOD[0], GOOD[2], GOOD[1], GOOD[3]], r"scene\.txt:1: image '0\.jpg' has one question"),
        ([*GOOD, *GOOD[:2]], r"scene\.txt:5: image '0\.jpg' has its two questions in line 1 already"),
        ([GOOD[0], *GOOD], r"scene\.txt:2: line 1 asks the same of image '0\.jpg'"),
        ([GOOD[0], GOOD[0], *GOOD[2:]], r"scene\.txt:2: line 1 asks the same of image '0\.jpg'"),
        ([*GOOD[:3], line("1.jpg", 1, "maybe", "no")], r"scene\.txt:4: label must be Yes or No, found 'maybe'"),
        ([*GOOD[:3], "\n"], r"scene\.txt:4: expected image, question, label, response with tabs between, found ''"),
        ([*GOOD[:3], "1.jpg\tIs it?\tNo\tno\tno\n"], r"scene\.txt:4: expected image, question, label, response"),
        ([*GOOD[:3], "1.jpg\t\tNo\tno\n"], r"scene\.txt:4: expected image, question, label, response"),
        ([*GOOD, "\n"], r"scene\.txt:5: expected image"),
        ([], r"scene\.txt:1: expected image"),
    ],
)
@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_faulty_answers_name_file_and_line(lines: list, message: str, protocol: str, folder: Callable) -> None:
    with pytest.raises(DataError, match=message) as error:
        mme.score_files(folder(scene=lines), protocol=protocol)
    assert "\n" not in str(error.value)


def test_missing_files_and_folders(folder: Callable, tmp_path: Path) -> None:
    where = folder()
    (where / "landmark.txt").unlink()
    with pytest.raises(DataError, match=r"landmark\.txt does not exist"):
        mme.score_files(where)
    assert mme.score_files(where, protocol="paper")["perception"] == 1600.0
    with pytest.raises(DataError, match="is no folder"):
        mme.score_files(where / "OCR.txt")
    with pytest.raises(ParameterError, match="protocol 'papr' is unknown"):
        mme.score_files(where, protocol="papr")


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_answers_are_checked_against_the_questions(protocol: str, folder: Callable) -> None:
    questions = folder(None, "questions")
    assert mme.score_files(folder(count=[*GOOD[2:], *GOOD[:2]]), questions, protocol)["cognition"] == 800.0
    wrong = {
        r"count\.txt:3: question '1\.jpg: Is there a 7\?.*' is not in the reference file": [
            *GOOD[:2], line("1.jpg", 7, "Yes", "yes"), GOOD[3]
        ],
        r"count\.txt: 2 of 4 questions have no answer, the first of them question '1\.jpg": GOOD[:2],
        r"count\.txt:3: label is 'No', but that question's is 'Yes'": [
            *GOOD[:2], line("1.jpg", 0, "No", "no"), GOOD[3]
        ],
    }  # fmt: skip
    for message, lines in wrong.items():
        with pytest.raises(DataError, match=message):
            mme.score_files(folder(count=lines), questions, protocol)
    for task in mme.tasks()[1:]:
        (questions / f"{task}.txt").unlink()
    with pytest.raises(DataError, match=r"count\.txt: .*questions has no questions of this task"):
        mme.score_files(folder(), questions, protocol)
    some = folder(name="some")
    for task in mme.tasks()[1:]:
        (some / f"{task}.txt").unlink()
    found = mme.score_files(some, questions, protocol)  # its tasks suffice
    assert found["perception"] == 200.0 and found["cognition"] == 0.0 and list(found["tasks"]) == ["existence"]


def located(folder: Path, items: list[dict]) -> list[str]:
    return [item["file"] for item in mme.with_pictures(folder, items)]


def test_both_layouts_hold_the_same_questions(tmp_path: Path) -> None:
    beside, inner, flat = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for folder in (beside / "posters", inner / "posters" / "questions_answers_YN", inner / "posters" / "images", flat):
        folder.mkdir(parents=True)
    for name in ("x.1", "y"):
        text = "Is it red? Please answer yes or no.\tYes\nIs it blue?  \tNo"  # without a line end at the end
        (beside / "posters" / f"{name}.txt").write_text(text)
        (inner / "posters" / "questions_answers_YN" / f"{name}.txt").write_text(text)
    for where in (beside / "posters", inner / "posters" / "images"):
        (where / "x.1.png").touch()  # y.jpg is not there: the name is guessed, and missing
    (beside / "posters" / "._y.txt").write_bytes(b"\x00\x05\x16\x07")  # macOS leaves such files in archives
    asked = [("Is it red? Please answer yes or no.", "Yes"), ("Is it blue?", "No")]
    (flat / "posters.txt").write_text(
        "".join(f"{i}\t{q}\t{label}\n" for i in ("x.1.png", "y.jpg") for q, label in asked)
    )
    expected = [
        {"task": "posters", "image": i, "question": q, "label": label}
        for i in ("x.1.png", "y.jpg") for q, label in asked
    ]  # fmt: skip
    assert mme.load(beside) == mme.load(inner) == mme.load(flat) == expected
    assert [mme.prompt(item) for item in expected[:2]] == [asked[0][0], asked[1][0]]
    guessed = ["posters/x.1.png"] * 2 + ["posters/y.jpg"] * 2
    assert located(beside, expected) == guessed, "a missing one is for on_bad to decide"
    (beside / "posters" / "y.jpg").touch()
    (inner / "posters" / "images" / "y.jpg").touch()
    assert located(beside, expected) == guessed
    assert located(inner, expected)[0] == "posters/images/x.1.png"
    assert located(beside / "posters", expected)[2] == "y.jpg"


def test_on_bad_decides_about_a_missing_picture(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg")
    items = [{"task": "posters", "image": image, "question": "?", "label": "Yes"} for image in ("x.jpg", "y.jpg")]
    named = mme.with_pictures(tmp_path, items)
    run = SimpleNamespace(p=SimpleNamespace(on_bad="stop"), progress=None)
    with pytest.raises(DataError, match=r"1 of 2 images cannot be used \(1 missing\)(.|\n)*posters/y\.jpg"):
        evaluate.keep_usable(run, tmp_path, {"": named})
    run.p.on_bad = "skip"
    assert evaluate.keep_usable(run, tmp_path, {"": named}) == {"": named[:1]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q/OCR/1.txt", "Is it?\tYes\n", r"OCR/1\.txt:1: image '1\.jpg' has one question"),
        ("q/OCR/1.txt", "a?\tYes\nb?\tNo\nc?\tNo\n", r"OCR/1\.txt:3: image '1\.jpg' has its two"),
        ("q/OCR/1.txt", "a?\tYes\nb?\tnope\n", r"OCR/1\.txt:2: label must be Yes or No, found 'nope'"),
        ("q/OCR/1.txt", "a?\tYes\nb? No\n", r"OCR/1\.txt:2: expected question, label with tabs.*'b\? No'"),
        ("q/OCR/images/1.txt", "", r"OCR holds no question, as IMAGE\.txt"),
        ("q/OCR.txt", "1.jpg\ta?\tYes\tyes\n", r"OCR\.txt:1: expected image, question, label with tabs between"),
        ("q/ocr.csv", "", "holds none of MME's tasks"),
        ("no.txt", "", "q is no folder"),
    ],
)  # fmt: skip
def test_faulty_question_folders(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        mme.load(tmp_path / "q")


# --- rows, samples, written answers


def made(seed: int, images: int = 30) -> tuple[list[dict], list[str]]:
    rng, items = random.Random(seed), []
    for task in ("existence", "artwork", "code_reasoning"):
        for n in range(images):
            labels = ("Yes", "No") if n % 2 else ("No", "Yes")
            items += [{"task": task, "image": f"{n}.png", "question": f"{k}?", "label": labels[k]} for k in (0, 1)]
    wild = ["yes", "No.", "  yes", "a\tb", "no\nyes", "", "Nothing", "\nYes, it is"]
    return items, [rng.choice([item["label"], rng.choice(wild)]) for item in items]


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_written_answers_score_the_same(protocol: str, tmp_path: Path) -> None:
    items, answers = made(1)
    written = write_answers(tmp_path / "a", items, answers)
    assert [path.name for path in written] == ["existence.txt", "artwork.txt", "code_reasoning.txt"]
    questions = tmp_path / "q"
    questions.mkdir()
    for path in written:
        lines = [line.rsplit("\t", 1)[0] for line in path.read_text().splitlines()]
        (questions / path.name).write_text("\n".join(lines) + "\n")
    assert mme.load(questions) == items
    assert mme.score_files(tmp_path / "a", questions, protocol) == mme.score(items, answers, protocol)


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_rows_agree_with_the_score(protocol: str) -> None:
    items, answers = made(2)
    whole, samples = mme.score(items, answers, protocol), mme.samples(items, answers, arm="a", protocol=protocol)
    same = benchmarks.provenance("standard", {"a": None})["a"] | {"protocol": protocol}
    rows = mme.rows(items, answers, arm="a", **same)
    found = {(row["subset"], row["metric"]): row for row in rows}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows) and len(found) == len(rows)
    tasks = ["existence", "code_reasoning"] if protocol == "paper" else ["existence", "artwork", "code_reasoning"]
    assert list(whole["tasks"]) == tasks
    for task in tasks:
        for name, value in whole["tasks"][task].items():
            assert found[task, name]["value"] == pytest.approx(value) and found[task, name]["low"] < value
        judged = [sample for sample in samples if sample["subset"] == task]
        for name in ("unparsed", "empty"):
            assert found[task, f"{name}_ratio"]["value"] == pytest.approx(sum(one[name] for one in judged) / 60)
        assert found[task, "yes_ratio"]["value"] == sum(one["parsed"] == "yes" for one in judged) / 60
        assert [found[task, name]["n"] for name in mme.METRICS] == [60, 30, 30, 60, 60, 60]
    for kind in ("perception", "cognition"):
        row = found[kind, "score"]
        assert row["value"] == pytest.approx(whole[kind]) and row["low"] < row["value"] < row["high"]
        assert row["protocol"] == protocol and row["template_hash"] and row["benchmark"] == "mme"
    shuffled = mme.rows(items, answers, arm="a", subset="shuffled", protocol=protocol)
    assert {row["subset"] for row in shuffled} == {f"{subset}, shuffled" for subset, _ in found}
    assert [row["low"] for row in shuffled] == [row["low"] for row in rows]


def test_the_interval_of_a_sum_of_tasks() -> None:
    assert mme.total([[2] * 10, [0] * 5]) == (200.0, 200.0, 200.0)
    value, low, high = mme.total([[2, 0] * 50, [1] * 20])
    assert value == 150.0 and low == pytest.approx(150 - 1.96 * 10, abs=1) and high == pytest.approx(169.6, abs=1)
    assert mme.total([[2, 0] * 50, [1] * 20]) == (value, low, high)


def test_samples_say_what_an_answer_is_taken_for() -> None:
    items, _ = made(0, images=1)
    found = mme.samples(items[:2], ["  yes", "Yes"], arm="a", subset="blank")
    assert [(row["parsed"], row["correct"], row["unparsed"]) for row in found] == [
        ("other", False, True), ("yes", True, False),
    ]  # fmt: skip
    paper = mme.samples(items[:2], ["", "  Yes"], arm="a", protocol="paper")
    assert [(row["parsed"], row["empty"], row["subset"]) for row in paper] == [
        ("other", True, "existence"), ("yes", False, "existence"),
    ]  # fmt: skip
    assert found[0]["subset"] == "existence, blank" and found[0]["prompt"] == "0?"


def test_half_an_image_is_not_scored() -> None:
    items, answers = made(0)
    with pytest.raises(DataError, match=r"MME, existence: 1 questions about '0\.png'"):
        mme.score(items[1:], answers[1:])


@needs_data
def test_the_real_questions(tmp_path: Path) -> None:
    items = mme.load(DATA / "mme" / "questions")
    counts = mme.counts(items)
    assert len(items) == 2374 and list(counts) == list(mme.tasks())
    assert counts["celebrity"] == {"questions": 340, "pictures": 170, "yes": 170}
    right, always = [item["label"] for item in items], ["Yes"] * len(items)
    write_answers(tmp_path / "right", items, right)
    found = mme.score_files(tmp_path / "right", DATA / "mme" / "questions")
    assert found == mme.score_files(tmp_path / "right") and found["perception"] + found["cognition"] == 2800.0
    assert mme.score_files(tmp_path / "right", protocol="paper")["perception"] == 1600.0
    assert mme.score(items, always)["perception"] == 500.0  # half the questions, no picture
    with pytest.raises(DataError, match=r"existence\.txt:1: no response"):
        mme.score_files(DATA / "mme" / "questions")
    asleep = mme.score_files(DATA / "mme" / "questions", protocol="paper")
    assert asleep["perception"] == asleep["cognition"] == 0.0
