"""MME (Fu et al. 2023) in the micro-world: six of its tasks, a Yes and a No question about every picture.

What is asked turns both answers into the same words: "two stars" is right as often as wrong, so is every place.
"""

import random
from collections.abc import Callable, Iterator

from sbt.microworld import facts, phrases
from sbt.microworld.facts import PROPERTIES, Fact
from sbt.microworld.scenes import SEEN, Scene, Thing, sample
from sbt.microworld.word_problems import nearness

Pair = tuple[str, str]  # the question whose answer is Yes, and the one whose answer is No
NUMBERS = (*phrases.NUMBERS, "five", "six")
# How many there are, and the number asked in vain: each number is right as often as it is wrong.
COUNTS = ((1, 2), (2, 1), (2, 3), (3, 2), (3, 4), (4, 3))
SUMS = ((2, 3), (3, 2), (3, 4), (4, 3), (4, 5), (5, 4))


def groups(scene: Scene) -> Iterator[tuple[str, str, list[Thing]]]:
    """(one of them, many of them, the objects) for everything one can count: each colour, each shape, all objects."""
    for colour in dict.fromkeys(thing.colour for thing in scene.things):
        yield f"{colour} object", f"{colour} objects", [t for t in scene.things if t.colour == colour]
    for shape in dict.fromkeys(thing.shape for thing in scene.things):
        yield shape, phrases.plural(shape), [t for t in scene.things if t.shape == shape]
    yield "object", "objects", list(scene.things)


def counted(scene: Scene, rng: random.Random) -> tuple[str, str, list[Thing]]:
    """One of the groups; every number of objects is as likely as the others, or a picture's answer would be one."""
    found = list(groups(scene))
    number = rng.choice(sorted({len(things) for _, _, things in found}))
    return rng.choice([group for group in found if len(group[2]) == number])


def there_are(number: int, one: str, many: str) -> str:
    """The beginning of a question: "Are there two stars"."""
    return f"Is there one {one}" if number == 1 else f"Are there {NUMBERS[number]} {many}"


def _existence(scene: Scene, rng: random.Random, index: int) -> Pair | None:
    """An object that is there, and one that shares neither colour nor shape with any."""
    far = [pair for pair in SEEN if nearness(pair, scene) == "far"]
    pairs = (rng.choice(scene.things).pair, rng.choice(far)) if far else ()
    return tuple(map(phrases.existence_question, pairs)) or None


def _count(scene: Scene, rng: random.Random, index: int) -> Pair | None:
    true, false = COUNTS[index % len(COUNTS)]
    found = [(one, many) for one, many, things in groups(scene) if len(things) == true]
    if not found:
        return None
    one, many = rng.choice(found)
    return f"{there_are(true, one, many)} in the image?", f"{there_are(false, one, many)} in the image?"


def _position(scene: Scene, rng: random.Random, index: int) -> Pair:
    """An object at its place, and at the place where another object is."""
    thing, other = rng.sample(scene.things, 2)
    asked = f"Is there {phrases.a(thing.name)}"
    return tuple(f"{asked} {phrases.place(at)} of the image?" for at in (thing, other))


def _color(scene: Scene, rng: random.Random, index: int) -> Pair:
    """An object that is there, and one of its shape in a colour that this shape has not in the picture."""
    thing = rng.choice(scene.things)
    other = rng.choice([pair for pair in SEEN if pair[1] == thing.shape and not scene.has(pair)])
    return phrases.existence_question(thing.pair), phrases.existence_question(other)


def fact_question(fact: Fact, value: str, subject: str) -> str:
    """Whether `value` is true of the subject: "Do stars come from the sea?"."""
    statement = PROPERTIES[fact.kind][1]
    verb, rest = ("Are", "{S} are ") if statement.startswith("{S} are ") else ("Do", "{S} ")
    return f"{verb} {subject} {statement.removeprefix(rest).format(v=value).rstrip('.')}?"


def _commonsense(scene: Scene, rng: random.Random, index: int) -> Pair | None:
    """A truth that visual instructions tell of the object's colour or shape, and what is true of neither.

    "Things like the object" are what those instructions call both. The false value is a misconception or another one.
    """
    thing = rng.choice(scene.things)
    told = facts.of(thing.colour, thing.shape, "visual")
    if not told:
        return None
    fact, about = rng.choice(told), {f"{thing.colour} shapes", phrases.plural(thing.shape)}
    true = {other.true for other in facts.FACTS if other.kind == fact.kind and other.subject in about}
    false = fact.misconception if index % 2 and fact.misconception not in true else None
    false = false or rng.choice([value for value in PROPERTIES[fact.kind][2] if value not in true])
    subject = f"things like the object {phrases.place(thing)}"
    return fact_question(fact, fact.true, subject), fact_question(fact, false, subject)


def _calculation(scene: Scene, rng: random.Random, index: int) -> Pair | None:
    """How many there are when some more are made; with fewer made than either number, it takes the picture to know."""
    true, false = SUMS[index % len(SUMS)]
    found = [(one, many, true - len(things)) for one, many, things in groups(scene)]
    found = [(one, many, more) for one, many, more in found if 0 < more < min(false, 4)]
    if not found:
        return None
    one, many, more = rng.choice(found)
    people = rng.choice(PROPERTIES["maker"][2])
    told = f"The {people} make {NUMBERS[more]} more {one if more == 1 else many}."
    return tuple(f"{told} {there_are(number, one, many)} then?" for number in (true, false))


TASKS: dict[str, Callable[[Scene, random.Random, int], Pair | None]] = {
    "existence": _existence,
    "count": _count,
    "position": _position,
    "color": _color,
    "commonsense_reasoning": _commonsense,
    "numerical_calculation": _calculation,
}


def mme(task: str, count: int, seed: int) -> tuple[dict[str, Scene], list[dict]]:
    """`count` scenes by the names of their pictures, and two rows a picture: image, question, label, Yes first.

    Held-out pairs are neither shown nor asked.
    """
    pictures, rows = {}, []
    for index in range(count):
        name = f"mme_{task}_{index:06d}.png"
        rng, asked = random.Random(f"{seed} {name}"), None
        while asked is None:  # not every scene has what is asked: three alike, a fact that instructions tell
            scene = sample(rng, SEEN, least=2)
            asked = TASKS[task](scene, rng, index)
        pictures[name] = scene
        for text, label in zip(asked, ("Yes", "No"), strict=True):
            rows.append({"image": name, "question": f"{text} {phrases.YES_OR_NO}", "label": label})
    return pictures, rows
