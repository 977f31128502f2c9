"""A toy benchmark: every arm is asked under every condition, each pair of picture and question once, and scored."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from sbt.benchmarks.common import evaluate
from sbt.benchmarks.common.evaluate import evaluate_vision
from sbt.report import stats
from sbt.utils.errors import DataError, ParameterError


class Toy:
    """A benchmark's task in its smallest form."""

    @staticmethod
    def prompt(item: dict, protocol: str = "standard") -> str:
        return item["question"]

    @staticmethod
    def rows(items: list[dict], answers: list[str], *, seed: int, **same: str) -> list[dict]:
        right = [said == item["label"] for item, said in zip(items, answers, strict=True)]
        value, low, high = stats.bootstrap(right, seed=seed)
        measured = {"metric": "accuracy", "value": value, "low": low, "high": high, "n": len(items)}
        return [{"benchmark": "toy", **measured, **same}]

    @staticmethod
    def samples(items: list[dict], answers: list[str], *, protocol: str, **same: str) -> list[dict]:
        return [{**same, "image": item["image"], "answer": said} for item, said in zip(items, answers, strict=True)]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[dict]]:
    """The requests of each call; an arm answers with its name, the picture it is shown, and the question."""
    calls: list[list[dict]] = []
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)

    def generate(arm: SimpleNamespace, requests: list[dict], *, cache: Path, **size: object) -> list[str]:
        calls.append(requests)
        seen = ["grey" if isinstance(one["image"], Image.Image) else Path(one["image"]).stem for one in requests]
        return [f"{arm.name} {image} {one['text']}" for image, one in zip(seen, requests, strict=True)]

    def arms(references: dict[str, str]) -> list[tuple[str, SimpleNamespace]]:
        return [(key, SimpleNamespace(name=ref, conversation="v1")) for key, ref in references.items()]

    monkeypatch.setattr(evaluate.generation, "generate", generate)
    monkeypatch.setattr(evaluate.models, "load_vision_models", arms)
    return calls


def item(image: str, question: str, label: str = "X a p", **more: object) -> dict:
    return {"image": image, "question": question, "label": label, **more}


PARTS = {
    "one": [item("a.png", "p"), item("a.png", "q", "X a q")],
    "two": [item("b.png", "p"), item("a.png", "p")],
}


def test_arms_and_conditions(asked: list, tmp_path: Path) -> None:
    found = evaluate_vision(Toy, PARTS, {"x": "X", "y": "Y"}, tmp_path, tmp_path / "c")
    assert {(arm, shown) for _, _, arm, shown in found.answers} == {
        (arm, shown) for arm in "xy" for shown in ("real", "shuffled", "blank")
    }
    assert found.answers["standard", "two", "x", "real"] == ["X b p", "X a p"]
    assert found.answers["standard", "one", "y", "shuffled"] == ["Y b p", "Y b q"]
    assert found.answers["standard", "two", "x", "blank"] == ["X grey p", "X grey p"]
    assert {len(requests) for requests in asked} == {3}, "the fourth question was asked before"
    values = {(row["arm"], row["subset"]): row["value"] for row in found.rows}
    assert values["x", "one"] == 1.0 and values["x", "two"] == 0.5 and values["x", "two, shuffled"] == 0.5
    assert values["y", "one"] == values["x", "one, blank"] == 0.0
    assert {(row["protocol"], row["n"]) for row in found.rows} == {("standard", 2)}
    assert all(len(row["template_hash"]) == 12 for row in found.rows)
    assert [one["answer"] for one in found.samples][:2] == ["X a p", "X a q"] and len(found.samples) == 24
    assert found.about("two") == {"x": ["X b p", "X a p"], "y": ["Y b p", "Y a p"]}
    assert list(found.scores("subset").columns) == ["x", "y"] and len(found.real_samples()) == 8


def test_protocols_ask_their_own_items_and_parts_may_be_asked_apart(asked: list, tmp_path: Path) -> None:
    shots = [item("a.png", "p", demonstrations=[("a", turn)]) for turn in "bc"]
    found = evaluate_vision(
        Toy, PARTS, {"x": "X"}, tmp_path, tmp_path / "c", protocols=["standard", "paper"], together=False,
        asked={"paper": {"": shots}}, conditions=["real"],
    )  # fmt: skip
    assert [len(requests) for requests in asked] == [2, 2, 2], "other demonstrations make another question"
    assert asked[-1][0]["demonstrations"] == (("a", "b"),) and len({one["id"] for one in asked[-1]}) == 2
    assert found.protocol == "standard" and found.about("", "paper") == {"x": ["X a p", "X a p"]}
    hashes = {row["protocol"]: row["template_hash"] for row in found.rows}
    assert hashes["paper"] != hashes["standard"], "the template that the prompts were made with"
    assert [row["subset"] for row in found.rows] == ["one", "two", "real"]


def test_pictures_may_lie_in_a_folder_a_part_or_in_files_of_other_names(asked: list, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "sub" / "c.png")
    parts = {"one": [item("a.png", "p")], "two": [item("same name", "p", file="c.png")]}
    folders = {"one": tmp_path, "two": tmp_path / "sub"}
    found = evaluate_vision(Toy, parts, {"x": "X"}, folders, tmp_path / "c", conditions=["real"])
    assert found.about("two") == {"x": ["X c p"]} and found.samples[1]["image"] == "same name"


def test_nothing_to_ask_is_an_error(asked: list, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no question is left of two under protocol standard"):
        evaluate_vision(Toy, {**PARTS, "two": []}, {"x": "X"}, tmp_path, tmp_path)
    with pytest.raises(ParameterError, match="protocols is empty"):
        evaluate_vision(Toy, PARTS, {"x": "X"}, tmp_path, tmp_path, protocols=[])
    with pytest.raises(ParameterError, match="'papre' is unknown here; did you mean 'paper'"):
        evaluate_vision(Toy, PARTS, {"x": "X"}, tmp_path, tmp_path, protocols=["papre"])
    assert not asked


def kept(folder: Path, names: list[str], on_bad: str = "stop") -> list[str]:
    """The pictures that are left of one part that asks about all of them."""
    run = SimpleNamespace(p=SimpleNamespace(on_bad=on_bad), progress=None)
    (part,) = evaluate.keep_usable(run, folder, {"": [{"image": name} for name in names]}).values()
    return [item["image"] for item in part]


def test_pictures_are_looked_at_before_any_is_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "text.jpg").write_text("no picture")
    names = ["text.jpg", "good.png", "absent.png", "good.png"]
    with pytest.raises(DataError, match=r"2 of 3 images cannot be used \(1 missing, 1 not_an_image\)(.|\n)*on_bad"):
        kept(tmp_path, names)
    assert kept(tmp_path, names, "skip") == ["good.png", "good.png"]
    told, _, *rows = capsys.readouterr().out.splitlines()
    assert told == "1 pictures can be used, 2 cannot; nothing unusual"
    assert [row.split()[:2] for row in rows] == [["absent.png", "missing"], ["text.jpg", "not_an_image"]]
    with pytest.raises(DataError, match=r"1 of 1 .*1 missing\)"):
        kept(tmp_path, ["absent.png"], "skip")


def test_converted_pictures_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Image.new("CMYK", (8, 8)).save(tmp_path / "ink.jpg")
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png")
    for k in range(4):
        Image.new("RGBA", (8, 8)).save(tmp_path / f"glass{k}.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    assert len(kept(tmp_path, [path.name for path in tmp_path.iterdir()])) == 7
    noted = "1 cmyk (ink.jpg), 1 16_bit (deep.png), 4 alpha (glass0.png, glass1.png, glass2.png, ...)"
    assert capsys.readouterr().out == f"7 pictures can be used, 0 cannot; {noted}\n"
