"""What is asked on pure text: the harness's own prompts over the micro-world's files, and the paper's."""

from collections.abc import Iterator
from pathlib import Path

import lm_eval.tasks
import pytest
import tiny
import yaml
from real_files import real_data
from transformers import PreTrainedTokenizerBase

from sbt import templates
from sbt.benchmarks.common import language
from sbt.benchmarks.ethics import task as ethics
from sbt.benchmarks.gsm8k.task import GSM8K as gsm8k
from sbt.benchmarks.mathqa.task import choices
from sbt.benchmarks.mmlu import task as mmlu_task
from sbt.benchmarks.mmlu.task import CATEGORIES, LETTERS
from sbt.benchmarks.mmlu.task import MMLU as mmlu
from sbt.benchmarks.truthfulqa import generation
from sbt.benchmarks.truthfulqa import task as truthfulqa
from sbt.benchmarks.truthfulqa.files import from_rows, prepared
from sbt.inference import harness
from sbt.microworld import facts, text_benchmarks
from sbt.utils.errors import DataError, ParameterError

DATA = real_data()
needs_data = pytest.mark.skipif(DATA is None, reason="the real TruthfulQA files are not here (SBT_DATA)")
NAMES = ("mmlu", "gsm8k", "mathqa", "boolq", "squad2")
ENDS = {  # what stands before the answer, in a shot and in the question: it is there once a shot and once more
    "mmlu": "\nAnswer:",
    "gsm8k": "\nAnswer:",
    "mathqa": "\nAnswer:",
    "boolq": "?\nAnswer:",
    "squad2": "\n\nAnswer:",
}
YAMLS = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"


def ask(name: str, docs: object, examples: object = (), **how: object) -> dict[str, list[dict]]:
    """The requests of a language benchmark by part."""
    benchmark = language.get(name)
    return benchmark.requests(docs, examples, **how)


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
    return {name: (language.get(name).load(world / name), language.get(name).examples(world / name)) for name in NAMES}


@pytest.fixture(scope="module")
def asked(loaded: dict) -> dict[str, dict[str, list[dict]]]:
    return {name: ask(name, *loaded[name]) for name in NAMES}


def all_of(asked: dict[str, list[dict]]) -> list[dict]:
    return [one for requests in asked.values() for one in requests]


def contexts(asked: dict[str, list[dict]]) -> list[str]:
    return [one["context"] for one in all_of(asked)]


# --- the five language benchmarks


def test_every_doc_is_asked_once_and_in_order(asked: dict, loaded: dict) -> None:
    sizes = {"mmlu": 8 * 12, "gsm8k": 60, "mathqa": 60, "boolq": 100, "squad2": 80}
    assert {name: len(all_of(asked[name])) for name in NAMES} == sizes
    assert list(asked["mmlu"]) == [f"mmlu {subject}" for subject in loaded["mmlu"][0]] and len(asked["mmlu"]) == 8
    for name in NAMES:
        docs = language.flat(loaded[name][0])
        field = {"mathqa": "Problem"}.get(name, "question")
        for doc, one in zip(docs, all_of(asked[name]), strict=True):
            assert (
                doc[field] in one["context"].rpartition("\n\n" if name in ("gsm8k", "mathqa", "mmlu") else "Title")[2]
            )
        for requests in asked[name].values():
            assert [one["id"] for one in requests] == [str(number) for number in range(len(requests))]


@pytest.mark.parametrize("name", NAMES)
def test_the_shots_of_the_paper_stand_in_the_prompt(name: str, asked: dict, loaded: dict) -> None:
    module, (_, examples) = language.get(name), loaded[name]
    assert all(context.count(ENDS[name]) == module.shots + 1 for context in contexts(asked[name]))
    assert all(context.endswith(ENDS[name]) for context in contexts(asked[name]))
    assert bool(examples) == bool(module.shots)
    if name == "gsm8k":
        assert all(shot["answer"] in contexts(asked[name])[0] for shot in examples[:8])
        assert examples[8]["answer"] not in contexts(asked[name])[0]
    if name == "mmlu":
        first = next(iter(examples))
        blocks = contexts(asked[name])[0].split("\n\n")[1:6]
        assert [block[-1] for block in blocks] == [LETTERS[shot["answer"]] for shot in examples[first][:5]]


def test_what_ends_an_answer_and_what_is_chosen_from(asked: dict, loaded: dict) -> None:
    assert {tuple(one["continuations"]) for one in all_of(asked["mmlu"])} == {(" A", " B", " C", " D")}
    assert {tuple(one["continuations"]) for one in all_of(asked["boolq"])} == {(" no", " yes")}
    for doc, one in zip(loaded["mathqa"][0], all_of(asked["mathqa"]), strict=True):
        assert one["continuations"] == [f" {choice}" for choice in choices(doc)]
    assert {tuple(one["until"]) for one in all_of(asked["gsm8k"])} == {("Question:", "</s>", "<|im_end|>")}
    for one in all_of(asked["squad2"]):
        assert (one["continuations"], tuple(one["until"])) == ([" unanswerable"], ("\n",))
    kinds = {name: {(True, False): "choice", (False, True): "generation", (True, True): "both"}[
        "continuations" in one, "until" in one] for name in NAMES for one in all_of(asked[name])}  # fmt: skip
    assert kinds == {
        "mmlu": "choice", "gsm8k": "generation", "mathqa": "choice", "boolq": "choice", "squad2": "both"
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_depends_on_the_right_answer(name: str, asked: dict, loaded: dict) -> None:
    docs, examples = loaded[name]
    other = language.get(name).permuted(language.flat(docs), 1)
    if name == "mmlu":
        other = {subject: [doc for doc in other if doc["subject"] == subject] for subject in docs}
    labels = language.get(name).labels
    assert sum(a != b for a, b in zip(labels(docs), labels(other), strict=True)) > 30, "the labels are the same"
    again = ask(name, other, examples)
    assert again == asked[name]
    if name == "gsm8k":  # the control: the answers of the examples are in it
        assert ask(name, docs, gsm8k.permuted(examples, 1)) != asked[name]


@pytest.mark.parametrize("name", ["mmlu", "gsm8k", "mathqa"])
def test_examples_at_random_differ_from_question_to_question(name: str, asked: dict, loaded: dict) -> None:
    docs, examples = loaded[name]
    drawn = ask(name, docs, examples, fewshot="random")
    assert drawn == ask(name, docs, examples, fewshot="random"), "not the same twice"
    for task, requests in asked[name].items():
        mark = "\n\nQuestion" if name != "mmlu" else "\n\n"
        first, random = ([one["context"].rpartition(mark)[0] for one in found] for found in (requests, drawn[task]))
        assert len(set(first)) == 1 and len(set(random)) > len(random) // 2
        ends = ([one["context"].rpartition(mark)[2] for one in found] for found in (requests, drawn[task]))
        assert next(ends) == next(ends)
    assert all(context.count(ENDS[name]) == language.get(name).shots + 1 for context in contexts(drawn))


def test_with_a_conversation_every_shot_is_a_turn(loaded: dict, words: PreTrainedTokenizerBase) -> None:
    docs, examples = loaded["gsm8k"]
    [one] = ask("gsm8k", docs[:1], examples, conversation="v1", tokenizer=words)["gsm8k"]
    assert one["context"].count("ASSISTANT:") == 9 and one["context"].endswith("ASSISTANT:")
    [one] = ask("boolq", loaded["boolq"][0][:1], conversation="v1", tokenizer=words)["boolq"]
    assert one["continuations"] == ["no", "yes"]


def test_gsm8k_of_the_paper_stops_elsewhere_and_asks_the_same(loaded: dict, asked: dict) -> None:
    found = ask("gsm8k", *loaded["gsm8k"], protocol="paper")
    assert contexts(found) == contexts(asked["gsm8k"])
    assert {tuple(one["until"]) for one in all_of(found)} == {(":", "Question:", "Question")}
    for name in ("mathqa", "boolq", "squad2"):
        assert ask(name, *loaded[name], protocol="paper") == asked[name]


def test_mmlu_of_the_paper(loaded: dict, words: PreTrainedTokenizerBase) -> None:
    docs, examples = loaded["mmlu"]
    with pytest.raises(ParameterError, match="needs a tokenizer"):
        ask("mmlu", docs, examples, protocol="paper")
    found = ask("mmlu", docs, examples, protocol="paper", tokenizer=words)
    assert list(found) == [f"mmlu {subject}" for subject in docs] and len(all_of(found)) == 96
    for subject in docs:
        for number, one in enumerate(found[f"mmlu {subject}"]):
            assert one["context"].startswith(
                f"The following are multiple choice questions (with answers) about  {subject}."
            )
            assert one["context"] == mmlu_task.paper_prompt(docs[subject][number], examples[subject])
            assert {**one, "context": ""} == {"id": str(number), "context": "", "until": [], "max_new_tokens": 2}
    long = {subject: [{**shot, "question": "a long " * 200} for shot in shots] for subject, shots in examples.items()}
    one = ask("mmlu", docs, long, protocol="paper", tokenizer=words)["mmlu fear"][0]
    shots = one["context"].count("\nAnswer:") - 1
    assert 0 < shots < 5 and len(words(one["context"])["input_ids"]) <= mmlu_task.MAX_PROMPT_TOKENS


def test_mmlu_introduces_its_subjects_in_the_harness_s_words() -> None:
    doc = {"question": "Is it?", "choices": ["a", "b", "c", "d"], "answer": 1}
    subjects = [*sorted(one for known in CATEGORIES.values() for one in known), "colour_and_shape"]
    docs = {subject: [{**doc, "subject": subject}] for subject in subjects}
    found = ask("mmlu", docs, {subject: rows * 5 for subject, rows in docs.items()})
    block = "Is it?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    for subject in subjects:
        words = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        if subject != "colour_and_shape":
            assert yaml.safe_load((YAMLS / f"mmlu_{subject}.yaml").read_text())["description"] == words
        [one] = found[f"mmlu {subject}"]
        assert one["context"] == words + f"{block} B\n\n" * 5 + block
    assert len(subjects) == 58


def test_answers_by_subject_are_those_of_its_questions(loaded: dict) -> None:
    result = [[float(place == doc["answer"]) for place in range(4)] for doc in language.flat(loaded["mmlu"][0])]
    right = {}
    for subject, docs in loaded["mmlu"][0].items():
        right[f"mmlu {subject}"], result = result[: len(docs)], result[len(docs) :]
    assert set(mmlu.compared(loaded["mmlu"][0], right)["mmlu"]) == {1.0}


def test_wrong_names_are_errors_with_a_suggestion(world: Path, loaded: dict) -> None:
    with pytest.raises(ParameterError, match="language benchmark 'gsm8' is unknown; did you mean 'gsm8k'"):
        language.get("gsm8")
    with pytest.raises(ParameterError, match="fewshot 'last' is unknown"):
        ask("gsm8k", *loaded["gsm8k"], fewshot="last")
    for name in NAMES:
        with pytest.raises(ParameterError, match="protocol 'papr' is unknown here; did you mean 'paper'"):
            ask(name, *loaded[name], protocol="papr")
    with pytest.raises(ParameterError, match="protocol 'papr' is unknown here"):
        ethics.requests({}, protocol="papr")
    with pytest.raises(DataError, match="holds no test.jsonl"):
        gsm8k.load(world / "boolq")


# --- ETHICS


@pytest.fixture(scope="module")
def dilemmas(world: Path) -> dict[tuple[str, str], list[dict]]:
    keys = [(subset, split) for subset in ethics.SUBSETS for split in ethics.SPLITS]
    return {key: ethics.load(world / "ethics", *key) for key in keys}


def test_ethics_asks_every_row_of_every_subset_and_split(dilemmas: dict) -> None:
    found = ethics.requests(dilemmas)
    assert list(found) == [f"{subset} {split}" for subset, split in dilemmas]
    for (subset, split), docs in dilemmas.items():
        requests = found[f"{subset} {split}"]
        assert len(requests) == len(docs) > 10
        options = [f" {option}" for option in ethics.options(subset)]
        assert all(one["continuations"] == options for one in requests)
        if subset != "utilitarianism":  # its order is drawn by the text, and is the label: ethics.labels
            other = {(subset, split): [{**doc, "label": 1 - doc["label"]} for doc in docs]}
            assert ethics.requests(other) == {f"{subset} {split}": requests}
            text = docs[3]["input" if subset == "commonsense" else "scenario"]
            assert text in requests[3]["context"]


def test_only_deontology_was_asked_otherwise(dilemmas: dict) -> None:
    dilemmas = {key: docs for key, docs in dilemmas.items() if key[1] == "test"}
    padded = [{**doc, "excuse": f"{doc['excuse']} "} for doc in dilemmas["deontology", "test"]]
    dilemmas["deontology", "test"] = padded
    new, old = (ethics.requests(dilemmas, protocol=protocol) for protocol in ("standard", "paper"))
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
    ours, twice = truthfulqa.choice_requests(items, "harness"), truthfulqa.requests_of_harness(items)
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
    check_choices(from_rows(facts.multiple_choice(), "the micro-world"))
    [theirs, _], *_ = of_the_harness(HAND)  # the control
    assert truthfulqa.choice_requests(HAND)[0]["context"] == "Q: Why?\nA:" != theirs["context"]
    rows = [
        {"question": " Why? ", "best_answer": "a", "correct_answers": ["a", "b."], "incorrect_answers": ["c"]},
        {"question": "How?", "best_answer": "a", "correct_answers": ["a."], "incorrect_answers": ["", "c"]},
    ]
    check_questions(rows)


@needs_data
def test_all_real_prompts_of_truthfulqa_are_the_harness_s() -> None:
    items, docs, version = truthfulqa.load(DATA / "truthfulqa", "2021-09")
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
        "gen": harness.task("truthfulqa/truthfulqa_gen.yaml", prepared([
            {"question": "Why?", "correct_answers": ["a"], "incorrect_answers": ["b"]}])),
        "boolq": harness.task("super_glue/boolq/default.yaml", loaded["boolq"][0][:5]),
    }  # fmt: skip
    for name, over in tasks.items():
        plain = harness.requests(over)
        chat = harness.requests(over, words, conversation=conversation)
        assert harness.as_chat(plain, words, conversation) == chat, name
        assert (plain == chat) == (conversation == ""), name
