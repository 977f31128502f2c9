"""Rows of large files, one at a time: the right ones across every chunk border, and the right place of a fault."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from sbt.data import json_stream
from sbt.data.json_stream import JsonLines, JsonList, ParquetRows, reader
from sbt.utils.errors import DataError

ROWS = [
    {"id": 1, "text": 'a "quoted" \\ é 漢字 😀 <image>\n', "deep": [{"x": [1, -2.5e3, None, True]}]},
    {"id": "zwei", "text": "}{][,"},
    17,
    -2.5e3,
    "text",
    [],
    None,
    {"id": 3, "text": "x" * 50},
]


@pytest.fixture(params=[1, 2, 7, 64, 2**20])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(json_stream, "CHUNK", request.param)
    return request.param


def written(folder: Path, text: str | bytes, name: str = "a.json") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


@pytest.mark.parametrize("dump", [{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}])
def test_every_row_whatever_the_chunks_and_the_spaces(tmp_path: Path, chunk: int, dump: dict) -> None:
    file = written(tmp_path, f" \n{json.dumps(ROWS, **dump)}\n\n")
    assert list(JsonList(file)) == list(enumerate(ROWS))
    assert list(JsonList(written(tmp_path, "\ufeff[ ]"))) == []


def test_json_lines_give_the_same_rows_and_a_reader_can_be_read_again(tmp_path: Path, chunk: int) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in ROWS)
    for file in (written(tmp_path, f"\ufeff{lines}", "a.jsonl"), written(tmp_path, json.dumps(ROWS))):
        rows = reader(file)
        assert list(rows) == list(rows) == list(enumerate(ROWS)) and 0 <= rows.share() <= 1


@pytest.mark.parametrize(
    ("text", "line", "row", "words"),
    [
        ('[\n{"a": 1},\n{"a": "b}\n]', 3, 1, "Invalid control character"),
        ('[\n{"a": 1},\n{"a": "b}', 3, 1, "Unterminated string"),
        ('[\n{"a": 1},\n{"a" 2},\n{"a": 3}]', 3, 1, "Expecting ':'"),
        ('[\n{"a": 1}\n{"a": 2}]', 3, 1, "expected a comma"),
        ('[{"a": 1},\n]', 2, 1, "a comma before the end"),
        ('[{"a": 1},\n{"a": 2}', 2, 2, "cut off"),
        ('[{"a": 1},\n{"a": [2', 2, 1, "Expecting ',' delimiter"),
        ('[{"a": 1}]\n[]', 2, 1, "text after the end"),
        ('[{"a": 1},\n{"a": nul}]', 2, 1, "Expecting value"),
        ('[{"a": 1},\n' + "[" * 100_000, 2, 1, "recursion"),
        ('[{"a": 1},\n' + "1" * 5_000 + "]", 2, 1, "integer string"),
    ],
)
def test_what_is_broken_is_named_by_line_and_row(
    tmp_path: Path, chunk: int, text: str, line: int, row: int, words: str
) -> None:
    with pytest.raises(DataError, match=rf"a\.json:{line}:\d+: row {row} \(byte \d+\): malformed JSON") as raised:
        list(JsonList(written(tmp_path, text)))
    assert words in str(raised.value)


def test_one_broken_row_near_the_end_of_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 2**16)
    rows = [json.dumps({"id": number, "text": "wörd " * 20}, ensure_ascii=False) for number in range(20_000)]
    rows[19_987] = rows[19_987].replace('"text":', '"text"')
    text = "[\n" + ",\n".join(rows) + "\n]"
    file, read = written(tmp_path, text), 0
    with pytest.raises(DataError, match=r":19989:\d+: row 19987 \(byte") as raised:
        for read, _ in enumerate(JsonList(file), start=1):  # noqa: B007
            pass
    assert read == 19_987
    byte = int(str(raised.value).partition("(byte ")[2].partition(")")[0])
    assert file.read_bytes()[byte - 7 : byte + 1] == b'"text" "'


def test_the_text_in_hand_stays_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 1000)
    file = written(tmp_path, json.dumps([{"id": number} for number in range(5000)]))
    rows = JsonList(file)
    assert max(len(rows._text) for _ in rows) < 5000 < file.stat().st_size / 10
    monkeypatch.setattr(json_stream, "LONGEST", 10_000)
    open_end = JsonList(written(tmp_path, '[{"a": "' + "x" * 100_000))
    with pytest.raises(DataError, match="row 0 .*Unterminated string"):
        list(open_end)
    assert len(open_end._text) < 20_000, "a string without an end drew in the whole file"


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    for text, words in (('{"a": []}', "expected a JSON list"), ("", "expected a JSON list"), ("<html>", "<html>")):
        with pytest.raises(DataError, match=words):
            list(JsonList(written(tmp_path, text)))
    with pytest.raises(DataError, match="row 1, byte 12: not UTF-8"):
        list(JsonList(written(tmp_path, b'[{"a": 1}, "\xff"]')))
    with pytest.raises(DataError, match="not exist|No such"):
        list(JsonList(tmp_path / "none.json"))
    with pytest.raises(DataError, match="only"):
        reader(tmp_path / "a.csv")


def test_json_lines_name_line_and_row(tmp_path: Path) -> None:
    file = written(tmp_path, '{"a": 1}\n\n{"a": 2}\n{"a" 3}\n', "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl:4: row 2: malformed JSON line"):
        list(JsonLines(file))
    with pytest.raises(DataError, match="row 0: malformed"):
        list(JsonLines(written(tmp_path, b'{"a": "\xff"}', "b.jsonl")))


def test_parquet_rows(tmp_path: Path) -> None:
    rows = [{"id": number, "pairs": [["q", str(number)]]} for number in range(2500)]
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), file, row_group_size=700)
    found = ParquetRows(file)
    assert list(found) == list(enumerate(rows)) and found.share() == 1
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="row 0: cannot be read as Parquet"):
        list(ParquetRows(file))
