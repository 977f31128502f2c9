"""VQAv2 (Goyal et al. 2017) in the micro-world: three questions a picture, and ten annotators who do not all agree.

vqav2(images=40, seed=0)   ->   scenes by picture name, questions.json, annotations.json
"""

import random

from sbt.microworld import phrases
from sbt.microworld.mme_items import counted
from sbt.microworld.scenes import COLOURS, POSITIONS, SEEN, SHAPES, Scene, sample

IMAGE = "COCO_val2014_%012d.jpg"
# The publishers' types that occur here; the longest one that a question begins with is its type
# (GT-Vision-Lab/VQA: QuestionTypes/mscoco_question_types.txt@a013f00).
TYPES = (
    *("how many", "is there a", "is there", "where is the"),
    *("what color is the", "what is in the", "what is the", "what is", "what"),
)
# Other words for the same: the official normalisation takes "a star" for "star", but not "violet" for "purple".
SYNONYMS = {
    "yes": ("yeah", "yes it is"),
    "no": ("nope", "not there"),
    "red": ("crimson", "dark red"),
    "green": ("emerald", "dark green"),
    "blue": ("navy", "royal blue"),
    "yellow": ("gold", "mustard"),
    "purple": ("violet", "lilac"),
    "orange": ("amber", "tangerine"),
    "circle": ("a circle", "disc"),
    "square": ("a square", "box"),
    "triangle": ("a triangle", "pyramid"),
    "star": ("a star", "5 pointed star"),
    "cross": ("a cross", "plus sign"),
    "heart": ("a heart", "heart shape"),
    "center": ("middle", "in center"),
}
AGREED = 0.4  # share of the questions on which all ten annotators agree
INFO = {"description": "micro-world VQA", "version": "2.0", "year": 2014, "contributor": "", "url": ""}
LICENSE = {"name": "", "url": ""}


def question_type(question: str) -> str:
    """The longest of TYPES that the question begins with."""
    lower = question.lower()
    return max((kind for kind in TYPES if f"{lower} ".startswith(f"{kind} ")), key=len, default="none of the above")


def _yes_no(scene: Scene, there: bool, rng: random.Random) -> tuple[str, str]:
    pair = rng.choice(scene.things).pair if there else phrases.absent(scene, rng, SEEN)
    return phrases.existence_question(pair), "yes" if there else "no"


def _number(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """How many there are of a colour, of a shape, or of all; now and then none."""
    _, many, things = counted(scene, rng)
    if rng.random() < 0.15:
        many, things = phrases.plural(rng.choice([s for s in SHAPES if s not in {t.shape for t in scene.things}])), []
    return f"How many {many} are there?", str(len(things))


def _other(scene: Scene, rng: random.Random, asked: str = "") -> tuple[str, str]:
    """What colour or shape an object has, where it is, or what is at a place; another question than `asked`."""
    thing = rng.choice(scene.things)
    where = phrases.place(thing)
    options = [
        (f"What color is the object {where}?", thing.colour),
        (f"What shape is the object {where}?", thing.shape),
        (f"Where is the {thing.name}?", thing.position),
        (f"What is {where}?", thing.name),
    ]
    if sum(t.shape == thing.shape for t in scene.things) == 1:
        options.append((f"What color is the {thing.shape}?", thing.colour))
    return rng.choice([option for option in options if option[0] != asked])


def _same_in_other_words(answer: str, rng: random.Random) -> str:
    if answer.isdigit():
        return ("none", *phrases.NUMBERS[1:])[int(answer)]
    if answer in SYNONYMS:
        return rng.choice(SYNONYMS[answer])
    if answer in POSITIONS:
        upper = answer.replace("top", "upper").replace("bottom", "lower")
        return rng.choice((f"{answer} side", f"on {answer}", *([upper] if upper != answer else [])))
    return rng.choice((f"a {answer}" if answer[0] not in "aeiou" else f"an {answer}", answer.split()[-1]))


def _misspelt(answer: str, rng: random.Random) -> str:
    """Two neighbouring letters, never the first, the wrong way round; a short answer is mistyped at its end."""
    places = [k for k in range(1, len(answer) - 1) if answer[k] != answer[k + 1] and " " not in answer[k : k + 2]]
    if not places:
        return answer + answer[-1]
    place = rng.choice(places)
    return answer[:place] + answer[place + 1] + answer[place] + answer[place + 2 :]


def _mistaken(scene: Scene, answer: str, rng: random.Random) -> str:
    """Another plausible answer: the other word, a number near by, what is true of another object of the picture."""
    if answer in ("yes", "no"):
        return {"yes": "no", "no": "yes"}[answer]
    if answer.isdigit():
        return str(rng.choice([near for near in (int(answer) - 1, int(answer) + 1) if near >= 0]))
    fields = [
        ([t.colour for t in scene.things], COLOURS),
        ([t.shape for t in scene.things], SHAPES),
        ([t.position for t in scene.things], POSITIONS),
        ([t.name for t in scene.things], [" ".join(pair) for pair in SEEN]),
    ]
    here, known = next(field for field in fields if answer in field[1])
    return rng.choice([word for word in here if word != answer] or [word for word in known if word != answer])


def annotators(scene: Scene, answer: str, rng: random.Random) -> list[dict]:
    """Ten answers, six or more of them the right one; who is mistaken is less often sure."""
    given = [(answer, rng.choices(("yes", "maybe", "no"), (0.85, 0.12, 0.03))[0]) for _ in range(10)]
    for place in [] if rng.random() < AGREED else rng.sample(range(10), rng.choice((1, 1, 2, 2, 3, 4))):
        kind = rng.choice(("words", "words", "typo", "mistake", "mistake"))
        if kind == "typo" and not answer.isdigit():
            said = _misspelt(answer, rng)
        else:
            said = _mistaken(scene, answer, rng) if kind == "mistake" else _same_in_other_words(answer, rng)
        sure = rng.choices(("yes", "maybe", "no"), (0.4, 0.4, 0.2))[0] if kind == "mistake" else "yes"
        given[place] = (said, sure)
    return [
        {"answer": said, "answer_confidence": sure, "answer_id": number}
        for number, (said, sure) in enumerate(given, start=1)
    ]


def vqav2(images: int, seed: int) -> tuple[dict[str, Scene], dict, dict]:
    """Scenes by picture name, and the two files, three questions a picture: yes/no, other, and number or other.

    Yes and no alternate; numbers are asked of every other two pictures. Held-out pairs are neither shown nor asked.
    """
    pictures, questions, annotations = {}, [], []
    for index in range(images):
        picture, rng = index + 1, random.Random(f"{seed} vqav2 {index}")
        scene = pictures[IMAGE % picture] = sample(rng, SEEN)
        other = _other(scene, rng)
        third = ("number", _number(scene, rng)) if index // 2 % 2 else ("other", _other(scene, rng, other[0]))
        asked = [("yes/no", _yes_no(scene, index % 2 == 0, rng)), ("other", other), third]
        for place, (kind, (question, answer)) in enumerate(rng.sample(asked, 3)):
            key = {"image_id": picture, "question_id": picture * 1000 + place}
            questions.append({**key, "question": question})
            annotations.append(
                {
                    **key,
                    "question_type": question_type(question),
                    "answer_type": kind,
                    "multiple_choice_answer": answer,
                    "answers": annotators(scene, answer, rng),
                }
            )
    common = {"info": INFO, "license": LICENSE, "data_type": "mscoco", "data_subtype": "val2014"}
    return (
        pictures,
        {**common, "task_type": "Open-Ended", "questions": questions},
        {**common, "annotations": annotations},
    )
