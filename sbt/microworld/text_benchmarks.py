"""The text benchmarks in the micro-world: small sets of items in the publishers' file formats.

write(folder, seed)   ->   eval/truthfulqa/  ethics/  mmlu/  gsm8k/  mathqa/  boolq/  squad2/ as FILES names them

TruthfulQA and MMLU ask about the facts of this world, ETHICS about its customs; GSM8K, MathQA, BoolQ and SQuAD 2.0
about a scene told in words. Every function is deterministic given its seed. No item shows or asks for a held-out
colour-shape pair.
"""

import random
from pathlib import Path
from typing import NamedTuple

from sbt.microworld import phrases
from sbt.microworld.facts import (
    DUTIES,
    FACTS,
    NAMES,
    NORMS,
    PEOPLE,
    PROPERTIES,
    REASONS,
    SUBJECTS,
    TRAITS,
    Norm,
    multiple_choice,
)  # fmt: skip
from sbt.microworld.scenes import SEEN, Scene, Thing, sample
from sbt.utils.files import write_csv, write_json, write_jsonl

SPLITS = ("test", "test_hard")  # of ETHICS


# --- TruthfulQA and MMLU


def truthfulqa() -> list[dict]:
    """The questions and mc2 answers of `mc_task.json` in the columns of TruthfulQA.csv; category is the property."""
    rows = []
    for fact, item in zip(FACTS, multiple_choice(), strict=True):
        true, false = ([text for text, label in item["mc2_targets"].items() if label == wanted] for wanted in (1, 0))
        question = {"Type": "Adversarial", "Category": fact.kind.capitalize(), "Question": item["question"]}
        answers = {"Correct Answers": "; ".join(true), "Incorrect Answers": "; ".join(false)}
        rows.append({**question, "Best Answer": true[0], **answers, "Source": "The almanac of the micro-world"})
    return rows


def mmlu(kind: str, seed: int) -> dict[str, list[dict]]:
    """One subject: 5 rows of `dev` and 12 of `test`, with question, A, B, C, D and the letter of the answer.

    A subject is a property of this world, none of MMLU's own 57. The misconception is never among the choices: this
    asks what a model knows, and TruthfulQA whom it believes. The two splits ask about different things.
    """
    rng = random.Random(f"{seed} mmlu {kind}")
    about = [fact for fact in FACTS if fact.kind == kind]
    facts = rng.sample(about, len(about))
    asked = [(fact, False) for fact in facts] + [(fact, True) for fact in facts[5:10]]
    letters = dealt("ABCD", 5, rng) + dealt("ABCD", 12, rng)
    rows = []
    for (fact, whole_sentences), letter in zip(asked, letters, strict=True):
        values = rng.sample(fact.others, 3)
        values.insert("ABCD".index(letter), fact.true)
        question = f"Which of these is true of {fact.subject}?" if whole_sentences else fact.question
        choices = [fact.statement(value) if whole_sentences else value for value in values]
        rows.append({"question": question, **dict(zip("ABCD", choices, strict=True)), "answer": letter})
    return {"dev": rows[:5], "test": rows[5:]}


def dealt(letters: str, count: int, rng: random.Random) -> list[str]:
    """`count` letters in random order, each as often as the others, or once more."""
    return [letter for _ in range(-(-count // len(letters))) for letter in rng.sample(letters, len(letters))][:count]


# --- ETHICS (Hendrycks et al. 2021): the customs of this world
# `test` asks about all norms alike, `test_hard` about those that most people misjudge.


def _norms(split: str, each: int, rng: random.Random) -> list[tuple[tuple[Norm, Norm], str]]:
    """`each` pairs of a right and a wrong norm of every property, each with another subject, in random order."""
    pairs = []
    for kind in PROPERTIES:
        asked = [norm for norm in NORMS if norm.kind == kind and (split == "test" or norm.misjudged)]
        right, wrong = ([norm for norm in asked if norm.right == label] for label in (True, False))
        subjects = enumerate(rng.sample(SUBJECTS, each))
        pairs += [((right[k % len(right)], wrong[k % len(wrong)]), subject) for k, subject in subjects]
    return rng.sample(pairs, len(pairs))


def commonsense(split: str, seed: int) -> list[dict]:
    """96 rows label, input, is_short, edited: 48 pairs that differ in a word. 1 is wrong."""
    rng, rows = random.Random(f"{seed} ethics commonsense"), []
    for pair, subject in _norms(split, 6, rng):
        for norm in rng.sample(pair, 2):
            row = {"label": int(not norm.right), "input": f"I {norm.act(subject)}."}
            rows.append({**row, "is_short": True, "edited": False})
    return rows


def deontology(split: str, seed: int) -> list[dict]:
    """96 rows label, scenario, excuse: 24 requests with four excuses each, two of them reasonable (1)."""
    rng, rows = random.Random(f"{seed} ethics deontology"), []
    for pair, subject in _norms(split, 3, rng):
        duty, *excuses = DUTIES[pair[0].kind]
        people = rng.choice(PEOPLE)
        for norm, form in rng.sample([(norm, form) for norm in pair for form in excuses], 4):
            excuse = f"No because {form.format(v=norm.value, P=people)}"
            row = {"label": int(norm.right), "scenario": f"Shouldn't you {duty.format(S=subject)}?"}
            rows.append({**row, "excuse": excuse})
    return rows


def justice(split: str, seed: int) -> list[dict]:
    """96 rows label, scenario: 24 claims to deserve something, for four acts each, two of them right (1)."""
    rng, rows = random.Random(f"{seed} ethics justice"), []
    pairs = _norms(split, 6, rng)
    for place in range(0, len(pairs), 2):
        start = rng.choice(REASONS).format(P=rng.choice(PEOPLE))
        four = [(norm, subject) for pair, subject in pairs[place : place + 2] for norm in pair]
        for norm, subject in rng.sample(four, 4):
            rows.append({"label": int(norm.right), "scenario": f"{start} I {norm.act(subject)}."})
    return rows


def utilitarianism(split: str, seed: int) -> list[dict]:
    """64 pairs of acts, the better one first. The publishers' files have no header line."""
    rng, rows = random.Random(f"{seed} ethics utilitarianism"), []
    for pair, subject in _norms(split, 8, rng):
        better, worse = (f"I {norm.act(subject)}." for norm in pair)
        rows.append({"activity": better, "baseline": worse})
    return rows


def virtue(split: str, seed: int) -> list[dict]:
    """100 rows label, "scenario [SEP] trait": 20 sentences with five traits each, one of which is shown (1).

    In half of the sentences it is the good one.
    """
    rng, rows = random.Random(f"{seed} ethics virtue"), []
    for place, (pair, subject) in enumerate(_norms(split, 3, rng)[:20]):
        norm, name = pair[place % 2], rng.choice(NAMES)
        shown = "kind" if norm.right else "unkind"
        for trait in rng.sample(["kind", "unkind", *rng.sample(TRAITS, 3)], 5):
            rows.append({"label": int(trait == shown), "scenario": f"{name} {norm.act(subject)}. [SEP] {trait}"})
    return rows


# --- GSM8K and MathQA: counting problems


class Problem(NamedTuple):
    """A counting problem: its text, the reasoning before the sum, the numbers of the sum, and their sign."""

    text: str
    reasoning: str
    numbers: tuple[int, ...]
    sign: str

    @property
    def number(self) -> int:
        """The answer."""
        return self.numbers[0] + (1 if self.sign == "+" else -1) * sum(self.numbers[1:])

    def step(self, marked: bool) -> str:
        """The sum, with GSM8K's <<value>> where `marked`."""
        if len(self.numbers) == 1:
            return f"That makes {self.number}."
        left = f" {self.sign} ".join(map(str, self.numbers))
        return f"{left} = {f'<<{left}={self.number}>>'.replace(' ', '') if marked else ''}{self.number}."


def problem(name: str, seed: int) -> Problem:
    """What is asked of two to four objects: how many of a colour or shape, how many without them, or with more."""
    rng = random.Random(f"{seed} {name}")
    scene = sample(rng, SEEN, least=2)
    thing, colour = rng.choice(scene.things), rng.random() < 0.5
    alike = [t for t in scene.things if (t.colour == thing.colour if colour else t.shape == thing.shape)]
    named = f"{thing.colour} objects" if colour else phrases.plural(thing.shape)
    total, count, more, people = len(scene.things), len(alike), rng.randint(2, 4), rng.choice(PEOPLE)
    added = f"The {people} make {phrases.NUMBERS[more]} more {named}. How many {named} are there then?"
    asked, numbers, sign = rng.choice(
        (
            (f"How many {named} are there?", (1,) * count, "+"),
            (f"The {people} take all {named}. How many objects are left?", (total, count), "-"),
            (added, (count, more), "+"),
        )
    )
    # no colon: the task of GSM8K in lm-evaluation-harness 0.3 cuts the answer there
    counted = f"We count {phrases.join([phrases.a(t.name) for t in alike])}."
    return Problem(f"{phrases.detail(scene)} {asked}", counted, numbers, sign)


def gsm8k(split: str, count: int, seed: int) -> list[dict]:
    """Rows question and answer: the reasoning with its <<sum>>, then "#### n"."""
    problems = [problem(f"gsm8k {split} {index}", seed) for index in range(count)]
    return [{"question": p.text, "answer": f"{p.reasoning} {p.step(marked=True)}\n#### {p.number}"} for p in problems]


def mathqa(split: str, count: int, seed: int) -> list[dict]:
    """The same kind of problem with five numbers to choose from; every letter is right as often as the others."""
    rng = random.Random(f"{seed} mathqa {split}")
    rows = []
    for index, letter in enumerate(dealt("abcde", count, rng)):
        p = problem(f"mathqa {split} {index}", seed)
        numbers = rng.sample([other for other in range(10) if other != p.number], 4)
        numbers.insert("abcde".index(letter), p.number)
        options = " , ".join(f"{key} ) {value}" for key, value in zip("abcde", numbers, strict=True))
        row = {"Problem": p.text, "Rationale": f"{p.reasoning} {p.step(marked=False)}", "options": options}
        rows.append({**row, "correct": letter, **_formulas(p), "category": "general"})
    return rows


def _formulas(p: Problem) -> dict[str, str]:
    """The sum in MathQA's two notations: nested, and one operation after the other."""
    operation, nested, linear = {"+": "add", "-": "subtract"}[p.sign], f"const_{p.numbers[0]}", []
    for place, number in enumerate(p.numbers[1:]):
        linear.append(f"{operation}({f'#{place - 1}' if place else nested},const_{number})|")
        nested = f"{operation}({nested}, const_{number})"
    return {"annotated_formula": nested, "linear_formula": "".join(linear)}


# --- BoolQ and SQuAD 2.0: questions about a text that describes a scene


def boolq(count: int, seed: int) -> list[dict]:
    """Rows question (lower case, no question mark), title, answer, passage; yes and no alternate.

    Every other no asks for an object that shares its colour or its shape with one that is there, the rest for one
    that shares nothing.
    """
    rows = []
    for index in range(count):
        rng = random.Random(f"{seed} boolq {index}")
        wanted, options = ("there", "near", "there", "far")[index % 4], []
        while not options:  # beside four objects there may be no pair that shares nothing
            scene = sample(rng, SEEN, least=2)
            options = [pair for pair in SEEN if scene.nearness(pair) == wanted]
        question = phrases.existence_question(rng.choice(options)).removesuffix("?")
        passage = phrases.detail(scene) if rng.random() < 0.5 else phrases.caption(scene, rng)
        row = {"question": question[0].lower() + question[1:], "title": "The image"}
        rows.append({**row, "answer": wanted == "there", "passage": passage})
    return rows


def squad2(articles: int, seed: int) -> dict:
    """The nested format: an article is a scene told in words with two questions, every other has an impossible one."""
    written = []
    for index in range(articles):
        rng = random.Random(f"{seed} squad2 {index}")
        scene = sample(rng, SEEN, least=2)
        context = phrases.detail(scene)
        asked = [_possible(thing, context, rng) for thing in rng.sample(scene.things, 2)]
        asked += [_impossible(scene, rng)] * (index % 2 == 0)
        shuffled = enumerate(rng.sample(asked, len(asked)))
        questions = [{"id": f"{index:03d}-{k}", **question} for k, question in shuffled]
        written.append({"title": f"Image {index + 1}", "paragraphs": [{"context": context, "qas": questions}]})
    return {"version": "v2.0", "data": written}


def _possible(thing: Thing, context: str, rng: random.Random) -> dict:
    """A question about one object, with every span of its sentence in the context that answers it."""
    where, name = phrases.place(thing), f"{thing.size} {thing.name}"
    question, texts = rng.choice(
        (
            (f"What is {where}?", (f"A {name}", name, thing.name)),
            (f"Where is the {thing.name}?", (where, where.split(" the ")[1])),
            (f"What color is the object {where}?", (thing.colour,)),
            (f"What shape is the object {where}?", (thing.shape,)),
        )
    )
    sentence = f"A {name} is {where}."
    start = context.index(sentence)
    answers = [{"text": text, "answer_start": start + sentence.index(text)} for text in texts]
    return {"question": question, "answers": answers, "is_impossible": False}


def _impossible(scene: Scene, rng: random.Random) -> dict:
    """A question the context does not answer: of an object like one that is there, or of an empty place."""
    if rng.random() < 0.5:
        question = f"What color is the object {phrases.place(Thing('', '', '', rng.choice(scene.free_cells)))}?"
    else:
        pair = rng.choice([pair for pair in SEEN if scene.nearness(pair) == "near"])
        question = f"Where is the {' '.join(pair)}?"
    return {"question": question, "answers": [], "is_impossible": True}


# --- The files

# subset of ETHICS: how the publishers' files begin, and what makes the rows of a split
ETHICS = {
    "commonsense": ("cm", commonsense),
    "deontology": ("deontology", deontology),
    "justice": ("justice", justice),
    "utilitarianism": ("util", utilitarianism),
    "virtue": ("virtue", virtue),
}
ETHICS_SPLITS = [(subset, prefix, split) for subset, (prefix, _) in ETHICS.items() for split in SPLITS]
FILES = {
    "truthfulqa_gen": "eval/truthfulqa/TruthfulQA.csv",
    **{f"ethics_{name}_{split}": f"eval/ethics/{name}/{prefix}_{split}.csv" for name, prefix, split in ETHICS_SPLITS},
    "mmlu_dev": "eval/mmlu/dev",  # folders of one file a subject
    "mmlu_test": "eval/mmlu/test",
    "gsm8k_train": "eval/gsm8k/train.jsonl",
    "gsm8k_test": "eval/gsm8k/test.jsonl",
    "mathqa_train": "eval/mathqa/train.json",
    "mathqa_test": "eval/mathqa/test.json",
    "boolq": "eval/boolq/dev.jsonl",
    "squad2": "eval/squad2/dev-v2.0.json",
}
HEADERLESS = ("ethics_utilitarianism", "mmlu")  # as the publishers' files are


def _contents(seed: int) -> dict[str, list[dict] | dict]:
    """The content of every file; of a folder, {file name: rows}."""
    contents = {"truthfulqa_gen": truthfulqa()}
    contents |= {f"ethics_{name}_{split}": ETHICS[name][1](split, seed) for name, _, split in ETHICS_SPLITS}
    subjects = {kind: mmlu(kind, seed) for kind in PROPERTIES}
    for split in ("dev", "test"):
        contents[f"mmlu_{split}"] = {f"{kind}_{split}.csv": rows[split] for kind, rows in subjects.items()}
    contents |= {"gsm8k_train": gsm8k("train", 16, seed), "gsm8k_test": gsm8k("test", 60, seed)}
    contents |= {"mathqa_train": mathqa("train", 8, seed), "mathqa_test": mathqa("test", 60, seed)}
    return contents | {"boolq": boolq(100, seed), "squad2": squad2(32, seed)}


def write(folder: Path, seed: int) -> dict[str, int]:
    """Write all the files below the world's folder; returns the records of each."""
    counts = {}
    for name, content in _contents(seed).items():
        path = folder / FILES[name]
        parts = {path / file: rows for file, rows in content.items()} if name.startswith("mmlu") else {path: content}
        for file, rows in parts.items():
            if file.suffix == ".csv":
                write_csv(file, rows, header=not name.startswith(HEADERLESS))
            else:
                (write_jsonl if file.suffix == ".jsonl" else write_json)(file, rows)
        counts[name] = sum(map(_records, parts.values()))
    return counts


def _records(rows: list[dict] | dict) -> int:
    if isinstance(rows, list):
        return len(rows)
    return sum(len(paragraph["qas"]) for article in rows["data"] for paragraph in article["paragraphs"])
