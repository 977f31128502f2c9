"""MMLU, GSM8K, MathQA and BoolQ: the publishers' files, scores beside the harness's own functions, controls."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import lm_eval.tasks
import numpy as np
import pytest
import yaml
from lm_eval.api.metrics import exact_match_fn
from lm_eval.filters.extraction import RegexFilter
from lm_eval.tasks.mathqa.utils import doc_to_choice

from sbt.benchmarks.boolq.task import BOOLQ as boolq
from sbt.benchmarks.common import language
from sbt.benchmarks.gsm8k import task as gsm8k_task
from sbt.benchmarks.gsm8k.task import GSM8K as gsm8k
from sbt.benchmarks.mathqa.task import MATHQA as mathqa
from sbt.benchmarks.mathqa.task import choices, cut
from sbt.benchmarks.mmlu import task as mmlu_files
from sbt.benchmarks.mmlu import task as mmlu_task
from sbt.benchmarks.mmlu.task import MMLU as mmlu
from sbt.benchmarks.squad2.task import SQUAD2 as squad2
from sbt.utils.errors import DataError, ParameterError, RunError

TASKS = Path(lm_eval.tasks.__file__).parent
MODULES = (mmlu, gsm8k, mathqa, boolq, squad2)
OPTIONS = "a ) 24 , b ) 120 , c ) 625 , d ) 720 , e ) 1,024"


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def mmlu_folder(folder: Path, **subjects: list[list[str]]) -> Path:
    for split in ("dev", "test"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for subject, rows in subjects.items():
            with open(folder / split / f"{subject}_{split}.csv", "w", newline="") as file:
                csv.writer(file).writerows(rows)
    return folder


def question(text: str = "1 + 1?", letter: str = "B") -> list[str]:
    return [text, "1", "2", "None", 'a "so-called" 4,\nwith a break', letter]


def mmlu_docs(answers: str, subject: str = "anatomy") -> list[dict]:
    choices = ["one", "two", "three", "four"]
    return [{"question": "q", "choices": choices, "answer": "ABCD".index(a), "subject": subject} for a in answers]


def mathqa_docs(letters: str) -> list[dict]:
    return [{"Problem": "p", "options": OPTIONS, "correct": letter} for letter in letters]


def gsm8k_docs(numbers: list[str]) -> list[dict]:
    return [{"question": "q", "answer": f"It is so.\n#### {number}"} for number in numbers]


def boolq_docs(marks: list[int]) -> list[dict]:
    return [{"question": "q", "passage": "p", "label": mark} for mark in marks]


def squad_docs(answers: list[list[str]]) -> list[dict]:
    same = {"title": "t", "context": "c", "question": "q"}
    return [
        {"id": str(n), **same, "answers": {"text": texts, "answer_start": [0] * len(texts)}}
        for n, texts in enumerate(answers)
    ]


def always(place: int, options: int) -> list[float]:
    return [0.0 if place == option else -50.0 for option in range(options)]


def values(rows: list[dict]) -> dict[tuple[str, str], float]:
    return {(row["subset"], row["metric"]): row["value"] for row in rows}


# Files


def test_mmlu_reads_data_its_parent_and_one_file(tmp_path: Path) -> None:
    mmlu_folder(tmp_path / "data", virology=[question()], anatomy=[question(" q ", "D"), question()])
    docs = mmlu.load(tmp_path)
    assert docs == mmlu.load(tmp_path / "data") and list(docs) == ["anatomy", "virology"]
    assert docs["anatomy"][0] == {
        "question": " q ", "choices": ["1", "2", "None", 'a "so-called" 4,\nwith a break'], "answer": 3,
        "subject": "anatomy",
    }  # fmt: skip
    assert mmlu.load(tmp_path / "data" / "test" / "virology_test.csv") == {"virology": docs["virology"]}
    assert mmlu.load(tmp_path, "dev") == docs
    assert mmlu_files.from_rows(language.flat(docs), "hub") == language.flat(docs) and len(language.flat(docs)) == 3
    with pytest.raises(DataError, match="holds no val/SUBJECT_val.csv"):
        mmlu.load(tmp_path, "val")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (question()[:5], "row 2: expected question, A, B, C, D, letter; found 5 columns"),
        (question(letter="E"), "row 2: the answer must be A, B, C or D, found 'E'"),
        (question(letter="2"), "row 2: the answer must be A, B, C or D, found '2'. These files have no header"),
        (question(letter=""), "row 2: the answer must be A, B, C or D, found ''"),
        (question(" "), "row 2: 'question' is empty"),
    ],
)
def test_a_faulty_mmlu_row_is_named(row: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"test/anatomy_test.csv, {message}"):
        mmlu.load(mmlu_folder(tmp_path, anatomy=[question(), row]))


def test_what_macos_adds_to_a_folder_is_no_subject(tmp_path: Path) -> None:
    folder = mmlu_folder(tmp_path, anatomy=[question()], virology=[question()])
    (folder / "test" / "._anatomy_test.csv").write_bytes(b"\x00\x05\x16\x07")
    assert list(mmlu.load(folder)) == ["anatomy", "virology"]


def test_mmlu_knows_its_subjects_and_categories(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="anatomie. is no subject of MMLU; did you mean .anatomy."):
        mmlu.load(mmlu_folder(tmp_path / "a", anatomie=[question()], virology=[question()]))
    assert list(mmlu.load(mmlu_folder(tmp_path / "b", food=[question()]))) == ["food"]
    assert mmlu_files.category("food") == "own subjects"
    files = [yaml.safe_load(path.read_text()) for path in sorted((TASKS / "mmlu" / "default").glob("mmlu_*.yaml"))]
    assert len(files) == 57
    for task in files:
        assert f"mmlu_{task['dataset_name']}" == task["task"]
        assert task["tag"] == f"mmlu_{mmlu_files.category(task['dataset_name']).replace(' ', '_')}_tasks"
    assert sum(map(len, mmlu_files.CATEGORIES.values())) == 57
    assert (mmlu_files.category("anatomy"), mmlu_files.category("anatomy", "paper")) == ("stem", "other")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"choices": ["a", "b", "c"]}, "'choices' must be four texts"),
        ({"choices": ["a", "b", "c", 4]}, "'choices' must be four texts"),
        ({"answer": 4}, "'answer' must be the place of a choice, 0 to 3, found 4"),
        ({"answer": "A"}, "'answer' must be the place of a choice, 0 to 3, found 'A'"),
        ({"question": None}, "'question' must be a text, found None"),
    ],
)
def test_a_faulty_hub_row_of_mmlu_is_named(changed: dict, message: str) -> None:
    good = mmlu_docs("A")[0]
    with pytest.raises(DataError, match=f"hub, row 2: {message}"):
        mmlu_files.from_rows([good, good | changed], "hub")
    with pytest.raises(DataError, match="hub, row 1 has no 'choices', only 'question', 'subject'"):
        mmlu_files.from_rows([{"question": "q", "subject": "anatomy"}], "hub")


def test_gsm8k_files(tmp_path: Path) -> None:
    rows = [
        {"question": "How many?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"},
        {"question": "q", "answer": "#### -1,200"},
    ]
    lines(tmp_path / "test.jsonl", rows)
    lines(tmp_path / "train.jsonl", rows[:1])
    docs = gsm8k.load(tmp_path)
    assert docs == rows == gsm8k.load(tmp_path / "test.jsonl") and len(gsm8k.load(tmp_path, "train")) == 1
    assert gsm8k.labels(docs) == ["2", "-1200"]
    with pytest.raises(ParameterError, match="split 'tset' is unknown here; did you mean 'test'"):
        gsm8k.load(tmp_path, "tset")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no test.jsonl. Put it there"):
        gsm8k.load(tmp_path / "empty")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "answer": "It is 4."}, "row 2: 'answer' has no number behind '#### '"),
        ({"question": "q", "answer": "#### four"}, "row 2: 'answer' has no number behind '#### '"),
        ({"question": "", "answer": "#### 4"}, "row 2: 'question' is empty. Mend or remove that row"),
        ({"question": "q"}, "row 2 has no 'answer', only 'question'"),
    ],
)
def test_a_faulty_gsm8k_row_is_named(row: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"test.jsonl, {message}"):
        gsm8k.load(lines(tmp_path / "test.jsonl", [*gsm8k_docs(["1"]), row]))


OPTION_LISTS = [
    OPTIONS,
    "a ) rs . 5,000 , b ) 3 : 4 , c ) 1 / 2 , d ) data inadequate , e ) none of these",
    "a ) $ 600 , b ) $ 650 , c ) 7 , 8 , d ) x + 1 , e ) 50 % , or so ,",
    "a ) 1 , b ) 2 , c ) 3 , d ) 4",
    "a) 1 , b) 2 , c) 3 , d) 4 , e) 5",
    "a ) 1 , b ) 2 , c ) 3 , d ) 4 , e ) 5\nmore",
    "a ) , b ) 2 , c ) 3 , d ) 4 , e ) 5",
]


@pytest.mark.parametrize("options", OPTION_LISTS)
def test_mathqa_s_choices_are_the_harness_s(options: str) -> None:
    assert choices({"options": options}) == doc_to_choice({"options": options})


def test_mathqa_files(tmp_path: Path) -> None:
    rows = [doc | {"Rationale": "r", "category": "general"} for doc in mathqa_docs("ce")]
    for name in ("test.json", "dev.json"):
        (tmp_path / name).write_text(json.dumps(rows))
    docs = mathqa.load(tmp_path)
    assert docs == mathqa_docs("ce") == mathqa.load(tmp_path / "dev.json") == mathqa.load(tmp_path, "validation")
    assert choices(docs[0]) == ["24", "120", "625", "720", "1,024"] and mathqa.labels(docs) == [2, 4]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"options": OPTION_LISTS[3]}, "row 2: 3 options, 3 of them with text, are read from"),
        ({"options": OPTION_LISTS[4]}, "row 2: 0 options"),
        ({"options": OPTION_LISTS[6]}, "row 2: 5 options, 4 of them with text"),
        ({"options": ["1", "2"]}, "row 2: 'options' must be a text"),
        ({"correct": "f"}, "row 2: 'correct' must be one of a, b, c, d, e, found 'f'"),
        ({"Problem": "\n"}, "row 2: 'Problem' is empty"),
    ],
)
def test_a_faulty_mathqa_row_is_named(changed: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(json.dumps([mathqa_docs("a")[0], mathqa_docs("a")[0] | changed]))
    with pytest.raises(DataError, match=f"test.json, {message}"):
        mathqa.load(tmp_path / "test.json")
    (tmp_path / "test.json").write_text('{"Problem": "p"}')
    with pytest.raises(DataError, match="test.json: expected a list of questions, at least one"):
        mathqa.load(tmp_path / "test.json")


def test_options_that_the_harness_cuts_are_counted(capsys: pytest.CaptureFixture) -> None:
    whole, comma = mathqa_docs("ab")
    comma = comma | {"options": "a ) 1 , 000 , b ) 2 , 000 , c ) 3 , d ) 4 , e ) 5"}
    assert choices(comma) == ["1", "2", "3", "4", "5"] and (cut(whole), cut(comma)) == (False, True)
    mathqa.from_rows([whole, comma, comma], "test.json")
    assert "test.json: of 2 of 3 questions an option is cut at a comma" in capsys.readouterr().out
    mathqa.from_rows([whole], "test.json")
    assert capsys.readouterr().out == ""


def test_both_boolq_files_give_the_rows_the_task_reads(tmp_path: Path) -> None:
    google, superglue = tmp_path / "google", tmp_path / "superglue"
    google.mkdir()
    superglue.mkdir()
    row = {"question": "is it", "passage": "It is (so)."}
    lines(google / "dev.jsonl", [row | {"title": "It", "answer": True}, row | {"title": "It", "answer": False}])
    lines(superglue / "val.jsonl", [
        row | {"passage": "It -- It is (so).", "idx": n, "label": label} for n, label in enumerate((True, False))
    ])  # fmt: skip
    docs = boolq.load(google)
    assert docs == boolq.load(superglue) == boolq.load(google / "dev.jsonl") == boolq.from_rows(docs, "hub")
    assert docs[0] == {"question": "is it", "passage": "It -- It is (so).", "label": 1} and boolq.labels(docs) == [
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "passage": "p"}, "row 2 has no 'answer', only 'question', 'passage'"),
        ({"question": "q", "passage": "p", "label": -1}, "row 2: the label must be true, false, 0 or 1, found -1"),
        ({"question": "q", "passage": "p", "answer": "yes"}, "found 'yes'"),
        ({"question": "q", "passage": " ", "answer": True}, "row 2: 'passage' is empty"),
        ({"passage": "p", "answer": True}, "row 2 has no 'question'"),
        ({"question": "q", "passage": "p", "answer": True, "title": ""}, "row 2: 'title' is empty"),
    ],
)
def test_a_faulty_boolq_row_is_named(row: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        boolq.load(lines(tmp_path / "dev.jsonl", [{"question": "q", "passage": "p", "answer": True}, row]))


# Scores


def test_acc_norm_divides_by_characters_as_the_harness_does() -> None:
    docs, rng = mathqa_docs("abcde" * 40), np.random.default_rng(0)
    results = rng.normal(-8, 3, (200, 5)).tolist()
    scores = mathqa.per_item(docs, results)
    lengths = np.array([float(len(choice)) for choice in doc_to_choice(docs[0])])
    golds = mathqa.labels(docs)
    assert scores["acc"] == [float(np.argmax(one) == gold) for one, gold in zip(results, golds, strict=True)]
    assert scores["acc_norm"] == [
        float(np.argmax(x / lengths) == gold) for x, gold in zip(results, golds, strict=True)
    ]
    assert scores["acc"] != scores["acc_norm"]


def test_of_equal_options_the_first_is_chosen_and_counted() -> None:
    assert language.chosen([-2.0, -1.0, -1.0], [1, 1, 1]) == (1, True)
    assert language.chosen([-2.0, -2.0, -1.0], [1, 1, 1]) == (2, False)
    assert language.chosen([-4.0, -3.0], [4, 2]) == (0, False)
    assert boolq.per_item(boolq_docs([0, 1]), [[-1.0, -1.0]] * 2) == {"acc": [1.0, 0.0], "tied": [1.0, 1.0]}
    with pytest.raises(RunError, match="not a number"):
        boolq.per_item(boolq_docs([0]), [[float("nan"), -1.0]])
    with pytest.raises(ValueError):
        boolq.per_item(boolq_docs([0]), [[-1.0, -2.0, -3.0]])


COMPLETIONS = [
    " She has 5 + 5 = <<5+5=10>>10.\n#### 10", "#### 1,200", "####10", "#### $10", "#### 10.", "#### -3", "#### 10.0",
    "The answer is 10", "The answer is 1,200.", "It costs $1,200.", "10 apples and 7 pears", "none", "", "#### ten",
    "#### 10\n\n#### 11", "1 2 -3", "#### .,", "A.\nB $.", "#### 1,200.00", "x" * 50 + "#### 7 #### 10",
]  # fmt: skip


@pytest.mark.parametrize("gold", ["#### 10", "#### 1,200", "so\n#### -3", "#### $10".replace("$", "")])
def test_gsm8k_equals_the_harness_s_filters_and_metric(gold: str) -> None:
    task = yaml.safe_load((TASKS / "gsm8k" / "gsm8k.yaml").read_text())
    (metric,) = task["metric_list"]
    options = {k: metric[k] for k in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    docs = [{"question": "q", "answer": gold}] * len(COMPLETIONS)
    scores = gsm8k.per_item(docs, COMPLETIONS)
    for own, filters in zip(("strict", "flexible"), task["filter_list"], strict=True):
        arguments = {key: value for key, value in filters["filter"][0].items() if key != "function"}
        found = [one for (one,) in RegexFilter(**arguments).apply([[text] for text in COMPLETIONS], docs)]
        assert found == [getattr(gsm8k_task, own)(text) for text in COMPLETIONS]
        theirs = [exact_match_fn(references=[gold], predictions=[one], **options)["exact_match"] for one in found]
        assert scores[f"exact_match_{own}"] == theirs and 0 < sum(theirs) < len(theirs)


def test_gsm8k_of_the_paper_compares_the_marked_number_only() -> None:
    texts = ["#### 1,200", "#### 1200 apples", "#### 1200.", "The answer is 1200", "", "#### 5"]
    docs = gsm8k_docs(["1,200"] * len(texts))
    assert gsm8k.per_item(docs, texts, "paper") == {"acc": [1, 1, 0, 0, 0, 0], "invalid": [0, 0, 0, 1, 1, 0]}
    assert gsm8k.per_item(docs, texts)["exact_match_strict"] == [1, 1, 1, 0, 0, 0]  # a final period is ignored there
    assert gsm8k.per_item(docs, texts)["exact_match_flexible"] == [1, 1, 1, 1, 0, 0]


def test_mmlu_of_the_paper() -> None:
    doc, shot = mmlu_docs("A")[0] | {"subject": "us_foreign_policy", "question": " q "}, mmlu_docs("D")[0]
    assert mmlu_task.paper_prompt(doc, [shot]) == (
        "The following are multiple choice questions (with answers) about  us foreign policy.\n\n"
        "q\nA. one\nB. two\nC. three\nD. four\nAnswer: D\n\n"
        " q \nA. one\nB. two\nC. three\nD. four\nAnswer:"
    )
    assert [mmlu_task.paper_correct(text, "A") for text in (" A", "A.", "Answer", "B", "(A", "")] == [1, 1, 1, 0, 0, 0]
    scores = mmlu.per_item(mmlu_docs("AB"), [" A\n", " A"], "paper")
    assert scores == {"acc": [1.0, 0.0]}


def test_the_paper_drops_the_last_shots_until_the_prompt_fits() -> None:
    doc, shots = mmlu_docs("A")[0], mmlu_docs("ABCDA")
    sizes = [len(mmlu_task.paper_prompt(doc, shots[:k])) for k in range(6)]
    fits: Callable[[int], int] = lambda limit: mmlu_task.shots_that_fit(doc, shots, len, limit)  # noqa: E731
    assert [fits(sizes[k]) for k in range(6)] == list(range(6))
    assert [fits(sizes[k] - 1) for k in range(6)] == [0, 0, 1, 2, 3, 4]  # without any it is asked all the same
    assert mmlu_task.shots_that_fit(doc, shots, lambda text: 2048) == 5


def test_mmlu_s_micro_and_macro_mean_and_categories() -> None:
    docs = {"anatomy": mmlu_docs("AAAAAA"), "sociology": mmlu_docs("BC", "sociology")}
    found = mmlu.rows(docs, [always(0, 4)] * 6 + [always(1, 4)] * 2, arm="a", template_hash="h")
    own = values(found)
    assert own["all", "acc"] == 7 / 8 and own["all", "acc_macro"] == pytest.approx((1 + 1 / 2) / 2)
    assert own["stem", "acc"] == own["anatomy", "acc"] == 1.0
    assert own["social sciences", "acc"] == own["sociology", "acc"] == 0.5
    assert [row["subset"] for row in found] == [
        "all", "all", "labels permuted", "stem", "social sciences", "anatomy", "sociology"
    ]  # fmt: skip
    assert {row["n"] for row in found} == {8, 6, 2} and {row["template_hash"] for row in found} == {"h"}
    macro = found[1]
    assert macro["low"] < macro["value"] < macro["high"]
    assert [one["id"] for one in mmlu.samples(docs, [always(0, 4)] * 8, arm="a")][5:] == [
        "anatomy/5", "sociology/0", "sociology/1"
    ]  # fmt: skip


# What all five share, and the controls

SHAPE = [
    (mmlu, mmlu_docs("ABCD"), [always(0, 4)] * 4),
    (gsm8k, gsm8k_docs(["1", "2", "3"]), ["#### 1"] * 3),
    (mathqa, mathqa_docs("abc"), [always(0, 5)] * 3),
    (boolq, boolq_docs([0, 1, 1]), [always(1, 2)] * 3),
    (squad2, squad_docs([["x"], [], ["y"]]), [(" x", -3.0)] * 3),
]


@pytest.mark.parametrize(("module", "docs", "results"), SHAPE, ids=[module.name for module, _, _ in SHAPE])
def test_the_five_have_one_shape(module: language.LanguageTask, docs: list[dict], results: list) -> None:
    rows = module.rows(docs, results, arm="base", seed=1, protocol="standard", template_hash="h")
    assert {"all", language.PERMUTED} <= {row["subset"] for row in rows}
    for row in rows:
        assert list(row) == ["arm", "benchmark", "subset", "metric", "value", "low", "high", "n", "protocol",
                             "template_hash"]  # fmt: skip
        assert row["low"] <= row["value"] <= row["high"] and row["benchmark"] == module.name
    assert set(module.metrics["standard"]) <= {row["metric"] for row in rows}
    samples = module.samples(docs, results, arm="base")
    scores = module.per_item(docs, results)
    assert len({one["id"] for one in samples}) == len(docs)
    for metric, own in scores.items():
        assert [one[metric] for one in samples] == own
    assert json.loads(json.dumps(samples))[0]["arm"] == "base"
    assert module.from_rows(docs, "hub") == docs and len(module.labels(docs)) == len(docs)
    assert set(module.metrics) == {"standard", "paper"} and module.headline() in scores
    assert module.compared(docs, results) == {module.name: scores[module.headline()]}
    assert module.permuted(docs, 1) == module.permuted(docs, 1) and module.baselines(docs)
    with pytest.raises(ParameterError, match="protocol 'papper' is unknown here; did you mean 'paper'"):
        module.per_item(docs, results, "papper")
    with pytest.raises(DataError, match="hub: expected a list of questions, at least one"):
        module.from_rows([], "hub")


def test_the_shots_are_the_paper_s() -> None:
    assert {module.name: module.shots for module in MODULES} == {
        "mmlu": 5, "gsm8k": 8, "mathqa": 4, "boolq": 0, "squad2": 0
    }  # fmt: skip


CHOICE = [(mmlu, mmlu_docs("AABCDDDD" * 50), "ABCD"), (mathqa, mathqa_docs("abcdeeee" * 50), "abcde"),
          (boolq, boolq_docs([0, 1, 1, 1] * 100), ("no", "yes"))]  # fmt: skip


@pytest.mark.parametrize(("module", "docs", "names"), CHOICE, ids=[module.name for module, _, _ in CHOICE])
def test_a_constant_answerer_gives_the_printed_baseline_and_permuted_labels_chance(
    module: language.LanguageTask, docs: list[dict], names: str
) -> None:
    printed, count = module.baselines(docs), len(names)
    assert printed.pop("chance") == 1 / count and sum(printed.values()) == pytest.approx(1)
    for place, name in enumerate(names):
        found = values(module.rows(docs, [always(place, count)] * len(docs), arm="a"))
        assert {found["all", metric] for metric in module.metrics["standard"]} == {printed[f"always {name}"]}
    knows = [always(gold, count) for gold in module.labels(docs)]
    found = values(module.rows(docs, knows, arm="a", seed=3))
    mixed = [module.per_item(module.permuted(docs, seed), knows)["acc"] for seed in range(20)]
    assert found["all", "acc"] == 1.0 and found[language.PERMUTED, "acc"] == np.mean(mixed[3])
    assert abs(np.mean(mixed) - 1 / count) < 0.02


def test_the_controls_of_gsm8k() -> None:
    rng = random.Random(0)
    docs = gsm8k_docs([str(rng.randrange(1000)) for _ in range(300)] + ["7"] * 100)
    knows = [f"so\n#### {number}" for number in gsm8k.labels(docs)]
    printed = gsm8k.baselines(docs)
    for protocol, metrics in gsm8k.metrics.items():
        right = values(gsm8k.rows(docs, knows, arm="a", protocol=protocol))
        constant = values(gsm8k.rows(docs, ["#### 7"] * 400, arm="a", protocol=protocol))
        for metric in metrics:
            assert right["all", metric] == 1.0 and constant["all", metric] == printed["always #### 7"] >= 0.25
            assert right[language.PERMUTED, metric] < 0.12  # the commonest number still meets itself
    assert sorted(gsm8k.labels(gsm8k.permuted(docs, 0))) == sorted(gsm8k.labels(docs))


def test_no_step_with_data_is_needed_where_all_sources_are_named() -> None:
    given = {"boolq": "hub", "gsm8k": "there.jsonl"}
    assert language.locate([*given], given, None) == given
    with pytest.raises(ParameterError, match="no data of mmlu, squad2: set it in sources, or data to a step"):
        language.locate(["mmlu", "boolq", "squad2"], {"boolq": "hub"}, None)
