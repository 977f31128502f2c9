"""Seeded samples: which rows, how often, in what words; and the text-only twin of a set on disk."""

import json
from pathlib import Path

import datasets
import pytest
from test_image_zip import packed, picture

from sbt.data import conversations, prepare
from sbt.data.training_sets import draw, twin
from sbt.utils.errors import ParameterError


def rows(count: int, prefix: str = "r") -> list[dict]:
    content = [{"type": "text", "text": "Q"}], [{"type": "text", "text": "A"}]
    messages = [{"role": role, "content": part} for role, part in zip(("user", "assistant"), content, strict=True)]
    return [{"id": f"{prefix}{number}", "images": [], "messages": messages} for number in range(count)]


def test_a_sample_has_each_row_once_in_order_and_the_seed_decides_which() -> None:
    found = draw(rows(100), 30, seed=1)
    assert len(set(found.positions)) == 30 and found.positions == sorted(found.positions)
    assert [row["id"] for row in found.rows] == [f"r{n}" for n in found.positions]
    assert found.counts["duplicates"] == 0 and found.stated() == "30 rows of 100, none twice"
    assert draw(rows(100), 30, seed=1).positions == found.positions != draw(rows(100), 30, seed=2).positions
    assert draw(rows(100), 100, seed=1).positions == list(range(100))


def test_more_rows_than_there_are_only_when_asked_and_stated_as_duplicates() -> None:
    with pytest.raises(ParameterError, match="80 of 52 Alpaca cannot be drawn .* ask for 1 to 52, or set repeat"):
        draw(rows(52), 80, seed=0, name="Alpaca")
    found = draw(rows(52), 80, seed=0, repeat=True)
    assert found.stated() == "80 rows of 52: 28 are duplicates, 52 rows 1 to 2 times"
    ids = [row["id"] for row in found.rows]
    assert len(set(ids)) == 80 and sum(name.endswith("#2") for name in ids) == 28
    assert {found.positions.count(n) for n in range(52)} == {1, 2}
    assert draw(rows(3), 7, seed=0, repeat=True).counts == {
        "rows": 7, "of": 3, "different": 3, "duplicates": 4, "most_copies": 3}  # fmt: skip
    for wrong in (0, -1):
        with pytest.raises(ParameterError, match="ask for 1 to"):
            draw(rows(3), wrong, seed=0, repeat=True)


@pytest.fixture
def mapped(tmp_path: Path) -> datasets.Dataset:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cup."}]
    entries = [{"id": f"r{n}", "image": "a.jpg", "conversations": turns} for n in range(30)]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    images = packed(tmp_path / "i.zip", {"a.jpg": picture()})
    count = dict(lengths=lambda batch: [7] * len(batch), counted_by="nobody")
    prepare.prepare([tmp_path / "a.json"], tmp_path / "out", images=[images], **count)
    return prepare.load(tmp_path / "out")


def test_a_set_on_disk_is_sampled_as_a_list_is(mapped: datasets.Dataset, capfd: pytest.CaptureFixture) -> None:
    for count, repeat in ((10, False), (50, True)):
        on_disk, listed = (draw(one, count, seed=5, repeat=repeat) for one in (mapped, mapped.to_list()))
        assert isinstance(on_disk.rows, datasets.Dataset)
        assert on_disk.rows.to_list() == listed.rows and on_disk.counts == listed.counts
        assert on_disk.rows.column_names == mapped.column_names
    assert "%" not in capfd.readouterr().err, "a progress bar was shown"


def test_the_twin_of_a_set_on_disk_keeps_ids_and_order(mapped: datasets.Dataset) -> None:
    blind = twin(mapped)
    assert blind["id"][:] == mapped["id"][:] and not any(blind["images"]) and "tokens" not in blind.column_names
    assert blind[0]["messages"][0]["content"] == [{"type": "text", "text": "What?"}]
    expected = conversations.text_twin(mapped.remove_columns("tokens").to_list())
    assert blind.to_list() == expected == twin(mapped.remove_columns("tokens").to_list())
