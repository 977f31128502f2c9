"""POPE: the official parser and metric, the question files, the pictures they name."""

import json
import random
from pathlib import Path

import pytest
from real_files import real_data

from sbt.benchmarks.pope import SPEC
from sbt.benchmarks.pope import task as pope
from sbt.utils.errors import DataError

DATA = real_data()
needs_data = pytest.mark.skipif(DATA is None, reason="the real POPE files are not here (SBT_DATA)")

# answer: what the official script (AoiDragon/POPE: evaluate.py) takes it for, and whether it has a yes or no word
ANSWERS = {
    "Yes.": ("yes", False),
    "Yes, there is a dog.": ("yes", False),
    "yes": ("yes", False),
    "No": ("no", False),
    "no, there is not": ("no", False),
    "No, there is no dog in the image.": ("no", False),
    "There is not a dog": ("no", False),
    "NO": ("yes", False),
    "No!": ("yes", False),
    "no\n": ("yes", False),
    "Nope": ("yes", True),
    "None": ("yes", True),
    "": ("yes", True),
    "yes and no": ("no", False),
    "I am not sure": ("no", False),
    "Yes. There is no dog.": ("yes", False),
    "A dog. No cat": ("yes", True),
    "It is snowing": ("yes", True),
    "Not a dog": ("yes", False),
    "n.o": ("yes", True),
    "no,no": ("yes", False),
    "No###": ("yes", False),  # what the authors' decoding leaves of a "No": E9
    "No ###": ("no", False),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_official_parser(answer: str) -> None:
    assert (pope.parse(answer), pope.is_unparsed(answer)) == ANSWERS[answer]


def test_the_end_sign_that_the_paper_keeps_makes_a_no_a_yes() -> None:
    items = [question(1), question(2, label="no")]
    assert pope.score(items, ["Yes", "No"])["accuracy"] == 1.0
    assert pope.score(items, ["Yes###", "No###"])["accuracy"] == 0.5
    told, source = SPEC.protocols["paper"][-1]
    assert '"No###"' in told and "pope_metric.py" in source


def labelled(labels: list[str]) -> list[dict]:
    return [question(number, label=label) for number, label in enumerate(labels)]


def test_scores_by_hand() -> None:
    said = ["Yes", "yes, a dog", "No", "no", "Yes", "Nope", ""]
    labels = ["yes", "no", "no", "yes", "yes", "no", "yes"]
    assert pope.score(labelled(labels), said) == {
        "accuracy": 4 / 7,
        "precision": 3 / 5,  # 3 hits of 5 taken for yes
        "recall": 3 / 4,
        "f1": 2 * 3 / (5 + 4),
        "yes_ratio": 5 / 7,
        "n": 7,
        "unparsed": 2,
    }


@pytest.mark.parametrize(
    ("said", "label", "nothing"),
    [("no", "yes", ("precision", "recall", "f1")), ("no", "no", ("precision", "recall", "f1")),
     ("yes", "no", ("precision", "recall", "f1"))],
)  # fmt: skip
def test_no_division_by_zero(said: str, label: str, nothing: tuple[str, ...]) -> None:
    found = pope.score(labelled([label] * 3), [said] * 3)
    assert all(found[name] == 0.0 for name in nothing)
    assert found["accuracy"] == float(said == label) and found["yes_ratio"] == float(said == "yes")


def test_nothing_is_cut_to_the_shorter_list() -> None:
    with pytest.raises(ValueError, match="2 answers for 3 labels"):
        pope.score(labelled(["yes", "no", "no"]), ["yes", "no"])
    with pytest.raises(ValueError, match="0 answers for 0 labels"):
        pope.score([], [])


def question(number: int, **changed: object) -> dict:
    row = {"question_id": number, "image": f"{number % 2}.png", "text": f"Is there a {number}?", "label": "yes"}
    return row | changed


def write(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (question(2, label="No"), r"q\.json:2: label must be yes or no, found 'No'"),
        (question(2, label=True), r"q\.json:2: no text in label"),
        (question(1), r"q\.json:2: question_id 1 stands in the file twice"),
        ({"question_id": 2, "text": "?", "label": "no"}, r"q\.json:2: no text in image"),
        (question(2, question_id=None), r"q\.json:2: question_id must be a text or a number, found None"),
        (question(2, question_id=True), r"q\.json:2: question_id must be a text or a number, found True"),
        ("\n" + json.dumps(question(1)), r"q\.json:3: question_id 1 stands in the file twice"),
        ("\n\n" + json.dumps(question(2, label="No")), r"q\.json:4: label must be yes or no"),
        ('{"question_id": 2,', r"q\.json:2: malformed JSON"),
        ("[1]", r"q\.json:2: expected a JSON object"),
    ],
)
def test_a_faulty_question_file_is_named_with_its_line(row: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        pope.load(write(tmp_path / "q.json", [question(1), row]))


def test_missing_and_empty_question_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        pope.load(tmp_path / "q.json")
    with pytest.raises(DataError, match="holds no question"):
        pope.load(write(tmp_path / "q.json", []))


def test_official_and_own_file_names_are_found(tmp_path: Path) -> None:
    write(tmp_path / "coco_pope_random.json", [question(1)])
    write(tmp_path / "pope_popular.json", [question(1)])
    found = pope.files(tmp_path, ["random", "popular"])
    assert [path.name for path in found.values()] == ["coco_pope_random.json", "pope_popular.json"]
    with pytest.raises(DataError, match="put POPE's coco_pope_adversarial.json there"):
        pope.files(tmp_path, ["adversarial"])


def test_rows_have_the_metrics_of_score_with_intervals_over_pictures() -> None:
    rng = random.Random(0)
    items = [question(n, image=f"{n // 6}.png", label=("yes", "no")[n % 2]) for n in range(120)]
    answers = [item["label"] if rng.random() < 0.8 else "no" for item in items]
    whole = pope.score(items, answers)
    rows = {row["metric"]: row for row in pope.rows(items, answers, arm="a", subset="s", protocol="standard")}
    assert list(rows) == ["accuracy", "precision", "recall", "f1", "yes_ratio"]
    for name, row in rows.items():
        assert row["value"] == pytest.approx(whole[name], abs=1e-12) and row["n"] == 120
        assert row["low"] <= row["value"] <= row["high"], name
        assert row["low"] < row["high"], name
    assert [rows["f1"][name] for name in ("arm", "subset", "protocol")] == ["a", "s", "standard"]


def test_samples_tell_right_from_wrong() -> None:
    items = [question(1), question(2, label="no")]
    found = pope.samples(items, ["Yes", "Perhaps"], arm="a", subset="s")
    assert [(row["correct"], row["unparsed"]) for row in found] == [(True, False), (False, True)]
    assert found[0]["prompt"] == pope.prompt(items[0]) == "Is there a 1?"


@needs_data
@pytest.mark.parametrize(
    ("name", "count"),
    [("coco_pope_random", 3000), ("coco_pope_popular", 3000), ("coco_pope_adversarial", 3000),
     ("coco_pope_random_2023-08", 2910)],
)  # fmt: skip
def test_the_real_files_load(name: str, count: int) -> None:
    items = pope.load(DATA / "pope" / f"{name}.json")
    assert pope.counts(items) == {"questions": count, "pictures": 500, "yes": 1500}
    right, always = [item["label"] for item in items], ["yes"] * count
    assert pope.score(items, right)["f1"] == 1.0
    found = pope.score(items, always)
    assert found["accuracy"] == 1500 / count and found["recall"] == found["yes_ratio"] == 1.0
