"""`sbt score`: answers made by any tool, scored from files; every inconsistency is one error that names its place."""

import importlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from real_files import real_data

from sbt import benchmarks
from sbt.__main__ import main
from sbt.benchmarks.captions import metric
from sbt.benchmarks.captions import task as captions
from sbt.benchmarks.pope import task as pope
from sbt.benchmarks.truthfulqa import task as truthfulqa
from sbt.utils.errors import DataError, ParameterError

DATA = real_data()
needs_data = pytest.mark.skipif(DATA is None, reason="the real benchmark files are not here (SBT_DATA)")


@pytest.fixture(autouse=True)
def _no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric, "with_java", lambda *args: {})  # seven seconds each


def lines(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def whole(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


# --- captions


REFERENCES = {
    "images": [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2, 3)],
    "annotations": [
        {"id": 1, "image_id": 1, "caption": "A red dog runs on the grass."},
        {"id": 2, "image_id": 2, "caption": "A blue cat sits under the tree."},
        {"id": 3, "image_id": 1, "caption": "The dog is running."},
    ],
}
RESULTS = [
    {"image_id": 2, "caption": "a blue cat sits under the tree"},
    {"image_id": 9, "caption": "nobody knows"},
    {"image_id": 1, "caption": "a dog"},
]


@pytest.fixture
def caption_files(tmp_path: Path) -> Callable[..., dict]:
    def score(results: object = RESULTS, references: object = REFERENCES) -> dict:
        return captions.score_files(whole(tmp_path / "r.json", results), whole(tmp_path / "c.json", references))

    return score


def test_captions_scores_what_has_references_and_reports_the_rest(caption_files: Callable) -> None:
    found = caption_files()
    assert list(found) == [
        "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr", "n",
        "without_references", "without_caption", "not_available",
    ]  # fmt: skip
    assert (found["n"], found["without_references"], found["without_caption"]) == (2, 1, 0)
    assert found["not_available"] == ["METEOR", "SPICE"]
    assert found["CIDEr"] > 4 and caption_files(RESULTS[::-1]) == found  # the order of the results does not matter
    assert caption_files(RESULTS[:1])["without_caption"] == 1


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([*RESULTS, RESULTS[0]], r"r\.json, row 4: image_id 2 stands in the file twice"),
        ([*RESULTS, {"image_id": 4}], r"r\.json, row 4: no text in 'caption'"),
        ([*RESULTS, {"image_id": 4, "caption": None}], r"r\.json, row 4: no text in 'caption'"),
        ([*RESULTS, "x"], r"r\.json, row 4: expected a JSON object"),
        ([*RESULTS, {"caption": "x"}], r"r\.json, row 4: image_id must be a text or a number, found None"),
        ([*RESULTS, {"image_id": [1], "caption": "x"}], r"r\.json, row 4: image_id must be a text or a number"),
        (
            [{"image_id": "a/1.jpg", "caption": "x"}],
            r"r\.json, row 1: image_id 'a/1\.jpg' is not in .*whose first is 1 or '1\.jpg'",
        ),
        ([*RESULTS, {"image_id": "2", "caption": "x"}], r"r\.json, row 4: image_id '2' stands in the file twice"),
        ([{"image_id": True, "caption": "x"}], r"r\.json, row 1: image_id must be a text or a number, found True"),
        ([], r"r\.json holds no caption"),
        ({"image_id": 1}, r"r\.json:1: no text in 'caption'"),
        ("", r"r\.json holds no caption"),
        ('[{"image_id": 1,\n "caption"', r"r\.json:2:\d+: malformed JSON"),
    ],
)
def test_faulty_caption_results(results: object, message: str, caption_files: Callable) -> None:
    with pytest.raises(DataError, match=message):
        caption_files(results)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"annotations": [{"image_id": 7, "caption": "x"}]}, "row 1 of annotations: image 7 is not among 'images'"),
        ({"annotations": [{"image_id": 1, "caption": " "}]}, "row 1 of annotations: no caption"),
        ({"annotations": [{"caption": "x"}]}, "row 1 of annotations: no image_id"),
        ({"images": [{"file_name": "x"}]}, "row 1 of images: no id"),
        ({"images": [{"id": 1}, {"id": 1}]}, "row of images 2: id 1 stands in the file twice"),
        ({"annotations": [{"image_id": True, "caption": "x"}]}, "row 1 of annotations: no image_id"),
        ({"images": [{"id": 1, "file_name": ["x"]}]}, "row 1 of images: file_name must be a text"),
        ({"annotations": []}, "holds no image with a reference caption"),
        ({"images": None}, "expected COCO annotations"),
    ],
)
def test_faulty_caption_references(changed: dict, message: str, caption_files: Callable) -> None:
    with pytest.raises(DataError, match=rf"c\.json.*{message}"):
        caption_files(references=REFERENCES | changed)


def test_caption_rows_and_samples_agree_with_the_score(tmp_path: Path) -> None:
    items = captions.load(whole(tmp_path / "c.json", REFERENCES))
    said = ["a red dog runs on the grass", "a cat"]
    score = captions.score(items, said)
    for row in captions.rows(items, said, arm="a", subset="real", protocol="standard", seed=1)[:2]:
        assert row["value"] == pytest.approx(score[row["metric"]]) and row["low"] < row["value"] < row["high"]
    samples = captions.samples(items, said, arm="a", subset="real")
    assert sum(sample["CIDEr"] for sample in samples) / 2 == pytest.approx(score["CIDEr"])
    assert samples[0]["prompt"] == captions.PROMPT == "Please provide a description of the picture."
    assert [sample["image"] for sample in samples] == ["1.jpg", "2.jpg"]


@needs_data
def test_the_official_captions() -> None:
    folder = DATA / "coco_captions"
    found = captions.score_files(
        folder / "captions_val2014_fakecap_results.json", folder / "captions_val2014_subsetA_4800.json"
    )
    assert (found["n"], found["without_references"], found["without_caption"]) == (134, 866, 4666)
    assert [round(found[name], 4) for name in ("CIDEr", "ROUGE-L", "BLEU-4")] == [0.5286, 0.3735, 0.1742]


# --- POPE


QUESTIONS = [
    {"question_id": n, "image": "1.jpg", "text": f"Is there a {name} in the image?", "label": label}
    for n, (name, label) in enumerate([("dog", "yes"), ("cat", "no"), ("cow", "no")], start=1)
]
BY_ID = [{"question_id": n, "answer": answer} for n, answer in ((3, "Nope"), (1, "Yes"), (2, "No, none."))]
IN_ORDER = [{"question": q["text"], "answer": a} for q, a in zip(QUESTIONS, ("Yes", "No, none.", "Nope"), strict=True)]


@pytest.fixture
def pope_files(tmp_path: Path) -> Callable[..., dict]:
    def score(answers: list, questions: list = QUESTIONS) -> dict:
        return pope.score_files(lines(tmp_path / "a.jsonl", answers), lines(tmp_path / "q.json", questions))

    return score


def test_pope_by_id_and_in_the_official_order(pope_files: Callable) -> None:
    expected = {
        "accuracy": 2 / 3, "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "yes_ratio": 2 / 3, "n": 3, "unparsed": 1
    }  # fmt: skip
    assert pope_files(BY_ID) == pope_files(IN_ORDER) == expected
    assert list(pope_files(BY_ID)) == list(expected)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (BY_ID[:2], "a.jsonl: 1 of 3 questions have no answer, the first of them question_id 2. Answer them all"),
        ([*BY_ID, BY_ID[0]], "a.jsonl:4: question_id 3 stands in the file twice"),
        ([*BY_ID, {"question_id": 4, "answer": "No"}], "a.jsonl:4: question_id 4 is not in the reference file"),
        ([*BY_ID[:2], {"question_id": "q2", "answer": "No"}], "a.jsonl:3: question_id 'q2' is not .*whose first is 1"),
        ([*BY_ID, {"question_id": "2", "answer": "No"}], "a.jsonl:4: question_id '2' stands in the file twice"),
        ([*BY_ID[:2], IN_ORDER[1]], "a.jsonl:3: question_id must be a text or a number, found None"),
        ([*BY_ID[::2], {"question_id": True, "answer": "Yes"}], "a.jsonl:3: question_id must be a .*found True"),
        (
            [*BY_ID[:2], {"question_id": 2, "question": "Is there a dog in the image?", "answer": "No"}],
            "a.jsonl:3: this answers 'Is there a dog in the image\\?', but question_id 2 is 'Is there a cat",
        ),
        (["", *BY_ID[:2], "", "", BY_ID[0]], "a.jsonl:6: question_id 3 stands in the file twice"),
        (["", *BY_ID, {"question_id": 4, "answer": "No"}], "a.jsonl:5: question_id 4 is not in the reference file"),
        (["", *BY_ID[:2], {"question_id": 2}], "a.jsonl:4: no text in 'answer'"),
        (["", IN_ORDER[0], " ", *IN_ORDER[:0:-1]], "a.jsonl:4: this answers 'Is there a cow.*', but question 2 is"),
        ([*BY_ID[:2], {"question_id": 2}], "a.jsonl:3: no text in 'answer'"),
        ([*BY_ID[:2], {"question_id": 2, "answer": True}], "a.jsonl:3: no text in 'answer'"),
        ([*BY_ID[:2], '{"question_id": 2, "answer'], "a.jsonl:3: malformed JSON line"),
        (IN_ORDER[:2], "a.jsonl: 2 answers for 3 questions"),
        ([*IN_ORDER, IN_ORDER[0]], "a.jsonl: 4 answers for 3 questions"),
        ([IN_ORDER[0], IN_ORDER[2], IN_ORDER[1]], "a.jsonl:2: this answers 'Is there a cow.*2 is 'Is there a cat"),
        ([{"answer": "No"}] * 3, "a.jsonl:1: this answers None"),
        ([], "a.jsonl: 0 answers for 3 questions"),
    ],
)  # fmt: skip
def test_faulty_pope_answers(answers: list, message: str, pope_files: Callable) -> None:
    with pytest.raises(DataError, match=message):
        pope_files(answers)


def test_pope_of_the_paper_has_the_official_parser(tmp_path: Path) -> None:
    """What the authors' decoding leaves, ten tokens and the end sign, is scored as it stands."""
    said = ["Yes###", "No###", "No, there is no cow in the###"]
    answers = lines(tmp_path / "a.jsonl", [row | {"answer": a} for row, a in zip(IN_ORDER, said, strict=True)])
    questions = lines(tmp_path / "q.json", QUESTIONS)
    paper = pope.score_files(answers, questions, protocol="paper")
    assert paper == {
        "accuracy": 2 / 3, "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "yes_ratio": 2 / 3, "n": 3, "unparsed": 0
    }  # fmt: skip
    assert pope.score_files(answers, questions) == paper


def test_pope_of_either_spelling(pope_files: Callable) -> None:
    """Until autumn 2023 the published questions said "imange": asked as they stand, and the same questions."""
    old = [row | {"text": row["text"].replace("image", "imange")} for row in QUESTIONS]
    assert pope.prompt(old[0]) == "Is there a dog in the imange?"
    assert pope_files(IN_ORDER, old) == pope_files(IN_ORDER)
    asked = [{**row, "question": row["question"].replace("image", "imange")} for row in IN_ORDER]
    assert pope_files(asked) == pope_files(asked, old) == pope_files(IN_ORDER)
    with pytest.raises(DataError, match="a.jsonl:1: this answers 'Is there a dog in the garden"):
        pope_files([{**IN_ORDER[0], "question": "Is there a dog in the garden?"}, *IN_ORDER[1:]], old)


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    for path in (lines(tmp_path / "a.jsonl", BY_ID), lines(tmp_path / "q.json", QUESTIONS),
                 whole(tmp_path / "r.json", RESULTS), whole(tmp_path / "c.json", REFERENCES)):  # fmt: skip
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert pope.score_files(tmp_path / "a.jsonl", tmp_path / "q.json")["n"] == 3
    assert captions.score_files(tmp_path / "r.json", tmp_path / "c.json")["n"] == 2


def test_json_nested_too_deeply_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    deep = '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}"
    questions = lines(tmp_path / "q.json", QUESTIONS)
    with pytest.raises(DataError, match=r"a\.jsonl:2: JSON nested too deeply"):
        pope.score_files(lines(tmp_path / "a.jsonl", [BY_ID[0], deep]), questions)
    with pytest.raises(DataError, match=r"r\.json:1: JSON nested too deeply"):
        captions.score_files(whole(tmp_path / "r.json", deep), whole(tmp_path / "c.json", REFERENCES))
    table = whole(tmp_path / "t.csv", 'filename,raw\n1.jpg,"' + "[" * 100_000 + '"\n')
    with pytest.raises(DataError, match=r"t\.csv:2: expected a JSON list of captions"):
        captions.load(table)


@needs_data
def test_pope_on_the_real_questions(tmp_path: Path) -> None:
    file = DATA / "pope" / "coco_pope_adversarial.json"
    items = pope.load(file)
    answers = lines(tmp_path / "a.jsonl", [{"question": item["text"], "answer": "Yes."} for item in items])
    found = pope.score_files(answers, file)
    assert (found["accuracy"], found["recall"], found["yes_ratio"], found["n"]) == (0.5, 1.0, 1.0, 3000)


# --- TruthfulQA


TASK = [
    {"question": "Why?", "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"a": 1, "b": 0}},
    {"question": "How?", "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"a": 1, "c": 1, "b": 0}},
]
SCORED = [
    {"question": "How?", "mc1": [-5000.0, -5001.0], "mc2": [-5000, -5000, -5000]},
    {"question": "Why?", "mc1": [-3.0, -3.0], "mc2": [-3.0, -3.0]},
]


@pytest.fixture
def task_files(tmp_path: Path) -> Callable[..., dict]:
    def score(answers: list) -> dict:
        return truthfulqa.score_files(lines(tmp_path / "ll.jsonl", answers), whole(tmp_path / "mc_task.json", TASK))

    return score


def test_truthfulqa_files(task_files: Callable) -> None:
    found = task_files(SCORED)
    assert found == {"mc1": 1.0, "mc1_strict": 0.5, "mc2": pytest.approx((2 / 3 + 1 / 2) / 2), "n": 2, "ties": 1}
    assert task_files(SCORED[::-1]) == found


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (SCORED[:1], "ll.jsonl: 1 of 2 questions have no answer, the first of them question 'Why\\?'"),
        ([*SCORED, SCORED[0]], "ll.jsonl:3: question 'How\\?' stands in the file twice"),
        ([*SCORED, {**SCORED[0], "question": "Who?"}], "ll.jsonl:3: question 'Who\\?' is not in the reference file"),
        ([SCORED[0], {"question": ["Why?"]}], "ll.jsonl:2: question must be a text or a number"),
        ([SCORED[0], {**SCORED[1], "mc2": [-1.0]}], "ll.jsonl:2: mc2 needs 2 log-likelihoods.*found 1"),
        ([SCORED[0], {**SCORED[1], "mc1": [-1.0] * 3}], "ll.jsonl:2: mc1 needs 2 log-likelihoods.*found 3"),
        ([SCORED[0], {"question": "Why?", "mc1": [0, 0]}], "ll.jsonl:2: mc2 needs 2 log-likelihoods"),
        ([SCORED[0], '{"question": "Why?", "mc1": [NaN, 0], "mc2": [0, 0]}'], "ll.jsonl:2: mc1 holds nan"),
        ([SCORED[0], '{"question": "Why?", "mc1": [0, 0], "mc2": [0, -Infinity]}'], "ll.jsonl:2: mc2 holds -inf"),
        ([SCORED[0], {**SCORED[1], "mc1": [-1.0, "x"]}], "ll.jsonl:2: mc1 holds 'x'"),
        ([SCORED[0], {**SCORED[1], "mc1": [-1.0, None]}], "ll.jsonl:2: mc1 holds None"),
        ([SCORED[0], {**SCORED[1], "mc1": [-1.0, True]}], "ll.jsonl:2: mc1 holds True"),
        ([SCORED[0], "{"], "ll.jsonl:2: malformed JSON line"),
        ([*SCORED, "", SCORED[0]], "ll.jsonl:4: question 'How\\?' stands in the file twice"),
        (["", SCORED[0], "", {**SCORED[1], "mc2": [-1.0]}], "ll.jsonl:4: mc2 needs 2 log-likelihoods.*found 1"),
    ],
)
def test_faulty_truthfulqa_answers(answers: list, message: str, task_files: Callable) -> None:
    with pytest.raises(DataError, match=message):
        task_files(answers)


# --- all of them


def test_every_benchmark_is_found_and_scores_files() -> None:
    asked = dict.fromkeys(("captions", "mme", "pope", "unicorn", "vqav2"), "prompt")
    for name, spec in benchmarks.specs().items():
        if spec.score_files:
            assert callable(spec.load("score_files")) and spec.answer_keys
        if name in asked:
            task = importlib.import_module(spec.task)
            assert all(callable(getattr(task, part)) for part in ("load", "score", "rows", "samples", "prompt"))
    assert asked.keys() <= benchmarks.specs().keys()
    with pytest.raises(ParameterError, match="did you mean 'captions'"):
        benchmarks.get("caption")


@pytest.mark.parametrize("name", sorted(name for name, spec in benchmarks.specs().items() if spec.score_files))
def test_an_unknown_protocol_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="protocol 'standrad' is unknown"):
        score_files = benchmarks.get(name).load("score_files")
        files = (tmp_path / "a", tmp_path / "b")[: len(inspect.signature(score_files).parameters) - 1]
        score_files(*files[:2], protocol="standrad")


def test_a_flag_the_benchmark_does_not_know_or_lacks_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    answers = str(lines(tmp_path / "a.jsonl", IN_ORDER))
    for words, message in (
        (["pope", "--answers", answers], "pope needs --references"),
        (
            ["pope", "--answers", answers, "--references", answers, "--task", "x"],
            "pope has no tasks: leave --task out",
        ),
        (["mme", "--answers", str(tmp_path / "none")], "none"),
        (["ethics", "--answers", answers, "--references", answers], "ethics needs --subset"),
    ):
        assert main(["score", *words]) == 2
        assert message in capsys.readouterr().err


def test_what_a_caption_file_lacks_is_said_and_the_rest_is_scored(
    caption_files: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    third = {"id": 4, "image_id": 3, "caption": "A dog sits on the grass."}
    references = REFERENCES | {"annotations": [*REFERENCES["annotations"], third]}
    found = caption_files(RESULTS, references)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert told[0].endswith("r.json: 1 of 3 captions are of images without references, the first, 9, in row 2")
    assert "r.json: 1 of 3 images of " in told[1] and told[1].endswith("c.json have no caption, the first image_id 3")
    # only what is predicted counts, for the weights of CIDEr too: the third image's words are no part of them
    paper = captions.score_files(tmp_path / "r.json", tmp_path / "c.json", protocol="paper")
    assert (paper["n"], paper["without_caption"]) == (2, 1)
    assert found["CIDEr"] == caption_files(RESULTS, REFERENCES)["CIDEr"] == pytest.approx(paper["CIDEr"] / 100)
    whole_set = caption_files([*RESULTS, {"image_id": 3, "caption": "x"}], references)
    assert whole_set["CIDEr"] != pytest.approx(found["CIDEr"] * 2 / 3), "the weights are others"


def test_captions_of_the_paper_lose_their_quotes_and_are_times_100(caption_files: Callable, tmp_path: Path) -> None:
    quoted = [{**row, "caption": f'"{row["caption"]}"'} for row in RESULTS]
    standard = caption_files(quoted)
    paths = whole(tmp_path / "q.json", quoted), whole(tmp_path / "c.json", REFERENCES)
    paper = captions.score_files(*paths, protocol="paper")
    assert paper["CIDEr"] == pytest.approx(100 * caption_files(RESULTS)["CIDEr"])
    assert paper["without_references"] == standard["without_references"]


def test_the_command_prints_one_json_object_or_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lines(tmp_path / "a.jsonl", IN_ORDER)
    lines(tmp_path / "q.json", QUESTIONS)
    whole(tmp_path / "r.json", RESULTS)
    whole(tmp_path / "c.json", REFERENCES)
    monkeypatch.chdir(tmp_path)  # both names are relative to the folder one stands in
    for name, answers, references in (("pope", "a.jsonl", "q.json"), ("captions", "r.json", "c.json")):
        assert main(["score", name, "--answers", answers, "--references", references]) == 0
        told = capsys.readouterr()
        assert json.loads(told.out)["n"] == {"pope": 3, "captions": 2}[name]
        spoken = {
            "pope": "",
            "captions": "r.json: 1 of 3 captions are of images without references, the first, 9, in row 2\n",
        }
        assert told.err.endswith(spoken[name]) and bool(told.err) == bool(spoken[name])
    assert main(["score", "pope", "--answers", "r.json", "--references", "q.json"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("sbt: ") and told.err.count("\n") == 1
    assert main(["score", "pope", "--answers", "nothing.jsonl", "--references", "q.json"]) == 2
    assert "nothing.jsonl does not exist" in capsys.readouterr().err


# --- forms of answer files


def test_every_form_of_answers_scores_the_same(tmp_path: Path) -> None:
    """A list, lines, other keys for the answer, ids as texts; the authors' result list has a label beside it."""
    questions = lines(tmp_path / "q.json", QUESTIONS)
    expected = pope.score_files(lines(tmp_path / "a.jsonl", BY_ID), questions)
    forms = {
        "list": BY_ID,
        "authors": [row | {"label": "yes"} for row in BY_ID],
        "LLaVA": [{"question_id": row["question_id"], "prompt": "?", "text": row["answer"]} for row in BY_ID],
        "VLMEvalKit": [{"question_id": r["question_id"], "prediction": r["answer"], "answer": "Yes"} for r in BY_ID],
        "texts": [{"question_id": str(row["question_id"]), "response": row["answer"]} for row in BY_ID],
    }
    for name, rows in forms.items():
        assert pope.score_files(whole(tmp_path / f"{name}.json", rows), questions) == expected, name
        assert pope.score_files(lines(tmp_path / f"{name}.jsonl", rows), questions) == expected, name
    references = whole(tmp_path / "c.json", REFERENCES)
    named = [{"image_id": f"{row['image_id']}.jpg", "text": row["caption"]} for row in RESULTS]
    found = captions.score_files(lines(tmp_path / "r.jsonl", named), references)
    assert found == captions.score_files(whole(tmp_path / "r.json", RESULTS), references)


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    questions, file = lines(tmp_path / "q.json", QUESTIONS), tmp_path / "a.jsonl"
    file.write_text('{"question_id": 1, "answer": "Yes"}', encoding="utf-16")
    with pytest.raises(DataError, match=r"a\.jsonl: expected UTF-8, the file is UTF-16\. Save it as UTF-8"):
        pope.score_files(file, questions)
    file.write_text('{"question_id": 1, "answer": "Sí"}', encoding="latin-1")
    with pytest.raises(DataError, match=r"expected UTF-8, byte 31 is not: Latin-1, or a damaged file"):
        pope.score_files(file, questions)


def test_a_single_picture_has_no_cider(caption_files: Callable, capsys: pytest.CaptureFixture) -> None:
    assert caption_files(RESULTS[:1])["CIDEr"] == 0.0
    assert "CIDEr of a single picture is 0" in capsys.readouterr().err


def test_references_without_a_word_are_said(caption_files: Callable, capsys: pytest.CaptureFixture) -> None:
    third = {"id": 4, "image_id": 3, "caption": "..."}
    references = REFERENCES | {"annotations": [*REFERENCES["annotations"], third]}
    assert caption_files([*RESULTS, {"image_id": 3, "caption": "a cow"}], references)["CIDEr"] > 0
    told = capsys.readouterr().err
    assert "1 of 3 images have references without a word, the first '3.jpg': whatever is said of them scores 0" in told


@pytest.mark.parametrize("name", ["pope", "gsm8k", "captions"])
def test_a_file_that_macos_adds_is_named_for_what_it_is(name: str, tmp_path: Path) -> None:
    """Beside each file on a foreign disk macOS puts another one, of binary data, with "._" before the name."""
    file = tmp_path / "._answers.jsonl"
    file.write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \x00\x02\x00\x00\x00\xb0")
    questions = whole(tmp_path / "q.json", {"pope": "", "gsm8k": "", "captions": REFERENCES}[name])
    if name == "pope":
        lines(questions, QUESTIONS)
    with pytest.raises(DataError, match=r"\._answers\.jsonl is what macOS keeps beside a file, not its data"):
        benchmarks.get(name).load("score_files")(file, questions)
