"""TruthfulQA's two files: which version of several, and the CSV that belongs to a task file."""

import json
from pathlib import Path

import pytest
from real_files import real_data

from sbt.benchmarks.truthfulqa import files
from sbt.microworld import facts, text_benchmarks
from sbt.utils.errors import DataError
from sbt.utils.files import write_csv, write_json

DATA = real_data()
needs_data = pytest.mark.skipif(DATA is None, reason="the real TruthfulQA files are not here (SBT_DATA)")
HEADER = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"


def task(folder: Path, name: str, *questions: str) -> str:
    """Write a task file; its version."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"question": q, "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"a": 1, "b": 0}} for q in questions]
    (folder / name).write_text(json.dumps(rows))
    return files.version_of(files.read_items(folder / name))


def table(folder: Path, name: str, *questions: str, best: str = "a") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"x,y,{question},{best},{best},b,z\n" for question in questions]
    (folder / name).write_text(HEADER + "".join(lines))


def asked(rows: list[dict]) -> list[str]:
    return [row["question"] for row in rows]


def test_one_version_needs_no_name(tmp_path: Path) -> None:
    own = task(tmp_path, "mc_task.json", "Why?", "How?")
    table(tmp_path, "TruthfulQA.csv", "How?", "Why?")
    for source in (tmp_path, tmp_path / "mc_task.json", str(tmp_path)):
        for version in ("", own):
            items, docs, found = files.load(source, version)
            assert (asked(items), asked(docs), found) == (["Why?", "How?"], ["How?", "Why?"], own)
    assert own.startswith("other-")


def test_of_several_versions_one_is_named(tmp_path: Path) -> None:
    one = task(tmp_path, "mc_task_a.json", "Why?", "How?")
    other = task(tmp_path, "mc_task_b.json", "Who?")
    table(tmp_path, "TruthfulQA_a.csv", "Why?", "How?")
    table(tmp_path, "TruthfulQA_b.csv", "Who?")
    held = ", ".join(sorted([one, other]))
    assert one != other
    for version, questions in ((one, ["Why?", "How?"]), (other, ["Who?"])):
        items, docs, found = files.load(tmp_path, version)
        assert asked(items) == asked(docs) == questions and found == version
    with pytest.raises(DataError, match=f"holds {held}, and truthfulqa_version names none. Set truthfulqa_version"):
        files.load(tmp_path)
    with pytest.raises(DataError, match=f"holds {held}, none of them '2021-09'. Set truthfulqa_version, or name"):
        files.load(tmp_path, "2021-09")
    assert asked(files.load(tmp_path / "mc_task_b.json")[0]) == ["Who?"]
    with pytest.raises(DataError, match=f"mc_task_b.json holds {other}, none of them '{one}'"):
        files.load(tmp_path / "mc_task_b.json", one)


def test_the_same_file_twice_is_no_choice(tmp_path: Path) -> None:
    own = task(tmp_path, "mc_task.json", "Why?")
    task(tmp_path, "mc_task_copy.json", "Why?")
    with pytest.raises(DataError, match=f"holds {own}, {own}, 2 of them '{own}'. Set truthfulqa_version, or name"):
        files.load(tmp_path, own)


def test_the_csv_may_be_missing_or_that_of_another_version(tmp_path: Path) -> None:
    task(tmp_path, "mc_task.json", "Why?", "How?")
    assert files.load(tmp_path)[1] == []
    table(tmp_path, "TruthfulQA.csv", "Why?")
    assert files.load(tmp_path)[1] == []
    table(tmp_path / "below", "TruthfulQA_all.csv", "Why?", "How?")
    assert asked(files.load(tmp_path)[1]) == ["Why?", "How?"]


def test_of_two_csvs_the_one_of_the_same_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task(tmp_path, "mc_task.json", "Why?")
    table(tmp_path, "TruthfulQA_1.csv", "Why?", best="a")
    table(tmp_path, "TruthfulQA_2.csv", "Why?", best="c")
    rows = files.read_csv(tmp_path / "TruthfulQA_2.csv")
    assert files.load(tmp_path)[1] != rows, "the control"
    monkeypatch.setattr(files, "version_of", lambda items: "2021-10")
    assert files.load(tmp_path)[1] == [], "a CSV of another version is not taken for a published one"
    versions = {row["best_answer"]: name for row, name in zip(rows, ["2021-10"], strict=True)}
    monkeypatch.setattr(files, "csv_version", lambda found: versions.get(found[0]["best_answer"], "2021-09"))
    assert files.load(tmp_path)[1] == rows


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no mc_task\*.json"):
        files.load(tmp_path)
    with pytest.raises(DataError, match="nothing.json does not exist"):
        files.load(tmp_path / "nothing.json")
    task(tmp_path, "mc_task.json", "Why?")
    (tmp_path / "TruthfulQA.csv").write_text("Question\nWhy?\n")
    with pytest.raises(DataError, match="TruthfulQA.csv: no column 'Best Answer'"):
        files.load(tmp_path)


def test_the_micro_world_has_both(tmp_path: Path) -> None:
    write_json(tmp_path / "mc_task.json", facts.multiple_choice())
    write_csv(tmp_path / "truthfulqa" / "TruthfulQA.csv", text_benchmarks.truthfulqa())
    items, docs, version = files.load(tmp_path / "mc_task.json")
    assert asked(items) == asked(docs) and len(docs) > 50 and version.startswith("other-")


@needs_data
@pytest.mark.parametrize(("version", "count"), [("2021-09", 817), ("2025-01", 790)])
def test_the_real_versions_come_with_their_own_csv(version: str, count: int) -> None:
    items, docs, found = files.load(DATA / "truthfulqa", version)
    assert (len(items), len(docs), found, files.csv_version(docs)) == (count, count, version, version)
    with pytest.raises(DataError, match="holds 2021-09, 2025-01, and truthfulqa_version names none"):
        files.load(DATA / "truthfulqa")
