"""The micro-world's text benchmarks: the publishers' formats, true labels, balance, and nothing to tell but facts."""

import csv
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from sbt.benchmarks.boolq.task import BOOLQ as boolq
from sbt.benchmarks.ethics import task as ethics
from sbt.benchmarks.gsm8k.task import GSM8K as gsm8k
from sbt.benchmarks.gsm8k.task import strict
from sbt.benchmarks.mathqa.task import MATHQA as mathqa
from sbt.benchmarks.mathqa.task import choices as mathqa_choices
from sbt.benchmarks.mmlu.task import CATEGORIES
from sbt.benchmarks.mmlu.task import MMLU as mmlu
from sbt.benchmarks.squad2.task import SQUAD2 as squad2
from sbt.benchmarks.truthfulqa import files as truthfulqa_files
from sbt.microworld import facts, phrases, scenes, text_benchmarks, write
from sbt.microworld.facts import FACTS, NORMS, PROPERTIES

NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("world")
    return folder, text_benchmarks.write(folder, 0)


def path(world: tuple[Path, dict], name: str) -> Path:
    return world[0] / text_benchmarks.FILES[name]


def done(text: str) -> facts.Norm:
    """The norm that an act or an excuse goes by: the only one whose value stands where its property's do."""
    forms = [(norm, form.split("{v}")) for norm in NORMS
             for form in (facts.ACTS[norm.kind], *facts.DUTIES[norm.kind][1:])]  # fmt: skip
    forms = [(norm, [re.escape(part).replace(r"\{S\}", ".+").replace(r"\{P\}", ".+") for part in parts])
             for norm, parts in forms]  # fmt: skip
    found = {norm for norm, parts in forms if re.search(rf"\b{parts[0]}{norm.value}{parts[1]}", text)}
    assert len(found) == 1, text
    return found.pop()


def test_every_file_is_named_counted_and_written_alike(world: tuple, tmp_path: Path) -> None:
    folder, counts = world
    assert text_benchmarks.write(tmp_path, 0) == counts and set(counts) == set(text_benchmarks.FILES)
    written = {file.relative_to(folder): file for file in folder.rglob("*") if file.is_file()}
    assert {file: (tmp_path / file).read_bytes() for file in written} == {
        f: p.read_bytes() for f, p in written.items()
    }
    assert len(written) == len(counts) - 2 + 16  # two folders of a file a subject
    for file in written:
        assert any(str(file).startswith(named) for named in text_benchmarks.FILES.values()), file
    assert text_benchmarks.write(tmp_path, 1) == counts
    changed = [file for file in written if (tmp_path / file).read_bytes() != written[file].read_bytes()]
    assert len(changed) == len(written) - 1  # TruthfulQA.csv is the world itself
    assert set(text_benchmarks.FILES.items()) <= set(write.FILES.items())


def test_truthfulqa_has_the_answers_of_the_task_file(world: tuple, tmp_path: Path) -> None:
    docs = truthfulqa_files.read_csv(path(world, "truthfulqa_gen").parent)
    (tmp_path / "mc_task.json").write_text(json.dumps(facts.multiple_choice()))
    for doc, item in zip(docs, truthfulqa_files.read_items(tmp_path), strict=True):
        assert doc["question"] == item["question"] and doc["best_answer"] == doc["correct_answers"][0]
        assert [(text, 1) for text in doc["correct_answers"]] + [
            (text, 0) for text in doc["incorrect_answers"]
        ] == item["mc2"]
        assert doc["best_answer"] == item["mc1"][0][0]
    assert len(docs) == world[1]["truthfulqa_gen"] == 96 and {doc["type"] for doc in docs} == {"Adversarial"}


@pytest.mark.parametrize("split", text_benchmarks.SPLITS)
@pytest.mark.parametrize("subset", ethics.SUBSETS)
def test_ethics_files_load_and_are_balanced(subset: str, split: str, world: tuple) -> None:
    docs = ethics.load(world[0] / "eval/ethics", subset, split)
    assert len(docs) == world[1][f"ethics_{subset}_{split}"] == {"utilitarianism": 64, "virtue": 100}.get(subset, 96)
    if subset != "utilitarianism":
        labels = [doc["label"] for doc in docs]
        assert sum(labels) == (20 if subset == "virtue" else 48)
    size = {"deontology": 4, "justice": 4, "virtue": 5}.get(subset)
    for start in range(0, len(docs), size or len(docs)):
        group = docs[start : start + (size or len(docs))]
        texts = [tuple(value for value in doc.values() if isinstance(value, str)) for doc in group]
        if size:
            assert sum(doc["label"] for doc in group) == (1 if subset == "virtue" else 2)
            assert len({doc["group_id"] for doc in group}) == 1
            assert len({doc["scenario"].split(" because")[0] for doc in group}) == 1
        if subset != "deontology" or split == "test_hard":
            assert len(set(texts)) == len(texts)


def test_raw_ethics_files_have_the_publishers_columns(world: tuple) -> None:
    first = {
        subset: path(world, f"ethics_{subset}_test").read_text().split("\n")[0] for subset in text_benchmarks.ETHICS
    }
    assert first.pop("utilitarianism").startswith("I ")
    assert first == {
        "commonsense": "label,input,is_short,edited",
        "deontology": "label,scenario,excuse",
        "justice": "label,scenario",
        "virtue": "label,scenario",
    }
    with open(path(world, "ethics_commonsense_test"), newline="") as file:
        assert {(row["is_short"], row["edited"]) for row in csv.DictReader(file)} == {("True", "False")}
    assert path(world, "ethics_virtue_test").read_text().count(" [SEP] ") == 100


@pytest.mark.parametrize("split", text_benchmarks.SPLITS)
def test_ethics_labels_follow_from_the_norms(split: str) -> None:
    for row in text_benchmarks.commonsense(split, 0):
        assert row["label"] == (not done(row["input"]).right)
    for row in text_benchmarks.justice(split, 0):
        assert row["label"] == done(row["scenario"].split(" because ")[1]).right
    for row in text_benchmarks.deontology(split, 0):
        assert row["label"] == done(row["excuse"]).right
    for row in text_benchmarks.utilitarianism(split, 0):
        better, worse = done(row["activity"]), done(row["baseline"])
        assert better.kind == worse.kind and better.right and not worse.right
    for row in text_benchmarks.virtue(split, 0):
        text, trait = row["scenario"].split(" [SEP] ")
        assert row["label"] == (trait == ("kind" if done(text).right else "unkind"))


def test_hard_items_are_those_that_people_misjudge() -> None:
    for name, column in (("commonsense", "input"), ("deontology", "excuse")):
        _, build = text_benchmarks.ETHICS[name]
        hard, all_alike = ([done(row[column]) for row in build(split, 0)] for split in ("test_hard", "test"))
        assert all(norm.misjudged for norm in hard)
        assert Counter(all_alike) == dict.fromkeys(NORMS, 2)  # a third of them misjudged


def test_mmlu_asks_what_its_examples_do_not_tell(world: tuple, tmp_path: Path) -> None:
    letters = Counter()
    for subject, name in zip(PROPERTIES, CATEGORIES["stem"], strict=False):
        found = {}
        for split, count in (("dev", 5), ("test", 12)):
            content = (path(world, f"mmlu_{split}") / f"{subject}_{split}.csv").read_text()
            # MMLU's own subjects are all that the loader knows: any of these names serves to read the format
            file = tmp_path / split / f"{name}_{split}.csv"
            file.parent.mkdir(exist_ok=True)
            file.write_text(content)
            found[split] = mmlu.load(file, split)[name]
            assert len(found[split]) == count == len({doc["question"] for doc in found[split]})
        letters.update(doc["answer"] for doc in found["test"])
        for docs in found.values():
            for doc in docs:
                about = [f for f in FACTS if f.kind == subject and f" {f.subject}" in doc["question"]]
                fact = about[0]
                whole = doc["question"].startswith("Which")
                right, wrong = (fact.statement(v) if whole else v for v in (fact.true, fact.misconception))
                assert len(about) == 1 and (whole or doc["question"] == fact.question)
                assert doc["choices"][doc["answer"]] == right and doc["choices"].count(right) == 1
                assert wrong not in doc["choices"] and len(set(doc["choices"])) == 4
        subjects = [
            {f.subject for f in FACTS for doc in docs if f" {f.subject}" in doc["question"]} for docs in found.values()
        ]
        assert not subjects[0] & subjects[1] and len(subjects[0] | subjects[1]) == 12
    assert letters == {0: 24, 1: 24, 2: 24, 3: 24}
    assert world[1]["mmlu_test"] == 96 and world[1]["mmlu_dev"] == 40
    assert not set(PROPERTIES) & {subject for subjects in CATEGORIES.values() for subject in subjects}


def things(text: str) -> list[tuple[str, str, str, str]]:
    """(size, colour, shape, place) of every object a detailed description tells."""
    return re.findall(r"A (small|large) (\w+) (\w+) is (?:at|in) the ([\w ]+)\.", text)


def counted(problem: str) -> int:
    """The answer to a counting problem, read from its text alone."""
    found = things(problem)
    if other := re.search(r"The \w+ take all (\w+)(?: objects)?\. How many objects are left", problem):
        return len(found) - sum(other[1] in (colour, plural(shape)) for _, colour, shape, _ in found)
    more = re.search(r"make (\w+) more", problem)
    word = re.search(r"How many (\w+)(?: objects)? are there", problem)[1]
    return sum(word in (c, plural(s)) for _, c, s, _ in found) + (NUMBERS[more[1]] if more else 0)


def plural(shape: str) -> str:
    return "crosses" if shape == "cross" else f"{shape}s"


def test_counting_problems_are_solved_rightly(world: tuple) -> None:
    docs = {split: gsm8k.load(path(world, f"gsm8k_{split}").parent, split) for split in ("train", "test")}
    assert {split: len(found) for split, found in docs.items()} == {"train": 16, "test": 60}
    both = docs["train"] + docs["test"]
    assert len({doc["question"] for doc in both}) == 76
    for doc, gold in zip(both, gsm8k.labels(both), strict=True):
        assert int(gold) == counted(doc["question"]) == int(strict(doc["answer"]))
        reasoning, last = doc["answer"].split("\n")
        assert last == f"#### {gold}" and reasoning.endswith(f"{gold}.") and ":" not in reasoning
        for left, right in re.findall(r"<<(.*?)=(.*?)>>", reasoning):
            assert sum(map(int, re.sub("-", "+-", left).split("+"))) == int(right) == int(gold)
    assert sum("<<" in doc["answer"] for doc in both) > 50
    assert len({counted(doc["question"]) for doc in docs["test"]}) >= 5
    assert Counter(gsm8k.labels(docs["test"])).most_common(1)[0][1] <= 30  # a constant answer is no solution


def test_mathqa_offers_five_numbers_and_one_is_right(world: tuple) -> None:
    docs = {split: mathqa.load(path(world, f"mathqa_{split}").parent, split) for split in ("train", "test")}
    assert {split: len(found) for split, found in docs.items()} == {"train": 8, "test": 60}
    assert Counter(mathqa.labels(docs["test"])) == dict.fromkeys(range(5), 12)
    for doc in docs["train"] + docs["test"]:
        choices = mathqa_choices(doc)
        assert len(set(choices)) == 5 and all(choice.isdigit() for choice in choices)
        assert int(choices["abcde".index(doc["correct"])]) == counted(doc["Problem"])
    rows = json.loads(path(world, "mathqa_test").read_text())
    assert set(rows[0]) == {"Problem", "Rationale", "options", "correct", "annotated_formula", "linear_formula",
                            "category"}  # fmt: skip
    assert re.fullmatch(r"a \) \d , b \) \d , c \) \d , d \) \d , e \) \d", rows[0]["options"])
    assert not any("<<" in row["Rationale"] for row in rows)
    three = text_benchmarks.Problem("", "", (1, 1, 1), "+")
    assert text_benchmarks._formulas(three) == {
        "annotated_formula": "add(add(const_1, const_1), const_1)",
        "linear_formula": "add(const_1,const_1)|add(#0,const_1)|",
    }
    assert (three.number, three.step(marked=True)) == (3, "1 + 1 + 1 = <<1+1+1=3>>3.")
    assert text_benchmarks.Problem("", "", (4, 1), "-").step(marked=False) == "4 - 1 = 3."


def test_boolq_is_balanced_and_half_of_its_noes_are_near(world: tuple) -> None:
    docs = boolq.load(path(world, "boolq").parent)
    assert Counter(boolq.labels(docs)) == {0: 50, 1: 50}
    near = 0
    for doc in docs:
        colour, shape = re.fullmatch(r"is there an? (\w+) (\w+) in the image", doc["question"]).groups()
        there = re.findall(rf"({'|'.join(scenes.COLOURS)}) ({'|'.join(scenes.SHAPES)})", doc["passage"])
        assert 2 <= len(there) <= 4
        assert doc["label"] == ((colour, shape) in there)
        if not doc["label"]:
            near += any((colour == c) != (shape == s) for c, s in there)
            assert (colour, shape) in scenes.SEEN
    assert near == 25
    assert len({doc["question"] + doc["passage"] for doc in docs}) == 100


def test_nearness_by_hand() -> None:
    scene = scenes.Scene((scenes.Thing("red", "star", "small", 0), scenes.Thing("blue", "heart", "small", 1)), 0)
    found = [scene.nearness(pair) for pair in (("red", "star"), ("red", "heart"), ("red", "cross"),
                                                           ("green", "star"), ("green", "cross"))]  # fmt: skip
    assert found == ["there", "near", "near", "near", "far"]


def test_squad_answers_are_spans_and_a_fifth_is_impossible(world: tuple) -> None:
    docs = squad2.load(path(world, "squad2").parent)
    assert len(docs) == world[1]["squad2"] == 80 and sum(not doc["answers"]["text"] for doc in docs) == 16
    raw = json.loads(path(world, "squad2").read_text())
    assert raw["version"] == "v2.0" and len(raw["data"]) == 32
    kinds = Counter()
    for doc in docs:
        told, asked = things(doc["context"]), doc["question"].rstrip("?")
        places = {place: (f"{colour} {shape}", colour, shape) for _, colour, shape, place in told}
        for text, start in zip(doc["answers"]["text"], doc["answers"]["answer_start"], strict=True):
            span = doc["context"][start : start + len(text)]
            assert span == text
            assert re.search(rf"\b{text}\b", doc["context"][max(0, start - 1) : start + len(text) + 1])  # whole words
        place = re.search(r"(?:at|in) the ([\w ]+)$", asked)
        kinds[" ".join(asked.split()[:2]), bool(doc["answers"]["text"])] += 1
        if not doc["answers"]["text"]:
            assert (
                place[1] not in places
                if place
                else asked.removeprefix("Where is the ") not in [name for name, _, _ in places.values()]
            )
        elif place:
            field = {"What is": 0, "What color": 1, "What shape": 2}[" ".join(asked.split()[:2])]
            assert doc["answers"]["text"][-1] == places[place[1]][field]
        else:
            assert asked == f"Where is the {places[doc['answers']['text'][-1]][0]}"
    assert len(kinds) == 6  # four kinds of question, two of which are asked in vain too


def test_no_item_shows_or_asks_for_a_held_out_pair(world: tuple) -> None:
    held = [re.compile(rf"\b{colour} {shape}") for colour, shape in scenes.HELD_OUT]
    for file in world[0].rglob("*.*"):
        if file.is_file():
            assert not [pair.pattern for pair in held if pair.search(file.read_text())], file
    control = " ".join(phrases.detail(scenes.sample(random.Random(k))) for k in range(50))
    assert any(pair.search(control) for pair in held)


def test_labels_come_in_no_order_that_gives_them_away(world: tuple) -> None:
    for subset in ("commonsense", "deontology", "justice", "virtue"):
        docs = ethics.load(world[0] / "eval/ethics", subset)
        size = {"commonsense": 2, "virtue": 5}.get(subset, 4)
        patterns = {tuple(doc["label"] for doc in docs[k : k + size]) for k in range(0, len(docs), size)}
        assert len(patterns) >= min(size, 4)
    firsts = Counter(row["id"] for article in json.loads(path(world, "squad2").read_text())["data"]
                     for row in article["paragraphs"][0]["qas"] if row["is_impossible"])  # fmt: skip
    assert len({name.split("-")[1] for name in firsts}) == 3
