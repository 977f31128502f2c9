"""Data preparation survives what real files hold: faults named by file and row, and nothing half-written."""

import functools
import json
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import tiny
from test_image_zip import packed, picture
from tiny_fixtures import small  # noqa: F401 - a fixture

from sbt.data import conversations, prepare
from sbt.data.image_zip import open_image
from sbt.utils.errors import DataError, ParameterError, RunError
from sbt.utils.files import read_json, read_jsonl


def row(number: int, **change: object) -> dict:
    asked, answer = {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": f"Number {number}."}
    return {"id": f"r{number}", "image": f"{number % 20}.jpg", "conversations": [asked, answer]} | change


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return packed(tmp_path / "images.zip", {f"train2017/{n}.jpg": picture(number=n) for n in range(20)})


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "BATCH", 10)


def written(folder: Path, rows: list, name: str = "chat.json") -> Path:
    file = folder / name
    file.write_text(json.dumps(rows, indent=1))
    return file


def run(file: Path, images: Path, **settings: object) -> dict:
    return prepare.prepare([file], file.parent / "out", images=[images], **settings)


def words(rows: list[dict]) -> list[int]:
    return [
        sum(len(part.get("text", "").split()) for turn in row["messages"] for part in turn["content"]) for row in rows
    ]


def test_rows_are_those_of_the_loader_and_map_from_the_disk(tmp_path: Path, images: Path) -> None:
    file = written(tmp_path, [row(n) for n in range(120)])
    with zipfile.ZipFile(images) as opened:
        opened.extractall(tmp_path)
    manifest = run(file, images)
    loaded = conversations.load(file, tmp_path / "train2017")
    prepared = prepare.load(tmp_path / "out")
    assert set(prepared.column_names) == {"id", "images", "messages"}
    for ours, theirs in zip(prepared, loaded, strict=True):
        for turn in ours["messages"]:
            turn["content"] = [{k: v for k, v in part.items() if v is not None} for part in turn["content"]]
        inside = [open_image(ref).tobytes() for ref in ours.pop("images")]
        assert inside == [open_image(path).tobytes() for path in theirs.pop("images")] and ours == theirs
    assert prepared.to_list() == datasets.load_from_disk(str(tmp_path / "out")).to_list()
    assert manifest == read_json(tmp_path / "out" / "manifest.json")
    assert manifest["counts"] == {"read": 120, "kept": 120, "dropped": 0, "answers": 120, "images": 20}
    assert sorted(path.name for path in tmp_path.glob(".*")) == [], "the state of the run stays behind"


FAULTS = {
    "row": {"conversations": [{"from": "gpt", "value": "A"}, {"from": "human", "value": "B"}]},
    "image missing": {"image": "99.jpg"},
    "image refused": {"image": "../../etc/passwd"},
    "image damaged": {"image": "text.jpg"},
    "repeated id": {"id": "r0"},
}


@pytest.mark.parametrize("kind", [*FAULTS, "cut"])
def test_each_fault_is_named_with_file_and_row_and_counted(tmp_path: Path, kind: str) -> None:
    whole = picture(size=(200, 150))
    members = {f"{n}.jpg": picture(number=n) for n in range(20)}
    members |= {"text.jpg": b"404 not found", "cut.jpg": whole[: len(whole) // 2], "../../etc/passwd": whole}
    images = packed(tmp_path / "images.zip", members)
    fault = {"image": "cut.jpg"} if kind == "cut" else FAULTS[kind]
    rows = [row(n) for n in range(60)]
    rows[57] |= fault
    name = rows[57]["id"]
    file = written(tmp_path, rows)
    with pytest.raises(DataError, match=rf"chat\.json: row 57 \(id '{name}'\): "):
        run(file, images)
    assert not (tmp_path / "out").exists()
    manifest = run(file, images, on_bad="skip")
    kind = "image damaged" if kind == "cut" else kind
    assert manifest["drops"] == {kind: 1} and manifest["counts"]["kept"] == 59
    (dropped,) = read_jsonl(tmp_path / "out" / "dropped.jsonl")
    assert (dropped["row"], dropped["id"], dropped["kind"]) == (57, name, kind) and "chat.json" in dropped["file"]
    assert manifest["dropped"] == [dropped] and manifest["refused_members"][str(images)] == ["../../etc/passwd"]
    assert "r57" not in prepare.load(tmp_path / "out")["id"][:]


def test_ids_named_by_image_are_numbered_on_request(tmp_path: Path, images: Path) -> None:
    file = written(tmp_path, [row(n, id=f"i{n % 55}") for n in range(120)])
    run(file, images, number_repeated=True)
    found = prepare.load(tmp_path / "out")["id"][:]
    expected = [f"i{n % 55}" + (f"#{n // 55 + 1}" if n >= 55 else "") for n in range(120)]
    assert found == expected


def test_long_rows_are_dropped_counted_and_never_cut(tmp_path: Path, images: Path) -> None:
    rows = [row(n) for n in range(30)]
    rows[3]["conversations"][1]["value"] = "word " * 7
    rows[4]["conversations"][1]["value"] = long = "word " * 6
    manifest = run(written(tmp_path, rows), images, lengths=words, counted_by="words", limit=7)
    assert manifest["drops"] == {"too long": 1} and manifest["dropped"][0]["row"] == 3
    assert "8 tokens, the limit is 7" in manifest["dropped"][0]["reason"] and manifest["tokens"]["longest"] == 7
    prepared = prepare.load(tmp_path / "out")
    assert prepared["tokens"][:5] == [3, 3, 3, 7, 3] and prepared[3]["messages"][1]["content"][0]["text"] == long
    with pytest.raises(ParameterError, match="counted_by"):
        run(tmp_path / "chat.json", images, lengths=words)
    with pytest.raises(ParameterError, match="lengths"):
        run(tmp_path / "chat.json", images, limit=7)


def test_what_is_finished_is_not_done_again_unless_something_changed(tmp_path: Path, images: Path) -> None:
    rows, done, seen = [row(n) for n in range(130)], [], []
    file = written(tmp_path, rows)
    settings = dict(lengths=lambda batch: done.append(len(batch)) or words(batch), counted_by="words")
    manifest = run(file, images, **settings, progress=lambda *at: seen.append(at))
    assert sum(done) == 130 and seen == sorted(seen) and seen[-1] == (file.stat().st_size,) * 2
    done.clear()
    assert run(file, images, **settings) == manifest and not done, "what is finished was done again"
    rows[2]["conversations"][1]["value"] = "Other."
    run(written(tmp_path, rows), images, **settings)
    assert sum(done) == 130 and prepare.load(tmp_path / "out")[2]["messages"][1]["content"][0]["text"] == "Other."


def test_the_first_bad_row_in_file_order_stops(tmp_path: Path, images: Path) -> None:
    rows = [row(n) for n in range(60)]
    rows[3]["image"], rows[4]["conversations"] = "99.jpg", []
    rows[21] |= {"id": "r0"}
    with pytest.raises(DataError, match="row 3 "):
        run(written(tmp_path, rows), images)
    manifest = run(tmp_path / "chat.json", images, on_bad="skip")
    assert [one["row"] for one in manifest["dropped"]] == [3, 4, 21] and manifest["counts"]["kept"] == 57


def test_unusual_rows_are_dropped_or_accepted_on_purpose_and_counted(tmp_path: Path, images: Path) -> None:
    rows = [row(n) for n in range(8)]
    rows[1]["conversations"][1]["value"] = "half \ud83d"
    rows[2]["id"] = "\udc00"
    rows[3] |= {"video": "a.mp4"}
    rows[4]["conversations"] += [{"from": "human", "value": ""}, {"from": "gpt", "value": "Yes."}]
    rows[5]["conversations"][1]["value"] = "\u200b\ufeff"
    rows[6]["id"] = True
    rows[7]["conversations"][0]["value"] = "<image>\nA <video> or an <audio>?"
    file = written(tmp_path, rows)
    with pytest.raises(DataError, match=r"chat\.json: row 1 \(id 'r1'\): character 5 of a text is \\ud83d"):
        run(file, images)
    manifest = run(file, images, on_bad="skip")
    assert manifest["drops"] == {"row": 3, "surrogate": 2, "video": 1} and manifest["counts"]["kept"] == 2
    assert manifest["accepted"] == {"<audio> taken for words": 1, "<video> taken for words": 1}
    texts = [{"instruction": "Say it.", "input": text, "output": "It."} for text in ("", " ", "<noinput>", "now")]
    manifest = prepare.prepare([written(tmp_path, texts, "alpaca.json")], tmp_path / "alpaca", form="alpaca")
    assert manifest["accepted"] == {"input blank taken for none": 1, "input <noinput> taken for none": 1}
    asked = [one["messages"][0]["content"][0]["text"] for one in prepare.load(tmp_path / "alpaca")]
    assert asked == ["Say it."] * 3 + ["Say it.\nnow"]


def test_a_png_damaged_in_the_middle_is_found(tmp_path: Path) -> None:
    whole = picture("PNG", (64, 64))
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    (tmp_path / "pictures").mkdir()
    for name, data in (("0.jpg", whole), ("1.jpg", bytes(damaged))):
        (tmp_path / "pictures" / name).write_bytes(data)
    packed(tmp_path / "i.zip", {"0.jpg": whole, "1.jpg": bytes(damaged)})
    file = written(tmp_path, [row(0), row(1)])
    for place in ("pictures", "i.zip"):
        manifest = run(file, tmp_path / place, on_bad="skip")
        assert manifest["drops"] == {"image damaged": 1} and manifest["dropped"][0]["row"] == 1
        assert "does not decode" in manifest["dropped"][0]["reason"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_run_leaves_no_result_and_the_next_one_is_whole(tmp_path: Path, images: Path) -> None:
    file, seen = written(tmp_path, [row(n) for n in range(120)]), []

    def die(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 8:
            os._exit(9)

    if (child := os.fork()) == 0:
        try:
            run(file, images, progress=die)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (tmp_path / ".out.partial" / "rows.arrow").is_file() and not (tmp_path / "out").exists()
    assert run(file, images)["counts"]["kept"] == 120
    assert prepare.load(tmp_path / "out")["id"][:] == [f"r{n}" for n in range(120)]
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "out" / "rows.arrow").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_disk_that_fills_in_the_middle_is_one_error(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, [row(n) for n in range(120)])
    full = functools.partial(open, "/dev/full")
    monkeypatch.setattr(prepare, "open", lambda path, mode: full(mode), raising=False)
    with pytest.raises(RunError, match=r"rows\.arrow: the disk is full. Free some space and repeat"):
        run(file, images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chat.json", "images.zip"]


def test_too_small_a_disk_is_said_before_the_start(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare.env, "free_gb", lambda folder: 1e-9)
    with pytest.raises(RunError, match="GB are needed"):
        run(written(tmp_path, [row(0)]), images)
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.partial").exists()


def test_a_broken_file_stops_both_ways_and_a_foreign_folder_is_left_alone(tmp_path: Path, images: Path) -> None:
    file = written(tmp_path, [row(n) for n in range(70)])
    file.write_text(file.read_text()[:-40])
    for on_bad in ("stop", "skip"):
        with pytest.raises(DataError, match=r"chat\.json:\d+:\d+: row 69 \(byte"):
            run(file, images, on_bad=on_bad)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ParameterError, match="holds no prepared data"):
        run(written(tmp_path, [row(0)]), images)
    with pytest.raises(DataError, match="no row is left of 1.*\n.*row 0"):
        prepare.prepare([written(tmp_path, [row(0)])], tmp_path / "new", on_bad="skip")
    with pytest.raises(ParameterError, match="did you mean 'skip'"):
        run(file, images, on_bad="skp")


FORMS = {
    "alpaca": ([{"instruction": "Add.", "input": "1 1", "output": "2"}], ("Add.\n1 1", "2"), "alpaca-0"),
    "orca": ([{"id": "t0.1", "system_prompt": "", "question": "Q?", "response": "A."}], ("Q?", "A."), "t0.1"),
    "sharegpt": (
        [{"conversations": [{"from": "human", "value": "Q?", "weight": 0.0}, {"from": "gpt", "value": "A."}]}],
        ("Q?", "A."),
        "row-0",
    ),
    "scigraphqa": ([{"id": "p1", "image_file": "1.jpg", "q_a_pairs": [["Q?", "A."]]}], ("\nQ?", "A."), "p1"),
    "lrv": ([{"image_id": "1", "question": "Q?", "answer": "A.", "task": "negative"}], ("\nQ?", "A."), "lrv-0"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_the_same_kind_of_row(tmp_path: Path, images: Path, form: str) -> None:
    rows, said, name = FORMS[form]
    run(written(tmp_path, rows), images, form=form)
    (found,) = prepare.load(tmp_path / "out").to_list()
    assert found["id"] == name and len(found["images"]) == (form in ("scigraphqa", "lrv"))
    assert tuple(turn["content"][-1]["text"] for turn in found["messages"]) == said
    assert [turn["role"] for turn in found["messages"]] == ["user", "assistant"]
    for broken in (dict.fromkeys(rows[0]), 3):
        with pytest.raises(DataError, match=r"chat\.json: row 1"):
            run(written(tmp_path, [*rows, broken]), images, form=form)


def test_counted_lengths_are_those_of_the_collator(small: SimpleNamespace) -> None:  # noqa: F811
    from sbt.models import assemble
    from sbt.training.collator import Collator
    from sbt.training.inspect import counter

    model, processor = assemble(small.llm, small.clip)
    rows = tiny.rows(small.images, 6)
    collate = Collator(processor, "v1")
    expected = [collate([one])["input_ids"].shape[1] for one in rows]
    count = counter(processor.tokenizer, "v1", model.config.image_seq_length)
    assert count(rows) == expected and len(set(expected)) > 1
    with pytest.raises(ParameterError, match="image_tokens"):
        counter(processor.tokenizer, "v1")(rows)


def test_marks_around_an_image_are_two_tokens(small: SimpleNamespace) -> None:  # noqa: F811
    from sbt.training.inspect import counter_of

    rows = tiny.rows(small.images, 6)
    counters = [counter_of(str(small.llm), str(small.clip), "v1", image_markers=given) for given in (False, True)]
    plain, marked = (counter(rows) for counter in counters)
    assert [more - less for less, more in zip(plain, marked, strict=True)] == [2 * len(row["images"]) for row in rows]
