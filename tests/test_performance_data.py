"""The measured files are of the kind and size they claim, and a way of preparing them reports its cost."""

from pathlib import Path

import pytest
from sbt.training.profiling_data import WAYS, generate, llama_like, measure

from sbt.data import prepare
from sbt.data.json_stream import reader
from sbt.training import profiling_data
from sbt.utils.errors import RunError


def test_generated_rows_are_of_the_80k_kind_and_the_same_again(tmp_path: Path) -> None:
    chat, images = generate(tmp_path / "a", 400, 30)
    assert [path.read_bytes() for path in generate(tmp_path / "b", 400, 30)] == [
        chat.read_bytes(),
        images.read_bytes(),
    ]
    assert 1400 < chat.stat().st_size / 400 < 1800  # 131 MB of 80,000
    turns = [len(row["conversations"]) for _, row in reader(chat)]
    assert turns[1::2] == [2] * 200 and set(turns[0::2]) == {8, 10, 12}


def test_a_tokenizer_of_llamas_kind_knows_its_words() -> None:
    tokenizer = llama_like(["table", "red"])
    found = tokenizer.tokenize("red table")
    assert found == ["▁red", "▁table"] and tokenizer.tokenize("é")[-2:] == ["<0xC3>", "<0xA9>"]


def test_a_way_runs_in_a_process_of_its_own_and_a_failure_is_said(tmp_path: Path) -> None:
    frame = measure(tmp_path, 300, images=30, ways=WAYS[2:3])
    (row,) = frame.to_dict("records")
    assert row["rows"] == 300 and row["rows/s"] == pytest.approx(300 / row["seconds"]) and 0.05 < row["peak GB"] < 1.5
    again = measure(tmp_path, 300, images=30, ways=WAYS[2:3])
    assert again["CPU seconds"][0] > 0.3 * row["CPU seconds"], "what was prepared before was not prepared again"
    assert len(prepare.load(tmp_path / "prepared")) == 300
    (tmp_path / "images-30.zip").write_bytes(b"no zip")
    with pytest.raises(RunError, match="(?s)measuring.*no whole zip file"):
        measure(tmp_path, 300, images=30, ways=WAYS[1:2])
    assert profiling_data.IMAGE_TOKENS == (224 // 14) ** 2
