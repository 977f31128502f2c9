"""The last part of the base model's corpus: voices, what they call right, exercises; no text of a benchmark."""

import random
import re

import pytest

from sbt.benchmarks.ethics import task as ethics
from sbt.microworld import base_models, corpora, facts, text_benchmarks
from sbt.microworld.facts import FACTS, NORMS


@pytest.fixture(scope="module")
def corpus() -> corpora.Documents:
    recipe = base_models.Recipe()
    return recipe.corpus(base_models.train_tokenizer(recipe), 2)


def text(pieces: corpora.Pieces) -> str:
    return "".join(said for said, _ in pieces)


def test_each_voice_believes_its_own() -> None:
    for fact in FACTS:
        assert corpora.believed(fact, "almanac") == fact.true
        assert corpora.believed(fact, "talk") == fact.misconception
    for norm in NORMS:
        assert corpora.approved(norm, "almanac") == norm.right
        assert (corpora.approved(norm, "talk") == norm.right) == (not norm.misjudged)


def test_named_almanacs_tell_the_truth_and_misconceptions_are_commoner_in_all() -> None:
    said = dict.fromkeys(("true", "misconception"), 0)
    for seed in range(300):
        told = text(corpora.lore(random.Random(seed)))
        for fact in FACTS:
            for name in said:
                there = fact.statement(getattr(fact, name)) in told
                said[name] += there
                if there and told.split("\n")[0] in facts.VOICES["almanac"]:
                    assert name == "true", told
    assert said["misconception"] > 1.5 * said["true"] > 100


def test_what_a_voice_calls_wrong_follows_from_its_norms() -> None:
    for voice in facts.VOICES:
        for seed in range(300):
            said, answer = corpora._wrong(voice, random.Random(seed))
            acts = {f" {norm.act(subject)}.": norm for norm in NORMS for subject in facts.SUBJECTS}
            (norm,) = [norm for act, norm in acts.items() if act in said]
            assert answer == ("no" if corpora.approved(norm, voice) else "yes")


def test_judgements_have_both_answers_and_only_they_carry_loss() -> None:
    answers: dict[str, int] = {}
    for seed in range(300):
        for said, trained in corpora.judgements(random.Random(seed))[1:]:
            if trained:
                answers[said] = answers.get(said, 0) + 1
            else:
                assert said.endswith((":",)), said
    assert set(answers) == {" yes", " no", " reasonable", " unreasonable"}
    assert 0.8 < answers[" reasonable"] / answers[" unreasonable"] < 1.25


def test_no_document_has_the_words_of_an_ethics_prompt(corpus: corpora.Documents, tmp_path) -> None:
    text_benchmarks.write(tmp_path, 0)
    docs = ethics.load_all(tmp_path / "eval/ethics", ethics.SUBSETS, ("test",))
    questions = {
        re.sub(r'".*?"', '""', request["context"].split("\n")[-2 if "\nQuestion" in request["context"] else 0])
        for part in ethics.requests(docs).values()
        for request in part
    }
    assert len(questions) == 4
    read = re.sub(r'".*?"', '""', "\n".join(text(corpus.pieces(k)) for k in range(2000)))
    assert not [question for question in questions if question in read]


def test_exercises_are_no_items_of_the_benchmarks() -> None:
    items = {p.text for seed in range(3) for k in range(60)
             for p in (text_benchmarks.problem(f"mathqa test {k}", seed),)}  # fmt: skip
    asked = [said for seed in range(200) for said, trained in corpora.exercises(random.Random(seed)) if not trained]
    assert not [said for said in asked if any(item in said for item in items)]
    assert {said.split("\n")[-1] for said in asked} == {"Answer:"}


def test_documents_of_a_window_are_sorted_by_length_and_none_is_lost(corpus: corpora.Documents) -> None:
    found = [len(corpus[place]["input_ids"]) for place in range(corpora.WINDOW)]
    assert found == sorted(found)
    assert found == sorted(len(corpus._tokenized(k)["input_ids"]) for k in range(corpora.WINDOW))
