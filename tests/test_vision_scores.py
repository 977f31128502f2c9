"""Every arm is asked every question under every condition, each distinct pair of picture and question once."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from sbt import vision_scores


def test_arms_and_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    asked: list[list[dict]] = []

    def generate(arm: SimpleNamespace, requests: list[dict], *, cache: Path, **size: object) -> list[str]:
        asked.append(requests)
        seen = ["grey" if isinstance(one["image"], Image.Image) else Path(one["image"]).stem for one in requests]
        return [f"{arm.name} {image} {one['text']}" for image, one in zip(seen, requests, strict=True)]

    monkeypatch.setattr(vision_scores.generation, "generate", generate)
    monkeypatch.setattr(
        vision_scores.models, "load_arm", lambda ref: SimpleNamespace(name=ref, conversation=f"style of {ref}")
    )
    prompts, pictures = ["p", "q", "p", "p"], ["a.png", "a.png", "b.png", "a.png"]
    answers, styles = vision_scores.ask({"x": "X", "y": "Y"}, prompts, pictures, tmp_path, tmp_path / "c")
    assert styles == {"x": "style of X", "y": "style of Y"}
    assert set(answers) == {(arm, how) for arm in "xy" for how in ("real", "shuffled", "blank")}
    assert answers["x", "real"] == ["X a p", "X a q", "X b p", "X a p"]
    assert answers["y", "shuffled"] == ["Y b p", "Y b q", "Y a p", "Y b p"]
    assert answers["x", "blank"] == ["X grey p", "X grey q", "X grey p", "X grey p"]
    assert {len(requests) for requests in asked} == {3}, "the fourth question was asked before"
