"""The preference table and what is derived from it: readings, controls, methods, checks."""

import json
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from sbt.data import preferences
from sbt.microworld import preferences as world
from sbt.utils.errors import DataError, ParameterError


def rating(helpfulness: int, correctness: int, coherence: int = 4) -> dict:
    return dict(zip(preferences.ATTRIBUTES, (helpfulness, correctness, coherence, 1, 2), strict=True))


def row(name: str, *ratings: dict, **more: object) -> dict:
    answers = [f"answer {number}" for number in range(len(ratings))]
    return {"id": name, "image": "", "question": f"{name}?", "answers": answers, "ratings": list(ratings), **more}


# sums over three attributes: 10, 8, 12, 11; over two: 8, 6, 8, 8
TABLE = [row("a", rating(4, 4, 2), rating(4, 2, 2), rating(4, 4, 4), rating(4, 4, 3))]


def rejected(table: list[dict], reading: str) -> set[str]:
    """What the reading rejects over many seeds."""
    return {pair["rejected"] for seed in range(60) for pair in preferences.pairs(table, reading, seed=seed)[0]}


def test_each_reading_of_a_pair_is_another_one() -> None:
    assert rejected(TABLE, "code") == {"answer 0", "answer 1"}
    assert rejected(TABLE, "text") == {"answer 0", "answer 1"}
    assert rejected(TABLE, "worst") == {"answer 1"}
    assert rejected(TABLE, "strict") == {"answer 1"}
    assert rejected(TABLE, "two_attributes") == {"answer 1"}
    made = {name: [preferences.pairs(TABLE, name, seed=s)[0] for s in range(60)] for name in ("code", "text")}
    assert all(made["code"]) and 20 < sum(map(len, made["text"])) < 60  # by the paper's words a near answer costs it
    assert preferences.pairs(TABLE, "code", seed=3) == preferences.pairs(TABLE, "code", seed=3)


def test_the_first_of_equally_good_answers_is_chosen() -> None:
    table = [row("a", rating(1, 1), rating(4, 4), rating(4, 4))]
    assert {pair["chosen"] for pair in preferences.pairs(table)[0]} == {"answer 1"}
    # over two attributes the first of the three best answers of TABLE is another one
    assert preferences.pairs(TABLE, "two_attributes")[0][0]["chosen"] == "answer 0"


def test_rows_that_make_no_pair_are_counted_with_a_reason() -> None:
    near = row("n", rating(4, 4), rating(4, 3))
    empty, same = (row(name, rating(4, 4), rating(0, 0)) for name in "es")
    empty["answers"][1], same["answers"][1] = "  ", "answer 0 "
    made, dropped = preferences.pairs([near, empty, same])
    assert made == [] and dropped == {
        "no answer far enough below the best": 1, "an answer is empty": 1, "both answers are the same": 1}  # fmt: skip
    with pytest.raises(DataError, match=r"makes a pair \(code\)"):
        preferences.training_rows([near], "dpo")


def test_flips_grow_with_their_share_and_touch_nothing_else() -> None:
    table = [row(str(n), rating(4, 4), rating(0, 0)) for n in range(40)]
    pairs, _ = preferences.pairs(table)
    some, more, all_of_them = (preferences.flipped(pairs, share, seed=1) for share in (0.25, 0.5, 1.0))
    made = some, more, all_of_them
    swapped = [{n for n, pair in enumerate(one) if pair["chosen"] == "answer 1"} for one in made]
    assert [len(one) for one in swapped] == [10, 20, 40] and swapped[0] < swapped[1]
    assert preferences.flipped(pairs, 0.0) == pairs and preferences.flipped(all_of_them, 1.0) == pairs
    with pytest.raises(ParameterError, match="between 0 and 1"):
        preferences.flipped(pairs, 1.5)


def test_controls_ignore_ratings_or_length() -> None:
    table = [row(str(n), rating(4, 4), rating(0, 0)) for n in range(40)]
    chosen = [pair["chosen"] for pair in preferences.random_pairs(table)]
    assert 8 < chosen.count("answer 0") < 32
    pairs = [{"chosen": "x" * 10, "rejected": "y" * 9}, {"chosen": "x" * 10, "rejected": "y" * 8}]
    assert preferences.length_matched(pairs) == pairs[:1]
    assert preferences.lengths(pairs)["chosen is longer"] == 1.0


def test_rows_of_the_other_methods() -> None:
    best, _ = preferences.training_rows(TABLE, "rejection")
    assert [preferences.shown(one) for one in best] == [[("user", "a?"), ("assistant", "answer 2")]]
    steered, words = preferences.training_rows(TABLE, "steerlm")
    assert len(steered) == 4 and words == "4 conversations of 1 questions"
    said = dict(preferences.shown(steered[1]))
    assert said["user"].endswith(
        "\nPlease answer the question such that your response is in the following attributes in 5-point Likert scale:"
        "\nHelpfulness:4,Correctness:2,Coherence:2,Complexity:1,Verbosity:2"
    )
    assert preferences.condition().endswith("Helpfulness:4,Correctness:4,Coherence:4,Complexity:4,Verbosity:4")
    own = [row("a", rating(1, 1), rating(1, 1), annotator_answer="mine"), row("b", rating(1, 1), rating(1, 1))]
    assert [dict(preferences.shown(one))["assistant"] for one in preferences.annotator_answers(own)] == ["mine"]
    with pytest.raises(DataError, match="no row of the preference table gives an answer"):
        preferences.training_rows(TABLE, "sft")
    for wrong in (("dqo", "code"), ("dpo", "cod")):
        with pytest.raises(ParameterError, match="is unknown"):
            preferences.training_rows(TABLE, *wrong)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"ratings": [rating(4, 4)]}, "'ratings' must be a list of 2"), ({"answers": ["one"]}, "two texts or more"),
     ({"question": " "}, "'question' must be"), ({"ratings": [rating(4, 4), rating(4, 5)]}, "from 0 to 4"),
     ({"ratings": [rating(4, 4), {"helpfulness": 1}]}, "'correctness' a number"),
     ({"ratings": [rating(4, 4), rating(4, True)]}, "from 0 to 4"), ({"id": "a"}, "id 'a' is used twice")],
)  # fmt: skip
def test_a_faulty_row_is_named(tmp_path: Path, change: dict, words: str) -> None:
    good, bad = row("a", rating(4, 4), rating(0, 0)), row("b", rating(4, 4), rating(0, 0)) | change
    file = tmp_path / "table.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in (good, bad)))
    with pytest.raises(DataError, match=rf"table\.jsonl, row 2: .*{words}"):
        preferences.load(file)
    with pytest.raises(DataError, match="no 'answers'"):
        preferences.check([{"id": "a", "question": "?"}])


def test_pictures_of_a_table_lie_beside_it(tmp_path: Path) -> None:
    rows = world.prompts(tmp_path / "pictures", "train", pictures=2, texts=2, seed=0)
    kept = preferences.below(rows, tmp_path)
    assert [one["image"] for one in kept] == ["pictures/train_000000.png", "pictures/train_000001.png", "", ""]
    (tmp_path / "heldout.jsonl").write_text("".join(json.dumps(one) + "\n" for one in kept))
    assert preferences.prompts(tmp_path / "heldout.jsonl") == rows
    assert all(Path(one["image"]).is_file() for one in rows if one["image"])


def test_the_annotator_knows_the_truth_unless_it_is_noisy(tmp_path: Path) -> None:
    asked = world.prompts(tmp_path, "train", pictures=6, texts=60, seed=0)
    other = world.prompts(tmp_path, "heldout", pictures=6, texts=60, seed=0)
    assert not {one["question"] for one in asked if one["kind"] != "picture"} & {one["question"] for one in other}
    good = [one["answer"] for one in asked]
    bad = [f"{(one['wrong'] or 'nothing').capitalize()}." for one in asked]
    assert [world.right(one, text) for one, text in zip(asked, good, strict=True)] == [1.0] * 66
    assert [world.right(one, text) for one, text in zip(asked, bad, strict=True)] == [0.0] * 66
    table = preferences.check(world.annotate(asked, list(zip(bad, good, strict=True))))
    pairs, _ = preferences.pairs(table)
    assert len(pairs) == 66 and {pair["chosen"] for pair in pairs} == set(good)
    assert [row["annotator_answer"] for row in table] == good
    noisy, _ = preferences.pairs(world.annotate(asked, list(zip(bad, good, strict=True)), noise=1.0))
    assert 0.2 < sum(pair["chosen"] in good for pair in noisy) / len(noisy) < 0.8


@pytest.mark.parametrize(
    ("question", "named", "answer", "expected"),
    [("What is at the top left?", "a small red star", "The object at the top left is a red star.", 1.0),
     ("What is at the top left?", "a small red star", "A red star or a blue heart.", 0.0),
     ("What is at the top left?", "a small red star", "A red circle.", 0.0),
     ("Where is the red star?", "at the top left", "The red star is at the left.", 0.0),
     ("How many red objects are there?", "no", "No red objects.", 1.0),
     ("How many red objects are there?", "no", "No.", 1.0),  # so the micro-world says that there are none
     ("How many red objects are there?", "one", "No.", 0.0),
     ("How many red objects are there?", "two", "There are two.", 1.0)],
)  # fmt: skip
def test_an_open_answer_names_what_it_should_and_nothing_else(
    question: str, named: str, answer: str, expected: float
) -> None:
    asked = {"kind": "picture", "question": question, "right": named, "wrong": ""}
    assert world.right(asked, answer) == expected


def test_a_larger_share_of_the_questions_holds_a_smaller_one() -> None:
    table = [row(str(n), rating(4, 4), rating(0, 0)) for n in range(20)]
    few, more = (preferences.parted(table, share, seed=3) for share in (0.25, 0.5))
    assert [len(part) for part in (*few, *more)] == [5, 15, 10, 10]
    assert [one for one in more[0] if one in few[0]] == few[0] and few[1] == [
        one for one in table if one not in few[0]
    ]
    with pytest.raises(ParameterError, match="between 0 and 1"):
        preferences.parted(table, 1.1)


def published(tmp_path: Path, count: int = 40) -> dict:
    """The publishers' files: Parquet and a zip of figures, some without a question; JSON and a folder of pictures."""
    turns = [{"from": "human", "value": "Write the caption."}, {"from": "gpt", "value": "A caption."}]
    figures = [
        {"image_file": f"{n}-Figure1-1.png", "id": f"{n}", "caption": f"Caption {n}", "conversations": turns,
         "first_mention": "", "response": "", "title": f"Title {n}", "abstract": f"Abstract {n}",
         "q_a_pairs": [[f"Question {n}?", "A."], ["More?", "B."]] if n % 4 else []}
        for n in range(count)
    ]  # fmt: skip
    pd.DataFrame(figures).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "vg").mkdir()
    with zipfile.ZipFile(tmp_path / "img.zip", "w") as zipped:
        for n in range(count):
            Image.new("RGB", (8, 8), (n, 0, 0)).save(file := tmp_path / "vg" / f"{n}.jpg")
            zipped.write(file, f"imgs/train/{n}-Figure1-1.png")
    asked = [
        {"image_id": str(n // 4), "question": f"Is it {n}?", "answer": "No.", "task": ("negative", "VQA")[n % 2]}
        for n in range(count)
    ]
    (tmp_path / "filter_cap1.json").write_text(json.dumps(asked))
    return {
        "scigraphqa": {"file": str(tmp_path / "train.parquet"), "images": str(tmp_path / "img.zip"), "count": 12},
        "lrv": {"file": str(tmp_path / "filter_cap1.json"), "images": str(tmp_path / "vg"), "count": 10,
                "within": [10, 30]},
    }  # fmt: skip


def test_questions_are_drawn_from_the_publishers_files(tmp_path: Path) -> None:
    sources = published(tmp_path)
    rows = preferences.published(sources, tmp_path / "pictures", seed=1)
    assert rows == preferences.published(sources, tmp_path / "pictures", seed=1)
    other = preferences.published(sources, tmp_path / "pictures", seed=2)
    assert {row["id"] for row in rows} != {row["id"] for row in other}
    figures, asked = rows[:12], rows[12:]
    numbers = [int(row["id"].removeprefix("scigraphqa-")) for row in figures]
    assert all(number % 4 for number in numbers)  # the others have no question
    assert [row["question"] for row in figures] == [f"Question {number}?" for number in numbers]
    for number, row in zip(numbers, figures, strict=True):
        assert Image.open(row["image"]).getpixel((0, 0))[0] == pytest.approx(number, abs=3)
    assert all(10 <= int(row["id"].removeprefix("lrv-")) < 30 for row in asked)
    kinds = {row["id"]: ("negative", "positive")[int(row["id"].removeprefix("lrv-")) % 2] for row in asked}
    assert {row["id"]: row["kind"] for row in asked} == kinds and len(set(kinds.values())) == 2
    told = preferences.published({"scigraphqa": sources["scigraphqa"] | {"context": True}}, tmp_path / "p", seed=1)
    assert [row["id"] for row in told] == [row["id"] for row in figures]  # the same figures
    first = numbers[0]
    context = [f"Title: Title {first}", f"Abstract: Abstract {first}", f"Caption: Caption {first}"]
    assert told[0]["question"].split("\n") == [*context, f"Question {first}?"]
    assert {row["kind"] for row in told} == {"figure, in context"}


def test_held_out_questions_are_about_other_pictures(tmp_path: Path) -> None:
    rows = preferences.published(published(tmp_path), tmp_path / "pictures")
    heldout, asked = preferences.apart(rows, every=3)
    assert {row["image"] for row in heldout} & {row["image"] for row in asked} == set()
    assert sorted(row["id"] for row in (*heldout, *asked)) == sorted(row["id"] for row in rows) and heldout


@pytest.mark.parametrize(
    ("change", "words"),
    [({"count": 31}, r"train\.parquet: 30 questions. Set the count of scigraphqa to fewer"),
     ({"contxt": True}, "'contxt' is unknown; did you mean 'context'"), ({"images": ""}, "scigraphqa has no 'images'"),
     ({"images": "vg"}, r"row \d+ \(id '\d+'\): image .* is not in")],
)  # fmt: skip
def test_a_source_that_cannot_be_drawn_from_is_named(tmp_path: Path, change: dict, words: str) -> None:
    sources = published(tmp_path)
    change |= {"images": str(tmp_path / "vg")} if change.get("images") == "vg" else {}
    with pytest.raises((DataError, ParameterError), match=words):
        preferences.published({"scigraphqa": sources["scigraphqa"] | change}, tmp_path / "pictures")
    with pytest.raises(ParameterError, match="'scigraph' is unknown; did you mean 'scigraphqa'"):
        preferences.published({"scigraph": {}}, tmp_path)


def test_where_no_truth_is_known_nothing_is_judged() -> None:
    asked = [{"id": "a", "image": "", "question": "?"}]
    records = pd.DataFrame(world.judged(asked, {"one": ["x"], "two": [""]}))
    with pytest.raises(ParameterError, match="a: the rules know the micro-world alone. Set annotator, or table"):
        world.check(asked)
    assert world.metric_rows(records) == [] and not len(world.compared(records, "one"))
    assert world.answer(world.compared(records, "one"), "one", ["two"], {"one": 1.0, "two": 0.0}) == [
        "Characters of an answer: 1 of one, 0 of two"
    ]
