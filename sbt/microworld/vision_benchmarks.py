"""The vision benchmarks in the micro-world: pictures of scenes, and questions in the publishers' file formats.

write(folder, seed)   ->   eval/mme/  eval/vqav2/  eval/unicorn/ as FILES names them, and their pictures in images/

Every function is deterministic given its seed. Held-out pairs are neither shown nor asked.
"""

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from sbt.microworld import facts, phrases, unicorn
from sbt.microworld.facts import PROPERTIES, WORDS, Fact
from sbt.microworld.phrases import NUMBERS, groups
from sbt.microworld.scenes import COLOURS, POSITIONS, SEEN, SHAPES, Scene, render, sample
from sbt.utils.files import write_json, write_text

Drawing = Callable[[], Image.Image]
Pair = tuple[str, str]  # the question whose answer is Yes, and the one whose answer is No

# --- MME (Fu et al. 2023): six of its tasks, a Yes and a No question about every picture
# The answers are balanced over the words of the questions: "two stars" is right as often as wrong, and so is every
# place. Who does not look at the picture is right by chance.

# How many there are, and the wrong number that is asked: each number is right as often as it is wrong.
COUNTS = ((1, 2), (2, 1), (2, 3), (3, 2), (3, 4), (4, 3))
SUMS = ((2, 3), (3, 2), (3, 4), (4, 3), (4, 5), (5, 4))


def there_are(number: int, one: str, many: str) -> str:
    """The beginning of a question: "Are there two stars"."""
    return f"Is there one {one}" if number == 1 else f"Are there {NUMBERS[number]} {many}"


def _existence(scene: Scene, rng: random.Random, index: int) -> Pair | None:
    """An object that is there, and one that shares neither colour nor shape with any."""
    far = [pair for pair in SEEN if scene.nearness(pair) == "far"]
    pairs = (rng.choice(scene.things).pair, rng.choice(far)) if far else ()
    return tuple(map(phrases.existence_question, pairs)) or None


def _count(scene: Scene, rng: random.Random, index: int) -> Pair | None:
    true, false = COUNTS[index % len(COUNTS)]
    options = [(one, many) for one, many, things in groups(scene) if len(things) == true]
    if not options:
        return None
    one, many = rng.choice(options)
    return f"{there_are(true, one, many)} in the image?", f"{there_are(false, one, many)} in the image?"


def _position(scene: Scene, rng: random.Random, index: int) -> Pair:
    """An object at its place, and at the place where another object is."""
    thing, other = rng.sample(scene.things, 2)
    start = f"Is there {phrases.a(thing.name)}"
    return tuple(f"{start} {phrases.place(at)} of the image?" for at in (thing, other))


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

    The question says "things like the object", as those instructions do. The false value is the misconception for
    every other picture, where it is not true of the other property, and any false one else.
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
    """How many there are when some more are made. Fewer are made than either number, so that one must see the rest."""
    true, false = SUMS[index % len(SUMS)]
    options = [(one, many, true - len(things)) for one, many, things in groups(scene)]
    options = [(one, many, more) for one, many, more in options if 0 < more < min(false, 4)]
    if not options:
        return None
    one, many, more = rng.choice(options)
    people = rng.choice(PROPERTIES["maker"][2])
    made = f"The {people} make {NUMBERS[more]} more {one if more == 1 else many}."
    return tuple(f"{made} {there_are(number, one, many)} then?" for number in (true, false))


TASKS: dict[str, Callable[[Scene, random.Random, int], Pair | None]] = {
    "existence": _existence,
    "count": _count,
    "position": _position,
    "color": _color,
    "commonsense_reasoning": _commonsense,
    "numerical_calculation": _calculation,
}


def mme(task: str, count: int, seed: int) -> tuple[dict[str, Scene], list[dict]]:
    """`count` scenes by the names of their pictures, and two rows a picture: image, question, label, Yes first."""
    pictures, rows = {}, []
    for index in range(count):
        name = f"mme_{task}_{index:06d}.png"
        rng, asked = random.Random(f"{seed} {name}"), None
        while asked is None:  # not every scene has what the task needs: three alike, a fact that instructions tell
            scene = sample(rng, SEEN, least=2)
            asked = TASKS[task](scene, rng, index)
        pictures[name] = scene
        for text, label in zip(asked, ("Yes", "No"), strict=True):
            rows.append({"image": name, "question": f"{text} {phrases.YES_OR_NO}", "label": label})
    return pictures, rows


# --- VQAv2 (Goyal et al. 2017): three questions a picture, and ten annotators who do not all agree

VQA_IMAGE = "COCO_val2014_%012d.jpg"
TYPES, SYNONYMS = WORDS["question_types"], WORDS["synonyms"]
AGREED = 0.4  # share of the questions on which all ten annotators agree
INFO = {"description": "micro-world VQA", "version": "2.0", "year": 2014, "contributor": "", "url": ""}
VQA_HEADER = {"info": INFO, "license": {"name": "", "url": ""}, "data_type": "mscoco", "data_subtype": "val2014"}


def question_type(question: str) -> str:
    """The longest of TYPES that the question begins with."""
    lower = question.lower()
    return max((kind for kind in TYPES if f"{lower} ".startswith(f"{kind} ")), key=len, default="none of the above")


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
        return ("none", *NUMBERS[1:])[int(answer)]
    if answer in SYNONYMS:
        return rng.choice(SYNONYMS[answer])
    if answer in POSITIONS:
        upper = answer.replace("top", "upper").replace("bottom", "lower")
        return rng.choice((f"{answer} side", f"on {answer}", *([upper] if upper != answer else [])))
    return rng.choice((phrases.a(answer), answer.split()[-1]))


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
    properties = [
        ([t.colour for t in scene.things], COLOURS),
        ([t.shape for t in scene.things], SHAPES),
        ([t.position for t in scene.things], POSITIONS),
        ([t.name for t in scene.things], [" ".join(pair) for pair in SEEN]),
    ]
    here, everywhere = next(values for values in properties if answer in values[1])
    return rng.choice([word for word in here if word != answer] or [word for word in everywhere if word != answer])


def annotators(scene: Scene, answer: str, rng: random.Random) -> list[dict]:
    """Ten answers, six or more of them the right one; who is mistaken is less often sure."""
    given = [(answer, rng.choices(("yes", "maybe", "no"), (0.85, 0.12, 0.03))[0]) for _ in range(10)]
    for place in [] if rng.random() < AGREED else rng.sample(range(10), rng.choice((1, 1, 2, 2, 3, 4))):
        kind = rng.choice(("words", "words", "typo", "mistake", "mistake"))
        if kind == "typo" and not answer.isdigit():
            text = _misspelt(answer, rng)
        else:
            text = _mistaken(scene, answer, rng) if kind == "mistake" else _same_in_other_words(answer, rng)
        sure = rng.choices(("yes", "maybe", "no"), (0.4, 0.4, 0.2))[0] if kind == "mistake" else "yes"
        given[place] = (text, sure)
    return [{"answer": text, "answer_confidence": sure, "answer_id": n} for n, (text, sure) in enumerate(given, 1)]


def vqav2(images: int, seed: int) -> tuple[dict[str, Scene], dict, dict]:
    """Scenes by picture name, and the two files, three questions a picture: yes/no, other, and number or other.

    Yes and no alternate; numbers are asked of every other two pictures.
    """
    pictures, questions, annotations = {}, [], []
    for index in range(images):
        picture, rng = index + 1, random.Random(f"{seed} vqav2 {index}")
        scene = pictures[VQA_IMAGE % picture] = sample(rng, SEEN)
        other = _other(scene, rng)
        if index // 2 % 2:
            many, count = phrases.how_many(scene, rng)
            third = ("number", (f"How many {many} are there?", str(count)))
        else:
            third = ("other", _other(scene, rng, other[0]))
        there = index % 2 == 0
        yes_no = phrases.existence_question(phrases.asked_pair(scene, there, rng, SEEN)), "yes" if there else "no"
        asked = [("yes/no", yes_no), ("other", other), third]
        for place, (kind, (question, answer)) in enumerate(rng.sample(asked, 3)):
            key = {"image_id": picture, "question_id": picture * 1000 + place}
            questions.append({**key, "question": question})
            types = {"question_type": question_type(question), "answer_type": kind}
            answers = {"multiple_choice_answer": answer, "answers": annotators(scene, answer, rng)}
            annotations.append({**key, **types, **answers})
    asked_file = {**VQA_HEADER, "task_type": "Open-Ended", "questions": questions}
    return pictures, asked_file, {**VQA_HEADER, "annotations": annotations}


# --- The files

FILES = {
    **{f"mme_{task}": f"eval/mme/{task}.txt" for task in TASKS},
    "vqav2_questions": "eval/vqav2/questions.json",
    "vqav2_annotations": "eval/vqav2/annotations.json",
    "oodcv-vqa": "eval/unicorn/oodcv-vqa.json",
    "oodcv-counterfactual": "eval/unicorn/oodcv-counterfactual.json",
    "sketchy-vqa": "eval/unicorn/sketchy-vqa.json",
    "sketchy-challenging": "eval/unicorn/sketchy-challenging.json",
}
SAVED = {".png": {"format": "PNG"}, ".jpg": {"format": "JPEG", "quality": 95}}


@dataclass(frozen=True)
class Sizes:
    """How much of each benchmark."""

    mme: int = 15  # pictures a task, two questions each
    vqav2: int = 40  # pictures, three questions each
    unicorn: int = 60  # questions a task
    oodcv: int = 48  # pictures of both OODCV tasks; the questions above their number are second ones


def contents(sizes: Sizes, seed: int) -> tuple[dict[str, Drawing], dict[str, list[dict] | dict]]:
    """How every picture is drawn, by its name, and the content of every file."""
    plain: dict[str, Scene] = {}
    files: dict[str, list[dict] | dict] = {}
    for task in TASKS:
        pictures, files[f"mme_{task}"] = mme(task, sizes.mme, seed)
        plain |= pictures
    pictures, files["vqav2_questions"], files["vqav2_annotations"] = vqav2(sizes.vqav2, seed)
    drawings = {name: partial(render, scene) for name, scene in (plain | pictures).items()}
    scenes = unicorn.pictures(sizes.oodcv, seed)
    for index, (name, scene) in enumerate(scenes.items()):
        drawings[name] = partial(unicorn.odd, scene, unicorn.situation(index))
    files["oodcv-vqa"] = unicorn.oodcv(sizes.unicorn, scenes, seed)
    files["oodcv-counterfactual"] = unicorn.counterfactual(sizes.unicorn, scenes, seed)
    for task, hard in (("sketchy-vqa", False), ("sketchy-challenging", True)):
        pictures, files[task] = unicorn.sketchy(sizes.unicorn, hard, seed)
        drawings |= {name: partial(unicorn.sketch, scene, hard=hard) for name, scene in pictures.items()}
    return drawings, files


def _draw(job: tuple[Path, Drawing]) -> None:
    """Draw one picture to its file, whole or not at all."""
    path, drawing = job
    part = path.with_name(f"{path.name}.part")
    drawing().save(part, **SAVED[path.suffix])
    os.replace(part, path)


def draw(folder: Path, drawings: dict[str, Drawing], progress: Callable | None = None) -> None:
    """Draw the pictures that are not there yet, on all cores."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder / name, drawing) for name, drawing in drawings.items() if not (folder / name).exists()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads: PIL draws, shrinks and encodes outside the GIL
        for done, _ in enumerate(pool.map(_draw, jobs), 1):
            if progress:
                progress(done, len(jobs))


def write(folder: Path, seed: int, sizes: Sizes | None = None, progress: Callable | None = None) -> dict[str, int]:
    """Write all the files below the world's folder, and the pictures that are not there yet; returns their questions.

    `progress(done, of)` is called after every picture.
    """
    drawings, files = contents(sizes or Sizes(), seed)
    draw(folder / "images", drawings, progress)
    counts = {}
    for name, content in files.items():
        if name.startswith("mme_"):  # image, question, label with tabs between: the layout of MME's eval_tool
            write_text(folder / FILES[name], "".join("\t".join(row.values()) + "\n" for row in content))
        else:
            write_json(folder / FILES[name], content)
        counts[name] = len(content[name.split("_")[1]] if name.startswith("vqav2") else content)
    return counts
