"""The micro-world's vision benchmarks: the publishers' formats, true labels, balance, and the pictures."""

import colorsys
import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sbt.benchmarks.mme import task as mme
from sbt.benchmarks.unicorn import task as unicorn
from sbt.benchmarks.vqav2 import task as vqav2
from sbt.benchmarks.vqav2.task import load as load_vqa
from sbt.benchmarks.vqav2.task import select
from sbt.microworld import facts, phrases, scenes, vision_benchmarks
from sbt.microworld import unicorn as world_unicorn
from sbt.microworld.facts import PROPERTIES
from sbt.microworld.scenes import Scene, Thing
from sbt.microworld.unicorn import odd, sketch

SMALL = vision_benchmarks.Sizes(mme=6, vqav2=6, unicorn=12, oodcv=8)
WORDS = ("no", "one", "two", "three", "four", "five")
PLACE = r"(?:at the|in the) (top left|top right|bottom left|bottom right|top|bottom|left|right|center)"
OODCV = ("oodcv-vqa", "oodcv-counterfactual")
SKETCHY = ("sketchy-vqa", "sketchy-challenging")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("world")
    return folder, vision_benchmarks.write(folder, 0)


@pytest.fixture(scope="module")
def shown() -> dict[str, Scene]:
    """The scene of every picture of the world."""
    drawings, _ = vision_benchmarks.contents(vision_benchmarks.Sizes(), 0)
    return {name: drawing.args[0] for name, drawing in drawings.items()}


def rows(world: tuple[Path, dict], name: str) -> list[dict]:
    return json.loads((world[0] / vision_benchmarks.FILES[name]).read_text())


def number(scene: Scene, noun: str) -> int:
    """How many objects of a scene a noun such as "star", "red objects" or "crosses" stands for."""
    words = noun.replace("objects", "object").split()
    shape = "cross" if words[-1] == "crosses" else words[-1].removesuffix("s") if words[-1] != "cross" else "cross"
    return sum(
        shape in ("object", thing.shape) and (len(words) == 1 or words[0] == thing.colour) for thing in scene.things
    )


def at(scene: Scene, place: str) -> list[Thing]:
    return [thing for thing in scene.things if thing.position == place]


def is_true(question: str, scene: Scene) -> bool:
    """Whether the answer to one of MME's questions is yes, from its words and the scene."""
    text, more = question.removesuffix(f" {phrases.YES_OR_NO}"), 0
    if told := re.match(r"The \w+ make (\w+) more [\w ]+\. ", text):
        text, more = text[told.end() :].replace(" then?", " in the image?"), WORDS.index(told[1])
    if lore := re.match(rf"(Do|Are) (things like the object {PLACE}) (.+)\?$", text):
        (thing,) = at(scene, lore[3])
        said = f"{lore[2]} {'are ' if lore[1] == 'Are' else ''}{lore[4]}."
        ((kind, value),) = [
            (kind, v) for kind, (_, form, values) in PROPERTIES.items() for v in values
            if form.format(S=lore[2], v=v) == said
        ]  # fmt: skip
        about = (f"{thing.colour} shapes", "crosses" if thing.shape == "cross" else f"{thing.shape}s")
        return any(f.true == value for f in facts.FACTS if f.kind == kind and f.subject in about)
    if placed := re.match(rf"Is there an? (\w+ \w+) {PLACE} of the image\?$", text):
        return any(thing.name == placed[1] for thing in at(scene, placed[2]))
    asked = re.match(r"(?:Is|Are) there (\w+) ([\w ]+) in the image\?$", text)
    found = number(scene, asked[2]) + more
    return found > 0 if asked[1] in ("a", "an") else found == WORDS.index(asked[1])


def answer_to(question: str, scene: Scene) -> str:
    """The answer to one of the other questions: Yes, No, a number, a colour, a shape, a place or a name."""
    if asked := re.match(r"Is there an? ([\w ]+) in the image\?$", question):
        return "Yes" if number(scene, asked[1]) else "No"
    if asked := re.match(r"How many ([\w ]+) are there(?: in the image)?\?$", question):
        return str(number(scene, asked[1]))
    if asked := re.match(rf"What (color|shape)? ?is (?:the object )?{PLACE}\?$", question):
        (thing,) = at(scene, asked[2])
        return {"color": thing.colour, "shape": thing.shape}.get(asked[1], thing.name)
    if asked := re.match(r"What color is the (\w+)\?$", question):
        (thing,) = [thing for thing in scene.things if thing.shape == asked[1]]
        return thing.colour
    (thing,) = [thing for thing in scene.things if question == f"Where is the {thing.name}?"]
    return thing.position


def what_if(question: str, scene: Scene) -> str:
    """The answer to a counterfactual question."""
    condition = r" (?:if|after|once|now that) (\w+) (more )?([\w ]+?) (?:is|are|were|has been|have been) (\w+)\?$"
    number_word, more, whom, verb = re.search(condition, question).groups()
    begin, noun = re.match(
        r"(How many|Would there be an?) ([\w ]+?) (?:would there be )?in the image", question
    ).groups()
    if begin == "How many":
        assert bool(more) == (verb == "added") and number(scene, whom) == number(scene, noun)  # one star, two stars
        size = WORDS.index(number_word)
        return str(number(scene, noun) + {"added": size, "removed": -size}[verb])
    left = Scene(tuple(thing for thing in scene.things if thing.name != whom), 0)
    assert len(left.things) == len(scene.things) - 1 and verb == "removed" and number_word == "the"
    return "Yes" if number(left, noun) else "No"


def test_a_second_writing_changes_no_byte_and_another_seed_does(tmp_path: Path) -> None:
    told = []
    counts = vision_benchmarks.write(tmp_path / "a", 3, SMALL, lambda done, of: told.append((done, of)))
    pictures = len(told)
    assert told[-1] == (pictures, pictures) and counts == vision_benchmarks.write(tmp_path / "b", 3, SMALL)
    first, second = (
        {file.relative_to(tmp_path / name): file.read_bytes() for file in (tmp_path / name).rglob("*.*")}
        for name in "ab"
    )
    assert first == second and len(first) == pictures + len(vision_benchmarks.FILES)
    drawn = {file: file.stat().st_mtime_ns for file in (tmp_path / "a/images").iterdir()}
    vision_benchmarks.write(tmp_path / "a", 3, SMALL, lambda done, of: pytest.fail("drawn again"))
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "a/images").iterdir()} == drawn
    vision_benchmarks.write(tmp_path / "c", 4, SMALL)
    same = [name for name, content in first.items() if (tmp_path / "c" / name).read_bytes() == content]
    assert same == []


def test_a_size_does_not_change_what_is_there_already(world: tuple, shown: dict) -> None:
    drawings, contents = vision_benchmarks.contents(SMALL, 0)
    assert {name: drawing.args[0] for name, drawing in drawings.items()} == {name: shown[name] for name in drawings}
    for task in vision_benchmarks.TASKS:
        lines = (world[0] / vision_benchmarks.FILES[f"mme_{task}"]).read_text().splitlines()
        assert ["\t".join(row.values()) for row in contents[f"mme_{task}"]] == lines[: 2 * SMALL.mme]


def test_every_file_is_named_and_counted(world: tuple) -> None:
    folder, counts = world
    assert set(counts) == set(vision_benchmarks.FILES)
    written = {file.relative_to(folder).as_posix() for file in (folder / "eval").rglob("*.*")}
    assert written == set(vision_benchmarks.FILES.values())
    assert {name: count for name, count in counts.items() if not name.startswith("mme_")} == {
        "vqav2_questions": 120, "vqav2_annotations": 120, **dict.fromkeys((*OODCV, *SKETCHY), 60)
    }  # fmt: skip
    assert {counts[f"mme_{task}"] for task in vision_benchmarks.TASKS} == {30}


def test_every_picture_opens_and_is_asked_about(world: tuple, shown: dict) -> None:
    folder, modes = world[0], Counter()
    text = "".join(file.read_text() for file in (folder / "eval").rglob("*.*"))
    for path in (folder / "images").iterdir():
        with Image.open(path) as image:
            image.load()
            assert image.size == (224, 224)
            modes[image.format, image.mode] += 1
        name = re.fullmatch(r"COCO_val2014_0{6}(\d{6})\.jpg", path.name)
        assert f'"image_id": {int(name[1])},' in text if name else path.name in text
    assert modes == {("PNG", "RGB"): 90 + 48, ("JPEG", "RGB"): 40, ("PNG", "L"): 60}
    assert sum(modes.values()) == len(shown)


def test_mme_has_a_true_and_a_false_question_an_image(world: tuple, shown: dict) -> None:
    items = mme.load(world[0] / "eval/mme")  # holds the pairing
    pictures = {task: count["pictures"] for task, count in mme.counts(items).items()}
    assert pictures == dict.fromkeys(vision_benchmarks.TASKS, 15)
    for item in items:
        assert item["question"].endswith(" Please answer yes or no.")
        assert is_true(item["question"], shown[item["image"]]) == (item["label"] == "Yes"), item
    assert [item["label"] for item in items] == ["Yes", "No"] * (len(items) // 2)  # as in the publishers' files
    perfect = mme.score(items, [item["label"] for item in items])
    assert (perfect["perception"], perfect["cognition"]) == (800, 400)


def test_mme_asks_with_the_same_words_for_yes_and_no() -> None:
    said = {"Yes": Counter(), "No": Counter()}
    for row in vision_benchmarks.mme("count", 60, 1)[1]:
        said[row["label"]][row["question"].split()[2]] += 1
    assert said["Yes"] == said["No"] == {"one": 10, "two": 20, "three": 20, "four": 10}
    for row in vision_benchmarks.mme("numerical_calculation", 60, 1)[1]:
        more, total = re.search(r"make (\w+) more .*there (\w+) ", row["question"]).groups()
        assert WORDS.index(total) > WORDS.index(more)  # there is one at least, so that no sum is wrong at sight
    rows = vision_benchmarks.mme("commonsense_reasoning", 60, 1)[1]
    wrong = [row["question"] for row in rows if row["label"] == "No"]
    assert len(set(wrong)) > 50


def test_vqa_files_have_the_official_nesting(world: tuple) -> None:
    questions, annotations = rows(world, "vqav2_questions"), rows(world, "vqav2_annotations")
    assert set(questions) == {"info", "license", "data_type", "data_subtype", "task_type", "questions"}
    assert set(annotations) == {"info", "license", "data_type", "data_subtype", "annotations"}
    assert questions["task_type"] == "Open-Ended" and questions["data_subtype"] == "val2014"
    for asked, row in zip(questions["questions"], annotations["annotations"], strict=True):
        assert set(asked) == {"image_id", "question_id", "question"}
        assert set(row) == {"image_id", "question_id", "question_type", "answer_type", "multiple_choice_answer",
                            "answers"}  # fmt: skip
        assert (row["image_id"], row["question_id"]) == (asked["image_id"], asked["question_id"])
        assert row["question_id"] // 1000 == row["image_id"]
        assert [answer["answer_id"] for answer in row["answers"]] == list(range(1, 11))
        assert {answer["answer_confidence"] for answer in row["answers"]} <= {"yes", "maybe", "no"}
    items = load_vqa(*(world[0] / vision_benchmarks.FILES[f"vqav2_{kind}"] for kind in ("questions", "annotations")))
    assert all((world[0] / "images" / item["image"]).is_file() for item in items)
    assert len(select(items, "paper", questions=100, pool=20)) == 100


def test_vqa_answers_are_true_and_balanced(world: tuple, shown: dict) -> None:
    items = load_vqa(*(world[0] / vision_benchmarks.FILES[f"vqav2_{kind}"] for kind in ("questions", "annotations")))
    for item in items:
        right = answer_to(item["question"], shown[item["image"]]).lower()
        assert item["multiple_choice_answer"] == right, item
        given = Counter(answer["answer"] for answer in item["answers"])
        assert given[right] >= 6
        kind = "yes/no" if right in ("yes", "no") else "number" if right.isdigit() else "other"
        assert item["answer_type"] == kind
    assert Counter(item["answer_type"] for item in items) == {"yes/no": 40, "number": 20, "other": 60}
    yes = Counter(item["multiple_choice_answer"] for item in items if item["answer_type"] == "yes/no")
    assert yes == {"yes": 20, "no": 20}
    assert len({(item["image"], item["question"]) for item in items}) == 120
    said = [item["multiple_choice_answer"] for item in items]
    assert vqav2.score(items, said)["overall"] == 100


def test_annotators_really_disagree() -> None:
    _, questions, annotations = vision_benchmarks.vqav2(200, 5)
    given, wrong = [], Counter()
    for row in annotations["annotations"]:
        others = [answer for answer in row["answers"] if answer["answer"] != row["multiple_choice_answer"]]
        given.append(len(others))
        for answer in others:
            wrong[row["answer_type"], answer["answer"]] += 1
    assert 0.3 < given.count(0) / len(given) < 0.6 and max(given) == 4
    assert wrong["number", "one"] and wrong["number", "2"]  # in other words, and another number
    assert wrong["other", "crimson"] and wrong["other", "bleu"] + wrong["other", "yelolw"] and wrong["other", "blue"]
    assert wrong["yes/no", "yeah"] and wrong["yes/no", "no"]
    # dissent does not cluster in the first answers, one of which the paper's demonstrations take
    firsts = [row["answers"][0]["answer"] == row["multiple_choice_answer"] for row in annotations["annotations"]]
    assert 0.8 < sum(firsts) / len(firsts) < 0.95


def test_question_types_are_the_longest_official_beginning() -> None:
    asked = ("Is there a star?", "Is there an orange star?", "Is this it?", "What is in the center?",
             "What is at the top?", "Whatever?", "What shape is it?", "What color is the star?")  # fmt: skip
    found = [vision_benchmarks.question_type(text) for text in asked]
    assert found == ["is there a", "is there", "none of the above", "what is in the", "what is", "none of the above",
                     "what", "what color is the"]  # fmt: skip


@pytest.mark.parametrize("task", OODCV)
def test_oodcv_rows_are_true_and_balanced(task: str, world: tuple, shown: dict) -> None:
    found = rows(world, task)
    assert all(set(row) == {"image", "question", "answer", "text_answer", "options", "situation"} for row in found)
    items = unicorn.load(world[0] / "eval/unicorn", task)
    for row, item in zip(found, items, strict=True):
        scene = shown[row["image"]]
        true = (answer_to if task == "oodcv-vqa" else what_if)(row["question"], scene)
        assert row["text_answer"] == item["label"] == true, row
        assert true in ("Yes", "No") or 0 <= int(true) <= 5
        assert row["options"]["AB".index(row["answer"])] == f"{row['answer']}. {true}"
        assert sum(option.endswith(f". {true}") for option in row["options"]) == 1
    labels = Counter(row["text_answer"] for row in found)
    assert labels["Yes"] == labels["No"] == 15
    assert {row["situation"] for row in found} == set(unicorn.SITUATIONS)
    asked = Counter(row["image"] for row in found)
    assert len(asked) == 48 and Counter(asked.values()) == {1: 36, 2: 12}
    assert all((world[0] / "images" / item["image"]).is_file() for item in items)
    told = [item["label"] for item in items]
    assert unicorn.score(items, told)["accuracy"] == 1
    assert unicorn.score(items, told, "paper")["overwritten"] == 12


def test_counterfactual_questions_do_not_tell_their_answer() -> None:
    by_change: dict[str, Counter] = {}
    kinds = Counter()
    for row in world_unicorn.counterfactual(600, world_unicorn.pictures(480, 2), 2):
        asked = row["question"]
        if row["text_answer"].isdigit():
            change = re.search(r"(one|two)( more)?(?= [\w ]+ (?:added|removed))", asked)[0]
            by_change.setdefault(change, Counter())[row["text_answer"]] += 1
        else:
            noun, taken = re.match(r"Would there be an? ([\w ]+) in the image .* the (\w+ \w+) ", asked).groups()
            kind = "any" if set(noun.split()) - {"object"} <= set(taken.split()) else "another"
            kinds[kind, row["text_answer"]] += 1
    assert set(by_change) == {"one", "two", "one more", "two more"}
    assert all(max(found.values()) < 0.6 * sum(found.values()) for found in by_change.values())
    assert min(kinds.values()) > 0.75 * max(kinds.values()) and len(kinds) == 4


@pytest.mark.parametrize("task", SKETCHY)
def test_sketchy_rows_ask_for_one_shape_that_is_there_and_one_that_is_not(
    task: str, world: tuple, shown: dict
) -> None:
    found = rows(world, task)
    assert all(set(row) == {"image", "question", "answer"} for row in found)
    for row in found:
        assert answer_to(row["question"], shown[row["image"]]) == row["answer"]
        assert not re.search("|".join(scenes.COLOURS), row["question"])  # a drawing has none
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first["image"] == second["image"] and {first["answer"], second["answer"]} == {"Yes", "No"}
    assert len({row["image"] for row in found}) == 30 and len({row["answer"] for row in found[::2]}) == 2
    items = unicorn.load(world[0] / "eval/unicorn", task)
    assert unicorn.score(items, [item["label"] for item in items])["accuracy"] == 1
    assert all((world[0] / "images" / item["image"]).is_file() for item in items)


def enclosed(ink: np.ndarray) -> int:
    """White pixels that no way from the picture's border leads to."""
    reached = np.zeros_like(ink)
    reached[0, :] = reached[-1, :] = reached[:, 0] = reached[:, -1] = True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= ~ink
        if (grown == reached).all():
            return int((~ink & ~reached).sum())
        reached = grown


def test_sketches_are_black_outlines_on_white(world: tuple, shown: dict) -> None:
    for task in SKETCHY:
        for name in dict.fromkeys(row["image"] for row in rows(world, task)):
            pixels = np.asarray(Image.open(world[0] / "images" / name))
            black, white = pixels < 64, pixels > 250
            assert black.sum() > 60 and white.mean() > 0.9 and (black | white).mean() > 0.93
            for thing in shown[name].things:  # only its line is drawn
                x, y = (int((place + 0.5) * 224 / 3) for place in (thing.cell % 3, thing.cell // 3))
                assert pixels[y - 2 : y + 3, x - 2 : x + 3].min() > 200


def test_hard_sketches_are_rubbed_out_and_scribbled_on() -> None:
    scene = Scene((Thing("red", "circle", "large", 4),), 7)
    plain, hard = (np.asarray(sketch(scene, hard=hard)) for hard in (False, True))
    assert enclosed(plain < 160) > 2000 and enclosed(hard < 160) < 200
    middle = slice(224 // 3, 2 * 224 // 3)
    assert 0.1 < (hard[middle, middle] < 128).sum() / (plain[middle, middle] < 128).sum() < 0.5
    outside = [np.concatenate([p[: 224 // 3].ravel(), p[2 * 224 // 3 + 1 :].ravel()]) < 128 for p in (plain, hard)]
    assert outside[0].sum() < 40 < outside[1].sum()


@pytest.mark.parametrize("situation", unicorn.SITUATIONS)
def test_odd_pictures_keep_every_colour_at_its_place(situation: str) -> None:
    hues = {name: colorsys.rgb_to_hsv(*(c / 255 for c in rgb))[0] for name, rgb in scenes.COLOURS.items()}
    plain = 0
    for seed in range(8):
        scene = scenes.sample(random.Random(seed), scenes.SEEN, least=2)
        image = odd(scene, situation)
        assert image.size == (224, 224) and image.mode == "RGB" and image.tobytes() == odd(scene, situation).tobytes()
        plain += image.tobytes() == scenes.render(scene).tobytes()
        hsv = np.asarray(image.convert("HSV")).astype(float) / 255
        for thing in scene.things:
            left, top = thing.cell % 3 * 74, thing.cell // 3 * 74
            cell = hsv[top : top + 75, left : left + 75]
            seen = cell[cell[..., 1] > 0.18][:, 0]
            own = int((np.abs((seen - hues[thing.colour] + 0.5) % 1 - 0.5) < 0.05).sum())
            assert own > 0.13 * np.pi * (scenes.SIZES[thing.size] * 75) ** 2, (seed, thing, own)
    assert plain == (8 if situation == "iid" else 0)


def test_no_picture_shows_and_no_question_names_a_held_out_pair(world: tuple, shown: dict) -> None:
    assert not [name for name, scene in shown.items() if any(scene.has(pair) for pair in scenes.HELD_OUT)]
    held = [re.compile(rf"\b{colour} {shape}") for colour, shape in scenes.HELD_OUT]
    for file in (world[0] / "eval").rglob("*.*"):
        assert not [pair.pattern for pair in held if pair.search(file.read_text())], file
