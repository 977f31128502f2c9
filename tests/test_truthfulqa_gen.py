"""TruthfulQA, generation: the scores are the harness's on hand-made and real rows, and faulty files are named."""

import csv
import functools
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from real_files import real_data

from sbt import benchmarks
from sbt.__main__ import main
from sbt.benchmarks.truthfulqa import files, metric
from sbt.benchmarks.truthfulqa import generation as gen
from sbt.models import TextArms
from sbt.utils.errors import DataError, ParameterError

DATA = real_data()
needs_data = pytest.mark.skipif(DATA is None, reason="the real TruthfulQA files are not here (SBT_DATA)")
COLUMNS = ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"]
SEVEN = "one two three four five six seven"
LONG = "gamma delta epsilon zeta eta theta iota kappa lambda mu"


@pytest.fixture
def harness() -> ModuleType:
    return pytest.importorskip("lm_eval.tasks.truthfulqa.utils")


@pytest.fixture
def quick(harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The harness with fewer resamples of its one sample; `test_its_bootstrap_changes_nothing` says why that is so."""
    few = functools.partial(harness.scoring.BootstrapAggregator, n_samples=2)
    monkeypatch.setattr(harness.scoring, "BootstrapAggregator", few)
    return harness


def doc(true: list[str], false: list[str], question: str = "Why?") -> dict:
    return {"question": question, "correct_answers": true, "incorrect_answers": false}


def row(question: str = "Why?", true: str = "a b c; d", false: str = "e f", **changed: str) -> dict[str, str]:
    return dict(zip(COLUMNS, ["T", "C", question, "a b c", true, false, "s"], strict=True)) | changed


def write(path: Path, rows: list[dict], start: str = "\ufeff") -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(start)
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\r\n")
        table.writeheader()
        table.writerows(rows)
    return path


def real(name: str = "2021-09_hf") -> list[dict]:
    return files.read_csv(DATA / "truthfulqa" / f"TruthfulQA_{name}.csv")


# --- the scores


CASES = [
    (doc(["The cat sat."], ["The dog ran."]), "The cat sat"),
    (doc(["The cat sat."], ["The cat sat."]), "The cat sat."),  # a tie is not more
    (doc(["The cat sat.", "It sat on a mat."], ["A dog."]), ""),
    (doc(["The cat sat."], ["A dog."]), " \n"),
    (
        doc(["The cat sat. It was 3.5 kg, at $4.", "I have no comment."], ["Ünïcode “quotes”."]),
        "A: I have no “comment”",
    ),
    (doc(["One two . Three four . Five."], ["Three four two one."]), "\nA: Three four . One two . \n\nFive six"),
    (doc(["a b c d e f."], ["a b c d e."]), "a b c d e f g h i j k l m n o p q r s t u v w x y z . a b " * 4),
    (doc(["abc"], [LONG]), SEVEN),
]


@pytest.mark.parametrize(("one", "said"), CASES)
def test_the_scores_are_the_harness_s(one: dict, said: str, harness: ModuleType) -> None:
    found = gen.judge(one, said)
    assert found == harness.process_results_gen(one, [said]) and list(found) == list(gen.METRICS)
    assert all(type(value) is float for value in found.values())


def test_the_comparison_can_fail() -> None:
    assert gen.judge(*CASES[0]) != gen.judge(*CASES[1])
    assert [gen.judge(*CASES[n])[f"{kind}_acc"] for n in (0, 1) for kind in ("rouge2", "rougeL")] == [1, 1, 0, 0]
    said = "b. a"  # a sentence's end matters to ROUGE-L alone: two sentences match in any order
    assert metric.rouge(said, "a . b") == (100.0, 0.0, 100.0) != metric.rouge(said, "a b")


def test_its_bootstrap_changes_nothing(harness: ModuleType) -> None:
    pair = "A: the cat sat on 3 mats", "The cat sat on mats."
    assert dict(zip(("rouge1", "rouge2", "rougeLsum"), metric.rouge(*pair), strict=True)) == harness.rouge(
        [pair[1]], [pair[0]]
    )


def test_scores_by_hand() -> None:
    found = gen.judge(doc(["a b c d e."], ["a b x."]), "a b c d")
    assert found["rouge1_max"] == pytest.approx(100 * 2 * 4 / 9) and found["rouge2_max"] == pytest.approx(600 / 7)
    assert found["rouge1_diff"] == pytest.approx(800 / 9 - 400 / 7) and found["rouge1_acc"] == 1.0
    assert found["bleu_max"] == pytest.approx(100 * np.exp(1 - 6 / 4))  # four words of six, all found: brevity alone


def test_an_answer_without_a_common_word_was_smoothed_by_the_older_sacrebleu() -> None:
    one = doc(["abc"], [LONG])
    assert (gen.judge(one, SEVEN)["bleu_acc"], gen.judge(one, SEVEN, "paper")["bleu_acc"]) == (0.0, 1.0)
    # what sacrebleu 1.5.0 prints
    assert gen.judge(one, SEVEN, "paper")["bleu_max"] == pytest.approx(3.283637368030198, abs=1e-12)
    assert metric.bleu("one two three", "abc", smooth_all=True) == 0.0  # no four words: nothing to smooth
    assert gen.judge(*CASES[0]) == gen.judge(*CASES[0], "paper")  # where words match the versions agree
    with pytest.raises(ParameterError, match="did you mean 'paper'"):
        gen.judge(one, SEVEN, "papers")


def test_stops_are_those_of_the_task_file(harness: ModuleType) -> None:
    from lm_eval.config.task import TaskConfig

    config = TaskConfig(task="x", output_type="generate_until")
    assert config.generation_kwargs["until"] == gen.UNTIL["standard"] != gen.UNTIL["paper"] == ["."]
    text = (Path(harness.__file__).parent / "truthfulqa_gen.yaml").read_text(encoding="utf-8")
    assert "generation_kwargs" not in text and "fewshot_delimiter" not in text and "until:" not in text
    assert "{{prompt_qa + '\\n\\nQ: ' + question}}" in text  # it ends with the question


# --- rows, controls, files


DOCS = [doc(["red", "blue"], ["green."]), doc(["up"], ["down", " "], question=" How? ")]


def test_rows_are_prepared_as_the_harness_does(harness: ModuleType) -> None:
    import datasets

    extra = [one | {"source": "s"} for one in DOCS]
    found = files.prepared(extra)
    assert found == harness.process_docs_gen(datasets.Dataset.from_list(extra)).to_list() == files.prepared(found)
    assert found[1]["question"] == "How?" and found[1]["incorrect_answers"] == ["down."]
    assert found[1]["correct_answers"] == ["up.", "I have no comment."] and DOCS[1]["correct_answers"] == ["up"]


def test_means_rows_and_samples_agree() -> None:
    said = ["Blue.", "down"]
    means = gen.score(DOCS, said)
    assert (means["rouge1_acc"], means["rouge1_max"], means["rouge1_diff"], means["n"]) == (0.5, 50.0, 0.0, 2)
    assert means == gen.score(files.prepared(DOCS), said)  # it does not matter whether they are prepared
    found = gen.rows(DOCS, said, arm="a", seed=1, template_hash="t")
    count = len(gen.METRICS)
    assert [one["value"] for one in found[:count]] == pytest.approx([means[metric] for metric in gen.METRICS])
    other = gen.score(DOCS, said[::-1])  # the control gives each the other's answer
    assert {one["subset"] for one in found[count:]} == {gen.EXCHANGED}
    assert [one["value"] for one in found[count:]] == pytest.approx([other[metric] for metric in gen.METRICS])
    assert found[4] | {"low": 0, "high": 1} == {
        "arm": "a", "benchmark": "truthfulqa-gen", "subset": "all", "metric": "rouge1_acc", "value": 0.5, "low": 0,
        "high": 1, "n": 2, "protocol": "standard", "template_hash": "t",
    }  # fmt: skip
    assert found[4]["low"] < 0.5 < found[4]["high"]
    assert [one["rouge1_acc"] for one in gen.samples(DOCS, said, arm="a")] == gen.per_item(DOCS, said)["rouge1_acc"]
    with pytest.raises(ValueError):
        gen.per_item(DOCS, said[:1])


def test_a_constant_answer_gives_its_baseline() -> None:
    found = gen.constant(DOCS)
    assert (found["bleu_acc"], found["rougeL_acc"], found["rouge1_max"]) == (1.0, 1.0, 100.0)
    assert found["rouge1_diff"] == 100.0 and gen.constant(DOCS, "green")["rouge1_acc"] == 0.0
    assert set(gen.constant(DOCS, "").values()) == {0.0, 2}


def test_a_file_becomes_rows_of_the_hub(tmp_path: Path) -> None:
    rows = [row(true=" a b c;; d ; "), row("How? ", "x, y", 'say "no"')]
    path = write(tmp_path / "TruthfulQA.csv", rows)
    found = files.read_csv(path)
    assert found == files.read_csv(tmp_path) == files.read_csv(write(tmp_path / "other.csv", rows, start=""))
    assert found[0] == {
        "type": "T", "category": "C", "question": "Why?", "best_answer": "a b c",
        "correct_answers": ["a b c", "", "d", ""], "incorrect_answers": ["e f"], "source": "s",
    }  # fmt: skip
    assert found[1] == found[0] | doc(["x, y"], ['say "no"'], "How? ")
    few = [{key: value for key, value in one.items() if key in COLUMNS[2:6]} | {"More": "m"} for one in rows]
    assert files.read_csv(write(tmp_path / "few.csv", few))[0] == found[0] | {"type": "", "category": "", "source": ""}
    assert files.csv_version(found) == files.csv_version(files.prepared(found)) != files.csv_version(found[:1])
    assert files.csv_version(found).startswith("other-")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (row(" "), r"row 2 \(line 4\) has no text in 'Question'"),
        (row("How?", true=" ; "), "row 2 .* 'How\\?' has no answer in 'Correct Answers'"),
        (row("How?", false=""), "row 2 .* 'How\\?' has no answer in 'Incorrect Answers'"),
        (row("Why? "), r"row 2 \(line 4\): the question 'Why\?' stands in the file twice. Keep one"),
    ],
)
def test_a_faulty_row_is_named(second: dict, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [row(), second])
    text = path.read_text().replace("\n", "\n\n", 1)  # a blank line is no row, but a line
    path.write_text(text + "," * text.partition("\n")[0].count(",") + "\n")  # nor is a spreadsheet's last line
    with pytest.raises(DataError, match=rf"t\.csv, {message}"):
        files.read_csv(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'Question', 'Best Answer', 'Correct Answers', 'Incorrect Answers'"),
        ("Question,Best Answer,Correct Answers\na,b,c\n", "no column 'Incorrect Answers'. Give TruthfulQA.csv"),
        (",".join(COLUMNS), "holds no question"),
        (",".join(COLUMNS) + "\n1,2,3,4,5,6\n", r"row 1 \(line 2\) has not as many fields as the header"),
        (",".join(COLUMNS) + "\n1,2,3,4,5,6,7,8\n", r"row 1 \(line 2\) has not as many fields as the header"),
        (",".join(COLUMNS) + '\n1,2,3,4,5,6,7\n1,2,"3', r"t\.csv, row 2 \(line 3\): malformed CSV"),
    ],
)
def test_a_faulty_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        files.read_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match="expected one TruthfulQA.*found 0. Name the file"):
        files.read_csv(tmp_path)


ANSWERS = [{"question": "How?", "answer": ""}, {"question": "Why?", "answer": "A: a b c"}]


def scored(folder: Path, answers: list, *words: str) -> int:
    references = write(folder / "t.csv", [row(), row(" How?")])
    (folder / "a.jsonl").write_text("".join((one and json.dumps(one)) + "\n" for one in answers))
    files = ["--answers", str(folder / "a.jsonl"), "--references", str(references)]
    return main(["score", "truthfulqa-gen", *files, *words])


def test_the_command_scores_answers_in_any_order(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert benchmarks.get("truthfulqa-gen").load("score_files") is gen.score_files
    printed = []
    for answers, words in ((ANSWERS, ()), (ANSWERS[::-1], ()), (ANSWERS, ("--protocol", "paper"))):
        assert scored(tmp_path, answers, *words) == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert set(printed[0]) == {*gen.METRICS, "n"} and printed[0] == printed[1]
    assert (printed[0]["rougeL_acc"], printed[0]["n"]) == (0.5, 2)
    assert printed[0]["rouge1_max"] == pytest.approx(100 * 6 / 7 / 2)
    assert printed[2]["bleu_diff"] < printed[0]["bleu_diff"]  # the false answer is smoothed there


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (ANSWERS[:1], r"a\.jsonl: 1 of 2 questions have no answer, the first of them question 'Why\?'"),
        ([*ANSWERS, ANSWERS[0]], r"a\.jsonl:3: question 'How\?' stands in the file twice"),
        ([*ANSWERS, {"question": "Who?", "answer": "x"}], r"a\.jsonl:3: question 'Who\?' is not in the reference"),
        ([ANSWERS[0], {"question": "Why?", "answer": None}], r"a\.jsonl:2: no text in 'answer'"),
        ([ANSWERS[0], {"answer": "x"}], r"a\.jsonl:2: no text in 'question'"),
        (["", ANSWERS[0], "", {"question": "Why?"}], r"a\.jsonl:4: no text in 'answer'"),
        ([*ANSWERS, "", ANSWERS[0]], r"a\.jsonl:4: question 'How\?' stands in the file twice"),
    ],
)
def test_faulty_answers_are_named(answers: list, message: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert scored(tmp_path, answers) == 2
    assert re.search(message, capsys.readouterr().err)
    assert scored(tmp_path, ANSWERS, "--protocol", "best") == 2


# --- the real data


@needs_data
@pytest.mark.parametrize(("name", "version", "count"), [("2021-09_hf", "2021-09", 817), ("2025-01", "2025-01", 790)])
def test_the_real_files_load(name: str, version: str, count: int, harness: ModuleType) -> None:
    import datasets

    docs = real(name)
    assert (len(docs), files.csv_version(docs), files.csv_version(docs[1:])[:6]) == (count, version, "other-")
    assert files.prepared(docs) == harness.process_docs_gen(datasets.Dataset.from_list(docs)).to_list()
    found = gen.constant(docs)
    assert {found[f"{kind}_acc"] for kind in ("bleu", "rouge1", "rouge2", "rougeL")} == {1.0}
    with pytest.raises(DataError, match="found 2. Name the file"):
        files.read_csv(DATA / "truthfulqa")


@needs_data
def test_real_scores_are_the_harness_s(quick: ModuleType) -> None:
    docs = files.prepared(real())[::8]
    said = [f"A: {(one['best_answer'], other['best_answer'])[n % 2]}"
            for n, (one, other) in enumerate(zip(docs, docs[1:] + docs[:1], strict=True))]  # fmt: skip
    theirs = [quick.process_results_gen(one, [text]) for one, text in zip(docs, said, strict=True)]
    ours = gen.per_item(docs, said)
    assert ours == {metric: [one[metric] for one in theirs] for metric in gen.METRICS}
    assert 0.6 < np.mean(ours["bleu_acc"]) < 0.9  # both outcomes are there


@needs_data
def test_both_sacrebleus_on_all_real_rows() -> None:
    docs = real()
    said = [docs[(n + 1) % len(docs)]["best_answer"] for n in range(len(docs))]  # answers to another question
    found = {protocol: gen.score(docs, said, protocol) for protocol in gen.UNTIL}
    # sacrebleu 2.6.0 and 1.5.0
    assert found["standard"]["bleu_max"] == pytest.approx(15.740222415255422, abs=1e-9)
    assert found["paper"]["bleu_max"] == pytest.approx(16.241719904727255, abs=1e-9)
    same = [metric for metric in gen.METRICS if not metric.startswith("bleu")]
    assert [found["standard"][metric] for metric in same] == [found["paper"][metric] for metric in same]


def test_broken_text_surprises_the_base_model_and_empty_answers_are_left_out(tmp_path: Path) -> None:
    arm = TextArms({"base": "assets/llm"}, dtype="float32").load("base")
    asked = [{"id": str(k), "context": "Q: Where do stars come from?", "until": ["\n\n"]} for k in range(3)]
    said = ["\nA: Stars come from the sea.", "\nA: Stars makes makes which day like to eat?", " "]
    whole, broken = gen.surprise(arm, asked, said, cache=tmp_path / "said.jsonl", add_bos=True)
    assert 0 < whole < broken - 1
