"""What is asked on pure text: the harness's own prompts over the micro-world's files, and the paper's."""

from collections.abc import Iterator
from pathlib import Path

import datasets
import lm_eval.tasks
import pytest
import tiny
import yaml
from transformers import PreTrainedTokenizerBase

from sbt import templates
from sbt.benchmarks.boolq import task as boolq
from sbt.benchmarks.common import text_tasks
from sbt.benchmarks.ethics import task as ethics
from sbt.benchmarks.gsm8k import task as gsm8k
from sbt.benchmarks.mathqa import task as mathqa
from sbt.benchmarks.mmlu import task as mmlu
from sbt.benchmarks.squad2 import task as squad2
from sbt.benchmarks.truthfulqa import csv_file, generation, mc_task
from sbt.benchmarks.truthfulqa import task as truthfulqa
from sbt.inference import harness
from sbt.microworld import facts, text_benchmarks
from sbt.utils import paths
from sbt.utils.errors import DataError, ParameterError

DATA = paths.real_data()
needs_data = pytest.mark.skipif(DATA is None, reason="the real TruthfulQA files are not here (SBT_DATA)")
NAMES = tuple(text_tasks.BENCHMARKS)
ENDS = {  # what stands before the answer, in a shot and in the question: it is there once a shot and once more
    "mmlu": "\nAnswer:",
    "gsm8k": "\nAnswer:",
    "mathqa": "\nAnswer:",
    "boolq": "?\nAnswer:",
    "squad2": "\n\nAnswer:",
}
YAMLS = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    text_benchmarks.write(folder, 0)
    return folder / "eval"


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerBase:
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def loaded(world: Path) -> dict[str, tuple]:
    return {name: text_tasks.load(name, world / name) for name in NAMES}


@pytest.fixture(scope="module")
def asked(loaded: dict) -> dict[str, dict[str, list[dict]]]:
    return {name: text_tasks.language(name, *loaded[name]) for name in NAMES}


def all_of(asked: dict[str, list[dict]]) -> list[dict]:
    return [one for requests in asked.values() for one in requests]


def contexts(asked: dict[str, list[dict]]) -> list[str]:
    return [one["context"] for one in all_of(asked)]


# --- the five language benchmarks


def test_every_doc_is_asked_once_and_in_order(asked: dict, loaded: dict) -> None:
    sizes = {"mmlu": 8 * 12, "gsm8k": 60, "mathqa": 60, "boolq": 100, "squad2": 81}
    assert {name: len(all_of(asked[name])) for name in NAMES} == sizes
    assert list(asked["mmlu"]) == [f"mmlu {subject}" for subject in loaded["mmlu"][0]] and len(asked["mmlu"]) == 8
    for name in NAMES:
        docs = mmlu.flat(loaded[name][0])
        field = {"mathqa": "Problem"}.get(name, "question")
        for doc, one in zip(docs, all_of(asked[name]), strict=True):
            assert (
                doc[field] in one["context"].rpartition("\n\n" if name in ("gsm8k", "mathqa", "mmlu") else "Title")[2]
            )
        for requests in asked[name].values():
            assert [one["id"] for one in requests] == [str(number) for number in range(len(requests))]


@pytest.mark.parametrize("name", NAMES)
def test_the_shots_of_the_paper_stand_in_the_prompt(name: str, asked: dict, loaded: dict) -> None:
    module, (_, examples) = text_tasks.BENCHMARKS[name], loaded[name]
    assert all(context.count(ENDS[name]) == module.SHOTS + 1 for context in contexts(asked[name]))
    assert all(context.endswith(ENDS[name]) for context in contexts(asked[name]))
    assert bool(examples) == bool(module.SHOTS)
    if name == "gsm8k":
        assert all(shot["answer"] in contexts(asked[name])[0] for shot in examples[:8])
        assert examples[8]["answer"] not in contexts(asked[name])[0]
    if name == "mmlu":
        first = next(iter(examples))
        blocks = contexts(asked[name])[0].split("\n\n")[1:6]
        assert [block[-1] for block in blocks] == [mmlu.LETTERS[shot["answer"]] for shot in examples[first][:5]]


def test_what_ends_an_answer_and_what_is_chosen_from(asked: dict, loaded: dict) -> None:
    assert {tuple(one["continuations"]) for one in all_of(asked["mmlu"])} == {(" A", " B", " C", " D")}
    assert {tuple(one["continuations"]) for one in all_of(asked["boolq"])} == {(" no", " yes")}
    for doc, one in zip(loaded["mathqa"][0], all_of(asked["mathqa"]), strict=True):
        assert one["continuations"] == [f" {choice}" for choice in mathqa.choices(doc)]
    assert {tuple(one["until"]) for one in all_of(asked["gsm8k"])} == {gsm8k.UNTIL["standard"]}
    for one in all_of(asked["squad2"]):
        assert (one["continuations"], tuple(one["until"])) == ([squad2.CONTINUATION], squad2.UNTIL["standard"])
    kinds = {name: {(True, False): "choice", (False, True): "generation", (True, True): "both"}[
        "continuations" in one, "until" in one] for name in NAMES for one in all_of(asked[name])}  # fmt: skip
    assert kinds == {name: text_tasks.BENCHMARKS[name].KIND["standard"] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_depends_on_the_right_answer(name: str, asked: dict, loaded: dict) -> None:
    docs, examples = loaded[name]
    other = text_tasks.BENCHMARKS[name].permuted(docs, 1)
    if name == "mmlu":
        other = {subject: [doc for doc in other if doc["subject"] == subject] for subject in docs}
    labels = text_tasks.BENCHMARKS[name].labels
    assert sum(a != b for a, b in zip(labels(docs), labels(other), strict=True)) > 30, "the labels are the same"
    again = text_tasks.language(name, other, examples)
    assert again == asked[name]
    if name == "gsm8k":  # the control: the answers of the examples are in it
        assert text_tasks.language(name, docs, gsm8k.permuted(examples, 1)) != asked[name]


@pytest.mark.parametrize("name", ["mmlu", "gsm8k", "mathqa"])
def test_examples_at_random_differ_from_question_to_question(name: str, asked: dict, loaded: dict) -> None:
    docs, examples = loaded[name]
    drawn = text_tasks.language(name, docs, examples, fewshot="random")
    assert drawn == text_tasks.language(name, docs, examples, fewshot="random"), "not the same twice"
    for task, requests in asked[name].items():
        mark = "\n\nQuestion" if name != "mmlu" else "\n\n"
        first, random = ([one["context"].rpartition(mark)[0] for one in found] for found in (requests, drawn[task]))
        assert len(set(first)) == 1 and len(set(random)) > len(random) // 2
        ends = ([one["context"].rpartition(mark)[2] for one in found] for found in (requests, drawn[task]))
        assert next(ends) == next(ends)
    assert all(context.count(ENDS[name]) == text_tasks.BENCHMARKS[name].SHOTS + 1 for context in contexts(drawn))


def test_with_a_conversation_every_shot_is_a_turn(loaded: dict, words: PreTrainedTokenizerBase) -> None:
    docs, examples = loaded["gsm8k"]
    [one] = text_tasks.language("gsm8k", docs[:1], examples, conversation="v1", tokenizer=words)["gsm8k"]
    assert one["context"].count("ASSISTANT:") == 9 and one["context"].endswith("ASSISTANT:")
    [one] = text_tasks.language("boolq", loaded["boolq"][0][:1], conversation="v1", tokenizer=words)["boolq"]
    assert one["continuations"] == ["no", "yes"]


def test_gsm8k_of_the_paper_stops_elsewhere_and_asks_the_same(loaded: dict, asked: dict) -> None:
    found = text_tasks.language("gsm8k", *loaded["gsm8k"], protocol="paper")
    assert contexts(found) == contexts(asked["gsm8k"])
    assert {tuple(one["until"]) for one in all_of(found)} == {(":", "Question:", "Question")}
    for name in ("mathqa", "boolq", "squad2"):
        assert text_tasks.language(name, *loaded[name], protocol="paper") == asked[name]


def test_mmlu_of_the_paper(loaded: dict, words: PreTrainedTokenizerBase) -> None:
    docs, examples = loaded["mmlu"]
    with pytest.raises(ParameterError, match="needs a tokenizer"):
        text_tasks.language("mmlu", docs, examples, protocol="paper")
    found = text_tasks.language("mmlu", docs, examples, protocol="paper", tokenizer=words)
    assert list(found) == [f"mmlu {subject}" for subject in docs] and len(all_of(found)) == 96
    for subject in docs:
        for number, one in enumerate(found[f"mmlu {subject}"]):
            assert one["context"].startswith(
                f"The following are multiple choice questions (with answers) about  {subject}."
            )
            assert one["context"] == mmlu.paper_prompt(docs[subject][number], examples[subject])
            assert {**one, "context": ""} == {"id": str(number), "context": "", "until": [], "max_new_tokens": 2}
    long = {subject: [{**shot, "question": "a long " * 200} for shot in shots] for subject, shots in examples.items()}
    one = text_tasks.language("mmlu", docs, long, protocol="paper", tokenizer=words)["mmlu fear"][0]
    shots = one["context"].count("\nAnswer:") - 1
    assert 0 < shots < 5 and len(words(one["context"])["input_ids"]) <= mmlu.MAX_PROMPT_TOKENS


def test_mmlu_introduces_its_subjects_in_the_harness_s_words() -> None:
    doc = {"question": "Is it?", "choices": ["a", "b", "c", "d"], "answer": 1}
    subjects = [*sorted(one for known in mmlu.CATEGORIES.values() for one in known), "colour_and_shape"]
    docs = {subject: [{**doc, "subject": subject}] for subject in subjects}
    found = text_tasks.language("mmlu", docs, {subject: rows * 5 for subject, rows in docs.items()})
    block = "Is it?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    for subject in subjects:
        words = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        if subject != "colour_and_shape":
            assert yaml.safe_load((YAMLS / f"mmlu_{subject}.yaml").read_text())["description"] == words
        [one] = found[f"mmlu {subject}"]
        assert one["context"] == words + f"{block} B\n\n" * 5 + block
    assert len(subjects) == 58


def test_answers_come_back_in_the_order_of_the_docs(asked: dict, loaded: dict) -> None:
    answers = {task: [one["context"] for one in requests] for name in NAMES for task, requests in asked[name].items()}
    for name in NAMES:
        assert text_tasks.flat(name, answers) == contexts(asked[name])
    result = [[float(place == doc["answer"]) for place in range(4)] for doc in mmlu.flat(loaded["mmlu"][0])]
    right = {}
    for subject, docs in loaded["mmlu"][0].items():
        right[f"mmlu {subject}"], result = result[: len(docs)], result[len(docs) :]
    scores = mmlu.per_item(loaded["mmlu"][0], text_tasks.flat("mmlu", right))
    assert set(scores["acc"]) == {1.0}


def test_wrong_names_are_errors_with_a_suggestion(world: Path, loaded: dict) -> None:
    with pytest.raises(ParameterError, match="language benchmark 'gsm8' is unknown; did you mean 'gsm8k'"):
        text_tasks.load("gsm8", world)
    with pytest.raises(ParameterError, match="fewshot 'last' is unknown"):
        text_tasks.language("gsm8k", *loaded["gsm8k"], fewshot="last")
    for name in NAMES:
        with pytest.raises(ParameterError, match="protocol 'papr' is unknown here; did you mean 'paper'"):
            text_tasks.language(name, *loaded[name], protocol="papr")
    with pytest.raises(ParameterError, match="protocol 'papr' is unknown here"):
        text_tasks.moral({}, protocol="papr")
    with pytest.raises(DataError, match="holds no test.jsonl"):
        text_tasks.load("gsm8k", world / "boolq")


# --- ETHICS


@pytest.fixture(scope="module")
def dilemmas(world: Path) -> dict[tuple[str, str], list[dict]]:
    keys = [(subset, split) for subset in ethics.SUBSETS for split in ethics.SPLITS]
    return {key: text_tasks.load_ethics(world / "ethics", *key) for key in keys}


def test_ethics_asks_every_row_of_every_subset_and_split(dilemmas: dict) -> None:
    found = text_tasks.moral(dilemmas)
    assert list(found) == [f"{subset} {split}" for subset, split in dilemmas]
    for (subset, split), docs in dilemmas.items():
        requests = found[f"{subset} {split}"]
        assert len(requests) == len(docs) > 10
        options = [f" {option}" for option in ethics.options(subset)]
        assert all(one["continuations"] == options for one in requests)
        if subset != "utilitarianism":  # its order is drawn by the text, and is the label: ethics.labels
            other = {(subset, split): [{**doc, "label": 1 - doc["label"]} for doc in docs]}
            assert text_tasks.moral(other) == {f"{subset} {split}": requests}
            text = docs[3]["input" if subset == "commonsense" else "scenario"]
            assert text in requests[3]["context"]


def test_only_deontology_was_asked_otherwise(dilemmas: dict) -> None:
    dilemmas = {key: docs for key, docs in dilemmas.items() if key[1] == "test"}
    padded = [{**doc, "excuse": f"{doc['excuse']} "} for doc in dilemmas["deontology", "test"]]
    dilemmas["deontology", "test"] = padded
    new, old = (text_tasks.moral(dilemmas, protocol=protocol) for protocol in ("standard", "paper"))
    differ = {task for task in new if new[task] != old[task]}
    assert differ == {"deontology test"}
    for doc, one, other in zip(padded, new["deontology test"], old["deontology test"], strict=True):
        said = f"{doc['scenario']} {doc['excuse']}"
        assert other["context"].endswith(f'"{said}"\nAnswer:') and said.endswith(" ")
        assert one["context"].endswith(f'"{said[:-1]}"\nAnswer:')
        assert one["continuations"] == other["continuations"] == [" unreasonable", " reasonable"]


# --- TruthfulQA


def targets(item: dict) -> dict:
    """The item as a row of the hub."""
    row = {"question": item["question"]}
    for name in ("mc1", "mc2"):
        choices, labels = map(list, zip(*item[name], strict=True))
        row[f"{name}_targets"] = {"choices": choices, "labels": labels}
    return row


def of_the_harness(items: list[dict]) -> Iterator[tuple[dict, dict]]:
    rows = [targets(item) for item in items]
    found = [harness.requests(harness.task(f"truthfulqa/truthfulqa_{name}.yaml", rows)) for name in ("mc1", "mc2")]
    return zip(*found, strict=True)


def check_choices(items: list[dict]) -> None:
    ours, twice = truthfulqa.requests(items, "harness"), truthfulqa.requests_of_harness(items)
    for number, (mc1, mc2) in enumerate(of_the_harness(items)):
        assert ours[number]["context"] == mc1["context"] == mc2["context"]
        assert ours[number]["continuations"] == list(dict.fromkeys(mc1["continuations"] + mc2["continuations"]))
        for one, theirs in zip(twice[2 * number :], (mc1, mc2), strict=False):
            assert {**one, "id": ""} == {**theirs, "id": ""}
        length = {c: float(len(c)) for c in ours[number]["continuations"]}
        [scored] = truthfulqa.unpack(items[number : number + 1], [[length[c] for c in ours[number]["continuations"]]])
        assert scored == {"mc1": [length[c] for c in mc1["continuations"]],
                          "mc2": [length[c] for c in mc2["continuations"]]}  # fmt: skip
    assert number + 1 == len(items) and len(twice) == 2 * len(items)


def check_questions(docs: list[dict]) -> None:
    theirs = harness.requests(harness.task("truthfulqa/truthfulqa_gen.yaml", docs))
    for ours, one in zip(generation.requests(docs, "harness"), theirs, strict=True):
        assert (ours["context"], ours["until"]) == (one["context"], one["until"])


HAND = [
    {"question": "Why?", "mc1": [("a", 1), ("b", 0)], "mc2": [("a", 1), ("c", 1), ("b", 0)]},
    {"question": "How is it, then?", "mc1": [("b", 0), ("One.", 1)], "mc2": [("x", 0), ("One.", 1), ("b", 0)]},
]


def test_truthfulqa_s_prompts_are_the_harness_s() -> None:
    check_choices(HAND)
    check_choices(mc_task.from_rows(facts.multiple_choice(), "the micro-world"))
    [theirs, _], *_ = of_the_harness(HAND)  # the control
    assert truthfulqa.requests(HAND)[0]["context"] == "Q: Why?\nA:" != theirs["context"]
    rows = [
        {"question": " Why? ", "best_answer": "a", "correct_answers": ["a", "b."], "incorrect_answers": ["c"]},
        {"question": "How?", "best_answer": "a", "correct_answers": ["a."], "incorrect_answers": ["", "c"]},
    ]
    check_questions(rows)


@needs_data
def test_all_real_prompts_of_truthfulqa_are_the_harness_s() -> None:
    items, docs, version = text_tasks.load_truthfulqa(DATA / "truthfulqa", "2021-09")
    assert (len(items), len(docs), version) == (817, 817, "2021-09")
    check_choices(items)
    check_questions(docs)


@pytest.mark.parametrize("conversation", ["", "v1", "llava_llama_2"])
def test_as_chat_is_what_the_harness_does_with_a_template(
    conversation: str, words: PreTrainedTokenizerBase, loaded: dict
) -> None:
    assert not conversation or templates.load(conversation)
    tasks = {
        "mc1": harness.task("truthfulqa/truthfulqa_mc1.yaml", [targets(item) for item in HAND]),
        "gen": harness.task("truthfulqa/truthfulqa_gen.yaml", generation.prepared([
            {"question": "Why?", "correct_answers": ["a"], "incorrect_answers": ["b"]}])),
        "boolq": harness.task(text_tasks.FILES["boolq"], loaded["boolq"][0][:5]),
    }  # fmt: skip
    for name, over in tasks.items():
        plain = harness.requests(over)
        chat = harness.requests(over, words, conversation=conversation)
        assert harness.as_chat(plain, words, conversation) == chat, name
        assert (plain == chat) == (conversation == ""), name


# --- the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, loaded: dict) -> list[tuple]:
    """Stands for the hub's data sets; what was asked of it."""
    rows = {"openai/gsm8k": [{"question": "1 + 1?", "answer": "#### 2"}]}
    rows["regisss/math_qa"] = [{**loaded["mathqa"][0][0], "Rationale": "", "category": "general"}]
    rows["aps/super_glue"] = [{"question": "is it", "passage": "It -- is.", "idx": 0, "label": 1}]
    rows["lighteval/squad_v2"] = loaded["squad2"][0][:2]
    rows["EleutherAI/hendrycks_ethics"] = [{"label": 1, "scenario": "a", "group_id": 7}]
    rows["truthfulqa/truthful_qa"] = [
        {**targets(item), "type": "x", "category": "y", "best_answer": "a", "correct_answers": ["a"],
         "incorrect_answers": ["b"], "source": "z"} for item in HAND
    ]  # fmt: skip
    asked = []

    def load(path: str, name: str | None, split: str) -> datasets.Dataset:
        asked.append((path, name, split))
        if path == "cais/mmlu":
            one = {"question": split, "choices": list("abcd"), "answer": 3, "subject": name}
            return datasets.Dataset.from_list([one])
        return datasets.Dataset.from_list(rows[path])

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_the_five_come_from_the_hub_in_the_same_fields(hub: list, loaded: dict) -> None:
    expected = {
        "gsm8k": [("openai/gsm8k", "main", "test"), ("openai/gsm8k", "main", "train")],
        "mathqa": [("regisss/math_qa", None, "test"), ("regisss/math_qa", None, "train")],
        "boolq": [("aps/super_glue", "boolq", "validation")],
        "squad2": [("lighteval/squad_v2", None, "validation")],
    }
    for name, sources in expected.items():
        hub.clear()
        docs, examples = text_tasks.load(name, "hub")
        assert hub == sources
        assert docs[0].keys() == loaded[name][0][0].keys() and bool(examples) == (len(sources) == 2)
        shots = list(examples) * 8
        assert len(text_tasks.language(name, docs, shots)[name]) == len(docs)
    assert boolq.labels(text_tasks.load("boolq", text_tasks.HUB)[0]) == [1]


def test_mmlu_comes_from_the_hub_subject_by_subject(hub: list) -> None:
    docs, examples = text_tasks.load("mmlu", "hub")
    assert sorted(hub) == sorted(("cais/mmlu", name, split) for name in docs for split in ("test", "dev"))
    assert sorted(docs) == sorted(one for known in mmlu.CATEGORIES.values() for one in known) == sorted(examples)
    assert docs["anatomy"] == [{"question": "test", "choices": list("abcd"), "answer": 3, "subject": "anatomy"}]
    assert examples["anatomy"][0]["question"] == "dev"


def test_ethics_and_truthfulqa_come_from_the_hub(hub: list) -> None:
    assert text_tasks.load_ethics("hub", "justice", "test") == [{"label": 1, "scenario": "a", "group_id": 7}]
    with pytest.raises(DataError, match="deontology test of the hub, row 1: no text in 'excuse'"):
        text_tasks.load_ethics("hub", "deontology", "test")
    items, docs, version = text_tasks.load_truthfulqa("hub")
    assert items == HAND and version == mc_task.version(HAND)
    assert docs == csv_file.prepared(docs) and [doc["question"] for doc in docs] == ["Why?", "How is it, then?"]
    assert hub[-2:] == [("truthfulqa/truthful_qa", name, "validation") for name in ("multiple_choice", "generation")]
    assert text_tasks.load_truthfulqa("hub", version)[2] == version
    with pytest.raises(DataError, match=f"the hub holds TruthfulQA {version}, not '2025-01'"):
        text_tasks.load_truthfulqa("hub", "2025-01")


def test_the_hub_may_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object, **given: object) -> None:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"openai/gsm8k, split test, cannot be had from the hub \(no network\)"):
        text_tasks.load("gsm8k", "hub")
