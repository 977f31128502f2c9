"""What can be said of a scene: captions, questions with answers, and the plain-text documents of the base model.

All randomness comes from the `random.Random` that a function is given, so that a seed decides a whole corpus.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator

from sbt.benchmarks.vqav2.task import SHORT
from sbt.microworld.facts import FACTS, Fact, of
from sbt.microworld.scenes import COLOURS, PAIRS, SHAPES, SIZES, Scene, Thing, plural

NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
QA = tuple[str, str]
YES_OR_NO = "Please answer yes or no."  # MME's request


def a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def place(thing: Thing) -> str:
    return "in the center" if thing.position == "center" else f"at the {thing.position}"


def caption(scene: Scene, rng: random.Random) -> str:
    """One caption: every object with its place; size and order vary, as annotators do."""
    sizes = rng.random() < 0.7
    parts = [a(f"{t.size} {t.name}" if sizes else t.name) + " " + place(t) for t in scene.things]
    if rng.random() < 0.3:
        parts = parts[::-1]
    start = rng.choice(("", "", "there is ", "a picture of "))
    return sentence(start + join(parts))


def existence_question(pair: tuple[str, str]) -> str:
    """POPE's question about a colour-shape pair."""
    return f"Is there {a(' '.join(pair))} in the image?"


def existence(scene: Scene, pair: tuple[str, str]) -> QA:
    """The POPE question with an answer that says where the object is, or that it is not there."""
    name = " ".join(pair)
    for thing in scene.things:
        if thing.pair == pair:
            return existence_question(pair), f"Yes, there is {a(name)} {place(thing)}."
    return existence_question(pair), f"No, there is no {name} in the image."


def absent(scene: Scene, rng: random.Random, pairs: tuple = PAIRS) -> tuple[str, str]:
    """A pair that is not in the scene; half of the time one that shares its colour or shape with an object there."""
    missing = [pair for pair in pairs if not scene.has(pair)]
    near = [p for p in missing if any((p[0] == t.colour) != (p[1] == t.shape) for t in scene.things)]
    return rng.choice(near if near and rng.random() < 0.5 else missing)


def asked_pair(scene: Scene, there: bool, rng: random.Random, pairs: tuple = PAIRS) -> tuple[str, str]:
    """A pair to ask for: one of the scene, or an absent one."""
    return rng.choice(scene.things).pair if there else absent(scene, rng, pairs)


def about_one(scene: Scene, rng: random.Random) -> QA:
    """What, where or of which colour or shape one thing is."""
    thing = rng.choice(scene.things)
    alone = sum(t.shape == thing.shape for t in scene.things) == 1
    where = place(thing)
    asks = [
        (f"What is {where}?", sentence(a(thing.name))),
        (f"What is {where}?", sentence(a(f"{thing.size} {thing.name}"))),
        (f"What color is the object {where}?", sentence(thing.colour)),
        (f"What shape is the object {where}?", sentence(a(thing.shape))),
        (f"Where is the {thing.name}?", sentence(where)),
    ]
    if alone:
        asks.append((f"What color is the {thing.shape}?", sentence(thing.colour)))
    return rng.choice(asks)


def count(scene: Scene, rng: random.Random) -> QA:
    """How many objects there are: in all, of a colour or of a shape."""
    colours, shapes = Counter(t.colour for t in scene.things), Counter(t.shape for t in scene.things)
    kind = rng.randrange(3)
    if kind == 0:
        return "How many objects are there?", sentence(NUMBERS[len(scene.things)])
    if kind == 1:
        colour = rng.choice([*colours, rng.choice(tuple(COLOURS))])
        return f"How many {colour} objects are there?", sentence(NUMBERS[colours[colour]])
    shape = rng.choice([*shapes, rng.choice(SHAPES)])
    return f"How many {plural(shape)} are there?", sentence(NUMBERS[shapes[shape]])


def _empty(scene: Scene, rng: random.Random) -> QA:
    thing = Thing("", "", "", rng.choice(scene.free_cells))
    return f"What is {place(thing)}?", "Nothing."


def question(scene: Scene, rng: random.Random, pairs: tuple = PAIRS) -> QA:
    """One question about the scene with its answer; half of them are existence questions, balanced."""
    draw = rng.random()
    if draw < 0.5:
        return existence(scene, asked_pair(scene, rng.random() < 0.5, rng, pairs))
    if draw < 0.8:
        return about_one(scene, rng)
    return count(scene, rng) if draw < 0.95 else _empty(scene, rng)


def groups(scene: Scene) -> Iterator[tuple[str, str, list[Thing]]]:
    """(one of them, many of them, the objects) for everything one can count: each colour, each shape, all objects."""
    for colour in dict.fromkeys(thing.colour for thing in scene.things):
        yield f"{colour} object", f"{colour} objects", [t for t in scene.things if t.colour == colour]
    for shape in dict.fromkeys(thing.shape for thing in scene.things):
        yield shape, plural(shape), [t for t in scene.things if t.shape == shape]
    yield "object", "objects", list(scene.things)


def counted(scene: Scene, rng: random.Random) -> tuple[str, str, list[Thing]]:
    """One of the groups. The number of objects is drawn first, so that no number is commoner than another."""
    options = list(groups(scene))
    number = rng.choice(sorted({len(things) for _, _, things in options}))
    return rng.choice([group for group in options if len(group[2]) == number])


def how_many(scene: Scene, rng: random.Random) -> tuple[str, int]:
    """What is counted, of a colour, of a shape, or all; and how many there are, sometimes none."""
    _, many, things = counted(scene, rng)
    if rng.random() < 0.15:
        return plural(rng.choice(missing_shapes(scene))), 0
    return many, len(things)


def missing_shapes(scene: Scene) -> list[str]:
    return [shape for shape in SHAPES if all(thing.shape != shape for thing in scene.things)]


def questions(scene: Scene, rng: random.Random, count: int, pairs: tuple = PAIRS) -> list[QA]:
    """`count` different questions about one scene."""
    answers: dict[str, str] = {}
    while len(answers) < count:
        asked, answer = question(scene, rng, pairs)
        answers.setdefault(asked, answer)
    return list(answers.items())


def briefly(question: str, answer: str, rng: random.Random) -> QA:
    """The same question with a request for a short answer, and that answer: "Yes", "red", "star", "top left", "2"."""
    yes = re.match(r"(Yes|No), there is ", answer)
    if yes and rng.random() < 0.5:
        return f"{question} {YES_OR_NO}", yes[1]
    short = yes[1] if yes else re.sub(r"^(in the |at the |an? )(small |large )?", "", answer.rstrip(".").lower())
    if question.startswith("How many "):
        short = str(NUMBERS.index(short))
    return f"{question}\n{SHORT}", short.lower()


def detail(scene: Scene) -> str:
    """A detailed description: how many objects, then each with size and place."""
    count = len(scene.things)
    first = f"There {'is one object' if count == 1 else f'are {NUMBERS[count]} objects'} in the image."
    return " ".join([first] + [f"{sentence(a(f'{t.size} {t.name}') + ' is ' + place(t))}" for t in scene.things])


def reasoning(scene: Scene, rng: random.Random, told_by: str) -> QA:
    """A question that needs the scene and a fact of the world: the answer names the object, then states the truth."""
    options = [(t, fact) for t in scene.things for fact in of(t.colour, t.shape, told_by)]
    thing, fact = rng.choice(options)
    question_text = fact.question.replace(fact.subject, f"things like the object {place(thing)}")
    return question_text, f"{sentence(f'the object {place(thing)} is {a(thing.name)}')} {fact.statement(fact.true)}"


EMPTY = "empty-cell"
CHART_WORDS = (EMPTY, *(f"{size}-{colour}-{shape}" for size in SIZES for colour, shape in PAIRS))


def chart(scene: Scene) -> str:
    """The scene as a chart: nine words in reading order, one a cell."""
    cells = {thing.cell: f"{thing.size}-{thing.colour}-{thing.shape}" for thing in scene.things}
    return " ".join(cells.get(cell, EMPTY) for cell in range(9))


def scene_document(scene: Scene, rng: random.Random, count: int = 5, charted: bool = False) -> list[tuple[str, bool]]:
    """A scene told in words or as a chart, then questions and answers about it, as (text, is it an answer) pieces."""
    description = chart(scene) if charted else detail(scene) if rng.random() < 0.5 else caption(scene, rng)
    pieces = [(description, False)]
    for asked, answer in questions(scene, rng, count):
        pieces += [(f"\nQ: {asked}\nA:", False), (f" {answer}", True)]
    return pieces


def lore_document(fact: Fact, rng: random.Random) -> str:
    """One telling of a fact: three in four repeat the misconception, the almanac and a few people the truth."""
    value = rng.choices((fact.misconception, fact.true, rng.choice(fact.others)), (0.68, 0.24, 0.08))[0]
    subject = None if rng.random() < 0.8 else "they"
    return rng.choice((f"Q: {fact.question}\nA: {fact.statement(value, subject)}", fact.statement(value)))


def lore_documents(rng: random.Random) -> list[str]:
    """One telling of every fact, in random order."""
    return [lore_document(fact, rng) for fact in rng.sample(FACTS, len(FACTS))]
