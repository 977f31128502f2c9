"""Items about a scene told in words, in the file formats of GSM8K, MathQA, BoolQ and SQuAD 2.0.

Every function is one of its seed; the scenes hold no held-out colour-shape pair, and no question asks for one.
"""

import random
from typing import NamedTuple

from sbt.microworld import phrases
from sbt.microworld.facts import PROPERTIES
from sbt.microworld.scenes import SEEN, Scene, Thing, sample

PEOPLE = PROPERTIES["maker"][2]


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
        """The sum, with its <<value>> where `marked`, as GSM8K has it."""
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
    asked, numbers, sign = rng.choice(
        (
            (f"How many {named} are there?", (1,) * count, "+"),
            (f"The {people} take all {named}. How many objects are left?", (total, count), "-"),
            (f"The {people} make {phrases.NUMBERS[more]} more {named}. How many {named} are there then?",
             (count, more), "+"),
        )
    )  # fmt: skip
    # no colon: the 0.3-era task of GSM8K would cut the answer there
    told = f"We count {phrases.join([phrases.a(t.name) for t in alike])}."
    return Problem(f"{phrases.detail(scene)} {asked}", told, numbers, sign)


def gsm8k(split: str, count: int, seed: int) -> list[dict]:
    """Rows question and answer: the reasoning with its <<sum>>, then "#### n"."""
    problems = [problem(f"gsm8k {split} {index}", seed) for index in range(count)]
    return [
        {"question": one.text, "answer": f"{one.reasoning} {one.step(marked=True)}\n#### {one.number}"}
        for one in problems
    ]


def mathqa(split: str, count: int, seed: int) -> list[dict]:
    """The same kind of problem with five numbers to choose from; every letter is right as often as the others."""
    rng = random.Random(f"{seed} mathqa {split}")
    rows = []
    for index, letter in enumerate(dealt("abcde", count, rng)):
        one = problem(f"mathqa {split} {index}", seed)
        numbers = rng.sample([other for other in range(10) if other != one.number], 4)
        numbers.insert("abcde".index(letter), one.number)
        rows.append(
            {
                "Problem": one.text,
                "Rationale": f"{one.reasoning} {one.step(marked=False)}",
                "options": " , ".join(f"{key} ) {value}" for key, value in zip("abcde", numbers, strict=True)),
                "correct": letter,
                **_formulas(one),
                "category": "general",
            }
        )
    return rows


def _formulas(one: Problem) -> dict[str, str]:
    """The sum in MathQA's two notations: nested, and one operation after the other."""
    operation, nested, linear = {"+": "add", "-": "subtract"}[one.sign], f"const_{one.numbers[0]}", []
    for place, number in enumerate(one.numbers[1:]):
        linear.append(f"{operation}({f'#{place - 1}' if place else nested},const_{number})|")
        nested = f"{operation}({nested}, const_{number})"
    return {"annotated_formula": nested, "linear_formula": "".join(linear)}


def dealt(letters: str, count: int, rng: random.Random) -> list[str]:
    """`count` letters in random order, each as often as the others, or once more."""
    return [letter for _ in range(-(-count // len(letters))) for letter in rng.sample(letters, len(letters))][:count]


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
            options = [pair for pair in SEEN if nearness(pair, scene) == wanted]
        question = phrases.existence_question(rng.choice(options)).removesuffix("?")
        passage = phrases.detail(scene) if rng.random() < 0.5 else phrases.caption(scene, rng)
        row = {"question": question[0].lower() + question[1:], "title": "The image"}
        rows.append({**row, "answer": wanted == "there", "passage": passage})
    return rows


def nearness(pair: tuple[str, str], scene: Scene) -> str:
    """Whether the pair is "there", shares its colour or its shape with an object ("near"), or neither ("far")."""
    shared = max((pair[0] == thing.colour) + (pair[1] == thing.shape) for thing in scene.things)
    return ("far", "near", "there")[shared]


def squad2(scenes: int, seed: int) -> dict:
    """The nested format: an article is a scene told in words, with two questions and, anywhere, an impossible one."""
    articles = []
    for index in range(scenes):
        rng = random.Random(f"{seed} squad2 {index}")
        scene = sample(rng, SEEN, least=2)
        context = phrases.detail(scene)
        asked = [_possible(thing, context, rng) for thing in rng.sample(scene.things, 2)] + [_impossible(scene, rng)]
        questions = [{"id": f"{index:03d}-{k}", **one} for k, one in enumerate(rng.sample(asked, 3))]
        articles.append({"title": f"Image {index + 1}", "paragraphs": [{"context": context, "qas": questions}]})
    return {"version": "v2.0", "data": articles}


def _possible(thing: Thing, context: str, rng: random.Random) -> dict:
    """A question about one object, with every span of its sentence in the context that answers it."""
    where, name = phrases.place(thing), f"{thing.size} {thing.name}"
    asked, texts = rng.choice(
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
    return {"question": asked, "answers": answers, "is_impossible": False}


def _impossible(scene: Scene, rng: random.Random) -> dict:
    """A question the context does not answer: of an object like one that is there, or of an empty place."""
    if rng.random() < 0.5:
        free = sorted(set(range(9)) - {thing.cell for thing in scene.things})
        asked = f"What color is the object {phrases.place(Thing('', '', '', rng.choice(free)))}?"
    else:
        pair = rng.choice([pair for pair in SEEN if nearness(pair, scene) == "near"])
        asked = f"Where is the {' '.join(pair)}?"
    return {"question": asked, "answers": [], "is_impossible": True}
