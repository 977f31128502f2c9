"""Loaders of LLaVA, Alpaca and Orca files: what they make of good rows and say about bad ones."""

import json
from pathlib import Path

import pytest
from PIL import Image
from real_files import real_data

from sbt.data.conversations import load, text_twin
from sbt.utils.errors import DataError


def turns(*values: str) -> list[dict]:
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


def good(name: str = "a") -> dict:
    return {"id": name, "image": "one.png", "conversations": turns("<image>\nWhat?", "A cup.", "Sure?", "Yes.")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "one.png")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "two.png")
    return tmp_path


def written(folder: Path, entries: object) -> Path:
    (folder / "data.json").write_text(json.dumps(entries))
    return folder / "data.json"


def test_a_row_becomes_messages_with_the_image_where_it_stood(folder: Path) -> None:
    after = {"id": 7, "image": "two.png", "conversations": turns("What is it?\n<image>", "A hat.")}
    text_only = {"id": "t", "conversations": turns("Hello", "Hi.")}
    rows = load(written(folder, [good(), after, text_only]), folder)
    assert [row["id"] for row in rows] == ["a", "7", "t"]
    assert rows[0]["images"] == [str(folder / "one.png")]
    assert rows[0]["messages"][0] == {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": "\nWhat?"}],
    }
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant"] * 2
    assert rows[1]["messages"][0]["content"] == [{"type": "text", "text": "What is it?\n"}, {"type": "image"}]
    assert rows[2]["images"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversations": turns("<image>\nWhat?")}, "conversation without an answer"),
        ({"conversations": []}, "conversation without an answer"),
        ({"conversations": turns("<image>\nWhat?", "A cup.", "Sure?")}, "conversation without an answer"),
        ({"conversations": turns("<image>\nWhat?", "  ")}, "empty answer"),
        ({"conversations": [*turns("<image>\nWhat?", "A."), {"from": "gpt", "value": "B."}]}, "must alternate"),
        ({"conversations": turns("What?", "A cup.")}, "0 <image> in the human turns but 1 in the field 'image'"),
        ({"conversations": turns("<image><image>", "A cup.")}, "2 <image> in the human turns but 1"),
        ({"image": 7}, "'image' must be a file name or a list of them, found 7"),
        ({"image": None}, "1 <image> in the human turns but 0"),
        ({"conversations": turns("<image>\nWhat?", "An <image>.")}, "may stand in human turns only"),
        ({"conversations": [{"from": "user", "value": "x"}]}, "a turn must be"),
        ({"conversations": "x"}, "no list of 'conversations'"),
        ({"image": "gone.png"}, "gone.png is not in"),
        ({"id": None}, "no 'id'"),
        ({"conversations": turns("<image>\nWhat?", "A \ud800 cup.")}, r"character 2 of a text is \\ud800, half of a"),
        ({"id": "\udfff"}, r"\\udfff, half of a surrogate pair"),
        ({"image": "\udfff.png"}, r"\\udfff, half of a surrogate pair"),
        ({"video": "one.mp4", "image": None, "conversations": turns("<video>\nWhat?", "A cup.")}, "about a video"),
        ({"conversations": turns("<image>\nWhat?", "A cup.", " ", "Yes.")}, "empty question"),
    ],
)
def test_a_bad_row_is_named(folder: Path, change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(written(folder, [good("first"), good("second") | change]), folder)
    assert "data.json: row 1" in str(caught.value)
    assert "id" not in change or "second" not in str(caught.value)


def test_an_image_that_does_not_decode_is_named(folder: Path) -> None:
    whole = (folder / "one.png").read_bytes()
    (folder / "one.png").write_bytes(whole[: len(whole) - 20])
    with pytest.raises(DataError, match=r"row 0 \(id 'a'\): image .*one.png: does not decode"):
        load(written(folder, [good()]), folder)
    (folder / "one.png").write_text("no image")
    with pytest.raises(DataError, match="begins with b'no image'"):
        load(written(folder, [good()]), folder)
    assert len(load(written(folder, [good()]), folder, decode=False)) == 1


def test_repeated_ids_are_refused_or_numbered(folder: Path) -> None:
    file = written(folder, [good("x"), good("x"), good("x")])
    with pytest.raises(DataError, match="id 'x' is used by a row before.*set number_repeated"):
        load(file, folder)
    assert [row["id"] for row in load(file, folder, number_repeated=True)] == ["x", "x#2", "x#3"]


def test_malformed_json_is_placed(folder: Path) -> None:
    file = written(folder, [])
    file.write_text('[\n {"id": "a",\n  "image" "one.png"}]')
    with pytest.raises(DataError, match=r"data.json:3:11: row 0 .byte 25.: malformed JSON"):
        load(file, folder)
    file.write_text('{"id": "a"}')
    with pytest.raises(DataError, match="expected a JSON list of rows.*name the file .jsonl"):
        load(file, folder)


def test_the_text_twin_has_no_trace_of_the_image(folder: Path) -> None:
    entries = [
        good("front"),
        {"id": "back", "image": "two.png", "conversations": turns("What is it?\n<image>", "A hat.")},
        {"id": "both", "image": ["one.png", "two.png"], "conversations": turns("<image>\nand\n<image>\nsame?", "No.")},
        {"id": "none", "conversations": turns("Hello\nthere", "Hi.")},
    ]
    rows = load(written(folder, entries), folder)
    before = json.dumps(rows)
    twins = text_twin(rows)
    assert json.dumps(rows) == before
    assert [twin["id"] for twin in twins] == ["front", "back", "both", "none"]
    assert all(twin["images"] == [] for twin in twins)
    asked = [twin["messages"][0]["content"] for twin in twins]
    assert [part[0]["text"] for part in asked] == ["What?", "What is it?", "and\nsame?", "Hello\nthere"]
    assert all(part["type"] == "text" for twin in twins for turn in twin["messages"] for part in turn["content"])
    assert twins[0]["messages"][1:] == rows[0]["messages"][1:]


def test_a_question_that_is_only_an_image_has_no_twin(folder: Path) -> None:
    rows = load(written(folder, [{"id": "x", "image": "one.png", "conversations": turns("<image>", "A.")}]), folder)
    with pytest.raises(DataError, match="row 'x': a question is nothing but an image"):
        text_twin(rows)


def test_alpaca_joins_instruction_and_input(tmp_path: Path) -> None:
    entries = [
        {"instruction": "Name it.", "input": "a red star", "output": "star"},
        {"instruction": "Say hello.", "input": "", "output": "hello"},
        {"instruction": "Say hello.", "input": " \n", "output": "hello"},
        {"instruction": "Say hello.", "input": "<NoInput>", "output": "hello"},
        {"instruction": "Which tag shows a film?", "input": "", "output": "<video>"},
    ]
    rows = load(written(tmp_path, entries), form="alpaca")
    assert [row["messages"][0]["content"][0]["text"] for row in rows] == [
        "Name it.\na red star", *["Say hello."] * 3, "Which tag shows a film?"]  # fmt: skip
    assert [row["id"] for row in rows] == [f"alpaca-{n}" for n in range(5)]


def test_orca_keeps_the_system_prompt_only_if_there_is_one(tmp_path: Path) -> None:
    file = tmp_path / "orca.jsonl"
    lines = [
        {"id": "o1", "system_prompt": "Be brief.", "question": "Why?", "response": "So."},
        {"id": "o2", "system_prompt": "", "question": "Why?", "response": "So."},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    rows = load(file, form="orca")
    assert [[message["role"] for message in row["messages"]] for row in rows] == [
        ["system", "user", "assistant"],
        ["user", "assistant"],
    ]
    file.write_text(json.dumps(lines[0]) + "\n{broken\n")
    with pytest.raises(DataError, match="orca.jsonl:2"):
        load(file, form="orca")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"instruction": "x", "output": " "}, "empty answer"),
        ({"instruction": "x"}, "no text in 'output'"),
        ({"instruction": "", "output": "y"}, "empty 'instruction'"),
        ({"instruction": "an <image> tag", "output": "y"}, "literal <image>"),
        ("x", "expected an object, found str"),
    ],
)
def test_a_bad_text_row_is_named(tmp_path: Path, entry: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(written(tmp_path, [{"instruction": "a", "output": "b"}, entry]), form="alpaca")
    assert "row 1" in str(caught.value)


def test_the_real_alpaca_file_loads() -> None:

    data = real_data()
    if data is None:
        pytest.skip("no real data folder")
    rows = load(data / "alpaca" / "alpaca_subset_2000_long.json", form="alpaca")
    assert len(rows) == 2000
    asked = [row["messages"][0]["content"][-1]["text"] for row in rows]
    marked = [text for text in asked if "<noinput>" in text]  # a text that ends in the marker stays as it is
    assert len(marked) == 1 and "toy robot" in marked[0] and marked[0].count("\n") == 3
