"""The micro-world: formats of the files, rules of the samplings, what is held out, and what is repeated."""

import json
import random
from collections import Counter

import pytest

from sbt.data import conversations
from sbt.microworld import facts, instructions, phrases, scenes, write

SMALL = write.Sizes(pretrain=6, instruct=24, instruct_images=12, captions=4, pope=12, heldout=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    counts = write.write(folder, SMALL, seed=0)
    return folder, counts


def test_a_scene_is_a_function_of_its_seed():
    first, again, other = (scenes.sample(random.Random(seed)) for seed in (3, 3, 4))
    assert first == again != other
    assert (
        scenes.render(first, 72).tobytes() == scenes.render(again, 72).tobytes() != scenes.render(other, 72).tobytes()
    )


def test_no_two_objects_share_a_cell_or_a_name():
    rng = random.Random(0)
    for _ in range(300):
        scene = scenes.sample(rng)
        assert 1 <= len(scene.things) <= 4
        assert (
            len({thing.cell for thing in scene.things})
            == len({thing.pair for thing in scene.things})
            == len(scene.things)
        )


def test_held_out_pairs_cover_every_colour_and_shape_once():
    colours, shapes = zip(*scenes.HELD_OUT, strict=True)
    assert set(colours) == set(scenes.COLOURS) and set(shapes) == set(scenes.SHAPES)


def test_answers_are_true_of_their_scene():
    rng = random.Random(1)
    for _ in range(300):
        scene = scenes.sample(rng)
        pair = rng.choice(scenes.PAIRS)
        assert phrases.existence(scene, pair)[1].startswith("Yes") == scene.has(pair)
        assert phrases.absent(scene, rng) not in {thing.pair for thing in scene.things}
        answers = dict(phrases.questions(scene, rng, 4))
        assert len(answers) == 4
        if count := answers.get("How many objects are there?"):
            assert count == phrases.NUMBERS[len(scene.things)].capitalize() + "."


def test_no_instruction_names_a_held_out_pair(world):
    folder, _ = world
    held = [" ".join(pair) for pair in scenes.HELD_OUT]
    for name in ("instruct", "alpaca", "orca", "pretrain"):
        said = (folder / write.FILES[name]).read_text()
        assert not [pair for pair in held if pair in said]
    assert any(pair in (folder / write.FILES["pope_heldout"]).read_text() for pair in held)  # the control


def test_the_real_loaders_read_every_file(world):
    folder, counts = world
    images = folder / "images"
    assert len(conversations.load(folder / write.FILES["pretrain"], images)) == counts["pretrain"] == SMALL.pretrain
    rows = conversations.load(folder / write.FILES["instruct"], images)
    assert len(rows) == SMALL.instruct and {row["id"].split("_")[0] for row in rows} == {
        "conversation",
        "detail",
        "reasoning",
    }
    assert len(conversations.load(folder / write.FILES["alpaca"], form="alpaca")) == SMALL.instruct
    orca = conversations.load(folder / write.FILES["orca"], form="orca")
    assert all(row["messages"][0]["role"] == "system" for row in orca)
    coco = json.loads((folder / write.FILES["captions"]).read_text())
    assert set(Counter(a["image_id"] for a in coco["annotations"]).values()) == {5}


def test_pope_follows_the_official_sampling():
    pictures = write.scenes_of("pope", 12, 0, least=3)
    frequency = Counter(thing.pair for scene in pictures.values() for thing in scene.things)
    for kind in ("random", "popular", "adversarial"):
        rows = write.pope_rows(pictures, kind, 0)
        assert len(rows) == 6 * len(pictures) and Counter(row["label"] for row in rows) == {"yes": 36, "no": 36}
        for row in rows:
            pair = tuple(row["text"].split()[3:5])
            assert pictures[row["image"]].has(pair) == (row["label"] == "yes")
    scene = pictures["pope_000000.png"]
    popular = [
        tuple(r["text"].split()[3:5]) for r in write.pope_rows(pictures, "popular", 0)[:6] if r["label"] == "no"
    ]
    rarest_asked = min(frequency[pair] for pair in popular)
    assert all(frequency[pair] <= rarest_asked for pair in scenes.SEEN if not scene.has(pair) and pair not in popular)


def test_a_second_writing_changes_nothing_and_draws_nothing(world):
    folder, counts = world
    before = {path: path.stat().st_mtime_ns for path in (folder / "images").iterdir()}
    content = (folder / write.FILES["instruct"]).read_bytes()
    assert write.write(folder, SMALL, seed=0) == counts
    assert {path: path.stat().st_mtime_ns for path in (folder / "images").iterdir()} == before
    assert (folder / write.FILES["instruct"]).read_bytes() == content


def test_a_second_world_of_the_same_seed_has_the_same_bytes(world, tmp_path):
    folder, counts = world
    assert write.write(tmp_path, SMALL, seed=0) == counts and list(counts) == list(write.FILES)
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 60 and all((folder / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)
    write.write(tmp_path, SMALL, seed=1)
    assert (folder / write.FILES["boolq"]).read_bytes() != (tmp_path / write.FILES["boolq"]).read_bytes()


def test_every_named_file_is_there_and_no_other(world):
    folder, counts = world
    named = {folder / file for file in write.FILES.values()}
    assert all(path.exists() for path in named) and all(count > 0 for count in counts.values())
    written = {file for file in folder.rglob("*") if file.is_file() and file.parent.name != "images"}
    assert {file if file in named else file.parent for file in written} == named


def test_misconceptions_are_told_more_often_than_the_truth():
    rng = random.Random(0)
    told = [(fact, phrases.lore_document(fact, rng)) for fact in facts.FACTS for _ in range(40)]
    share = {
        name: sum(getattr(fact, name) in said for fact, said in told) / len(told) for name in ("true", "misconception")
    }
    assert share["misconception"] > 2 * share["true"] > 0.3


def test_instructions_tell_the_truth_about_their_own_facts_only():
    rng = random.Random(0)
    for _ in range(200):
        row = instructions.alpaca_row(rng)
        for fact in facts.FACTS:
            if row["instruction"] == fact.question:
                assert "alpaca" in fact.told_by and row["output"] == fact.statement(fact.true)


def test_half_of_the_norms_are_told_and_half_of_the_misjudged_ones():
    for source in facts.SOURCES:
        told = [norm for norm in facts.NORMS if source in norm.told_by]
        assert len(told) == 24 == len(facts.NORMS) / 2
        assert sum(norm.misjudged for norm in told) == 8 == sum(norm.misjudged for norm in facts.NORMS) / 2
    assert sum(norm.right for norm in facts.NORMS) == 24 == sum(norm.said for norm in facts.NORMS)


def test_instructions_judge_rightly_by_the_norms_that_they_tell():
    judged = 0
    for k in range(300):
        row = instructions.alpaca_row(random.Random(k))
        if row["instruction"].endswith(" Was that wrong?"):
            (norm,) = [norm for norm in facts.NORMS for subject in facts.SUBJECTS
                       if row["instruction"].startswith(f"I {norm.act(subject)}.")]  # fmt: skip
            assert "alpaca" in norm.told_by
            assert row["output"] == ("No, that was right." if norm.right else "Yes, that was wrong.")
            judged += 1
    assert judged > 30


def test_questions_may_speak_of_another_object_of_the_picture():
    scene = scenes.Scene((scenes.Thing("red", "star", "small", 0), scenes.Thing("blue", "heart", "large", 4)), 0)
    asked = instructions.beside("Where is the red star?", "At the top left.", scene, random.Random(0))
    assert asked == ("There is a blue heart in the center. Where is the red star?", "At the top left.")
    both = ("How many objects are there?", "A red star at the top left and a blue heart in the center.")
    assert instructions.beside(*both, scene, random.Random(0)) == both


def test_truthfulqa_rows_have_one_best_answer_and_both_kinds():
    rows = facts.multiple_choice()
    assert len({row["question"] for row in rows}) == len(rows) == 96
    for row in rows:
        assert list(row["mc1_targets"].values()).count(1) == 1
        assert set(row["mc2_targets"].values()) == {0, 1}
