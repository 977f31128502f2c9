"""Every arm is asked every question under every condition, each distinct pair of picture and question once."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from sbt.benchmarks.common import ask_vision
from sbt.utils.errors import DataError


def test_arms_and_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    asked: list[list[dict]] = []

    def generate(arm: SimpleNamespace, requests: list[dict], *, cache: Path, **size: object) -> list[str]:
        asked.append(requests)
        seen = ["grey" if isinstance(one["image"], Image.Image) else Path(one["image"]).stem for one in requests]
        return [f"{arm.name} {image} {one['text']}" for image, one in zip(seen, requests, strict=True)]

    monkeypatch.setattr(ask_vision.generation, "generate", generate)

    def arms(references: dict[str, str]) -> list[tuple[str, SimpleNamespace]]:
        return [(key, SimpleNamespace(name=ref, conversation=f"style of {ref}")) for key, ref in references.items()]

    monkeypatch.setattr(ask_vision.models, "load_vision_models", arms)
    prompts, pictures = ["p", "q", "p", "p"], ["a.png", "a.png", "b.png", "a.png"]
    answers, styles = ask_vision.ask({"x": "X", "y": "Y"}, prompts, pictures, tmp_path, tmp_path / "c")
    assert styles == {"x": "style of X", "y": "style of Y"}
    assert set(answers) == {(arm, how) for arm in "xy" for how in ("real", "shuffled", "blank")}
    assert answers["x", "real"] == ["X a p", "X a q", "X b p", "X a p"]
    assert answers["y", "shuffled"] == ["Y b p", "Y b q", "Y a p", "Y b p"]
    assert answers["x", "blank"] == ["X grey p", "X grey q", "X grey p", "X grey p"]
    assert {len(requests) for requests in asked} == {3}, "the fourth question was asked before"

    told, styles = ask_vision.ask(
        {"x": "X"}, prompts, pictures, tmp_path, tmp_path / "c", conditions=["real"], protocol="paper",
        demonstrations=[[("a", "b")], [("c", "d")], [], [("a", "c")]],
    )  # fmt: skip
    assert styles == {"x": "v0_eval"}, "the template that the prompts were made with"
    assert told["x", "real"] == ["X a p", "X a q", "X b p", "X a p"]
    assert len(asked[-1]) == 4, "other demonstrations make another question"
    assert len({one["id"] for one in asked[-1]}) == 4
    assert asked[-1][0]["demonstrations"] == (("a", "b"),)


def test_pictures_are_looked_at_before_any_is_asked_about(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "text.jpg").write_text("no picture")
    names = ["text.jpg", "good.png", "absent.png", "good.png"]
    with pytest.raises(DataError, match=r"2 of 3 images cannot be used \(1 missing, 1 not_an_image\)(.|\n)*on_bad"):
        ask_vision.usable(tmp_path, names)
    folder, good, bad = ask_vision.usable(tmp_path, names, "skip")
    assert (folder, good) == (tmp_path, {"good.png": []})
    assert list(zip(bad.picture, bad.kind, strict=True)) == [("absent.png", "missing"), ("text.jpg", "not_an_image")]
    with pytest.raises(DataError, match=r"3 of 3 .* 1 too_small\)"):
        ask_vision.usable(tmp_path, names, "skip", min_side=9)


def test_converted_pictures_are_counted_and_named(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8)).save(tmp_path / "ink.jpg")
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png")
    for k in range(4):
        Image.new("RGBA", (8, 8)).save(tmp_path / f"glass{k}.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    _, good, bad = ask_vision.usable(tmp_path, [path.name for path in tmp_path.iterdir()])
    assert len(good) == 7 and bad.empty
    assert (good["ink.jpg"], good["deep.png"], good["plain.png"]) == (["cmyk"], ["16_bit"], [])
    assert ask_vision.noted(good) == (
        "1 cmyk (ink.jpg), 1 16_bit (deep.png), 4 alpha (glass0.png, glass1.png, glass2.png, ...)"
    )
    assert ask_vision.noted({"plain.png": []}) == "nothing unusual"
