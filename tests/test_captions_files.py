"""Reference captions in every form they are published in: the same items, and errors that name file and row."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from real_files import real_data

from sbt.benchmarks.captions import SPEC, metric
from sbt.benchmarks.captions import task as captions
from sbt.benchmarks.captions.task import load, train_captions
from sbt.utils.errors import DataError, ParameterError

DATA = real_data()
TEXTS = {"1.jpg": ["A dog runs .", 'A "big" dog, running .'], "2.jpg": ["Two cats sleep ."]}
KARPATHY = {
    "dataset": "coco",
    "images": [
        {"filepath": "val2014", "filename": "1.jpg", "imgid": 0, "split": "test", "cocoid": 17,
         "sentences": [{"raw": text, "tokens": []} for text in TEXTS["1.jpg"]]},
        {"filepath": "train2014", "filename": "2.jpg", "imgid": 1, "split": "train", "cocoid": 19,
         "sentences": [{"raw": text, "tokens": []} for text in TEXTS["2.jpg"]]},
    ],
}  # fmt: skip
LIST = [{"image_name": name, "captions": texts} for name, texts in TEXTS.items()]
TOKENS = "".join(f"{name}#{k}\t{text}\n" for name, texts in TEXTS.items() for k, text in enumerate(texts))
BARS = "image_name| comment_number| comment\n" + "".join(
    f"{name}| {k}| {text}\n" for name, texts in TEXTS.items() for k, text in enumerate(texts)
)


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def table(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[dict]]:
    return lambda content, split="": load(written(tmp_path / "c.x", content), split)


def test_all_forms_give_the_same_items(read: Callable, tmp_path: Path) -> None:
    """Which form a file has is decided by what is in it: all have one name here."""
    rows = [[name, text] for name, texts in TEXTS.items() for text in texts]
    forms = {
        "list": read(LIST),
        "tokens": read(TOKENS),
        "tokens of Windows": read("\ufeff" + TOKENS.replace("\n", "\r\n")),
        "bars": read(BARS),
        "commas": load(table(tmp_path / "a", ["image", "caption"], rows)),
        "lists in cells": load(
            table(tmp_path / "b", ["raw", "sentids", "split", "filename", "img_id"],
                  [[json.dumps(texts), "[0]", "test", name, "0"] for name, texts in TEXTS.items()])),
    }  # fmt: skip
    expected = [{"id": name, "image": name, "references": texts} for name, texts in TEXTS.items()]
    assert forms == dict.fromkeys(forms, expected)
    ids = {17: "1.jpg", 19: "2.jpg"}
    coco = {
        "images": [{"id": key, "file_name": name} for key, name in ids.items()],
        "annotations": [{"image_id": key, "caption": text} for key, name in ids.items() for text in TEXTS[name]],
    }
    assert read(coco) == read(KARPATHY, "all")  # fmt: skip
    assert [item["id"] for item in read(coco)] == [17, 19]
    assert [item["references"] for item in read(coco)] == list(TEXTS.values())


def test_splits(read: Callable, tmp_path: Path) -> None:
    assert [item["image"] for item in read(KARPATHY, "test")] == ["1.jpg"]
    assert len(read(KARPATHY, "all")) == 2 == len(read(TOKENS, "all"))
    with pytest.raises(ParameterError, match=r"c\.x holds the splits test, train: set `split` to one of them, or to"):
        read(KARPATHY)
    with pytest.raises(ParameterError, match=r"c\.x has no split 'tset'.*did you mean 'test'.*it holds test, train"):
        read(KARPATHY, "tset")
    with pytest.raises(ParameterError, match=r"c\.x has no split 'test': it names no splits: leave `split` empty"):
        read(TOKENS, "test")
    rows = [["1.jpg", "a", "test"], ["2.jpg", "b", "val"]]
    path = table(tmp_path / "t.csv", ["filename", "caption", "split"], rows)
    assert [item["references"] for item in load(path, "val")] == [["b"]]


def test_the_authors_list_may_name_an_image_by_number(read: Callable) -> None:
    (item,) = read([{"image_id": 42, "captions": ["a"]}])
    assert item == {"id": 42, "image": "COCO_val2014_000000000042.jpg", "references": ["a"]}  # theirs: COCO_test2014
    (item,) = read([{"image_id": 42, "image_name": "x.jpg", "captions": ["a"]}])
    assert item == {"id": 42, "image": "x.jpg", "references": ["a"]}


def test_the_line_of_flickr30k_that_lacks_a_bar(read: Callable) -> None:
    (item,) = read(BARS.splitlines()[0] + "\n9.jpg| 3| A dog .\n9.jpg| 4   A dog runs across the grass .\n")
    assert item["references"] == ["A dog .", "A dog runs across the grass ."]


def test_a_quote_beside_bars_stands_for_itself(read: Callable) -> None:
    """Read as a quoting character it would swallow the lines below."""
    items = read('image_name|comment_number|comment\n1.jpg|0|"Stop" says a sign\n2.jpg|0|an open " quote\n')
    assert [item["references"] for item in items] == [['"Stop" says a sign'], ['an open " quote']]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [{"filename": "1.jpg"}]}, r"c\.x: expected COCO annotations .* or a list of"),
        ({"x": 1}, r"c\.x: expected COCO annotations"),
        ("", r"c\.x:1:1: malformed JSON"),
        ('{"images": [', r"c\.x:1:\d+: malformed JSON"),
        ({"images": [KARPATHY["images"][0], {"filename": "1.jpg", "split": "x"}]}, "row 2 of images: no sentences"),
        ({"images": [KARPATHY["images"][0] | {"split": None}]}, "row 1 of images: no split"),
        ({"images": [KARPATHY["images"][0]] * 2}, "row of images 2: id 17 stands in the file twice"),
        ({"images": [KARPATHY["images"][0] | {"sentences": [{"raw": "a"}, {}]}]}, "row 1 of images, sentence 2: no"),
        ([*LIST, {"image_name": "3.jpg"}], r"c\.x, row 3: no list of captions"),
        ([*LIST, {"captions": ["a"]}], r"c\.x, row 3: neither image_name nor image_id"),
        ([*LIST, {"image_id": "7", "captions": ["a"]}], r"c\.x, row 3: neither image_name nor image_id, a number"),
        ([*LIST, {"image_name": "3.jpg", "captions": ["a", " "]}], r"c\.x, row 3, caption 2: no caption"),
        ([*LIST, LIST[0]], r"c\.x, row 3: image '1.jpg' stands in the file twice"),
        ([{"image_id": [7], "image_name": "3.jpg", "captions": ["a"]}], r"c\.x, row 1: image_id must be a text or"),
        (
            [{"image_id": 7, "image_name": f"{k}.jpg", "captions": ["a"]} for k in range(2)],
            r"c\.x, row 2: image_id 7 stands in the file twice",
        ),
        ([*LIST, "x"], r"c\.x, row 3: expected an object"),
        ([{"image_name": "3.jpg", "captions": []}], r"c\.x holds no image with a reference caption"),
        (TOKENS + "3.jpg A dog\n", r"c\.x:4: expected IMAGE#NUMBER, a tab and the caption, found '3.jpg A dog'"),
        (TOKENS + "\n3.jpg#0\t \n", r"c\.x:5: no caption"),
        (TOKENS + "2.jpg#0\tAgain\n", r"c\.x:4: 2.jpg#0 stands in the file twice, first in line 3"),
        (
            "a;b\n1.jpg;c\n",
            r"c\.x:1: expected .* a header with one of image_name, .* and one of comment,",
        ),
        (BARS + "3.jpg| 0\n", r"c\.x:5: 2 columns, but the header has 3"),
        (BARS + "3.jpg| 0| a| b\n", r"c\.x:5: 4 columns"),
        (BARS + "| 0| a\n", r"c\.x:5: no image"),
        ("image,caption\n1.jpg,a dog, running\n", r"c\.x:2: 3 columns, but the header has 2"),
        ("image,caption\n1.jpg,\n", r"c\.x:2: no caption"),
        (
            "filename,raw\n1.jpg,a dog\n",
            r"c\.x:2: expected a JSON list of captions in the column 'raw', found 'a",
        ),
        ('image,caption\n1.jpg,"' + "a\n" * 70_000, r"c\.x:\d+: field larger than field limit .* a quote left open"),
    ],
)
def test_errors_name_file_and_row(content: object, message: str, read: Callable) -> None:
    with pytest.raises(DataError, match=message):
        read(content, "all")


def test_demonstrations(tmp_path: Path) -> None:
    chat = [
        {"id": str(k), "image": "x.png", "conversations": [
            {"from": "human", "value": "Describe.\n<image>"}, {"from": "gpt", "value": f"caption {k} "}]}
        for k in range(5)
    ]  # fmt: skip
    path = written(tmp_path / "chat.json", chat)
    assert train_captions(path) == [[f"caption {k} "] for k in range(5)]
    items = [{"image": f"{k}.png"} for k in range(20)]
    shown = captions.demonstrations(path, items, seed=3)
    assert shown == captions.demonstrations(path, items, seed=3) != captions.demonstrations(path, items, seed=4)
    assert shown[:6] == captions.demonstrations(path, items[:6], seed=3), "fewer pictures get the same turns"
    assert "demonstrations" not in items[0]
    drawn = [item["demonstrations"] for item in shown]
    assert {len(set(turns)) for turns in drawn} == {3}, "never one image twice before a picture"
    assert {turn for turns in drawn for turn in turns} == {(captions.PROMPT, f"caption {k}") for k in range(5)}
    split = written(tmp_path / "k.json", KARPATHY)
    assert train_captions(split) == [TEXTS["2.jpg"]]
    assert train_captions(written(tmp_path / "t.token", TOKENS)) == list(TEXTS.values())
    with pytest.raises(DataError, match=r"k\.json: 3 demonstrations are drawn, but 1 images have one"):
        captions.demonstrations(split, items, seed=0)
    del chat[1]["conversations"][1]
    with pytest.raises(DataError, match=r"chat\.json, row 2: no answer among its conversations"):
        train_captions(written(path, chat))


def test_answers_are_scored_against_any_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric, "with_java", lambda *given: {})
    answers = [{"image_name": "1.jpg", "caption": "a dog runs"}, {"image_id": 19, "caption": "two cats"}]
    by_id = captions.score_files(written(tmp_path / "a", answers), written(tmp_path / "k", KARPATHY))
    assert (by_id["n"], by_id["without_references"]) == (2, 0) and by_id["CIDEr"] > 0
    answers[1] = {"image_id": "2.jpg", "caption": "two cats"}
    assert captions.score_files(written(tmp_path / "a", answers), written(tmp_path / "t", TOKENS)) == by_id
    answers.append({"image_id": 19, "caption": "again"})
    with pytest.raises(DataError, match=r"a, row 3: image_id 19 stands in the file twice"):
        captions.score_files(written(tmp_path / "a", answers), tmp_path / "k")


def test_rows_of_the_paper_lose_their_quotes() -> None:
    items = [{"id": k, "image": k, "references": texts} for k, texts in TEXTS.items()]
    quoted, plain = ['"a" dog"s', "two cats"], ["a dogs", "two cats"]
    common = {"arm": "x", "subset": "real"}
    paper = captions.rows(items, quoted, protocol="paper", **common)
    assert paper == captions.rows(items, plain, protocol="paper", **common)
    assert paper[0]["value"] != captions.rows(items, quoted, **common)[0]["value"]
    assert {row["protocol"] for row in paper} == {"paper"}
    assert captions.samples(items, quoted, protocol="paper", **common)[0]["answer"] == quoted[0]
    *_, empty = captions.rows(items, ["a", " "], **common)
    assert (empty["metric"], empty["value"], empty["low"]) == ("empty", 0.5, None)
    with pytest.raises(ParameterError, match="protocol"):
        captions.rows(items, plain, protocol="papre", **common)


def test_sources(tmp_path: Path) -> None:
    own = captions.sources(tmp_path, "", "", "", {})
    assert {name: source["references"].name for name, source in own.items()} == {
        "coco": "captions.json",
        "flickr30k": "results_20130124.token",
    }
    flickr = {"references": "f.json", "images": "f", "split": "test"}
    assert captions.sources(None, "c.json", "c", "val", {}) == {
        "coco": {"references": "c.json", "images": "c", "split": "val"}
    }
    assert captions.sources(tmp_path, "", "", "", flickr)["flickr30k"] == flickr
    assert captions.sources(None, "c", "d", "", {"references": "f", "images": "g"})["flickr30k"]["split"] == ""
    for wrong in ({"references": "f"}, {**flickr, "image": "x"}):
        with pytest.raises(ParameterError, match="flickr takes references, images and perhaps split, not "):
            captions.sources(None, "c", "d", "", wrong)


@pytest.mark.skipif(DATA is None, reason="the real captions are not here (SBT_DATA)")
def test_real_captions_in_the_other_forms(tmp_path: Path) -> None:
    items = load(DATA / "coco_captions" / "captions_val2014_subsetA_4800.json")
    assert (len(items), sum(len(item["references"]) for item in items)) == (4800, 24019)
    lines = [f"{i['image']}#{k}\t{' '.join(t.split())}" for i in items for k, t in enumerate(i["references"])]
    token = load(written(tmp_path / "t", "\n".join(lines)))
    rows = [[item["image"], text] for item in items for text in item["references"]]
    commas = load(table(tmp_path / "c", ["image", "caption"], rows))
    assert [item["image"] for item in token] == [item["image"] for item in items] == [item["image"] for item in commas]
    clean = [[" ".join(text.split()) for text in item["references"]] for item in items]
    assert [item["references"] for item in token] == clean
    assert [[" ".join(text.split()) for text in item["references"]] for item in commas] == clean


def test_the_differences_name_what_is_not_published_of_the_corrupted_pictures() -> None:
    assert all(told and source for told, source in SPEC.protocols["paper"])
    assert any("corrupted" in told and "severities 1, 3 and 5" in told for told, _ in SPEC.protocols["paper"])
